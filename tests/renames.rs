//! Somebody else renames the application's containers in the middle of an order, or before it.

use bollard::{
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder},
};
use serde_json::{Value, json};
use tidegate_local::demo_image::{self, Mode};

use crate::{
    orders::inspect,
    support::{Application, Installation, eventually},
};

/// v1 runs, and what is deployed next has some seconds until its check fails.
async fn with_v1() -> (Installation, Application) {
    let installation = Installation::start().await;
    let check = json!({"type": "http", "path": "/healthz", "port": demo_image::PORT, "intervalMs": 100,
        "startPeriodMs": 5_000, "retries": 2, "deadlineMs": 60_000});
    let application = installation.register(json!({"healthCheck": check})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    (installation, application)
}

async fn runs(installation: &Installation, name: &str) -> Option<bool> {
    let found = installation.docker.inspect_container(name, None).await.ok()?;
    found.state?.running
}

async fn rename(installation: &Installation, from: &str, to: &str) {
    let options = RenameContainerOptionsBuilder::default().name(to).build();
    installation.docker.rename_container(from, options).await.unwrap();
}

/// Deploys a version that gets never healthy, does something to the containers while it is checked, and tells how it ended.
async fn in_the_check(
    installation: &Installation,
    application: &Application,
    meddle: impl AsyncFnOnce(&str, &str),
) -> Value {
    installation.push(application, "v2", Mode::Unhealthy).await;
    let id = installation.deploy(application, "v2").await.expect(202)["deploymentId"].clone();
    let next = format!("{}.tidegate-next", application.container);
    let previous = format!("{}.tidegate-prev", application.container);
    eventually("the new version runs", async || runs(installation, &next).await.filter(|runs| *runs)).await;
    meddle(&previous, &next).await;
    installation.ended(application, id.as_str().unwrap()).await
}

fn message(ended: &Value) -> &str {
    ended["error"]["message"].as_str().unwrap()
}

/// v1 has its place again, and the next deployment finds nothing in its way.
async fn is_back(installation: &Installation, application: &Application, ended: &Value) {
    assert_eq!((&ended["status"], &ended["running"]), (&json!("rolled_back"), &json!("previous")), "{ended}");
    assert_eq!(ended["error"]["code"], "unhealthy", "{ended}");
    assert_eq!(installation.visit(application, "/").await.unwrap(), "version v1\n");
    let ended = installation.release(application, "v3", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(installation.visit(application, "/").await.unwrap(), "version v3\n");
}

#[tokio::test]
async fn a_new_version_that_is_renamed_in_its_bake_time_gives_its_place_back() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    assert_eq!(installation.release(&application, "v1", Mode::Ok).await["status"], "succeeded");
    let rollout = json!({"rollout": {"bakeSeconds": 5}});
    installation.put(&format!("applications/{}", application.id), &rollout).await.expect(200);
    installation.push(&application, "v2", Mode::Ok).await;
    let id = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].clone();
    let (name, previous) = (&application.container, format!("{}.tidegate-prev", application.container));
    eventually("the new version has the name, and the former one is kept", async || {
        let both = runs(&installation, &previous).await == Some(false) && runs(&installation, name).await == Some(true);
        both.then_some(())
    })
    .await;
    let by_hand = format!("{name}-hand");
    rename(&installation, name, &by_hand).await;
    let ended = installation.ended(&application, id.as_str().unwrap()).await;
    assert_eq!((&ended["status"], &ended["running"]), (&json!("rolled_back"), &json!("previous")), "{ended}");
    assert!(message(&ended).contains(&format!("was renamed to {by_hand}")), "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert_eq!(runs(&installation, &by_hand).await, Some(false), "it is theirs to look at, and holds no port");
}

#[tokio::test]
async fn a_name_that_somebody_gives_in_the_check_is_no_commit() {
    let (installation, application) = with_v1().await;
    let ended = in_the_check(&installation, &application, async |_, next| {
        rename(&installation, next, &application.container).await;
    })
    .await;
    is_back(&installation, &application, &ended).await;
    assert_eq!(installation.containers().await, std::slice::from_ref(&application.container));
}

#[tokio::test]
async fn what_fails_its_check_is_stopped_under_whatever_name() {
    let (installation, application) = with_v1().await;
    let by_hand = format!("{}-n", application.container);
    let ended = in_the_check(&installation, &application, async |_, next| {
        rename(&installation, next, &by_hand).await;
    })
    .await;
    is_back(&installation, &application, &ended).await;
    assert_eq!(runs(&installation, &by_hand).await, Some(false));
}

#[tokio::test]
async fn an_old_version_that_got_its_name_back_in_the_check_runs_again() {
    let (installation, application) = with_v1().await;
    let ended = in_the_check(&installation, &application, async |previous, _| {
        rename(&installation, previous, &application.container).await;
    })
    .await;
    is_back(&installation, &application, &ended).await;
}

#[tokio::test]
async fn an_old_version_that_was_renamed_in_the_check_is_found_again() {
    let (installation, application) = with_v1().await;
    let by_hand = format!("{}-mine", application.container);
    let ended = in_the_check(&installation, &application, async |previous, _| {
        rename(&installation, previous, &by_hand).await;
    })
    .await;
    is_back(&installation, &application, &ended).await;
    assert_eq!(runs(&installation, &by_hand).await, None);
}

#[tokio::test]
async fn an_old_version_that_cannot_have_its_name_back_runs_without_it_and_is_not_restarted() {
    let (installation, application) = with_v1().await;
    let name = application.container.clone();
    let image = inspect(&installation, &name).await.image;
    let ended = in_the_check(&installation, &application, async |_, _| {
        // For the cleaning up after the test alone.
        let labels = Some([("tidegate.application".to_owned(), String::new())].into());
        let body = ContainerCreateBody { image, labels, ..ContainerCreateBody::default() };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        installation.docker.create_container(Some(options), body).await.unwrap();
    })
    .await;
    assert_eq!((&ended["error"]["code"], &ended["running"]), (&json!("restore-failed"), &json!("previous")), "{ended}");
    let first = message(&ended).split(". ").next().unwrap();
    assert!(first.contains("runs again") && first.contains(&format!("a container named {name} exists")), "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    let previous = format!("{name}.tidegate-prev");
    let started = async || inspect(&installation, &previous).await.state.unwrap().started_at;
    let since = started().await;
    for verb in ["stop", "restart"] {
        let refused = installation.operate(&application, verb, &json!({})).await;
        assert_eq!(
            (&refused["error"]["code"], &refused["running"]),
            (&json!("name-taken"), &json!("previous")),
            "{refused}"
        );
    }
    assert_eq!(started().await, since, "what serves is not restarted for a name");
    let status = eventually("the host shows what is there", async || {
        let status = installation.status_of(&application).await;
        (status["hosts"][0]["drift"] == "aside").then_some(status)
    })
    .await;
    assert_eq!((&status["state"], &status["hosts"][0]["state"]), (&json!("running"), &json!("running")), "{status}");

    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    installation.docker.remove_container(&name, Some(force)).await.unwrap();
    assert_eq!(installation.operate(&application, "start", &json!({})).await["status"], "succeeded");
    assert_eq!(runs(&installation, &name).await, Some(true));
    assert_eq!(installation.containers().await, [name]);
}

#[tokio::test]
async fn what_runs_under_another_name_is_named_left_serving_by_a_deployment_and_stopped_by_a_stop() {
    let (installation, application) = with_v1().await;
    let (name, by_hand) = (&application.container, format!("{}-old", application.container));
    rename(&installation, name, &by_hand).await;

    let refused = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!(
        (&refused["error"]["code"], &refused["running"]),
        (&json!("port-taken"), &json!("previous")),
        "{refused}"
    );
    assert!(message(&refused).contains(&by_hand) && message(&refused).contains("was renamed"), "{refused}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    let refused = installation.operate(&application, "restart", &json!({})).await;
    assert_eq!(refused["error"]["code"], "no-container", "{refused}");
    assert!(message(&refused).contains(&format!("renamed it to {by_hand}")), "{refused}");

    let stopped = installation.operate(&application, "stop", &json!({})).await;
    assert_eq!((&stopped["status"], &stopped["running"]), (&json!("succeeded"), &json!("none")), "{stopped}");
    assert_eq!(runs(&installation, &by_hand).await, Some(false));
    assert!(installation.visit(&application, "/").await.is_err());
    rename(&installation, &by_hand, name).await;
    assert_eq!(installation.operate(&application, "start", &json!({})).await["status"], "succeeded");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
}

#[tokio::test]
async fn an_application_whose_container_is_renamed_and_ended_is_told_as_down() {
    let (installation, application) = with_v1().await;
    let other = installation.register(json!({})).await;
    let by_hand = format!("{}-mine", application.container);
    rename(&installation, &application.container, &by_hand).await;
    installation.docker.stop_container(&by_hand, None).await.unwrap();
    // After each job the host tells what it sees.
    assert_eq!(installation.release(&other, "v1", Mode::Ok).await["status"], "succeeded");
    let status = eventually("the host shows the renamed one", async || {
        let status = installation.status_of(&application).await;
        (status["hosts"][0]["drift"] == "renamed").then_some(status)
    })
    .await;
    assert_eq!((&status["state"], &status["hosts"][0]["state"]), (&json!("down"), &json!("stopped")), "{status}");
}
