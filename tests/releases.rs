//! Going back to what was released before: image and configuration, even without a registry.

use serde_json::{Value, json};
use tidegate_local::demo_image::Mode;

use crate::support::{Application, Installation, PrivateRegistry};

/// v1 with `GREETING=one` and v2 with `GREETING=two`, out of a registry that can be taken away.
async fn two_releases() -> (Installation, Application, String) {
    let mut installation = Installation::start().await;
    installation.registry = PrivateRegistry::in_process();
    let application = installation.register(json!({})).await;
    let variable = json!({"scope": "application", "applicationId": application.id, "key": "GREETING", "value": "one"});
    let variable = installation.post("variables", &variable).await.expect(201);
    assert_eq!(installation.release(&application, "v1", Mode::Ok).await["status"], "succeeded");
    let id = variable["id"].as_str().unwrap().to_owned();
    installation.put(&format!("variables/{id}"), &json!({"value": "two"})).await.expect(200);
    assert_eq!(installation.release(&application, "v2", Mode::Ok).await["status"], "succeeded");
    (installation, application, id)
}

async fn environment(installation: &Installation, application: &Application) -> Vec<String> {
    let found = installation.docker.inspect_container(&application.container, None).await.unwrap();
    found.config.unwrap().env.unwrap()
}

async fn releases(installation: &Installation, application: &Application) -> Vec<Value> {
    let list = installation.get(&format!("applications/{}/releases", application.id)).await.expect(200);
    list["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_rollback_restores_image_and_configuration_without_a_registry() {
    let (installation, application, _) = two_releases().await;
    let before = releases(&installation, &application).await;
    let versions: Vec<_> = before.iter().map(|release| release["version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["v2", "v1"]);
    assert_eq!((&before[0]["hosts"], &before[1]["hosts"]), (&json!(["local"]), &json!([])));
    installation.registry.stop();

    let ended = installation.operate(&application, "rollback", &json!({})).await;
    assert_eq!((&ended["status"], &ended["version"]), (&json!("succeeded"), &json!("v1")), "{ended}");
    assert_eq!(ended["trigger"]["type"], "rollback");
    assert_eq!(ended["returnsTo"], before[1]["deploymentId"]);
    assert_eq!(ended["digest"], before[1]["digest"]);
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert!(environment(&installation, &application).await.contains(&"GREETING=one".to_owned()));

    // Once more is the way forward again; a chosen release is found too.
    let ended = installation.operate(&application, "rollback", &json!({})).await;
    assert_eq!(ended["version"], "v2", "{ended}");
    assert!(environment(&installation, &application).await.contains(&"GREETING=two".to_owned()));
    let chosen = json!({"deploymentId": before[1]["deploymentId"]});
    let ended = installation.operate(&application, "rollback", &chosen).await;
    assert_eq!((&ended["status"], &ended["version"]), (&json!("succeeded"), &json!("v1")), "{ended}");
    assert_eq!(releases(&installation, &application).await.len(), 5);
}

#[tokio::test]
async fn a_rollback_takes_secrets_as_released_or_as_they_are_now() {
    let (installation, application, variable) = two_releases().await;
    let secret = json!({"scope": "application", "applicationId": application.id, "key": "PASSWORD", "value": "first",
        "isSecret": true});
    let secret = installation.post("variables", &secret).await.expect(201)["id"].as_str().unwrap().to_owned();
    for (version, value) in [("v3", "second"), ("v4", "third")] {
        assert_eq!(installation.release(&application, version, Mode::Ok).await["status"], "succeeded");
        installation.put(&format!("variables/{secret}"), &json!({"value": value})).await.expect(200);
    }
    installation.put(&format!("variables/{variable}"), &json!({"value": "three"})).await.expect(200);
    let has = async |expect: [&str; 2]| {
        let environment = environment(&installation, &application).await;
        assert!(expect.iter().all(|pair| environment.contains(&(*pair).to_owned())), "{environment:?}");
    };
    assert_eq!(installation.operate(&application, "rollback", &json!({})).await["version"], "v3");
    has(["PASSWORD=first", "GREETING=two"]).await;
    let ended = installation.operate(&application, "rollback", &json!({"secrets": "current"})).await;
    assert_eq!(ended["version"], "v4", "{ended}");
    has(["PASSWORD=third", "GREETING=two"]).await;
}

#[tokio::test]
async fn there_is_nothing_to_return_to_before_the_second_release() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let path = format!("applications/{}/rollback", application.id);
    assert_eq!(installation.post(&path, &json!({})).await.status, 409);
    assert_eq!(installation.release(&application, "v1", Mode::Ok).await["status"], "succeeded");
    assert_eq!(
        installation.post(&path, &json!({})).await.expect(409)["type"],
        "https://tidegate.dev/problems/no-release"
    );
    let unknown = json!({"deploymentId": "0193f0a0-0000-7000-8000-000000000000", "secrets": "old"});
    let refused = installation.post(&path, &unknown).await;
    assert_eq!(refused.faults(), [("secrets".to_owned(), "unknown-value".to_owned())]);
    let refused = installation.post(&path, &json!({"deploymentId": unknown["deploymentId"]})).await;
    assert_eq!(refused.faults(), [("deploymentId".to_owned(), "unknown-release".to_owned())]);
}

#[tokio::test]
async fn a_version_that_fails_while_it_is_watched_gives_way_to_the_former_one() {
    let installation = Installation::start().await;
    let application = installation.register(json!({"rollout": {"bakeSeconds": 4}})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let steps: Vec<_> = ended["targets"][0]["steps"].as_array().unwrap().iter().map(|s| s["step"].clone()).collect();
    assert_eq!(steps.last(), Some(&json!("bake")), "{ended}");
    // Healthy at first, and gone after two seconds.
    let ended = installation.release(&application, "v2", Mode::CrashLater).await;
    assert_eq!((&ended["status"], &ended["running"]), (&json!("rolled_back"), &json!("previous")), "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert_eq!(installation.containers().await, std::slice::from_ref(&application.container));
    assert_eq!(releases(&installation, &application).await.len(), 1);
}

/// Staging with a password of its own and Production with another, the first of them active; and v1 and v2, which were
/// released there for a user that each request named.
async fn released_in_staging() -> (Installation, Application, [String; 2], Vec<Value>) {
    let installation = Installation::start().await;
    let parameters = json!([{"name": "USER_NAME", "type": "string", "default": "nobody"}]);
    let application = installation.register(json!({"parameters": parameters})).await;
    let project = installation.get(&format!("applications/{}", application.id)).await.expect(200)["projectId"].clone();
    let mut ids = Vec::new();
    for (name, requires_approval) in [("staging", false), ("production", true)] {
        let variables =
            json!({"DB_HOST": format!("{name}-db"), "DB_URL": "db://{{USER_NAME}}:{{PASSWORD}}@{{env.DB_HOST}}"});
        let body =
            json!({"projectId": project, "name": name, "variables": variables, "requiresApproval": requires_approval});
        let id = installation.post("environments", &body).await.expect(201)["envId"].as_str().unwrap().to_owned();
        let password = json!({"value": format!("{name}-one"), "isSecret": true});
        installation.put(&format!("environments/{id}/variables/PASSWORD"), &password).await.expect(200);
        ids.push(id);
    }
    installation.post(&format!("environments/{}/activate", ids[0]), &json!({})).await.expect(200);
    let mut released = Vec::new();
    for (version, user) in [("v1", "olga"), ("v2", "otto")] {
        installation.push(&application, version, Mode::Ok).await;
        let fields = json!({"version": version, "variables": {"USER_NAME": user}});
        let id = installation.deploy_with(&application, &fields, &[]).await.expect(202)["deploymentId"].clone();
        assert_eq!(installation.ended(&application, id.as_str().unwrap()).await["status"], "succeeded");
        released.push(id);
    }
    let ids = ids.try_into().unwrap();
    (installation, application, ids, released)
}

#[tokio::test]
async fn a_rollback_with_secrets_of_now_takes_them_from_the_environment_of_its_release() {
    let (installation, application, [staging, production], released) = released_in_staging().await;
    let password = format!("environments/{staging}/variables/PASSWORD");
    installation.put(&password, &json!({"value": "staging-two"})).await.expect(200);
    installation.post(&format!("environments/{production}/activate"), &json!({})).await.expect(200);

    let order = json!({"deploymentId": released[0], "secrets": "current"});
    let ended = installation.operate(&application, "rollback", &order).await;
    assert_eq!((&ended["status"], &ended["environment"]["name"]), (&json!("succeeded"), &json!("staging")), "{ended}");
    let runs = environment(&installation, &application).await;
    for pair in
        ["USER_NAME=olga", "DB_HOST=staging-db", "PASSWORD=staging-two", "DB_URL=db://olga:staging-two@staging-db"]
    {
        assert!(runs.contains(&pair.to_owned()), "{pair}: {runs:?}");
    }
    assert!(!runs.iter().any(|pair| pair.contains("production")), "{runs:?}");
}

#[tokio::test]
async fn a_rollback_with_secrets_of_now_passes_by_no_decision() {
    let (installation, application, [staging, production], released) = released_in_staging().await;
    let path = format!("applications/{}/rollback", application.id);
    let with_current = json!({"deploymentId": released[0], "secrets": "current"});
    let refused = async |slug: &str| {
        let refused = installation.post(&path, &with_current).await.expect(409);
        assert!(refused["type"].as_str().unwrap().ends_with(slug), "{refused}");
    };
    let as_released = async || {
        let ended = installation.operate(&application, "rollback", &json!({"deploymentId": released[0]})).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
    };
    installation.put(&format!("environments/{staging}"), &json!({"requiresApproval": true})).await.expect(200);
    refused("/approval-required").await;
    as_released().await;
    installation.put(&format!("environments/{staging}"), &json!({"requiresApproval": false})).await.expect(200);
    let always = |required: bool| json!({"approval": {"required": required, "requireOtherApprover": false}});
    installation.put(&format!("applications/{}", application.id), &always(true)).await.expect(200);
    refused("/approval-required").await;
    installation.put(&format!("applications/{}", application.id), &always(false)).await.expect(200);

    installation.post(&format!("environments/{production}/activate"), &json!({})).await.expect(200);
    let deleted = format!("/api/v2/environments/{staging}");
    let token = Some(installation.admin_token.as_str());
    assert_eq!(installation.call(reqwest::Method::DELETE, &deleted, token, &[], None).await.status, 204);
    refused("/environment-gone").await;
    as_released().await;
    assert!(environment(&installation, &application).await.contains(&"PASSWORD=staging-one".to_owned()));
}
