//! Environments that refer to more secrets than one transaction can count: whatever a crash cuts short, the set is the old or
//! the new one, and in the end every secret counts what refers to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::pin,
};

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tidegate_aws::{
    catalogue::Stored,
    clock,
    environments::{Deletion, Environment},
    error::StoreError,
    keys::Kind,
    store::Store,
    variables::{StoredValue, StoredVariable},
};
use tidegate_domain::{
    id::{EnvironmentId, ProjectId, Revision, SecretId},
    variable::{ValueType, VariableKey},
};
use tidegate_local::provision::TABLE;

use super::{event, ok, poll_times, store, tenant, with_project};
use crate::{administration::admin::Admin, support::eventually};

/// More than two steps, which hold 45 each.
const SECRETS: u64 = 100;

/// When whoever took steps has ended long ago.
fn later() -> Timestamp {
    clock::now() + SignedDuration::from_hours(2)
}

async fn with_secrets() -> (Admin, Store) {
    let admin = with_project().await;
    admin.created("secret-groups", json!({"name": "db"})).await;
    let create = async |index: u64| {
        admin.created("secrets", json!({"groupId": 1, "name": format!("S{index}"), "value": "x"})).await;
    };
    stream::iter(0..SECRETS).map(create).buffer_unordered(4).collect::<Vec<()>>().await;
    let store = store(&admin);
    (admin, store)
}

fn references(secrets: std::ops::RangeInclusive<u64>) -> Vec<StoredVariable> {
    let now = clock::now();
    let of = |id: u64| StoredVariable {
        key: VariableKey::parse(&format!("V{id}")).unwrap(),
        value_type: ValueType::SecretRef,
        value: StoredValue::Reference { secret_id: SecretId(id) },
        revision: Revision(1),
        created_at: now,
        updated_at: now,
    };
    secrets.map(of).collect()
}

fn of_name(name: &str, variables: Vec<StoredVariable>) -> Environment {
    Environment::new(ProjectId(1), name.to_owned(), String::new(), false).with_variables(variables)
}

type Item = HashMap<String, AttributeValue>;

/// What the secrets count and list, and what the environments, deleted or not, refer to.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    counts: BTreeMap<u64, u64>,
    listed: BTreeSet<(u64, String)>,
    referred: BTreeSet<(u64, String)>,
    /// Drafts and due entries that are left.
    left: usize,
}

impl Counted {
    async fn read(admin: &Admin) -> Self {
        let mut counted = Self { counts: BTreeMap::new(), listed: BTreeSet::new(), referred: BTreeSet::new(), left: 0 };
        let mut start = None;
        loop {
            let scan = admin.aws.clients().dynamodb.scan().table_name(TABLE).consistent_read(true);
            let page = scan.set_exclusive_start_key(start).send().await.unwrap();
            page.items.unwrap_or_default().iter().for_each(|item| counted.add(item));
            start = page.last_evaluated_key;
            if start.is_none() {
                return counted;
            }
        }
    }

    fn add(&mut self, item: &Item) {
        let text = |name: &str| item[name].as_s().unwrap().clone();
        let number = |value: &AttributeValue| value.as_n().unwrap().parse::<u64>().unwrap();
        let (pk, sk) = (text("pk"), text("sk"));
        let kind = pk.strip_prefix("TENANT#default#").unwrap_or(&pk);
        if kind == Kind::Secret.name() {
            self.counts.insert(number(&item["id"]), number(&item["uses"]));
        } else if let Some(id) = kind.strip_prefix("SECRET#").and_then(|rest| rest.strip_suffix("#USES")) {
            self.listed.insert((id.parse().unwrap(), sk));
        } else if kind == Kind::Environment.name() || kind == Kind::DeletedEnvironment.name() {
            let id = EnvironmentId(number(&item["id"]));
            for variable in item["body"].as_m().unwrap()["variables"].as_l().unwrap() {
                let variable = variable.as_m().unwrap();
                let key = variable["key"].as_s().unwrap();
                if let Some(secret) = variable["value"].as_m().unwrap().get("secretId") {
                    self.referred.insert((number(secret), format!("{id}.{key}")));
                }
            }
        } else if kind == Kind::EnvironmentDraft.name() || kind == "ENVIRONMENTS_DUE" {
            self.left += 1;
        }
    }

    /// Whether every secret counts and lists what refers to it.
    fn is_exact(&self) -> bool {
        let of = |id: u64| self.listed.iter().filter(|(secret, _)| *secret == id).count() as u64;
        self.listed == self.referred && self.counts.iter().all(|(id, count)| of(*id) == *count)
    }

    /// Whether no secret counts less than refers to it: else it could be deleted under a variable.
    fn is_safe(&self) -> bool {
        let of = |id: u64| self.referred.iter().filter(|(secret, _)| *secret == id).count() as u64;
        self.counts.iter().all(|(id, count)| of(*id) <= *count)
    }
}

/// Polls it so often, and then drops it: what was sent may still arrive.
async fn cut_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    poll_times(polls, pin!(future)).await
}

/// Sweeps until all is as it should be: what a dropped call had sent may arrive after a pass.
async fn settled(admin: &Admin, store: &Store, what: &str) {
    eventually(what, async || {
        store.sweep_environments(later()).await.unwrap();
        let counted = Counted::read(admin).await;
        assert!(counted.is_safe(), "{what}: {counted:?}");
        (counted.is_exact() && counted.left == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_clone_of_a_hundred_references_is_whole_and_counted() {
    let (admin, store) = with_secrets().await;
    let source = Stored::new(1_000, of_name("Source", references(1..=SECRETS)), clock::now());
    store.create_environment(&tenant(), &source, None, &event()).await.unwrap();
    let clone = admin.created("environments/env-1000/clone", json!({"name": "Copy"})).await;
    let path = format!("environments/{}", clone["envId"].as_str().unwrap());
    assert_eq!(clone["variables"].as_object().unwrap().len(), 100);
    let counted = Counted::read(&admin).await;
    assert!(counted.is_exact() && counted.left == 0 && counted.listed.len() == 200, "{counted:?}");
    // The map drops them all at once.
    ok(&admin.put(&path, json!({"variables": {"PLAIN": "1"}})).await);
    let counted = Counted::read(&admin).await;
    assert!(counted.is_exact() && counted.left == 0 && counted.listed.len() == 100, "{counted:?}");
    // A name that is taken is found out at the end, and leaves nothing.
    let taken = admin.post("environments/env-1000/clone", json!({"name": "Copy"})).await;
    assert_eq!(taken.status.as_u16(), 409, "{}", taken.body);
    let counted = Counted::read(&admin).await;
    assert!(counted.is_exact() && counted.left == 0 && counted.listed.len() == 100, "{counted:?}");
}

#[tokio::test]
async fn a_creation_that_is_cut_short_is_not_there_and_leaves_nothing() {
    let (admin, store) = with_secrets().await;
    let (mut cuts, mut polls) = (0, 1);
    loop {
        let id = EnvironmentId(1_000 + polls as u64);
        let body = of_name(&format!("Cut {polls}"), references(1..=SECRETS));
        let stored = Stored::new(id.0, body, clock::now());
        let made = Box::pin(cut_after(polls, store.create_environment(&tenant(), &stored, None, &event()))).await;
        match store.environment(&tenant(), id).await {
            Ok(found) => assert_eq!(found.body.variables.len(), 100),
            Err(StoreError::Missing) => assert!(made.is_none()),
            Err(other) => panic!("{other}"),
        }
        settled(&admin, &store, "no draft and no use of it").await;
        if let Some(made) = made {
            made.unwrap();
            break;
        }
        (cuts, polls) = (cuts + 1, polls + 1);
    }
    // One at least between its transactions.
    assert!(cuts >= 5, "{cuts}");
    println!(
        "figure: a creation of 100 references cut short at {cuts} points: whole or not there, every use counted in the end"
    );
}

#[tokio::test]
async fn a_replaced_set_that_is_cut_short_is_the_old_or_the_new_one() {
    let (admin, store) = with_secrets().await;
    let id = EnvironmentId(1_000);
    let stored = Stored::new(id.0, of_name("Cut", references(1..=60)), clock::now());
    store.create_environment(&tenant(), &stored, None, &event()).await.unwrap();
    let sets = [references(1..=60), references(41..=SECRETS)];
    let keys = |variables: &[StoredVariable]| variables.iter().map(|v| v.key.clone()).collect::<BTreeSet<_>>();
    let (mut cuts, mut polls) = (0, 1);
    loop {
        let old = store.environment(&tenant(), id).await.unwrap();
        let next = usize::from(keys(&old.body.variables) == keys(&sets[0]));
        let body = old.body.clone().with_variables(sets[next].clone());
        let made =
            Box::pin(cut_after(polls, store.replace_environment(&tenant(), &old, body, clock::now(), &event()))).await;
        let seen = keys(&store.environment(&tenant(), id).await.unwrap().body.variables);
        assert!(sets.iter().any(|set| keys(set) == seen), "{seen:?}");
        assert!(Counted::read(&admin).await.is_safe());
        settled(&admin, &store, "no surplus").await;
        if let Some(made) = made {
            made.unwrap();
            break;
        }
        (cuts, polls) = (cuts + 1, polls + 1);
    }
    // One at least between its transactions.
    assert!(cuts >= 5, "{cuts}");
    println!(
        "figure: a set of 60 references replaced by 60 others, cut short at {cuts} points: one or the other, every use counted in the end"
    );
}

#[tokio::test]
async fn a_purge_that_is_cut_short_goes_on_where_it_was() {
    let (admin, store) = with_secrets().await;
    let id = EnvironmentId(1_000);
    let stored = Stored::new(id.0, of_name("Cut", references(1..=SECRETS)), clock::now());
    store.create_environment(&tenant(), &stored, None, &event()).await.unwrap();
    let deletion = store.delete_environment(&tenant(), &stored, clock::now(), &event()).await.unwrap();
    assert_eq!(deletion, Deletion::Done);
    let due = clock::now() + SignedDuration::from_hours(24 * 31);
    let mut polls = 2;
    while cut_after(polls, store.sweep_environments(due)).await.is_none() {
        let counted = Counted::read(&admin).await;
        assert!(counted.is_safe(), "{counted:?}");
        if counted.left != 1 {
            // Only the answer to the last write was cut off: then all of it is done.
            let counted = Counted::read(&admin).await;
            assert!(counted.is_exact() && counted.left == 0 && counted.listed.is_empty(), "{counted:?}");
        }
        polls += 1;
    }
    let counted = Counted::read(&admin).await;
    assert!(counted.is_exact() && counted.left == 0 && counted.listed.is_empty(), "{counted:?}");
}
