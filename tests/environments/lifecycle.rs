//! How environments come and go: deleted, restored, cloned, purged; pinned; and whose they are.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate_aws::{
    catalogue::Stored,
    clock,
    environments::{Environment, EnvironmentsSwept},
    keys::{self, Kind},
    registered::Project,
};
use tidegate_domain::id::{EnvironmentId, ProjectId, TenantId};
use tidegate_local::provision::TABLE;

use super::{MASK, environment, event, names, ok, store, tenant, with_project};
use crate::administration::{admin::Admin, application};

async fn post(admin: &Admin, path: &str) -> crate::administration::admin::Answer {
    admin.call(Method::POST, path, &[], None).await
}

async fn deleted(admin: &Admin) -> Vec<String> {
    let listed = admin.get("environments?projectId=1&deleted=true").await.body;
    assert_eq!(admin.get("environments?deleted=true").await.body["data"], listed["data"]);
    names(&listed).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn a_deleted_environment_comes_back_as_it_was_but_inactive() {
    let admin = with_project().await;
    environment(&admin, "Staging", json!({"A": "1"})).await;
    let secret = json!({"value": "marked-secret", "isSecret": true});
    ok(&admin.put("environments/env-1/variables/TOKEN", secret).await);
    let before = admin.get("environments/env-1").await.body;
    assert_eq!(admin.delete("environments/env-1").await.status, StatusCode::NO_CONTENT);
    for path in ["environments/env-1", "environments/env-1/variables", "environments/env-1/variables/A"] {
        assert_eq!(admin.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(admin.put("environments/env-1", json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(admin.put("environments/env-1/variables/A", json!({"value": "2"})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(post(&admin, "environments/env-1/activate").await.status, StatusCode::NOT_FOUND);
    assert_eq!(admin.delete("environments/env-1").await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        (deleted(&admin).await, names(&admin.get("environments").await.body)),
        (vec!["Staging".to_owned()], vec![])
    );

    let restored = ok(&post(&admin, "environments/env-1/restore").await).clone();
    for field in ["envId", "name", "variables", "createdAt", "projectId", "requiresApproval"] {
        assert_eq!(restored[field], before[field], "{field}");
    }
    assert_eq!(restored["isActive"], false);
    // The answer to the first call may have got lost.
    assert_eq!(ok(&post(&admin, "environments/env-1/restore").await), &restored);
    assert!(deleted(&admin).await.is_empty());
    let kept = admin.put("environments/env-1", restored).await;
    assert_eq!(ok(&kept)["variables"], json!({"A": "1", "TOKEN": MASK}));
}

#[tokio::test]
async fn a_name_that_was_taken_meanwhile_stands_in_the_way_of_a_restored_one() {
    let admin = with_project().await;
    environment(&admin, "Staging", json!({})).await;
    let twice = admin.post("environments", json!({"projectId": 1, "name": "Staging"})).await;
    assert_eq!((twice.status, &twice.body["field"]), (StatusCode::CONFLICT, &json!("name")));
    assert_eq!(admin.delete("environments/env-1").await.status, StatusCode::NO_CONTENT);
    let other = environment(&admin, "Staging", json!({})).await["envId"].as_str().unwrap().to_owned();
    let refused = post(&admin, "environments/env-1/restore").await;
    assert_eq!((refused.status, &refused.body["field"]), (StatusCode::CONFLICT, &json!("name")));
    assert_eq!(deleted(&admin).await, ["Staging"]);
    ok(&admin.put(&format!("environments/{other}"), json!({"name": "Other"})).await);
    ok(&post(&admin, "environments/env-1/restore").await);
}

#[tokio::test]
async fn what_was_deleted_thirty_days_ago_is_purged_with_its_uses_of_secrets() {
    let admin = with_project().await;
    let store = store(&admin);
    admin.created("secret-groups", json!({"name": "db"})).await;
    admin.created("secrets", json!({"groupId": 1, "name": "URL", "value": "x"})).await;
    environment(&admin, "Staging", json!({"A": "1"})).await;
    admin.created("environments/env-1/variables", json!({"key": "URL", "value": "@secret:1"})).await;
    assert_eq!(admin.delete("environments/env-1").await.status, StatusCode::NO_CONTENT);
    let nothing = EnvironmentsSwept::default();
    let in_days = |days: i64| clock::now() + SignedDuration::from_hours(24 * days);
    assert_eq!(store.sweep_environments(in_days(29)).await.unwrap(), nothing);
    assert_eq!((deleted(&admin).await.len(), admin.delete("secrets/1").await.status), (1, StatusCode::CONFLICT));
    // Restored and deleted again it is due anew; the former time is nothing any more.
    ok(&post(&admin, "environments/env-1/restore").await);
    assert_eq!(store.sweep_environments(in_days(31)).await.unwrap(), nothing);
    assert_eq!(admin.delete("environments/env-1").await.status, StatusCode::NO_CONTENT);
    assert_eq!(store.sweep_environments(in_days(31)).await.unwrap(), EnvironmentsSwept { purged: 1, ..nothing });
    assert_eq!(store.sweep_environments(in_days(31)).await.unwrap(), nothing);
    assert!(deleted(&admin).await.is_empty());
    assert_eq!(post(&admin, "environments/env-1/restore").await.status, StatusCode::NOT_FOUND);
    assert_eq!(admin.delete("secrets/1").await.status, StatusCode::NO_CONTENT);
    assert_eq!(admin.delete("projects/1").await.status, StatusCode::NO_CONTENT);
}

/// The sweep may be late: time decides.
#[tokio::test]
async fn after_thirty_days_nothing_can_be_restored_even_before_it_is_purged() {
    let admin = with_project().await;
    environment(&admin, "Staging", json!({})).await;
    assert_eq!(admin.delete("environments/env-1").await.status, StatusCode::NO_CONTENT);
    let long_ago = clock::now() - SignedDuration::from_hours(24 * 30);
    let key = keys::thing(&tenant(), Kind::DeletedEnvironment, 1);
    let key =
        HashMap::from([("pk".to_owned(), AttributeValue::S(key.pk)), ("sk".to_owned(), AttributeValue::S(key.sk))]);
    let update = admin.aws.clients().dynamodb.update_item().table_name(TABLE).set_key(Some(key));
    let update = update.update_expression("SET body.deletedAt = :at");
    update.expression_attribute_values(":at", AttributeValue::S(long_ago.to_string())).send().await.unwrap();
    let refused = post(&admin, "environments/env-1/restore").await;
    assert_eq!(refused.status, StatusCode::GONE, "{}", refused.body);
    assert!(deleted(&admin).await.is_empty());
}

#[tokio::test]
async fn a_project_is_deleted_with_its_deleted_environments_and_not_with_others() {
    let admin = with_project().await;
    environment(&admin, "Staging", json!({})).await;
    let refused = admin.delete("projects/1").await;
    assert_eq!(
        (refused.status, &refused.body["usedBy"]),
        (StatusCode::CONFLICT, &json!(["environment env-1 (Staging)"]))
    );
    assert_eq!(admin.delete("environments/env-1").await.status, StatusCode::NO_CONTENT);
    assert_eq!(admin.delete("projects/1").await.status, StatusCode::NO_CONTENT);
    assert_eq!(post(&admin, "environments/env-1/restore").await.status, StatusCode::GONE);
    // Its project's id stands for the key that is no more.
    assert_eq!(admin.get("environments?deleted=true").await.body["data"][0]["projectId"], "1");
}

/// The active one cannot be deleted by itself, but must not keep its project for ever.
#[tokio::test]
async fn a_project_goes_with_its_environments_if_that_is_asked_for_and_nothing_else_keeps_it() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    for name in ["Production", "Staging"] {
        admin.created("environments", json!({"projectId": "shop", "name": name})).await;
    }
    ok(&post(&admin, "environments/env-1/activate").await);
    let refused = admin.delete("projects/shop?environments=true").await;
    let users = json!(["application 1 (myapp)"]);
    assert_eq!((refused.status, &refused.body["usedBy"]), (StatusCode::CONFLICT, &users));
    assert_eq!(names(&admin.get("environments?projectId=shop").await.body).len(), 2, "nothing was deleted for nothing");
    assert_eq!(admin.delete("applications/1").await.status, StatusCode::NO_CONTENT);
    assert_eq!(admin.delete("projects/shop?environments=perhaps").await.faults(), [("environments", "wrong-type")]);
    assert_eq!(admin.delete("projects/shop?environments=true").await.status, StatusCode::NO_CONTENT);
    assert_eq!(post(&admin, "environments/env-1/restore").await.status, StatusCode::GONE);
}

#[tokio::test]
async fn a_project_goes_with_more_environments_than_pages_of_them_hold() {
    const ENVIRONMENTS: usize = 60;
    let admin = with_project().await;
    // Large ones: a page ends early before it has become too large to be answered.
    let large: serde_json::Map<_, _> =
        (0..2).map(|index| (format!("LARGE_{index}"), Value::from("x".repeat(62 * 1024)))).collect();
    environment(&admin, "Environment", Value::Object(large)).await;
    for index in 1..ENVIRONMENTS {
        admin.created("environments/env-1/clone", json!({"name": format!("Environment {index}")})).await;
    }
    ok(&post(&admin, "environments/env-7/activate").await);
    let page = admin.get("environments?projectId=1&limit=200").await.body;
    let listed = names(&page).len();
    assert!(listed * 5 < ENVIRONMENTS, "{listed} on a page");
    assert_eq!(admin.delete("projects/1?environments=true").await.status, StatusCode::NO_CONTENT);
    assert_eq!(names(&admin.get("environments").await.body), vec![]);
    assert_eq!(admin.get("projects/1").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_clone_has_every_variable_and_is_its_own() {
    let admin = with_project().await;
    admin.created("secret-groups", json!({"name": "db"})).await;
    admin.created("secrets", json!({"groupId": 1, "name": "URL", "value": "x"})).await;
    let source = json!({"projectId": 1, "name": "Staging", "description": "before", "requiresApproval": true,
        "variables": {"PLAIN": "1"}});
    admin.created("environments", source).await;
    ok(&post(&admin, "environments/env-1/activate").await);
    ok(&admin.put("environments/env-1/variables/TOKEN", json!({"value": "marked-secret", "isSecret": true})).await);
    ok(&admin.put("environments/env-1/variables/COUNT", json!({"value": 3, "valueType": "number"})).await);
    ok(&admin.put("environments/env-1/variables/URL", json!({"value": "@secret:db/URL"})).await);
    let key = [("Idempotency-Key", "once")];
    let clone = admin.call(Method::POST, "environments/env-1/clone", &key, Some(json!({"name": "Copy"}))).await;
    assert_eq!(clone.status, StatusCode::CREATED, "{}", clone.body);
    let again = admin.call(Method::POST, "environments/env-1/clone", &key, Some(json!({"name": "Copy"}))).await;
    assert_eq!((again.status, &again.body), (StatusCode::CREATED, &clone.body));
    let expect = json!({"PLAIN": "1", "TOKEN": MASK, "COUNT": "3", "URL": "@secret:1"});
    assert_eq!((&clone.body["variables"], &clone.body["isActive"]), (&expect, &json!(false)));
    assert_eq!((&clone.body["description"], &clone.body["requiresApproval"]), (&json!("before"), &json!(true)));
    let copy = format!("environments/{}", clone.body["envId"].as_str().unwrap());
    assert_eq!(admin.get(&copy).await.body, clone.body);
    let count = admin.get(&format!("{copy}/variables/COUNT")).await.body;
    assert_eq!((&count["valueType"], &count["revision"]), (&json!("number"), &json!(1)));
    // A clone of the clone opens what was sealed for the clone's own place.
    let third = admin.created(&format!("{copy}/clone"), json!({"name": "Third", "description": "after"})).await;
    assert_eq!((&third["variables"], &third["description"]), (&expect, &json!("after")));
    ok(&admin.put("environments/env-1", json!({"variables": {}})).await);
    assert_eq!(admin.get(&copy).await.body["variables"], expect);
    assert_eq!(admin.delete("secrets/1").await.status, StatusCode::CONFLICT);
    assert_eq!(post(&admin, "environments/env-9/clone").await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let taken = admin.post("environments/env-1/clone", json!({"name": "Copy"})).await;
    assert_eq!((taken.status, &taken.body["field"]), (StatusCode::CONFLICT, &json!("name")));
}

#[tokio::test]
async fn an_application_is_pinned_to_an_environment_of_its_own_project() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    admin.created("projects", json!({"key": "other", "name": "Other"})).await;
    for (project, name) in [("shop", "Staging"), ("other", "Staging"), ("shop", "Gone")] {
        admin.created("environments", json!({"projectId": project, "name": name})).await;
    }
    assert_eq!(admin.delete("environments/env-3").await.status, StatusCode::NO_CONTENT);
    for (env_id, code) in [
        ("env-2", "unknown-reference"),
        ("env-3", "unknown-reference"),
        ("env-9", "unknown-reference"),
        ("env-01", "format-id"),
        ("1", "format-id"),
    ] {
        let refused = admin.put("applications/1", json!({"envId": env_id})).await;
        assert_eq!(refused.faults(), [("envId", code)], "{env_id}");
        let mut new = application();
        (new["name"], new["envId"], new["ports"]) = ("new".into(), env_id.into(), json!([]));
        assert_eq!(admin.post("applications", new).await.faults(), [("envId", code)], "{env_id}");
    }
    let pinned = admin.put("applications/1", json!({"envId": "env-1"})).await;
    assert_eq!(ok(&pinned)["envId"], "env-1");
    assert_eq!(admin.get("applications/1").await.body["envId"], "env-1");
    let refused = admin.delete("environments/env-1").await;
    let users = json!(["application 1 (myapp)"]);
    assert_eq!((refused.status, &refused.body["usedBy"]), (StatusCode::CONFLICT, &users));
    // What is left out stays.
    assert_eq!(ok(&admin.put("applications/1", json!({"owner": "somebody"})).await)["envId"], "env-1");
    assert_eq!(ok(&admin.put("applications/1", json!({"envId": null})).await)["envId"], Value::Null);
    assert_eq!(admin.delete("environments/env-1").await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn another_tenants_environments_are_as_unknown_as_those_that_do_not_exist() {
    let admin = with_project().await;
    environment(&admin, "Own", json!({})).await;
    let (store, other, now) = (store(&admin), TenantId::parse("other").unwrap(), clock::now());
    let project = Project { key: "theirs".to_owned(), name: "Theirs".to_owned(), description: String::new() };
    store.create(&other, &Stored::new(7, project, now), None, &event()).await.unwrap();
    let theirs = |name: &str| Environment::new(ProjectId(7), name.to_owned(), String::new(), false);
    for (id, name) in [(7, "Theirs"), (8, "Gone")] {
        let stored = Stored::new(id, theirs(name), now);
        store.create_environment(&other, &stored, None, &event()).await.unwrap();
        store.activate_environment(&other, &stored, now, &event()).await.unwrap();
    }
    let seven = store.environment(&other, EnvironmentId(7)).await.unwrap();
    store.delete_environment(&other, &seven, now, &event()).await.unwrap();

    let document = |mut body: Value| {
        body["requestId"] = Value::Null;
        body
    };
    let calls = [
        (Method::GET, "", None),
        (Method::PUT, "", Some(json!({"name": "Mine"}))),
        (Method::DELETE, "", None),
        (Method::POST, "/activate", None),
        (Method::POST, "/restore", None),
        (Method::POST, "/clone", Some(json!({"name": "Mine"}))),
        (Method::GET, "/variables", None),
        (Method::POST, "/variables", Some(json!({"key": "A", "value": "1"}))),
        (Method::GET, "/variables/A", None),
        (Method::PUT, "/variables/A", Some(json!({"value": "1"}))),
        (Method::DELETE, "/variables/A", None),
    ];
    for (method, path, body) in calls {
        let mut answers = Vec::new();
        for id in ["env-7", "env-8", "env-99", "env-x", "8"] {
            let answer = admin.call(method.clone(), &format!("environments/{id}{path}"), &[], body.clone()).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {id}{path}: {}", answer.body);
            answers.push(document(answer.body));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{method} {path}: {answers:?}");
    }
    for query in ["environments?projectId=", "environments?deleted=true&projectId=", "environments/active?projectId="] {
        let mut answers = Vec::new();
        for project in ["7", "theirs", "99", "unknown"] {
            let answer = admin.get(&format!("{query}{project}")).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{query}{project}");
            answers.push(document(answer.body));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{query}: {answers:?}");
    }
    for project in [json!(7), json!("theirs"), json!(99)] {
        let refused = admin.post("environments", json!({"projectId": project, "name": "Mine"})).await;
        assert_eq!(refused.faults(), [("projectId", "unknown-reference")]);
    }
    assert_eq!(names(&admin.get("environments").await.body), [("Own".to_owned(), false)]);
    assert!(deleted(&admin).await.is_empty());
    // The tenant comes with the credential alone.
    let refused = admin.post("environments", json!({"projectId": 1, "name": "A", "tenantId": "other"})).await;
    assert_eq!(refused.faults(), [("tenantId", "unknown-field")]);
}
