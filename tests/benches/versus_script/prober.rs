//! What the users of an application see of a switch.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    sync::mpsc,
    time::timeout,
};

/// A new visitor comes so often, whether or not those before were served.
const PERIOD: Duration = Duration::from_millis(3);
/// A visitor waits so long.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longer than any switch here takes.
const BOUND: Duration = Duration::from_mins(1);

/// Visits one address, each time on a new connection, on threads of its own.
pub(crate) struct Prober {
    runtime: Runtime,
    address: SocketAddr,
}

/// Of one switch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The new version's first answer.
    pub(crate) new_at: Instant,
    /// Between the old version's last answer and the new one's first.
    pub(crate) silent: Duration,
}

/// Visits under way; dropping it ends them.
pub(crate) struct Visits {
    answers: mpsc::UnboundedReceiver<(Instant, String)>,
}

impl Prober {
    pub(crate) fn new(port: u16) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, address: SocketAddr::from(([127, 0, 0, 1], port)) })
    }

    pub(crate) fn begin(&self) -> Visits {
        let (sender, answers) = mpsc::unbounded_channel();
        let address = self.address;
        self.runtime.spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !sender.is_closed() {
                ticks.tick().await;
                let sender = sender.clone();
                tokio::spawn(async move {
                    if let Ok(Ok(body)) = timeout(PATIENCE, visit(address)).await {
                        // The measurement may be over.
                        let _ = sender.send((Instant::now(), body));
                    }
                });
            }
        });
        Visits { answers }
    }

    pub(crate) fn end(self) {
        self.runtime.shutdown_background();
    }
}

impl Visits {
    /// Returns at the first answer of whatever runs.
    pub(crate) async fn any(&mut self) -> Result<(), String> {
        let answered = timeout(BOUND, self.answers.recv()).await.map_err(|_| "nothing answers")?;
        answered.map(|_| ()).ok_or_else(|| "the prober has ended".to_owned())
    }

    /// Returns at the first answer of `new`.
    pub(crate) async fn until(mut self, new: &str) -> Result<Seen, String> {
        let mut last = Instant::now();
        let watching = async {
            loop {
                let (at, body) = self.answers.recv().await.ok_or("the prober has ended")?;
                if body == new {
                    return Ok(Seen { new_at: at, silent: at.duration_since(last) });
                }
                last = at;
            }
        };
        timeout(BOUND, watching).await.map_err(|_| format!("`{new}` was never answered"))?
    }
}

/// The body of a whole answer.
async fn visit(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if !head.starts_with("HTTP/1.1 200") || !body.ends_with('\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body.to_owned())
}
