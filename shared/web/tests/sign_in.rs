//! Tokens against a real key set over HTTP.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::{FromRef, Request},
    http::{HeaderMap, StatusCode},
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tidegate_aws::{
    call_log::CallLog,
    clients::Clients,
    clock,
    store::{Store, StoreConfig},
};
use tidegate_web::{
    auth::{Authorized, Issuer, Read, Verifier, Write},
    layer,
};
use tower::ServiceExt as _;

struct Signer {
    key: EncodingKey,
    kid: &'static str,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
        Self { key: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(), kid }
    }

    fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::RS256).unwrap();
        jwk.common.key_id = Some(self.kid.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn token(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

/// Serves these keys; counts how often they are asked for.
async fn key_server(keys: Vec<Value>) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let serve = get(move || {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Json(json!({ "keys": keys })))
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().route("/jwks", serve)).into_future());
    (url, asked)
}

#[derive(Clone)]
struct State(Verifier, Store);

impl FromRef<State> for Store {
    fn from_ref(state: &State) -> Self {
        state.1.clone()
    }
}

impl FromRef<State> for Verifier {
    fn from_ref(state: &State) -> Self {
        state.0.clone()
    }
}

async fn app(jwks_url: String) -> Router {
    async fn read(authorized: Authorized<Read>) -> String {
        format!("{} of {}", authorized.user(), authorized.tenant())
    }
    async fn write(_: Authorized<Write>) {}
    let issuer = Issuer { name: "https://issuer.example.com".to_owned(), jwks_url, client_id: "us".to_owned() };
    // Never asked: nobody is throttled whose address is not known.
    let clients = Clients::for_worker(Some("eu-central-1".to_owned()), CallLog::default()).await;
    let nowhere = || "nowhere".to_owned();
    let config = StoreConfig { table: nowhere(), key: nowhere(), host_queue_prefix: nowhere(), intake_queue_url: None };
    let state = State(Verifier::new(issuer), Store::new(&clients, config));
    layer::complete(Router::new().route("/read", get(read)).route("/write", get(write)).with_state(state))
}

async fn call(app: &Router, path: &str, authorization: Option<&str>) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::builder().uri(path);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = json!({
        "iss": "https://issuer.example.com", "sub": "0193", "username": "ada", "token_use": "access", "client_id": "us",
        "exp": clock::now().as_second() + 60, "cognito:groups": ["operator", "everybody"],
    });
    change(&mut claims);
    claims
}

#[tokio::test]
async fn a_token_says_who_may_do_what() {
    let signer = Signer::new("one");
    let (url, _) = key_server(vec![json!({"kty": "odd"}), signer.jwk()]).await;
    let app = app(url).await;
    let check = async |claims: Value, path: &str, status: StatusCode, expect: &str| {
        let (got, _, body) = call(&app, path, Some(&format!("Bearer {}", signer.token(&claims)))).await;
        assert_eq!(got, status, "{claims} {body}");
        assert!(body.contains(expect), "{body}");
    };
    check(claims(|_| {}), "/read", StatusCode::OK, "ada of default").await;
    check(claims(|_| {}), "/write", StatusCode::FORBIDDEN, "/problems/forbidden").await;
    check(claims(|c| c["cognito:groups"] = json!(["viewer", "admin"])), "/write", StatusCode::OK, "").await;
    check(claims(|c| c["cognito:groups"] = json!([])), "/read", StatusCode::FORBIDDEN, "/problems/forbidden").await;
    check(claims(|c| c["custom:tenant"] = json!("acme")), "/read", StatusCode::OK, "ada of acme").await;
    let id_token = |c: &mut Value| {
        c["token_use"] = json!("id");
        c["aud"] = json!("us");
        c["cognito:username"] = json!("grace");
        c.as_object_mut().unwrap().retain(|name, _| name != "client_id" && name != "username");
    };
    check(claims(id_token), "/read", StatusCode::OK, "grace of default").await;
}

#[tokio::test]
async fn every_bad_credential_gets_the_same_answer() {
    let signer = Signer::new("one");
    let (url, _) = key_server(vec![signer.jwk()]).await;
    let app = app(url).await;
    let bearer = |claims: &Value| Some(format!("Bearer {}", signer.token(claims)));
    let good = signer.token(&claims(|_| {}));
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    let hmac = jsonwebtoken::encode(
        &Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) },
        &claims(|_| {}),
        &EncodingKey::from_secret(signer.jwk()["n"].as_str().unwrap().as_bytes()),
    );
    let bad = [
        None,
        Some(String::new()),
        Some("Bearer ".to_owned()),
        Some("Bearer x".to_owned()),
        Some(format!("Basic {good}")),
        Some(format!("Bearer {unsigned}.")),
        Some(format!("Bearer {}", hmac.unwrap())),
        Some(format!("Bearer {}", Signer::new("one").token(&claims(|_| {})))),
        bearer(&claims(|c| c["exp"] = json!(clock::now().as_second()))),
        bearer(&claims(|c| c["iss"] = json!("https://other.example.com"))),
        bearer(&claims(|c| c["client_id"] = json!("them"))),
        bearer(&claims(|c| c["token_use"] = json!("id"))),
        bearer(&claims(|c| c["token_use"] = json!("refresh"))),
        bearer(&claims(|c| c["custom:tenant"] = json!("A#B"))),
        bearer(&claims(|c| drop(c.as_object_mut().unwrap().remove("iss")))),
        bearer(&claims(|c| drop(c.as_object_mut().unwrap().remove("exp")))),
    ];
    let mut answers = std::collections::BTreeSet::new();
    for credential in bad {
        let (status, mut headers, body) = call(&app, "/read", credential.as_deref()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{credential:?}");
        assert_eq!(headers["www-authenticate"], "Bearer");
        let id = headers.remove("x-request-id").unwrap();
        answers.insert((format!("{headers:?}"), body.replace(id.to_str().unwrap(), "ID")));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(call(&app, "/read", Some(&format!("bearer {good}"))).await.0, StatusCode::OK);
}

#[tokio::test]
async fn unknown_key_ids_do_not_make_us_ask_again_and_again() {
    let signer = Signer::new("one");
    let (url, asked) = key_server(vec![signer.jwk()]).await;
    let app = app(url).await;
    let stranger = Signer::new("two").token(&claims(|_| {}));
    for _ in 0..5 {
        assert_eq!(call(&app, "/read", Some(&format!("Bearer {stranger}"))).await.0, StatusCode::UNAUTHORIZED);
    }
    let known = signer.token(&claims(|_| {}));
    assert_eq!(call(&app, "/read", Some(&format!("Bearer {known}"))).await.0, StatusCode::OK);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_the_issuers_keys_nobody_is_let_in_or_sent_away_for_good() {
    let app = app("http://127.0.0.1:1/jwks".to_owned()).await;
    let token = Signer::new("one").token(&claims(|_| {}));
    let (status, headers, _) = call(&app, "/read", Some(&format!("Bearer {token}"))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(headers.contains_key("retry-after"));
    assert_eq!(call(&app, "/read", None).await.0, StatusCode::UNAUTHORIZED);
}
