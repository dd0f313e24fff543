//! What does not work: the old version goes on running, and the record names the thing and the way out.

use std::net::TcpListener;

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_domain::id::DeploymentId;
use tidegate_local::{demo_image::Mode, stack};

use crate::support::{Application, Installation, PrivateRegistry, eventually};

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
    assert_eq!(installation.containers().await, std::slice::from_ref(&application.container));
    ended["targets"][0]["error"].clone()
}

async fn with_v1() -> (Installation, Application) {
    with_v1_of(PrivateRegistry::start()).await
}

async fn with_v1_of(registry: PrivateRegistry) -> (Installation, Application) {
    let mut installation = Installation::start().await;
    installation.registry = registry;
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
async fn a_registry_that_is_away_is_tried_three_times_and_then_told() {
    let (installation, application) = with_v1_of(PrivateRegistry::in_process()).await;
    installation.registry.stop();
    let id = deploying(&installation, &application, "v2").await;
    let third = async || (attempts(&installation, &id).await == Some(3)).then_some(());
    eventually("a third attempt", third).await;
    let ended = installation.ended(&application, &id.to_string()).await;
    assert_eq!(ended["status"], "failed");
    refused(&installation, &application, &ended, "registry-unavailable", &installation.registry.server()).await;
}

#[tokio::test]
async fn a_registry_that_comes_back_in_time_is_no_failure() {
    let (installation, application) = with_v1_of(PrivateRegistry::in_process()).await;
    installation.push(&application, "v2", Mode::Ok).await;
    installation.registry.stop();
    let id = deploying(&installation, &application, "v2").await;
    let first_has_failed = async || (attempts(&installation, &id).await == Some(1)).then_some(());
    eventually("a first attempt", first_has_failed).await;
    installation.registry.resume();
    let ended = installation.ended(&application, &id.to_string()).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
}

async fn deploying(installation: &Installation, application: &Application, version: &str) -> DeploymentId {
    let accepted = installation.deploy(application, version).await.expect(202);
    DeploymentId::parse(accepted["deploymentId"].as_str().unwrap()).unwrap()
}

/// So often was the assignment begun; none once it is folded.
async fn attempts(installation: &Installation, id: &DeploymentId) -> Option<u32> {
    let found = installation.stack.store().assignment(&stack::tenant(), &stack::host(), *id).await.unwrap();
    found.map(|assignment| assignment.attempts)
}

#[tokio::test]
async fn a_port_belongs_to_one_application_of_a_host() {
    let installation = Installation::start().await;
    let first = installation.register(json!({})).await;
    let mut second = installation.get(&format!("applications/{}", first.id)).await.expect(200);
    for field in ["id", "status", "webhook", "revision", "createdAt", "updatedAt"] {
        second.as_object_mut().unwrap().remove(field);
    }
    second["name"] = json!("other");
    let refused = installation.post("applications", &second).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.faults(), [("ports[0].host".to_owned(), "port-taken".to_owned())]);
    assert!(refused.text.contains(second["image"].as_str().unwrap().rsplit('/').next().unwrap()), "{}", refused.text);
    second["ports"][0]["hostIp"] = json!("127.0.0.2");
    installation.post("applications", &second).await.expect(201);
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
