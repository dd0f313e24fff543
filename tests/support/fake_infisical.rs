//! An Infisical of a test's own, which answers as the real one does: statuses, bodies and headers of its errors included.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State as Of},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tidegate_aws::{clock, random};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::hex;

pub(crate) const PROJECT: &str = "3c90c3cc-0d44-4b50-8888-8dd25736052a";
pub(crate) const CLIENT: &str = "7a0f11d2-test-client";

/// What becomes of a request, in place of its answer.
pub(crate) enum Fate {
    Pass,
    Answer(u16, Vec<(&'static str, String)>, Value),
    /// The connection ends in the middle of the body.
    Cut,
    /// It is answered, but so much later.
    Late(Duration),
    /// It is answered as things are now, when the gate opens.
    Behind(watch::Receiver<bool>),
    /// A body without end.
    Endless,
}

/// One request: `GET /api/v4/secrets`, and its query.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub line: String,
    pub query: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub id: String,
    pub key: String,
    pub value: String,
    pub version: u64,
    pub hidden: bool,
}

/// What holds requests back until it is opened.
pub(crate) struct Gate {
    is_open: watch::Sender<bool>,
    has_come: watch::Receiver<bool>,
}

impl Gate {
    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Until the first request stands before it.
    pub(crate) async fn reached(&self) {
        self.has_come.clone().wait_for(|has_come| *has_come).await.unwrap();
    }
}

type Judge = Box<dyn FnMut(&Call) -> Fate + Send>;

struct State {
    secret: String,
    /// By folder, in order.
    folders: BTreeMap<String, Vec<Held>>,
    tokens: BTreeSet<String>,
    expires_in: u64,
    /// From before `/api/v4/secrets`.
    is_old: bool,
    refused_logins: u32,
    calls: Vec<Call>,
    judge: Judge,
    next: u64,
}

pub(crate) struct FakeInfisical {
    url: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for FakeInfisical {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeInfisical {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            secret: hex(&random::bytes::<16>()),
            folders: BTreeMap::new(),
            tokens: BTreeSet::new(),
            expires_in: 7_200,
            is_old: false,
            refused_logins: 0,
            calls: Vec::new(),
            judge: Box::new(|_| Fate::Pass),
            next: 0,
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

    /// What a provider that reads it is configured with.
    pub(crate) fn config(&self) -> Value {
        json!({"siteUrl": self.url, "clientId": CLIENT, "clientSecret": self.state().secret, "projectId": PROJECT,
            "environment": "prod", "path": "/"})
    }

    pub(crate) fn client_secret(&self) -> String {
        self.state().secret.clone()
    }

    /// Adds it, or gives it another value; its id.
    pub(crate) fn set(&self, folder: &str, key: &str, value: &str) -> String {
        let mut state = self.state();
        state.next += 1;
        let id = format!("00000000-0000-4000-8000-{:012}", state.next);
        let secrets = state.folders.entry(folder.to_owned()).or_default();
        if let Some(held) = secrets.iter_mut().find(|held| held.key == key) {
            value.clone_into(&mut held.value);
            held.version += 1;
            return held.id.clone();
        }
        let held = Held { id: id.clone(), key: key.to_owned(), value: value.to_owned(), version: 1, hidden: false };
        secrets.push(held);
        id
    }

    pub(crate) fn change(&self, folder: &str, change: impl FnOnce(&mut Vec<Held>)) {
        change(self.state().folders.entry(folder.to_owned()).or_default());
    }

    pub(crate) fn rename(&self, folder: &str, from: &str, to: &str) {
        self.change(folder, |secrets| {
            to.clone_into(&mut secrets.iter_mut().find(|held| held.key == from).unwrap().key);
        });
    }

    pub(crate) fn remove(&self, folder: &str, key: &str) {
        self.change(folder, |secrets| secrets.retain(|held| held.key != key));
    }

    pub(crate) fn judge_by(&self, judge: impl FnMut(&Call) -> Fate + Send + 'static) {
        self.state().judge = Box::new(judge);
    }

    /// Requests whose line holds this wait before a gate.
    pub(crate) fn gate(&self, line: &'static str) -> Gate {
        let (is_open, opened) = watch::channel(false);
        let (comes, has_come) = watch::channel(false);
        self.judge_by(move |call| {
            if !call.line.contains(line) || *opened.borrow() {
                return Fate::Pass;
            }
            comes.send_replace(true);
            Fate::Behind(opened.clone())
        });
        Gate { is_open, has_come }
    }

    pub(crate) fn is_old(&self) {
        self.state().is_old = true;
    }

    /// It has `/api/v4/secrets` from now on.
    pub(crate) fn is_upgraded(&self) {
        self.state().is_old = false;
    }

    pub(crate) fn tokens_live_for(&self, seconds: u64) {
        self.state().expires_in = seconds;
    }

    /// No token that was given is taken any more.
    pub(crate) fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Lines of the requests since the last call of this.
    pub(crate) fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state().calls)
    }

    pub(crate) fn logins(&self) -> usize {
        self.state().calls.iter().filter(|call| call.line.contains("login")).count()
    }

    pub(crate) fn refused_logins(&self) -> u32 {
        self.state().refused_logins
    }
}

/// A delivery of its webhook as Infisical signs it: body, and `x-infisical-signature`.
pub(crate) fn delivery(secret: &str, event: &str, millisecond: i64) -> (String, String) {
    let body = json!({"event": event, "project": {"workspaceId": PROJECT, "projectId": PROJECT, "projectName": "shop",
        "environment": "prod", "environmentName": "Production", "secretPath": "/"}, "timestamp": millisecond});
    let body = body.to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = format!("t={millisecond};{}", hex(hmac::sign(&key, body.as_bytes()).as_ref()));
    (body, signature)
}

pub(crate) fn now_in_milliseconds() -> i64 {
    clock::now().as_millisecond()
}

fn refused(status: u16, error: &str, message: &str) -> Response {
    let body = json!({"reqId": "req-kT0GqYxyrTy4cE", "statusCode": status, "message": message, "error": error});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

/// As the framework has it, for a route that is not there.
fn no_route(method: &Method, uri: &Uri) -> Response {
    let message = format!("Route {method}:{uri} not found");
    (StatusCode::NOT_FOUND, Json(json!({"message": message, "error": "Not Found", "statusCode": 404}))).into_response()
}

async fn answer(
    Of(state): Of<Arc<Mutex<State>>>,
    method: Method,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let call = Call { line: format!("{method} {}", uri.path()), query };
    let (fate, answer) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls.push(call.clone());
        let fate = (state.judge)(&call);
        let answer = match fate {
            Fate::Pass | Fate::Late(_) | Fate::Behind(_) | Fate::Cut => {
                Some(state.carry_out(&method, &uri, &call, &headers, &body))
            }
            Fate::Answer(..) | Fate::Endless => None,
        };
        (fate, answer)
    };
    match (fate, answer) {
        (Fate::Answer(status, headers, body), _) => {
            let mut answer = (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
            for (name, value) in headers {
                answer.headers_mut().insert(name, value.parse().unwrap());
            }
            answer
        }
        (Fate::Cut, Some(_)) => {
            let parts = [Ok(Bytes::from("{\"secrets\":[{\"id\":")), Err(std::io::Error::other("cut"))];
            let json = [(header::CONTENT_TYPE, "application/json")];
            (json, Body::from_stream(futures_util::stream::iter(parts))).into_response()
        }
        (Fate::Endless, _) => {
            let part = Bytes::from(vec![b' '; 1 << 20]);
            let endless = futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(part.clone()));
            ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(endless)).into_response()
        }
        (Fate::Late(time), Some(answer)) => {
            // Part of what is answered, not a wait for something.
            let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
            answer
        }
        (Fate::Behind(mut opened), Some(answer)) => {
            // Nobody opens it any more if the test has ended.
            let _ = opened.wait_for(|is_open| *is_open).await;
            answer
        }
        (_, answer) => answer.unwrap(),
    }
}

impl State {
    fn carry_out(&mut self, method: &Method, uri: &Uri, call: &Call, headers: &HeaderMap, body: &[u8]) -> Response {
        match (method.as_str(), uri.path()) {
            ("POST", "/api/v1/auth/universal-auth/login") => self.login(body),
            ("GET", "/api/v4/secrets") if !self.is_old => self.list("projectId", call, headers),
            ("GET", "/api/v3/secrets/raw") => self.list("workspaceId", call, headers),
            _ => no_route(method, uri),
        }
    }

    fn login(&mut self, body: &[u8]) -> Response {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if self.refused_logins >= 3 {
            return refused(
                401,
                "UnauthorizedError",
                "This identity auth method is temporarily locked, please try again later",
            );
        }
        if body["clientId"] != CLIENT || body["clientSecret"] != self.secret.as_str() {
            self.refused_logins += 1;
            return refused(401, "UnauthorizedError", "Invalid credentials");
        }
        let token = hex(&random::bytes::<12>());
        self.tokens.insert(token.clone());
        Json(json!({"accessToken": token, "expiresIn": self.expires_in, "accessTokenMaxTTL": 43_244, "tokenType": "Bearer"}))
            .into_response()
    }

    fn list(&mut self, project: &str, call: &Call, headers: &HeaderMap) -> Response {
        let asked = |name: &str| call.query.get(name).map(String::as_str).unwrap_or_default();
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some(token) = bearer.strip_prefix("Bearer ") else {
            return refused(401, "UnauthorizedError", "Token missing");
        };
        if !self.tokens.contains(token) {
            return refused(403, "TokenError", "Your token has expired. Please re-authenticate.");
        }
        if asked(project) != PROJECT {
            return refused(404, "NotFound", "Project with ID 'other' not found during permission check");
        }
        // A folder that is not there is an empty one.
        let secrets = self.folders.get(asked("secretPath")).cloned().unwrap_or_default();
        let secrets: Vec<_> = secrets.iter().map(|held| view(held, asked("secretPath"), self.is_old)).collect();
        Json(json!({"secrets": secrets, "imports": []})).into_response()
    }
}

fn view(held: &Held, folder: &str, is_old: bool) -> Value {
    let value = if held.hidden { "<hidden-by-infisical>" } else { &held.value };
    let mut view = json!({"id": held.id, "_id": held.id, "workspace": PROJECT, "environment": "prod",
        "version": held.version, "type": "shared", "secretKey": held.key, "secretValue": value, "secretComment": "",
        "secretPath": folder, "secretReminderNote": null, "secretReminderRepeatDays": null, "skipMultilineEncoding": false,
        "createdAt": "2026-11-22T10:00:00.000Z", "updatedAt": "2026-11-22T10:00:00.000Z", "tags": []});
    if !is_old {
        view["secretValueHidden"] = held.hidden.into();
    }
    view
}
