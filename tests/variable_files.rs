//! Variables as `.env` files, and the values of single ones.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use crate::{
    administration::admin::{Admin, Answer},
    secrets::items,
};

const MASK: &str = "***************";

const FILE: &str = "\u{feff}# of the shop\r\nexport HOST=shop.example.com\r\nPORT=8080 # of the proxy\nPASSWORD='p#n33dle'\n\
                    CERTIFICATE=\"-----BEGIN\nEND-----\"\nURL=\"http://{{HOST}}:{{PORT}}/\"\nDATABASE=@secret:db/URL\n";

/// With a project and a secret.
async fn installed() -> (Admin, Value) {
    let admin = Admin::signed_in().await;
    let project = admin.created("projects", json!({"key": "shop", "name": "Shop"})).await["id"].clone();
    let group = admin.created("secret-groups", json!({"name": "db"})).await["id"].clone();
    admin.created("secrets", json!({"groupId": group, "name": "URL", "value": "postgres://n33dle"})).await;
    (admin, project)
}

async fn import(admin: &Admin, scope: &Value, more: Value) -> Answer {
    let mut body = scope.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    admin.post("variables/import", body).await
}

async fn imported(admin: &Admin, scope: &Value, more: Value) -> Value {
    let answer = import(admin, scope, more).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

async fn export(admin: &Admin, query: &str) -> String {
    let answer = admin.text(&format!("variables/export?{query}")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    answer.text().await.unwrap()
}

fn results(answer: &Value) -> Vec<(&str, &str)> {
    let variables = answer["variables"].as_array().unwrap();
    variables.iter().map(|v| (v["key"].as_str().unwrap(), v["result"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn a_file_is_imported_once_and_exported_without_its_secrets() {
    let (admin, project) = installed().await;
    let environment = json!({"projectId": project, "name": "Production"});
    let environment = admin.created("environments", environment).await["envId"].clone();
    let scopes = [
        (json!({"projectId": project}), format!("projectId={project}")),
        (json!({"scope": "environment", "envId": environment}), format!("envId={}", environment.as_str().unwrap())),
        (json!({"scope": "global"}), "scope=global".to_owned()),
    ];
    for (scope, query) in scopes {
        let file = json!({"dotenv": FILE, "secret": ["PASSWORD"]});
        let mut dry = file.clone();
        dry["dryRun"] = true.into();
        let told = imported(&admin, &scope, dry).await;
        assert_eq!((&told["imported"], &told["dryRun"]), (&json!(6), &json!(true)), "{told}");
        assert_eq!(export(&admin, &query).await, "");

        let first = imported(&admin, &scope, file.clone()).await;
        assert_eq!((&first["success"], &first["imported"], &first["skipped"]), (&json!(true), &json!(6), &json!(0)));
        assert!(results(&first).iter().all(|(_, result)| *result == "imported"), "{first}");
        let text = export(&admin, &query).await;
        let expect = format!(
            "CERTIFICATE=\"-----BEGIN\\nEND-----\"\nDATABASE=@secret:db/URL\nHOST=shop.example.com\nPASSWORD=\"{MASK}\"\n\
             PORT=8080\nURL=\"http://{{{{HOST}}}}:{{{{PORT}}}}/\"\n"
        );
        assert_eq!(text, expect);
        // The same file again, and what was exported, change nothing.
        for again in [file, json!({"dotenv": text, "overwrite": true})] {
            let again = imported(&admin, &scope, again).await;
            assert!(results(&again).iter().all(|(_, result)| *result == "unchanged"), "{again}");
        }
        let other = json!({"dotenv": "PORT=9090\nPASSWORD=other\nNEW=1"});
        let skipped = imported(&admin, &scope, other.clone()).await;
        assert_eq!(results(&skipped), [("PORT", "skipped"), ("PASSWORD", "skipped"), ("NEW", "imported")]);
        let mut overwriting = other;
        overwriting["overwrite"] = true.into();
        let updated = imported(&admin, &scope, overwriting).await;
        assert_eq!(results(&updated), [("PORT", "updated"), ("PASSWORD", "updated"), ("NEW", "unchanged")]);
        // It stays a secret.
        assert!(export(&admin, &query).await.contains(&format!("PASSWORD=\"{MASK}\"\nPORT=9090\n")));
    }
}

#[tokio::test]
async fn every_fault_of_a_file_is_told_with_its_line_before_anything_is_written() {
    let (admin, project) = installed().await;
    let scope = json!({"projectId": project});
    let check = async |file: Value, expect: &[(&str, &str)]| {
        let refused = import(&admin, &scope, file).await;
        assert_eq!((refused.status.as_u16(), refused.faults().as_slice()), (422, expect), "{}", refused.body);
        assert!(!refused.body.to_string().contains("n33dle"), "{}", refused.body);
    };
    check(
        json!({"dotenv": "A=1\nn33dle\nA=n33dle\nB=\"n33dle"}),
        &[("dotenv[2]", "format-dotenv"), ("dotenv[3]", "duplicate"), ("dotenv[4]", "format-dotenv")],
    )
    .await;
    check(
        json!({"dotenv": format!("A=1\nB={MASK}\nC={{{{ n33dle }}}}"), "overwrite": true}),
        &[("dotenv[2]", "mask"), ("dotenv[3]", "format-template")],
    )
    .await;
    check(
        json!({"dotenv": "A=@secret:n33dle\nB=@secret:db/NONE"}),
        &[("dotenv[1]", "format-secret-ref"), ("dotenv[2]", "unknown-reference")],
    )
    .await;
    check(
        json!({"dotenv": "A=1", "secret": ["B"], "allSecrets": true}),
        &[("secret[0]", "unknown-value"), ("allSecrets", "unknown-field")],
    )
    .await;
    assert_eq!(export(&admin, &format!("projectId={project}")).await, "");
}

#[tokio::test]
async fn a_value_is_revealed_to_an_administrator_alone_and_that_is_on_record() {
    let (mut admin, project) = installed().await;
    imported(&admin, &json!({"projectId": project}), json!({"dotenv": FILE, "secret": ["PASSWORD"]})).await;
    let environment = json!({"projectId": project, "name": "Production", "variables": {"PLAIN": "visible"}});
    let environment = admin.created("environments", environment).await["envId"].clone();
    let environment = environment.as_str().unwrap();
    let at = |key: &str| format!("variables/project-{project}.{key}/reveal");
    for (path, value) in [
        (at("PASSWORD"), "p#n33dle"),
        (at("DATABASE"), "postgres://n33dle"),
        (at("URL"), "http://{{HOST}}:{{PORT}}/"),
        (format!("environments/{environment}/variables/PLAIN/reveal"), "visible"),
        (format!("variables/{environment}.PLAIN/reveal"), "visible"),
    ] {
        let answer = admin.post(&path, json!({})).await;
        assert_eq!((answer.status.as_u16(), &answer.body["value"]), (200, &json!(value)), "{path}: {}", answer.body);
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    for missing in
        [at("NONE"), "variables/nonsense/reveal".to_owned(), "environments/env-9/variables/A/reveal".to_owned()]
    {
        assert_eq!(admin.post(&missing, json!({})).await.status, 404, "{missing}");
    }
    admin.sign_in("viewer").await;
    assert_eq!(admin.post(&at("PASSWORD"), json!({})).await.status, 403);
    let all = items(&admin.aws.clients()).await;
    let text =
        |item: &HashMap<String, AttributeValue>, field: &str| item.get(field).and_then(|v| v.as_s().ok()).cloned();
    let events: Vec<_> = all.iter().filter_map(|item| Some((text(item, "action")?, text(item, "subject")?))).collect();
    let count = |action: &str, subject: &str| {
        events.iter().filter(|event| event.0 == action && event.1.starts_with(subject)).count()
    };
    assert_eq!(count("variable.revealed", &format!("variable/project-{project}.PASSWORD")), 1, "{events:?}");
    assert_eq!(count("variable.revealed", &format!("variable/{environment}.PLAIN")), 2, "{events:?}");
    assert_eq!(count("secret.revealed", "secret/"), 1, "{events:?}");
}
