//! A worker killed with `kill -9` before, amid and after every call that changes something: what runs then, how soon, and
//! whether the record says the same. The calls are those that were seen in a rehearsal, so that a new step is killed too.

pub(crate) mod lane;

use std::{fmt::Write as _, time::Duration};

use futures_util::future::join_all;
use lane::{Case, Lane, Moment, Point, Row};

use crate::support::{Installation, Setup};

/// From the restart of the worker to an answer of the application.
const WITHIN: Duration = Duration::from_secs(10);
/// Hosts on which rows run side by side.
const LANES: usize = 3;

/// Writes to AWS, and messages to it.
const REPORTED: [(Point, &str); 5] = [
    (Point::Aws("claim"), "claim"),
    (Point::Aws("report"), "report of the claim"),
    (Point::Aws("prove"), "proof of the lease"),
    (Point::Aws("finish"), "finish"),
    (Point::LastReport, "report of the end"),
];

type Kill = (Point, String, Moment);

fn kills(seen: &[String]) -> Vec<Kill> {
    let mut kills = Vec::new();
    for (index, name) in seen.iter().enumerate() {
        for moment in [Moment::Before, Moment::Amid, Moment::After] {
            // A rename takes no time that anything could happen in.
            if moment != Moment::Amid || !name.starts_with("rename") {
                kills.push((Point::Docker(index + 1), name.clone(), moment));
            }
        }
    }
    for (point, name) in REPORTED {
        kills.extend([Moment::Before, Moment::After].map(|moment| (point, name.to_owned(), moment)));
    }
    kills.push((Point::Check, "check".to_owned(), Moment::Amid));
    kills
}

/// Every kill of the case, and the table of what came of them.
async fn matrix(case: Case, what: &str, allowed: &[&str], status: &str) -> Vec<String> {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let installation = &installation;
    let mut lanes = join_all((0..LANES).map(async |n| Lane::open(installation, &format!("lane-{n}")).await)).await;
    // The second time, as an image of a version before the last is removed then.
    lanes[0].rehearse(case).await;
    let seen = lanes[0].rehearse(case).await;
    println!("{what}: {}", seen.join(", "));
    let kills = kills(&seen);
    let shares = lanes.iter_mut().enumerate().map(async |(n, lane)| {
        let mut rows = Vec::new();
        for (order, (point, step, moment)) in kills.iter().enumerate().skip(n).step_by(LANES) {
            lane.prepare(case).await;
            let row = lane.kill_at(case, *point, step, *moment).await;
            let left = lane.short(&row.left);
            rows.push((order, Row { left, ..row }));
        }
        rows
    });
    let mut rows: Vec<(usize, Row)> = join_all(shares).await.into_iter().flatten().collect();
    rows.sort_by_key(|(order, _)| *order);
    let mut wrong = Vec::new();
    let mut table = String::new();
    for (_, row) in &rows {
        let Row { step, moment, left, ran, recovered, status: ended, wrong: faults } = row;
        let seconds = recovered.as_secs_f64();
        writeln!(
            table,
            "figure: {what:<18} {step:<20} {moment:<7} {ran:<4} {seconds:>5.2} s  {ended:<12} left: {left}"
        )
        .expect("writing to a string does not fail");
        let mut fault = |text: String| wrong.push(format!("{moment} {step}: {text}"));
        if !allowed.contains(&ran.as_str()) {
            fault(format!("{ran} answers"));
        }
        if *recovered > WITHIN {
            fault(format!("it took {seconds} s"));
        }
        if ended != status {
            fault(format!("the deployment {ended}"));
        }
        for text in faults {
            fault(text.clone());
        }
    }
    print!("{table}");
    let longest = rows.iter().map(|(_, row)| row.recovered).max().unwrap_or_default();
    println!(
        "figure: {what}: worker killed at {} moments of {} steps, the application answered after at most {:.2} s",
        rows.len(),
        seen.len() + REPORTED.len() + 1,
        longest.as_secs_f64()
    );
    assert_eq!(rows.len(), kills.len());
    wrong
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_anywhere_in_a_switch_ends_it() {
    let wrong = matrix(Case::Over, "new over old", &["old", "new"], "succeeded").await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_anywhere_on_the_way_back_comes_back() {
    let wrong = matrix(Case::Back, "back to old", &["old", "new"], "rolled_back").await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_anywhere_in_a_first_deployment_ends_it() {
    let wrong = matrix(Case::First, "first of all", &["new"], "succeeded").await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}
