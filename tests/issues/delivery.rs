//! The way in: `POST /webhook/github`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tidegate_aws::{
    env,
    intake::{DeliveryId, IntakeId, IntakeMessage},
    random,
};
use tidegate_local::stack;

use super::{Shop, body};
use crate::{
    functions::{environment, http_event, runtime_api::Function},
    support::{Answer, eventually, fake_github::signed, hex},
};

/// The head of a delivery.
pub(super) struct Signed {
    secret: String,
    delivery: String,
    event: &'static str,
}

impl Signed {
    /// With the right secret and an id of its own, about issues.
    pub(super) fn by(shop: &Shop) -> Self {
        Self { secret: shop.secret.clone(), delivery: hex(&random::bytes::<16>()), event: "issues" }
    }
}

pub(super) async fn deliver(shop: &Shop, payload: &Value, head: &Signed) -> Answer {
    let body = payload.to_string();
    let signature = signed(&head.secret, body.as_bytes());
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", head.event),
        ("x-github-delivery", &head.delivery),
        ("x-hub-signature-256", &signature),
    ];
    send(shop, &headers, body.into_bytes()).await
}

async fn send(shop: &Shop, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = shop.installation.http.post(shop.hook_url());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.body(body).send().await.unwrap()).await
}

/// Status, headers and body but for what is of the request alone.
fn told(answer: &Answer) -> (u16, Vec<String>, Value) {
    let mut headers: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
    headers.sort();
    let mut body = answer.json();
    body.as_object_mut().unwrap().remove("requestId");
    (answer.status.as_u16(), headers, body)
}

#[tokio::test]
async fn a_wrong_signature_and_an_unknown_repository_are_the_same_401() {
    let shop = Shop::open().await;
    let issue = shop.github.open_quietly("writer", &body("v1", &[]), &["deploy"]);
    let event = shop.github.issue_event(&issue, "opened", "writer");
    let right = Signed::by(&shop);
    let wrong = Signed { secret: "another secret that is long".to_owned(), ..Signed::by(&shop) };
    let expect = told(&deliver(&shop, &event, &wrong).await);
    assert_eq!((expect.0, &expect.2["type"]), (401, &json!("https://tidegate.dev/problems/unauthorized")));
    let mut elsewhere = event.clone();
    elsewhere["repository"]["full_name"] = "octo-org/other".into();
    let mut nowhere = event.clone();
    nowhere.as_object_mut().unwrap().remove("repository");
    for (what, payload, head) in [
        ("another repository, by its secret", &elsewhere, &right),
        ("another repository", &elsewhere, &wrong),
        ("no repository", &nowhere, &right),
        ("not an object", &json!([]), &right),
    ] {
        assert_eq!(told(&deliver(&shop, payload, head).await), expect, "{what}");
    }
    let text = event.to_string();
    let signature = signed(&shop.secret, text.as_bytes());
    let sha1 = signature.replace("sha256", "sha1");
    for (what, signature, body) in [
        ("changed by a blank", signature.as_str(), format!("{text} ")),
        ("of a shorter body", &signed(&shop.secret, b"{}"), text.clone()),
        ("with an older hash", &sha1, text.clone()),
        ("cut", &signature[..70], text.clone()),
        ("empty", "", text.clone()),
    ] {
        let headers = [
            ("content-type", "application/json"),
            ("x-github-event", "issues"),
            ("x-github-delivery", right.delivery.as_str()),
            ("x-hub-signature-256", signature),
        ];
        assert_eq!(told(&send(&shop, &headers, body.into_bytes()).await), expect, "{what}");
    }
    let headers = [("content-type", "application/json"), ("x-github-event", "issues")];
    assert_eq!(told(&send(&shop, &headers, text.into_bytes()).await), expect, "without a signature");
    shop.quiet().await;
    assert!(shop.github.calls().is_empty() && shop.deployments().await.is_empty());
    // Without GitHub in the settings nothing is right, not even what is signed with nothing.
    shop.installation.put("settings", &json!({"github": null})).await.expect(200);
    for secret in ["", "decoy", &shop.secret] {
        let head = Signed { secret: secret.to_owned(), ..Signed::by(&shop) };
        assert_eq!(told(&deliver(&shop, &event, &head).await), expect, "{secret}");
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_answered_and_not_kept() {
    let shop = Shop::open().await;
    let ping = json!({"zen": "Keep it logically awesome.", "hook_id": 1, "repository": {"full_name": "octo-org/SHOP"}});
    let named = |event| Signed { event, ..Signed::by(&shop) };
    assert_eq!(deliver(&shop, &ping, &named("ping")).await.status.as_u16(), 200);
    let issue = shop.github.open_quietly("writer", &body("v1", &[]), &["bug"]);
    let event = |action| shop.github.issue_event(&issue, action, "writer");
    for (payload, name) in [
        (event("opened"), "issues"),
        (event("deleted"), "issues"),
        (event("opened"), "pull_request"),
        (ping.clone(), "push"),
        (ping.clone(), "issues"),
    ] {
        let answer = deliver(&shop, &payload, &named(name)).await;
        assert_eq!(answer.expect(202)["ignored"], true, "{name}");
    }
    let mut labeled = event("opened");
    labeled["issue"]["labels"] = json!([{"name": "deploy"}]);
    let head = Signed { delivery: "not-a-uuid".to_owned(), ..Signed::by(&shop) };
    assert_eq!(
        deliver(&shop, &labeled, &head).await.faults(),
        [("X-GitHub-Delivery".to_owned(), "format-id".to_owned())]
    );
    let text = labeled.to_string();
    let signature = signed(&shop.secret, text.as_bytes());
    let headers = [("content-type", "application/x-www-form-urlencoded"), ("x-hub-signature-256", &*signature)];
    assert_eq!(send(&shop, &headers, text.into_bytes()).await.status.as_u16(), 415);
    let headers = [("content-type", "application/json"), ("x-hub-signature-256", &*signature)];
    assert_eq!(send(&shop, &headers, vec![b' '; 1024 * 1024 + 1]).await.status.as_u16(), 413);
    let get = shop.installation.call(Method::GET, "/webhook/github", None, &[], None).await;
    assert_eq!(get.status.as_u16(), 405);
    assert!(shop.github.calls().is_empty());

    // Longer than other routes take, and still an issue; its body is longer than anybody reads.
    labeled["issue"]["body"] = "a".repeat(300 * 1024).into();
    shop.github.label("writer", issue.number, "deploy").await;
    shop.said(issue.number).await;
    let mut edited = labeled.clone();
    edited["issue"]["updated_at"] = "2099-01-01T00:00:00Z".into();
    deliver(&shop, &edited, &Signed::by(&shop)).await.expect(202);
    shop.quiet().await;
    let said = shop.github.said(issue.number);
    assert!(said.len() == 2 && said[1].contains("`issue` (`too-large`)"), "{said:?}");
}

#[tokio::test]
async fn both_functions_handle_what_the_gateway_and_the_queue_hand_them() {
    let shop = Shop::open().await;
    let mut environment = environment(&shop.installation);
    environment.push((env::PUBLIC_URL, "https://deploy.example.com".to_owned()));
    let webhook = Function::start("tidegate-webhook", &environment).await;
    let issue = shop.github.open_quietly("writer", &body("v1", &[("api_server", super::PUBLIC)]), &["deploy"]);
    // With a character that is more than one byte, so that bytes and text are not the same.
    let mut event = shop.github.issue_event(&issue, "opened", "writer");
    event["issue"]["title"] = "Größe".into();
    let text = event.to_string();
    let (signature, delivery) = (signed(&shop.secret, text.as_bytes()), "72d3162e-cc78-11e3-81ab-4c9367dc0958");
    let headers = [("x-github-event", "issues"), ("x-github-delivery", delivery), ("x-hub-signature-256", &*signature)];
    for is_encoded in [true, false] {
        let sent = if is_encoded { STANDARD.encode(&text) } else { text.clone() };
        let mut request = http_event("POST", "/webhook/github", &headers, Some(&sent));
        request["isBase64Encoded"] = is_encoded.into();
        let answer = webhook.invoke(request).await.unwrap();
        assert_eq!(answer["statusCode"], 202, "{answer}");
    }
    let asked = eventually("it waits for a decision", async || {
        shop.github.said(issue.number).into_iter().find(|said| said.contains("needs your decision"))
    })
    .await;
    assert!(asked.contains("/approvals/"), "{asked}");
    shop.quiet().await;

    let validation = Function::start("tidegate-validation", &environment).await;
    let message =
        IntakeMessage { tenant: stack::tenant(), id: IntakeId::Delivery(DeliveryId::parse(delivery).unwrap()) };
    let record = |id: &str, body: String| {
        json!({"messageId": id, "receiptHandle": id, "body": body, "eventSource": "aws:sqs",
        "awsRegion": "us-east-1", "attributes": {}, "messageAttributes": {}, "md5OfBody": "0",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:tidegate-intake"})
    };
    let records =
        json!({"Records": [record("1", serde_json::to_string(&message).unwrap()), record("2", "{".to_owned())]});
    let answer = validation.invoke(records).await.unwrap();
    assert_eq!(
        answer,
        json!({"batchItemFailures": [{"itemIdentifier": "2"}]}),
        "what is done is done, the other is told"
    );
}
