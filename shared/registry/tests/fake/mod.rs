//! A server that answers as it is told, and notes what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{Response, header},
};
use futures_util::stream;
use tokio::{net::TcpListener, task::JoinHandle};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
    pub accept: String,
    pub host: String,
}

pub(crate) struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    serving: JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn start(handle: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (notes, handle) = (Arc::clone(&seen), Arc::new(handle));
        let router = Router::new().fallback(move |request: Request| {
            let asked = Seen::of(&request);
            notes.lock().unwrap().push(asked.clone());
            let answer = handle(&asked);
            async move { answer }
        });
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, serving }
    }

    /// Connections are taken up, and then nothing comes.
    pub(crate) async fn silent() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                open.push(connection);
            }
        });
        Self { address, seen: Arc::default(), serving }
    }

    /// `127.0.0.1:<port>`.
    pub(crate) fn server(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Nobody listens there when this returns.
    pub(crate) async fn stop(mut self) {
        self.serving.abort();
        assert!((&mut self.serving).await.unwrap_err().is_cancelled());
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Seen {
    fn of(request: &Request) -> Self {
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        Self {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            authorization: header(header::AUTHORIZATION),
            accept: header(header::ACCEPT).unwrap_or_default(),
            host: header(header::HOST).unwrap_or_default(),
        }
    }
}

pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body.into()).unwrap()
}

/// The head, a little of the body, and then nothing more.
pub(crate) fn hanging(headers: &[(&str, &str)]) -> Response<Body> {
    let begun = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
    answer(200, headers, Body::from_stream(futures_util::StreamExt::chain(begun, stream::pending())))
}

/// A body that goes on for as long as somebody reads it.
pub(crate) fn endless(headers: &[(&str, &str)]) -> Response<Body> {
    let piece = Bytes::from(vec![b' '; 64 * 1024]);
    answer(
        200,
        headers,
        Body::from_stream(stream::iter(std::iter::repeat_with(move || Ok::<_, std::io::Error>(piece.clone())))),
    )
}
