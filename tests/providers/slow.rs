//! Sources that take their time, runs that have much to tell, and guards that are lifted.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use tidegate_aws::{catalogue::Stored, providers::SecretProvider};
use tidegate_domain::sync_run::FAILURES_TOLD;
use tidegate_local::{provision, stack};
use tidegate_providers::sync::{AskError, Pace};
use tokio::time::Instant;

use super::Synced;
use crate::support::fake_infisical::Fate;

const LONG: Duration = Duration::from_mins(10);

impl Synced {
    async fn group_of(&self, name: &str, path: &str) -> u64 {
        let group = json!({"name": name, "providerId": self.provider, "autoSync": true, "remotePath": path});
        self.installation.post("secret-groups", &group).await.expect(201)["id"].as_u64().unwrap()
    }
}

#[tokio::test]
async fn a_listing_that_takes_longer_than_its_share_comes_to_its_end() {
    let synced = Synced::start(json!({"autoSync": true})).await;
    synced.source.set("/", "A", "a");
    synced.source.judge_by(|call| match call.line.as_str() {
        "GET /api/v4/secrets" => Fate::Late(Duration::from_millis(500)),
        _ => Fate::Pass,
    });
    let pace = Pace { slice: Duration::from_millis(50), listing: LONG, writing: LONG };
    let passed = synced.syncer().at_pace(pace).pass(Instant::now() + LONG).await.unwrap();
    assert_eq!((passed.succeeded, passed.continued), (1, 0), "{passed:?}");
    assert_eq!(synced.names().await, ["A"]);
}

#[tokio::test]
async fn a_listing_without_end_fails_its_group_alone() {
    let synced = Synced::start(json!({"autoSync": true})).await;
    synced.source.set("/", "A", "a");
    synced.source.set("/quick", "B", "b");
    synced.source.judge_by(|call| match call.query.get("secretPath").map(String::as_str) {
        Some("/") => Fate::Late(LONG),
        _ => Fate::Pass,
    });
    let quick = synced.group_of("quick", "/quick").await;
    let pace = Pace { slice: LONG, listing: Duration::from_secs(1), writing: LONG };
    let passed = synced.syncer().at_pace(pace).pass(Instant::now() + LONG).await.unwrap();
    assert_eq!((passed.failed, passed.continued), (1, 0), "it is not begun again and again: {passed:?}");
    let shown = synced.provider().await;
    assert_eq!(shown["lastSyncError"]["code"], "too-slow", "{shown}");
    assert!(shown["nextSyncAt"].is_string());
    assert_eq!(Synced { group: quick, ..synced }.names().await, ["B"]);
}

#[tokio::test]
async fn nobody_waits_for_a_source_longer_than_was_said() {
    let synced = Synced::start(json!({})).await;
    synced.source.judge_by(|_| Fate::Late(Duration::from_secs(3)));
    let (tenant, store) = (stack::tenant(), synced.installation.stack.store());
    let provider: Stored<SecretProvider> = store.find(&tenant, synced.provider).await.unwrap();
    let asked = synced.syncer();
    let soon = || Instant::now() + Duration::from_millis(100);
    let code = |error: AskError| match error {
        AskError::Source(error) => error.code(),
        AskError::Store(error) => panic!("{error}"),
    };
    assert_eq!(asked.check(&tenant, &provider, soon()).await.map_err(code), Err("unavailable"));
    assert_eq!(asked.plan(&tenant, &provider, false, soon()).await.map(drop).map_err(code), Err("unavailable"));
}

#[tokio::test]
async fn of_many_groups_that_fail_some_are_told() {
    let synced = Synced::start(json!({})).await;
    synced.source.set("/", "A", "a");
    synced.source.set("/taken", "TOKEN", "t");
    let more = 3;
    for index in 0..FAILURES_TOLD + more {
        let group = synced.group_of(&format!("group-{index}"), "/taken").await;
        let own = json!({"groupId": group, "name": "TOKEN", "value": "by hand"});
        synced.installation.post("secrets", &own).await.expect(201);
    }
    let run = synced.ask(json!({})).await.expect(200);
    assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!("name-conflict")), "{run}");
    assert_eq!((run["errors"].as_array().unwrap().len(), &run["moreErrors"]), (FAILURES_TOLD, &json!(more)));
    assert_eq!(run["added"], 1, "those that can be synced are");
}

#[tokio::test]
async fn a_lifted_guard_is_on_record() {
    let synced = Synced::start(json!({})).await;
    synced.sync(json!({})).await;
    synced.sync(json!({"force": true})).await;
    let count = async |action: &str| {
        let scan =
            synced.installation.aws().clients().dynamodb.scan().table_name(provision::TABLE).consistent_read(true);
        let scan = scan.filter_expression("#action = :action").expression_attribute_names("#action", "action");
        let found = scan.expression_attribute_values(":action", AttributeValue::S(action.to_owned())).send().await;
        found.unwrap().items().iter().map(|item| item["actor"].as_s().unwrap().clone()).collect::<Vec<_>>()
    };
    assert_eq!(count("secret-provider.sync-requested").await, ["admin"]);
    assert_eq!(count("secret-provider.sync-forced").await, ["admin"]);
    let runs = synced.installation.get(&format!("secret-providers/{}/syncs", synced.provider)).await.expect(200);
    let forced: Vec<&Value> = runs["data"].as_array().unwrap().iter().map(|run| &run["force"]).collect();
    assert_eq!(forced, [true, false]);
}
