//! Many callers at once, and what the table keeps of them.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_aws::clock;
use tidegate_domain::limit::Limits;
use tidegate_local::provision;

use crate::support::{Answer, Application, Installation, client_from};

/// Applications, and addresses of this machine to call from.
pub(super) struct Callers {
    pub(super) installation: Installation,
    pub(super) applications: Vec<Application>,
    clients: Vec<reqwest::Client>,
}

/// One request, with the times around it in Unix milliseconds.
#[derive(Debug)]
pub(super) struct Told {
    application: usize,
    address: usize,
    pub(super) begun: i64,
    pub(super) ended: i64,
    pub(super) status: u16,
    body: Value,
}

impl Told {
    pub(super) fn accepted(&self) -> bool {
        self.status == 202
    }
}

impl Callers {
    pub(super) async fn new(installation: Installation, applications: usize, addresses: u8) -> Self {
        let mut registered = Vec::new();
        for _ in 0..applications {
            // Without ports, which two of them could be given the same of.
            registered.push(installation.register(json!({"ports": [], "healthCheck": null})).await);
        }
        let clients = (1..=addresses).map(client_from).collect();
        Self { installation, applications: registered, clients }
    }

    /// So many requests at the same time, spread over the first of the applications and of the addresses.
    pub(super) async fn all_at_once(&self, callers: usize, applications: usize, addresses: usize) -> Vec<Told> {
        join_all((0..callers).map(|i| self.call(i % applications, (i / applications + i) % addresses))).await
    }

    async fn call(&self, application: usize, address: usize) -> Told {
        let Application { id, token, .. } = &self.applications[application];
        let body = json!({"applicationId": id, "token": token, "version": "v1"});
        let url = format!("{}/webhook/deploy", self.installation.stack.url());
        let begun = clock::now().as_millisecond();
        let answer = Answer::of(self.clients[address].post(url).json(&body).send().await.unwrap()).await;
        let ended = clock::now().as_millisecond();
        Told { application, address, begun, ended, status: answer.status.as_u16(), body: answer.json() }
    }
}

/// Requests of one hour, and how many of each limit's subjects were accepted.
pub(super) struct Round {
    pub(super) told: Vec<Told>,
    by_application: BTreeMap<usize, u32>,
    by_address: BTreeMap<usize, u32>,
}

impl Round {
    pub(super) fn of(told: Vec<Told>) -> Self {
        let (mut by_application, mut by_address) = (BTreeMap::new(), BTreeMap::new());
        for accepted in told.iter().filter(|told| told.accepted()) {
            *by_application.entry(accepted.application).or_default() += 1;
            *by_address.entry(accepted.address).or_default() += 1;
        }
        Self { told, by_application, by_address }
    }

    pub(super) fn accepted(&self) -> u32 {
        self.by_application.values().sum()
    }

    /// No limit is passed, and every limit that a refusal names is full in the end: it was full then, because within the
    /// hour no place gets free.
    pub(super) fn expect_within(&self, limits: &Limits) {
        let of = |counts: &BTreeMap<usize, u32>, subject| counts.get(&subject).copied().unwrap_or_default();
        for told in &self.told {
            let counts = BTreeMap::from([
                ("per-user", (of(&self.by_application, told.application), limits.per_user)),
                ("per-ip", (of(&self.by_address, told.address), limits.per_ip)),
                ("total", (self.accepted(), limits.total)),
            ]);
            assert!(counts.values().all(|(accepted, limit)| accepted <= limit), "one too many: {counts:?} {told:?}");
            if told.accepted() {
                continue;
            }
            assert_eq!(told.status, 429, "{told:?}");
            let full = told.body["limits"].as_array().unwrap();
            assert!(!full.is_empty(), "{told:?}");
            for name in full {
                let (accepted, limit) = counts[name.as_str().unwrap()];
                assert_eq!(accepted, limit, "refused for {name} with places free: {told:?}");
            }
        }
    }
}

/// The windows as they are stored.
pub(super) struct Windows {
    client: aws_sdk_dynamodb::Client,
}

type Item = std::collections::HashMap<String, AttributeValue>;

pub(super) async fn windows(installation: &Installation) -> Windows {
    let windows = Windows { client: installation.aws().clients().dynamodb };
    // Seen to be there, or clearing them would prove nothing.
    assert!(windows.items().await.iter().all(|item| item["window"].is_s()));
    windows
}

impl Windows {
    async fn items(&self) -> Vec<Item> {
        let scan = self.client.scan().table_name(provision::TABLE).consistent_read(true);
        let only = scan.filter_expression("sk = :sk").expression_attribute_values(":sk", text("WINDOW"));
        let pages = only.into_paginator().items().send().collect::<Result<Vec<_>, _>>();
        pages.await.unwrap()
    }

    pub(super) async fn clear(&self) {
        for item in self.items().await {
            let delete = self.client.delete_item().table_name(provision::TABLE);
            delete.key("pk", item["pk"].clone()).key("sk", item["sk"].clone()).send().await.unwrap();
        }
    }

    /// Moves all hits back in time, by as much as lets the first of them stop counting at `edge_ms`. The times of all hits
    /// then, the oldest first, in Unix milliseconds.
    pub(super) async fn move_back_until(&self, edge_ms: i64) -> Vec<i64> {
        let items = self.items().await;
        let stored = |item: &Item| item["window"].as_s().unwrap().clone();
        let total = items.iter().find(|item| item["pk"].as_s().unwrap().ends_with("#TOTAL")).unwrap();
        let first = |window: &str| window.split(',').next().unwrap().parse::<i64>().unwrap();
        let by = first(&stored(total)) + 3_600_000 - edge_ms;
        let moved = |window: &str| {
            let rest = window.split_once(',').map(|(_, rest)| format!(",{rest}")).unwrap_or_default();
            format!("{}{rest}", first(window) - by)
        };
        for item in &items {
            let put = self.client.put_item().table_name(provision::TABLE).set_item(Some(item.clone()));
            put.item("window", text(&moved(&stored(item)))).send().await.unwrap();
        }
        let mut at = 0;
        let add = |distance: &str| {
            at += distance.parse::<i64>().unwrap();
            at
        };
        moved(&stored(total)).split(',').map(add).collect()
    }
}

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}
