//! AWS and Docker as they are on a bad day: conflicts, throttles, errors, answers that are lost, and nobody there at all.

mod switches;
mod two_workers;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use reqwest::Method;
use serde_json::{Value, json};
use tidegate_local::{demo_image::Mode, provision};

use crate::support::{
    Application, Installation, Setup,
    faults::{AwsCall, FaultyAws},
    relay::Fate,
};

/// The store's own patience with conflicts and throttles.
const PATIENCE: Duration = Duration::from_secs(5);

type Kind = (&'static str, fn(&AwsCall) -> Fate);

/// What DynamoDB may do to a call without doing it.
const NOT_DONE: [Kind; 5] = [
    ("a conflict", AwsCall::conflict),
    ("a throttle", AwsCall::throttled),
    ("too little throughput", AwsCall::over_throughput),
    ("an internal error", AwsCall::failed_inside),
    ("a broken connection", |_| Fate::Cut),
];

/// The first `count` calls of the operation meet this fate.
fn first(operation: &'static str, count: usize, fate: fn(&AwsCall) -> Fate) -> impl FnMut(&AwsCall) -> Fate + Send {
    let mut left = count;
    move |call| {
        if call.is(operation) && left > 0 {
            left -= 1;
            fate(call)
        } else {
            Fate::Pass
        }
    }
}

/// The functions' AWS is faulty, and nobody else writes.
async fn by_hand() -> (Installation, Arc<FaultyAws>, Application) {
    let (aws, detour) = FaultyAws::for_functions().await;
    let setup = Setup { no_worker: true, no_sweeps: true, detour: Some(detour), ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let application = installation.register(json!({})).await;
    (installation, aws, application)
}

async fn listed(installation: &Installation, application: &Application) -> Vec<Value> {
    let path = format!("deployments?applicationId={}", application.id);
    installation.get(&path).await.expect(200)["data"].as_array().unwrap().clone()
}

/// Every item of the table but data keys, which are written before what they are for, and counts of what was asked.
async fn table(installation: &Installation) -> BTreeMap<String, HashMap<String, AttributeValue>> {
    let items = installation.aws().clients().dynamodb.scan().table_name(provision::TABLE).consistent_read(true);
    let items = items.send().await.unwrap();
    assert!(items.last_evaluated_key.is_none(), "one page holds all that a test writes");
    let text = |value: &AttributeValue| value.as_s().unwrap().clone();
    let key = |item: &HashMap<_, _>| format!("{} {}", text(&item["pk"]), text(&item["sk"]));
    let keyed = items.items.unwrap_or_default().into_iter().map(|item| (key(&item), item));
    keyed.filter(|(key, _)| !key.contains("DATA_KEY") && !key.contains("#METRICS ")).collect()
}

#[tokio::test]
async fn an_admission_that_fails_twice_for_a_passing_reason_is_one_deployment() {
    let (installation, aws, application) = by_hand().await;
    for (count, (kind, fate)) in NOT_DONE.into_iter().enumerate() {
        aws.judge_by(first("TransactWriteItems", 2, fate));
        let accepted = installation.deploy(&application, &format!("v{count}")).await.expect(202);
        assert_eq!(aws.calls("TransactWriteItems"), 3, "{kind}");
        let deployments = listed(&installation, &application).await;
        assert_eq!(deployments.len(), count + 1, "{kind}");
        assert_eq!(deployments[0]["deploymentId"], accepted["deploymentId"], "{kind}");
        assert_eq!(deployments[0]["sequence"], json!(count + 1), "{kind}");
    }
    println!("figure: {} admissions that met two faults each: accepted, and written once", NOT_DONE.len());
}

#[tokio::test]
async fn an_admission_that_only_meets_conflicts_is_busy_and_leaves_nothing() {
    let (installation, aws, application) = by_hand().await;
    installation.deploy(&application, "v1").await.expect(202);
    let before = table(&installation).await;
    for (kind, fate) in &NOT_DONE[..3] {
        aws.judge_by(first("TransactWriteItems", usize::MAX, *fate));
        let asked = Instant::now();
        let refused =
            installation.deploy_with(&application, &json!({"version": "v2"}), &[("Idempotency-Key", "a")]).await;
        let problem = refused.expect(503);
        assert!(problem["type"].as_str().unwrap().ends_with("busy"), "{kind}: {problem}");
        assert!(refused.headers.contains_key("retry-after"), "{kind}: {problem}");
        assert!(aws.calls("TransactWriteItems") > 3, "{kind}: tried {} times", aws.calls("TransactWriteItems"));
        assert!(asked.elapsed() < PATIENCE * 3, "{kind}: {:?}", asked.elapsed());
        assert_eq!(table(&installation).await, before, "{kind}");
    }
    aws.let_all_pass();
    let key = [("Idempotency-Key", "a")];
    installation.deploy_with(&application, &json!({"version": "v2"}), &key).await.expect(202);
    let deployments = listed(&installation, &application).await;
    assert_eq!((deployments.len(), &deployments[0]["sequence"]), (2, &json!(2)));
}

#[tokio::test]
async fn an_admission_whose_answer_is_lost_is_accepted_and_there_once() {
    let (installation, aws, application) = by_hand().await;
    // Of the SDK's first try, and of all three.
    for (count, lost) in [1, 3].into_iter().enumerate() {
        aws.judge_by(first("TransactWriteItems", lost, |_| Fate::LoseAnswer));
        let accepted = installation.deploy(&application, &format!("v{count}")).await.expect(202);
        let deployments = listed(&installation, &application).await;
        assert_eq!(deployments.len(), count + 1, "{lost} answers lost");
        assert_eq!(deployments[0]["deploymentId"], accepted["deploymentId"], "{lost} answers lost");
    }
}

#[tokio::test]
async fn an_admission_whose_fate_nobody_could_tell_is_found_by_its_key() {
    let (installation, aws, application) = by_hand().await;
    let mut written = false;
    aws.judge_by(move |call| {
        written |= call.is("TransactWriteItems");
        match (written, call.is("TransactWriteItems")) {
            (_, true) => Fate::LoseAnswer,
            (true, false) => Fate::Cut,
            (false, false) => Fate::Pass,
        }
    });
    let key = [("Idempotency-Key", "run-1")];
    let v1 = json!({"version": "v1"});
    installation.deploy_with(&application, &v1, &key).await.expect(503);
    aws.let_all_pass();
    let repeated = installation.deploy_with(&application, &v1, &key).await;
    let deployments = listed(&installation, &application).await;
    assert_eq!(deployments.len(), 1, "{deployments:?}");
    assert_eq!(repeated.expect(202)["deploymentId"], deployments[0]["deploymentId"]);
    assert!(repeated.headers.contains_key("idempotent-replayed"));
}

/// Reports come while DynamoDB is at its worst, and the second deployment waits for the first one's end.
#[tokio::test]
async fn reports_are_folded_once_through_conflicts_and_lost_answers() {
    let (aws, detour) = FaultyAws::for_functions().await;
    let setup = Setup { no_sweeps: true, detour: Some(detour), ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let application = installation.register(json!({})).await;
    let faults: [Kind; 3] = [NOT_DONE[0], NOT_DONE[3], ("a lost answer", |_| Fate::LoseAnswer)];
    for (count, (kind, fate)) in faults.into_iter().enumerate() {
        let version = format!("v{count}");
        installation.push(&application, &version, Mode::Ok).await;
        // The admission passes, and then every other transaction meets the fault first.
        let mut transactions = 0;
        aws.judge_by(move |call| {
            transactions += usize::from(call.is("TransactWriteItems"));
            let is_hit = call.is("TransactWriteItems") && transactions > 1 && transactions % 2 == 0;
            if is_hit { fate(call) } else { Fate::Pass }
        });
        let id = installation.deploy(&application, &version).await.expect(202)["deploymentId"].clone();
        let ended = installation.ended(&application, id.as_str().unwrap()).await;
        assert_eq!((&ended["status"], &ended["version"]), (&json!("succeeded"), &json!(version)), "{kind}: {ended}");
        let events: Vec<_> = ended["timeline"].as_array().unwrap().iter().map(|event| &event["event"]).collect();
        for once in ["queued", "assigned", "host-started", "host-succeeded", "succeeded"] {
            assert_eq!(events.iter().filter(|event| **event == once).count(), 1, "{kind}: {events:?}");
        }
        assert!(aws.calls("TransactWriteItems") > 3, "{kind}: {}", aws.calls("TransactWriteItems"));
    }
}

#[tokio::test]
async fn what_could_not_be_decided_is_measured_as_such() {
    let (installation, aws, application) = by_hand().await;
    // What a decision rests on cannot be read.
    aws.judge_by(|call| {
        let is_read = call.is("Query") && call.body.to_string().contains("VARIABLES#");
        if is_read { AwsCall::denied() } else { Fate::Pass }
    });
    let body = json!({"applicationId": application.id, "token": application.token, "version": "v1"});
    for path in ["/webhook/deploy", "/webhook/validate"] {
        installation.call(Method::POST, path, None, &[], Some(&body)).await.expect(503);
    }
    aws.let_all_pass();
    installation.call(Method::POST, "/webhook/validate", None, &[], Some(&body)).await.expect(200);
    let summary = installation.get("metrics/summary").await.expect(200);
    assert_eq!((&summary["outcomes"], &summary["passRate"]), (&json!({"undecided": 1}), &Value::Null), "{summary}");
    let told = installation.call(Method::GET, "/metrics", None, &[], None).await.text;
    assert!(told.contains("tidegate_validations_total{outcome=\"undecided\"}"), "{told}");
}
