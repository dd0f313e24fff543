//! A group imported into a project, an application, an environment.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::administration::admin::{Admin, Answer};

/// A group of these secrets, beside what an application needs.
async fn with_group(names: &[&str]) -> Admin {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    admin.created("environments", json!({"projectId": "shop", "name": "prod"})).await;
    admin.created("secret-groups", json!({"name": "import"})).await;
    for name in names {
        admin.created("secrets", json!({"groupId": 2, "name": name, "value": format!("value of {name}")})).await;
    }
    admin
}

async fn import(admin: &Admin, body: Value) -> Answer {
    let answer = admin.post("secret-groups/2/import", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer
}

fn results(answer: &Answer) -> Vec<(&str, &str)> {
    let secrets = answer.body["secrets"].as_array().unwrap();
    secrets.iter().map(|s| (s["name"].as_str().unwrap(), s["result"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn each_secret_becomes_a_reference_in_every_kind_of_target() {
    let admin = with_group(&["A", "B", "not a key"]).await;
    let targets = [
        (json!({"projectId": 1}), "variables?projectId=1"),
        (json!({"projectId": "shop"}), "variables?projectId=1"),
        (json!({"applicationId": 1}), "variables?applicationId=1"),
        (json!({"envId": "env-1"}), "environments/env-1/variables"),
    ];
    for (index, (target, list)) in targets.into_iter().enumerate() {
        let first = import(&admin, target.clone()).await;
        let (imported, skipped) = if index == 1 { (0, 3) } else { (2, 1) };
        assert_eq!(
            (&first.body["success"], &first.body["imported"]),
            (&json!(true), &json!(imported)),
            "{}",
            first.body
        );
        assert_eq!(first.body["skipped"], skipped, "{}", first.body);
        let reason = first.body["secrets"][2]["reason"].as_str().unwrap();
        assert!(reason.contains("cannot be a variable's name"), "{reason}");
        let before = admin.get(list).await.body;
        // Again, either way.
        for overwrite in [false, true] {
            let mut again = target.clone();
            again["overwrite"] = overwrite.into();
            let again = import(&admin, again).await;
            assert_eq!((&again.body["imported"], &again.body["skipped"]), (&json!(0), &json!(3)), "{}", again.body);
            assert_eq!(admin.get(list).await.body, before);
        }
        let listed = before["data"].as_array().unwrap();
        let shown: Vec<_> = listed.iter().map(|v| (v["key"].as_str().unwrap(), v["value"].as_str().unwrap())).collect();
        assert_eq!(shown, [("A", "@secret:2"), ("B", "@secret:3")], "{list}");
        assert!(listed.iter().all(|v| v["valueType"] == "secret_ref" && v["isSecret"] == true), "{before}");
    }
    assert_eq!(admin.get("secrets/2").await.body["usedBy"], 3);
    let used: Vec<_> =
        admin.get("secrets/2/used-by").await.body["data"].as_array().unwrap().iter().map(|v| v["id"].clone()).collect();
    assert_eq!(used, [json!("application-1.A"), json!("env-1.A"), json!("project-1.A")]);
}

#[tokio::test]
async fn what_is_there_stays_unless_it_is_to_be_overwritten() {
    let admin = with_group(&["A", "B", "C"]).await;
    for target in [json!({"projectId": 1}), json!({"envId": "env-1"})] {
        // One is plain, one refers to another secret of the group.
        for (key, value) in [("A", "plain"), ("B", "@secret:2")] {
            let mut variable = json!({ "key": key, "value": value });
            let path = match target["projectId"].as_u64() {
                Some(project) => {
                    variable["projectId"] = project.into();
                    "variables"
                }
                None => "environments/env-1/variables",
            };
            admin.created(path, variable).await;
        }
        let kept = import(&admin, target.clone()).await;
        assert_eq!(results(&kept), [("A", "skipped"), ("B", "skipped"), ("C", "imported")]);
        let mut forced = target.clone();
        forced["overwrite"] = true.into();
        let forced = import(&admin, forced).await;
        assert_eq!(results(&forced), [("A", "overwritten"), ("B", "overwritten"), ("C", "skipped")]);
        assert_eq!(forced.body["imported"], 2);
    }
    for id in 2..=4 {
        assert_eq!(admin.get(&format!("secrets/{id}")).await.body["usedBy"], 2, "secret {id}");
    }
    let variable = admin.get("variables/project-1.A").await.body;
    assert_eq!((&variable["value"], &variable["revision"]), (&json!("@secret:2"), &json!(2)));
}

#[tokio::test]
async fn a_group_of_more_than_a_transaction_holds_is_imported() {
    let names: Vec<_> = (0..130).map(|i| format!("S{i:03}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let admin = with_group(&names).await;
    for target in [json!({"projectId": 1}), json!({"envId": "env-1"})] {
        let answer = import(&admin, target.clone()).await;
        assert_eq!((&answer.body["imported"], &answer.body["left"]), (&json!(130), &json!(0)));
        assert_eq!(import(&admin, target).await.body["imported"], 0);
    }
    assert_eq!(admin.get("variables/project-1.S129").await.body["secretId"], 131);
    // The project counts them, and can go when they have.
    assert_eq!(admin.delete("projects/1").await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn an_import_is_answered_once_and_names_every_fault() {
    let admin = with_group(&["A"]).await;
    let send = async |body: Value| {
        admin.call(Method::POST, "secret-groups/2/import", &[("Idempotency-Key", "once")], Some(body)).await
    };
    let (first, again) = (send(json!({"projectId": 1})).await, send(json!({"projectId": 1})).await);
    assert_eq!((&first.body["imported"], &first.body), (&json!(1), &again.body));
    assert!(again.headers.contains_key("idempotent-replayed"));
    assert_eq!(send(json!({"applicationId": 1})).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let check = async |body: Value, expect: &[(&str, &str)]| {
        let answer = admin.post("secret-groups/2/import", body.clone()).await;
        assert_eq!(answer.faults(), expect, "{body}");
    };
    check(json!({}), &[("projectId", "missing")]).await;
    check(json!({"projectId": 1, "envId": "env-1"}), &[("projectId", "one-target")]).await;
    check(json!({"projectId": 9}), &[("projectId", "unknown-reference")]).await;
    check(json!({"projectId": "nope"}), &[("projectId", "unknown-reference")]).await;
    check(json!({"applicationId": 9}), &[("applicationId", "unknown-reference")]).await;
    check(json!({"envId": "env-9"}), &[("envId", "unknown-reference")]).await;
    check(json!({"envId": "9", "overwrite": 1}), &[("envId", "format-id"), ("overwrite", "wrong-type")]).await;
    assert_eq!(admin.post("secret-groups/9/import", json!({"projectId": 1})).await.status, StatusCode::NOT_FOUND);
}
