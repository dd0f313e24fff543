//! A worker whose calls of AWS and Docker go wrong, at every step of a deployment.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use serde_json::json;

use super::Kind;
use crate::{
    kill_matrix::{case::Case, lane::Lane},
    support::{
        Installation, Setup, eventually,
        faults::AwsCall,
        fleet::Member,
        relay::{Fate, Presence},
    },
};

type OfDocker = (&'static str, fn() -> Fate);

async fn without_worker() -> Installation {
    Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await
}

/// Of its claims from now on.
fn count_claims(member: &Member, claims: &Arc<AtomicUsize>) {
    let count = Arc::clone(claims);
    member.aws.judge_by(move |call| {
        count.fetch_add(usize::from(call.of_a_worker() == Some("claim")), Ordering::SeqCst);
        Fate::Pass
    });
}

/// At the first change of Docker of this name, these can no longer be reached.
fn away_at(member: &Member, name: &'static str, fate: fn() -> Fate, presences: Vec<Presence>) {
    let mut is_over = false;
    member.docker.judge_by(move |call| {
        if is_over || call.name != name {
            return Fate::Pass;
        }
        is_over = true;
        presences.iter().for_each(Presence::end);
        fate()
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_workers_writes_the_deployment_succeeds() {
    let installation = without_worker().await;
    let kinds: [Kind; 4] = [
        ("its answer is lost", |_| Fate::LoseAnswer),
        ("it never arrives", |_| Fate::Cut),
        ("it is throttled", AwsCall::throttled),
        ("it fails inside", AwsCall::failed_inside),
    ];
    let mut lane = Lane::open(&installation, "lane").await;
    let mut tried = 0;
    for write in ["claim", "renew", "prove", "finish", "report"] {
        // Once, which a second try of the SDK mends; and as often as the SDK tries.
        for (often, (kind, fate)) in [1, 3].into_iter().flat_map(|often| kinds.map(|kind| (often, kind))) {
            let claims = Arc::new(AtomicUsize::new(0));
            let disturb = |member: &Member| {
                let (mut left, claims) = (often, Arc::clone(&claims));
                member.aws.judge_by(move |call| {
                    claims.fetch_add(usize::from(call.of_a_worker() == Some("claim")), Ordering::SeqCst);
                    if call.of_a_worker() != Some(write) || left == 0 {
                        return Fate::Pass;
                    }
                    left -= 1;
                    fate(call)
                });
            };
            let (ended, wrong) = lane.come_through(Case::Over, disturb, async |_, _, _| {}).await;
            assert_eq!(ended["status"], "succeeded", "{write}, {kind} {often} times: {ended}\n{}", lane.member.log());
            assert!(wrong.is_empty(), "{write}, {kind} {often} times: {wrong:?}");
            if often == 1 {
                // What its own first try has written is no other process's: it does not begin a second time.
                let begun = 1 + usize::from(write == "claim");
                assert_eq!(claims.load(Ordering::SeqCst), begun, "{write}, {kind}: {}", lane.member.log());
            }
            tried += 1;
        }
    }
    assert!(!lane.member.log().contains("ended without the lease"), "{}", lane.member.log());
    println!(
        "figure: {tried} deployments, in each of which a worker's write failed or its answer was lost: all succeeded"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_docker_does_with_a_call_the_old_or_the_new_version_runs_and_the_record_says_which() {
    let installation = without_worker().await;
    let kinds: [OfDocker; 5] = [
        ("is refused", || Fate::Answer(500, json!({"message": "an error of the engine's own"}).to_string())),
        ("never arrives", || Fate::Cut),
        ("is done, and not answered", || Fate::LoseAnswer),
        ("is done, and answered half", || Fate::CutAnswer),
        // As for a worker whose predecessor died while the engine was at it.
        ("was done just before", || Fate::Twice),
    ];
    let installation = &installation;
    let mut lanes = join_all((0..3).map(async |n| Lane::open(installation, &format!("lane-{n}")).await)).await;
    lanes[0].rehearse(Case::Over).await;
    let seen = lanes[0].rehearse(Case::Over).await.docker;
    let all: Vec<_> = (1..=seen.len()).flat_map(|nth| kinds.map(|kind| (nth, kind))).collect();
    let shares = lanes.iter_mut().enumerate().map(async |(n, lane)| {
        let mut ends = Vec::new();
        for (nth, (kind, fate)) in all.iter().skip(n).step_by(3) {
            let step = &seen[nth - 1];
            let disturb = |member: &Member| {
                let (nth, fate) = (*nth, *fate);
                member.docker.judge_by(move |call| if call.nth == nth { fate() } else { Fate::Pass });
            };
            let (ended, wrong) = lane.come_through(Case::Over, disturb, async |_, _, _| {}).await;
            let said = format!("{step} {kind}: {}", ended["status"].as_str().unwrap_or_default());
            println!("figure: {said}");
            assert!(wrong.is_empty(), "{said}: {wrong:?}\n{ended}\n{}", lane.member.log());
            ends.push(said);
        }
        ends
    });
    let ends: Vec<_> = join_all(shares).await.into_iter().flatten().collect();
    assert_eq!(ends.len(), seen.len() * kinds.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cut_off_in_the_switch_ends_it_alone_and_reports_later() {
    let installation = without_worker().await;
    let mut lane = Lane::open(&installation, "lane").await;
    for (case, status) in [(Case::Over, "succeeded"), (Case::Back, "rolled_back")] {
        lane.prepare(case).await;
        let (presences, claims) = (lane.member.aws.presence(), Arc::default());
        let disturb = |member: &Member| {
            count_claims(member, &claims);
            away_at(member, "stop", || Fate::Pass, presences.to_vec());
        };
        let meanwhile = async |lane: &Lane<'_>, id: &str, new: &str| {
            if case == Case::Over {
                lane.only(new).await;
            } else {
                let back = async || lane.member.docker.seen().iter().any(|call| call == "restart").then_some(());
                eventually("the way back", back).await;
                lane.only(lane.running()).await;
            }
            assert_eq!(lane.status(id).await, "running", "nothing could be told yet");
            presences.iter().for_each(Presence::begin);
        };
        let (ended, wrong) = lane.come_through(case, disturb, meanwhile).await;
        assert_eq!(ended["status"], status, "{ended}\n{}", lane.member.log());
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(claims.load(Ordering::SeqCst), 1, "{case:?}: it was one attempt\n{}", lane.member.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cut_off_before_the_switch_gives_up_and_begins_again_later() {
    let installation = without_worker().await;
    let mut lane = Lane::open(&installation, "lane").await;
    lane.prepare(Case::Over).await;
    let (presences, claims) = (lane.member.aws.presence(), Arc::default());
    let disturb = |member: &Member| {
        count_claims(member, &claims);
        away_at(member, "create", || Fate::Pass, presences.to_vec());
    };
    let meanwhile = async |lane: &Lane<'_>, id: &str, _: &str| {
        let gave_up = async || (lane.member.docker.seen() == ["pull", "create", "remove"]).then_some(());
        eventually("that it gave up, and cleaned up", gave_up).await;
        lane.only(lane.running()).await;
        assert_eq!(lane.status(id).await, "running");
        presences.iter().for_each(Presence::begin);
    };
    let (ended, wrong) = lane.come_through(Case::Over, disturb, meanwhile).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", lane.member.log());
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(claims.load(Ordering::SeqCst), 2, "{}", lane.member.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_going_away_in_the_switch_delays_it() {
    let installation = without_worker().await;
    let mut lane = Lane::open(&installation, "lane").await;
    for step in ["stop", "start"] {
        lane.prepare(Case::Over).await;
        let presence = lane.member.docker.presence();
        let told = "the engine went away during the switch";
        let before = lane.member.log().matches(told).count();
        let disturb = |member: &Member| away_at(member, step, || Fate::Cut, vec![presence.clone()]);
        let meanwhile = async |lane: &Lane<'_>, _: &str, _: &str| {
            // Some tries later.
            let waits = async || (lane.member.log().matches(told).count() > before + 2).then_some(());
            eventually("that the worker waits for Docker", waits).await;
            presence.begin();
        };
        let (ended, wrong) = lane.come_through(Case::Over, disturb, meanwhile).await;
        assert_eq!(ended["status"], "succeeded", "{step}: {ended}\n{}", lane.member.log());
        assert!(wrong.is_empty(), "{step}: {wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_going_away_before_the_switch_is_tried_again() {
    let installation = without_worker().await;
    let mut lane = Lane::open(&installation, "lane").await;
    lane.prepare(Case::Over).await;
    let presence = lane.member.docker.presence();
    let disturb = |member: &Member| away_at(member, "create", || Fate::Cut, vec![presence.clone()]);
    let meanwhile = async |lane: &Lane<'_>, _: &str, _: &str| {
        let handed_back = async || lane.member.log().contains("failed, and tried again later").then_some(());
        eventually("that it was handed back", handed_back).await;
        presence.begin();
    };
    let (ended, wrong) = lane.come_through(Case::Over, disturb, meanwhile).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", lane.member.log());
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_doubled_late_or_failing_change_nothing() {
    let installation = without_worker().await;
    let mut lane = Lane::open(&installation, "lane").await;
    let second = std::time::Duration::from_secs(1);
    for round in 0..3 {
        let disturb = |member: &Member| {
            let mut messages = 0;
            member.aws.judge_by(move |call| {
                messages += 1;
                match (call.operation.as_str(), round) {
                    ("SendMessage", 0) => Fate::Twice,
                    // The first report arrives after the last.
                    ("SendMessage", 1) if messages % 2 == 0 => AwsCall::delivered_late(second),
                    // What is not deleted comes again.
                    ("DeleteMessage", _) => Fate::Cut,
                    ("ReceiveMessage", 2) if messages % 3 == 0 => call.failed_inside(),
                    _ => Fate::Pass,
                }
            });
        };
        let (ended, wrong) = lane.come_through(Case::Over, disturb, async |_, _, _| {}).await;
        assert_eq!(ended["status"], "succeeded", "round {round}: {ended}\n{}", lane.member.log());
        assert!(wrong.is_empty(), "round {round}: {wrong:?}");
    }
}
