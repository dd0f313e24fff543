//! A sync that is killed at random points and run again comes to the same end.

use std::{
    collections::BTreeMap,
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
        let run = tokio::spawn(async move {
            let until = Instant::now() + Duration::from_mins(10);
            Syncer::new(store, later).run(&stack::tenant(), id, until).await
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
            Ok(ran) => matches!(ran.unwrap(), Ran::Finished(_)),
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

    /// By name: value, and whether it is stale. Each remote id stands once.
    async fn state(&self) -> BTreeMap<String, (String, bool)> {
        let (store, tenant) = (self.installation.stack.store(), stack::tenant());
        let stored = store.all_of_group(&tenant, self.group.into()).await.unwrap();
        let mut references = Vec::new();
        let mut state = BTreeMap::new();
        for secret in &stored {
            let source = serde_json::to_value(&secret.body.source).unwrap();
            references.push(source["remoteId"].to_string());
            let value = store.open_secret(&tenant, secret.id, &secret.body).await.unwrap().expose().clone();
            state.insert(secret.body.name.clone(), (value, source["stale"] == true));
        }
        assert_eq!(state.len(), stored.len());
        references.sort();
        references.dedup();
        assert_eq!(references.len(), stored.len(), "no secret is there twice");
        state
    }
}

#[tokio::test]
async fn a_sync_that_is_killed_again_and_again_comes_to_the_same_end() {
    let synced = Synced::start(json!({})).await;
    let count = secrets();
    let mut expect = BTreeMap::new();
    for index in 0..count {
        let (key, value) = (format!("SECRET_{index:04}"), format!("value {index}"));
        synced.source.set("/", &key, &value);
        expect.insert(key, (value, false));
    }
    let mut kills = 0;
    for _ in 0..3 {
        synced.kill_function_after(1 + up_to(count / 8)).await;
        kills += 1;
    }
    synced.lease_is_over().await;
    synced.is_asked_for().await;
    let mut finished = false;
    while !finished {
        finished = synced.run_until(1 + up_to(count / 4)).await;
        kills += usize::from(!finished);
    }
    assert_eq!(synced.state().await, expect);

    // Values, names in a circle, what is new and what is gone, all at once.
    for index in 0..count {
        let key = format!("SECRET_{index:04}");
        match index % 5 {
            0 => {
                synced.source.set("/", &key, "changed");
                expect.insert(key, ("changed".to_owned(), false));
            }
            1 if index + 1 < count => {
                let other = format!("SECRET_{:04}", index + 1);
                synced.source.rename("/", &key, "-");
                synced.source.rename("/", &other, &key);
                synced.source.rename("/", "-", &other);
                let (one, two) = (expect[&key].clone(), expect[&other].clone());
                expect.insert(key, two);
                expect.insert(other, one);
            }
            3 => {
                synced.source.remove("/", &key);
                expect.get_mut(&key).unwrap().1 = true;
                synced.source.set("/", &format!("NEW_{index:04}"), "new");
                expect.insert(format!("NEW_{index:04}"), ("new".to_owned(), false));
            }
            _ => {}
        }
    }
    // The run before has been asked for twice.
    let mut finished = false;
    synced.is_asked_for().await;
    while !finished {
        finished = synced.run_until(1 + up_to(count / 4)).await;
        kills += usize::from(!finished);
    }
    synced.is_asked_for().await;
    while !synced.run_until(usize::MAX).await {}
    assert_eq!(synced.state().await, expect);

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
