//! A rotation of data keys, whatever happens to its passes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tidegate_aws::{clock, keys, random, store::Store};
use tidegate_local::stack;
use tokio::sync::Notify;

use super::kept::{Kept, Place};
use crate::support::{
    Installation, Setup,
    faults::{AwsCall, FaultyAws},
    relay::Fate,
};

/// Longer than a pass of a test takes.
const BUDGET: Duration = Duration::from_mins(1);
/// Longer than a lease, and than the rest between two walks.
const LATER: SignedDuration = SignedDuration::from_mins(3);
/// Passes that a rotation of this size needs, with some to spare.
const PASSES: usize = 20;

/// The data key that each of the places is under.
async fn data_keys(kept: &Kept, places: &[Place]) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for place in places {
        ids.insert(kept.read(place).await.split(':').nth(1).unwrap().to_owned());
    }
    ids
}

async fn start(kept: &Kept) {
    let started = kept.admin.post("data-keys/rotate", json!({})).await;
    assert_eq!(started.status, StatusCode::ACCEPTED, "{}", started.body);
    assert_eq!((&started.body["state"], &started.body["startedBy"]), (&json!("running"), &json!("admin")));
}

/// Passes until the rotation is done, as if minutes had gone by between them. When that is, then.
async fn finish(kept: &Kept, store: &Store, mut now: Timestamp) -> Timestamp {
    for _ in 0..PASSES {
        now += LATER;
        let done = store.reencrypt(now, BUDGET).await.unwrap();
        assert_eq!(done.failed, 0);
        if done.running == 0 {
            return now;
        }
    }
    panic!("still running: {}", kept.admin.get("data-keys").await.body);
}

async fn shown(kept: &Kept) -> Value {
    kept.admin.get("data-keys").await.body
}

async fn all_open(kept: &Kept, places: &[Place]) {
    for place in places {
        assert!(kept.opens(place).await, "{place:?}");
    }
}

/// Written by hand under keys of their own: as many as there are writers.
async fn under_many_keys(kept: &Kept) -> usize {
    for id in 1..=4 {
        // Each store has a data key of its own until a rotation chooses one for all.
        let store = kept.store();
        let old = store.find(&kept.tenant, id).await.unwrap();
        let change = tidegate_aws::secrets::SecretChange {
            value: Some(tidegate_domain::secret::Secret::new(format!("between {id}"))),
            ..tidegate_aws::secrets::SecretChange::none(&old.body)
        };
        store.change_secret(&kept.tenant, &old, change, kept.now, &Kept::event("secret.updated")).await.unwrap();
    }
    4
}

#[tokio::test]
async fn a_rotation_brings_every_value_under_one_key_and_changes_nothing_else() {
    let mut kept = Kept::filled().await;
    let places = kept.own_places().await;
    assert_eq!(shown(&kept).await["state"], Value::Null);
    let before = data_keys(&kept, &places).await;
    let revisions = async || {
        let mut revisions = Vec::new();
        for path in ["secrets/1", "registries/1", "settings", "variables/global.V1", "environments/env-1"] {
            let shown = kept.admin.get(path).await;
            revisions.push((shown.headers.get("etag").cloned(), shown.body));
        }
        revisions
    };
    let was = revisions().await;
    start(&kept).await;
    // Nobody waits for the first pass: what is written meanwhile is under the new key at once.
    kept.admin.put("secrets/2", json!({"expiresAt": "2030-01-01T00:00:00Z"})).await;
    let conflict = kept.admin.post("data-keys/rotate", json!({})).await;
    assert_eq!(conflict.status, StatusCode::CONFLICT, "{}", conflict.body);
    let store = kept.store();
    finish(&kept, &store, clock::now()).await;

    let after = data_keys(&kept, &places).await;
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(after.is_disjoint(&before), "{after:?}");
    all_open(&kept, &places).await;
    // Whatever holds a value, and was forgotten here and there, still names a former key.
    for item in crate::secrets::items(&kept.admin.aws.clients()).await {
        let (pk, text) = (item["pk"].as_s().unwrap(), format!("{item:?}"));
        let is_under = |id: &String| text.contains(&format!("v2:{id}:"));
        assert!(pk.contains("TENANT#other") || !before.iter().any(is_under), "{pk}");
    }
    assert_eq!(revisions().await, was);
    let shown = shown(&kept).await;
    assert_eq!((&shown["state"], &shown["dataKeysInUse"]), (&json!("succeeded"), &json!(1)), "{shown}");
    assert_eq!((&shown["reencrypted"], &shown["unreadable"]), (&json!(places.len()), &json!(0)), "{shown}");
    assert_eq!(shown["lookedAt"], json!(places.len()), "{shown}");
    // Whoever writes from now on takes the same key.
    kept.admin.put("secrets/1", json!({"value": "new"})).await;
    let written = kept.admin.aws.clients();
    let item = crate::secrets::items(&written).await;
    let key = keys::thing(&stack::tenant(), keys::Kind::Secret, 1);
    let item = item.iter().find(|item| item["pk"].as_s().unwrap() == &key.pk && item["sk"].as_s().unwrap() == &key.sk);
    let body = item.unwrap()["body"].as_m().unwrap();
    assert_eq!(body["value"].as_s().unwrap().split(':').nth(1), after.first().map(String::as_str));
    kept.admin.sign_in("operator").await;
    assert_eq!(kept.admin.post("data-keys/rotate", json!({})).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_same_request_starts_one_rotation() {
    let kept = Kept::filled().await;
    let rotate = async || {
        let headers = [("Idempotency-Key", "once")];
        kept.admin.call(reqwest::Method::POST, "data-keys/rotate", &headers, Some(json!({}))).await
    };
    let (first, again) = (rotate().await, rotate().await);
    assert_eq!((first.status, again.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!(first.body, again.body);
    assert!(again.headers.contains_key("idempotent-replayed"));
}

/// A pass that is killed at one of its calls: before the service hears of it, or after it was done.
async fn killed_pass(aws: &Arc<FaultyAws>, store: &Store, now: Timestamp, at: usize, fate: fn() -> Fate) -> bool {
    let (dead, noticed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut calls = 0;
    let died = Arc::clone(&dead);
    aws.judge_by(move |_: &AwsCall| {
        calls += 1;
        match calls.cmp(&at) {
            std::cmp::Ordering::Less => Fate::Pass,
            std::cmp::Ordering::Equal => {
                died.notify_one();
                fate()
            }
            // The SDK's own tries: the process is dead.
            std::cmp::Ordering::Greater => Fate::Cut,
        }
    });
    let own = store.clone();
    let pass = tokio::spawn(async move { own.reencrypt(now, BUDGET).await });
    let abort = pass.abort_handle();
    let ended = Arc::clone(&noticed);
    tokio::spawn(async move {
        let _ = pass.await;
        ended.notify_one();
    });
    tokio::select! {
        () = dead.notified() => {
            // What was passed on is done before anybody looks.
            let _ = tokio::time::timeout(Duration::from_millis(200), noticed.notified()).await;
            abort.abort();
            aws.let_all_pass();
            true
        }
        () = noticed.notified() => {
            aws.let_all_pass();
            false
        }
    }
}

#[tokio::test]
async fn killed_at_random_points_it_ends_with_all_values_under_one_key() {
    let kept = Kept::filled().await;
    let added = under_many_keys(&kept).await;
    let places = kept.own_places().await;
    let count = places.len() + added;
    let former = data_keys(&kept, &places).await;
    assert!(former.len() > 4, "{former:?}");
    start(&kept).await;
    let (aws, detour) = FaultyAws::for_functions().await;
    let store = kept.store_through(detour);
    let (mut now, mut kills) = (clock::now(), 0);
    let mut counted = 0;
    for _ in 0..25 {
        now += LATER;
        let random = random::bytes::<2>();
        let fate: fn() -> Fate = if random[0].is_multiple_of(2) { || Fate::Cut } else { || Fate::LoseAnswer };
        // A whole walk makes some twenty calls.
        kills += usize::from(killed_pass(&aws, &store, now, 1 + usize::from(random[1] % 24), fate).await);
        let shown = shown(&kept).await;
        let reencrypted = shown["reencrypted"].as_u64().unwrap();
        assert!(reencrypted >= counted && reencrypted <= count as u64, "{shown}");
        counted = reencrypted;
        if shown["state"] == "succeeded" {
            break;
        }
    }
    if shown(&kept).await["state"] != "succeeded" {
        finish(&kept, &store, now).await;
    }
    let after = data_keys(&kept, &places).await;
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(after.is_disjoint(&former));
    kept.all_read(&places).await;
    let shown = shown(&kept).await;
    assert_eq!((&shown["state"], &shown["reencrypted"]), (&json!("succeeded"), &json!(count)), "{shown}");
    assert!(kills > 3, "{kills}");
    println!(
        "figure: {count} values under {} data keys, re-encrypted by passes that were killed {kills} times: all read, under 1",
        former.len()
    );
}

#[tokio::test]
async fn what_people_write_meanwhile_stays() {
    let kept = Kept::filled().await;
    start(&kept).await;
    let store = kept.store();
    let writes = async {
        for round in 0..5 {
            for id in 1..=4 {
                let path = format!("secrets/{id}");
                let changed = kept.admin.put(&path, json!({"value": format!("round {round} of {id}")})).await;
                assert_eq!(changed.status, StatusCode::OK);
                let path = "environments/env-1/variables/V1";
                let variable = kept.admin.put(path, json!({"value": format!("round {round}")})).await;
                assert!(variable.status.is_success(), "{}", variable.body);
            }
        }
    };
    let passes = async {
        let mut now = clock::now();
        for _ in 0..5 {
            now += LATER;
            // Others may have held up a page for too long; the next pass goes on.
            store.reencrypt(now, BUDGET).await.unwrap();
        }
        now
    };
    let ((), now) = tokio::join!(writes, passes);
    if shown(&kept).await["state"] == "running" {
        finish(&kept, &store, now).await;
    }
    for id in 1..=4 {
        let revealed = kept.admin.post(&format!("secrets/{id}/reveal"), json!({})).await.body;
        assert_eq!((&revealed["value"], &revealed["valueVersion"]), (&json!(format!("round 4 of {id}")), &json!(8)));
    }
    assert_eq!(shown(&kept).await["state"], "succeeded");
}

#[tokio::test]
async fn a_value_that_nothing_opens_is_told_and_holds_up_no_other() {
    let kept = Kept::filled().await;
    let places = kept.own_places().await;
    let spoilt = &places[0];
    let sealed = kept.read(spoilt).await;
    kept.write(spoilt, &sealed.replacen("v2:", "v2:x", 1)).await;
    start(&kept).await;
    finish(&kept, &kept.store(), clock::now()).await;
    let shown = shown(&kept).await;
    assert_eq!((&shown["state"], &shown["unreadable"]), (&json!("failed"), &json!(1)), "{shown}");
    assert_eq!((&shown["reencrypted"], &shown["dataKeysInUse"]), (&json!(places.len() - 1), &Value::Null), "{shown}");
    assert_eq!(data_keys(&kept, &places[1..]).await.len(), 1);
    // It can be replaced, and then all is well.
    kept.admin.put("secrets/1", json!({"value": "mended"})).await;
    assert_eq!(kept.admin.post("secrets/1/reveal", json!({})).await.body["value"], "mended");
}

#[tokio::test]
async fn a_pass_without_a_rotation_is_one_query() {
    let kept = Kept::filled().await;
    let (aws, detour) = FaultyAws::for_functions().await;
    let store = kept.store_through(detour);
    aws.let_all_pass();
    assert_eq!(
        store.reencrypt(clock::now(), BUDGET).await.unwrap(),
        tidegate_aws::reencryption::Reencrypted::default()
    );
    assert_eq!(aws.calls("Query"), 1);
    for operation in ["GetItem", "TransactWriteItems", "BatchGetItem", "Decrypt", "GenerateDataKey"] {
        assert_eq!(aws.calls(operation), 0, "{operation}");
    }
}

/// Data keys of purpose `secret` that a deployment unwraps when it has none in its memory.
async fn unwrapped(installation: &Installation, aws: &FaultyAws, application: &crate::support::Application) -> usize {
    installation.stack.forget_data_keys();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    aws.judge_by(move |call| {
        if call.is("Decrypt") && call.body["EncryptionContext"]["purpose"] == "secret" {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Fate::Pass
    });
    installation.deploy(application, "v1").await.expect(202);
    aws.let_all_pass();
    count.load(std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test]
async fn a_deployment_unwraps_one_data_key_after_a_rotation() {
    let (aws, detour) = FaultyAws::for_functions().await;
    let setup = Setup { no_worker: true, no_sweeps: true, detour: Some(detour), ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let application = installation.register(json!({})).await;
    let group = installation.post("secret-groups", &json!({"name": "db"})).await.expect(201)["id"].clone();
    for index in 0..8 {
        installation.stack.forget_data_keys();
        let secret = json!({"groupId": group, "name": format!("S{index}"), "value": "value"});
        installation.post("secrets", &secret).await.expect(201);
    }
    let import = json!({"applicationId": application.id});
    installation.post(&format!("secret-groups/{group}/import"), &import).await.expect(200);
    let before = unwrapped(&installation, &aws, &application).await;
    assert!(before >= 8, "{before}");
    installation.post("data-keys/rotate", &json!({})).await.expect(202);
    let mut now = clock::now();
    for _ in 0..PASSES {
        now += LATER;
        if installation.stack.store().reencrypt(now, BUDGET).await.unwrap().running == 0 {
            break;
        }
    }
    assert_eq!(installation.get("data-keys").await.expect(200)["state"], "succeeded");
    let after = unwrapped(&installation, &aws, &application).await;
    assert_eq!(after, 1);
    println!(
        "figure: a deployment of 8 secrets with nothing cached unwrapped {before} data keys before, {after} after"
    );
}
