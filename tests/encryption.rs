//! Secrets at rest: each value opens in its own place only, a reveal is on record before it is done, and a rotation of data
//! keys brings all values under one.

mod kept;
mod rotation;

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};
use reqwest::StatusCode;
use serde_json::json;
use tidegate_domain::secret::Secret;

use self::kept::Kept;
use crate::support::{faults::FaultyAws, relay::Fate};

/// Pairs that are swapped, and ciphertexts that are changed.
const CASES: u32 = 150;

fn runner() -> TestRunner {
    // Nothing is written beside the tests: what fails is shown with its input.
    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() })
}

/// Runs a property whose every case asks the table.
async fn holds<S: Strategy>(strategy: S, mut property: impl AsyncFnMut(S::Value)) {
    let mut runner = runner();
    for _ in 0..CASES {
        let value = strategy.new_tree(&mut runner).unwrap().current();
        property(value).await;
    }
}

#[tokio::test]
async fn of_any_two_places_neither_opens_what_was_sealed_for_the_other() {
    let kept = Kept::filled().await;
    let places = kept.places().await;
    // Two secrets, versions of one, variables of every scope, a registry, settings, and another tenant's secrets.
    assert!(places.len() > 20, "{}", places.len());
    for place in &places {
        assert!(kept.opens(place).await, "{place:?}");
    }
    let count = places.len();
    let mut swapped = 0;
    holds((0..count, 0..count), async |(one, other)| {
        let (one, other) = (&places[one], &places[other]);
        // The present version is the same value in the same place as the secret's own.
        if one.is_same_value(other) {
            return;
        }
        kept.swap(one, other).await;
        for place in [one, other] {
            assert!(!kept.opens(place).await, "{place:?} with the ciphertext of {one:?} or {other:?}");
        }
        kept.swap(one, other).await;
        swapped += 1;
    })
    .await;
    for place in &places {
        assert!(kept.opens(place).await, "{place:?}");
    }
    println!("figure: {count} ciphertexts of {} kinds, {swapped} pairs swapped: none opened", Kept::kinds(&places));
}

#[tokio::test]
async fn a_ciphertext_with_any_bit_changed_opens_nowhere() {
    let kept = Kept::filled().await;
    let places = kept.places().await;
    let count = places.len();
    holds((0..count, any::<prop::sample::Index>(), 0..7_u32), async |(place, at, bit)| {
        let place = &places[place];
        let sealed = kept.read(place).await;
        let mut changed = sealed.clone().into_bytes();
        // Seven bits, so that it stays text.
        changed[at.index(sealed.len())] ^= 1 << bit;
        kept.write(place, &String::from_utf8(changed).unwrap()).await;
        assert!(!kept.opens(place).await, "{place:?}");
        kept.write(place, &sealed).await;
        assert!(kept.opens(place).await, "{place:?}");
    })
    .await;
    println!("figure: {CASES} ciphertexts with one bit changed: none opened");
}

async fn reveals(kept: &Kept) -> Vec<HashMap<String, AttributeValue>> {
    let items = crate::secrets::items(&kept.admin.aws.clients()).await;
    let is_reveal = |item: &HashMap<_, _>| item.get("action") == Some(&AttributeValue::S("secret.revealed".to_owned()));
    items.into_iter().filter(is_reveal).collect()
}

#[tokio::test]
async fn a_reveal_is_on_record_before_the_value_is_read() {
    let mut kept = Kept::filled().await;
    let revealed = kept.admin.post("secrets/1/reveal", json!({})).await;
    assert_eq!(revealed.status, StatusCode::OK, "{}", revealed.body);
    assert_eq!(revealed.body, json!({"id": 1, "name": "S1", "value": "value 1.3", "valueVersion": 3}));
    assert_eq!(revealed.headers["cache-control"], "no-store");
    let former = kept.admin.post("secrets/1/reveal?version=2", json!({})).await.body;
    assert_eq!((&former["value"], &former["valueVersion"]), (&json!("value 1.2"), &json!(2)));
    let subjects: Vec<_> = reveals(&kept).await.iter().map(|item| item["subject"].as_s().unwrap().clone()).collect();
    assert_eq!(subjects.len(), 2, "{subjects:?}");
    assert!(subjects.contains(&"secret/1".to_owned()) && subjects.contains(&"secret/1/versions/2".to_owned()));
    for (path, status) in
        [("secrets/1/reveal?version=9", 404), ("secrets/99/reveal", 404), ("secrets/1/reveal?version=x", 422)]
    {
        assert_eq!(kept.admin.post(path, json!({})).await.status.as_u16(), status, "{path}");
    }
    for user in ["operator", "viewer"] {
        kept.admin.sign_in(user).await;
        assert_eq!(kept.admin.post("secrets/1/reveal", json!({})).await.status, StatusCode::FORBIDDEN, "{user}");
    }
}

#[tokio::test]
async fn without_its_record_a_reveal_reads_nothing() {
    let kept = Kept::filled().await;
    let (aws, detour) = FaultyAws::for_functions().await;
    let store = kept.store_through(detour);
    let event = Kept::event("secret.revealed");
    aws.judge_by(|call| if call.is("TransactWriteItems") { Fate::Cut } else { Fate::Pass });
    let refused = store.reveal_secret(&kept.tenant, 1, None, kept.now, &event).await;
    assert!(refused.is_err());
    assert_eq!((aws.calls("GetItem"), aws.calls("Decrypt")), (0, 0), "nothing was read");
    assert!(reveals(&kept).await.is_empty());
    // And the other way round: the record stays when the value cannot be read.
    aws.judge_by(|call| if call.is("GetItem") { Fate::Cut } else { Fate::Pass });
    assert!(store.reveal_secret(&kept.tenant, 1, None, kept.now, &event).await.is_err());
    assert_eq!(reveals(&kept).await.len(), 1);
}

#[tokio::test]
async fn without_the_key_service_nothing_is_revealed_restored_or_rotated() {
    let kept = Kept::filled().await;
    // Of which no data key is in the function's memory.
    let fresh = kept.store();
    let value = Secret::new("another".to_owned());
    kept.admin.aws.stop_sqs_kms();
    let old = fresh.find(&kept.tenant, 1).await.unwrap();
    assert!(matches!(
        fresh.is_value(&kept.tenant, &old, &value).await,
        Err(tidegate_aws::error::StoreError::Away { .. })
    ));
    let refused = kept.admin.post("data-keys/rotate", json!({})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
    assert_eq!(kept.admin.get("data-keys").await.body["state"], json!(null));
    kept.admin.aws.resume_sqs_kms().unwrap();
    assert_eq!(kept.admin.post("data-keys/rotate", json!({})).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_disabled_key_is_named_by_every_call_that_needs_it() {
    let kept = Kept::filled().await;
    let kms = kept.admin.aws.clients().kms;
    kms.disable_key().key_id(kept.key_id().await).send().await.unwrap();
    let store = kept.store();
    let event = Kept::event("secret.revealed");
    let refused = store.reveal_secret(&kept.tenant, 1, None, kept.now, &event).await;
    assert!(matches!(refused, Err(tidegate_aws::error::StoreError::KeyDisabled { .. })));
    let refused = kept.admin.post("data-keys/rotate", json!({})).await;
    let alias = refused.body["detail"].as_str().unwrap();
    assert!(refused.status == StatusCode::SERVICE_UNAVAILABLE && alias.contains("alias/"), "{}", refused.body);
    assert_eq!(kept.admin.get("data-keys").await.body["state"], json!(null));
}
