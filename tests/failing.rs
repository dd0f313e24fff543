//! What does not work: the old version goes on running, and the record names the thing and the way out.

use std::net::TcpListener;

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_local::demo_image::Mode;

use crate::support::{Application, Installation};

/// The error, after checking that it says something and that v1 still answers.
async fn refused(
    installation: &Installation,
    application: &Application,
    ended: &Value,
    code: &str,
    names: &str,
) -> Value {
    let error = &ended["error"];
    assert_eq!(error["code"], code, "{ended}");
    assert!(error["message"].as_str().unwrap().contains(names), "{error} does not name {names}");
    assert!(error["suggestion"].as_str().unwrap().len() > 10, "{error}");
    assert_eq!(ended["running"], "previous", "{ended}");
    assert_eq!(installation.visit(application, "/").await.unwrap(), "version v1\n");
    assert_eq!(installation.containers().await, [application.container.clone()]);
    ended["targets"][0]["error"].clone()
}

async fn with_v1() -> (Installation, Application) {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    (installation, application)
}

#[tokio::test]
async fn a_version_that_the_registry_does_not_have_fails_and_changes_nothing() {
    let (installation, application) = with_v1().await;
    let id = installation.deploy(&application, "v404").await.expect(202)["deploymentId"].clone();
    let ended = installation.ended(&application, id.as_str().unwrap()).await;
    assert_eq!(ended["status"], "failed");
    refused(&installation, &application, &ended, "image-not-found", "v404").await;
}

#[tokio::test]
async fn a_container_that_exits_is_told_with_its_exit_code_and_last_words() {
    let (installation, application) = with_v1().await;
    let ended = installation.release(&application, "v2", Mode::Broken).await;
    assert_eq!(ended["status"], "rolled_back");
    let error = refused(&installation, &application, &ended, "exited", "3").await;
    assert_eq!(error["exitCode"], 3);
    assert!(error["logTail"].as_array().unwrap().iter().any(|l| l.as_str().unwrap().contains("fatal")), "{error}");
}

#[tokio::test]
async fn a_container_that_never_gets_healthy_gives_way_to_the_old_one() {
    let (installation, application) = with_v1().await;
    let ended = installation.release(&application, "v2", Mode::Unhealthy).await;
    assert_eq!(ended["status"], "rolled_back");
    refused(&installation, &application, &ended, "unhealthy", "/healthz").await;
    let steps = ended["targets"][0]["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["step"], "restore");
}

#[tokio::test]
async fn a_first_version_that_does_not_work_leaves_nothing_behind() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Broken).await;
    assert_eq!((&ended["status"], &ended["running"]), (&json!("failed"), &json!("none")), "{ended}");
    assert_eq!(installation.containers().await, Vec::<String>::new());
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
}

#[tokio::test]
async fn a_wrong_registry_password_is_told_as_such() {
    let installation = Installation::start().await;
    let application = installation.register_with_password("not the password", json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "failed");
    assert_eq!(ended["error"]["code"], "registry-denied", "{ended}");
    assert!(ended["error"]["message"].as_str().unwrap().contains(&installation.registry.server()));
}

#[tokio::test]
async fn a_port_that_another_process_holds_is_named() {
    let (installation, application) = with_v1().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut registered = installation.get(&format!("applications/{}", application.id)).await.expect(200);
    registered["ports"].as_array_mut().unwrap()[0]["host"] = json!(port);
    installation.put(&format!("applications/{}", application.id), &registered).await.expect(200);
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    refused(&installation, &application, &ended, "port-taken", &port.to_string()).await;
}

#[tokio::test]
async fn a_registry_that_is_away_is_tried_again_and_then_told() {
    let (installation, application) = with_v1().await;
    if std::env::var_os("TIDEGATE_TEST_REGISTRY").is_some() {
        // That registry is others' as well and cannot be taken away.
        return;
    }
    installation.registry.stop();
    let id = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].clone();
    let ended = installation.ended(&application, id.as_str().unwrap()).await;
    assert_eq!(ended["status"], "failed");
    refused(&installation, &application, &ended, "registry-unavailable", &installation.registry.server()).await;
}

#[tokio::test]
async fn no_error_shows_a_secret_that_the_container_logged() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let scope = json!({"scope": "application", "applicationId": application.id});
    for mut variable in [
        json!({"key": "PASSWORD", "value": "marked-password-in-a-log", "isSecret": true}),
        json!({"key": "LEAK", "value": "PASSWORD"}),
    ] {
        variable.as_object_mut().unwrap().extend(scope.as_object().unwrap().clone());
        installation.post("variables", &variable).await.expect(201);
    }
    let ended = installation.release(&application, "v1", Mode::Broken).await;
    let text = ended.to_string();
    assert!(text.contains("***"), "the message was logged: {text}");
    assert!(!text.contains("marked-password-in-a-log"), "{text}");
    let path = format!("/webhook/deployments/{}", ended["deploymentId"].as_str().unwrap());
    let answer = installation.call(Method::GET, &path, None, &[], None).await;
    assert_eq!(answer.status, 401);
}
