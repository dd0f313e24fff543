//! Files that say two things at once, or that another program wrote in its own way.

use serde_json::json;
use tidegate_local::import_v1::{ImportError, Outcome};

use super::{Files, everything, names, quiet, run, tells_nothing_hidden, write};

const CONTRADICTING: &str = r#"{
    "applications": [
        {"id": 1, "name": "shop", "image": "registry.example.com/shop", "version": "v1"},
        {"id": 1, "name": "mail", "image": "registry.example.com/mail", "version": "v1"},
        {"id": 3, "name": "wiki", "image": "registry.example.com/wiki", "version": "v1", "env": "{\"A\":\"plain-one\",\"A\":\"\"}"}
    ],
    "secrets": [{"name": "LOST", "value": "hidden-three"}],
    "secrets": [{"id": 9, "name": "ONE", "value": "hidden-three"}, {"id": 9, "name": "TWO", "name": "THREE", "value": "hidden-three"}],
    "environment_variables": [
        {"key": "A", "value": "plain-one", "scope": "global", "application_id": 1},
        {"key": "B", "value": "plain-one", "application": "shop", "application_id": 77},
        {"key": "C", "value": "plain-one", "application_id": 1, "project_id": 5},
        {"key": "D", "value": "", "value_type": "string", "secret_id": 9},
        {"key": "E", "value": "@secret:2", "secret_id": 9}
    ]
}"#;

#[tokio::test]
async fn a_file_that_contradicts_itself_is_told_of_and_not_chosen_from() {
    let installation = quiet().await;
    let files = Files::new(&json!({}), &json!({}));
    write(&files.path("v1.json"), CONTRADICTING);
    let before = everything(&installation).await;
    let (outcome, told) = run(files.options(&installation.stack.url(), &installation.admin_token)).await;
    let expected = [
        "applications[1].id [duplicate]",
        "applications[2].env.A [duplicate]",
        "secrets [duplicate]",
        "secrets[1].id [duplicate]",
        "secrets[1].name [duplicate]",
        "environment_variables[0].scope [either-or]",
        "environment_variables[1].application_id [either-or]",
        "environment_variables[2].project_id [either-or]",
        "environment_variables[3].secret_id [either-or]",
        "environment_variables[4].value [either-or]",
    ];
    assert!(matches!(outcome, Err(ImportError::Faults { count }) if count == expected.len()), "{outcome:?}: {told}");
    for fault in expected {
        assert!(told.contains(&format!("! {fault}")), "{fault} is not in {told}");
    }
    tells_nothing_hidden(&told);
    assert_eq!(everything(&installation).await, before);
}

#[tokio::test]
async fn a_decision_that_is_there_twice_decides_nothing() {
    let installation = quiet().await;
    let files = Files::new(&json!({"secrets": [{"name": "S", "value": "hidden-three"}]}), &json!({}));
    write(&files.path("decisions.json"), r#"{"secrets": {"S": {"valueFromEnv": "S"}, "S": "skip"}}"#);
    let (outcome, told) = run(files.options(&installation.stack.url(), &installation.admin_token)).await;
    assert!(matches!(outcome, Err(ImportError::Faults { count: 1 })), "{outcome:?}: {told}");
    assert!(told.contains("! decisions.secrets.S [duplicate]"), "{told}");
}

#[tokio::test]
async fn rows_are_live_as_each_export_writes_it() {
    let installation = quiet().await;
    let secret =
        |name: &str, deleted: serde_json::Value| json!({"name": name, "value": "hidden-three", "deleted_at": deleted});
    let live =
        [("CSV", json!("")), ("SQLITE", json!(0)), ("MYSQL", json!("0000-00-00 00:00:00")), ("FLAG", json!(false))];
    let mut secrets: Vec<_> = live.iter().map(|(name, deleted)| secret(name, deleted.clone())).collect();
    secrets.push(secret("GONE", json!("2025-01-01T00:00:00Z")));
    let files = Files::new(&json!({ "secrets": secrets }), &json!({}));
    let (outcome, told) = run(files.options(&installation.stack.url(), &installation.admin_token)).await;
    assert_eq!(outcome.unwrap(), Outcome::Done, "{told}");
    assert!(told.contains("- secrets[4]: it was deleted in V1") && told.matches("deleted").count() == 1, "{told}");
    let names = names(&everything(&installation).await);
    for (name, _) in live {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
    assert!(!names.iter().any(|found| found == "GONE"), "{names:?}");
}
