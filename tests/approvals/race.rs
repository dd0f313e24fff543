//! Approval, refusal and the clock at the same time.

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tidegate_aws::{approvals::TimedOut, clock, random};
use tidegate_local::stack;

use super::{ask, careful, without_worker};
use crate::support::{Application, Installation};

/// In the usual run; `TIDEGATE_APPROVAL_ROUNDS` asks for more.
const ROUNDS: usize = 100;
/// Side by side, each on an application of its own.
const LANES: usize = 10;

/// Who said that it was theirs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Won {
    approved: usize,
    denied: usize,
}

async fn lane(installation: &Installation, application: &Application, rounds: usize) -> (Won, usize) {
    let (mut won, mut timed_out) = (Won::default(), 0);
    for _ in 0..rounds {
        let id = ask(installation, application, "v1").await;
        let shown = installation.get(&format!("deployments/{id}")).await.expect(200);
        let at = shown["approval"]["expiresAt"].as_str().unwrap().parse::<Timestamp>().unwrap();
        // An approval has the most to do; the others begin up to so many calls later.
        let [reject_after, clock_after]: [u8; 2] = random::bytes();
        let later = async |calls: u8| {
            for _ in 0..calls {
                installation.get(&format!("deployments/{id}")).await.expect(200);
            }
        };
        let hash = json!({"hash": shown["approval"]["hash"]});
        let approve =
            async { installation.decide(&installation.admin_token, &id, "approve", &hash).await.status.as_u16() };
        let reject = async {
            later(reject_after % 8).await;
            installation.decide(&installation.admin_token, &id, "reject", &json!({})).await.status.as_u16()
        };
        let clock = async {
            // Whoever looks at the clock looks at it for all lanes.
            if clock_after % 8 > 0 {
                return TimedOut::default();
            }
            later(clock_after / 8 % 8).await;
            installation.stack.store().time_out_approvals(at + SignedDuration::from_secs(1)).await.unwrap()
        };
        let (approved, denied, swept) = tokio::join!(approve, reject, clock);
        assert_eq!(swept.failed, 0);
        timed_out += swept.timed_out;
        let record = installation.get(&format!("deployments/{id}")).await.expect(200);
        let expected = match record["status"].as_str().unwrap() {
            "queued" => (202, 409),
            "denied" => (409, 200),
            "timed_out" => (409, 409),
            other => panic!("{other}: {record}"),
        };
        assert_eq!((approved, denied), expected, "{record}");
        let ends = ["approved", "denied", "timed_out"];
        let decisions =
            record["timeline"].as_array().unwrap().iter().filter(|e| ends.iter().any(|end| e["event"] == *end));
        assert_eq!(decisions.count(), 1, "{record}");
        won.approved += usize::from(approved == 202);
        won.denied += usize::from(denied == 200);
    }
    (won, timed_out)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_approval_refusal_and_the_clock_exactly_one_wins() {
    let rounds = std::env::var("TIDEGATE_APPROVAL_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let installation = without_worker().await;
    installation.lift_limits().await;
    let applications = join_all((0..LANES).map(async |_| installation.register(careful()).await)).await;
    let lanes = applications.iter().map(|application| lane(&installation, application, rounds / LANES));
    let lanes = join_all(lanes).await;

    let rounds = rounds / LANES * LANES;
    let approved: usize = lanes.iter().map(|(won, _)| won.approved).sum();
    let denied: usize = lanes.iter().map(|(won, _)| won.denied).sum();
    let timed_out: usize = lanes.iter().map(|(_, timed_out)| timed_out).sum();
    println!("figure: {rounds} rounds: {approved} approved, {denied} denied, {timed_out} timed out, each by one alone");
    assert_eq!(approved + denied + timed_out, rounds);
    assert!(approved > 0 && denied > 0 && timed_out > 0, "a race that one always wins is none");

    // The counters say the same.
    assert_eq!(installation.get("queue").await.expect(200)["length"], json!(approved));
    assert_eq!(installation.get("approvals").await.expect(200)["data"], json!([]));
    // As of tomorrow, since the clock of the race was ahead.
    let tomorrow = clock::now() + SignedDuration::from_hours(24);
    let summary = installation.stack.store().summary(&stack::tenant(), 48, tomorrow).await.unwrap();
    let counted = |status: &str| summary.deployments.get(status).copied().unwrap_or_default();
    let told = [counted("denied"), counted("timed_out"), counted("queued")];
    assert_eq!(told, [denied, timed_out, 0].map(|count| u64::try_from(count).unwrap()), "{summary:?}");
    for ((won, _), application) in lanes.iter().zip(&applications) {
        let mut sequences = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("deployments?applicationId={}&status=queued&limit=200{cursor}", application.id);
            let page = installation.get(&path).await.expect(200);
            sequences.extend(page["data"].as_array().unwrap().iter().map(|d| d["sequence"].as_u64().unwrap()));
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        sequences.sort_unstable();
        let count = u64::try_from(won.approved).unwrap();
        assert_eq!(sequences, (1..=count).collect::<Vec<_>>(), "sequences without a gap");
    }
}
