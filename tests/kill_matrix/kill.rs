//! Where and when a worker is killed, and what comes of it.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    case::{self, Case},
    lane::Lane,
};
use crate::support::relay::Fate;

/// What a worker changes if nothing goes wrong.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    /// Every call that changes something in Docker.
    pub docker: Vec<String>,
    /// Every kind of write to its assignment, and `report`, once.
    pub aws: Vec<&'static str>,
}

/// Where in the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Point {
    /// The n-th call that changes something in Docker.
    Docker(usize),
    /// The first write of this kind, see [`AwsCall::of_a_worker`](crate::support::faults::AwsCall::of_a_worker).
    Aws(&'static str),
    /// The report that follows the finish.
    LastReport,
    /// The new version answers, and is being checked; it does not get healthy before the kill, however late that is.
    Check,
    /// The worker was told to stop in a pull, and gives the order back.
    HandBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    Amid,
    After,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Before => "before",
            Self::Amid => "amid",
            Self::After => "after",
        })
    }
}

/// What came of one kill.
#[derive(Debug)]
pub(crate) struct Row {
    pub step: String,
    pub moment: Moment,
    /// What the killed worker left, by name and state.
    pub left: String,
    /// What was there first: `old` or `new` answered, or it was `stopped`, or there was `none`; or another answered.
    pub ran: String,
    /// From the restart to that.
    pub recovered: Duration,
    pub status: String,
    /// What is not as it must be.
    pub wrong: Vec<String>,
}

impl Lane<'_> {
    /// If nothing goes wrong.
    pub(crate) async fn rehearse(&mut self, case: Case) -> Rehearsal {
        self.prepare(case).await;
        let kinds = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&kinds);
        self.member.aws.judge_by(move |call| {
            let mut seen = seen.lock().unwrap();
            if let Some(kind) = call.of_a_worker().filter(|kind| !seen.contains(kind)) {
                seen.push(kind);
            }
            Fate::Pass
        });
        let old = self.running().to_owned();
        let (new, id) = self.begin(case).await;
        let ended = self.end(&id).await;
        assert_eq!(ended["status"], case.status(), "{ended}");
        let mut wrong = Vec::new();
        self.check_end(case, &ended, old, new, &mut wrong).await;
        assert!(wrong.is_empty(), "{case:?}: {wrong:?}");
        let aws = kinds.lock().unwrap().clone();
        Rehearsal { docker: self.member.docker.seen(), aws }
    }

    /// Kills the worker there, starts it again, and looks at what comes of it.
    pub(crate) async fn kill_at(&mut self, case: Case, point: Point, step: &str, moment: Moment) -> Row {
        self.prepare(case).await;
        self.doing = format!("killed {moment} {step}");
        if point == Point::Check {
            self.is_checked_by(case, case::held(case)).await;
        }
        self.arm(point, moment);
        let old = self.running().to_owned();
        let (new, id) = self.begin(case).await;
        match point {
            Point::Check => {
                let is_checking = async || self.is_checking(&id, &new).await.then_some(());
                self.soon("the check of the new version", is_checking).await;
                assert!(self.member.kill(), "{}: it was dead", self.doing);
            }
            Point::HandBack => {
                self.soon("the pull", async || self.is_at(&id, "pull").await.then_some(())).await;
                self.member.terminate();
            }
            Point::Docker(_) | Point::Aws(_) | Point::LastReport => {}
        }
        self.soon("the end of the worker", async || (!self.member.lives()).then_some(())).await;
        let left = self.soon("the containers", async || self.listed().await).await;
        let mut row = Row {
            step: step.to_owned(),
            moment,
            left,
            ran: String::new(),
            recovered: Duration::ZERO,
            status: String::new(),
            wrong: Vec::new(),
        };
        let restarted = Instant::now();
        self.calm();
        let answered = self.soon("what it comes to", async || self.shows(case).await).await;
        row.recovered = restarted.elapsed();
        row.ran = match answered.trim().trim_start_matches("version ") {
            version if version == old => "old".to_owned(),
            version if version == new => "new".to_owned(),
            other => other.to_owned(),
        };
        let ended = tokio::select! {
            ended = self.end(&id) => ended,
            never = self.say_healthy(), if point == Point::Check && case != Case::Back => match never {},
        };
        ended["status"].as_str().unwrap_or_default().clone_into(&mut row.status);
        self.check_end(case, &ended, old, new, &mut row.wrong).await;
        row
    }

    fn arm(&self, point: Point, moment: Moment) {
        let fate = move || match moment {
            Moment::Before => Fate::DieBefore,
            Moment::Amid => Fate::DieAmid,
            Moment::After => Fate::DieAfter,
        };
        let is_finished = Arc::new(AtomicBool::new(false));
        match point {
            Point::Check => {}
            Point::Docker(wanted) => {
                let gate = self.gate.closing();
                self.member.docker.judge_by(move |call| {
                    if call.nth != wanted {
                        return Fate::Pass;
                    }
                    if moment == Moment::Amid && call.name == "pull" {
                        gate.close();
                    }
                    fate()
                });
            }
            Point::HandBack => {
                let gate = self.gate.closing();
                self.member.docker.judge_by(move |call| {
                    if call.name == "pull" {
                        gate.close();
                    }
                    Fate::Pass
                });
                self.member.aws.judge_by(move |call| {
                    let is_it = call.of_a_worker() == Some("hand back");
                    if is_it { fate() } else { Fate::Pass }
                });
            }
            Point::Aws(wanted) => {
                self.member.aws.judge_by(move |call| {
                    let is_it = call.of_a_worker() == Some(wanted);
                    if is_it { fate() } else { Fate::Pass }
                });
            }
            Point::LastReport => {
                self.member.aws.judge_by(move |call| match call.of_a_worker() {
                    Some("finish") => {
                        is_finished.store(true, Ordering::SeqCst);
                        Fate::Pass
                    }
                    Some("report") if is_finished.load(Ordering::SeqCst) => fate(),
                    _ => Fate::Pass,
                });
            }
        }
    }
}
