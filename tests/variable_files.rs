//! Variables as `.env` files, and the values of single ones.

use std::{
    collections::HashMap,
    fs,
    process::{Command, Stdio},
};

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
            "CERTIFICATE='-----BEGIN\nEND-----'\nDATABASE=@secret:1\nHOST=shop.example.com\nPASSWORD='{MASK}'\n\
             PORT=8080\nURL='http://{{{{HOST}}}}:{{{{PORT}}}}/'\n"
        );
        assert_eq!(text, expect);
        // The same file again, and what was exported, change nothing.
        for (again, secret) in [(file, "skipped"), (json!({"dotenv": text, "overwrite": true}), "unchanged")] {
            let again = imported(&admin, &scope, again).await;
            let expect = |key: &str| if key == "PASSWORD" { secret } else { "unchanged" };
            assert!(results(&again).iter().all(|(key, result)| *result == expect(key)), "{again}");
        }
        let other = json!({"dotenv": "PORT=9090\nPASSWORD=other\nNEW=1"});
        let skipped = imported(&admin, &scope, other.clone()).await;
        assert_eq!(results(&skipped), [("PORT", "skipped"), ("PASSWORD", "skipped"), ("NEW", "imported")]);
        let mut overwriting = other;
        overwriting["overwrite"] = true.into();
        let updated = imported(&admin, &scope, overwriting).await;
        assert_eq!(results(&updated), [("PORT", "updated"), ("PASSWORD", "updated"), ("NEW", "unchanged")]);
        // It stays a secret.
        assert!(export(&admin, &query).await.contains(&format!("PASSWORD='{MASK}'\nPORT=9090\n")));
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
    // Others would read more variables than these.
    for text in ["A=1\rn33dle=2", "A=1\u{2028}B=n33dle", "A=1\u{b}B=n33dle", "# a comment\rA=n33dle"] {
        for dry_run in [true, false] {
            let file = json!({"dotenv": format!("Z=0\r\n{text}"), "dryRun": dry_run});
            check(file, &[("dotenv[2]", "format-dotenv")]).await;
        }
    }
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

/// Whoever may write is told nothing of a secret's value that the mask does not show.
#[tokio::test]
async fn a_guess_at_a_secret_is_answered_as_any_other_text() {
    let (admin, project) = installed().await;
    let scope = json!({"projectId": project});
    imported(&admin, &scope, json!({"dotenv": "PASSWORD=n33dle", "allSecret": true})).await;
    let answer = async |value: &str, overwrite: bool, dry_run: bool| {
        let file = json!({"dotenv": format!("PASSWORD={value}"), "overwrite": overwrite, "dryRun": dry_run});
        imported(&admin, &scope, file).await
    };
    for (overwrite, dry_run, result) in
        [(false, false, "skipped"), (false, true, "skipped"), (true, true, "updated"), (true, false, "updated")]
    {
        let (right, wrong) = (answer("n33dle", overwrite, dry_run).await, answer("other", overwrite, dry_run).await);
        assert_eq!(right, wrong, "overwrite: {overwrite}, dryRun: {dry_run}");
        assert_eq!(results(&right), [("PASSWORD", result)]);
    }
}

#[tokio::test]
async fn what_is_of_nothing_is_neither_imported_into_nor_read() {
    let (admin, _) = installed().await;
    for (scope, field, query) in [
        (json!({"applicationId": 999}), "applicationId", "applicationId=999"),
        (json!({"projectId": 999}), "projectId", "projectId=999"),
        (json!({"projectId": "none"}), "projectId", "projectId=none"),
        (json!({"envId": "env-999"}), "envId", "envId=env-999"),
    ] {
        for dry_run in [true, false] {
            let refused = import(&admin, &scope, json!({"dotenv": "A=1", "dryRun": dry_run})).await;
            assert_eq!(refused.faults(), [(field, "unknown-reference")], "{scope}: {}", refused.body);
        }
        for path in ["variables", "variables/export"] {
            let status = admin.get(&format!("{path}?{query}")).await.status.as_u16();
            let expect = if query == "projectId=none" { 422 } else { 404 };
            assert_eq!(status, expect, "{path}?{query}");
        }
    }
}

#[tokio::test]
async fn a_shell_takes_an_export_for_what_is_stored_and_runs_none_of_it() {
    let (admin, project) = installed().await;
    let values = [
        "`touch ran`",
        "it's `touch ran` $(touch ran) ${HOME} $HOME \\` \"x\" \\",
        "$(touch ran)",
        "one\ntwo\\n\n",
        "it's\ntwo\\n",
        "; touch ran #",
        "'; touch ran; '",
        "a b\tc ~ * ? [x] {a,b} !! & | > <",
        "",
    ];
    for (index, value) in values.iter().enumerate() {
        admin.created("variables", json!({"projectId": project, "key": format!("K{index}"), "value": value})).await;
    }
    let text = export(&admin, &format!("projectId={project}")).await;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("exported.env"), &text).unwrap();
    let shown: Vec<_> = (0..values.len()).map(|index| format!("printf '%s\\0' \"$K{index}\"; ")).collect();
    let shell = Command::new("sh")
        .args(["-euc", &format!(". ./exported.env; {}", shown.concat())])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(shell.status.success() && shell.stderr.is_empty(), "{}", String::from_utf8_lossy(&shell.stderr));
    let seen = String::from_utf8(shell.stdout).unwrap();
    assert_eq!(seen.split_terminator('\0').collect::<Vec<_>>(), values, "{text}");
    assert!(!folder.path().join("ran").exists(), "{text}");
    let again = imported(&admin, &json!({"projectId": project}), json!({"dotenv": text, "overwrite": true})).await;
    assert!(results(&again).iter().all(|(_, result)| *result == "unchanged"), "{again}");
}
