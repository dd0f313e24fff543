//! `/metrics` and `/healthz`, on a loopback address only.

use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::vitals::Vitals;

/// So many are answered at once; for the next one the oldest goes, others wait in the system's queue.
const PLACES: usize = 32;
/// Nobody goes sooner: far more than a request needs that is there already.
const GRACE: Duration = Duration::from_millis(100);
/// For a request to come.
const HEADERS: Duration = Duration::from_secs(1);
/// For a whole request and its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before another try to listen, or to accept.
const PAUSE: Duration = Duration::from_secs(10);

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until it is dropped. An address that cannot be had is an error in the log, and tried again: it is no reason not
/// to bring back what a crash has left stopped.
pub async fn serve(address: SocketAddr, vitals: Vitals) {
    let mut places = Places::default();
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => answer_all(&listener, &mut places, &vitals).await,
            Err(error) => error,
        };
        tracing::error!(
            metrics.listen = %address,
            error = &error as &dyn std::error::Error,
            "metrics and health cannot be served; trying again"
        );
        sleep(PAUSE).await;
    }
}

async fn answer_all(listener: &TcpListener, places: &mut Places, vitals: &Vitals) -> std::io::Error {
    loop {
        places.free_one().await;
        match listener.accept().await {
            Ok((stream, _)) => places.take(stream, vitals.clone()),
            Err(error) => return error,
        }
    }
}

/// Those who are being answered. Whoever connects and says nothing cannot keep the others out.
#[derive(Default)]
struct Places {
    conversations: JoinSet<()>,
    /// The oldest first.
    taken: VecDeque<(Instant, AbortHandle)>,
}

impl Places {
    /// Waits until one is free: at most until the oldest has had its grace.
    async fn free_one(&mut self) {
        loop {
            while self.conversations.try_join_next().is_some() {}
            self.taken.retain(|(_, conversation)| !conversation.is_finished());
            let Some((since, oldest)) = self.taken.front().filter(|_| self.taken.len() >= PLACES) else { return };
            tokio::select! {
                _ = self.conversations.join_next() => {}
                () = sleep_until(*since + GRACE) => {
                    oldest.abort();
                    self.taken.pop_front();
                }
            }
        }
    }

    fn take(&mut self, stream: TcpStream, vitals: Vitals) {
        let conversation = self.conversations.spawn(async move {
            // Whoever does not take the answer in time has gone.
            let _ = timeout(PATIENCE, converse(stream, vitals)).await;
        });
        self.taken.push_back((Instant::now(), conversation));
    }
}

async fn converse(stream: TcpStream, vitals: Vitals) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &vitals);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(8 * 1024);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a request for metrics or health broke off");
    }
}

fn answer(method: &Method, path: &str, vitals: &Vitals) -> Response<Full<Bytes>> {
    let now = Instant::now().into_std();
    let (status, kind, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz") => {
            let ailments = vitals.ailments(now);
            if ailments.is_empty() {
                (StatusCode::OK, TEXT, "ok\n".to_owned())
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, TEXT, ailments.join("\n") + "\n")
            }
        }
        (&Method::GET | &Method::HEAD, "/metrics") => match vitals.render(now) {
            Ok(text) => (StatusCode::OK, OPEN_METRICS, text),
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, "cannot be written\n".to_owned()),
        },
        (_, "/healthz" | "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, TEXT, "/metrics and /healthz are here\n".to_owned()),
    };
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(CACHE_CONTROL, "no-store")
        .body(Full::new(Bytes::from(body)))
        .expect("all of its parts are constants")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn serving() -> (SocketAddr, JoinSet<()>) {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let error = answer_all(&listener, &mut Places::default(), &Vitals::default()).await;
            panic!("{error}");
        });
        (address, server)
    }

    #[tokio::test]
    async fn many_who_say_nothing_do_not_keep_a_question_waiting() {
        let (address, _server) = serving().await;
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let asked = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            // As many again, behind it.
            for _ in 0..300 {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            let mut told = String::new();
            stream.read_to_string(&mut told).await.unwrap();
            told
        };
        let told = timeout(Duration::from_secs(5), asked).await.expect("answered in time");
        assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with("# EOF\n"), "{told}");
    }

    #[tokio::test]
    async fn who_says_nothing_for_a_second_is_sent_away() {
        let (address, _server) = serving().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        let end = timeout(PATIENCE / 2, stream.read_to_end(&mut Vec::new())).await.expect("before the patience ends");
        end.unwrap();
    }
}
