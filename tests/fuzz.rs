//! Whatever is sent, the answer is a problem document or an acceptance, and never a fault of ours.

use aws_lc_rs::hmac;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use tidegate_aws::random;

use crate::support::{Answer, Application, Installation, Setup};

/// Of each kind; `TIDEGATE_FUZZ_CASES` asks for more.
const CASES: usize = 150;
const TYPES: &[&str] =
    &["string", "number", "boolean", "json", "email", "ipv4", "ip", "domain", "host", "url", "public_key"];

fn cases() -> usize {
    std::env::var("TIDEGATE_FUZZ_CASES").map_or(CASES, |text| text.parse().unwrap())
}

/// Where samples begin: the same in every run, but another one where more cases are asked for than usual, or the one of this
/// environment variable.
const SEED: &str = "TIDEGATE_FUZZ_SEED";

fn seed() -> u64 {
    match std::env::var(SEED) {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) if cases() == CASES => 0,
        Err(_) => u64::from_be_bytes(random::bytes()),
    }
}

/// What `strategy` gives, so many times.
pub(crate) fn samples<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>) -> Vec<T> {
    let seed = seed();
    println!("samples: {SEED}={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    (0..cases()).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    // Any characters, what parsers stumble over, and what is nearly right.
    prop_oneof![
        any::<String>(),
        "[\\u{0}-\\u{20}\"'<>{}@%&#?/\\\\:;.,0-9a-fxX]{0,60}",
        "https?://[a-z0-9.%@:\\[\\]/#?-]{0,60}",
        "[0-9a-fx.:%/]{1,45}",
        "[a-zA-Z0-9._%+-]{1,70}@[a-zA-Z0-9.-]{1,70}",
        "(ssh-rsa |-----BEGIN [A-Z ]{0,20}-----\n)?[A-Za-z0-9+/=\n]{0,200}",
        "[xX][nN]--[a-z0-9-]{0,70}\\.[\\p{L}\\p{N}.]{1,20}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..6).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

async fn open_to_all() -> (Installation, Application) {
    let installation = Installation::start_with(Setup { no_worker: true, no_sweeps: true, ..Setup::default() }).await;
    installation.lift_limits().await;
    let parameters: Vec<_> =
        TYPES.iter().map(|kind| json!({"name": kind.to_uppercase(), "type": kind, "approval": "always"})).collect();
    let application = installation.register(json!({ "parameters": parameters })).await;
    (installation, application)
}

/// An answer that somebody can do something with; its status.
fn judged(answer: &Answer, sent: &dyn std::fmt::Debug) -> u16 {
    let status = answer.status.as_u16();
    assert!(status < 500, "{status} {} to {sent:?}", answer.text);
    let kind = answer.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let expected = if status < 400 { "application/json" } else { "application/problem+json" };
    assert!(kind.starts_with(expected), "{status} {kind} to {sent:?}");
    assert!(answer.text.len() < 64 * 1024, "an answer of {} bytes to {sent:?}", answer.text.len());
    status
}

fn count(statuses: &mut std::collections::BTreeMap<u16, usize>, status: u16) {
    *statuses.entry(status).or_default() += 1;
}

async fn send(installation: &Installation, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = installation.http.post(format!("{}{path}", installation.stack.url())).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.send().await.unwrap()).await
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn no_body_of_the_webhook_is_answered_with_a_fault_of_ours() {
    let (installation, application) = open_to_all().await;
    let mut seen = std::collections::BTreeMap::new();
    for body in samples(prop::collection::vec(any::<u8>(), 0..300)) {
        for path in ["/webhook/deploy", "/webhook/validate", "/webhook/github"] {
            count(&mut seen, judged(&send(&installation, path, &[JSON], body.clone()).await, &body));
        }
    }
    for body in samples(value()) {
        let bytes = body.to_string().into_bytes();
        for path in ["/webhook/deploy", "/webhook/validate", "/webhook/github"] {
            count(&mut seen, judged(&send(&installation, path, &[JSON], bytes.clone()).await, &body));
        }
        // The same by somebody who is known.
        let bearer = format!("Bearer {}", application.token);
        let known = send(&installation, "/webhook/validate", &[JSON, ("authorization", &bearer)], bytes).await;
        count(&mut seen, judged(&known, &body));
    }
    println!("figure: webhook bodies, answers by status: {seen:?}");
    assert!(seen.contains_key(&400) && seen.contains_key(&422), "{seen:?}");
}

#[tokio::test]
async fn no_token_version_or_value_is_answered_with_a_fault_of_ours() {
    let (installation, application) = open_to_all().await;
    let mut seen = std::collections::BTreeMap::new();
    let ask = async |token: &Value, version: &Value, variables: &Value, path: &str| {
        let body = json!({"applicationId": application.id, "token": token, "version": version, "variables": variables});
        let answer = send(&installation, path, &[JSON], body.to_string().into_bytes()).await;
        judged(&answer, &body)
    };
    let (right, v1, none) = (json!(application.token), json!("v1"), json!({}));
    for version in samples(prop_oneof![text().prop_map(Value::from), value()]) {
        count(&mut seen, ask(&right, &version, &none, "/webhook/deploy").await);
    }
    for (kind, given) in samples((prop::sample::select(TYPES), prop_oneof![text().prop_map(Value::from), value()])) {
        let variables = json!({kind.to_uppercase(): given});
        count(&mut seen, ask(&right, &v1, &variables, "/webhook/validate").await);
        count(&mut seen, ask(&right, &v1, &variables, "/webhook/deploy").await);
    }
    for all in samples(prop::collection::vec(text(), TYPES.len())) {
        let variables: Value = TYPES.iter().zip(all).map(|(kind, given)| (kind.to_uppercase(), json!(given))).collect();
        count(&mut seen, ask(&right, &v1, &variables, "/webhook/validate").await);
    }
    assert!(seen.contains_key(&200) && seen.contains_key(&202) && seen.contains_key(&422), "{seen:?}");
    assert!(!seen.contains_key(&401), "{seen:?}");
    println!("figure: versions and values, answers by status: {seen:?}");
}

#[tokio::test]
async fn a_wrong_token_of_any_shape_is_refused_like_any_other() {
    let (installation, application) = open_to_all().await;
    let mut answers = std::collections::BTreeSet::new();
    // As many as an address may send in a minute.
    for token in samples(prop_oneof![text().prop_map(Value::from), value()]).into_iter().take(15) {
        let body = json!({"applicationId": application.id, "token": token, "version": "v1"});
        let answer = send(&installation, "/webhook/deploy", &[JSON], body.to_string().into_bytes()).await;
        assert_eq!(answer.status, 401, "{token:?}");
        let mut told = answer.json();
        told.as_object_mut().unwrap().remove("requestId");
        answers.insert(told.to_string());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

/// The largest bodies that are taken, of shapes that make a careless parser slow: they are through in the time of a test, or
/// it does not end.
#[tokio::test]
async fn the_largest_bodies_of_the_nastiest_shapes_are_answered() {
    let (installation, application) = open_to_all().await;
    let long = |unit: &str, bytes: usize| unit.repeat(bytes / unit.len());
    let shapes =
        ["a", "a.", "1.", ":", "@", "%", "%25", "-", "[", "{\"a\":", "xn--", "é", "a@", "//", "\n", "0x", "𝟏", "AAAA"];
    for shape in shapes {
        for (index, kind) in TYPES.iter().enumerate() {
            let given = long(shape, if index % 2 == 0 { 3_000 } else { 200_000 });
            let body = json!({"applicationId": application.id, "token": application.token, "version": "v1",
                "variables": {kind.to_uppercase(): given}});
            let answer = send(&installation, "/webhook/validate", &[JSON], body.to_string().into_bytes()).await;
            judged(&answer, &(kind, shape));
        }
    }
    let many: Value = (0..8_000).map(|i| (format!("N{i}"), json!("x"))).collect();
    let body = json!({"applicationId": application.id, "token": application.token, "version": "v1", "variables": many});
    let answer = send(&installation, "/webhook/validate", &[JSON], body.to_string().into_bytes()).await;
    assert_eq!(judged(&answer, &"thousands of names"), 422);
    let deep = format!("{}{}", long("[", 100_000), long("]", 100_000));
    judged(&send(&installation, "/webhook/deploy", &[JSON], deep.into_bytes()).await, &"deep");
}

#[tokio::test]
async fn no_issue_or_comment_with_the_right_signature_is_answered_with_a_fault_of_ours() {
    let (installation, application) = open_to_all().await;
    // Nobody answers at that address: what is taken in waits.
    let nowhere = format!("http://127.0.0.1:{}", crate::support::free_port());
    let secret = "of-a-test-and-long-enough";
    let github = json!({"github": {"webhookSecret": secret, "token": "of-a-test-and-long-enough", "apiUrl": nowhere}});
    installation.put("settings", &github).await.expect(200);
    let trigger = json!({"issueTrigger": {"repository": "acme/builds", "label": "deploy", "allow": "anyone"}});
    installation.put(&format!("applications/{}", application.id), &trigger).await.expect(200);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut seen = std::collections::BTreeMap::new();
    let deliver = async |event: &str, body: &Value| {
        let bytes = body.to_string().into_bytes();
        let signature = format!("sha256={}", crate::support::hex(hmac::sign(&key, &bytes).as_ref()));
        let delivery = uuid(random::bytes());
        let headers =
            [JSON, ("x-github-event", event), ("x-github-delivery", &delivery), ("x-hub-signature-256", &signature)];
        judged(&send(&installation, "/webhook/github", &headers, bytes).await, body)
    };
    let issue = |text: &str| {
        json!({"number": 1, "title": "t", "body": text, "state": "open", "user": {"login": "ada", "id": 1, "type": "User"},
        "labels": [{"name": "deploy"}], "updated_at": "2026-11-22T10:00:00Z", "created_at": "2026-11-22T10:00:00Z"})
    };
    let repository = json!({"full_name": "acme/builds", "name": "builds", "owner": {"login": "acme"}});
    let sender = json!({"login": "ada", "id": 1, "type": "User"});
    for given in samples(prop::collection::vec(
        prop_oneof![text(), Just("\n\n### tag\n\n".to_owned()), Just("```\n".to_owned())],
        0..8,
    )) {
        let body =
            json!({"action": "opened", "issue": issue(&given.concat()), "repository": repository, "sender": sender});
        count(&mut seen, deliver("issues", &body).await);
        let comment = json!({"id": 1, "body": format!("/approve {}", given.concat()), "user": sender, "created_at": "2026-11-22T10:00:00Z",
            "updated_at": "2026-11-22T10:00:00Z"});
        let body = json!({"action": "created", "issue": issue(""), "comment": comment, "repository": repository, "sender": sender});
        count(&mut seen, deliver("issue_comment", &body).await);
    }
    for given in samples(value()) {
        let body = json!({"action": "opened", "issue": given, "repository": repository, "sender": given});
        count(&mut seen, deliver("issues", &body).await);
    }
    println!("figure: signed issues and comments, answers by status: {seen:?}");
    assert!(seen.contains_key(&202) && !seen.contains_key(&401), "{seen:?}");
}

fn uuid(bytes: [u8; 16]) -> String {
    let hex = crate::support::hex(&bytes);
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}
