//! A worker that carries out what the planner says on a small Docker, as `perform` and `settle` do on the real one.

#[path = "docker_tests.rs"]
mod docker;

use tidegate_domain::id::{Epoch, Sequence};

use super::super::*;
pub(super) use docker::{BAKING, BASE, Docker, OVER, Version, release};

/// No way to a goal is longer, errors and all.
const MOST_STEPS: usize = 40;

/// What happens to the `at`-th step of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) at: usize,
    pub(super) what: Mishap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mishap {
    CrashBefore,
    CrashAfter,
    /// Docker does what it was asked so many steps later, when the process is long dead.
    CrashAndLate(usize),
    /// The engine is away: it was not done.
    Refused,
    /// It was done, and the answer did not come.
    Unheard,
    Twice,
    /// The engine restarts before it.
    DaemonRestarts,
    /// The work is called off, or handed back.
    Interrupted,
    /// Somebody else does this to one of the containers before it. (Who renames what runs keeps its port from us for good:
    /// the way back then fails, and says so.)
    Meddled(Meddling, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meddling {
    Remove,
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Refused(Told),
    /// The version did not pass its check, or its bake time.
    Failed,
    /// By trouble: it is tried again.
    Broken,
    Crashed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Name,
    Older,
    Nothing,
}

/// A host: its engine, and the calls of dead processes that still are to come.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    pub(super) docker: Docker,
    pub(super) late: Vec<(usize, Step, Option<Version>)>,
    pub(super) meddled: bool,
}

/// A process with its memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Worker {
    pub(super) goal: Goal,
    pub(super) version: Option<Version>,
    pub(super) healthy: bool,
    pub(super) bakes_well: bool,
    pub(super) trouble: Option<Trouble>,
    pub(super) adopts: bool,
    pub(super) now: i64,
}

impl Machine {
    /// Waits for all that dead processes have asked for.
    pub(super) fn quiet(&mut self) {
        for (_, step, version) in std::mem::take(&mut self.late) {
            let _ = self.docker.carry_out(&step, version);
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.late.is_empty()
    }

    fn pass_time(&mut self, next: &Step) {
        // A container that is being stopped is restarted when it has stopped.
        if let Step::StartPrevious { id: wanted, .. } = next {
            let stops = |step: &Step| matches!(step, Step::StopPrevious { id, .. } if id == wanted);
            for (left, step, _) in &mut self.late {
                *left = if stops(step) { 0 } else { *left };
            }
        }
        for index in (0..self.late.len()).rev() {
            if self.late[index].0 == 0 {
                let (_, step, version) = self.late.remove(index);
                let _ = self.docker.carry_out(&step, version);
            } else {
                self.late[index].0 -= 1;
            }
        }
    }

    /// One attempt at an order, with its way back.
    pub(super) fn perform(&mut self, worker: Worker) -> End {
        let mut count = 0;
        let end = self.drive(&worker, worker.goal, &mut count);
        let way_back = match end {
            End::Done | End::Crashed => return end,
            End::Failed if self.is_committed(&worker) => {
                Goal::Return { release: release(worker.version.unwrap().release) }
            }
            End::Failed | End::Refused(_) | End::Broken => Goal::Settle,
        };
        for _ in 0..4 {
            match self.drive(&worker, way_back, &mut count) {
                End::Done => return end,
                End::Crashed => return End::Crashed,
                End::Broken | End::Refused(_) | End::Failed => {}
            }
        }
        panic!("the way back does not come to an end: {self:#?}");
    }

    fn is_committed(&self, worker: &Worker) -> bool {
        let current = self.docker.observe(worker.now, worker.adopts).current;
        worker.version.is_some_and(|v| current.is_some_and(|seen| seen.deployment == Some(release(v.release))))
    }

    pub(super) fn recover(&mut self, now: i64, trouble: Option<Trouble>) -> End {
        let goal = Goal::Settle;
        self.perform(Worker { goal, version: None, healthy: true, bakes_well: true, trouble, adopts: false, now })
    }

    fn drive(&mut self, worker: &Worker, goal: Goal, count: &mut usize) -> End {
        let settles = matches!(goal, Goal::Settle | Goal::Return { .. });
        let (mut held, mut last, mut look) = (Held::Nothing, Observed::default(), true);
        for _ in 0..MOST_STEPS {
            let looked = look;
            if look {
                last = self.docker.observe(worker.now, worker.adopts).knowing(&last);
            }
            let step = next_step(&goal, &last, held);
            if step == Step::Done {
                if looked {
                    return End::Done;
                }
                look = true;
                continue;
            }
            match step {
                Step::RefuseName => return End::Refused(Told::Name),
                Step::RefuseOlder => return End::Refused(Told::Older),
                Step::RefuseNothing => return End::Refused(Told::Nothing),
                Step::Check { .. } if !worker.healthy => return End::Failed,
                Step::Bake { .. } if !worker.bakes_well => return End::Failed,
                _ => {}
            }
            self.is_allowed(&step, goal, held);
            self.pass_time(&step);
            let trouble = worker.trouble.filter(|trouble| trouble.at == *count).map(|trouble| trouble.what);
            *count += 1;
            let went = self.suffer(trouble, &step, worker.version);
            let committed = self.is_committed(worker);
            match went {
                Went::Crashed => return End::Crashed,
                Went::Interrupted if held < Held::Proven && !settles && !committed => return End::Broken,
                Went::Interrupted if matches!(step, Step::Bake { .. }) => return End::Crashed,
                Went::Interrupted | Went::Well => {
                    last = last.after(&step);
                    held = held.max(held_after(&step, goal, held));
                    look = !settles && (held < Held::Proven || matches!(step, Step::Commit { .. }));
                }
                Went::Away if held >= Held::Proven || settles => look = true,
                Went::Refused if settles => look = true,
                Went::Refused | Went::Away => return End::Broken,
            }
        }
        panic!("does not come to an end: {goal:?} {self:#?}");
    }

    fn suffer(&mut self, trouble: Option<Mishap>, step: &Step, version: Option<Version>) -> Went {
        match trouble {
            Some(Mishap::CrashBefore) => return Went::Crashed,
            Some(Mishap::CrashAndLate(steps)) => {
                self.late.push((steps, step.clone(), version));
                return Went::Crashed;
            }
            Some(Mishap::Refused) => return Went::Away,
            Some(Mishap::DaemonRestarts) => self.docker.restart_daemon(),
            Some(Mishap::Meddled(how, which)) => self.meddle(how, which),
            Some(Mishap::CrashAfter | Mishap::Unheard | Mishap::Interrupted | Mishap::Twice) | None => {}
        }
        let answer = self.docker.carry_out(step, version);
        match trouble {
            Some(Mishap::CrashAfter) => return Went::Crashed,
            Some(Mishap::Unheard) => return Went::Away,
            Some(Mishap::Twice) => {
                // Refused or not: it was done.
                let _ = self.docker.carry_out(step, version);
            }
            _ => {}
        }
        match answer {
            Ok(()) if trouble == Some(Mishap::Interrupted) => Went::Interrupted,
            Ok(()) => Went::Well,
            Err(_) => Went::Refused,
        }
    }

    fn meddle(&mut self, how: Meddling, which: usize) {
        let ids: Vec<_> = self.docker.list().into_iter().map(|container| container.id).collect();
        let Some(id) = ids.get(which % ids.len().max(1)) else { return };
        let done = match how {
            Meddling::Remove => {
                self.docker.remove(id);
                Ok(())
            }
            Meddling::Stop => self.docker.stop(id),
        };
        assert!(done.is_ok(), "{how:?} of what was listed");
        self.meddled = true;
    }

    /// What must never be asked for.
    fn is_allowed(&self, step: &Step, goal: Goal, held: Held) {
        let switches = matches!(
            step,
            Step::SetAside { .. }
                | Step::StartNext { .. }
                | Step::Commit { .. }
                | Step::StopCurrent { .. }
                | Step::StartCurrent { .. }
                | Step::RemoveCurrent { .. }
        );
        assert!(!switches || held >= Held::Proven, "{step:?} without a proven lease");
        if let Step::Commit { id } = step {
            let runs = self.docker.things.iter().any(|thing| thing.container.id == *id && thing.container.running);
            assert!(
                held >= Held::Checked && (runs || self.meddled || !self.is_quiet()),
                "committed unchecked: {goal:?}"
            );
        }
    }
}

enum Went {
    Well,
    Away,
    Refused,
    Crashed,
    Interrupted,
}

fn held_after(step: &Step, goal: Goal, held: Held) -> Held {
    match step {
        Step::Pull => Held::Pulled,
        Step::Create => Held::Created,
        Step::ProveLease => Held::Proven,
        Step::StartPrevious { .. } if matches!(goal, Goal::Restart { .. }) && held >= Held::Proven => Held::Restarted,
        Step::Check { .. } => Held::Checked,
        Step::StopCurrent { .. } if matches!(goal, Goal::Stop { .. }) => Held::Checked,
        Step::Bake { .. } => Held::Baked,
        _ => Held::Nothing,
    }
}

pub(super) fn sequence(number: u64) -> Sequence {
    Sequence(number)
}

pub(super) fn epoch(number: u64) -> Epoch {
    Epoch(number)
}
