//! What an administrator sets for the tenant, and how wrong credentials are throttled.

mod throttle;

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate_aws::{
    settings::GithubAuth,
    store::{Store, StoreConfig},
};
use tidegate_local::{provision, stack};

use crate::{
    administration::admin::Admin,
    support::{Installation, Setup},
};

const MASK: &str = "***************";

fn store(admin: &Admin) -> Store {
    let config = StoreConfig {
        table: provision::TABLE.to_owned(),
        key: provision::KEY_ALIAS.to_owned(),
        host_queue_prefix: "nowhere".to_owned(),
        intake_queue_url: None,
    };
    Store::new(&admin.aws.clients(), config)
}

#[tokio::test]
async fn what_nobody_has_set_is_as_documented_and_a_change_keeps_the_rest() {
    let admin = Admin::signed_in().await;
    let shown = admin.get("settings").await;
    let expect = json!({
        "limits": {"open": {"perUser": 3, "perIp": 5, "total": 10}, "trusted": {"perUser": 60, "perIp": 120, "total": 600}},
        "queue": {"capacity": 100, "reserved": 20}, "approvalTimeoutMinutes": 360, "github": null,
        "revision": 0, "createdAt": null, "updatedAt": null,
    });
    assert_eq!((shown.headers["etag"].to_str().unwrap(), &shown.body), ("\"0\"", &expect));
    let first = [("If-Match", "\"0\"")];
    let body = json!({"limits": {"open": {"total": 0}}, "approvalTimeoutMinutes": 5});
    let changed = admin.call(Method::PUT, "settings", &first, Some(body.clone())).await;
    assert_eq!((changed.status, changed.headers["etag"].to_str().unwrap()), (StatusCode::OK, "\"1\""));
    assert_eq!(changed.body["limits"]["open"], json!({"perUser": 3, "perIp": 5, "total": 0}));
    assert_eq!((&changed.body["queue"], &changed.body["approvalTimeoutMinutes"]), (&expect["queue"], &json!(5)));
    let late = admin.call(Method::PUT, "settings", &first, Some(body)).await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    let again = admin.put("settings", changed.body.clone()).await;
    assert_eq!((again.status, &again.body["revision"]), (StatusCode::OK, &json!(2)), "{}", again.body);
    assert_eq!(again.body["createdAt"], changed.body["createdAt"]);
    let same = admin.call(Method::GET, "settings", &[("If-None-Match", "\"2\"")], None).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
    let back = admin.put("settings", json!({"limits": null, "queue": null, "github": null})).await;
    assert_eq!((&back.body["limits"], &back.body["queue"]), (&expect["limits"], &expect["queue"]));
}

#[tokio::test]
async fn changes_at_the_same_time_are_all_made() {
    let admin = Admin::signed_in().await;
    let minutes = [10, 20, 30, 40];
    let writes = minutes.map(|minutes| admin.put("settings", json!({"approvalTimeoutMinutes": minutes})));
    for answer in futures_util::future::join_all(writes).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    }
    assert_eq!(admin.get("settings").await.body["revision"], 4);
    let audit = admin.aws.clients().dynamodb.scan().table_name(provision::TABLE).consistent_read(true);
    let audit = audit.filter_expression("#action = :action").expression_attribute_names("#action", "action");
    let is_change = aws_sdk_dynamodb::types::AttributeValue::S("settings.updated".to_owned());
    assert_eq!(audit.expression_attribute_values(":action", is_change).send().await.unwrap().count(), 4);
}

#[tokio::test]
async fn every_fault_of_the_settings_is_told_at_once() {
    let admin = Admin::signed_in().await;
    let check = async |body: Value, expect: &[(&str, &str)]| {
        let answer = admin.put("settings", body.clone()).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        let mut faults = answer.faults();
        faults.sort_unstable();
        assert_eq!(faults, expect, "{body}");
    };
    check(
        json!({
            "limits": {"open": {"perUser": -1}, "trusted": {"total": 1_000_001}, "odd": {}},
            "queue": {"capacity": 1_001, "reserved": 1_000}, "approvalTimeoutMinutes": 43_201, "tenantId": "other",
            "github": {"apiUrl": "http://ghe.example.com", "webhookSecret": "short", "appId": 1, "privateKey": "x"},
        }),
        &[
            ("approvalTimeoutMinutes", "out-of-range"),
            ("github.apiUrl", "format-url"),
            ("github.privateKey", "format-private-key"),
            ("github.webhookSecret", "too-short"),
            ("limits.odd", "unknown-field"),
            ("limits.open.perUser", "wrong-type"),
            ("limits.trusted.total", "out-of-range"),
            ("queue.capacity", "out-of-range"),
            ("queue.reserved", "out-of-range"),
            ("tenantId", "unknown-field"),
        ],
    )
    .await;
    check(json!({"approvalTimeoutMinutes": 0}), &[("approvalTimeoutMinutes", "out-of-range")]).await;
    check(json!({"queue": {"capacity": 20}}), &[("queue.reserved", "out-of-range")]).await;
    check(json!({"github": {}}), &[("github.token", "missing"), ("github.webhookSecret", "missing")]).await;
    let long = "a-long-enough-secret";
    check(json!({"github": {"webhookSecret": long, "token": MASK}}), &[("github.token", "mask")]).await;
    check(
        json!({"github": {"webhookSecret": MASK, "token": "t", "appId": 7}}),
        &[("github.token", "either-or"), ("github.webhookSecret", "mask")],
    )
    .await;
    assert_eq!(admin.get("settings").await.body["revision"], 0);
}

#[tokio::test]
async fn the_limits_of_an_application_are_said_whole() {
    let admin = Admin::signed_in().await;
    assert_eq!(admin.registered().await["limits"], Value::Null);
    let check = async |limits: Value, expect: &[(&str, &str)]| {
        let answer = admin.put("applications/1", json!({"limits": limits})).await;
        assert_eq!(answer.faults(), expect, "{limits}");
        answer.body["limits"].clone()
    };
    check(
        json!({"total": 5, "odd": 1}),
        &[("limits.perUser", "missing"), ("limits.perIp", "missing"), ("limits.odd", "unknown-field")],
    )
    .await;
    let whole = json!({"perUser": 1, "perIp": 0, "total": 5});
    assert_eq!(check(whole, &[]).await, json!({"perUser": 1, "perIp": 0, "total": 5}));
    assert_eq!(check(json!({"total": 6}), &[]).await, json!({"perUser": 1, "perIp": 0, "total": 6}));
    assert_eq!(check(Value::Null, &[]).await, Value::Null);
}

#[tokio::test]
async fn settings_are_the_administrators_and_figures_everybodys() {
    let mut admin = Admin::start().await;
    for (user, settings) in [("viewer", 403), ("operator", 403), ("admin", 200)] {
        admin.sign_in(user).await;
        assert_eq!(admin.get("settings").await.status.as_u16(), settings, "{user}");
        assert_eq!(admin.put("settings", json!({})).await.status.as_u16(), settings, "{user}");
        assert_eq!(admin.get("queue").await.body, json!({"length": 0, "capacity": 100, "reserved": 20}));
        let summary = admin.get("metrics/summary").await.body;
        assert_eq!((&summary["hours"], &summary["requests"]), (&json!(24), &json!(0)), "{summary}");
        assert_eq!((&summary["passRate"], &summary["durationMs"]["p50"]), (&Value::Null, &Value::Null));
    }
}

/// As GitHub makes one for an app, but for the envelope.
fn private_key() -> String {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()))
}

#[tokio::test]
async fn the_secrets_of_github_are_sealed_masked_and_kept() {
    let admin = Admin::signed_in().await;
    let (store, tenant) = (store(&admin), stack::tenant());
    assert!(store.github(&tenant).await.unwrap().is_none());
    let github = json!({"webhookSecret": "marked-webhook-secret", "token": "marked-token"});
    let set = admin.put("settings", json!({"github": github})).await;
    let masked = json!({"apiUrl": "https://api.github.com", "webUrl": "https://github.com", "webhookSecret": MASK,
        "token": MASK, "appId": null, "privateKey": null});
    assert_eq!((set.status, &set.body["github"]), (StatusCode::OK, &masked), "{}", set.body);
    let again = admin.put("settings", set.body.clone()).await;
    assert_eq!((again.status, &again.body["github"]), (StatusCode::OK, &masked), "{}", again.body);
    let opened = store.github(&tenant).await.unwrap().unwrap();
    assert_eq!(opened.webhook_secret.expose(), "marked-webhook-secret");
    let GithubAuth::Token(token) = opened.auth else { panic!("{:?}", opened.auth) };
    assert_eq!((token.expose().as_str(), opened.api_url.as_str()), ("marked-token", "https://api.github.com"));

    // Credentials go to no other server than the one that they were given for.
    let elsewhere = json!({"github": {"apiUrl": "https://ghe.example.com/api/v3", "token": MASK}});
    assert_eq!(admin.put("settings", elsewhere).await.faults(), [("github.token", "mask")]);
    let key = private_key();
    let app = json!({"apiUrl": "https://ghe.example.com/api/v3/", "token": null, "appId": 7, "privateKey": key});
    let set = admin.put("settings", json!({"github": app})).await;
    let masked = json!({"apiUrl": "https://ghe.example.com/api/v3", "webUrl": "https://ghe.example.com",
        "webhookSecret": MASK, "token": null, "appId": 7, "privateKey": MASK});
    assert_eq!((set.status, &set.body["github"]), (StatusCode::OK, &masked), "{}", set.body);
    let set = admin.put("settings", json!({"github": {"webhookSecret": "another-webhook-secret"}})).await;
    assert_eq!((set.status, &set.body["github"]), (StatusCode::OK, &masked), "{}", set.body);
    let opened = store.github(&tenant).await.unwrap().unwrap();
    assert_eq!(opened.webhook_secret.expose(), "another-webhook-secret");
    let GithubAuth::App { app_id: 7, private_key_pem } = opened.auth else { panic!("{:?}", opened.auth) };
    assert_eq!(*private_key_pem.expose(), key);

    let items = admin.aws.clients().dynamodb.scan().table_name(provision::TABLE).consistent_read(true).send().await;
    let items = format!("{:?}", items.unwrap().items);
    for secret in ["marked-webhook-secret", "marked-token", "another-webhook-secret", &key[40..80]] {
        assert!(!items.contains(secret), "{secret} is stored as it is");
    }
    assert_eq!(admin.put("settings", json!({"github": null})).await.body["github"], Value::Null);
    assert!(store.github(&tenant).await.unwrap().is_none());
}

#[tokio::test]
async fn the_queue_takes_as_many_as_the_settings_say() {
    let setup = Setup { no_worker: true, no_sweeps: true, ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    installation.put("settings", &json!({"queue": {"capacity": 3, "reserved": 1}})).await.expect(200);
    let application = installation.register(json!({})).await;
    for _ in 0..2 {
        installation.deploy(&application, "v1").await.expect(202);
    }
    let full = installation.deploy(&application, "v1").await;
    assert!(full.expect(503)["type"].as_str().unwrap().ends_with("/queue-full"));
    installation.put("settings", &json!({"queue": {"reserved": 0}})).await.expect(200);
    installation.deploy(&application, "v1").await.expect(202);
    let queue = installation.get("queue").await.expect(200);
    assert_eq!(queue, json!({"length": 3, "capacity": 3, "reserved": 0}));
}
