//! A provider or a group that is written while it is synced, or filled from elsewhere: nothing goes on by what was before, and
//! nothing is lost.

use serde_json::{Value, json};

use super::Synced;
use crate::support::fake_infisical::{FakeInfisical, Gate};

impl Synced {
    /// Asks for a run, which hangs at the gate until the change is made.
    async fn changed_during_a_run(&self, gate: &Gate, change: impl AsyncFnOnce()) -> Value {
        let asked = self.ask(json!({}));
        let changed = async {
            gate.reached().await;
            change().await;
            gate.open();
        };
        let (answer, ()) = tokio::join!(asked, changed);
        answer.expect(202)
    }

    /// Everything that is due, until nothing is.
    async fn pass_until_nothing_is_due(&self) {
        let passed = crate::support::eventually("nothing that is due", async || {
            let passed = self.pass().await;
            (passed.due == 0).then_some(passed)
        });
        passed.await;
    }

    async fn stale(&self) -> Vec<String> {
        let secrets = self.secrets().await;
        secrets.iter().filter(|s| s["stale"] == true).map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    }
}

const NAMES: [&str; 6] = ["A", "B", "C", "D", "E", "F"];

/// Six secrets in `/`, four of the same names wherever the group is filled from then: what is not there was not removed.
async fn nothing_is_lost(moved: impl AsyncFnOnce(&Synced)) {
    let synced = Synced::start(json!({"onRemoved": "delete"})).await;
    for name in NAMES {
        synced.source.set("/", name, "v");
    }
    assert_eq!(synced.sync(json!({})).await, [6, 0, 0, 0, 0]);
    moved(&synced).await;
    let run = synced.ask(json!({"dryRun": true})).await.expect(200);
    assert_eq!(run["groups"][0]["heldBack"], 2, "{run}");
    let run = synced.ask(json!({})).await.expect(200);
    assert_eq!(
        (&run["added"], &run["updated"], &run["removed"], &run["heldBack"]),
        (&json!(0), &json!(0), &json!(2), &json!(2)),
        "{run}"
    );
    assert_eq!(synced.names().await, NAMES);
    assert_eq!(synced.stale().await, ["E", "F"]);
    // From here on it is this place that they go from.
    synced.sync(json!({})).await;
    assert_eq!(synced.names().await, NAMES);
    assert_eq!(synced.sync(json!({"force": true})).await, [0, 0, 0, 2, 4]);
    assert_eq!(synced.names().await, &NAMES[..4]);
}

#[tokio::test]
async fn a_group_that_is_filled_from_another_folder_loses_nothing() {
    nothing_is_lost(async |synced: &Synced| {
        for name in &NAMES[..4] {
            synced.source.set("/other", name, "v");
        }
        synced.change_group(json!({"remotePath": "/other"})).await;
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_reads_another_environment_loses_nothing() {
    nothing_is_lost(async |synced: &Synced| {
        synced.source.change("/", |held| held.truncate(4));
        synced.change_provider(json!({"config": {"environment": "staging"}})).await;
    })
    .await;
}

#[tokio::test]
async fn a_group_that_is_filled_by_another_provider_loses_nothing() {
    let other = FakeInfisical::start().await;
    for name in &NAMES[..4] {
        other.set("/", name, "v");
    }
    let synced = Synced::start(json!({"onRemoved": "delete"})).await;
    for name in NAMES {
        synced.source.set("/", name, "v");
    }
    synced.sync(json!({})).await;
    let provider = json!({"name": "other", "type": "infisical", "config": other.config(), "onRemoved": "delete"});
    let provider = synced.installation.post("secret-providers", &provider).await.expect(201)["id"].as_u64().unwrap();
    synced.change_group(json!({"providerId": provider})).await;
    let synced = Synced { provider, ..synced };
    assert_eq!(synced.sync(json!({})).await, [0, 0, 0, 2, 0]);
    assert_eq!(
        (synced.names().await, synced.stale().await),
        (NAMES.map(str::to_owned).to_vec(), vec!["E".to_owned(), "F".to_owned()])
    );
    // What then goes from the new one is deleted.
    other.remove("/", "A");
    assert_eq!(synced.sync(json!({})).await, [0, 0, 0, 1, 3]);
    assert_eq!(synced.names().await, &NAMES[1..]);
}

#[tokio::test]
async fn a_provider_that_stops_syncing_by_itself_stops() {
    let synced = Synced::start(json!({"autoSync": true, "syncIntervalMinutes": 1})).await;
    synced.source.set("/", "A", "a");
    let gate = synced.source.gate("secrets");
    let changed = async {
        gate.reached().await;
        synced.change_provider(json!({"autoSync": false})).await;
        gate.open();
    };
    let (passed, ()) = tokio::join!(synced.pass(), changed);
    assert_eq!((passed.due, passed.succeeded), (1, 0));
    synced.pass_until_nothing_is_due().await;
    assert_eq!(synced.names().await, Vec::<String>::new());
    let shown = synced.provider().await;
    assert_eq!((&shown["nextSyncAt"], &shown["lastSyncStatus"]), (&Value::Null, &json!("success")), "{shown}");
    assert_eq!(synced.sync(json!({})).await, [1, 0, 0, 0, 0], "people may ask all the same");
}

#[tokio::test]
async fn a_right_secret_that_comes_during_a_run_is_tried_at_once() {
    let synced = Synced::start(json!({"autoSync": true})).await;
    synced.source.set("/", "A", "a");
    synced.change_provider(json!({"config": {"clientSecret": "wrong"}})).await;
    let gate = synced.source.gate("login");
    let right = json!({"config": {"clientSecret": synced.source.client_secret()}});
    synced.changed_during_a_run(&gate, async || drop(synced.change_provider(right).await)).await;
    assert_eq!(synced.source.refused_logins(), 1);
    assert_eq!(synced.pass().await.succeeded, 1);
    assert_eq!(synced.names().await, ["A"]);
    let shown = synced.provider().await;
    assert_eq!((&shown["lastSyncStatus"], &shown["lastSyncError"]), (&json!("success"), &Value::Null), "{shown}");
}

#[tokio::test]
async fn nothing_is_deleted_any_more_once_it_is_to_be_kept() {
    let synced = Synced::start(json!({"onRemoved": "delete"})).await;
    for name in NAMES {
        synced.source.set("/", name, "v");
    }
    synced.sync(json!({})).await;
    synced.source.remove("/", "A");
    let gate = synced.source.gate("secrets");
    synced
        .changed_during_a_run(&gate, async || drop(synced.change_provider(json!({"onRemoved": "retain"})).await))
        .await;
    synced.pass_until_nothing_is_due().await;
    assert_eq!(synced.names().await, NAMES);
    assert_eq!(synced.stale().await, ["A"]);
}

#[tokio::test]
async fn a_group_that_moves_during_a_run_is_not_filled_from_where_it_was() {
    let (synced, other) = (Synced::start(json!({})).await, FakeInfisical::start().await);
    synced.source.set("/", "FROM_THE_FIRST", "v");
    synced.source.set("/below", "FROM_BELOW", "v");
    other.set("/below", "FROM_THE_OTHER", "v");
    let gate = synced.source.gate("secrets");
    synced.changed_during_a_run(&gate, async || drop(synced.change_group(json!({"remotePath": "/below"})).await)).await;
    synced.pass_until_nothing_is_due().await;
    assert_eq!(synced.names().await, ["FROM_BELOW"]);
    let provider = json!({"name": "other", "type": "infisical", "config": other.config()});
    let provider = synced.installation.post("secret-providers", &provider).await.expect(201)["id"].as_u64().unwrap();
    synced.source.set("/below", "LATER", "v");
    let gate = synced.source.gate("secrets");
    let run =
        synced.changed_during_a_run(&gate, async || drop(synced.change_group(json!({"providerId": provider})).await));
    run.await;
    synced.pass_until_nothing_is_due().await;
    assert_eq!(synced.names().await, ["FROM_BELOW"], "its provider of before adds nothing");
    let synced = Synced { provider, ..synced };
    synced.sync(json!({})).await;
    assert_eq!(synced.names().await, ["FROM_BELOW", "FROM_THE_OTHER"]);
    // One that does not exist is a fault of the group's.
    let path = format!("secret-groups/{}", synced.group);
    assert_eq!(synced.installation.put(&path, &json!({"providerId": 999_999})).await.status.as_u16(), 422);
}
