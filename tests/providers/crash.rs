//! A sync that is killed at random points and run again comes to the same end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tidegate_aws::{clock, keys, random};
use tidegate_domain::{
    id::SecretProviderId,
    sync_run::{Asked, LEASE, SyncTrigger},
};
use tidegate_local::{provision, stack};
use tidegate_providers::{Syncer, sync::Ran};
use tokio::time::Instant;

use super::Synced;
use crate::functions::{environment, runtime_api::Function};

/// How many secrets there are.
fn secrets() -> usize {
    std::env::var("TIDEGATE_SYNC_SECRETS").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

/// Up to this.
fn up_to(most: usize) -> usize {
    usize::from(u16::from_be_bytes(random::bytes())) % most.max(1)
}

static LATER: AtomicI64 = AtomicI64::new(0);

/// Whoever comes after a kill comes when the lease of the dead is over.
fn later() -> Timestamp {
    clock::now() + SignedDuration::from_secs(LATER.load(Ordering::Relaxed))
}

impl Synced {
    async fn is_asked_for(&self) {
        let asked = Asked { trigger: SyncTrigger::Manual, actor: None, force: false };
        let id = SecretProviderId(self.provider);
        self.installation.stack.store().ask_for_sync(&stack::tenant(), id, &asked, later(), None).await.unwrap();
    }

    fn writes(&self) -> usize {
        self.meter.take().iter().filter(|call| call.operation.ends_with("TransactWriteItems")).count()
    }

    /// Runs it, and drops it in the middle of whatever it does after so many writes. Whether it has come to its end before.
    async fn run_until(&self, writes: usize) -> bool {
        self.meter.take();
        let store = self.installation.stack.store().clone();
        let id = SecretProviderId(self.provider);
        let syncer = Syncer::new(store.clone(), later);
        let run = tokio::spawn(async move {
            let until = Instant::now() + Duration::from_mins(10);
            syncer.run(&stack::tenant(), id, until).await
        });
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        let mut seen = 0;
        while !run.is_finished() {
            ticks.tick().await;
            seen += self.writes();
            if seen >= writes {
                run.abort();
                break;
            }
        }
        LATER.fetch_add(LEASE.as_secs() + 1, Ordering::Relaxed);
        match run.await {
            Ok(ran) => match ran.unwrap() {
                Ran::Finished(_) => true,
                Ran::Continues => false,
                // Killed after its last write: there is nothing left of it.
                Ran::Nothing => {
                    let state = store.sync_state(&stack::tenant(), id).await.unwrap();
                    state.run.is_none() && state.asked.is_none()
                }
            },
            Err(error) if error.is_cancelled() => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// As if the time of the lease had passed.
    async fn lease_is_over(&self) {
        let key = keys::sync_state(&stack::tenant(), SecretProviderId(self.provider));
        let dynamodb = self.installation.aws().clients().dynamodb;
        let text = |text: &str| AttributeValue::S(text.to_owned());
        dynamodb
            .update_item()
            .table_name(provision::TABLE)
            .key("pk", text(&key.pk))
            .key("sk", text(&key.sk))
            .update_expression("SET leaseUntil = :past")
            .expression_attribute_values(":past", text("2026-01-01T00:00:00Z"))
            .send()
            .await
            .unwrap();
    }

    /// The real function, killed by `kill -9` as soon as the group has changed so much more.
    async fn kill_function_after(&self, secrets: usize) {
        self.is_asked_for().await;
        self.lease_is_over().await;
        let function = Function::start("tidegate-sync", &environment(&self.installation)).await;
        let store = self.installation.stack.store();
        let count = async || store.names_of_group(&stack::tenant(), self.group.into()).await.unwrap().len();
        let wanted = count().await + secrets;
        tokio::select! {
            _ = function.invoke(json!({})) => {}
            () = async {
                let mut ticks = tokio::time::interval(Duration::from_millis(2));
                while count().await < wanted {
                    ticks.tick().await;
                }
            } => {}
        }
        drop(function);
    }

    /// A run that is killed after some writes, and gone on with and killed again, to its end. How often it was killed.
    async fn run_with_kills(&self, most_writes: usize) -> usize {
        let mut kills = 0;
        self.is_asked_for().await;
        while !self.run_until(1 + up_to(most_writes)).await {
            kills += 1;
        }
        kills
    }

    /// By name. Each remote id stands once, and has the secret that it had when it was seen first.
    async fn state(&self, ids: &mut BTreeMap<String, u64>) -> BTreeMap<String, Kept> {
        let (store, tenant) = (self.installation.stack.store(), stack::tenant());
        let stored = store.all_of_group(&tenant, self.group.into()).await.unwrap();
        let mut remote_ids = BTreeSet::new();
        let mut state = BTreeMap::new();
        for secret in &stored {
            let source = serde_json::to_value(&secret.body.source).unwrap();
            let remote_id = source["remoteId"].as_str().unwrap().to_owned();
            assert_eq!(*ids.entry(remote_id.clone()).or_insert(secret.id), secret.id, "{remote_id} is the same secret");
            remote_ids.insert(remote_id);
            let value = store.open_secret(&tenant, secret.id, &secret.body).await.unwrap().expose().clone();
            let kept = Kept { value, version: secret.body.value_version, is_stale: source["stale"] == true };
            state.insert(secret.body.name.clone(), kept);
        }
        assert_eq!((state.len(), remote_ids.len()), (stored.len(), stored.len()), "no secret is there twice");
        state
    }

    /// Added, updated, renamed and removed by all runs that are logged, which have ended.
    async fn written(&self) -> [u64; 4] {
        let runs =
            self.installation.get(&format!("secret-providers/{}/syncs?limit=200", self.provider)).await.expect(200);
        let mut written = [0; 4];
        for run in runs["data"].as_array().unwrap() {
            assert_eq!(run["status"], "success", "{run}");
            for (sum, name) in written.iter_mut().zip(["added", "updated", "renamed", "removed"]) {
                *sum += run[name].as_u64().unwrap();
            }
        }
        written
    }
}

/// A secret as it should be. Its version tells how often it has got another value.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    value: String,
    version: u64,
    is_stale: bool,
}

impl Kept {
    fn first(value: &str) -> Self {
        Self { value: value.to_owned(), version: 1, is_stale: false }
    }
}

#[tokio::test]
async fn a_sync_that_is_killed_again_and_again_comes_to_the_same_end() {
    let synced = Synced::start(json!({})).await;
    let count = secrets();
    let (mut expect, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for index in 0..count {
        let (key, value) = (format!("SECRET_{index:04}"), format!("value {index}"));
        synced.source.set("/", &key, &value);
        expect.insert(key, Kept::first(&value));
    }
    let mut kills = 0;
    for _ in 0..3 {
        synced.kill_function_after(1 + up_to(count / 8)).await;
        kills += 1;
    }
    synced.lease_is_over().await;
    kills += synced.run_with_kills(count / 4).await;
    assert_eq!(synced.state(&mut ids).await, expect);

    // Values, names in a circle, what is new and what is gone, all at once.
    let (mut new, mut changed, mut swapped, mut gone) = (0, 0, 0, 0);
    for index in 0..count {
        let key = format!("SECRET_{index:04}");
        match index % 5 {
            0 => {
                synced.source.set("/", &key, "changed");
                expect.insert(key, Kept { version: 2, ..Kept::first("changed") });
                changed += 1;
            }
            1 if index + 1 < count => {
                let other = format!("SECRET_{:04}", index + 1);
                synced.source.rename("/", &key, "-");
                synced.source.rename("/", &other, &key);
                synced.source.rename("/", "-", &other);
                let (one, two) = (expect[&key].clone(), expect[&other].clone());
                expect.insert(key, two);
                expect.insert(other, one);
                swapped += 2;
            }
            3 => {
                synced.source.remove("/", &key);
                expect.get_mut(&key).unwrap().is_stale = true;
                synced.source.set("/", &format!("NEW_{index:04}"), "new");
                expect.insert(format!("NEW_{index:04}"), Kept::first("new"));
                gone += 1;
                new += 1;
            }
            _ => {}
        }
    }
    // The run before has been asked for twice.
    kills += synced.run_with_kills(count / 4).await;
    synced.is_asked_for().await;
    while !synced.run_until(usize::MAX).await {}
    assert_eq!(synced.state(&mut ids).await, expect);
    assert_eq!(
        synced.written().await,
        [count as u64 + new, changed, swapped, gone],
        "what is counted is what was written"
    );

    synced.is_asked_for().await;
    let before = versions(&synced).await;
    synced.meter.take();
    let run = Syncer::new(synced.installation.stack.store().clone(), later);
    let until = Instant::now() + Duration::from_mins(10);
    let ran = run.run(&stack::tenant(), SecretProviderId(synced.provider), until).await.unwrap();
    let writes = synced.writes();
    assert!(matches!(ran, Ran::Finished(_)));
    assert_eq!(versions(&synced).await, before, "no new version of what is unchanged");
    assert_eq!(writes, 2, "the beginning of the run and its end");
    println!("figure: {count} secrets, {kills} kills, 3 of them kill -9 of the function: the same end state");
    println!("figure: an unchanged sync of {} secrets makes {writes} writes, none of a secret", expect.len());
}

async fn versions(synced: &Synced) -> Vec<Value> {
    let stored = synced.installation.stack.store().all_of_group(&stack::tenant(), synced.group.into()).await.unwrap();
    stored.iter().map(|s| json!([s.id, s.revision.0, s.body.value_version])).collect()
}

#[tokio::test]
async fn deletions_that_are_killed_again_and_again_take_what_has_gone_and_nothing_else() {
    let synced = Synced::start(json!({"onRemoved": "delete"})).await;
    let count = secrets() / 3;
    let (mut expect, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for index in 0..count {
        let (key, value) = (format!("SECRET_{index:04}"), format!("value {index}"));
        synced.source.set("/", &key, &value);
        expect.insert(key, Kept::first(&value));
    }
    synced.is_asked_for().await;
    while !synced.run_until(usize::MAX).await {}
    assert_eq!(synced.state(&mut ids).await, expect);
    let used = synced.secret("SECRET_0000").await["id"].clone();
    let variable =
        json!({"scope": "global", "key": "USED", "value": format!("@secret:{used}"), "valueType": "secret_ref"});
    synced.installation.post("variables", &variable).await.expect(201);

    // Half of them, one that is used among them.
    let gone: Vec<_> = (0..count).step_by(2).take(count / 2).map(|index| format!("SECRET_{index:04}")).collect();
    for key in &gone {
        synced.source.remove("/", key);
        expect.remove(key);
    }
    expect.insert("SECRET_0000".to_owned(), Kept { is_stale: true, ..Kept::first("value 0") });
    let mut kills = synced.run_with_kills(count / 8).await;
    assert_eq!(synced.state(&mut ids).await, expect);
    assert_eq!(synced.written().await, [count as u64, 0, 0, gone.len() as u64]);

    // More than half of the rest: kept, however often somebody begins anew.
    for index in (1..count).step_by(2).skip(count / 8) {
        let key = format!("SECRET_{index:04}");
        synced.source.remove("/", &key);
        expect.get_mut(&key).unwrap().is_stale = true;
    }
    kills += synced.run_with_kills(count / 8).await;
    assert_eq!(synced.state(&mut ids).await, expect);
    println!("figure: {} deletions of {count} secrets under {kills} kills: those alone that had gone", gone.len() - 1);
}
