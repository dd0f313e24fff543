//! An HTTP/1.1 relay between a process and a service it needs: it sees every request, and decides what becomes of it.
//!
//! Bodies stream both ways, connections are kept alive, and an upgraded connection is passed through as it is. A client
//! that goes away takes its request to the service with it, as it would without a relay.

use std::{
    convert::Infallible,
    error::Error,
    fmt, fs, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    client, header, server,
    service::service_fn,
    upgrade,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use super::binaries::Process;

pub(crate) type Body = BoxBody<Bytes, Broken>;

/// A connection that was cut, on purpose or not.
#[derive(Debug)]
pub(crate) struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Broken {}

impl From<hyper::Error> for Broken {
    fn from(error: hyper::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

fn on_purpose() -> Broken {
    Broken("cut on purpose".to_owned())
}

/// What becomes of one request.
pub(crate) enum Fate {
    Pass,
    /// Passed on after a while.
    Wait(Duration),
    /// Never passed on; the connection is cut.
    Cut,
    /// Passed on and done, but the connection is cut before the answer.
    LoseAnswer,
    /// Passed on, and the connection is cut after the answer's head.
    CutAnswer,
    /// Never passed on; the process that asked is killed.
    DieBefore,
    /// Passed on; the process is killed while the service is at it.
    DieAmid,
    /// Passed on and done; the process is killed before it hears of it.
    DieAfter,
    /// Never passed on; this is answered in its place.
    Answer(u16, String),
    /// Passed on two times; the second answer counts.
    Twice,
    /// Answered with this, and passed on after a while.
    Later(Duration, String),
}

/// After so long a service has begun with a request, and has rarely ended it.
const AMID: Duration = Duration::from_millis(25);

/// A process that can be killed by whoever watches it.
#[derive(Clone, Default)]
pub(crate) struct Victim(Arc<Mutex<Option<Process>>>);

impl Victim {
    pub(crate) fn is(&self, process: Process) {
        *self.slot() = Some(process);
    }

    /// `kill -9`, and the end of it. `false`: it was dead.
    pub(crate) fn kill(&self) -> bool {
        self.slot().take().map(Process::kill).is_some()
    }

    pub(crate) fn terminate(&self) {
        self.slot().as_ref().expect("it lives").terminate();
    }

    pub(crate) fn lives(&self) -> bool {
        self.slot().is_some()
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where something listens.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type Io = TokioIo<Box<dyn Stream>>;

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Place {
    async fn connect(&self) -> io::Result<Io> {
        let stream: Box<dyn Stream> = match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        };
        Ok(TokioIo::new(stream))
    }

    async fn listen(&self) -> io::Result<Listener> {
        Ok(match self {
            Self::Unix(path) => Listener::Unix(UnixListener::bind(path)?),
            Self::Tcp(address) => Listener::Tcp(TcpListener::bind(address).await?),
        })
    }

    /// Connections are refused from then on.
    fn forget(&self) {
        if let Self::Unix(path) = self {
            // Gone with its folder otherwise.
            let _ = fs::remove_file(path);
        }
    }

    /// Sends a request there, on a connection of its own.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Broken> {
        let asked_for = upgrade::on(&mut request);
        let (mut sender, connection) = client::conn::http1::handshake(self.connect().await?).await?;
        // Ends with the answer's body, or when nobody waits for the answer any more.
        tokio::spawn(connection.with_upgrades());
        let mut response = sender.send_request(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let granted = upgrade::on(&mut response);
            tokio::spawn(async move {
                if let (Ok(client), Ok(service)) = tokio::join!(asked_for, granted) {
                    // One side's end is the end of a connection.
                    let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(service)).await;
                }
            });
        }
        Ok(response.map(|body| body.map_err(Broken::from).boxed()))
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Io> {
        let stream: Box<dyn Stream> = match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
        };
        Ok(TokioIo::new(stream))
    }
}

pub(crate) type Handler = dyn Fn(Request<Incoming>) -> BoxFuture<'static, Result<Response<Body>, Broken>> + Send + Sync;

/// Whether a relay, and so what is behind it, can be reached. Clones are of the same relay.
#[derive(Clone)]
pub(crate) struct Presence {
    present: watch::Sender<bool>,
    place: Place,
}

impl Presence {
    /// From now on connections are refused, and those that were open are cut.
    pub(crate) fn end(&self) {
        self.present.send_replace(false);
        self.place.forget();
    }

    pub(crate) fn begin(&self) {
        self.present.send_replace(true);
    }
}

/// Listens until it is dropped.
pub(crate) struct Relay {
    pub presence: Presence,
    serving: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Relay {
    /// Answers every request with what `handle` makes of it; its error cuts the connection.
    pub(crate) async fn listen(mut place: Place, handle: Arc<Handler>) -> Self {
        let first = place.listen().await.unwrap();
        if let (Place::Tcp(address), Listener::Tcp(listener)) = (&mut place, &first) {
            *address = listener.local_addr().unwrap();
        }
        let (present, seen) = watch::channel(true);
        let serving = tokio::spawn(serve(first, place.clone(), seen, handle));
        Self { presence: Presence { present, place }, serving }
    }

    /// With a TCP place: what clients call it.
    pub(crate) fn url(&self) -> String {
        match &self.presence.place {
            Place::Unix(path) => format!("unix://{}", path.display()),
            Place::Tcp(address) => format!("http://{address}"),
        }
    }
}

async fn serve(first: Listener, place: Place, mut present: watch::Receiver<bool>, handle: Arc<Handler>) {
    let mut next = Some(first);
    loop {
        let listener = match next.take() {
            Some(listener) => listener,
            None => place.listen().await.expect("the place was ours before"),
        };
        let mut connections = JoinSet::new();
        let seen = present.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok(io) = accepted {
                    connections.spawn(connection(io, seen.clone(), Arc::clone(&handle)));
                },
                gone = present.wait_for(|present| !*present) => match gone {
                    Ok(_) => break,
                    Err(_) => return,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        connections.shutdown().await;
        if present.wait_for(|present| *present).await.is_err() {
            return;
        }
    }
}

async fn connection(io: Io, present: watch::Receiver<bool>, handle: Arc<Handler>) {
    let service = service_fn(move |request| {
        let answer = if *present.borrow() { Some(handle(request)) } else { None };
        async move {
            match answer {
                Some(answer) => answer.await,
                None => Err(on_purpose()),
            }
        }
    });
    // An error is a client that went away, or a connection that was cut on purpose.
    let _ = server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await;
}

pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

fn answer(status: u16, text: String) -> Response<Body> {
    let kind = if text.starts_with("{\"__type\"") { "application/x-amz-json-1.0" } else { "application/json" };
    let builder = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    builder.header("x-amzn-requestid", "00000000-0000-4000-8000-000000000000").body(whole(text)).unwrap()
}

/// Does with a request what was decided.
pub(crate) async fn carry_out(
    fate: Fate,
    request: Request<Body>,
    to: &Place,
    victim: &Victim,
) -> Result<Response<Body>, Broken> {
    let cut = || Err(on_purpose());
    match fate {
        Fate::Pass => to.send(request).await,
        Fate::Wait(time) => {
            pause(time).await;
            to.send(request).await
        }
        Fate::Cut => cut(),
        Fate::LoseAnswer => {
            to.send(request).await?.into_body().collect().await?;
            cut()
        }
        Fate::CutAnswer => {
            let answer = to.send(request).await?;
            let broken = futures_util::stream::once(async { Err::<Frame<Bytes>, _>(on_purpose()) });
            Ok(answer.map(|_| StreamBody::new(broken).boxed()))
        }
        Fate::DieBefore => {
            victim.kill();
            cut()
        }
        Fate::DieAmid => {
            let sending = async { to.send(request).await?.into_body().collect().await };
            let _ = tokio::time::timeout(AMID, sending).await;
            victim.kill();
            cut()
        }
        Fate::DieAfter => {
            to.send(request).await?.into_body().collect().await?;
            victim.kill();
            cut()
        }
        Fate::Answer(status, text) => Ok(answer(status, text)),
        Fate::Twice => {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            to.send(Request::from_parts(parts.clone(), whole(body.clone()))).await?.into_body().collect().await?;
            to.send(Request::from_parts(parts, whole(body))).await
        }
        Fate::Later(time, text) => {
            let to = to.clone();
            tokio::spawn(async move {
                pause(time).await;
                // Who would hear of an error has his answer.
                let _ = to.send(request).await;
            });
            Ok(answer(200, text))
        }
    }
}

/// Part of what is done to a request, not a wait for something.
async fn pause(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}
