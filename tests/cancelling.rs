//! Deployments that are called off, or that lose their place to a later one.

use serde_json::{Value, json};
use tidegate_aws::clock;
use tidegate_domain::{
    assignment::{LEASE, Progress},
    id::{DeploymentId, Epoch},
};
use tidegate_local::{demo_image::Mode, stack};

use crate::{
    crash::gate::Gate,
    support::{Application, Installation, Setup, eventually},
};

async fn asked(installation: &Installation, application: &Application, version: &str) -> String {
    let accepted = installation.deploy(application, version).await.expect(202);
    accepted["deploymentId"].as_str().unwrap().to_owned()
}

async fn shown(installation: &Installation, id: &str) -> Value {
    installation.get(&format!("deployments/{id}")).await.expect(200)
}

fn idle() -> Setup<'static> {
    Setup { no_worker: true, no_sweeps: true, ..Setup::default() }
}

#[tokio::test]
async fn what_nobody_has_begun_is_called_off_at_once_and_the_next_has_its_turn() {
    let installation = Installation::start_with(idle()).await;
    let application = installation.register(json!({})).await;
    let side = installation.side_of(&stack::host());
    let open = async || -> Vec<String> {
        side.assignments().await.unwrap().iter().map(|assignment| assignment.deployment_id.to_string()).collect()
    };
    let [first, second, third] = [
        asked(&installation, &application, "v1").await,
        asked(&installation, &application, "v2").await,
        asked(&installation, &application, "v3").await,
    ];
    let cancelled = installation.post(&format!("deployments/{second}/cancel"), &json!({})).await.expect(202);
    assert_eq!((&cancelled["status"], &cancelled["phase"]), (&json!("cancelled"), &json!("failed")), "{cancelled}");
    assert_eq!(cancelled["cancelRequested"]["by"], "admin");
    assert_eq!(open().await, std::slice::from_ref(&first));
    installation.post(&format!("deployments/{first}/cancel"), &json!({})).await.expect(202);
    assert_eq!(open().await, std::slice::from_ref(&third));
    let again = installation.post(&format!("deployments/{first}/cancel"), &json!({})).await;
    assert_eq!(again.expect(409)["type"], "https://tidegate.dev/problems/too-late");
    installation.post(&format!("deployments/{third}/cancel"), &json!({})).await.expect(202);
    assert_eq!(open().await, Vec::<String>::new());
    let nobody = "0193f0a0-0000-7000-8000-000000000000";
    assert_eq!(installation.post(&format!("deployments/{nobody}/cancel"), &json!({})).await.status, 404);
}

#[tokio::test]
async fn what_a_new_process_begins_again_can_be_called_off_until_its_switch() {
    let installation = Installation::start_with(idle()).await;
    let application = installation.register(json!({})).await;
    let id = asked(&installation, &application, "v1").await;
    let deployment = DeploymentId::parse(&id).unwrap();
    let side = installation.side_of(&stack::host());
    let claim = async |epoch, committed| {
        let seen = side.assignments().await.unwrap().remove(0);
        side.claim(&seen, Epoch(epoch), &Progress::default(), committed, clock::now()).await.unwrap().unwrap();
    };
    let cancelled = async || installation.post(&format!("deployments/{id}/cancel"), &json!({})).await.status;
    claim(2, false).await;
    let until = clock::now() + LEASE;
    side.prove(deployment, Epoch(2), until, &Progress::default()).await.unwrap().unwrap();
    assert_eq!(cancelled().await, 409);
    // The next process finds that it was switched, or that it was not.
    claim(3, true).await;
    assert_eq!(cancelled().await, 409);
    claim(4, false).await;
    assert_eq!(cancelled().await, 202);
}

#[tokio::test]
async fn a_host_that_waits_for_its_registry_gives_up_when_it_is_called_off() {
    let installation = Installation::start().await;
    let gate = Gate::before(installation.registry.addr()).await;
    let (application, id) = hanging(&installation, &gate).await;
    installation.post(&format!("deployments/{id}/cancel"), &json!({})).await.expect(202);
    let ended = installation.ended(&application, &id).await;
    assert_eq!((&ended["status"], &ended["running"]), (&json!("cancelled"), &json!("previous")), "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert_eq!(installation.containers().await, std::slice::from_ref(&application.container));
    gate.open();
    let third = asked(&installation, &application, "v3").await;
    assert_eq!(installation.ended(&application, &third).await["status"], "succeeded");
}

#[tokio::test]
async fn a_registry_that_hangs_keeps_no_other_application_waiting() {
    let installation = Installation::start().await;
    let other = installation.register(json!({})).await;
    for version in ["v1", "v2"] {
        assert_eq!(installation.release(&other, version, Mode::Ok).await["status"], "succeeded");
    }
    let gate = Gate::before(installation.registry.addr()).await;
    let (first, id) = hanging(&installation, &gate).await;
    let registered = installation.get(&format!("applications/{}", first.id)).await.expect(200);
    let image = json!({"image": registered["image"], "registryId": registered["registryId"]});
    let mut all = vec![(first, id)];
    // One more than the host works on at once.
    for _ in 0..4 {
        let next = installation.register(image.clone()).await;
        let id = asked(&installation, &next, "v2").await;
        let pulls = async || (shown(&installation, &id).await["targets"][0]["step"] == "pull").then_some(());
        eventually("the host waits for its registry", pulls).await;
        all.push((next, id));
    }
    // Its image is on the host.
    let back = installation.operate(&other, "rollback", &json!({})).await;
    assert_eq!(back["status"], "succeeded", "{back}");
    assert_eq!(installation.visit(&other, "/").await.unwrap(), "version v1\n");
    assert_eq!(installation.operate(&other, "stop", &json!({})).await["status"], "succeeded");
    for (_, id) in &all {
        assert_eq!(shown(&installation, id).await["targets"][0]["step"], "pull", "it still waits");
        installation.post(&format!("deployments/{id}/cancel"), &json!({})).await.expect(202);
    }
    for (application, id) in &all {
        assert_eq!(installation.ended(application, id).await["status"], "cancelled");
    }
    gate.open();
}

/// v1 runs; v2 has been begun, and its registry does not answer. The others are there to be deployed.
async fn hanging(installation: &Installation, gate: &Gate) -> (Application, String) {
    let registry = json!({"name": "gated", "server": gate.server(), "authType": "username-password",
        "username": installation.registry.user(), "password": installation.registry.password()});
    let registry = installation.post("registries", &registry).await.expect(201)["id"].clone();
    let image = format!("{}/demo/gated", gate.server());
    let changes = json!({"image": image, "registryId": registry, "rollout": {"concurrency": "latest"}});
    let application = installation.register(changes).await;
    // Pushed past the gate, under the name that the registry knows it by.
    let pushed = Application { image: format!("{}/demo/gated", installation.registry.server()), ..application };
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        installation.push(&pushed, version, Mode::Ok).await;
    }
    let application = Application { image, ..pushed };
    let first = asked(installation, &application, "v1").await;
    let ended = installation.ended(&application, &first).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    gate.close();
    let id = asked(installation, &application, "v2").await;
    let begun = async || (shown(installation, &id).await["targets"][0]["step"] == "pull").then_some(());
    eventually("the host pulls", begun).await;
    (application, id)
}

#[tokio::test]
async fn only_the_latest_of_those_that_wait_has_a_turn() {
    let installation = Installation::start().await;
    let gate = Gate::before(installation.registry.addr()).await;
    let (application, second) = hanging(&installation, &gate).await;
    let third = asked(&installation, &application, "v3").await;
    let fourth = asked(&installation, &application, "v4").await;
    let fifth = asked(&installation, &application, "v5").await;
    for (id, by) in [(&third, &fourth), (&fourth, &fifth)] {
        let superseded = shown(&installation, id).await;
        assert_eq!(
            (&superseded["status"], &superseded["supersededBy"]),
            (&json!("superseded"), &json!(by)),
            "{superseded}"
        );
    }
    gate.open();
    assert_eq!(installation.ended(&application, &second).await["status"], "succeeded");
    assert_eq!(installation.ended(&application, &fifth).await["status"], "succeeded");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v5\n");
    // The places in the queue are free again.
    assert!(
        installation.stack.store().deployment(&stack::tenant(), DeploymentId::parse(&third).unwrap()).await.is_ok()
    );
}

#[tokio::test]
async fn a_rollback_goes_before_what_waits() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    for version in ["v1", "v2"] {
        assert_eq!(installation.release(&application, version, Mode::Ok).await["status"], "succeeded");
    }
    installation.push(&application, "v3", Mode::SlowStop).await;
    installation.push(&application, "v4", Mode::Ok).await;
    let third = asked(&installation, &application, "v3").await;
    let fourth = asked(&installation, &application, "v4").await;
    let path = format!("applications/{}/rollback", application.id);
    let back = installation.post(&path, &json!({})).await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    assert_eq!(installation.ended(&application, &back).await["status"], "succeeded");
    let fourth = shown(&installation, &fourth).await;
    assert_eq!((&fourth["status"], &fourth["supersededBy"]), (&json!("superseded"), &json!(back)), "{fourth}");
    // Decided while v3 was on its way: what was released last then, and the one before it, were v2 and v1.
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    assert_eq!(installation.ended(&application, &third).await["status"], "succeeded");
}
