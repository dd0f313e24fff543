//! Every request of the seed on environments exactly as it is written there, and every answer with at least its fields, names,
//! types and values. Where the seed has an id or a time, another of the same form is as good.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate_domain::id::DeploymentId;

use super::{MASK, environment, ok, with_project};
use crate::administration::admin::Admin;

/// Fields of the seed whose values are an installation's own.
fn is_same_form(field: &str, seed: &Value, answer: &Value) -> Option<bool> {
    let (seed, answer) = (seed.as_str()?, answer.as_str()?);
    match field {
        "envId" => Some(seed.starts_with("env-") && answer.starts_with("env-")),
        "deploymentId" => Some(DeploymentId::parse(answer).is_ok()),
        "createdAt" => Some(answer.ends_with('Z') && answer.parse::<jiff::Timestamp>().is_ok()),
        _ => None,
    }
}

/// How many fields of the seed were found in the answer.
#[track_caller]
fn compare(answer: &Value, seed: &Value, path: &str) -> usize {
    match (answer, seed) {
        (Value::Object(answer), Value::Object(seed)) => seed
            .iter()
            .map(|(field, seed)| {
                let path = format!("{path}.{field}");
                let found = answer.get(field).unwrap_or_else(|| panic!("{path} is missing in {answer:?}"));
                match is_same_form(field, seed, found) {
                    Some(same) => {
                        assert!(same, "{path}: {found} is not of the form of {seed}");
                        1
                    }
                    None => compare(found, seed, &path),
                }
            })
            .sum(),
        (Value::Array(answer), Value::Array(seed)) => {
            assert_eq!(answer.len(), seed.len(), "{path}");
            answer.iter().zip(seed).map(|(answer, seed)| compare(answer, seed, path)).sum()
        }
        (answer, seed) => {
            assert_eq!(answer, seed, "{path}");
            1
        }
    }
}

#[track_caller]
pub(crate) fn holds(request: &str, answer: &Value, seed: &Value) {
    println!("figure: {request}: {} fields as in the seed", compare(answer, seed, ""));
}

/// Section "创建环境".
async fn development(admin: &Admin) -> Value {
    let body = json!({
        "projectId": "proj-001",
        "name": "Development",
        "description": "开发环境",
        "variables": {
            "API_BASE_URL": "https://dev-api.example.com",
            "TIMEOUT": "30000"
        }
    });
    admin.created("environments", body).await
}

#[tokio::test]
async fn an_environment_is_created() {
    let admin = with_project().await;
    let created = development(&admin).await;
    let seed = json!({
        "envId": "env-dev-001",
        "projectId": "proj-001",
        "name": "Development",
        "isActive": false,
        "createdAt": "2025-11-26T10:00:00Z"
    });
    holds("POST /environments", &created, &seed);
    assert_eq!(created["description"], "开发环境");
    assert_eq!((&created["requiresApproval"], &created["revision"]), (&json!(false), &json!(1)));
}

#[tokio::test]
async fn environments_are_listed() {
    let admin = with_project().await;
    let variables = json!({"API_BASE_URL": "https://dev-api.example.com"});
    let dev = environment(&admin, "Development", variables).await;
    environment(&admin, "Production", json!({})).await;
    ok(&admin
        .call(Method::POST, &format!("environments/{}/activate", dev["envId"].as_str().unwrap()), &[], None)
        .await);
    let listed = admin.get("environments?projectId=proj-001").await;
    let seed = json!({
        "data": [
            {
                "envId": "env-dev-001",
                "name": "Development",
                "isActive": true,
                "variables": {
                    "API_BASE_URL": "https://dev-api.example.com"
                }
            },
            {
                "envId": "env-prod-001",
                "name": "Production",
                "isActive": false
            }
        ]
    });
    holds("GET /environments", ok(&listed), &seed);
    // The id means the same project.
    assert_eq!(admin.get("environments?projectId=1").await.body, listed.body);
    assert_eq!(admin.get("environments").await.body["data"], listed.body["data"]);
}

#[tokio::test]
async fn the_active_environment_is_shown() {
    let admin = with_project().await;
    let dev = development(&admin).await;
    let none = admin.get("environments/active?projectId=proj-001").await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert!(none.body["type"].as_str().unwrap().ends_with("/no-active-environment"), "{}", none.body);
    ok(&admin
        .call(Method::POST, &format!("environments/{}/activate", dev["envId"].as_str().unwrap()), &[], None)
        .await);
    let active = admin.get("environments/active?projectId=proj-001").await;
    let seed = json!({
        "envId": "env-dev-001",
        "name": "Development",
        "isActive": true,
        "variables": {
            "API_BASE_URL": "https://dev-api.example.com",
            "TIMEOUT": "30000"
        }
    });
    holds("GET /environments/active", ok(&active), &seed);
    assert_eq!(admin.get("environments/active").await.faults(), [("projectId", "missing")]);
}

#[tokio::test]
async fn an_environment_is_activated() {
    let admin = with_project().await;
    development(&admin).await;
    let production = environment(&admin, "Production", json!({})).await;
    let path = format!("environments/{}/activate", production["envId"].as_str().unwrap());
    let activated = admin.call(Method::POST, &path, &[], None).await;
    let seed = json!({
        "envId": "env-prod-001",
        "name": "Production",
        "isActive": true,
        "message": "Environment activated successfully"
    });
    holds("POST /environments/:envId/activate", ok(&activated), &seed);
    // Once more it is as well.
    holds("the same again", ok(&admin.call(Method::POST, &path, &[], None).await), &seed);
}

#[tokio::test]
async fn a_variable_is_set_and_deleted() {
    let admin = with_project().await;
    let dev = development(&admin).await;
    let path = format!("environments/{}/variables/API_KEY", dev["envId"].as_str().unwrap());
    let set = admin.put(&path, json!({"value": "sk-1234567890", "valueType": "string", "isSecret": true})).await;
    let seed = json!({"key": "API_KEY", "value": "***************", "valueType": "string", "isSecret": true});
    holds("PUT /environments/:envId/variables/:key", ok(&set), &seed);
    holds("the variable when it is read", ok(&admin.get(&path).await), &seed);
    assert_eq!(admin.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(admin.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(admin.delete(&path).await.status, StatusCode::NOT_FOUND);
}

/// "方式1: 直接更新Environment.variables (批量)"
#[tokio::test]
async fn the_variables_are_set_as_a_map() {
    let admin = with_project().await;
    let dev = development(&admin).await;
    let body = json!({
        "variables": {
            "API_BASE_URL": "https://api.example.com",
            "API_KEY": "sk-12345",
            "TIMEOUT": "30000"
        }
    });
    let changed = admin.put(&format!("environments/{}", dev["envId"].as_str().unwrap()), body.clone()).await;
    holds("PUT /environments/:id with variables", ok(&changed), &body);
    assert_eq!(changed.body["name"], "Development");
}

/// Way 2 of the seed, key by key: "方式2".
#[tokio::test]
async fn the_variables_are_set_one_by_one() {
    let admin = with_project().await;
    let dev = development(&admin).await;
    let path = format!("environments/{}/variables", dev["envId"].as_str().unwrap());
    let body = json!({"key": "DB_HOST", "value": "db.example.com", "valueType": "string", "isSecret": false});
    let created = admin.created(&path, body.clone()).await;
    holds("POST /environments/:envId/variables", &created, &body);
    let one = format!("{path}/DB_HOST");
    let changed = admin.put(&one, json!({"value": "new-value", "isSecret": true})).await;
    let seed = json!({"key": "DB_HOST", "value": MASK, "valueType": "string", "isSecret": true});
    holds("PUT /environments/:envId/variables/:key of one that is there", ok(&changed), &seed);
    assert_eq!(admin.delete(&one).await.status, StatusCode::NO_CONTENT);
}

/// "概念1", "概念2", "Q1", "Q4": what environments and variables hold.
#[tokio::test]
async fn every_kind_of_value_of_the_seed_is_kept() {
    let admin = with_project().await;
    let variables = json!({
        "API_BASE_URL": "https://dev-api.example.com",
        "DB_HOST": "localhost",
        "TIMEOUT": "30000",
        "ENABLE_DEBUG": "true"
    });
    let created = environment(&admin, "Development", variables.clone()).await;
    holds("the set of concept 1", &created, &json!({"name": "Development", "variables": variables}));
    let path = format!("environments/{}/variables", created["envId"].as_str().unwrap());
    let key = json!({"key": "API_KEY", "value": "sk-1234567890abcdef", "valueType": "string", "isSecret": true,
        "envId": created["envId"]});
    let shown = json!({"key": "API_KEY", "value": MASK, "valueType": "string", "isSecret": true});
    holds("the secret of concept 2", &admin.created(&path, key).await, &shown);
    for (key, body) in [
        ("STRING_VAR", json!({"value": "hello", "valueType": "string"})),
        ("NUMBER_VAR", json!({"value": "42", "valueType": "number"})),
        ("BOOL_VAR", json!({"value": "true", "valueType": "boolean"})),
        ("JSON_VAR", json!({"value": "{\"key\": \"value\"}", "valueType": "json"})),
    ] {
        let set = admin.put(&format!("{path}/{key}"), body.clone()).await;
        holds(&format!("{key} of Q4"), ok(&set), &body);
    }
    for (key, value_type) in [("NUMBER_VAR", "number"), ("BOOL_VAR", "boolean"), ("JSON_VAR", "json")] {
        let wrong = admin.put(&format!("{path}/{key}"), json!({"value": "hello {"})).await;
        assert_eq!(wrong.faults(), [("value", format!("format-{value_type}").as_str())]);
    }
}

/// "场景1：手动管理秘钥", with an environment's variables in place of the project's.
#[tokio::test]
async fn a_variable_refers_to_a_secret_of_a_group() {
    let admin = with_project().await;
    let group = admin.created("secret-groups", json!({"name": "production-db"})).await["id"].clone();
    for (name, value) in [("DATABASE_URL", "postgresql://..."), ("REDIS_URL", "redis://...")] {
        admin.created("secrets", json!({"groupId": group, "name": name, "value": value})).await;
    }
    let env_id = environment(&admin, "Production", json!({})).await["envId"].as_str().unwrap().to_owned();
    let path = format!("environments/{env_id}/variables");
    admin.created(&path, json!({"key": "NODE_ENV", "value": "production"})).await;
    let reference = json!({"key": "DATABASE_URL", "value": "@secret:1", "valueType": "secret_ref"});
    let created = admin.created(&path, reference).await;
    let seed = json!({"key": "DATABASE_URL", "value": "@secret:1", "valueType": "secret_ref", "secretId": 1});
    holds("a reference to a secret", &created, &seed);
    let refused = admin.delete("secrets/1").await;
    assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
    assert_eq!(admin.delete(&format!("{path}/DATABASE_URL")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(admin.delete("secrets/1").await.status, StatusCode::NO_CONTENT);
}

/// "Q2" and "Q6": one is active at most; deleted is not gone. Departing from the seed, the active one stays.
#[tokio::test]
async fn one_is_active_and_a_deleted_one_is_kept() {
    let admin = with_project().await;
    development(&admin).await;
    let production = environment(&admin, "Production", json!({})).await;
    for env_id in ["env-1", "env-2"] {
        ok(&admin.call(Method::POST, &format!("environments/{env_id}/activate"), &[], None).await);
    }
    let listed = admin.get("environments?projectId=proj-001").await.body;
    assert_eq!(super::names(&listed), [("Development".to_owned(), false), ("Production".to_owned(), true)]);
    let refused = admin.delete("environments/env-2").await;
    assert_eq!((refused.status, &refused.body["name"]), (StatusCode::CONFLICT, &production["name"]));
    assert_eq!(admin.delete("environments/env-1").await.status, StatusCode::NO_CONTENT);
    let deleted = admin.get("environments?projectId=proj-001&deleted=true").await.body;
    assert_eq!(super::names(&deleted), [("Development".to_owned(), false)]);
    let restored = admin.call(Method::POST, "environments/env-1/restore", &[], None).await;
    assert_eq!((&ok(&restored)["name"], &restored.body["isActive"]), (&json!("Development"), &json!(false)));
}
