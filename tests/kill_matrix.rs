//! A worker killed with `kill -9` before, amid and after every call that changes something: what runs then, how soon, and
//! whether the record says the same. The calls are those that were seen in a rehearsal, so that a new step is killed too.

pub(crate) mod case;
mod kill;
pub(crate) mod lane;

use std::{fmt::Write as _, time::Duration};

use case::Case;
use futures_util::future::join_all;
use kill::{Moment, Point, Rehearsal, Row};
use lane::Lane;

use crate::support::{Installation, Setup};

/// From the restart of the worker to an answer of the application.
const WITHIN: Duration = Duration::from_secs(10);
/// Hosts on which rows run side by side.
const LANES: usize = 3;

type Kill = (Point, String, Moment);

fn kills(case: Case, seen: &Rehearsal) -> Vec<Kill> {
    let mut kills = Vec::new();
    for (index, name) in seen.docker.iter().enumerate() {
        for moment in [Moment::Before, Moment::Amid, Moment::After] {
            // A rename takes no time that anything could happen in.
            if moment != Moment::Amid || !name.starts_with("rename") {
                kills.push((Point::Docker(index + 1), name.clone(), moment));
            }
        }
    }
    let mut around = |point, name: &str| {
        kills.extend([Moment::Before, Moment::After].map(|moment| (point, name.to_owned(), moment)));
    };
    for kind in &seen.aws {
        around(Point::Aws(kind), if *kind == "report" { "report of the claim" } else { kind });
    }
    around(Point::LastReport, "report of the end");
    if case == Case::Over {
        around(Point::HandBack, "hand back");
    }
    if matches!(case, Case::Over | Case::Back | Case::First | Case::Adopt) {
        kills.push((Point::Check, "check".to_owned(), Moment::Amid));
    }
    kills
}

/// Every kill of the case, and the table of what came of them.
async fn matrix(case: Case, what: &str) -> Vec<String> {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let installation = &installation;
    let mut lanes = join_all((0..LANES).map(async |n| Lane::open(installation, &format!("lane-{n}")).await)).await;
    // The second time, as an image of a version before the last is removed then.
    let first = lanes[0].rehearse(case).await;
    let mut seen = lanes[0].rehearse(case).await;
    // What a busy machine may leave out is no place to wait for.
    seen.aws.retain(|kind| *kind != "renew" || first.aws.contains(kind));
    println!("{what}: {}; {}", seen.docker.join(", "), seen.aws.join(", "));
    for kind in ["claim", "finish", "report"] {
        assert!(seen.aws.contains(&kind), "{kind}: {seen:?}");
    }
    let kills = kills(case, &seen);
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
            "figure: {what:<18} {step:<20} {moment:<7} {ran:<7} {seconds:>5.2} s  {ended:<12} left: {left}"
        )
        .expect("writing to a string does not fail");
        let mut fault = |text: String| wrong.push(format!("{moment} {step}: {text}"));
        if !case.allowed().contains(&ran.as_str()) {
            fault(format!("{ran} is there"));
        }
        if *recovered > WITHIN {
            fault(format!("it took {seconds} s"));
        }
        if ended != case.status() {
            fault(format!("the deployment {ended}"));
        }
        for text in faults {
            fault(text.clone());
        }
    }
    print!("{table}");
    let longest = rows.iter().map(|(_, row)| row.recovered).max().unwrap_or_default();
    println!(
        "figure: {what}: worker killed at {} moments of {} steps, what was asked for was there after at most {:.2} s",
        rows.len(),
        kills.iter().map(|(point, ..)| point).collect::<std::collections::HashSet<_>>().len(),
        longest.as_secs_f64()
    );
    assert_eq!(rows.len(), kills.len());
    wrong
}

macro_rules! killed_anywhere {
    ($($name:ident: $case:ident, $what:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let wrong = matrix(Case::$case, $what).await;
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    )*};
}

killed_anywhere! {
    a_worker_killed_anywhere_in_a_switch_ends_it: Over, "new over old";
    a_worker_killed_anywhere_on_the_way_back_comes_back: Back, "back to old";
    a_worker_killed_anywhere_before_or_in_a_bake_time_comes_back: Bake, "bake";
    a_worker_killed_anywhere_in_a_rollouts_return_comes_back: Return, "return";
    a_worker_killed_anywhere_in_a_first_deployment_ends_it: First, "first of all";
    a_worker_killed_anywhere_in_an_adoption_ends_it: Adopt, "new over by hand";
    a_worker_killed_anywhere_in_a_restart_ends_it: Restart, "restart";
    a_worker_killed_anywhere_in_a_stop_ends_it: Stop, "stop";
    a_worker_killed_anywhere_in_a_start_ends_it: Start, "start";
    a_worker_killed_anywhere_in_a_removal_ends_it: Remove, "remove";
}
