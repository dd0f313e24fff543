//! Serves the API on one machine: HTTP/1.1 within bounds, so that callers who send nothing, or half of something, take
//! neither every place nor the files that the worker needs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tower::Layer as _;

/// Most connections at a time; more wait to be accepted. A process may often have no more than 1,024 files open.
const CONNECTIONS: usize = 512;
/// From the beginning of a connection, or from the last answer on it, to the end of the next request's headers.
/// Longer than proxies keep a connection that nothing is sent on, which are to be the ones that end it.
const HEADERS_WITHIN: Duration = Duration::from_secs(75);
/// After a connection could not be accepted, mostly because too many files are open.
const PAUSE: Duration = Duration::from_millis(200);

/// What callers may take up. How long a whole request takes is bounded by [`crate::gateway`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) headers_within: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: CONNECTIONS, headers_within: HEADERS_WITHIN }
    }
}

/// Serves until `stopped` turns true, and then lets the requests that run come to their end.
pub(crate) async fn serve(listener: TcpListener, router: Router, bounds: Bounds, mut stopped: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.headers_within);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, listener.accept().await))
        };
        let (place, accepted) = tokio::select! {
            Some(next) = next => next,
            // An error means that the sender is gone, which means the same.
            _ = stopped.wait_for(|stopped| *stopped) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let service = Extension(ConnectInfo::<SocketAddr>(peer)).layer(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // One that breaks, or takes too long, is its caller's.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection has ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

#[cfg(test)]
mod tests {
    use axum::{extract::Request, routing::get};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn started(bounds: Bounds) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = get(|request: Request| async move {
            let ConnectInfo(peer) = *request.extensions().get::<ConnectInfo<SocketAddr>>().unwrap();
            peer.to_string()
        });
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, Router::new().route("/", seen), bounds, stopped));
        (address, stop, serving)
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 1_024];
        let read = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    /// Nothing more comes: the other side has closed.
    async fn is_closed(mut stream: TcpStream) -> bool {
        matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_))
    }

    #[tokio::test]
    async fn who_sends_half_a_request_or_nothing_holds_no_place_for_long() {
        let bounds = Bounds { connections: 2, headers_within: Duration::from_millis(300) };
        let (address, stop, serving) = started(bounds).await;
        let silent = TcpStream::connect(address).await.unwrap();
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        // No place is left until those two have had their time.
        let mut third = TcpStream::connect(address).await.unwrap();
        let own = third.local_addr().unwrap().to_string();
        assert!(ask(&mut third).await.ends_with(&own), "handlers see the caller's address");
        assert!(is_closed(silent).await);
        assert!(is_closed(half).await);
        assert!(is_closed(third).await, "nor does one that has had its answer");
        stop.send(true).unwrap();
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_request() {
        let (address, _stop, _serving) = started(Bounds::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (first, second) = (ask(&mut stream).await, ask(&mut stream).await);
        assert!(first.starts_with("HTTP/1.1 200") && second.starts_with("HTTP/1.1 200"), "{first} {second}");
    }
}
