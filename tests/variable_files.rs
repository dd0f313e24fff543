//! Variables as `.env` files, and the values of single ones.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Installation, Setup};

const MASK: &str = "***************";

const FILE: &str = "\u{feff}# of the shop\r\nexport HOST=shop.example.com\r\nPORT=8080 # of the proxy\nPASSWORD='p#n33dle'\n\
                    CERTIFICATE=\"-----BEGIN\nEND-----\"\nURL=\"http://{{HOST}}:{{PORT}}/\"\nDATABASE=@secret:db/URL\n";

async fn installed() -> (Installation, Value) {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let project = json!({"key": "shop", "name": "Shop"});
    let project = installation.post("projects", &project).await.expect(201)["id"].clone();
    let group = installation.post("secret-groups", &json!({"name": "db"})).await.expect(201)["id"].clone();
    let secret = json!({"groupId": group, "name": "URL", "value": "postgres://n33dle"});
    installation.post("secrets", &secret).await.expect(201);
    (installation, project)
}

async fn import(installation: &Installation, scope: &Value, more: Value) -> Answer {
    let mut body = scope.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    installation.post("variables/import", &body).await
}

async fn export(installation: &Installation, query: &str) -> String {
    let url = format!("{}/api/v2/variables/export?{query}", installation.stack.url());
    let answer = installation.http.get(url).bearer_auth(&installation.admin_token).send().await.unwrap();
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
    let (installation, project) = installed().await;
    let environment = json!({"projectId": project, "name": "Production"});
    let environment = installation.post("environments", &environment).await.expect(201)["envId"].clone();
    let scopes = [
        (json!({"projectId": project}), format!("projectId={project}")),
        (json!({"scope": "environment", "envId": environment}), format!("envId={}", environment.as_str().unwrap())),
        (json!({"scope": "global"}), "scope=global".to_owned()),
    ];
    for (scope, query) in scopes {
        let file = json!({"dotenv": FILE, "secret": ["PASSWORD"]});
        let mut dry = file.clone();
        dry["dryRun"] = true.into();
        let told = import(&installation, &scope, dry).await.expect(200);
        assert_eq!((&told["imported"], &told["dryRun"]), (&json!(6), &json!(true)), "{told}");
        assert_eq!(export(&installation, &query).await, "");

        let first = import(&installation, &scope, file.clone()).await.expect(200);
        assert_eq!((&first["success"], &first["imported"], &first["skipped"]), (&json!(true), &json!(6), &json!(0)));
        assert!(results(&first).iter().all(|(_, result)| *result == "imported"), "{first}");
        let text = export(&installation, &query).await;
        let expect = format!(
            "CERTIFICATE=\"-----BEGIN\\nEND-----\"\nDATABASE=@secret:db/URL\nHOST=shop.example.com\nPASSWORD=\"{MASK}\"\n\
             PORT=8080\nURL=\"http://{{{{HOST}}}}:{{{{PORT}}}}/\"\n"
        );
        assert_eq!(text, expect);
        // The same file again, and what was exported, change nothing.
        for again in [file, json!({"dotenv": text, "overwrite": true})] {
            let again = import(&installation, &scope, again).await.expect(200);
            assert!(results(&again).iter().all(|(_, result)| *result == "unchanged"), "{again}");
        }
        let other = json!({"dotenv": "PORT=9090\nPASSWORD=other\nNEW=1"});
        let skipped = import(&installation, &scope, other.clone()).await.expect(200);
        assert_eq!(results(&skipped), [("PORT", "skipped"), ("PASSWORD", "skipped"), ("NEW", "imported")]);
        let mut overwriting = other;
        overwriting["overwrite"] = true.into();
        let updated = import(&installation, &scope, overwriting).await.expect(200);
        assert_eq!(results(&updated), [("PORT", "updated"), ("PASSWORD", "updated"), ("NEW", "unchanged")]);
        // It stays a secret.
        assert!(export(&installation, &query).await.contains(&format!("PASSWORD=\"{MASK}\"\nPORT=9090\n")));
    }
}

#[tokio::test]
async fn every_fault_of_a_file_is_told_with_its_line_before_anything_is_written() {
    let (installation, project) = installed().await;
    let scope = json!({"projectId": project});
    let check = async |file: Value, expect: &[(&str, &str)]| {
        let refused = import(&installation, &scope, file).await.expect(422);
        let told = refused["errors"].as_array().unwrap().iter();
        let told: Vec<_> = told.map(|e| (e["field"].as_str().unwrap(), e["code"].as_str().unwrap())).collect();
        assert_eq!(told, expect);
        assert!(!refused.to_string().contains("n33dle"), "{refused}");
    };
    check(json!({"dotenv": "A=1\nn33dle\nA=n33dle\nB=\"n33dle"}), &[
        ("dotenv[2]", "format-dotenv"),
        ("dotenv[3]", "duplicate"),
        ("dotenv[4]", "format-dotenv"),
    ])
    .await;
    check(json!({"dotenv": format!("A=1\nB={MASK}\nC={{{{ n33dle }}}}"), "overwrite": true}), &[
        ("dotenv[2]", "mask"),
        ("dotenv[3]", "format-template"),
    ])
    .await;
    check(json!({"dotenv": "A=@secret:n33dle\nB=@secret:db/NONE"}), &[
        ("dotenv[1]", "format-secret-ref"),
        ("dotenv[2]", "reference-missing"),
    ])
    .await;
    check(json!({"dotenv": "A=1", "secret": ["B"], "allSecrets": true}), &[
        ("secret[0]", "unknown-value"),
        ("allSecrets", "unknown-field"),
    ])
    .await;
    assert_eq!(export(&installation, &format!("projectId={project}")).await, "");
}

#[tokio::test]
async fn a_value_is_revealed_to_an_administrator_alone_and_that_is_on_record() {
    let (installation, project) = installed().await;
    import(&installation, &json!({"projectId": project}), json!({"dotenv": FILE, "secret": ["PASSWORD"]})).await.expect(200);
    let environment = json!({"projectId": project, "name": "Production", "variables": {"PLAIN": "visible"}});
    let environment = installation.post("environments", &environment).await.expect(201)["envId"].clone();
    let environment = environment.as_str().unwrap();
    let at = |key: &str| format!("variables/project-{project}.{key}/reveal");
    for (path, value) in [
        (at("PASSWORD"), "p#n33dle"),
        (at("DATABASE"), "postgres://n33dle"),
        (at("URL"), "http://{{HOST}}:{{PORT}}/"),
        (format!("environments/{environment}/variables/PLAIN/reveal"), "visible"),
        (format!("variables/{environment}.PLAIN/reveal"), "visible"),
    ] {
        let url = format!("{}/api/v2/{path}", installation.stack.url());
        let answer = installation.http.post(url).bearer_auth(&installation.admin_token).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers()["cache-control"].to_str().unwrap()), (200, "no-store"));
        assert_eq!(answer.json::<Value>().await.unwrap()["value"], value, "{path}");
    }
    for missing in [at("NONE"), "variables/nonsense/reveal".to_owned(), "environments/env-9/variables/A/reveal".to_owned()] {
        installation.post(&missing, &json!({})).await.expect(404);
    }
    let viewer = installation.sign_in_as("viewer").await;
    let path = format!("/api/v2/{}", at("PASSWORD"));
    installation.call(Method::POST, &path, Some(&viewer), &[], None).await.expect(403);
    let events = installation.audit_events().await;
    let count = |action: &str, subject: &str| {
        events.iter().filter(|event| event.0 == action && event.1.starts_with(subject)).count()
    };
    assert_eq!(count("variable.revealed", &format!("variable/project-{project}.PASSWORD")), 1, "{events:?}");
    assert_eq!(count("variable.revealed", &format!("variable/{environment}.PLAIN")), 2, "{events:?}");
    assert_eq!(count("secret.revealed", "secret/"), 1, "{events:?}");
}
