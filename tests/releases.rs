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
