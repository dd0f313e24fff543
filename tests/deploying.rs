//! The main job: CI deploys a registered application to a Docker host.

use serde_json::{Value, json};
use tidegate_local::demo_image::Mode;

use crate::support::{Installation, Setup};

#[tokio::test]
async fn a_registered_application_is_deployed_by_its_token_with_its_secrets() {
    let installation = Installation::start().await;
    let group = installation.post("secret-groups", &json!({"name": "db"})).await.expect(201)["id"].clone();
    let secret = json!({"groupId": group, "name": "URL", "value": "postgres://shop:s\"ec'ret\n@db/{{x}}"});
    let secret = installation.post("secrets", &secret).await.expect(201)["id"].clone();
    let parameters =
        json!([{"name": "FEATURE_X", "type": "string", "default": "off"}, {"name": "LEVEL", "type": "number"}]);
    let application = installation.register(json!({ "parameters": parameters })).await;
    let project = installation.get(&format!("applications/{}", application.id)).await.expect(200)["projectId"].clone();
    for variable in [
        json!({"scope": "global", "key": "REGION", "value": "global"}),
        json!({"scope": "global", "key": "TIER", "value": "global"}),
        json!({"scope": "project", "projectId": project, "key": "TIER", "value": "project"}),
        json!({"scope": "project", "projectId": project, "key": "DATABASE_URL", "value": format!("@secret:{secret}"),
            "valueType": "secret_ref"}),
        json!({"scope": "application", "applicationId": application.id, "key": "BY_NAME", "value": "@secret:db/URL",
            "valueType": "secret_ref"}),
        json!({"scope": "application", "applicationId": application.id, "key": "OWN", "value": "sealed", "isSecret": true}),
    ] {
        installation.post("variables", &variable).await.expect(201);
    }

    installation.push(&application, "v1", Mode::Ok).await;
    let answer =
        installation.deploy_with(&application, &json!({"version": "v1", "variables": {"LEVEL": 3}}), &[]).await;
    let accepted = answer.expect(202);
    assert_eq!((&accepted["status"], &accepted["phase"]), (&json!("queued"), &json!("pending")));
    let ended = installation.ended(&application, accepted["deploymentId"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");

    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    for (name, value) in [
        ("REGION", "global"),
        ("TIER", "project"),
        ("DATABASE_URL", "postgres://shop:s\"ec'ret\n@db/{{x}}"),
        ("BY_NAME", "postgres://shop:s\"ec'ret\n@db/{{x}}"),
        ("OWN", "sealed"),
        ("FEATURE_X", "off"),
        ("LEVEL", "3"),
    ] {
        assert_eq!(installation.visit(&application, &format!("/env/{name}")).await.unwrap(), value, "{name}");
    }
    check_history(&ended);
    let listed = installation.get(&format!("deployments?applicationId={}", application.id)).await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let shown = installation.get(&format!("applications/{}", application.id)).await.expect(200);
    assert_eq!(shown["status"]["state"], "running");
    assert_eq!(shown["status"]["version"], "v1");
    assert_eq!(shown["status"]["digest"], ended["digest"]);
}

/// Times, durations, trigger, source address, steps.
fn check_history(ended: &Value) {
    assert_eq!(ended["trigger"], json!({"type": "webhook", "source": "127.0.0.1", "actor": "application token"}));
    assert_eq!((&ended["sequence"], &ended["running"], &ended["error"]), (&json!(1), &json!("new"), &Value::Null));
    assert!(ended["digest"].as_str().unwrap().starts_with("sha256:"));
    assert!(ended["durationMs"].as_u64().unwrap() > 0);
    let target = &ended["targets"][0];
    assert_eq!(
        (&target["host"], &target["status"], &target["progress"]),
        (&json!("local"), &json!("succeeded"), &json!(100))
    );
    let steps = target["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["claim", "pull", "create", "switch", "check", "commit"]);
    assert!(steps.iter().all(|step| step["durationMs"].is_u64()), "{steps:?}");
    let events: Vec<_> = ended["timeline"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(events.first(), Some(&"queued"));
    assert_eq!(events.last(), Some(&"succeeded"));
}

#[tokio::test]
async fn a_caller_that_waits_hears_how_it_ended() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    installation.push(&application, "v1", Mode::Ok).await;
    let body = json!({"applicationId": application.id, "version": "v1"});
    let path = "/webhook/deploy?wait=20";
    let answer = installation.call(reqwest::Method::POST, path, Some(&application.token), &[], Some(&body)).await;
    let ended = answer.expect(200);
    assert_eq!(ended["message"], "Deployment completed successfully");
    assert_eq!((&ended["success"], &ended["status"]), (&json!(true), &json!("succeeded")));

    let body = json!({"applicationId": application.id, "version": "v404"});
    let answer = installation.call(reqwest::Method::POST, path, Some(&application.token), &[], Some(&body)).await;
    let ended = answer.expect(200);
    assert_eq!(
        (&ended["success"], &ended["status"], &ended["phase"]),
        (&json!(false), &json!("failed"), &json!("failed"))
    );
    assert_eq!(ended["error"]["code"], "image-not-found");
}

#[tokio::test]
async fn two_calls_at_once_end_in_order() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    for version in ["v1", "v2"] {
        installation.push(&application, version, Mode::Ok).await;
    }
    let (one, two) = tokio::join!(installation.deploy(&application, "v1"), installation.deploy(&application, "v2"));
    let mut ended = Vec::new();
    for accepted in [one.expect(202), two.expect(202)] {
        ended.push(installation.ended(&application, accepted["deploymentId"].as_str().unwrap()).await);
    }
    ended.sort_by_key(|deployment| deployment["sequence"].as_u64());
    assert_eq!(ended.iter().map(|d| d["sequence"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    assert!(ended.iter().all(|d| d["status"] == "succeeded"), "{ended:?}");
    assert!(ended[0]["completedAt"].as_str() <= ended[1]["startedAt"].as_str(), "{ended:?}");
    let last = ended[1]["version"].as_str().unwrap();
    assert_eq!(installation.visit(&application, "/").await.unwrap(), format!("version {last}\n"));
}

#[tokio::test]
async fn the_same_idempotency_key_deploys_once() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    installation.push(&application, "v1", Mode::Ok).await;
    let key = [("Idempotency-Key", "run-1")];
    let v1 = json!({"version": "v1"});
    let calls = (0..5).map(|_| installation.deploy_with(&application, &v1, &key));
    let answers = futures_util::future::join_all(calls).await;
    let first = answers[0].expect(202)["deploymentId"].clone();
    for answer in &answers {
        assert_eq!(answer.expect(202)["deploymentId"], first);
    }
    let replayed = answers.iter().filter(|a| a.headers.contains_key("idempotent-replayed")).count();
    assert_eq!(replayed, 4);
    let other = installation.deploy_with(&application, &json!({"version": "v2"}), &key).await;
    assert!(other.expect(422)["type"].as_str().unwrap().ends_with("idempotency-key-reused"));
    installation.ended(&application, first.as_str().unwrap()).await;
    let listed = installation.get("deployments").await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_repeated_call_that_waits_hears_how_the_first_one_ended() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    installation.push(&application, "v1", Mode::Ok).await;
    let key = [("Idempotency-Key", "run-1")];
    let body = json!({"applicationId": application.id, "version": "v1"});
    let call = async |path: &str| {
        installation.call(reqwest::Method::POST, path, Some(&application.token), &key, Some(&body)).await
    };
    let first = call("/webhook/deploy").await.expect(202)["deploymentId"].clone();
    let repeated = call("/webhook/deploy?wait=20").await;
    let ended = repeated.expect(200);
    assert_eq!((&ended["deploymentId"], &ended["status"]), (&first, &json!("succeeded")), "{ended}");
    assert!(repeated.headers.contains_key("idempotent-replayed"));
}

#[tokio::test]
async fn a_rotation_that_is_repeated_with_its_key_shows_the_same_token_again() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let application = installation.register(json!({})).await;
    let path = format!("/api/v2/applications/{}/webhook-token", application.id);
    let rotate = async |key: &str| {
        let (key, body) = ([("Idempotency-Key", key)], json!({"overlapSeconds": 3600}));
        let admin = Some(installation.admin_token.as_str());
        installation.call(reqwest::Method::POST, &path, admin, &key, Some(&body)).await.expect(200)["webhookToken"]
            .clone()
    };
    let first = rotate("one").await;
    assert_eq!(rotate("one").await, first);
    // The token that CI uses still works: the repeated call was no second rotation.
    let body = json!({"applicationId": application.id, "version": "v1", "token": application.token});
    installation.call(reqwest::Method::POST, "/webhook/deploy", None, &[], Some(&body)).await.expect(202);
    assert_ne!(rotate("two").await, first);
}
