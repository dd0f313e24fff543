//! GitHub away, limits, lost messages and lost answers: nothing is lost, and nothing is said twice.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::json;
use tidegate_aws::clock;
use tidegate_domain::issue::form;
use tidegate_local::provision;

use super::{PUBLIC, Shop, body, delivery};
use crate::{
    secrets::items,
    support::{
        Setup, eventually,
        fake_github::{Call, Fate},
        faults::{AwsCall, FaultyAws},
        relay,
    },
};

/// As GitHub's limits answer: the first one, the others with a time, the others without.
fn limited(kind: usize) -> Fate {
    let reset = (clock::now() + SignedDuration::from_secs(2)).as_second().to_string();
    match kind % 3 {
        0 => {
            let headers = vec![
                ("x-ratelimit-limit", "5000".to_owned()),
                ("x-ratelimit-remaining", "0".to_owned()),
                ("x-ratelimit-reset", reset),
            ];
            Fate::Answer(403, headers, "API rate limit exceeded for user ID 583231.")
        }
        1 => {
            let headers = vec![("retry-after", "1".to_owned()), ("x-ratelimit-remaining", "4999".to_owned())];
            Fate::Answer(
                403,
                headers,
                "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
            )
        }
        _ => Fate::Answer(429, vec![("retry-after", "1".to_owned())], "Too many requests"),
    }
}

#[tokio::test]
async fn while_github_is_away_or_wants_no_more_requests_everything_waits() {
    let shop = Shop::open().await;
    let count = Arc::new(AtomicUsize::new(0));
    // Each kind of call fails the first time, in another way each time.
    let (asked, mut seen) = (Arc::clone(&count), Vec::<(Method, usize)>::new());
    shop.github.judge_by(move |call: &Call| {
        let kind = (call.method.clone(), call.path.split('/').count());
        if seen.contains(&kind) {
            return Fate::Pass;
        }
        seen.push(kind);
        match asked.fetch_add(1, Ordering::Relaxed) {
            n if n % 3 == 0 => Fate::Answer(502, Vec::new(), "Server Error"),
            n if n % 3 == 1 => Fate::Answer(302, vec![("location", "https://example.com/".to_owned())], "Found"),
            n => limited(n / 3),
        }
    });
    let number = shop.github.open("writer", &body("v1", &[]), &["deploy"]).await;
    let said = shop.said(number).await;
    assert!(said.contains("**Queued:**"), "{said}");
    assert_eq!(shop.deployments().await.len(), 1);
    assert!(count.load(Ordering::Relaxed) >= 5, "{count:?}");
}

#[tokio::test]
async fn an_answer_that_is_lost_at_any_step_changes_nothing_in_the_end() {
    let shop = Shop::open().await;
    let mut calls = 0;
    // Every call in turn is done, and its answer is lost, until a run has no such call any more.
    for lost in 1.. {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        shop.github.judge_by(move |_| {
            if counted.fetch_add(1, Ordering::Relaxed) + 1 == lost { Fate::LoseAnswer } else { Fate::Pass }
        });
        let fields = [("api_server", PUBLIC), ("email", "a@example.com")];
        let issue = shop.github.open_quietly("writer", &body(&format!("v{lost}"), &fields), &["deploy"]);
        let event = shop.github.issue_event(&issue, "opened", "writer");
        delivery::deliver(&shop, &event, &delivery::Signed::by(&shop)).await.expect(202);
        let said = shop.said(issue.number).await;
        assert!(said.contains("needs your decision"), "{lost}: {said}");
        let of_issue = format!("v{lost}");
        let deployments = shop.deployments().await;
        assert_eq!(deployments.iter().filter(|d| d["version"] == of_issue.as_str()).count(), 1, "{lost}");
        assert!(form::is_sanitised(&shop.github.issue(issue.number).body), "{lost}");
        calls = count.load(Ordering::Relaxed);
        if lost > calls {
            break;
        }
    }
    assert!(calls >= 5, "{calls}");
}

#[tokio::test]
async fn a_message_that_is_lost_is_sent_again_by_the_sweep() {
    let (aws, detour) = FaultyAws::for_functions().await;
    let setup = Setup { no_worker: true, no_sweeps: true, detour: Some(detour), ..Setup::default() };
    let shop = Shop::open_with(setup).await;
    aws.judge_by(|call: &AwsCall| if call.is("SendMessage") { AwsCall::dropped() } else { relay::Fate::Pass });
    let number = shop.github.open("writer", &body("v1", &[("email", "a@example.com")]), &["deploy"]).await;
    let store = shop.installation.stack.store();
    assert_eq!(store.sweep_intake(clock::now()).await.unwrap(), 0, "it is not late yet");
    assert!(shop.github.calls().is_empty());
    aws.let_all_pass();
    let later = clock::now() + SignedDuration::from_secs(61);
    assert_eq!(store.sweep_intake(later).await.unwrap(), 2, "the issue, and its label");
    assert_eq!(store.sweep_intake(later).await.unwrap(), 0, "once a minute");
    assert!(shop.said(number).await.contains("**Queued:**"));
    assert_eq!(shop.deployments().await.len(), 1);

    // And the notice of an end.
    aws.judge_by(|call: &AwsCall| if call.is("SendMessage") { AwsCall::dropped() } else { relay::Fate::Pass });
    let id = shop.deployments().await[0]["deploymentId"].as_str().unwrap().to_owned();
    shop.installation.post(&format!("deployments/{id}/cancel"), &json!({})).await.expect(202);
    assert!(shop.github.said(number)[0].contains("**Queued:**"));
    aws.let_all_pass();
    assert_eq!(store.sweep_intake(clock::now() + SignedDuration::from_secs(61)).await.unwrap(), 1);
    assert!(shop.said(number).await.contains("**Cancelled:**"));
}

#[tokio::test]
async fn an_issue_that_is_deleted_asks_for_nothing() {
    let shop = Shop::open().await;
    let issue = shop.github.open_quietly("writer", &body("v1", &[]), &["deploy"]);
    let event = shop.github.issue_event(&issue, "opened", "writer");
    shop.github.delete(issue.number);
    delivery::deliver(&shop, &event, &delivery::Signed::by(&shop)).await.expect(202);
    shop.quiet().await;
    assert!(shop.deployments().await.is_empty() && shop.github.said(issue.number).is_empty());
}

#[tokio::test]
async fn what_github_does_not_let_us_do_for_a_day_is_given_up_and_on_record() {
    let shop = Shop::open().await;
    shop.github.judge_by(|_| Fate::Answer(403, Vec::new(), "Resource not accessible by personal access token"));
    let issue = shop.github.open_quietly("writer", &body("v1", &[("super_password", "hush-hush-hush")]), &["deploy"]);
    let event = shop.github.issue_event(&issue, "opened", "writer");
    delivery::deliver(&shop, &event, &delivery::Signed::by(&shop)).await.expect(202);
    eventually("it was tried", async || (!shop.github.calls().is_empty()).then_some(())).await;
    assert!(shop.deployments().await.is_empty(), "nothing is looked at before the values are out of the issue");

    a_day_passes(&shop, None).await;
    shop.quiet().await;
    let listed = shop.deployments().await;
    assert_eq!((listed.len(), &listed[0]["rejectReason"]), (1, &json!("validation-timeout")), "{listed:?}");
    assert_eq!(listed[0]["trigger"]["actor"], "github:writer");
}

/// What waits is a day old, and is looked at again. With another text in the place of what is sealed in it, if one is given.
async fn a_day_passes(shop: &Shop, sealed: Option<&str>) {
    let clients = shop.installation.aws().clients();
    let yesterday = (clock::now() - SignedDuration::from_hours(25)).to_string();
    let waits = items(&clients).await.into_iter().find(|item| item["pk"].as_s().unwrap() == "INTAKE");
    let item = waits.expect("it waits");
    let sealed = sealed.map_or_else(|| item["sealed"].clone(), |text| AttributeValue::S(text.to_owned()));
    let update = clients.dynamodb.update_item().table_name(provision::TABLE);
    let update = update.key("pk", item["pk"].clone()).key("sk", item["sk"].clone());
    let update = update.update_expression("SET createdAt = :then, sealed = :sealed REMOVE notBefore");
    let update = update.expression_attribute_values(":sealed", sealed);
    update.expression_attribute_values(":then", AttributeValue::S(yesterday)).send().await.unwrap();
    let later = clock::now() + SignedDuration::from_hours(1);
    shop.installation.stack.store().sweep_intake(later).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_any_more_is_given_up_after_a_day_all_the_same() {
    for sealed in ["", "v2.nobody.knows", "what is this"] {
        let shop = Shop::open().await;
        shop.github.judge_by(|_| Fate::Answer(502, Vec::new(), "Server Error"));
        let issue = shop.github.open_quietly("writer", &body("v1", &[]), &["deploy"]);
        let event = shop.github.issue_event(&issue, "opened", "writer");
        delivery::deliver(&shop, &event, &delivery::Signed::by(&shop)).await.expect(202);
        eventually("it was tried", async || (!shop.github.calls().is_empty()).then_some(())).await;
        a_day_passes(&shop, Some(sealed)).await;
        shop.quiet().await;
        assert!(shop.deployments().await.is_empty(), "nobody knows what it asked for");
    }
}

#[tokio::test]
async fn a_rejection_that_cannot_be_told_yet_is_on_record_once() {
    let shop = Shop::open().await;
    let failed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failed);
    shop.github.judge_by(move |call| {
        let is_said = call.method == Method::POST && call.path.ends_with("/comments");
        if is_said && counted.fetch_add(1, Ordering::Relaxed) < 3 {
            return Fate::Answer(502, Vec::new(), "Server Error");
        }
        Fate::Pass
    });
    // Two deliveries tell of the same.
    let number = shop.github.open("writer", &body("v1", &[("email", "none")]), &["deploy"]).await;
    assert!(shop.said(number).await.contains("`variables.email`"));
    assert!(failed.load(Ordering::Relaxed) > 3);
    let listed = shop.deployments().await;
    assert_eq!((listed.len(), &listed[0]["status"]), (1, &json!("rejected")), "{listed:?}");
    // The same issue with other words is another request, even within the same second.
    let mut edited = shop.github.issue(number);
    edited.body = body("v1", &[("email", "still none")]);
    let event = shop.github.issue_event(&edited, "edited", "writer");
    delivery::deliver(&shop, &event, &delivery::Signed::by(&shop)).await.expect(202);
    shop.quiet().await;
    assert_eq!(shop.deployments().await.len(), 2);
}

#[tokio::test]
async fn what_github_refuses_for_good_is_on_record_unless_its_request_is() {
    let shop = Shop::open().await;
    let refuses = |method: Method, end: &'static str| {
        move |call: &Call| {
            let is_it = call.method == method && call.path.ends_with(end);
            if is_it { Fate::Answer(422, Vec::new(), "Validation Failed") } else { Fate::Pass }
        }
    };
    shop.github.judge_by(refuses(Method::PATCH, "/issues/1"));
    shop.github.open("writer", &body("v1", &[]), &["deploy"]).await;
    shop.quiet().await;
    let listed = shop.deployments().await;
    assert_eq!((listed.len(), &listed[0]["rejectReason"]), (1, &json!("validation-timeout")), "{listed:?}");
    // It is queued, and only cannot be told so.
    shop.github.judge_by(refuses(Method::POST, "/comments"));
    shop.github.open("writer", &body("v2", &[]), &["deploy"]).await;
    shop.quiet().await;
    let listed = shop.deployments().await;
    assert_eq!((listed.len(), &listed[1]["status"]), (2, &json!("queued")), "{listed:?}");
}

#[tokio::test]
async fn a_new_webhook_secret_makes_no_second_request_of_what_is_being_done() {
    let mut shop = Shop::open().await;
    shop.github.judge_by(|call| {
        let is_said = call.method == Method::POST && call.path.ends_with("/comments");
        if is_said { Fate::Answer(502, Vec::new(), "Server Error") } else { Fate::Pass }
    });
    let accepted = shop.github.open("writer", &body("v1", &[]), &["deploy"]).await;
    let refused = shop.github.open("writer", &body("v2", &[("email", "none")]), &["deploy"]).await;
    eventually("both are on record", async || (shop.deployments().await.len() == 2).then_some(())).await;
    shop.secret = format!("{}-rotated", shop.secret);
    shop.settle(json!({"token": shop.github.token()})).await;
    shop.github.judge_by(|_| Fate::Pass);
    assert!(shop.said(accepted).await.contains("**Queued:** `v1`"));
    assert!(shop.said(refused).await.contains("`variables.email`"));
    let listed = shop.deployments().await;
    assert_eq!(listed.len(), 2, "{listed:?}");
}

#[tokio::test]
async fn nothing_is_asked_of_github_before_the_time_that_it_has_named() {
    let shop = Shop::open().await;
    shop.github.judge_by(|_| Fate::Answer(429, vec![("retry-after", "600".to_owned())], "Too many requests"));
    let clients = shop.installation.aws().clients();
    let put_off = async || {
        let waiting = items(&clients).await.into_iter().filter(|item| item["pk"].as_s().unwrap() == "INTAKE");
        waiting.filter_map(|item| item.get("notBefore")?.as_s().ok().cloned()).collect::<BTreeSet<_>>()
    };
    for n in 1..=5 {
        let issue = shop.github.open_quietly("writer", &body(&format!("v{n}"), &[]), &["deploy"]);
        let event = shop.github.issue_event(&issue, "opened", "writer");
        delivery::deliver(&shop, &event, &delivery::Signed::by(&shop)).await.expect(202);
        // Each until a time of its own, so that they do not come back all at once.
        eventually("it is put off", async || (put_off().await.len() == n).then_some(())).await;
    }
    assert_eq!(shop.github.calls().len(), 1);
}
