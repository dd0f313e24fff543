//! What a secret has been, who uses it, when it is due, and where it comes from.

mod importing;

use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate_aws::{
    audit::AuditEvent,
    catalogue::Stored,
    clients::Clients,
    clock,
    keys::{self, Kind},
    meter::Meter,
    registered::{Source, StoredSecret},
    secrets::{NewSecret, SecretChange},
    store::{Store, StoreConfig},
};
use tidegate_domain::{
    id::{SecretGroupId, SecretProviderId},
    secret::Secret,
};
use tidegate_local::{
    provision::{KEY_ALIAS, TABLE},
    stack,
};

use crate::administration::admin::Admin;

async fn with_secret(value: &str) -> Admin {
    let admin = Admin::signed_in().await;
    admin.created("secret-groups", json!({"name": "db"})).await;
    admin.created("secrets", json!({"groupId": 1, "name": "URL", "value": value})).await;
    admin
}

fn store(admin: &Admin, meter: Option<Meter>) -> Store {
    let config = StoreConfig {
        table: TABLE.to_owned(),
        key: KEY_ALIAS.to_owned(),
        host_queue_prefix: String::new(),
        intake_queue_url: None,
    };
    Store::new(&Clients::new(admin.aws.sdk_config(), meter), config)
}

fn event(action: &str) -> AuditEvent {
    AuditEvent {
        actor: "sync".to_owned(),
        action: action.to_owned(),
        subject: "secret".to_owned(),
        source_ip: None,
        request_id: None,
    }
}

async fn revealed(admin: &Admin, path: &str) -> Value {
    let answer = admin.post(path, json!({})).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.body["value"].clone()
}

async fn versions(admin: &Admin) -> Vec<u64> {
    let listed = admin.get("secrets/1/versions").await.body;
    listed["data"].as_array().unwrap().iter().map(|version| version["version"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn the_last_ten_values_are_kept_and_each_can_come_back() {
    let admin = with_secret("value 1").await;
    for version in 2..=12 {
        let changed = admin.put("secrets/1", json!({"value": format!("value {version}")})).await.body;
        assert_eq!(changed["valueVersion"], version, "{changed}");
    }
    assert_eq!(versions(&admin).await, (3..=12).rev().collect::<Vec<_>>());
    let listed = admin.get("secrets/1/versions").await.body;
    assert_eq!((&listed["data"][0]["createdBy"], &listed["nextCursor"]), (&json!("admin"), &Value::Null));
    assert!(!listed.to_string().contains("value 1"), "{listed}");
    for version in 3..=12 {
        let path = format!("secrets/1/reveal?version={version}");
        assert_eq!(revealed(&admin, &path).await, format!("value {version}"));
    }
    let restored = admin.post("secrets/1/versions/3/restore", json!({})).await;
    assert_eq!((restored.status, &restored.body["valueVersion"]), (StatusCode::OK, &json!(13)), "{}", restored.body);
    assert_eq!(restored.headers["etag"], format!("\"{}\"", restored.body["revision"]));
    assert_eq!(revealed(&admin, "secrets/1/reveal").await, "value 3");
    assert_eq!(versions(&admin).await, (4..=13).rev().collect::<Vec<_>>());
    // Again: it is the value already.
    assert_eq!(admin.post("secrets/1/versions/13/restore", json!({})).await.body["valueVersion"], 13);
    for (path, status) in [
        ("secrets/1/versions/3/restore", 404),
        ("secrets/1/versions/x/restore", 404),
        ("secrets/9/versions/1/restore", 404),
    ] {
        assert_eq!(admin.post(path, json!({})).await.status.as_u16(), status, "{path}");
    }
    let stale = admin.call(Method::POST, "secrets/1/versions/5/restore", &[("If-Match", "\"1\"")], None).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_repeated_request_restores_once() {
    let admin = with_secret("old").await;
    admin.put("secrets/1", json!({"value": "new"})).await;
    let restore = || admin.call(Method::POST, "secrets/1/versions/1/restore", &[("Idempotency-Key", "once")], None);
    for answer in futures_util::future::join_all((0..8).map(|_| restore())).await {
        assert_eq!((answer.status, &answer.body["valueVersion"]), (StatusCode::OK, &json!(3)), "{}", answer.body);
    }
    // Whoever did not hear the answer asks again later, and takes nothing back.
    admin.put("secrets/1", json!({"value": "newer"})).await;
    let again = restore().await;
    assert_eq!((again.headers.contains_key("idempotent-replayed"), &again.body["valueVersion"]), (true, &json!(3)));
    assert_eq!(revealed(&admin, "secrets/1/reveal").await, "newer");
    assert_eq!(versions(&admin).await, [4, 3, 2, 1]);
}

#[tokio::test]
async fn the_same_value_is_no_new_version() {
    let admin = with_secret("the same").await;
    let again = admin.put("secrets/1", json!({"value": "the same"})).await;
    assert_eq!((&again.body["valueVersion"], &again.body["revision"]), (&json!(1), &json!(1)), "{}", again.body);
    let renamed = admin.put("secrets/1", json!({"value": "the same", "name": "URI"})).await;
    assert_eq!((&renamed.body["valueVersion"], &renamed.body["revision"]), (&json!(1), &json!(2)), "{}", renamed.body);
    assert_eq!(versions(&admin).await, [1]);
}

#[tokio::test]
async fn concurrent_writes_lose_no_version() {
    let admin = with_secret("first").await;
    let writes = (0..6).map(|i| {
        let admin = &admin;
        async move { admin.put("secrets/1", json!({"value": format!("write {i}")})).await }
    });
    let answers = futures_util::future::join_all(writes).await;
    let done = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert!(
        answers.iter().all(|a| matches!(a.status.as_u16(), 200 | 503)),
        "{:?}",
        answers.iter().map(|a| a.status).collect::<Vec<_>>()
    );
    let last = done as u64 + 1;
    assert_eq!(versions(&admin).await, (1..=last).rev().collect::<Vec<_>>());
    let mut values = Vec::new();
    for version in 2..=last {
        values.push(revealed(&admin, &format!("secrets/1/reveal?version={version}")).await.to_string());
    }
    values.sort();
    values.dedup();
    assert_eq!(values.len(), done, "{values:?}");
}

#[tokio::test]
async fn odd_values_come_back_byte_for_byte() {
    let admin = with_secret("x").await;
    let long = "é".repeat(32 * 1024);
    for value in [
        "",
        " ",
        "\"'\\",
        "a\nb\r\n\tc",
        "{{NAME}} {{{{",
        "@secret:1",
        "@@secret:",
        "\u{1F511} ключ",
        "{\"a\":[1]}",
        &long,
    ] {
        let changed = admin.put("secrets/1", json!({ "value": value })).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
        assert_eq!(revealed(&admin, "secrets/1/reveal").await, value);
    }
    for (value, code) in [(format!("{long}x"), "too-long"), ("a\0b".to_owned(), "format-string")] {
        assert_eq!(admin.put("secrets/1", json!({ "value": value })).await.faults(), [("value", code)]);
    }
}

/// As they were stored before versions had items.
async fn forget_versions(admin: &Admin) {
    let (tenant, clients) = (stack::tenant(), admin.aws.clients());
    let thing = crate::secrets::key(&keys::thing(&tenant, Kind::Secret, 1));
    let update = clients.dynamodb.update_item().table_name(TABLE).set_key(Some(thing));
    update.update_expression("REMOVE body.versionsFrom").send().await.unwrap();
    let version = crate::secrets::key(&keys::secret_version(&tenant, 1.into(), 1));
    clients.dynamodb.delete_item().table_name(TABLE).set_key(Some(version)).send().await.unwrap();
}

#[tokio::test]
async fn a_secret_from_before_versions_were_kept_gets_them_with_its_next_value() {
    let admin = with_secret("old").await;
    forget_versions(&admin).await;
    let listed = admin.get("secrets/1/versions").await.body;
    assert_eq!((&listed["data"][0]["version"], &listed["data"][0]["createdBy"]), (&json!(1), &Value::Null), "{listed}");
    assert_eq!(revealed(&admin, "secrets/1/reveal?version=1").await, "old");
    admin.put("secrets/1", json!({"value": "new"})).await;
    assert_eq!(versions(&admin).await, [2, 1]);
    assert_eq!(revealed(&admin, "secrets/1/reveal?version=1").await, "old");
    admin.post("secrets/1/versions/1/restore", json!({})).await;
    assert_eq!(revealed(&admin, "secrets/1/reveal").await, "old");
    let admin = with_secret("old").await;
    forget_versions(&admin).await;
    assert_eq!(admin.delete("secrets/1").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn with_a_secret_all_of_it_goes() {
    let admin = with_secret("value 1").await;
    for version in 2..=12 {
        admin.put("secrets/1", json!({"value": format!("value {version}"), "expiresAt": "2030-01-01T00:00:00Z"})).await;
    }
    admin.created("variables", json!({"key": "URL", "value": "@secret:1"})).await;
    let refused = admin.delete("secrets/1").await;
    assert_eq!((refused.status, &refused.body["usedBy"]), (StatusCode::CONFLICT, &json!(["variable URL (global)"])));
    assert_eq!(versions(&admin).await.len(), 10);
    assert_eq!(admin.delete("variables/global.URL").await.status, StatusCode::NO_CONTENT);
    assert_eq!(admin.delete("secrets/1").await.status, StatusCode::NO_CONTENT);
    let left = crate::secrets::items(&admin.aws.clients()).await;
    let left: Vec<_> = left
        .iter()
        .map(|item| item["pk"].as_s().unwrap())
        .filter(|pk| pk.contains("#SECRET") && !pk.ends_with("#SECRET_GROUP"))
        .collect();
    assert_eq!(left, Vec::<&String>::new());
}

async fn uses(admin: &Admin) -> (Value, Vec<String>) {
    let count = admin.get("secrets/1").await.body["usedBy"].clone();
    let listed = admin.get("secrets/1/used-by").await.body;
    (count, listed["data"].as_array().unwrap().iter().map(|of| of["id"].as_str().unwrap().to_owned()).collect())
}

#[tokio::test]
async fn a_secret_knows_the_variables_of_every_scope_that_refer_to_it() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    admin.created("environments", json!({"projectId": "shop", "name": "prod"})).await;
    assert_eq!(uses(&admin).await, (json!(0), vec![]));
    for scope in [json!({}), json!({"projectId": 1}), json!({"applicationId": 1})] {
        let mut variable = scope;
        variable["key"] = "URL".into();
        variable["value"] = "@secret:db/URL".into();
        admin.created("variables", variable).await;
    }
    admin.created("environments/env-1/variables", json!({"key": "URL", "value": "@secret:1"})).await;
    let all = ["application-1.URL", "env-1.URL", "global.URL", "project-1.URL"].map(str::to_owned).to_vec();
    assert_eq!(uses(&admin).await, (json!(4), all.clone()));
    let listed = admin.get("secrets/1/used-by").await.body;
    let expect = json!({"id": "env-1.URL", "scope": "environment", "projectId": null, "envId": "env-1", "applicationId": null, "key": "URL"});
    assert_eq!(listed["data"][1], expect);
    admin.put("variables/global.URL", json!({"value": "plain", "valueType": "string", "isSecret": false})).await;
    assert_eq!(admin.delete("variables/application-1.URL").await.status, StatusCode::NO_CONTENT);
    assert_eq!(uses(&admin).await, (json!(2), vec!["env-1.URL".to_owned(), "project-1.URL".to_owned()]));
    admin.put("variables/global.URL", json!({"value": "@secret:1", "valueType": "secret_ref", "isSecret": true})).await;
    assert_eq!(uses(&admin).await.0, 3);
    let page = admin.get("secrets/1/used-by?limit=2").await.body;
    let cursor = page["nextCursor"].as_str().unwrap();
    let rest = admin.get(&format!("secrets/1/used-by?limit=2&cursor={cursor}")).await.body;
    assert_eq!((page["data"].as_array().unwrap().len(), rest["data"].as_array().unwrap().len()), (2, 1));
}

#[tokio::test]
async fn what_is_due_is_found_by_its_reminder() {
    let admin = with_secret("x").await;
    for name in ["A", "B", "C"] {
        admin.created("secrets", json!({"groupId": 1, "name": name, "value": "x"})).await;
    }
    let set = async |id: u64, at: Value| admin.put(&format!("secrets/{id}"), json!({"expiresAt": at})).await.body;
    assert_eq!(set(2, json!("2030-01-01T00:00:00.9Z")).await["expiresAt"], "2030-01-01T00:00:00Z");
    set(3, json!("2029-01-01T00:00:00Z")).await;
    let past = set(4, json!("2020-01-01T02:00:00+02:00")).await;
    assert_eq!((&past["expiresAt"], &past["expired"]), (&json!("2020-01-01T00:00:00Z"), &json!(true)));
    assert_eq!(past["valueVersion"], 1);
    let due = async |before: &str| {
        let listed = admin.get(&format!("secrets?expiresBefore={before}")).await.body;
        listed["data"].as_array().unwrap().iter().map(|s| s["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(due("2031-01-01T00:00:00Z").await, [4, 3, 2]);
    assert_eq!(due("2030-01-01T00:00:00Z").await, [4, 3]);
    assert_eq!(due("2030-01-01T00:00:00.5Z").await, [4, 3, 2]);
    set(3, Value::Null).await;
    set(4, json!("2032-01-01T00:00:00Z")).await;
    assert_eq!(due("2031-01-01T00:00:00Z").await, [2]);
    assert_eq!(admin.delete("secrets/2").await.status, StatusCode::NO_CONTENT);
    assert_eq!(due("2031-01-01T00:00:00Z").await, Vec::<u64>::new());
    assert_eq!(admin.put("secrets/1", json!({"expiresAt": "soon"})).await.faults(), [("expiresAt", "format-time")]);
    assert_eq!(
        admin.put("secrets/1", json!({"expiresAt": "1969-01-01T00:00:00Z"})).await.faults(),
        [("expiresAt", "out-of-range")]
    );
    assert_eq!(
        admin.get("secrets?groupId=1&expiresBefore=2031-01-01T00:00:00Z").await.faults(),
        [("expiresBefore", "one-filter")]
    );
    let shown = admin.get("secrets/4").await.body;
    assert_eq!(admin.put("secrets/4", shown).await.status, StatusCode::OK);
}

/// A synced secret, as a provider's sync makes one.
async fn synced(store: &Store, provider: u64, now: Timestamp) -> Stored<StoredSecret> {
    let source = |stale| Source::Synced {
        provider_id: SecretProviderId(provider),
        remote_id: "remote-1".to_owned(),
        remote_path: "/db/PASSWORD".to_owned(),
        place: "https://secrets.example.com project prod /db".to_owned(),
        stale,
    };
    let new = NewSecret {
        group_id: SecretGroupId(1),
        name: "PASSWORD".to_owned(),
        value: Secret::new("of the provider".to_owned()),
        source: source(false),
        expires_at: None,
    };
    let stored = store.new_secret(&stack::tenant(), new, now).await.unwrap();
    store.create_secret(&stack::tenant(), &stored, None, &event("secret.created")).await.unwrap();
    let change = SecretChange { source: source(true), ..SecretChange::none(&stored.body) };
    store.change_secret(&stack::tenant(), &stored, change, now, &event("secret.updated")).await.unwrap()
}

#[tokio::test]
async fn people_cannot_write_what_a_provider_writes() {
    let admin = with_secret("x").await;
    let config = json!({"siteUrl": "https://infisical.example.com", "clientId": "ours", "clientSecret": "x",
        "projectId": "shop", "environment": "prod", "path": "/"});
    let provider = json!({"name": "infisical-prod", "type": "infisical", "config": config});
    let provider = admin.post("secret-providers", provider).await;
    assert_eq!(provider.status, StatusCode::CREATED, "{}", provider.body);
    let provider = provider.body["id"].as_u64().unwrap();
    synced(&store(&admin, None), provider, clock::now()).await;
    let shown = admin.get("secrets/2").await.body;
    let expect = json!({"source": "synced", "providerId": provider, "providerReference": "/db/PASSWORD", "stale": true, "valueVersion": 1});
    for (field, value) in expect.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}");
    }
    let not_theirs = json!({"value": "mine", "name": "MINE", "groupId": 2});
    let refused = admin.put("secrets/2", not_theirs).await;
    let mut faults = refused.faults();
    faults.sort_unstable();
    assert_eq!(faults, [("groupId", "synced"), ("name", "synced"), ("value", "synced")]);
    let restored = admin.post("secrets/2/versions/1/restore", json!({})).await;
    assert_eq!(restored.status, StatusCode::CONFLICT, "{}", restored.body);
    let mut back = shown;
    back["expiresAt"] = json!("2030-01-01T00:00:00Z");
    let changed = admin.put("secrets/2", back).await;
    assert_eq!(
        (changed.status, &changed.body["expiresAt"]),
        (StatusCode::OK, &json!("2030-01-01T00:00:00Z")),
        "{}",
        changed.body
    );
    assert_eq!(admin.put("secrets/1", json!({"source": "synced"})).await.faults(), [("source", "read-only")]);
}

#[tokio::test]
async fn a_page_of_a_group_costs_the_same_however_many_secrets_there_are() {
    let admin = Admin::signed_in().await;
    for group in ["large", "small"] {
        admin.created("secret-groups", json!({"name": group})).await;
    }
    let meter = Meter::default();
    let store = store(&admin, Some(meter.clone()));
    let (tenant, now) = (stack::tenant(), clock::now());
    let add = async |group: u64, name: String| {
        let new = NewSecret {
            group_id: SecretGroupId(group),
            name,
            value: Secret::new("x".to_owned()),
            source: Source::Manual,
            expires_at: Some(now + SignedDuration::from_hours(1)),
        };
        let stored = store.new_secret(&tenant, new, now).await.unwrap();
        store.create_secret(&tenant, &stored, None, &event("secret.created")).await.unwrap();
    };
    let mut figures = Vec::new();
    for more in [12, 300] {
        for index in 0..more {
            add(1, format!("S{more}-{index}")).await;
        }
        add(2, format!("B{more}")).await;
        let page = tidegate_aws::catalogue::PageRequest { limit: 10, cursor: None };
        meter.take();
        let found = store.secrets_of_group(&tenant, SecretGroupId(1), &page).await.unwrap();
        let of_large = meter.take().len();
        let small = store.secrets_of_group(&tenant, SecretGroupId(2), &page).await.unwrap();
        let of_small = meter.take().len();
        let due = store.expiring_secrets(&tenant, now + SignedDuration::from_hours(2), &page).await.unwrap();
        let of_due = meter.take().len();
        assert_eq!((found.data.len(), due.data.len()), (10, 10));
        assert!(found.next_cursor.is_some() && small.next_cursor.is_none());
        assert!(small.data.iter().all(|secret| secret.body.group_id == SecretGroupId(2)));
        figures.push((of_large, of_small, of_due));
    }
    // The first cursor ever brings the data key that cursors are sealed with.
    assert!(
        figures[1].0 <= figures[0].0 && figures[1].1 == figures[0].1 && figures[1].2 == figures[0].2,
        "{figures:?}"
    );
    assert_eq!(figures[1], (2, 2, 2), "{figures:?}");
}
