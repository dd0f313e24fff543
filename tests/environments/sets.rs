//! Sets of variables: written as a map or one by one, sent back with masks, and large.

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{MASK, environment, names, ok, with_project};
use crate::secrets::items;

fn numbered(range: std::ops::Range<usize>, value: &str) -> Map<String, Value> {
    range.map(|index| (format!("VARIABLE_{index:03}"), Value::from(format!("{value}-{index}")))).collect()
}

#[tokio::test]
async fn what_a_form_was_shown_can_be_sent_back_and_loses_nothing() {
    let admin = with_project().await;
    admin.created("secret-groups", json!({"name": "db"})).await;
    admin.created("secrets", json!({"groupId": 1, "name": "URL", "value": "x"})).await;
    environment(&admin, "Staging", json!({"PLAIN": "1", "GONE": "2"})).await;
    let variable = async |key: &str| admin.get(&format!("environments/env-1/variables/{key}")).await.body;
    ok(&admin.put("environments/env-1/variables/TOKEN", json!({"value": "marked-secret", "isSecret": true})).await);
    ok(&admin.put("environments/env-1/variables/COUNT", json!({"value": "3", "valueType": "number"})).await);
    ok(&admin.put("environments/env-1/variables/URL", json!({"value": "@secret:1"})).await);
    let before = [variable("PLAIN").await, variable("TOKEN").await, variable("COUNT").await, variable("URL").await];

    let mut shown = admin.get("environments/env-1").await.body;
    assert_eq!(shown["variables"]["TOKEN"], MASK);
    shown["variables"].as_object_mut().unwrap().remove("GONE");
    shown["variables"]["NEW"] = 30.into();
    shown["variables"]["FLAG"] = true.into();
    let changed = ok(&admin.put("environments/env-1", shown.clone()).await).clone();
    shown["variables"]["NEW"] = "30".into();
    shown["variables"]["FLAG"] = "true".into();
    assert_eq!(changed["variables"], shown["variables"]);
    let after = [variable("PLAIN").await, variable("TOKEN").await, variable("COUNT").await, variable("URL").await];
    assert_eq!(before, after, "what was not changed has not even a new revision");
    assert_eq!(
        (&variable("NEW").await["valueType"], &variable("NEW").await["isSecret"]),
        (&json!("string"), &json!(false))
    );
    assert_eq!(admin.get("environments/env-1/variables/GONE").await.status, StatusCode::NOT_FOUND);

    // Nor is it shown by a change of what it is.
    let opened = admin.put("environments/env-1/variables/TOKEN", json!({"isSecret": false})).await;
    assert_eq!(opened.faults(), [("value", "missing")]);
    let mut secret = changed["variables"].clone();
    (secret["TOKEN"], secret["COUNT"]) = ("another".into(), 4.into());
    ok(&admin.put("environments/env-1", json!({"variables": secret})).await);
    let token = variable("TOKEN").await;
    assert_eq!((&token["value"], &token["isSecret"], &token["revision"]), (&json!(MASK), &json!(true), &json!(2)));
    let count = variable("COUNT").await;
    assert_eq!((&count["value"], &count["valueType"]), (&json!("4"), &json!("number")));
    // What is left out stays.
    let renamed =
        ok(&admin.put("environments/env-1", json!({"name": "Other", "requiresApproval": true})).await).clone();
    assert_eq!((&renamed["variables"]["COUNT"], &renamed["requiresApproval"]), (&json!("4"), &json!(true)));
}

#[tokio::test]
async fn every_fault_of_a_map_is_told_at_once_and_nothing_is_changed() {
    let admin = with_project().await;
    environment(&admin, "Staging", json!({"PLAIN": "1", "COUNT": "3"})).await;
    ok(&admin.put("environments/env-1/variables/COUNT", json!({"value": "3", "valueType": "number"})).await);
    let before = admin.get("environments/env-1").await.body;
    let body = json!({"name": "", "isActive": true, "envId": "env-2", "projectId": "other", "tenantId": "other",
        "requiresApproval": "yes", "variables": {"PLAIN": MASK, "COUNT": "three", "NEW": MASK, "A-B": "1", "LIST": [1],
        "NONE": null, "NUL": "a\0b", "REFERENCE": "@secret:1"}});
    let refused = admin.put("environments/env-1", body).await;
    let mut faults = refused.faults();
    faults.sort_unstable();
    let mut expect = [
        ("name", "format-text"),
        ("isActive", "read-only"),
        ("envId", "read-only"),
        ("projectId", "read-only"),
        ("tenantId", "unknown-field"),
        ("requiresApproval", "wrong-type"),
        ("variables.PLAIN", "mask"),
        ("variables.COUNT", "format-number"),
        ("variables.NEW", "mask"),
        ("variables.A-B", "format-key"),
        ("variables.LIST", "wrong-type"),
        ("variables.NONE", "wrong-type"),
        ("variables.NUL", "format-string"),
        ("variables.REFERENCE", "unescaped-secret-ref"),
    ];
    expect.sort_unstable();
    assert_eq!(faults, expect);
    assert_eq!(admin.get("environments/env-1").await.body, before);
    let refused = admin.post("environments", json!({"isActive": true, "variables": {"A": MASK}})).await;
    let mut faults = refused.faults();
    faults.sort_unstable();
    assert_eq!(
        faults,
        [("isActive", "read-only"), ("name", "missing"), ("projectId", "missing"), ("variables.A", "mask")]
    );
    for wrong in [json!([]), json!("A=1"), json!(null)] {
        let refused = admin.put("environments/env-1", json!({"variables": wrong})).await;
        assert_eq!(refused.faults(), [("variables", "wrong-type")]);
    }
}

#[tokio::test]
async fn five_hundred_variables_are_one_set_and_one_more_is_refused() {
    let admin = with_project().await;
    let created = environment(&admin, "Large", Value::Object(numbered(0..500, "first"))).await;
    assert_eq!(created["variables"].as_object().unwrap().len(), 500);
    let refused = admin.post("environments/env-1/variables", json!({"key": "ONE_MORE", "value": ""})).await;
    assert_eq!(refused.faults(), [("variables", "too-many-variables")]);
    let refused = admin.put("environments/env-1", json!({"variables": numbered(0..501, "x")})).await;
    assert_eq!(refused.faults(), [("variables", "too-many-variables")]);
    let large = json!({"variables": {"A": "x".repeat(70_000), "B": "x".repeat(70_000)}});
    assert_eq!(admin.put("environments/env-1", large).await.faults(), [("variables", "too-many-variables")]);

    let changed = admin.put("environments/env-1", json!({"variables": numbered(100..600, "second")})).await;
    assert_eq!(ok(&changed)["variables"], Value::Object(numbered(100..600, "second")));
    let mut listed = Vec::new();
    let mut path = "environments/env-1/variables?limit=200".to_owned();
    loop {
        let page = ok(&admin.get(&path).await).clone();
        listed.extend(page["data"].as_array().unwrap().iter().map(|v| v["key"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("environments/env-1/variables?limit=200&cursor={cursor}");
    }
    assert_eq!(listed, numbered(100..600, "").keys().cloned().collect::<Vec<_>>());
    let clone = admin.created("environments/env-1/clone", json!({"name": "Copy"})).await;
    assert_eq!(clone["variables"], changed.body["variables"]);
}

#[tokio::test]
async fn a_page_of_large_environments_ends_early_and_none_is_left_out() {
    let admin = with_project().await;
    for index in 0..12 {
        environment(&admin, &format!("Large {index:02}"), json!({"A": "x".repeat(120_000)})).await;
    }
    let (mut seen, mut pages, mut path) = (Vec::new(), 0, "environments?projectId=1".to_owned());
    loop {
        let page = ok(&admin.get(&path).await).clone();
        seen.extend(names(&page).into_iter().map(|(name, _)| name));
        pages += 1;
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("environments?projectId=1&cursor={cursor}");
    }
    assert_eq!(seen, (0..12).map(|index| format!("Large {index:02}")).collect::<Vec<_>>());
    assert!(pages > 1, "{pages}");
}

/// Whoever reads while a set is replaced sees the one or the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_never_sees_half_a_set() {
    let admin = with_project().await;
    let sets = [Value::Object(numbered(0..300, "first")), Value::Object(numbered(200..500, "second"))];
    environment(&admin, "Large", sets[0].clone()).await;
    let writer = async {
        for round in 1..=10 {
            ok(&admin.put("environments/env-1", json!({"variables": sets[round % 2]})).await);
        }
    };
    let reader = async {
        loop {
            let seen = ok(&admin.get("environments/env-1").await)["variables"].clone();
            assert!(sets.contains(&seen), "{} variables", seen.as_object().unwrap().len());
            let page = ok(&admin.get("environments/env-1/variables?limit=1").await).clone();
            assert!(page["data"][0]["value"] == "first-0" || page["data"][0]["value"] == "second-200");
        }
    };
    tokio::select! {
        () = writer => {}
        () = reader => unreachable!("it reads until the writer is done"),
    }
}

#[tokio::test]
async fn single_variables_that_are_written_at_once_are_all_there() {
    let admin = with_project().await;
    environment(&admin, "Staging", json!({})).await;
    let writes = (0..12).map(async |index| {
        admin.put(&format!("environments/env-1/variables/KEY_{index}"), json!({"value": index.to_string()})).await
    });
    for answer in join_all(writes).await {
        ok(&answer);
    }
    let listed = admin.get("environments/env-1/variables").await.body;
    assert_eq!(listed["data"].as_array().unwrap().len(), 12);
    let creations = (0..4).map(|index| {
        let body = json!({"key": "ONCE", "value": index.to_string()});
        admin.call(Method::POST, "environments/env-1/variables", &[], Some(body))
    });
    let mut statuses: Vec<_> = join_all(creations).await.into_iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
}

#[tokio::test]
async fn changes_can_insist_on_what_was_read() {
    let admin = with_project().await;
    environment(&admin, "Staging", json!({"A": "1"})).await;
    let call = async |method: Method, path: &str, revision: &'static str, body: Value| {
        admin.call(method, path, &[("If-Match", revision)], Some(body)).await.status
    };
    let (environment, variable) = ("environments/env-1", "environments/env-1/variables/A");
    let shown = admin.get(environment).await.headers["etag"].to_str().unwrap().to_owned();
    assert!(shown.starts_with("\"1."), "{shown}");
    assert_eq!(call(Method::PUT, variable, "\"1\"", json!({"value": "2"})).await, StatusCode::OK);
    assert_eq!(call(Method::PUT, variable, "\"1\"", json!({"value": "3"})).await, StatusCode::PRECONDITION_FAILED);
    // The set is part of the environment: a variable's change is one of it.
    assert_eq!(call(Method::PUT, environment, "\"1\"", json!({"name": "B"})).await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(call(Method::PUT, environment, "\"2\"", json!({"name": "B"})).await, StatusCode::OK);
    let absent = "environments/env-1/variables/NONE";
    assert_eq!(call(Method::PUT, absent, "\"1\"", json!({"value": "3"})).await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(call(Method::DELETE, environment, "\"2\"", json!({})).await, StatusCode::PRECONDITION_FAILED);
    let unchanged = admin.call(Method::GET, variable, &[("If-None-Match", "\"2\"")], None).await;
    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_repeated_creation_answers_as_the_first() {
    let admin = with_project().await;
    let calls = [
        ("environments", json!({"projectId": 1, "name": "Staging", "variables": {"A": "1"}})),
        ("environments/env-1/variables", json!({"key": "B", "value": "marked-secret", "isSecret": true})),
    ];
    for (path, body) in calls {
        let key = [("Idempotency-Key", path)];
        let first = admin.call(Method::POST, path, &key, Some(body.clone())).await;
        assert_eq!(first.status, StatusCode::CREATED, "{}", first.body);
        let again = admin.call(Method::POST, path, &key, Some(body)).await;
        assert_eq!((again.status, &again.body), (StatusCode::CREATED, &first.body));
        assert_eq!(again.headers["idempotent-replayed"], "true");
        let other = admin.call(Method::POST, path, &key, Some(json!({"name": "Other"}))).await;
        assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(admin.get("environments/env-1").await.body["variables"], json!({"A": "1", "B": MASK}));
}

/// As JSON has it.
fn plain(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => text.as_str().into(),
        AttributeValue::N(number) => number.parse::<u64>().unwrap().into(),
        AttributeValue::L(items) => items.iter().map(plain).collect(),
        AttributeValue::M(fields) => fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect(),
        _ => Value::Null,
    }
}

#[tokio::test]
async fn a_change_of_a_set_is_on_record_with_the_names_of_what_changed() {
    let admin = with_project().await;
    environment(&admin, "Staging", json!({"KEPT": "1", "CHANGED": "n33dle-1", "REMOVED": "n33dle-2"})).await;
    let set = json!({"KEPT": "1", "CHANGED": "n33dle-3", "ADDED": "n33dle-4"});
    ok(&admin.put("environments/env-1", json!({"variables": set})).await);
    ok(&admin.put("environments/env-1", json!({"name": "Other"})).await);
    let file = json!({"envId": "env-1", "dotenv": "CHANGED=n33dle-5\nIMPORTED=n33dle-6", "overwrite": true});
    ok(&admin.post("variables/import", file).await);
    admin.created("secret-groups", json!({"name": "db"})).await;
    admin.created("secrets", json!({"groupId": 1, "name": "URL", "value": "n33dle-7"})).await;
    ok(&admin.post("secret-groups/1/import", json!({"envId": "env-1"})).await);

    let mut events: Vec<Value> = items(&admin.aws.clients())
        .await
        .into_iter()
        .filter(|item| item.get("action").and_then(|v| v.as_s().ok()).is_some_and(|a| a == "environment.updated"))
        .map(|item| item.iter().map(|(name, value)| (name.clone(), plain(value))).collect())
        .collect();
    events.sort_by_key(|event| event["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    let told: Vec<_> = events.iter().map(|event| event.get("variables").cloned().unwrap_or_default()).collect();
    let changes = |added: &[&str], changed: &[&str], removed: &[&str]| json!({"added": added, "changed": changed, "removed": removed, "more": 0});
    let expect = [
        changes(&["ADDED"], &["CHANGED"], &["REMOVED"]),
        Value::Null,
        changes(&["IMPORTED"], &["CHANGED"], &[]),
        changes(&["URL"], &[], &[]),
    ];
    assert_eq!(told, expect);
    assert!(!json!(events).to_string().contains("n33dle"), "{events:?}");
}
