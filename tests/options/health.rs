//! How it is found out whether a new version works.

use jiff::SignedDuration;
use serde_json::{Value, json};
use tidegate_aws::clock;
use tidegate_domain::assignment::AssignmentState;
use tidegate_local::{demo_image::Mode, stack};

use super::{change, inspect, push_with, release_with, set};
use crate::support::{Application, Installation, Setup, eventually, own_worker::OwnWorker};

/// v1 runs, and was found healthy by the check.
async fn with_v1(check: Value) -> (Installation, Application) {
    let installation = Installation::start().await;
    let application = installation.register(json!({ "healthCheck": check })).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    (installation, application)
}

/// It was judged so, in these words, and v1 still answers.
async fn refused(installation: &Installation, application: &Application, ended: &Value, code: &str, words: &str) {
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("rolled_back"), &json!(code)), "{ended}");
    assert!(ended["error"]["message"].as_str().unwrap().contains(words), "{ended}");
    assert_eq!(installation.visit(application, "/").await.unwrap(), "version v1\n");
}

/// How long the check took, in milliseconds.
fn check_ms(ended: &Value) -> u64 {
    let steps = ended["targets"][0]["steps"].as_array().unwrap();
    steps.iter().find(|step| step["step"] == "check").unwrap()["durationMs"].as_u64().unwrap()
}

#[tokio::test]
async fn a_command_in_the_container_decides() {
    let check = json!({"type": "command", "command": ["/app", "probe"], "intervalMs": 100, "startPeriodMs": 300});
    let (installation, application) = with_v1(check).await;
    let ended = installation.release(&application, "v2", Mode::Unhealthy).await;
    refused(&installation, &application, &ended, "unhealthy", "the command of the health check exits 1").await;
    let missing = json!({"type": "command", "command": ["/not-there"], "intervalMs": 100, "startPeriodMs": 300});
    change(&installation, &application, &json!({ "healthCheck": missing })).await;
    let ended = installation.release(&application, "v3", Mode::Ok).await;
    refused(&installation, &application, &ended, "unhealthy", "/not-there").await;
}

#[tokio::test]
async fn an_accepted_connection_decides() {
    let (installation, application) = with_v1(json!({"type": "tcp", "port": 8080, "intervalMs": 100})).await;
    let closed = json!({"type": "tcp", "port": 8081, "intervalMs": 100, "startPeriodMs": 300});
    change(&installation, &application, &json!({ "healthCheck": closed })).await;
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    refused(&installation, &application, &ended, "unhealthy", "port 8081 does not accept a connection").await;
}

#[tokio::test]
async fn a_slow_start_has_its_start_period() {
    let patient = json!({"type": "http", "path": "/healthz", "port": 8080, "intervalMs": 100, "retries": 1,
        "startPeriodMs": 20_000, "deadlineMs": 30_000});
    let (installation, application) = with_v1(patient.clone()).await;
    set(&installation, &application, "HEALTHY_AFTER_MS", "2000").await;
    let mut impatient = patient;
    impatient["startPeriodMs"] = json!(200);
    change(&installation, &application, &json!({ "healthCheck": impatient })).await;
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    refused(&installation, &application, &ended, "unhealthy", "answers 503, 1 times in a row").await;
    impatient["startPeriodMs"] = json!(20_000);
    change(&installation, &application, &json!({ "healthCheck": impatient })).await;
    let ended = installation.release(&application, "v3", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert!(check_ms(&ended) >= 1_500, "it was not asked before it was ready: {ended}");
    // As soon as it is ready, not at the end of the period.
    assert!(check_ms(&ended) < 10_000, "{ended}");
    impatient["deadlineMs"] = json!(1_000);
    impatient["startPeriodMs"] = json!(1_000);
    change(&installation, &application, &json!({ "healthCheck": impatient })).await;
    let ended = installation.release(&application, "v4", Mode::Ok).await;
    assert_eq!(ended["error"]["code"], "unhealthy", "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v3\n");
}

#[tokio::test]
async fn an_images_own_check_is_asked_at_once_however_long_its_interval() {
    let installation = Installation::start().await;
    let application = installation.register(json!({ "healthCheck": null })).await;
    let rare = ["HEALTHCHECK --interval=30s --timeout=5s --retries=3 CMD [\"/app\", \"probe\"]"];
    let ended = release_with(&installation, &application, "v1", Mode::Ok, &rare).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    // Docker itself has not asked yet, and nobody has waited for "stays up".
    assert!(check_ms(&ended) < 4_000, "{ended}");
    let health = inspect(&installation, &application).await.state.unwrap().health.unwrap();
    assert!(health.log.unwrap_or_default().is_empty());
    println!("figure: an image with a health check every 30 s was found healthy in {} ms", check_ms(&ended));

    let often = ["HEALTHCHECK --interval=300ms --timeout=1s --retries=2 CMD [\"/app\", \"probe\"]"];
    let ended = release_with(&installation, &application, "v2", Mode::Unhealthy, &often).await;
    refused(&installation, &application, &ended, "unhealthy", "health check does not pass").await;
    assert!(ended["error"]["suggestion"].as_str().unwrap().contains("HEALTHCHECK"), "{ended}");
}

#[tokio::test]
async fn the_lease_of_a_switch_lasts_as_long_as_the_images_own_check_may_take() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let worker = OwnWorker::of(&installation);
    let _process = worker.start();
    let application = installation.register(json!({ "healthCheck": null })).await;
    let late = ["HEALTHCHECK --start-period=20m --interval=30s --timeout=5s CMD [\"/app\", \"probe\"]"];
    push_with(&installation, &application, "v1", Mode::Unhealthy, &late).await;
    installation.deploy(&application, "v1").await.expect(202);
    let side = installation.side_of(&stack::host());
    let until = eventually("the switch is proven", async || {
        let assignment = side.assignments().await.unwrap().remove(0);
        match assignment.state {
            AssignmentState::Running { lease_until } if assignment.switching => Some(lease_until),
            AssignmentState::Queued | AssignmentState::Running { .. } | AssignmentState::Finished { .. } => None,
        }
    })
    .await;
    let left = until.duration_since(clock::now());
    assert!(left > SignedDuration::from_mins(20), "{left}");
}

#[tokio::test]
async fn without_a_check_a_version_has_to_stay_up() {
    let (installation, application) = with_v1(json!({"type": "none"})).await;
    // It serves for two seconds before it ends.
    let ended = installation.release(&application, "v2", Mode::CrashLater).await;
    refused(&installation, &application, &ended, "exited", "with code 4").await;
}
