//! The Lambda Runtime API of a test: hands events to a function's real binary and takes its answers.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::Value;
use tidegate_aws::{clock, env};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
    task::JoinHandle,
};

use crate::support::binaries::{Process, binary};

/// Longer than a function may take.
const BOUND: Duration = Duration::from_secs(30);
const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:f";

/// What a function says of an event: its answer, or its error.
type Reply = Result<Value, Value>;

struct Api {
    events: Mutex<mpsc::UnboundedReceiver<(String, Value)>>,
    replies: mpsc::UnboundedSender<(String, Reply)>,
}

/// A function's process, waiting for events.
pub(crate) struct Function {
    events: mpsc::UnboundedSender<(String, Value)>,
    replies: Mutex<mpsc::UnboundedReceiver<(String, Reply)>>,
    invocations: AtomicU32,
    api: JoinHandle<()>,
    _process: Process,
}

impl Drop for Function {
    fn drop(&mut self) {
        self.api.abort();
    }
}

impl Function {
    /// With this environment and no other.
    pub(crate) async fn start(name: &str, environment: &[(&str, String)]) -> Self {
        let (events, to_function) = mpsc::unbounded_channel();
        let (from_function, replies) = mpsc::unbounded_channel();
        let api = Api { events: Mutex::new(to_function), replies: from_function };
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/{kind}", post(replied))
            .with_state(Arc::new(api));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let process = Process(command(name, &address.to_string(), environment).spawn().unwrap());
        let (replies, invocations) = (Mutex::new(replies), AtomicU32::new(0));
        Self { events, replies, invocations, api, _process: process }
    }

    /// One at a time, as Lambda does it.
    pub(crate) async fn invoke(&self, event: Value) -> Reply {
        let mut replies = self.replies.lock().await;
        let id = format!("invocation-{}", self.invocations.fetch_add(1, Ordering::Relaxed));
        self.events.send((id.clone(), event)).unwrap();
        let reply = tokio::time::timeout(BOUND, replies.recv()).await.expect("a function answers in time");
        let (answered, reply) = reply.unwrap();
        assert_eq!(answered, id);
        reply
    }
}

/// The function's binary as Lambda starts it.
pub(crate) fn command(name: &str, runtime_api: &str, environment: &[(&str, String)]) -> Command {
    let mut command = Command::new(binary(name));
    command
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
        .env("AWS_LAMBDA_FUNCTION_NAME", "f")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env(env::LOG, "warn")
        .envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
    command
}

async fn next(State(api): State<Arc<Api>>) -> Response {
    let Some((id, event)) = api.events.lock().await.recv().await else { return StatusCode::GONE.into_response() };
    let deadline = clock::now().as_millisecond() + 29_000;
    let headers = [
        ("lambda-runtime-aws-request-id", id),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", ARN.to_owned()),
    ];
    (headers, event.to_string()).into_response()
}

async fn replied(State(api): State<Arc<Api>>, Path((id, kind)): Path<(String, String)>, body: Bytes) -> StatusCode {
    let value = serde_json::from_slice(&body).unwrap_or_default();
    // Nobody listens any more if the test has ended.
    let _ = api.replies.send((id, if kind == "response" { Ok(value) } else { Err(value) }));
    StatusCode::ACCEPTED
}
