//! What is refused, and what its caller and the record are told of it.

use futures_util::future::join_all;
use reqwest::{Method, header};
use serde_json::{Value, json};
use tidegate_aws::{
    clock,
    keys::{self, Kind},
};
use tidegate_local::{provision, stack};

use crate::support::{Answer, Application, Installation, Setup};

async fn installation() -> Installation {
    Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await
}

/// Status, headers and body, without what differs between any two answers: id and time.
fn told(answer: &Answer) -> (u16, Vec<(String, Vec<u8>)>, String) {
    let id = answer.headers["x-request-id"].to_str().unwrap();
    let differs = |name: &str| name == "x-request-id" || name == "date";
    let headers = answer.headers.iter().filter(|(name, _)| !differs(name.as_str()));
    let mut headers: Vec<_> = headers.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    headers.sort();
    assert!(answer.text.contains(id), "{}", answer.text);
    (answer.status.as_u16(), headers, answer.text.replace(id, "ID"))
}

fn slug(answer: &Answer) -> String {
    answer.json()["type"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// Each differs from the right one in some way.
fn wrong_tokens(right: &str, of_another: &str, rotated_away: &str) -> Vec<(&'static str, Value)> {
    let flip = |at: usize| {
        let mut changed = right.to_owned();
        let other = if &right[at..=at] == "0" { "1" } else { "0" };
        changed.replace_range(at..=at, other);
        changed
    };
    vec![
        ("wrong", format!("whk_{}", "0".repeat(49)).into()),
        ("empty", "".into()),
        ("null", Value::Null),
        ("number", 7.into()),
        ("list", json!([right])),
        ("short", right[..52].into()),
        ("long", format!("{right}0").into()),
        ("surrounded", format!(" {right}").into()),
        ("flipped at its begin", flip(4).into()),
        ("flipped within", flip(20).into()),
        ("flipped in its checksum", flip(52).into()),
        ("upper case", right.to_uppercase().into()),
        ("other kind", right.replace("whk_", "dw_").into()),
        ("not ASCII", format!("{}ä", &right[..51]).into()),
        ("of another application", of_another.into()),
        ("rotated away", rotated_away.into()),
    ]
}

#[tokio::test]
async fn every_wrong_token_gets_the_same_answer_byte_for_byte() {
    let mut installation = installation().await;
    let application = installation.register(json!({})).await;
    let other = installation.register(json!({})).await;
    let rotated = installation.post(&format!("applications/{}/webhook-token", application.id), &json!({})).await;
    let right = rotated.expect(200)["webhookToken"].as_str().unwrap().to_owned();
    let body = |id: &Value| json!({"applicationId": id, "version": "v1"});
    let known = json!(application.id);

    let missing = installation.call(Method::POST, "/webhook/deploy", None, &[], Some(&body(&known))).await;
    let expect = told(&missing);
    assert_eq!((expect.0, slug(&missing)), (401, "unauthorized".to_owned()));
    for (address, (what, token)) in (2..).zip(wrong_tokens(&right, &other.token, &application.token)) {
        // From an address of its own: so many from one would be throttled.
        installation.http = crate::support::client_from(address);
        for id in [&known, &json!(999), &json!("x")] {
            // Another application's token is right for whatever is not an id: those are then told of the field.
            if what == "of another application" && id.is_string() {
                continue;
            }
            let mut body = body(id);
            body["token"] = token.clone();
            let of_body = installation.call(Method::POST, "/webhook/deploy", None, &[], Some(&body)).await;
            assert_eq!(told(&of_body), expect, "{what}, in the body, for {id}");
        }
        if let Some(text) = token.as_str().filter(|text| text.is_ascii() && text.trim() == *text) {
            let body = body(&known);
            let of_header = installation.call(Method::POST, "/webhook/deploy", Some(text), &[], Some(&body)).await;
            assert_eq!(told(&of_header), expect, "{what}, in the header");
        }
    }
    // A wrong token in the body is not mended by a right one in the header.
    let mut both = body(&known);
    both["token"] = other.token.clone().into();
    let both = installation.call(Method::POST, "/webhook/deploy", Some(&right), &[], Some(&both)).await;
    assert_eq!(told(&both), expect);
    for header in [format!("Basic {right}"), right.clone(), "Bearer".to_owned(), format!("Bearer {right} x")] {
        let headers = [("Authorization", header.as_str())];
        let answer = installation.call(Method::POST, "/webhook/deploy", None, &headers, Some(&body(&known))).await;
        assert_eq!(told(&answer), expect, "{}", header.replace(&right, "TOKEN"));
    }
    let path = format!("/webhook/deployments/{}", "00000000-0000-7000-8000-000000000000");
    let status = installation.call(Method::GET, &path, Some(&application.token), &[], None).await;
    assert_eq!(told(&status), expect, "asking for a deployment");
    let accepted = installation.call(Method::POST, "/webhook/deploy", Some(&right), &[], Some(&body(&known))).await;
    accepted.expect(202);
}

#[tokio::test]
async fn every_fault_of_a_request_is_told_at_once_and_no_value_is_repeated() {
    let installation = installation().await;
    let parameters = json!([{"name": "LEVEL", "type": "number"}, {"name": "MUST", "type": "string", "required": true}]);
    let changes = json!({"parameters": parameters, "versionPattern": r"^v\d+$", "hosts": {"names": ["local", "gone"]}});
    let application = installation.register(changes).await;
    let check = async |fields: Value, expect: &[(&str, &str)]| {
        let answer = installation.deploy_with(&application, &fields, &[]).await;
        let body = answer.expect(422);
        let mut faults = answer.faults();
        faults.sort();
        let mut expect: Vec<_> = expect.iter().map(|(field, code)| ((*field).to_owned(), (*code).to_owned())).collect();
        expect.sort();
        assert_eq!(faults, expect, "{fields}");
        assert!(!answer.text.contains("marked"), "{}", answer.text);
        for error in body["errors"].as_array().unwrap() {
            assert!(error["message"].as_str().unwrap().len() > 5 && error["suggestion"].as_str().unwrap().len() > 5);
        }
        assert_eq!(body["validationPassed"], false);
    };
    let host = ("hosts", "unknown-host");
    let undeclared = ("variables.NOPE", "undeclared");
    check(
        json!({"version": "a/marked", "versoin": "marked-1", "variables": {"NOPE": "marked-2", "LEVEL": "marked-3"}}),
        &[
            ("version", "format-version"),
            ("versoin", "unknown-field"),
            undeclared,
            ("variables.LEVEL", "format-number"),
            ("variables.MUST", "missing"),
            host,
        ],
    )
    .await;
    check(
        json!({"tenantId": "other", "variables": {"NOPE": 1, "MUST": ""}}),
        &[("version", "missing"), ("tenantId", "unknown-field"), undeclared, host],
    )
    .await;
    check(
        json!({"applicationId": "marked", "version": 1, "variables": []}),
        &[("applicationId", "wrong-type"), ("version", "wrong-type"), ("variables", "wrong-type"), host],
    )
    .await;
    check(json!({"version": "release-1", "variables": {"MUST": "a"}}), &[("version", "version-pattern"), host]).await;
    check(json!({"version": "v1", "variables": {"MUST": "a\0marked"}}), &[("variables.MUST", "format-string"), host])
        .await;
    let registered = installation.put("hosts/gone", &json!({})).await;
    registered.expect(201);
    installation
        .deploy_with(&application, &json!({"version": "v1", "variables": {"MUST": "a"}}), &[])
        .await
        .expect(202);
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_before_anything_is_looked_at() {
    let installation = installation().await;
    let url = format!("{}/webhook/deploy", installation.stack.url());
    let send = async |content_type: &str, body: Vec<u8>| {
        let request = installation.http.post(&url).header(header::CONTENT_TYPE, content_type).body(body);
        Answer::of(request.send().await.unwrap()).await
    };
    let json = "application/json";
    let not_json: [(&str, &[u8]); 4] =
        [("cut", br#"{"token":"#), ("empty", b""), ("twice", br#"{"token":"a","token":"b"}"#), ("bytes", b"\"\xff\"")];
    for (what, body) in not_json {
        let answer = send(json, body.to_vec()).await;
        assert_eq!((answer.status.as_u16(), slug(&answer)), (400, "malformed-json".to_owned()), "{what}");
    }
    let large = send(json, format!("\"{}\"", "a".repeat(256 * 1024)).into_bytes()).await;
    assert_eq!((large.status.as_u16(), slug(&large)), (413, "payload-too-large".to_owned()));
    let form = send("application/x-www-form-urlencoded", b"token=a".to_vec()).await;
    assert_eq!((form.status.as_u16(), slug(&form)), (415, "unsupported-media-type".to_owned()));
    let check = async |method: Method, path: &str, status: u16, allow: Option<&str>| {
        let answer = installation.call(method.clone(), path, None, &[], None).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.text);
        assert_eq!(answer.headers.get(header::ALLOW).map(|v| v.to_str().unwrap()), allow, "{method} {path}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json", "{method} {path}");
        let id = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(answer.json()["requestId"], id);
    };
    check(Method::GET, "/webhook/deploy", 405, Some("POST")).await;
    check(Method::DELETE, "/webhook/deployments/1", 405, Some("GET,HEAD")).await;
    check(Method::PATCH, "/api/v2/projects", 405, Some("GET,HEAD,POST")).await;
    check(Method::GET, "/", 404, None).await;
    check(Method::POST, "/webhook/deploy/", 404, None).await;
    check(Method::GET, "/api/v2/nothing", 404, None).await;
    check(Method::GET, "/api/v1/projects", 404, None).await;
    let gone = installation.call(Method::POST, "/deploy", None, &[], Some(&json!({"secret": "shared"}))).await;
    assert!(gone.expect(410)["detail"].as_str().unwrap().contains("/webhook/deploy"));
}

#[tokio::test]
async fn a_refusal_after_the_token_was_right_is_on_record_a_hundred_times_an_hour() {
    let installation = installation().await;
    let hour = || clock::now().to_string()[..13].to_owned();
    let mut counted = None;
    // The hour may turn in the middle; not twice.
    for _ in 0..2 {
        let (application, begun) = (installation.register(json!({})).await, hour());
        let refused = installation.deploy_with(&application, &json!({"version": "a/b"}), &[]).await;
        check_record(&installation, &application, &refused.expect(422)).await;
        let mut recorded = 1;
        for _ in 0..13 {
            let bad = json!({"version": "a/b"});
            let refusals = (0..8).map(|_| installation.deploy_with(&application, &bad, &[]));
            let answers = join_all(refusals).await;
            recorded += answers.iter().filter(|answer| answer.expect(422)["deploymentId"].is_string()).count();
        }
        if begun == hour() {
            counted = Some((application, recorded));
            break;
        }
    }
    let (application, recorded) = counted.unwrap();
    assert_eq!(recorded, 100, "of 105 refusals");
    let listed = installation.get(&format!("deployments?applicationId={}&limit=200", application.id)).await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 100);
    // Who has used up his refusals can still deploy.
    installation.deploy(&application, "v1").await.expect(202);
}

async fn check_record(installation: &Installation, application: &Application, refused: &Value) {
    let reason = "version: format-version";
    assert_eq!((&refused["validationPassed"], &refused["rejectReason"]), (&json!(false), &json!(reason)));
    let id = refused["deploymentId"].as_str().unwrap();
    let path = format!("/webhook/deployments/{id}");
    let for_ci = installation.call(Method::GET, &path, Some(&application.token), &[], None).await.expect(200);
    for shown in [for_ci, installation.get(&format!("deployments/{id}")).await.expect(200)] {
        assert_eq!((&shown["status"], &shown["phase"]), (&json!("rejected"), &json!("failed")), "{shown}");
        assert_eq!((&shown["validationPassed"], &shown["rejectReason"]), (&json!(false), &json!(reason)), "{shown}");
        assert_eq!((&shown["trigger"]["source"], &shown["sequence"]), (&json!("127.0.0.1"), &Value::Null), "{shown}");
    }
}

#[tokio::test]
async fn a_webhook_that_is_switched_off_refuses_the_right_token_only() {
    let installation = installation().await;
    let application = installation.register(json!({})).await;
    let switch = async |enabled: bool| {
        let path = format!("applications/{}/webhook", application.id);
        installation.put(&path, &json!({ "enabled": enabled })).await.expect(200);
    };
    switch(false).await;
    let off = installation.deploy(&application, "v1").await;
    assert_eq!(
        (off.expect(403)["rejectReason"].clone(), slug(&off)),
        (json!("webhook-disabled"), "webhook-disabled".to_owned())
    );
    let nobody = installation.deploy_with(&application, &json!({"version": "v1", "token": "whk_"}), &[]).await;
    assert_eq!(nobody.status.as_u16(), 401);
    switch(true).await;
    installation.deploy(&application, "v1").await.expect(202);
}

#[tokio::test]
async fn a_token_is_rotated_with_an_overlap_that_ends() {
    let installation = installation().await;
    let application = installation.register(json!({})).await;
    let rotate = async |seconds: u64| {
        let path = format!("applications/{}/webhook-token", application.id);
        installation.post(&path, &json!({ "overlapSeconds": seconds })).await.expect(200)
    };
    let ask = async |token: &str| {
        let path = "/webhook/deployments/00000000-0000-7000-8000-000000000000";
        installation.call(Method::GET, path, Some(token), &[], None).await.status.as_u16()
    };
    let text = |rotated: &Value| rotated["webhookToken"].as_str().unwrap().to_owned();
    let first = application.token.clone();
    let second = rotate(3600).await;
    assert!(second["previousValidUntil"].is_string());
    let second = text(&second);
    // 404: the token is right, and there is no such deployment.
    assert_eq!((ask(&first).await, ask(&second).await), (404, 404));
    let third = text(&rotate(2).await);
    assert_eq!((ask(&first).await, ask(&third).await), (401, 404), "at most two tokens work");
    crate::support::eventually("the end of the overlap", async || (ask(&second).await == 401).then_some(())).await;
    assert_eq!(ask(&third).await, 404);
}

#[tokio::test]
async fn a_token_opens_its_own_applications_deployments_only() {
    let installation = installation().await;
    let (own, other) = (installation.register(json!({})).await, installation.register(json!({})).await);
    let id = installation.deploy(&own, "v1").await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    let ask = async |application: &Application, id: &str| {
        let path = format!("/webhook/deployments/{id}");
        installation.call(Method::GET, &path, Some(&application.token), &[], None).await
    };
    ask(&own, &id).await.expect(200);
    let of_another = told(&ask(&other, &id).await);
    assert_eq!(of_another.0, 404);
    for unknown in ["00000000-0000-7000-8000-000000000000", "x", "..%2f"] {
        assert_eq!(told(&ask(&other, unknown).await), of_another, "{unknown}");
    }
}

#[tokio::test]
async fn credentials_of_a_registry_never_go_to_another_server() {
    let installation = installation().await;
    let clients = installation.aws().clients();
    let side = installation.side_of(&stack::host());
    let credentials = async |id: Value| {
        let assignments = side.assignments().await.unwrap();
        let of_deployment = assignments.iter().find(|a| a.deployment_id.to_string() == id).unwrap();
        side.open(of_deployment).await.unwrap().credentials
    };
    let application = installation.register(json!({})).await;
    let own = installation.deploy(&application, "v1").await.expect(202)["deploymentId"].clone();
    let own = credentials(own).await.unwrap();
    assert_eq!(
        (own.server.as_str(), own.password.expose().as_str()),
        (&*installation.registry.server(), installation.registry.password())
    );

    // The API refuses this already; here somebody has got round it.
    let application = installation.register(json!({})).await;
    let shown = installation.get(&format!("applications/{}", application.id)).await.expect(200);
    let registry = shown["registryId"].as_u64().unwrap();
    let key = crate::secrets::key(&keys::thing(&stack::tenant(), Kind::Registry, registry));
    let change = clients.dynamodb.update_item().table_name(provision::TABLE).set_key(Some(key));
    let change = change.update_expression("SET #body.#server = :elsewhere");
    let change = change.expression_attribute_names("#body", "body").expression_attribute_names("#server", "server");
    let elsewhere = aws_sdk_dynamodb::types::AttributeValue::S("elsewhere.example.com".to_owned());
    change.expression_attribute_values(":elsewhere", elsewhere).send().await.unwrap();
    let id = installation.deploy(&application, "v1").await.expect(202)["deploymentId"].clone();
    assert!(credentials(id).await.is_none());
}
