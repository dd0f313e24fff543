//! Variables that refer to each other, and what a deployment would get of them.

use serde_json::{Value, json};

use crate::support::{Application, Installation, Setup};

const MASK: &str = "***************";

/// Without a worker: nothing has to run.
async fn installed() -> (Installation, Application, Value) {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let parameters =
        json!([{"name": "FLAG", "type": "boolean", "default": "false"}, {"name": "NOTE", "type": "string"}]);
    let application = installation.register(json!({"parameters": parameters})).await;
    let project = installation.get(&format!("applications/{}", application.id)).await.expect(200)["projectId"].clone();
    (installation, application, project)
}

async fn set(installation: &Installation, scope: Value, key: &str, value: &str, more: Value) {
    let mut variable = json!({"key": key, "value": value});
    for (field, value) in scope.as_object().unwrap().iter().chain(more.as_object().unwrap()) {
        variable[field] = value.clone();
    }
    installation.post("variables", &variable).await.expect(201);
}

/// Makes an environment of the project the active one.
async fn activate(installation: &Installation, project: &Value, name: &str, more: Value) -> String {
    let mut environment = json!({"projectId": project, "name": name});
    for (field, value) in more.as_object().unwrap() {
        environment[field] = value.clone();
    }
    let id = installation.post("environments", &environment).await.expect(201)["envId"].as_str().unwrap().to_owned();
    installation.post(&format!("environments/{id}/activate"), &json!({})).await.expect(200);
    id
}

async fn preview(installation: &Installation, application: &Application, body: Value) -> Value {
    installation.post(&format!("applications/{}/variables/preview", application.id), &body).await.expect(200)
}

fn of<'a>(preview: &'a Value, key: &str) -> &'a Value {
    let data = preview["data"].as_array().unwrap();
    data.iter().find(|variable| variable["key"] == key).unwrap_or_else(|| panic!("{key} is not in {preview}"))
}

fn errors(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = answer["errors"].as_array().unwrap();
    errors.iter().map(|error| (text(&error["field"]), text(&error["code"]))).collect()
}

#[tokio::test]
async fn a_preview_shows_what_a_deployment_would_get_and_where_it_is_from() {
    let (installation, application, project) = installed().await;
    let (own, of_project) = (json!({"applicationId": application.id}), json!({"projectId": project}));
    set(&installation, json!({}), "HOST", "global.example.com", json!({})).await;
    set(&installation, of_project.clone(), "HOST", "{{env.HOST}}", json!({})).await;
    set(&installation, of_project.clone(), "PASSWORD", "n33dle", json!({"isSecret": true})).await;
    set(&installation, of_project, "FLAG", "true", json!({"valueType": "boolean"})).await;
    set(&installation, own.clone(), "HOST", "{{env.HOST}}:8443", json!({})).await;
    set(&installation, own, "URL", "https://u:{{PASSWORD}}@{{HOST}}/{{NOTE}}", json!({})).await;
    let id = activate(&installation, &project, "Staging", json!({"variables": {"HOST": "staging.example.com"}})).await;

    let shown = preview(&installation, &application, json!({"variables": {"NOTE": "{{PASSWORD}}"}})).await;
    assert_eq!(shown["environment"], json!({"envId": id, "name": "Staging"}));
    assert_eq!(shown["errors"], json!([]), "{shown}");
    let host = json!({"key": "HOST", "value": "staging.example.com:8443", "isSecret": false, "origin": "application",
        "overrides": ["environment", "project", "global"], "references": ["env.HOST"]});
    assert_eq!(*of(&shown, "HOST"), host);
    let url = json!({"key": "URL", "value": MASK, "isSecret": true, "origin": "application", "overrides": [],
        "references": ["HOST", "NOTE", "PASSWORD"]});
    assert_eq!(*of(&shown, "URL"), url);
    assert_eq!(of(&shown, "PASSWORD")["value"], MASK);
    // What a request says is never read for references.
    assert_eq!(of(&shown, "NOTE")["value"], "{{PASSWORD}}");
    assert_eq!(of(&shown, "NOTE")["origin"], "request");
    assert_eq!(of(&shown, "FLAG")["overrides"], json!(["default"]));
    assert!(!shown.to_string().contains("n33dle"), "{shown}");
}

#[tokio::test]
async fn a_fault_hides_nothing_else_and_keeps_a_deployment_from_being_recorded_as_valid() {
    let (installation, application, project) = installed().await;
    let of_project = json!({"projectId": project});
    set(&installation, of_project.clone(), "A", "{{B}}", json!({})).await;
    set(&installation, of_project.clone(), "B", "{{A}}", json!({})).await;
    set(&installation, of_project.clone(), "C", "{{NONE}}{{env.C}}", json!({})).await;
    set(&installation, of_project.clone(), "D", "{{E}}", json!({"valueType": "number"})).await;
    set(&installation, of_project, "E", "eighty", json!({})).await;
    let expect = [
        ("variables.A", "circular-variable"),
        ("variables.B", "circular-variable"),
        ("variables.C", "unknown-variable"),
        ("variables.C", "unknown-variable"),
        ("variables.D", "format-number"),
    ];
    let expect: Vec<_> = expect.map(|(field, code)| (field.to_owned(), code.to_owned())).into();

    let shown = preview(&installation, &application, json!({})).await;
    assert_eq!(errors(&shown), expect);
    assert_eq!(of(&shown, "A")["value"], Value::Null);
    assert_eq!(of(&shown, "E")["value"], "eighty");
    assert_eq!(shown["environment"], Value::Null);
    let refused = installation.deploy(&application, "v1").await.expect(422);
    assert_eq!(errors(&refused), expect);
    // A reference whose form is wrong is refused when it is written.
    let wrong = json!({"projectId": project, "key": "F", "value": "{{ A }}"});
    assert_eq!(
        errors(&installation.post("variables", &wrong).await.expect(422)),
        [("value".to_owned(), "format-template".to_owned())]
    );
}

#[tokio::test]
async fn an_environment_may_want_a_decision_which_covers_its_variables() {
    let (installation, application, project) = installed().await;
    let more = json!({"requiresApproval": true, "variables": {"HOST": "one.example.com"}});
    let id = activate(&installation, &project, "Production", more).await;
    let waiting = installation.deploy(&application, "v1").await.expect(202);
    assert_eq!(waiting["status"], "awaiting_approval", "{waiting}");
    let reason = &waiting["approval"]["reasons"][0];
    assert_eq!((&reason["field"], &reason["code"]), (&json!("environment"), &json!("always")), "{waiting}");
    assert!(reason["message"].as_str().unwrap().contains("Production"), "{waiting}");
    let deployment = waiting["deploymentId"].as_str().unwrap();
    let shown = installation.get(&format!("deployments/{deployment}")).await.expect(200);
    assert_eq!(shown["environment"], json!({"envId": id, "name": "Production"}));

    let changed = json!({"value": "two.example.com"});
    installation.put(&format!("environments/{id}/variables/HOST"), &changed).await.expect(200);
    let hash = json!({"hash": shown["approval"]["hash"]});
    let stale = installation.post(&format!("approvals/{deployment}/approve"), &hash).await.expect(409);
    assert!(stale.to_string().contains("stale"), "{stale}");
}

#[tokio::test]
async fn a_preview_takes_numbers_as_a_deployment_does() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let parameters = json!([{"name": "RATE", "type": "number"}, {"name": "ID", "type": "string"}]);
    let application = installation.register(json!({"parameters": parameters})).await;
    let path = format!("{}/api/v2/applications/{}/variables/preview", installation.stack.url(), application.id);
    let request = installation.http.post(path).bearer_auth(&installation.admin_token);
    let request = request.header("content-type", "application/json");
    let body = r#"{"variables":{"RATE":1.50,"ID":12345678901234567890123}}"#;
    let shown: Value = request.body(body).send().await.unwrap().json().await.unwrap();
    assert_eq!(shown["errors"], json!([]), "{shown}");
    assert_eq!(of(&shown, "RATE")["value"], "1.50");
    assert_eq!(of(&shown, "ID")["value"], "12345678901234567890123");
}
