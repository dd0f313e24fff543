//! What dies in the middle: the worker, the whole system, or the services that both stand on.

pub(crate) mod gate;
mod outages;
mod system;

use std::time::{Duration, Instant};

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::future::join_all;
use gate::Gate;
use reqwest::Method;
use serde_json::{Value, json};
use system::System;
use tidegate_aws::random;
use tidegate_local::demo_image::Mode;

use crate::support::{Application, Installation, Setup, binaries::Process, eventually, own_worker::OwnWorker};

/// After a restart the application answers within this time.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// A visitor waits so long. The first packets to a network interface that was just made may be lost.
const VISIT: Duration = Duration::from_millis(200);
/// A moment of a deployment, which takes a second or two, is seen within this time or missed.
const SEEN_WITHIN: Duration = Duration::from_mins(1);
/// Of an old version that ignores SIGTERM.
const GRACE_SECONDS: u64 = 3;

/// The test's containers by name.
type Seen = Vec<Shown>;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    /// Without the test's prefix.
    name: String,
    state: String,
    /// That made it.
    deployment: String,
    id: String,
}

async fn docker_shows(installation: &Installation) -> Seen {
    let options = ListContainersOptionsBuilder::default().all(true).build();
    // An engine that is just removing a container may answer with an error.
    let list = async || installation.docker.list_containers(Some(options.clone())).await.ok();
    let listed = eventually("the engine's containers", list).await;
    let mut seen: Seen = listed
        .into_iter()
        .filter_map(|container| {
            let names = container.names.unwrap_or_default();
            let name = names.first()?.trim_start_matches('/').strip_prefix(&installation.prefix)?.to_owned();
            let state = container.state.map(|state| state.to_string()).unwrap_or_default();
            let deployment = container.labels.unwrap_or_default().remove("tidegate.deployment").unwrap_or_default();
            Some(Shown { name, state, deployment, id: container.id.unwrap_or_default() })
        })
        .collect();
    seen.sort();
    seen
}

/// `name state` of all, for a figure.
fn told(seen: &Seen) -> String {
    seen.iter().map(|shown| format!("{} {}", shown.name, shown.state)).collect::<Vec<_>>().join(", ")
}

fn has(seen: &Seen, suffix: &str, wanted: &str) -> bool {
    seen.iter().any(|shown| shown.name.ends_with(suffix) && shown.state == wanted)
}

const NEXT: &str = ".tidegate-next";
const PREVIOUS: &str = ".tidegate-prev";

/// v1 runs, released by a worker of the test's own.
async fn with_v1(changes: Value, v1: Mode) -> (Installation, OwnWorker, Process, Application) {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let worker = OwnWorker::of(&installation);
    let process = worker.start();
    let application = installation.register(changes).await;
    let ended = installation.release(&application, "v1", v1).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
    (installation, worker, process, application)
}

async fn queue(installation: &Installation, application: &Application, version: &str) -> String {
    let accepted = installation.deploy(application, version).await.expect(202);
    accepted["deploymentId"].as_str().unwrap().to_owned()
}

/// Kills the worker, starts it again, and checks all that must hold then: the application answers soon, the deployment
/// ends, one container is left, and it is the one that the record says.
async fn killed_and_started(
    moment: &str,
    installation: &Installation,
    worker: &OwnWorker,
    process: Process,
    application: &Application,
    deployment: &str,
) -> Value {
    process.kill();
    let left = docker_shows(installation).await;
    let restarted = Instant::now();
    let _process = worker.start();
    let answered = eventually("the application answers again", async || {
        let answer = tokio::time::timeout(VISIT, installation.visit(application, "/")).await;
        answer.ok()?.ok().filter(|text| text.starts_with("version "))
    })
    .await;
    let took = restarted.elapsed();
    let ended = installation.ended(application, deployment).await;
    println!(
        "figure: worker killed {moment} (left: {}): {} answers {} ms after the restart, deployment {}",
        told(&left),
        answered.trim(),
        took.as_millis(),
        ended["status"].as_str().unwrap_or_default()
    );
    assert!(took < BACK_WITHIN, "{moment}: {took:?}\n{}", worker.log());
    check_end(installation, worker, application, &ended).await;
    ended
}

async fn check_end(installation: &Installation, worker: &OwnWorker, application: &Application, ended: &Value) {
    let runs = match ended["status"].as_str() {
        Some("succeeded") => ended["version"].as_str().unwrap().to_owned(),
        Some("rolled_back" | "failed") => "v1".to_owned(),
        _ => panic!("{ended}"),
    };
    // The record may be a moment ahead of the clean-up.
    eventually("one container is left", async || {
        (installation.containers().await == [application.container.clone()]).then_some(())
    })
    .await;
    let answer = installation.visit(application, "/").await;
    assert_eq!(answer.unwrap(), format!("version {runs}\n"), "{ended}\n{}", worker.log());
    check_history(&installation.get(&format!("deployments?applicationId={}", application.id)).await.expect(200));
}

/// Every deployment has ended, in an order without gaps, and each says so once.
fn check_history(listed: &Value) {
    let mut deployments = listed["data"].as_array().unwrap().clone();
    deployments.reverse();
    let sequences: Vec<_> = deployments.iter().map(|d| d["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=deployments.len() as u64).collect::<Vec<_>>(), "{listed}");
    for deployment in &deployments {
        let events: Vec<_> = deployment["timeline"].as_array().unwrap().iter().map(|e| &e["event"]).collect();
        assert_eq!(events.last(), Some(&&deployment["status"]), "{deployment}");
        assert_eq!(events.iter().filter(|event| **event == "queued").count(), 1, "{deployment}");
        assert!(deployment["completedAt"].as_str() >= deployment["startedAt"].as_str(), "{deployment}");
    }
}

#[tokio::test]
async fn a_worker_killed_while_it_pulls_pulls_again() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let gate = Gate::before(installation.registry.addr()).await;
    let registry = json!({"name": "gated", "server": gate.server(), "authType": "username-password",
        "username": installation.registry.user(), "password": installation.registry.password()});
    let registry = installation.post("registries", &registry).await.expect(201)["id"].clone();
    let image = format!("{}/demo/gated", gate.server());
    let application = installation.register(json!({"image": image, "registryId": registry})).await;
    // Pushed past the gate, under the name that the registry knows it by.
    let pushed = Application { image: format!("{}/demo/gated", installation.registry.server()), ..application };
    installation.push(&pushed, "v1", Mode::Ok).await;
    installation.push(&pushed, "v2", Mode::Ok).await;
    let application = Application { image, ..pushed };
    let worker = OwnWorker::of(&installation);
    let process = worker.start();
    let id = queue(&installation, &application, "v1").await;
    assert_eq!(installation.ended(&application, &id).await["status"], "succeeded", "{}", worker.log());

    gate.close();
    let id = queue(&installation, &application, "v2").await;
    eventually("the pull", async || {
        let path = format!("/webhook/deployments/{id}");
        let shown = installation.call(Method::GET, &path, Some(&application.token), &[], None).await.expect(200);
        (shown["targets"][0]["step"] == "pull").then_some(())
    })
    .await;
    process.kill();
    gate.open();
    let stopped = worker.start();
    let ended =
        killed_and_started("just started, and in the pull", &installation, &worker, stopped, &application, &id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
}

/// Kills the worker once Docker shows what is looked for.
async fn killed_when(moment: &str, changes: Value, v1: Mode, look: impl Fn(&Seen, &str) -> bool) {
    let (installation, worker, process, application) = with_v1(changes, v1).await;
    slow_to_health(&installation, &application).await;
    installation.push(&application, "v2", Mode::Ok).await;
    let id = queue(&installation, &application, "v2").await;
    let waiting = async { while !look(&docker_shows(&installation).await, &id) {} };
    tokio::time::timeout(SEEN_WITHIN, waiting).await.unwrap_or_else(|_| panic!("never {moment}"));
    let ended = killed_and_started(moment, &installation, &worker, process, &application, &id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
}

/// So that the check takes a while.
async fn slow_to_health(installation: &Installation, application: &Application) {
    let slow =
        json!({"scope": "application", "applicationId": application.id, "key": "HEALTHY_AFTER_MS", "value": "1500"});
    installation.post("variables", &slow).await.expect(201);
}

fn patient() -> Value {
    json!({"healthCheck": {"type": "http", "path": "/healthz", "port": 8080, "intervalMs": 100, "startPeriodMs": 5_000,
        "retries": 2, "deadlineMs": 10_000}})
}

/// With an old version that takes its whole grace period to stop.
fn patient_and_slow_to_stop() -> Value {
    let mut changes = patient();
    changes["container"] = json!({"stopTimeoutSeconds": GRACE_SECONDS});
    changes
}

#[tokio::test]
async fn a_worker_killed_after_it_created_the_new_container_begins_again() {
    killed_when("when the new container is created", patient(), Mode::Ok, |seen, _| has(seen, NEXT, "created")).await;
}

#[tokio::test]
async fn a_worker_killed_while_the_old_version_stops_finishes() {
    killed_when("while the old version stops", patient_and_slow_to_stop(), Mode::SlowStop, |seen, _| {
        has(seen, PREVIOUS, "running")
    })
    .await;
}

#[tokio::test]
async fn a_worker_killed_when_the_old_version_has_stopped_finishes() {
    killed_when("when the old version has stopped", patient(), Mode::Ok, |seen, _| has(seen, PREVIOUS, "exited")).await;
}

#[tokio::test]
async fn a_worker_killed_in_the_check_finishes() {
    killed_when("in the check", patient(), Mode::Ok, |seen, _| has(seen, NEXT, "running")).await;
}

#[tokio::test]
async fn a_worker_killed_after_the_commit_finishes() {
    killed_when("after the commit", patient(), Mode::Ok, |seen, id| {
        seen.iter().any(|shown| !shown.name.contains(".tidegate-") && shown.deployment == id)
    })
    .await;
}

#[tokio::test]
async fn a_bad_version_is_rolled_back_by_the_next_worker_even_if_the_old_one_was_just_being_stopped() {
    let (installation, worker, process, application) = with_v1(patient_and_slow_to_stop(), Mode::SlowStop).await;
    installation.push(&application, "v2", Mode::Broken).await;
    let id = queue(&installation, &application, "v2").await;
    let waiting = async { while !has(&docker_shows(&installation).await, PREVIOUS, "running") {} };
    tokio::time::timeout(SEEN_WITHIN, waiting).await.expect("the old version is being stopped");
    let moment = "while the old version stops for a broken one";
    let ended = killed_and_started(moment, &installation, &worker, process, &application, &id).await;
    assert_eq!(ended["status"], "rolled_back", "{ended}\n{}", worker.log());
}

/// Docker goes on with a stop whose caller is gone, so the old version ends although it was running when the next worker
/// found it.
#[tokio::test]
async fn an_old_version_that_was_just_being_stopped_runs_on_even_if_nothing_can_be_deployed() {
    let (installation, worker, process, application) = with_v1(patient_and_slow_to_stop(), Mode::SlowStop).await;
    installation.push(&application, "v2", Mode::Ok).await;
    let id = queue(&installation, &application, "v2").await;
    let waiting = async { while !has(&docker_shows(&installation).await, PREVIOUS, "running") {} };
    tokio::time::timeout(SEEN_WITHIN, waiting).await.expect("the old version is being stopped");
    process.kill();
    installation.aws().stop_dynamodb();
    let _process = worker.start();
    let restarted = Instant::now();
    let past_the_grace = Duration::from_secs(GRACE_SECONDS + 1);
    eventually("the end of the grace period", async || (restarted.elapsed() > past_the_grace).then_some(())).await;
    eventually("the old version runs under its name", async || {
        let seen = docker_shows(&installation).await;
        (seen.len() == 1 && has(&seen, "", "running")).then_some(())
    })
    .await;
    let answer =
        eventually("v1", async || tokio::time::timeout(VISIT, installation.visit(&application, "/")).await.ok()?.ok())
            .await;
    assert_eq!(answer, "version v1\n", "{}", worker.log());
    installation.aws().resume_dynamodb().unwrap();
    let ended = installation.ended(&application, &id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
}

#[tokio::test]
async fn a_worker_killed_again_and_again_gives_up_and_leaves_the_old_version_running() {
    let (installation, worker, mut process, application) = with_v1(patient(), Mode::Ok).await;
    slow_to_health(&installation, &application).await;
    installation.push(&application, "v2", Mode::Ok).await;
    let id = queue(&installation, &application, "v2").await;
    let mut killed_before = String::new();
    for attempt in 1..=3 {
        let next = async || {
            let seen = docker_shows(&installation).await;
            let mut running = seen.into_iter().filter(|shown| shown.name.ends_with(NEXT) && shown.state == "running");
            running.next().map(|shown| shown.id).filter(|id| *id != killed_before)
        };
        killed_before = eventually("the check of another attempt", next).await;
        if attempt < 3 {
            process.kill();
            process = worker.start();
        }
    }
    let moment = "a third time in the check";
    let ended = killed_and_started(moment, &installation, &worker, process, &application, &id).await;
    assert_eq!(ended["error"]["code"], "too-many-attempts", "{ended}\n{}", worker.log());
    assert_eq!(ended["running"], "previous", "{ended}");
}

#[tokio::test]
async fn a_second_worker_of_the_same_host_refuses_to_start() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let worker = OwnWorker::of(&installation);
    let _first = worker.start();
    eventually("the first worker works", async || worker.log().contains("started").then_some(())).await;
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let (status, said) = worker.run_to_its_end().await;
    assert!(!status.success(), "{said}");
    assert!(said.contains("another worker runs for this host already"), "{said}");
}

/// Deployment ids of the application, newest first.
async fn listed(installation: &Installation, application: &Application) -> Vec<Value> {
    let path = format!("deployments?applicationId={}", application.id);
    installation.get(&path).await.expect(200)["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_whole_system_killed_around_deployments_loses_none() {
    let mut system = System::start().await;
    let application = system.register().await;
    let first = system.release(&application, "v1").await;
    assert_eq!(first["status"], "succeeded", "{first}\n{}", system.log());
    let mut last = "v1".to_owned();
    for round in 1..=5_u16 {
        let version = format!("v{}", round + 1);
        system.push(&application, &version).await;
        let id = system.deploy(&application, &version, &[]).await.expect(202)["deploymentId"].clone();
        let id = id.as_str().unwrap().to_owned();
        // Somewhere in a deployment, which takes about a second and a half.
        let delay = Duration::from_millis(u64::from(u16::from_be_bytes(random::bytes()) % 300 + (round - 1) * 300));
        let _ = tokio::time::timeout(delay, system.ended(&application, &id)).await;
        system.kill();
        let restarted = Instant::now();
        system.start_again().await;
        let answered = eventually("the application answers", async || {
            system.visit(&application, "/").await.filter(|text| text.starts_with("version "))
        })
        .await;
        let back = restarted.elapsed();
        system.sign_in().await;
        let ended = system.ended(&application, &id).await;
        println!(
            "figure: system killed {} ms after the answer: {} answers {} ms after the restart, deployment {} after {} ms",
            delay.as_millis(),
            answered.trim(),
            back.as_millis(),
            ended["status"].as_str().unwrap_or_default(),
            restarted.elapsed().as_millis()
        );
        assert_eq!(ended["status"], "succeeded", "{ended}\n{}", system.log());
        last = version;
    }
    eventually("the last version answers", async || {
        system.visit(&application, "/").await.filter(|text| *text == format!("version {last}\n"))
    })
    .await;
    assert_eq!(system.visit(&application, "/env/DB_URL").await.unwrap(), system::SECRET);
    let deployments = system.get(&format!("deployments?applicationId={}", application.id)).await.expect(200);
    assert_eq!(deployments["data"].as_array().unwrap().len(), 6);
    check_history(&deployments);
    assert_eq!(system.containers().await, std::slice::from_ref(&application.container));
    assert_eq!(system.get("secrets").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_call_cut_off_by_the_death_of_the_system_is_repeated_with_its_key_and_deploys_once() {
    let mut system = System::start().await;
    let application = system.register().await;
    system.release(&application, "v1").await;
    for (round, delay) in [3, 10, 20, 40].into_iter().enumerate() {
        let version = format!("v{}", round + 2);
        system.push(&application, &version).await;
        let key = [("Idempotency-Key", version.as_str())];
        // The answer, if there was one, is lost with its caller.
        let _ = tokio::time::timeout(Duration::from_millis(delay), system.deploy(&application, &version, &key)).await;
        system.kill();
        system.start_again().await;
        system.sign_in().await;
        let repeats = join_all((0..2).map(|_| system.deploy(&application, &version, &key))).await;
        let id = repeats[0].expect(202)["deploymentId"].clone();
        assert_eq!(repeats[1].expect(202)["deploymentId"], id);
        let ended = system.ended(&application, id.as_str().unwrap()).await;
        assert_eq!(ended["status"], "succeeded", "{ended}\n{}", system.log());
        let deployments = system.get(&format!("deployments?applicationId={}", application.id)).await.expect(200);
        assert_eq!(deployments["data"].as_array().unwrap().len(), round + 2, "{deployments}");
        check_history(&deployments);
    }
}
