//! What a work order leaves on Docker beside the new version: what was kept for a bake time, what was adopted, and whether
//! Docker starts it with itself.

use bollard::{
    models::{
        ContainerCreateBody, ContainerInspectResponse, HostConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder},
};
use serde_json::{Value, json};
use tidegate_domain::assignment::MAX_ATTEMPTS;
use tidegate_local::{
    demo_image::{self, Mode},
    stack,
};

use crate::support::{Application, Installation, Setup, eventually, own_worker::OwnWorker};

pub(crate) async fn inspect(installation: &Installation, name: &str) -> ContainerInspectResponse {
    installation.docker.inspect_container(name, None).await.unwrap()
}

async fn policy(installation: &Installation, name: &str) -> RestartPolicyNameEnum {
    let host = inspect(installation, name).await.host_config.unwrap();
    host.restart_policy.unwrap().name.unwrap()
}

async fn runs(installation: &Installation, name: &str) -> Option<bool> {
    let found = installation.docker.inspect_container(name, None).await.ok()?;
    found.state?.running
}

/// What a person has started by hand under the application's name, from `image`; its id.
pub(crate) async fn by_hand(installation: &Installation, application: &Application, image: &str) -> String {
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(application.port.to_string()) };
    let port = format!("{}/tcp", demo_image::PORT);
    let always = RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None };
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        exposed_ports: Some(vec![port.clone()]),
        // For the cleaning up after the test alone: it says of no host whose it would be.
        labels: Some([("tidegate.application".to_owned(), String::new())].into()),
        host_config: Some(HostConfig {
            port_bindings: Some([(port, Some(vec![binding]))].into()),
            restart_policy: Some(always),
            init: Some(true),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(&application.container).build();
    let id = installation.docker.create_container(Some(options), body).await.unwrap().id;
    installation.docker.start_container(&id, None).await.unwrap();
    eventually("what was started by hand answers", async || {
        installation.visit(application, "/").await.ok().filter(|text| text.starts_with("version "))
    })
    .await;
    id
}

#[tokio::test]
async fn what_was_started_by_hand_is_adopted_where_that_is_wanted_and_back_where_it_fails() {
    let installation = Installation::start().await;
    let other = installation.register(json!({})).await;
    assert_eq!(installation.release(&other, "v1", Mode::Ok).await["status"], "succeeded");
    let image = inspect(&installation, &other.container).await.image.unwrap();

    let strict = installation.register(json!({})).await;
    let id = by_hand(&installation, &strict, &image).await;
    let refused = installation.release(&strict, "v2", Mode::Ok).await;
    assert_eq!(refused["error"]["code"], "name-taken", "{refused}");
    assert_eq!(inspect(&installation, &strict.container).await.id, Some(id));

    let application = installation.register(json!({"adopt": true})).await;
    let id = by_hand(&installation, &application, &image).await;
    let failed = installation.release(&application, "v2", Mode::Broken).await;
    assert_eq!((&failed["error"]["code"], &failed["running"]), (&json!("exited"), &json!("previous")), "{failed}");
    assert_eq!(inspect(&installation, &application.container).await.id, Some(id), "the same is back");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert_eq!(policy(&installation, &application.container).await, RestartPolicyNameEnum::ALWAYS);

    let ended = installation.release(&application, "v3", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v3\n");
    let mut names = installation.containers().await;
    names.sort();
    let mut expected = [other.container, strict.container, application.container];
    expected.sort();
    assert_eq!(names, expected, "what was adopted is replaced");
}

#[tokio::test]
async fn what_is_stopped_on_purpose_is_not_started_with_docker() {
    let installation = Installation::start().await;
    let application = installation.register(json!({"container": {"restartPolicy": "always"}})).await;
    let name = application.container.clone();
    assert_eq!(installation.release(&application, "v1", Mode::Ok).await["status"], "succeeded");
    assert_eq!(policy(&installation, &name).await, RestartPolicyNameEnum::ALWAYS);
    assert_eq!(installation.operate(&application, "stop", &json!({})).await["status"], "succeeded");
    assert_eq!(policy(&installation, &name).await, RestartPolicyNameEnum::UNLESS_STOPPED);
    for verb in ["start", "restart"] {
        assert_eq!(installation.operate(&application, verb, &json!({})).await["status"], "succeeded");
        assert_eq!(policy(&installation, &name).await, RestartPolicyNameEnum::ALWAYS, "{verb}");
    }
    let failed = installation.release(&application, "v2", Mode::Broken).await;
    assert_eq!(failed["status"], "rolled_back", "{failed}");
    assert_eq!(policy(&installation, &name).await, RestartPolicyNameEnum::ALWAYS, "back as it was");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
}

#[tokio::test]
async fn a_new_version_that_somebody_removes_in_its_check_is_told_as_removed() {
    let installation = Installation::start().await;
    let check = json!({"type": "http", "path": "/healthz", "port": demo_image::PORT, "intervalMs": 100,
        "startPeriodMs": 30_000, "retries": 2, "deadlineMs": 60_000});
    let application = installation.register(json!({"healthCheck": check})).await;
    assert_eq!(installation.release(&application, "v1", Mode::Ok).await["status"], "succeeded");
    installation.push(&application, "v2", Mode::Unhealthy).await;
    let id = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].clone();
    let next = format!("{}.tidegate-next", application.container);
    eventually("the new version runs", async || runs(&installation, &next).await.filter(|runs| *runs)).await;
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    installation.docker.remove_container(&next, Some(force)).await.unwrap();
    let ended = installation.ended(&application, id.as_str().unwrap()).await;
    let message = ended["error"]["message"].as_str().unwrap();
    assert!(message.contains("removed by somebody else"), "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
}

/// v1 runs; v2 is in its bake time, and its worker was killed.
async fn killed_in_the_bake_time(mode: Mode, seconds: u32) -> (Installation, OwnWorker, Application, String) {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let worker = OwnWorker::of(&installation);
    let process = worker.start();
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
    // Only now: a first version has its bake time, too.
    let rollout = json!({"rollout": {"bakeSeconds": seconds}});
    installation.put(&format!("applications/{}", application.id), &rollout).await.expect(200);
    installation.push(&application, "v2", mode).await;
    let id = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    let previous = format!("{}.tidegate-prev", application.container);
    eventually("the new version has the name, and the former one is kept", async || {
        let both = runs(&installation, &previous).await == Some(false)
            && runs(&installation, &application.container).await == Some(true);
        both.then_some(())
    })
    .await;
    process.kill();
    (installation, worker, application, id)
}

fn steps(ended: &Value) -> Vec<&str> {
    ended["targets"][0]["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_worker_killed_in_a_bake_time_leaves_the_new_version_and_the_next_one_goes_on_with_it() {
    let (installation, worker, application, id) = killed_in_the_bake_time(Mode::Ok, 6).await;
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v2\n");
    let _process = worker.start();
    let ended = installation.ended(&application, &id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
    assert_eq!(steps(&ended).last(), Some(&"bake"), "{ended}");
    assert!(!steps(&ended).contains(&"switch"), "nothing is switched again: {ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v2\n");
    assert_eq!(installation.containers().await, std::slice::from_ref(&application.container));
}

#[tokio::test]
async fn what_fails_in_a_bake_time_that_nobody_watched_goes_back_with_the_next_worker() {
    let (installation, worker, application, id) = killed_in_the_bake_time(Mode::CrashLater, 6).await;
    eventually("the new version has ended", async || {
        let now = inspect(&installation, &application.container).await;
        (now.restart_count.unwrap_or(0) > 0).then_some(())
    })
    .await;
    let _process = worker.start();
    let ended = installation.ended(&application, &id).await;
    assert_eq!(ended["status"], "rolled_back", "{ended}\n{}", worker.log());
    assert!(ended["error"]["message"].as_str().unwrap().contains("in the bake time"), "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert_eq!(installation.containers().await, std::slice::from_ref(&application.container));
}

#[tokio::test]
async fn a_bake_time_is_watched_to_its_end_however_often_its_worker_was_killed() {
    let (installation, worker, application, id) = killed_in_the_bake_time(Mode::Ok, 300).await;
    let side = installation.side_of(&stack::host());
    let attempts = async || side.assignments().await.unwrap()[0].attempts;
    for attempt in 2..=MAX_ATTEMPTS {
        let process = worker.start();
        eventually("another process goes on", async || (attempts().await == attempt).then_some(())).await;
        process.kill();
    }
    assert_eq!(runs(&installation, &application.container).await, Some(true));
    installation.docker.kill_container(&application.container, None).await.unwrap();
    let _process = worker.start();
    let ended = installation.ended(&application, &id).await;
    assert_eq!(ended["status"], "rolled_back", "{ended}\n{}", worker.log());
    assert!(ended["error"]["message"].as_str().unwrap().contains("in the bake time"), "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert_eq!(installation.containers().await, std::slice::from_ref(&application.container));
}
