//! A service that is away: late or refused, never half-done.

use std::time::Instant;

use serde_json::json;
use tidegate_local::demo_image::Mode;

use super::{check_end, listed, queue, with_v1};
use crate::support::{Answer, Application, Installation};

#[tokio::test]
async fn a_deployment_admitted_while_the_queue_is_away_runs_once_a_worker_looks() {
    let (installation, worker, process, application) = with_v1(json!({}), Mode::Ok).await;
    installation.push(&application, "v2", Mode::Ok).await;
    installation.aws().stop_sqs_kms();
    let id = queue(&installation, &application, "v2").await;
    process.kill();
    installation.aws().resume_sqs_kms().unwrap();
    let restarted = Instant::now();
    let _process = worker.start();
    let ended = installation.ended(&application, &id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
    println!(
        "figure: admitted while SQS and KMS were away: ran {} ms after they were back and the worker was started",
        restarted.elapsed().as_millis()
    );
    check_end(&installation, &worker, &application, &ended).await;
}

/// What a caller gets while a service is away, and that it has left nothing: the next deployment follows the one before.
async fn nothing_is_half_written(
    installation: &Installation,
    application: &Application,
    away: impl FnOnce(),
    back: impl FnOnce(),
) {
    let before = listed(installation, application).await;
    away();
    let key = [("Idempotency-Key", "the-same-run")];
    let refused = installation.deploy_with(application, &json!({"version": "v2"}), &key).await;
    check_away(&refused);
    back();
    assert_eq!(listed(installation, application).await, before);
    let accepted = installation.deploy_with(application, &json!({"version": "v2"}), &key).await.expect(202);
    let ended = installation.ended(application, accepted["deploymentId"].as_str().unwrap()).await;
    assert_eq!((&ended["status"], &ended["sequence"]), (&json!("succeeded"), &json!(before.len() + 1)), "{ended}");
    assert_eq!(listed(installation, application).await.len(), before.len() + 1);
}

fn check_away(refused: &Answer) {
    let problem = refused.expect(503);
    assert!(refused.headers.contains_key("retry-after"), "{problem}");
    assert_eq!(problem["status"], 503, "{problem}");
}

#[tokio::test]
async fn without_the_table_a_call_gets_503_and_leaves_nothing() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    installation.release(&application, "v1", Mode::Ok).await;
    installation.push(&application, "v2", Mode::Ok).await;
    let aws = installation.aws();
    nothing_is_half_written(&installation, &application, || aws.stop_dynamodb(), || aws.resume_dynamodb().unwrap())
        .await;
}

#[tokio::test]
async fn without_the_key_service_a_call_gets_503_and_leaves_nothing() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    installation.release(&application, "v1", Mode::Ok).await;
    installation.push(&application, "v2", Mode::Ok).await;
    let aws = installation.aws();
    let away = || {
        installation.stack.forget_data_keys();
        aws.stop_sqs_kms();
    };
    nothing_is_half_written(&installation, &application, away, || aws.resume_sqs_kms().unwrap()).await;
}
