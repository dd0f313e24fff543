//! Stands between a process and a service of AWS, and keeps all that goes through.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// Listens until it is dropped.
pub(crate) struct Tap {
    pub url: String,
    seen: Arc<Mutex<Vec<Bytes>>>,
    serving: JoinHandle<()>,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Clone)]
struct Passing {
    to: String,
    http: reqwest::Client,
    seen: Arc<Mutex<Vec<Bytes>>>,
}

impl Tap {
    pub(crate) async fn before(service: &str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let passing = Passing { to: service.to_owned(), http: reqwest::Client::new(), seen: Arc::clone(&seen) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass).with_state(passing);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, serving }
    }

    /// Bodies and headers of both directions.
    pub(crate) fn seen(&self) -> Vec<Bytes> {
        self.seen.lock().unwrap().clone()
    }
}

async fn pass(State(passing): State<Passing>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1 << 22).await else { return StatusCode::BAD_REQUEST.into_response() };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let keep = |headers: &HeaderMap, body: &Bytes| {
        passing.seen.lock().unwrap().extend([format!("{headers:?}").into(), body.clone()]);
    };
    keep(&parts.headers, &body);
    let mut headers = parts.headers;
    headers.remove(header::HOST);
    let sent = passing.http.request(parts.method, format!("{}{path}", passing.to)).headers(headers).body(body);
    let Ok(answer) = sent.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    let Ok(body) = answer.bytes().await else { return StatusCode::BAD_GATEWAY.into_response() };
    keep(&headers, &body);
    headers.remove(header::TRANSFER_ENCODING);
    (status, headers, body).into_response()
}
