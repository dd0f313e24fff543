//! Each function's real binary answers real events through the Lambda Runtime API.

pub(crate) mod runtime_api;

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use axum::{Json, Router, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tidegate_aws::{clock, env, queues::Report};
use tidegate_domain::{
    assignment::{Outcome, Progress},
    id::Epoch,
    image::Digest,
};
use tidegate_local::{provision, stack};
use tokio::net::TcpListener;

use self::runtime_api::Function;
use crate::support::{Installation, Setup};

const ISSUER: &str = "https://issuer.example.com/pool";
const CLIENT: &str = "tidegate-console";
const SOURCE: &str = "192.0.2.7";

/// An installation whose worker and reports are the test's, for the functions that the test starts.
async fn installation() -> Installation {
    Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await
}

/// As `infra/template.yaml` gives it to every function.
pub(crate) fn environment(installation: &Installation) -> Vec<(&'static str, String)> {
    let mut environment = installation.aws().environment();
    environment.extend([
        (env::TABLE, provision::TABLE.to_owned()),
        (env::KEY, provision::KEY_ALIAS.to_owned()),
        (env::HOST_QUEUE_PREFIX, installation.stack.queues().host_url_prefix.clone()),
        (env::INTAKE_QUEUE_URL, installation.stack.queues().intake_url.clone()),
    ]);
    environment
}

/// An event of API Gateway's HTTP API, payload 2.0.
pub(crate) fn http_event(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Value {
    let mut all = json!({"accept": "*/*", "content-type": "application/json", "host": "deploy.example.com",
        "user-agent": "curl/8.5.0", "x-forwarded-for": "198.51.100.1", "x-forwarded-port": "443",
        "x-forwarded-proto": "https", "x-amzn-trace-id": "Root=1-00000000-000000000000000000000000"});
    for (name, value) in headers {
        all[*name] = (*value).into();
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut event = json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query, "headers": all,
        "requestContext": {
            "accountId": "123456789012", "apiId": "a1b2c3", "domainName": "deploy.example.com", "domainPrefix": "deploy",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": SOURCE,
                "userAgent": "curl/8.5.0"},
            "requestId": "gateway-request-1", "routeKey": "$default", "stage": "$default",
            "time": "22/Nov/2026:10:00:00 +0000", "timeEpoch": 1_795_341_600_000_i64
        },
        "isBase64Encoded": false
    });
    if let Some(body) = body {
        event["body"] = body.into();
    }
    event
}

/// Status and body of an answer for API Gateway.
#[track_caller]
fn answered(reply: Result<Value, Value>) -> (u64, Value) {
    let answer = reply.expect("the function does not fail");
    assert_eq!(answer["headers"]["x-request-id"], "gateway-request-1", "{answer}");
    assert_eq!(answer["isBase64Encoded"], false, "{answer}");
    let body = serde_json::from_str(answer["body"].as_str().unwrap_or_default()).unwrap_or_default();
    (answer["statusCode"].as_u64().unwrap(), body)
}

#[tokio::test]
async fn the_webhook_function_answers_the_gateways_events() {
    let installation = installation().await;
    let application = installation.register(json!({})).await;
    let mut environment = environment(&installation);
    environment.push((env::PUBLIC_URL, "https://deploy.example.com/".to_owned()));
    let webhook = Function::start("tidegate-webhook", &environment).await;
    let deploy = async |body: &str, encoded: bool| {
        let sent = if encoded { STANDARD.encode(body) } else { body.to_owned() };
        let mut event = http_event("POST", "/webhook/deploy", &[], Some(&sent));
        event["isBase64Encoded"] = encoded.into();
        answered(webhook.invoke(event).await)
    };

    let mut request = json!({"applicationId": application.id, "version": "v1", "token": "whk_wrong"});
    let (status, problem) = deploy(&request.to_string(), false).await;
    assert_eq!((status, &problem["requestId"]), (401, &json!("gateway-request-1")), "{problem}");
    request["token"] = application.token.clone().into();
    request["versoin"] = "v1".into();
    let (status, problem) = deploy(&request.to_string(), false).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (422, &json!("versoin")), "{problem}");
    request.as_object_mut().unwrap().remove("versoin");
    assert_eq!(deploy("{", true).await.0, 400);
    for encoded in [false, true] {
        let (status, accepted) = deploy(&request.to_string(), encoded).await;
        assert_eq!((status, &accepted["status"]), (202, &json!("queued")), "{accepted}");
        let id = accepted["deploymentId"].as_str().unwrap();
        assert_eq!(accepted["statusUrl"], format!("https://deploy.example.com/webhook/deployments/{id}"));
        let shown = installation.get(&format!("deployments/{id}")).await.expect(200);
        assert_eq!(shown["trigger"]["source"], SOURCE, "the gateway's word, not a header's");
        let path = format!("/webhook/deployments/{id}?wait=1");
        let bearer = format!("Bearer {}", application.token);
        let event = http_event("GET", &path, &[("authorization", &bearer)], None);
        let (status, shown) = answered(webhook.invoke(event).await);
        assert_eq!((status, &shown["deploymentId"]), (200, &json!(id)));
    }
    let unknown = answered(webhook.invoke(http_event("GET", "/nothing", &[], None)).await);
    assert_eq!((unknown.0, &unknown.1["title"]), (404, &json!("Not found")));
}

/// Signs people's tokens, and serves the key to verify them.
struct Issuer {
    key: EncodingKey,
    jwks_url: String,
}

impl Issuer {
    async fn start() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let label = "PRIVATE KEY";
        let pem = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der.as_ref()));
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap();
        jwk.common.key_id = Some("key-1".to_owned());
        let keys = json!({ "keys": [jwk] });
        let serve = get(move || std::future::ready(Json(keys.clone())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let jwks_url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, Router::new().route("/jwks.json", serve)).into_future());
        Self { key, jwks_url }
    }

    /// As Cognito makes them.
    fn bearer(&self, group: &str, changes: &[(&str, Value)]) -> String {
        let now = clock::now().as_second();
        let mut claims = json!({"iss": ISSUER, "sub": "0193", "username": "ada", "token_use": "access",
            "client_id": CLIENT, "iat": now, "exp": now + 60, "cognito:groups": [group, "everybody"]});
        for (claim, value) in changes {
            claims[*claim] = value.clone();
        }
        let header = Header { kid: Some("key-1".to_owned()), ..Header::new(Algorithm::RS256) };
        format!("Bearer {}", jsonwebtoken::encode(&header, &claims, &self.key).unwrap())
    }
}

#[tokio::test]
async fn the_admin_function_answers_people_of_another_issuer() {
    let installation = installation().await;
    let issuer = Issuer::start().await;
    let mut environment = environment(&installation);
    environment.extend([
        (env::ISSUER, ISSUER.to_owned()),
        (env::JWKS_URL, issuer.jwks_url.clone()),
        (env::CLIENT_ID, CLIENT.to_owned()),
    ]);
    let admin = Function::start("tidegate-admin", &environment).await;
    let call = async |method: &str, path: &str, bearer: Option<&str>, body: Option<&str>| {
        let headers: Vec<_> = bearer.map(|bearer| ("authorization", bearer)).into_iter().collect();
        answered(admin.invoke(http_event(method, path, &headers, body)).await)
    };
    assert_eq!(call("GET", "/healthz", None, None).await, (200, json!({"status": "ok"})));
    let project = Some(r#"{"key": "shop", "name": "Shop"}"#);
    let (right, reader) = (issuer.bearer("admin", &[]), issuer.bearer("viewer", &[]));
    let (status, created) = call("POST", "/api/v2/projects", Some(&right), project).await;
    assert_eq!((status, &created["key"]), (201, &json!("shop")), "{created}");
    let (status, listed) = call("GET", "/api/v2/projects?limit=1", Some(&reader), None).await;
    assert_eq!((status, &listed["data"][0]["name"]), (200, &json!("Shop")), "{listed}");
    assert_eq!(call("POST", "/api/v2/projects", Some(&reader), project).await.0, 403);
    // Of another tenant: signed in, and everything is as if it did not exist.
    let elsewhere = issuer.bearer("admin", &[("custom:tenant", "other".into())]);
    assert_eq!(call("GET", "/api/v2/projects/shop", Some(&elsewhere), None).await.0, 404);
    // Nor does another tenant reach what listens where the function runs.
    let inside = json!({"name": "inside", "type": "infisical", "config": {"siteUrl": "http://127.0.0.1:9001",
        "clientId": "c", "clientSecret": "of-a-test", "projectId": "p"}});
    let inside = inside.to_string();
    let (status, refused) = call("POST", "/api/v2/secret-providers", Some(&elsewhere), Some(&inside)).await;
    assert_eq!((status, &refused["errors"][0]["field"]), (422, &json!("config.siteUrl")), "{refused}");
    assert_eq!(call("POST", "/api/v2/secret-providers", Some(&right), Some(&inside)).await.0, 201);

    let local = format!("Bearer {}", installation.admin_token);
    let late = issuer.bearer("admin", &[("exp", 1.into())]);
    let other_client = issuer.bearer("admin", &[("client_id", "other".into())]);
    let other_issuer = issuer.bearer("admin", &[("iss", "https://issuer.example.com/other".into())]);
    for wrong in [None, Some(&local), Some(&late), Some(&other_client), Some(&other_issuer)] {
        assert_eq!(call("GET", "/api/v2/projects", wrong.map(String::as_str), None).await.0, 401, "{wrong:?}");
    }
    // People sign in at the issuer, so the function has no sign-in of its own.
    assert_eq!(call("POST", "/api/v2/auth/login", None, Some("{}")).await.0, 404);
    assert_eq!(call("GET", "/.well-known/jwks.json", None, None).await.0, 404);
}

fn sqs_event(messages: &[(&str, &str)]) -> Value {
    let records = messages.iter().map(|(id, body)| {
        json!({"messageId": id, "receiptHandle": "receipt", "body": body,
            "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1795341600000",
                "SenderId": "AIDAIENQZJOLO23YVJ4VO", "ApproximateFirstReceiveTimestamp": "1795341600001"},
            "messageAttributes": {}, "md5OfBody": "0", "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:tidegate-reports", "awsRegion": "us-east-1"})
    });
    json!({ "Records": records.collect::<Vec<_>>() })
}

#[tokio::test]
async fn the_progress_function_folds_what_it_can_and_names_what_it_cannot() {
    let installation = installation().await;
    let application = installation.register(json!({})).await;
    let id = installation.deploy(&application, "v1").await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    let side = installation.side_of(&stack::host());
    // As the worker does it, but for the report.
    let assignment = side.assignments().await.unwrap().remove(0);
    let (now, progress) = (clock::now(), Progress::default());
    side.claim(&assignment, Epoch(2), &progress, false, now).await.unwrap().unwrap();
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let outcome = Outcome::Succeeded { digest: Some(digest) };
    side.finish(assignment.deployment_id, Epoch(2), &outcome, &progress, now).await.unwrap().unwrap();

    let function = Function::start("tidegate-progress", &environment(&installation)).await;
    let report = Report { tenant: stack::tenant(), host: stack::host(), deployment_id: assignment.deployment_id };
    let good = serde_json::to_string(&report).unwrap();
    let messages = [("m1", "not a report"), ("m2", &good), ("m3", r#"{"tenant": "default"}"#), ("m4", &good)];
    let answer = function.invoke(sqs_event(&messages)).await.unwrap();
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "m1"}, {"itemIdentifier": "m3"}]}));
    let shown = installation.get(&format!("deployments/{id}")).await.expect(200);
    assert_eq!((&shown["status"], &shown["running"]), (&json!("succeeded"), &json!("new")), "{shown}");
    assert!(side.assignments().await.unwrap().is_empty(), "what is folded is gone");
    let again = function.invoke(sqs_event(&[("m5", &good)])).await.unwrap();
    assert_eq!(again, json!({"batchItemFailures": []}));
}

#[tokio::test]
async fn a_function_without_its_environment_does_not_start_and_names_all_that_is_missing() {
    let store = [env::TABLE, env::KEY, env::HOST_QUEUE_PREFIX];
    for (function, own) in [
        ("tidegate-webhook", &[env::PUBLIC_URL][..]),
        ("tidegate-admin", &[env::ISSUER, env::JWKS_URL, env::CLIENT_ID]),
        ("tidegate-progress", &[]),
        ("tidegate-approvals", &[]),
        ("tidegate-sync", &[]),
    ] {
        let given = [("AWS_REGION", "us-east-1".to_owned()), (store[1], String::new())];
        // Nobody listens there: it must end before it asks for events.
        let ended = runtime_api::command(function, "127.0.0.1:9", &given).output().unwrap();
        assert!(!ended.status.success(), "{function}");
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        for name in store.iter().chain(own) {
            assert!(said.contains(name), "{function} does not name {name}: {said}");
        }
    }
}
