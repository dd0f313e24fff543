//! What people do with an application that is deployed: stop, start, restart, remove, delete.

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_domain::permission::Role;
use tidegate_local::demo_image::{self, Mode};

use crate::support::{Answer, Application, Installation};

impl Installation {
    /// `POST /applications/{id}/{verb}`, and how it ended.
    pub(crate) async fn operate(&self, application: &Application, verb: &str, body: &Value) -> Value {
        let asked = self.post(&format!("applications/{}/{verb}", application.id), body).await.expect(202);
        self.ended(application, asked["deploymentId"].as_str().unwrap()).await
    }

    pub(crate) async fn status_of(&self, application: &Application) -> Value {
        self.get(&format!("applications/{}", application.id)).await.expect(200)["status"].clone()
    }
}

async fn with_v1() -> (Installation, Application) {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    (installation, application)
}

async fn container_id(installation: &Installation, application: &Application) -> String {
    let found = installation.docker.inspect_container(&application.container, None).await.unwrap();
    found.id.unwrap()
}

#[tokio::test]
async fn an_application_is_stopped_and_started_again() {
    let (installation, application) = with_v1().await;
    let id = container_id(&installation, &application).await;
    let stopped = installation.operate(&application, "stop", &json!({})).await;
    assert_eq!((&stopped["status"], &stopped["action"]), (&json!("succeeded"), &json!("stop")), "{stopped}");
    assert_eq!((&stopped["trigger"]["type"], &stopped["running"]), (&json!("user"), &json!("none")));
    assert!(installation.visit(&application, "/").await.is_err());
    // It is there, and stays stopped: a second stop finds nothing to do.
    assert_eq!(container_id(&installation, &application).await, id);
    assert_eq!(installation.operate(&application, "stop", &json!({})).await["status"], "succeeded");
    let status = installation.status_of(&application).await;
    assert_eq!((&status["state"], &status["version"]), (&json!("stopped"), &json!("v1")), "{status}");

    let started = installation.operate(&application, "start", &json!({})).await;
    assert_eq!(started["status"], "succeeded", "{started}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert_eq!(container_id(&installation, &application).await, id);
    assert_eq!(installation.status_of(&application).await["state"], "running");

    let restarted = installation.operate(&application, "restart", &json!({})).await;
    assert_eq!(restarted["status"], "succeeded", "{restarted}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert_eq!(container_id(&installation, &application).await, id);
}

#[tokio::test]
async fn a_deployment_to_a_stopped_application_starts_it() {
    let (installation, application) = with_v1().await;
    installation.operate(&application, "stop", &json!({})).await;
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v2\n");

    // One that fails leaves it as it was: stopped.
    installation.operate(&application, "stop", &json!({})).await;
    let ended = installation.release(&application, "v3", Mode::Broken).await;
    assert_eq!(ended["phase"], "failed", "{ended}");
    assert!(installation.visit(&application, "/").await.is_err());
    installation.operate(&application, "start", &json!({})).await;
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v2\n");
}

#[tokio::test]
async fn what_waited_behind_a_deployment_is_done_to_what_it_left() {
    let installation = Installation::start().await;
    let check = |path: &str| {
        json!({"type": "http", "path": path, "port": demo_image::PORT, "intervalMs": 100, "startPeriodMs": 0,
            "retries": 2, "deadlineMs": 3_000})
    };
    let application = installation.register(json!({"healthCheck": check("/healthz")})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    // The bake time keeps the next one active until all that is to wait for it does.
    let changes = json!({"healthCheck": check("/"), "rollout": {"bakeSeconds": 5}});
    installation.put(&format!("applications/{}", application.id), &changes).await.expect(200);
    // Good by its own check, and not by the one before.
    installation.push(&application, "v2", Mode::Unhealthy).await;
    let deployed = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].clone();
    let mut waiting = Vec::new();
    for verb in ["restart", "stop", "start", "remove"] {
        let asked = installation.post(&format!("applications/{}/{verb}", application.id), &json!({})).await.expect(202);
        assert_eq!(asked["status"], "queued", "{asked}");
        waiting.push((verb, asked["deploymentId"].as_str().unwrap().to_owned()));
    }
    let deployed = installation.ended(&application, deployed.as_str().unwrap()).await;
    assert_eq!(deployed["status"], "succeeded", "{deployed}");
    for (verb, id) in waiting {
        let ended = installation.ended(&application, &id).await;
        assert_eq!((&ended["status"], &ended["version"]), (&json!("succeeded"), &json!("v2")), "{verb}: {ended}");
        assert_eq!(ended["digest"], deployed["digest"], "{verb}: {ended}");
    }
    assert_eq!(installation.containers().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_removed_is_gone_and_can_be_deployed_again() {
    let (installation, application) = with_v1().await;
    let refused = installation
        .call(
            Method::DELETE,
            &format!("/api/v2/applications/{}", application.id),
            Some(&installation.admin_token),
            &[],
            None,
        )
        .await;
    assert_eq!(refused.status, 409, "{}", refused.text);
    let removed = installation.operate(&application, "remove", &json!({"hosts": ["local"]})).await;
    assert_eq!(removed["status"], "succeeded", "{removed}");
    assert_eq!(installation.containers().await, Vec::<String>::new());
    assert_eq!(removed["running"], "none");
    let status = installation.status_of(&application).await;
    assert_eq!((&status["state"], &status["hosts"]), (&json!("removed"), &json!([])), "{status}");
    for verb in ["stop", "start", "restart", "remove"] {
        let refused = installation.post(&format!("applications/{}/{verb}", application.id), &json!({})).await;
        assert_eq!(refused.expect(409)["type"], "https://tidegate.dev/problems/no-release", "{verb}");
    }
    // The image has to be fetched once more, or is still there.
    let id = installation.deploy(&application, "v1").await.expect(202)["deploymentId"].clone();
    assert_eq!(installation.ended(&application, id.as_str().unwrap()).await["status"], "succeeded");
}

#[tokio::test]
async fn deleting_with_remove_leaves_nothing_behind() {
    let (installation, application) = with_v1().await;
    let delete = async |query: &str| -> Answer {
        let path = format!("/api/v2/applications/{}{query}", application.id);
        installation.call(Method::DELETE, &path, Some(&installation.admin_token), &[], None).await
    };
    assert_eq!(delete("?remove=yes").await.status, 422);
    assert_eq!(delete("?remove=true").await.status, 204);
    assert_eq!(installation.containers().await, Vec::<String>::new());
    assert_eq!(delete("?remove=true").await.status, 404);
}

#[tokio::test]
async fn an_operation_is_asked_for_once_and_by_those_who_may() {
    let (installation, application) = with_v1().await;
    let path = format!("/api/v2/applications/{}/restart", application.id);
    let ask = async |bearer: Option<&str>, body: Value| {
        installation.call(Method::POST, &path, bearer, &[("idempotency-key", "once")], Some(&body)).await
    };
    let token = installation.admin_token.clone();
    let first = ask(Some(&token), json!({})).await.expect(202);
    let again = ask(Some(&token), json!({})).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.expect(202)["deploymentId"], first["deploymentId"]);
    assert_eq!(ask(None, json!({})).await.status, 401);
    assert_eq!(ask(Some(&application.token), json!({})).await.status, 401);
    let wrong = installation
        .post(
            &format!("applications/{}/restart", application.id),
            &json!({"hosts": ["local", "local", "web-9"], "when": 1}),
        )
        .await;
    assert_eq!(wrong.status, 422, "{}", wrong.text);
    installation.ended(&application, first["deploymentId"].as_str().unwrap()).await;
    let list =
        installation.get(&format!("deployments?applicationId={}&trigger=user", application.id)).await.expect(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["data"][0]["trigger"]["actor"], "admin");
}

#[tokio::test]
async fn a_container_that_somebody_removed_cannot_be_started() {
    let (installation, application) = with_v1().await;
    let options = bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true).build();
    installation.docker.remove_container(&application.container, Some(options)).await.unwrap();
    let ended = installation.operate(&application, "start", &json!({})).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("no-container")), "{ended}");
    // A deployment of the same version brings it back.
    let id = installation.deploy(&application, "v1").await.expect(202)["deploymentId"].clone();
    assert_eq!(installation.ended(&application, id.as_str().unwrap()).await["status"], "succeeded");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
}

#[tokio::test]
async fn only_rollbacks_owners_and_administrators_take_the_places_that_are_kept_free() {
    let installation = Installation::start().await;
    let application = installation.register(json!({"owner": "olga"})).await;
    for version in ["v1", "v2"] {
        assert_eq!(installation.release(&application, version, Mode::Ok).await["status"], "succeeded");
    }
    let (olga, otto) =
        (installation.person("olga", Role::Operator).await, installation.person("otto", Role::Operator).await);
    // One place is taken by what waits for a host that says nothing, the other is kept free.
    installation.put("hosts/elsewhere", &json!({})).await;
    let waiting = json!({"hosts": {"names": ["elsewhere"]}, "ports": [], "healthCheck": null});
    let waiting = installation.register(waiting).await;
    installation.put("settings", &json!({"queue": {"capacity": 2, "reserved": 1}})).await.expect(200);
    installation.deploy(&waiting, "v1").await.expect(202);
    let ask = async |token: &str, verb: &str| {
        let path = format!("/api/v2/applications/{}/{verb}", application.id);
        installation.call(Method::POST, &path, Some(token), &[], Some(&json!({}))).await
    };
    for verb in ["stop", "start", "restart"] {
        let full = ask(&otto, verb).await.expect(503);
        assert!(full["type"].as_str().unwrap().ends_with("/queue-full"), "{full}");
    }
    for (token, verb) in [(&otto, "rollback"), (&olga, "restart"), (&installation.admin_token, "stop")] {
        let asked = ask(token, verb).await.expect(202);
        let ended = installation.ended(&application, asked["deploymentId"].as_str().unwrap()).await;
        assert_eq!(ended["status"], "succeeded", "{verb}: {ended}");
    }
}
