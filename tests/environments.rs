//! Environments over HTTP, against the embedded services: the seed's examples, activation, and how sets of variables change.

mod activation;
mod admission;
mod lifecycle;
pub(crate) mod seed;
mod sets;
mod uses;
mod values;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tidegate_aws::{
    audit::AuditEvent,
    clients::Clients,
    store::{Store, StoreConfig},
};
use tidegate_domain::id::TenantId;
use tidegate_local::provision::{KEY_ALIAS, TABLE};

use crate::administration::admin::{Admin, Answer};

const MASK: &str = "***************";

/// Signed in, with the project `proj-001`.
async fn with_project() -> Admin {
    let admin = Admin::signed_in().await;
    admin.created("projects", json!({"name": "Shop"})).await;
    admin
}

async fn environment(admin: &Admin, name: &str, variables: Value) -> Value {
    admin.created("environments", json!({"projectId": "proj-001", "name": name, "variables": variables})).await
}

#[track_caller]
fn ok(answer: &Answer) -> &Value {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    &answer.body
}

/// Names of the environments in a list, and which of them are active.
fn names(list: &Value) -> Vec<(String, bool)> {
    let of = |e: &Value| (e["name"].as_str().unwrap().to_owned(), e["isActive"].as_bool().unwrap());
    list["data"].as_array().unwrap().iter().map(of).collect()
}

/// The store of the same installation, for what no call can do.
fn store(admin: &Admin) -> Store {
    store_of(&admin.aws.clients())
}

pub(crate) fn store_of(clients: &Clients) -> Store {
    let config = StoreConfig {
        table: TABLE.to_owned(),
        key: KEY_ALIAS.to_owned(),
        host_queue_prefix: String::new(),
        intake_queue_url: None,
    };
    Store::new(clients, config)
}

pub(crate) fn tenant() -> TenantId {
    TenantId::parse("default").unwrap()
}

pub(crate) fn event() -> AuditEvent {
    let word = || "test".to_owned();
    AuditEvent { actor: word(), action: word(), subject: word(), source_ip: None, request_id: None }
}

/// Goes on with it so far: to wherever it waits when it was polled so often.
async fn poll_times<F: Future>(polls: usize, mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
