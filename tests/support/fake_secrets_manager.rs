//! An AWS Secrets Manager of a test's own, with the paging, the batches and the errors of the real one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State as Of,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tidegate_aws::random;
use tokio::{io::AsyncReadExt as _, net::TcpListener, task::JoinHandle};

use super::hex;

pub(crate) const KEY_ID: &str = "test-key-id";
/// Of a page, whatever is asked for: the real one may give fewer as well.
const PAGE: usize = 7;

#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub name: String,
    /// None: bytes.
    pub value: Option<String>,
    /// The credentials may not read it.
    pub is_denied: bool,
}

struct State {
    secret: String,
    held: Vec<Held>,
    calls: Vec<String>,
    /// Names of those whose values were asked for.
    read: BTreeSet<String>,
    /// Every call is refused so.
    refusal: Option<(StatusCode, &'static str)>,
    /// So many calls are throttled before one is answered.
    throttled: usize,
}

pub(crate) struct FakeSecretsManager {
    url: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for FakeSecretsManager {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeSecretsManager {
    pub(crate) async fn start() -> Self {
        let secret = hex(&random::bytes::<16>());
        let state = Arc::new(Mutex::new(State {
            secret,
            held: Vec::new(),
            calls: Vec::new(),
            read: BTreeSet::new(),
            refusal: None,
            throttled: 0,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state, server }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn config(&self) -> Value {
        json!({"region": "eu-central-1", "endpointUrl": self.url, "accessKeyId": KEY_ID,
            "secretAccessKey": self.state().secret, "path": "/prod"})
    }

    pub(crate) fn set(&self, name: &str, value: Option<&str>) {
        let mut state = self.state();
        state.held.retain(|held| held.name != name);
        state.held.push(Held { name: name.to_owned(), value: value.map(str::to_owned), is_denied: false });
    }

    pub(crate) fn deny(&self, name: &str) {
        self.state().held.iter_mut().find(|held| held.name == name).unwrap().is_denied = true;
    }

    pub(crate) fn throttle(&self, calls: usize) {
        self.state().throttled = calls;
    }

    pub(crate) fn remove(&self, name: &str) {
        self.state().held.retain(|held| held.name != name);
    }

    pub(crate) fn refuse(&self, status: u16, code: &'static str) {
        self.state().refusal = Some((StatusCode::from_u16(status).unwrap(), code));
    }

    /// Names of those whose values were asked for since the last call of this.
    pub(crate) fn read(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.state().read)
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state().calls)
    }
}

fn arn(name: &str) -> String {
    format!("arn:aws:secretsmanager:eu-central-1:111122223333:secret:{name}-a1B2c3")
}

/// The address of one that takes a request whole and ends the connection without a word.
pub(crate) async fn hangs_up() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            // What it asks has a body of JSON, which ends so.
            while !request.ends_with(b"}") {
                if connection.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
        }
    });
    (url, server)
}

fn refused(kind: &str, message: &str) -> Response {
    refused_with(StatusCode::BAD_REQUEST, kind, message)
}

fn refused_with(status: StatusCode, kind: &str, message: &str) -> Response {
    amz(status, &json!({"__type": kind, "Message": message}))
}

fn amz(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], body.to_string()).into_response()
}

async fn answer(Of(state): Of<Arc<Mutex<State>>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = text("x-amz-target").rsplit('.').next().unwrap_or_default().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.calls.push(operation.clone());
    // Whose key it is stands in the request; whether its secret is right only AWS can say, so that is left out here.
    if !text("authorization").contains(&format!("Credential={KEY_ID}/")) {
        return refused("UnrecognizedClientException", "The security token included in the request is invalid.");
    }
    if !text("authorization").contains("/eu-central-1/secretsmanager/") {
        return refused("InvalidSignatureException", "Credential should be scoped to a valid region.");
    }
    if state.throttled > 0 {
        state.throttled -= 1;
        return refused("ThrottlingException", "Rate exceeded");
    }
    if let Some((status, code)) = state.refusal {
        return refused_with(status, code, "canary");
    }
    match operation.as_str() {
        "ListSecrets" => state.list(&body),
        "BatchGetSecretValue" => state.batch(&body),
        _ => refused("UnknownOperationException", ""),
    }
}

impl State {
    fn list(&self, body: &Value) -> Response {
        assert!(body["MaxResults"].as_u64().is_none_or(|max| (1..=100).contains(&max)));
        let from = match body["NextToken"].as_str() {
            None => 0,
            Some(token) => match token.parse::<usize>() {
                Ok(from) => from,
                Err(_) => return refused("InvalidNextTokenException", "The NextToken value is invalid."),
            },
        };
        let filters = body["Filters"].as_array().cloned().unwrap_or_default();
        let prefixes: Vec<_> =
            filters.iter().flat_map(|f| f["Values"].as_array().cloned().unwrap_or_default()).collect();
        let is_wanted = |held: &&Held| {
            prefixes.is_empty() || prefixes.iter().any(|prefix| held.name.starts_with(prefix.as_str().unwrap()))
        };
        let wanted: Vec<_> = self.held.iter().filter(is_wanted).collect();
        let page = wanted.iter().skip(from).take(PAGE).map(|held| json!({"ARN": arn(&held.name), "Name": held.name}));
        let mut answer = json!({"SecretList": page.collect::<Vec<_>>()});
        if from + PAGE < wanted.len() {
            answer["NextToken"] = (from + PAGE).to_string().into();
        }
        amz(StatusCode::OK, &answer)
    }

    fn batch(&mut self, body: &Value) -> Response {
        let ids = body["SecretIdList"].as_array().cloned().unwrap_or_default();
        if !(1..=20).contains(&ids.len()) {
            return refused("InvalidParameterException", "The list has 1 to 20 members.");
        }
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        for id in ids.iter().filter_map(Value::as_str) {
            self.read.extend(self.held.iter().filter(|held| arn(&held.name) == id).map(|held| held.name.clone()));
            match self.held.iter().find(|held| arn(&held.name) == id) {
                Some(held) if held.is_denied => errors
                    .push(json!({"SecretId": id, "ErrorCode": "AccessDeniedException",
                    "Message": "is not authorized to perform: secretsmanager:GetSecretValue"})),
                Some(held) => {
                    let mut value = json!({"ARN": id, "Name": held.name, "VersionStages": ["AWSCURRENT"],
                        "VersionId": "00000000-0000-4000-8000-000000000000", "CreatedDate": 1_795_341_600.0});
                    match &held.value {
                        Some(text) => value["SecretString"] = text.as_str().into(),
                        None => value["SecretBinary"] = "AAEC".into(),
                    }
                    values.push(value);
                }
                None => errors.push(json!({"SecretId": id, "ErrorCode": "ResourceNotFoundException",
                    "Message": "Secrets Manager can't find the specified secret."})),
            }
        }
        amz(StatusCode::OK, &json!({"SecretValues": values, "Errors": errors}))
    }
}
