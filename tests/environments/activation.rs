//! At every read exactly one environment is active, whatever is activated meanwhile.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tidegate_aws::{
    catalogue::{PageRequest, Stored},
    clock,
    environments::Environment,
};
use tidegate_domain::id::ProjectId;

use super::{environment, event, names, ok, poll_times, store, tenant, with_project};
use crate::administration::admin::{Admin, Answer};

const CALLS: usize = 50;
const ENVIRONMENTS: usize = 5;
const READERS: usize = 12;
const READS: usize = 100;

async fn activate(admin: &Admin, env_id: &str) -> Answer {
    admin.call(Method::POST, &format!("environments/{env_id}/activate"), &[], None).await
}

fn active(list: &serde_json::Value) -> Vec<String> {
    names(list).into_iter().filter(|(_, is_active)| *is_active).map(|(name, _)| name).collect()
}

/// Reads until `done`, and at least once: how often the list and the active one were read.
async fn read_until(admin: &Admin, done: &AtomicBool, lists: &AtomicUsize, actives: &AtomicUsize) {
    loop {
        let last = done.load(Ordering::SeqCst);
        let listed = admin.get("environments?projectId=proj-001").await;
        let found = active(ok(&listed));
        assert_eq!(found.len(), 1, "{found:?} of {:?}", names(&listed.body));
        lists.fetch_add(1, Ordering::SeqCst);
        let shown = admin.get("environments/active?projectId=proj-001").await;
        assert_eq!(ok(&shown)["isActive"], true);
        actives.fetch_add(1, Ordering::SeqCst);
        if last {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_is_active_at_every_read_under_fifty_concurrent_activations() {
    let admin = with_project().await;
    let mut env_ids = Vec::new();
    for index in 0..ENVIRONMENTS {
        let created = environment(&admin, &format!("Environment {index}"), json!({"INDEX": index})).await;
        env_ids.push(created["envId"].as_str().unwrap().to_owned());
    }
    ok(&activate(&admin, &env_ids[0]).await);
    let (done, lists, actives) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut waves = 0;
    let calls = async {
        // Until enough was read in between for the claim to mean something.
        while lists.load(Ordering::SeqCst) < READS {
            let calls = (0..CALLS).map(|index| activate(&admin, &env_ids[index % ENVIRONMENTS]));
            for answer in join_all(calls).await {
                assert_eq!(ok(&answer)["isActive"], true);
            }
            waves += 1;
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(calls, join_all((0..READERS).map(|_| read_until(&admin, &done, &lists, &actives))));
    println!(
        "figure: {waves} times {CALLS} concurrent activations over {ENVIRONMENTS} environments: {} reads of the list and {} of the \
         active one meanwhile, each saw exactly one",
        lists.load(Ordering::SeqCst),
        actives.load(Ordering::SeqCst)
    );
}

/// The list and the pointer are two reads: what comes and goes between them must not show as none.
#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_is_active_at_every_read_while_environments_come_and_go() {
    const ROUNDS: usize = 12;
    let admin = with_project().await;
    let mut former = environment(&admin, "Round", json!({})).await["envId"].as_str().unwrap().to_owned();
    ok(&activate(&admin, &former).await);
    let (done, lists, actives) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let rounds = async {
        for round in 0..ROUNDS {
            let next = environment(&admin, &format!("Round {round}"), json!({})).await;
            let next = next["envId"].as_str().unwrap().to_owned();
            ok(&activate(&admin, &next).await);
            assert_eq!(admin.delete(&format!("environments/{former}")).await.status, StatusCode::NO_CONTENT);
            former = next;
        }
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(rounds, join_all((0..READERS).map(|_| read_until(&admin, &done, &lists, &actives))));
    println!(
        "figure: {ROUNDS} times another was created and activated, and the former deleted: {} reads of the list and {} of the \
         active one meanwhile, each saw exactly one",
        lists.load(Ordering::SeqCst),
        actives.load(Ordering::SeqCst)
    );
}

/// As before, with the reader held up wherever he waits, until another is active and the former gone.
#[tokio::test]
async fn a_reader_who_is_overtaken_between_his_calls_sees_exactly_one() {
    let admin = with_project().await;
    let (store, tenant, project) = (store(&admin), tenant(), ProjectId(1));
    let add = async |id: u64| {
        let body = Environment::new(project, format!("Environment {id:03}"), String::new(), false);
        let stored = Stored::new(id, body, clock::now());
        store.create_environment(&tenant, &stored, None, &event()).await.unwrap();
        store.activate_environment(&tenant, &stored, stored.created_at, &event()).await.unwrap();
        stored
    };
    let mut former = add(1).await;
    let (first, mut held_up) = (PageRequest { limit: 50, cursor: None }, 0);
    for polls in 1.. {
        let mut listing = pin!(store.list_environments(&tenant, Some(project), &first));
        let mut showing = pin!(store.environment_in_effect(&tenant, project, None));
        let listed = poll_times(polls, listing.as_mut()).await;
        let shown = poll_times(polls, showing.as_mut()).await;
        let was_ended = listed.is_some() && shown.is_some();
        let next = add(former.id + 1).await;
        store.delete_environment(&tenant, &former, clock::now(), &event()).await.unwrap();
        former = next;
        let (listed, active) = match listed {
            Some(listed) => listed.unwrap(),
            None => listing.await.unwrap(),
        };
        let active = active[&project];
        let of: Vec<_> = listed.data.iter().map(|found| found.id).collect();
        assert!(of.contains(&active.0), "held up after {polls} polls: {active} is active, of {of:?}");
        let shown = match shown {
            Some(shown) => shown.unwrap(),
            None => showing.await.unwrap(),
        };
        assert!(shown.is_some(), "held up after {polls} polls");
        if was_ended {
            break;
        }
        held_up += 1;
    }
    assert!(held_up >= 3, "{held_up}");
    println!(
        "figure: a reader held up at {held_up} points while the active one was exchanged saw exactly one each time"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_activation_and_a_deletion_at_once_one_is_refused() {
    const ROUNDS: usize = 20;
    let admin = with_project().await;
    let first = environment(&admin, "First", json!({})).await["envId"].as_str().unwrap().to_owned();
    let mut deleted = 0;
    for round in 0..ROUNDS {
        ok(&activate(&admin, &first).await);
        let name = format!("Round {round}");
        let env_id = environment(&admin, &name, json!({})).await["envId"].as_str().unwrap().to_owned();
        let path = format!("environments/{env_id}");
        let (activation, deletion) = tokio::join!(activate(&admin, &env_id), admin.delete(&path));
        let listed = admin.get("environments?projectId=proj-001").await.body;
        match (activation.status, deletion.status) {
            (StatusCode::OK, StatusCode::CONFLICT) => assert_eq!(active(&listed), [name]),
            (StatusCode::NOT_FOUND, StatusCode::NO_CONTENT) => {
                assert_eq!(active(&listed), ["First"]);
                deleted += 1;
            }
            both => panic!("{both:?}: {} {}", activation.body, deletion.body),
        }
    }
    println!(
        "figure: {ROUNDS} races of an activation and a deletion: {deleted} deleted, {} activated, none both",
        ROUNDS - deleted
    );
}
