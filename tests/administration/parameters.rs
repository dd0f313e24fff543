//! What an application declares, through the API.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{admin::Admin, application};

fn with(changes: &Value) -> Value {
    let mut body = application();
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A declaration as answers show it.
fn shown(changes: &Value) -> Value {
    let mut declaration = json!({"name": "A", "type": "string", "required": false, "default": null, "sensitive": false,
        "approval": null, "minLength": null, "maxLength": null, "pattern": null, "enum": null, "multiline": false,
        "algorithms": null});
    for (name, value) in changes.as_object().unwrap() {
        declaration[name] = value.clone();
    }
    declaration
}

#[tokio::test]
async fn every_part_of_a_declaration_is_kept_and_can_be_sent_back() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    let declarations = [
        json!({"name": "LEVEL", "type": "number", "required": true, "default": 2, "enum": [1, 2]}),
        json!({"name": "TEXT", "minLength": 1, "maxLength": 9, "pattern": "[a-z\n]+", "multiline": true}),
        json!({"name": "API", "type": "url", "approval": "public-address"}),
        json!({"name": "KEY", "type": "public_key", "approval": "always", "sensitive": true, "algorithms": ["rsa"]}),
    ];
    let changed = admin.put("applications/1", json!({"parameters": declarations})).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let mut expect: Vec<_> = declarations.iter().map(shown).collect();
    (expect[0]["default"], expect[0]["enum"]) = (json!("2"), json!(["1", "2"]));
    let kept = admin.get("applications/1").await.body;
    assert_eq!(kept["parameters"], json!(expect));
    let again = admin.put("applications/1", kept).await;
    assert_eq!((again.status, &again.body["parameters"]), (StatusCode::OK, &json!(expect)), "{}", again.body);
}

#[tokio::test]
async fn every_fault_of_a_declaration_is_told_at_its_field() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    let many: Vec<_> = (0..201).map(|i| json!({"name": format!("P{i}")})).collect();
    let check = async |changes: Value, expect: &[(&str, &str)]| {
        let answer = admin.put("applications/1", with(&changes)).await;
        let mut faults = answer.faults();
        faults.sort_unstable();
        assert_eq!(faults, expect, "{}", answer.body);
        assert!(!answer.body.to_string().contains("marked"), "{}", answer.body);
    };
    check(
        json!({"parameters": [
            {"name": "A", "type": "marked", "approval": "marked", "pattern": "(", "enum": "marked", "algorithms": ["marked"]},
            {"name": "B", "approval": "public-address", "multiline": 1, "minLength": 3, "maxLength": 2, "regex": "a"},
            {"name": "C", "type": "ip", "default": "marked", "enum": ["10.0.0.1", "127.0.0.1"]},
            {"name": "C", "sensitive": true, "default": "marked"},
        ]}),
        &[
            ("parameters[0].algorithms", "unknown-value"),
            ("parameters[0].approval", "unknown-value"),
            ("parameters[0].enum", "wrong-type"),
            ("parameters[0].pattern", "format-pattern"),
            ("parameters[0].type", "unknown-value"),
            ("parameters[1].approval", "either-or"),
            ("parameters[1].minLength", "either-or"),
            ("parameters[1].multiline", "wrong-type"),
            ("parameters[1].regex", "unknown-field"),
            ("parameters[2].default", "format-ip"),
            ("parameters[2].enum[1]", "reserved-address"),
            ("parameters[3].default", "either-or"),
            ("parameters[3].name", "duplicate"),
        ],
    )
    .await;
    check(json!({"parameters": many}), &[("parameters", "out-of-range")]).await;
    check(json!({"parameterSet": "marked"}), &[("parameterSet", "unknown-value")]).await;
}

#[tokio::test]
async fn a_ready_made_set_becomes_declarations_when_it_is_named() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    let set = json!({"parameterSet": "rustdesk-client"});
    let names = |application: &Value| -> Vec<String> {
        let declared = application["parameters"].as_array().unwrap();
        declared.iter().map(|declared| declared["name"].as_str().unwrap().to_owned()).collect()
    };
    let of_set = ["tag", "email", "super_password", "rendezvous_server", "api_server", "rs_pub_key"];
    let own = json!({"parameters": [{"name": "LEVEL", "type": "number"}]});
    assert_eq!(admin.put("applications/1", own.clone()).await.status, StatusCode::OK);
    let expect: Vec<_> = ["LEVEL"].iter().chain(&of_set).map(|name| (*name).to_owned()).collect();
    for body in [&set, &set, &json!({"parameterSet": null})] {
        let changed = admin.put("applications/1", body.clone()).await;
        assert_eq!((changed.status, names(&changed.body)), (StatusCode::OK, expect.clone()), "{}", changed.body);
    }
    let shown = admin.get("applications/1").await.body;
    assert_eq!(shown["parameters"][5]["approval"], "public-address");
    assert_eq!(shown["parameters"][3]["sensitive"], true);
    assert_eq!(shown["parameters"][1]["required"], false);

    let other = json!({"parameterSet": "rustdesk-client", "parameters": [{"name": "email", "type": "string"}]});
    assert_eq!(admin.put("applications/1", other).await.faults(), [("parameterSet", "duplicate")]);
    let changed = admin.put("applications/1", own).await;
    assert_eq!(names(&changed.body), ["LEVEL"]);
}
