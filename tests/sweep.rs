//! What a lost report, a crash or an outage leaves undone, the sweep does.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tidegate_approvals::{SweepError, sweep};
use tidegate_aws::{
    clock,
    host_side::HostSide,
    hosts::Heartbeat,
    keys::{self, Key},
    queues::WakeUp,
    sweep::Swept,
};
use tidegate_domain::{
    assignment::{ErrorCode, Outcome, Progress, Running, TargetError},
    id::{ApplicationId, DeploymentId, Epoch},
    image::Digest,
};
use tidegate_local::{provision, stack};

use crate::{
    functions::{environment, runtime_api::Function},
    support::{Application, Installation, Setup, eventually},
};

const NOTHING: Swept = Swept { live: 0, folded: 0, launched: 0, woken: 0, unreachable: 0, superseded: 0, failed: 0 };

/// The test is the worker, and sweeps.
fn by_hand() -> Setup<'static> {
    Setup { no_worker: true, no_sweeps: true, ..Setup::default() }
}

async fn deploy(installation: &Installation, application: &Application, version: &str) -> DeploymentId {
    let accepted = installation.deploy(application, version).await.expect(202);
    DeploymentId::parse(accepted["deploymentId"].as_str().unwrap()).unwrap()
}

/// Two deployments of one application: the first has its assignment, the second waits for its turn.
async fn two(installation: &Installation) -> (HostSide, DeploymentId, DeploymentId) {
    let application = installation.register(json!({})).await;
    let first = deploy(installation, &application, "v1").await;
    let second = deploy(installation, &application, "v2").await;
    let side = installation.side_of(&stack::host());
    assert_eq!(assigned(&side).await, [first]);
    (side, first, second)
}

async fn assigned(side: &HostSide) -> Vec<DeploymentId> {
    side.assignments().await.unwrap().into_iter().map(|assignment| assignment.deployment_id).collect()
}

/// As the worker does it, but for the report.
async fn claim(side: &HostSide, id: DeploymentId) {
    let assignments = side.assignments().await.unwrap();
    let assignment = assignments.iter().find(|assignment| assignment.deployment_id == id).unwrap();
    side.claim(assignment, Epoch(2), &Progress::default(), false, clock::now()).await.unwrap().unwrap();
}

async fn finish(side: &HostSide, id: DeploymentId) {
    let digest = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let outcome = Outcome::Succeeded { digest: Some(digest) };
    side.finish(id, Epoch(2), &outcome, &Progress::default(), clock::now()).await.unwrap().unwrap();
}

async fn shown(installation: &Installation, id: DeploymentId) -> Value {
    installation.get(&format!("deployments/{id}")).await.expect(200)
}

async fn status(installation: &Installation, id: DeploymentId) -> String {
    shown(installation, id).await["status"].as_str().unwrap().to_owned()
}

type Item = HashMap<String, AttributeValue>;

/// Every item of the table by its key. Nothing else runs here, so that it changes only by what the test does.
async fn table(installation: &Installation) -> BTreeMap<(String, String), Item> {
    let items = installation.aws().clients().dynamodb.scan().table_name(provision::TABLE).consistent_read(true);
    let items = items.send().await.unwrap();
    assert!(items.last_evaluated_key.is_none(), "one page holds all that a test writes");
    let text = |item: &Item, name: &str| item[name].as_s().unwrap().clone();
    let keyed = |item: Item| ((text(&item, "pk"), text(&item, "sk")), item);
    items.items.unwrap_or_default().into_iter().map(keyed).collect()
}

/// What is listed as live.
async fn live(installation: &Installation) -> Vec<DeploymentId> {
    let query = installation.aws().clients().dynamodb.query().table_name(provision::TABLE).consistent_read(true);
    let query = query.key_condition_expression("pk = :pk");
    let found = query.expression_attribute_values(":pk", AttributeValue::S(keys::live_deployments())).send().await;
    let id = |item: Item| {
        let (tenant, id) = keys::parse_live(item["sk"].as_s().unwrap()).unwrap();
        assert_eq!(tenant, stack::tenant());
        id
    };
    found.unwrap().items.unwrap_or_default().into_iter().map(id).collect()
}

/// Sweeps, and sweeps again, which must find as many and change nothing.
async fn sweep_twice(installation: &Installation) -> Swept {
    let first = sweep(installation.stack.store()).await.unwrap().swept;
    let before = table(installation).await;
    let second = sweep(installation.stack.store()).await.unwrap().swept;
    assert_eq!(second, Swept { live: second.live, ..NOTHING });
    let after = table(installation).await;
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    // Keys alone: whole items would fill pages.
    let changed: Vec<_> = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).collect();
    assert!(changed.is_empty(), "a second pass changes {changed:?}");
    first
}

/// Ids that the host is woken for, until nothing more comes.
async fn wake_ups(side: &HostSide) -> Vec<DeploymentId> {
    let mut woken = Vec::new();
    loop {
        let received = side.wake_ups(Duration::from_secs(1)).await.unwrap();
        if received.is_empty() {
            return woken;
        }
        for message in &received {
            woken.push(serde_json::from_str::<WakeUp>(&message.body).unwrap().deployment_id);
            side.delete_wake_up(message).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_no_report_told_is_folded_and_the_next_deployment_gets_its_turn() {
    let installation = Installation::start_with(by_hand()).await;
    let (side, first, second) = two(&installation).await;
    assert_eq!(live(&installation).await, [first, second]);
    assert_eq!(sweep_twice(&installation).await, Swept { live: 2, ..NOTHING });

    claim(&side, first).await;
    assert_eq!(sweep_twice(&installation).await, Swept { live: 2, folded: 1, ..NOTHING });
    assert_eq!(status(&installation, first).await, "running");
    assert_eq!(wake_ups(&side).await, [first]);

    finish(&side, first).await;
    assert_eq!(status(&installation, first).await, "running", "nobody has told");
    assert_eq!(sweep_twice(&installation).await, Swept { live: 2, folded: 1, ..NOTHING });
    let ended = shown(&installation, first).await;
    assert_eq!((&ended["status"], &ended["running"]), (&json!("succeeded"), &json!("new")), "{ended}");
    assert_eq!(assigned(&side).await, [second]);
    assert_eq!(wake_ups(&side).await, [second]);
    assert_eq!(live(&installation).await, [second]);

    claim(&side, second).await;
    finish(&side, second).await;
    assert_eq!(sweep_twice(&installation).await, Swept { live: 1, folded: 1, ..NOTHING });
    assert_eq!(status(&installation, second).await, "succeeded");
    assert_eq!(assigned(&side).await, []);
    assert_eq!(live(&installation).await, []);
    assert_eq!(sweep_twice(&installation).await, NOTHING);
}

#[tokio::test]
async fn a_deployment_that_could_not_be_launched_without_the_key_service_is_launched_once_it_is_back() {
    let installation = Installation::start_with(by_hand()).await;
    let (side, first, second) = two(&installation).await;
    claim(&side, first).await;
    finish(&side, first).await;

    installation.stack.forget_data_keys();
    installation.aws().stop_sqs_kms();
    // Folded, or not, by which of the two came first; but the second cannot be launched.
    let away = sweep(installation.stack.store()).await;
    assert!(away.as_ref().map_or(true, |pass| pass.swept.failed > 0), "{away:?}");
    assert_eq!(status(&installation, first).await, "succeeded");
    assert_eq!(status(&installation, second).await, "queued");
    assert_eq!(assigned(&side).await, [], "the fold has happened, the launch has not");
    assert_eq!(live(&installation).await, [second]);
    assert!(matches!(sweep(installation.stack.store()).await, Err(SweepError::All { live: 1 })));

    installation.aws().resume_sqs_kms().unwrap();
    assert_eq!(sweep_twice(&installation).await, Swept { live: 1, launched: 1, ..NOTHING });
    assert_eq!(assigned(&side).await, [second]);
    assert!(wake_ups(&side).await.contains(&second));
}

#[tokio::test]
async fn a_host_that_may_have_missed_its_wake_up_is_woken_again() {
    let installation = Installation::start_with(by_hand()).await;
    let (side, first, _) = two(&installation).await;
    assert_eq!(wake_ups(&side).await, [first]);
    let store = installation.stack.store();
    let check = async |now: Timestamp, woken: usize| {
        // It is there, and has not heard.
        let heartbeat = Heartbeat {
            at: now,
            worker_version: "0".to_owned(),
            engine_version: None,
            engine_api_version: None,
            facts: None,
            containers: None,
            containers_left_out: 0,
        };
        side.beat(&heartbeat).await.unwrap();
        let swept = store.sweep(now).await.unwrap();
        assert_eq!(swept, Swept { live: 2, woken, ..NOTHING }, "{now}");
        assert_eq!(wake_ups(&side).await, vec![first; woken], "{now}");
    };
    let assigned_at = store.deployment(&stack::tenant(), first).await.unwrap().deployment;
    let assigned_at = assigned_at.assigned_at(&stack::host()).unwrap();
    let after = |seconds| SignedDuration::from_secs(seconds);
    check(assigned_at + after(29), 0).await;
    check(assigned_at + after(30), 1).await;
    check(assigned_at + after(599), 1).await;
    // Who has not looked by himself in ten minutes is away, and looks when he is back.
    check(assigned_at + after(600), 0).await;

    claim(&side, first).await;
    let next = assigned_at + after(3_600);
    side.hand_back(first, Epoch(2), Some(next), 1).await.unwrap().unwrap();
    check(next, 0).await;
    check(next + after(31), 1).await;
}

#[tokio::test]
async fn one_deployment_that_cannot_be_seen_to_does_not_hold_up_the_others() {
    let installation = Installation::start_with(by_hand()).await;
    let (side, first, second) = two(&installation).await;
    let application = installation.register(json!({})).await;
    let broken = deploy(&installation, &application, "v1").await;
    let set = async |key: &Key, status: &str| {
        let update = installation.aws().clients().dynamodb.update_item().table_name(provision::TABLE);
        let update = update.set_key(Some(crate::secrets::key(key))).update_expression("SET #status.#status = :status");
        let update = update.expression_attribute_names("#status", "status");
        update.expression_attribute_values(":status", AttributeValue::S(status.to_owned())).send().await.unwrap();
    };
    set(&keys::deployment(&stack::tenant(), broken), "no such status").await;
    claim(&side, first).await;
    finish(&side, first).await;
    let swept = sweep(installation.stack.store()).await.unwrap().swept;
    assert_eq!(swept, Swept { live: 3, folded: 1, failed: 1, ..NOTHING });
    assert!(assigned(&side).await.contains(&second));
    set(&keys::deployment(&stack::tenant(), broken), "queued").await;

    // What has ended, and what never was, is taken off the list.
    let never = DeploymentId::new(clock::now(), [7; 10]);
    for stray in [first, never] {
        let put = installation.aws().clients().dynamodb.put_item().table_name(provision::TABLE);
        let item = crate::secrets::key(&keys::live(&stack::tenant(), stray));
        put.set_item(Some(item)).send().await.unwrap();
    }
    assert_eq!(live(&installation).await.len(), 4);
    assert_eq!(sweep_twice(&installation).await, Swept { live: 4, ..NOTHING });
    let mut left = live(&installation).await;
    left.sort();
    assert_eq!(left, [second, broken]);
}

#[tokio::test]
async fn a_start_repairs_what_was_left_behind_before() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { data: Some(folder.path()), no_worker: true, no_sweeps: true, ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let (side, first, second) = two(&installation).await;
    claim(&side, first).await;
    finish(&side, first).await;
    installation.stack.stop().await;

    let setup = Setup { data: Some(folder.path()), no_worker: true, ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let side = installation.side_of(&stack::host());
    // The bound is below a minute: it is the start that does it.
    let repaired = eventually("the second's turn", async || (assigned(&side).await == [second]).then_some(()));
    tokio::time::timeout(Duration::from_secs(40), repaired).await.expect("the sweep comes with the start");
    assert_eq!(status(&installation, first).await, "succeeded");
}

/// What a pass says of these parts of it; others have tests of their own.
#[track_caller]
fn tells(pass: &Value, expect: &Value) {
    for (part, expect) in expect.as_object().unwrap() {
        assert_eq!(&pass[part], expect, "{part}");
    }
}

#[tokio::test]
async fn the_approvals_function_sweeps_when_the_scheduler_says_so() {
    let installation = Installation::start_with(by_hand()).await;
    let (side, first, second) = two(&installation).await;
    claim(&side, first).await;
    finish(&side, first).await;
    // What EventBridge Scheduler sends for a schedule without an input of its own.
    let event = json!({
        "version": "0", "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa", "detail-type": "Scheduled Event",
        "source": "aws.scheduler", "account": "123456789012", "time": "2026-11-22T10:00:00Z", "region": "us-east-1",
        "resources": ["arn:aws:scheduler:us-east-1:123456789012:schedule/default/tidegate-ApprovalsEachMinute"],
        "detail": "{}"
    });
    let function = Function::start("tidegate-approvals", &environment(&installation)).await;
    let swept = function.invoke(event.clone()).await.unwrap();
    tells(
        &swept,
        &json!({"live": 2, "folded": 1, "launched": 0, "woken": 0,
        "unreachable": 0, "superseded": 0, "failed": 0,
        "approvals": {"timedOut": 0, "failed": 0}, "sentAgain": 0,
        "environments": {"purged": 0, "settled": 0, "failed": 0}}),
    );
    assert_eq!(status(&installation, first).await, "succeeded");
    assert_eq!(assigned(&side).await, [second]);
    let again = function.invoke(event.clone()).await.unwrap();
    tells(
        &again,
        &json!({"live": 1, "folded": 0, "launched": 0, "woken": 0,
        "unreachable": 0, "superseded": 0, "failed": 0,
        "approvals": {"timedOut": 0, "failed": 0}, "sentAgain": 0}),
    );

    // A pass that could do nothing has failed, for the scheduler's dead letters; the next may go well.
    installation.aws().stop_dynamodb();
    let failed = function.invoke(event.clone()).await.unwrap_err();
    assert!(failed["errorMessage"].as_str().unwrap().contains("cannot be listed"), "{failed}");
    installation.aws().resume_dynamodb().unwrap();
    assert_eq!(function.invoke(event).await.unwrap(), again);
}

#[tokio::test]
async fn a_deployment_that_lost_its_place_is_recorded_as_superseded() {
    let installation = Installation::start_with(by_hand()).await;
    let (_, first, second) = two(&installation).await;
    let key = {
        let application = shown(&installation, first).await["applicationId"].as_u64().unwrap();
        keys::application_state(&stack::tenant(), ApplicationId(application))
    };
    // As a crash leaves it, right after a later admission has taken its place.
    let update = installation.aws().clients().dynamodb.update_item().table_name(provision::TABLE);
    let update = update.set_key(Some(crate::secrets::key(&key))).update_expression("SET queued = :none");
    update.expression_attribute_values(":none", AttributeValue::L(Vec::new())).send().await.unwrap();
    assert_eq!(status(&installation, second).await, "queued");
    let swept = sweep(installation.stack.store()).await.unwrap().swept;
    assert_eq!(swept, Swept { live: 2, superseded: 1, ..NOTHING });
    assert_eq!(status(&installation, second).await, "superseded");
    assert_eq!(status(&installation, first).await, "queued");
    assert_eq!(sweep_twice(&installation).await.live, 1);
}

#[tokio::test]
async fn what_a_host_spoils_is_its_own_part_alone() {
    let installation = Installation::start_with(by_hand()).await;
    let (side, first, second) = two(&installation).await;
    // More than an item holds, once it stands in the deployment.
    claim(&side, first).await;
    let error = TargetError::new(ErrorCode::Internal, "x".repeat(150_000), "y".repeat(150_000));
    let error = TargetError { log_tail: vec!["z".repeat(1_000); 50], ..error };
    let outcome = Outcome::Failed { error, switched: false, running: Running::Previous };
    side.finish(first, Epoch(2), &outcome, &Progress::default(), clock::now()).await.unwrap().unwrap();
    let update = installation.aws().clients().dynamodb.update_item().table_name(provision::TABLE);
    let key = keys::assignment(&stack::tenant(), &stack::host(), first);
    let update = update.set_key(Some(crate::secrets::key(&key))).update_expression("REMOVE completedAt, startedAt");
    update.send().await.unwrap();
    assert_eq!(sweep_twice(&installation).await, Swept { live: 2, folded: 1, ..NOTHING });
    let shown = shown(&installation, first).await;
    assert!(shown.to_string().len() < 20_000 && shown["error"]["message"].as_str().unwrap().starts_with("xxx"));

    // Not readable, and then not there: the next one has its turn all the same.
    let set = async |id: DeploymentId, status: &str| {
        let update = installation.aws().clients().dynamodb.update_item().table_name(provision::TABLE);
        let key = keys::assignment(&stack::tenant(), &stack::host(), id);
        let update = update.set_key(Some(crate::secrets::key(&key))).update_expression("SET #status = :status");
        let update = update.expression_attribute_names("#status", "status");
        update.expression_attribute_values(":status", AttributeValue::S(status.to_owned())).send().await.unwrap();
    };
    set(second, "no such status").await;
    let view = installation.get(&format!("deployments/{second}")).await.expect(200);
    assert_eq!(view["status"], "queued");
    let swept = sweep(installation.stack.store()).await.unwrap().swept;
    assert_eq!(swept, Swept { live: 1, unreachable: 1, ..NOTHING });
    let ended = crate::sweep::shown(&installation, second).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("bad-assignment")), "{ended}");
    assert_eq!(assigned(&side).await, []);
}
