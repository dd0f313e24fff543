//! How values are written: numbers, references to secrets and their escapes, whichever way they come.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{environment, ok, with_project};
use crate::administration::admin::{Admin, Answer};

/// Beginnings of references, right and wrong ones.
const REFERENCES: [&str; 5] = ["@secret:1", "@secret:1 ", "@secret:a/b/c", "@secret:", "@secret:db/URL"];

async fn with_secret() -> Admin {
    let admin = with_project().await;
    admin.created("secret-groups", json!({"name": "db"})).await;
    admin.created("secrets", json!({"groupId": 1, "name": "URL", "value": "x"})).await;
    admin
}

#[tokio::test]
async fn numbers_are_kept_as_they_were_written() {
    let admin = with_project().await;
    let numbers =
        [("EXPONENT", "1e6"), ("ZERO", "1.50"), ("ID", "12345678901234567890123"), ("NEGATIVE", "-0"), ("PLAIN", "30")];
    let map: Vec<String> = numbers.iter().map(|(key, number)| format!("\"{key}\":{number}")).collect();
    let map = format!("{{{}}}", map.join(","));
    let expect: Value = numbers.iter().map(|(key, number)| ((*key).to_owned(), Value::from(*number))).collect();
    let created = format!(r#"{{"projectId":"proj-001","name":"Staging","variables":{map}}}"#);
    let created = admin.raw(Method::POST, "environments", created).await;
    assert_eq!((created.status, &created.body["variables"]), (StatusCode::CREATED, &expect), "{}", created.body);
    ok(&admin.put("environments/env-1", json!({"variables": {}})).await);
    let changed = admin.raw(Method::PUT, "environments/env-1", format!(r#"{{"variables":{map}}}"#)).await;
    assert_eq!(ok(&changed)["variables"], expect);

    for (key, number) in numbers {
        let body = format!(r#"{{"key":"{key}","value":{number},"valueType":"number","projectId":1}}"#);
        let created = admin.raw(Method::POST, "variables", body).await;
        assert_eq!((created.status, &created.body["value"]), (StatusCode::CREATED, &json!(number)), "{key}");
        let value = format!(r#"{{"value":{number}}}"#);
        for path in [format!("variables/project-1.{key}"), format!("environments/env-1/variables/{key}_2")] {
            let set = admin.raw(Method::PUT, &path, value.clone()).await;
            assert_eq!((set.status, &set.body["value"]), (StatusCode::OK, &json!(number)), "{path}: {}", set.body);
        }
        let body = format!(r#"{{"key":"{key}_3","value":{number}}}"#);
        let created = admin.raw(Method::POST, "environments/env-1/variables", body).await;
        assert_eq!((created.status, &created.body["value"]), (StatusCode::CREATED, &json!(number)), "{key}");
    }
    for wrong in ["[1.50]", r#"{"a":1.50}"#, "null"] {
        let refused = admin.raw(Method::PUT, "variables/project-1.ID", format!(r#"{{"value":{wrong}}}"#)).await;
        assert_eq!(refused.faults(), [("value", "wrong-type")], "{wrong}");
    }
}

#[tokio::test]
async fn what_begins_as_a_reference_is_never_stored_as_a_text() {
    let admin = with_secret().await;
    environment(&admin, "Staging", json!({"OLD": "a text"})).await;
    admin.created("variables", json!({"projectId": 1, "key": "OLD", "value": "a text"})).await;
    let (single, of_project) = ("environments/env-1/variables/OLD", "variables/project-1.OLD");
    let refused = |answer: &Answer, field: &str, code: &str, text: &str| {
        assert_eq!(answer.faults(), [(field, code)], "{text}: {}", answer.body);
        answer.body["errors"][0]["suggestion"].as_str().unwrap().to_owned()
    };
    for text in REFERENCES {
        for key in ["OLD", "NEW"] {
            let map = admin.put("environments/env-1", json!({"variables": {key: text}})).await;
            let told = refused(&map, &format!("variables.{key}"), "unescaped-secret-ref", text);
            assert!(told.contains("valueType") && told.contains("@@secret:"), "{told}");
        }
        for path in [single, of_project] {
            let told = refused(&admin.put(path, json!({"value": text})).await, "value", "unescaped-secret-ref", text);
            assert!(told.contains("valueType") && told.contains("@@secret:"), "{told}");
        }
        let typed = json!({"projectId": 1, "key": "NEW", "value": text, "valueType": "string"});
        refused(&admin.post("variables", typed).await, "value", "unescaped-secret-ref", text);
    }
    // Where no type is said it is meant as a reference, and has to be one.
    for text in &REFERENCES[1..4] {
        for (path, mut body) in [("variables", json!({"projectId": 1})), ("environments/env-1/variables", json!({}))] {
            (body["key"], body["value"]) = ("NEW".into(), (*text).into());
            refused(&admin.post(path, body).await, "value", "format-secret-ref", text);
        }
        let told = admin.put("environments/env-1/variables/NEW", json!({"value": text})).await;
        refused(&told, "value", "format-secret-ref", text);
        let file = admin.post("variables/import", json!({"projectId": 1, "dotenv": format!("NEW='{text}'")})).await;
        refused(&file, "dotenv[1]", "format-secret-ref", text);
    }
    assert_eq!(admin.get("environments/env-1").await.body["variables"], json!({"OLD": "a text"}));

    // Escaped it is a text, in every way.
    for text in ["@@secret:1", "@@secret:", "@@secret:a/b/c"] {
        let map = admin.put("environments/env-1", json!({"variables": {"OLD": text, "NEW": text}})).await;
        assert_eq!(ok(&map)["variables"], json!({"OLD": text, "NEW": text}));
        assert_eq!(ok(&admin.put(of_project, json!({"value": text})).await)["valueType"], "string");
    }
    let retyped = admin.put(of_project, json!({"value": "@secret:1", "valueType": "secret_ref"})).await;
    assert_eq!((&ok(&retyped)["secretId"], &retyped.body["isSecret"]), (&json!(1), &json!(true)));
}

#[tokio::test]
async fn a_reference_stays_with_its_secret_whatever_that_is_called() {
    let admin = with_secret().await;
    environment(&admin, "Staging", json!({})).await;
    let (single, of_project) = ("environments/env-1/variables/URL", "variables/project-1.URL");
    let created = json!({"projectId": 1, "key": "URL", "value": "@secret:db/URL"});
    assert_eq!(admin.created("variables", created).await["value"], "@secret:1");
    assert_eq!(ok(&admin.put(single, json!({"value": "@secret:db/URL"})).await)["value"], "@secret:1");
    // Another secret has its name, and its group has another one.
    ok(&admin.put("secrets/1", json!({"name": "FORMER"})).await);
    admin.created("secrets", json!({"groupId": 1, "name": "URL", "value": "y"})).await;
    ok(&admin.put("secret-groups/1", json!({"name": "other"})).await);

    for path in [single, of_project] {
        let shown = ok(&admin.get(path).await).clone();
        assert_eq!((&shown["value"], &shown["secretId"]), (&json!("@secret:1"), &json!(1)), "{shown}");
        assert_eq!(ok(&admin.put(path, shown.clone()).await), &shown, "sent back it changes nothing");
    }
    let whole = ok(&admin.get("environments/env-1").await).clone();
    assert_eq!(ok(&admin.put("environments/env-1", whole.clone()).await)["variables"], whole["variables"]);
    for query in ["projectId=1", "envId=env-1"] {
        let text = admin.text(&format!("variables/export?{query}")).await.text().await.unwrap();
        let (field, id) = query.split_once('=').unwrap();
        let id = if field == "projectId" { json!(1) } else { json!(id) };
        let again = admin.post("variables/import", json!({field: id, "dotenv": text, "overwrite": true})).await;
        assert_eq!(ok(&again)["variables"], json!([{"key": "URL", "result": "unchanged"}]), "{text}");
    }
    for path in [single, of_project] {
        assert_eq!(admin.get(path).await.body["secretId"], 1);
    }
    // A name means what it means when it is written.
    assert_eq!(ok(&admin.put(single, json!({"value": "@secret:other/URL"})).await)["secretId"], 2);
    let map = json!({"variables": {"URL": "@secret:other/FORMER"}});
    assert_eq!(ok(&admin.put("environments/env-1", map).await)["variables"]["URL"], "@secret:1");
}

#[tokio::test]
async fn a_variable_is_sent_back_with_its_project_named_either_way() {
    let admin = with_project().await;
    admin.created("projects", json!({"key": "other", "name": "Other"})).await;
    let created = json!({"projectId": "proj-001", "key": "A", "value": "1"});
    let created = admin.created("variables", created).await;
    for project in [json!(1), json!("proj-001"), json!("1")] {
        let mut body = created.clone();
        body["projectId"] = project;
        ok(&admin.put("variables/project-1.A", body).await);
    }
    for project in [json!(2), json!("other"), json!("none"), Value::Null] {
        let refused = admin.put("variables/project-1.A", json!({"projectId": project, "value": "2"})).await;
        let code = if project.is_null() { "wrong-type" } else { "read-only" };
        assert_eq!(refused.faults(), [("projectId", code)], "{project}");
    }
    admin.created("variables", json!({"key": "A", "value": "1"})).await;
    let refused = admin.put("variables/global.A", json!({"projectId": "proj-001", "value": "2"})).await;
    assert_eq!(refused.faults(), [("projectId", "read-only")]);
}
