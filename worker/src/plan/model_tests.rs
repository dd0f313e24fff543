//! A worker that carries out what the planner says on a small Docker, as `perform` and `settle` do on the real one.

#[path = "docker_tests.rs"]
mod docker;

use std::collections::BTreeMap;

use tidegate_domain::id::{Epoch, Sequence};

use super::super::*;
pub(super) use docker::{BAKING, BASE, Docker, OVER, Thing, Version, release};

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
    /// Somebody else does this to one of the containers before it.
    Meddled(Meddling, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meddling {
    Remove,
    Stop,
    /// To a name that we never give.
    Rename,
    /// To the application's name, if nothing has it.
    Name,
    /// Makes one of their own with the application's name, if nothing has it, and does not start it.
    TakeName,
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
    Lost,
    /// The port is held by another one, such as somebody has renamed: it is looked at before anything is stopped.
    Port,
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
        let (mut count, mut memory) = (0, Memory::default());
        let end = self.drive(&worker, worker.goal, &mut count, &mut memory);
        let way_back = match end {
            End::Done | End::Crashed => return end,
            End::Failed | End::Refused(_) | End::Broken => memory.way_back(&worker),
        };
        memory.held = Held::Nothing;
        for _ in 0..4 {
            match self.drive(&worker, way_back, &mut count, &mut memory) {
                // It waits for its name, and everything else is done.
                End::Done | End::Refused(Told::Name) => return end,
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

    fn drive(&mut self, worker: &Worker, goal: Goal, count: &mut usize, memory: &mut Memory) -> End {
        let settles = matches!(goal, Goal::Settle | Goal::Return { .. });
        let Memory { held, last, committed, in_bake } = memory;
        let mut look = true;
        for _ in 0..MOST_STEPS {
            let looked = look;
            if look {
                *last = self.docker.observe(worker.now, worker.adopts).knowing(last);
            }
            let step = next_step(&goal, last, *held);
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
                Step::RefuseLost => {
                    *in_bake = *held >= Held::Baked && last.previous.is_some();
                    return End::Refused(Told::Lost);
                }
                Step::Create if self.is_port_taken(last) => return End::Refused(Told::Port),
                Step::ProveLease if self.is_committed(worker) => *committed = true,
                Step::Commit { .. } => *committed = true,
                _ => {}
            }
            self.is_allowed(&step, goal, *held);
            self.pass_time(&step);
            let trouble = worker.trouble.filter(|trouble| trouble.at == *count).map(|trouble| trouble.what);
            *count += 1;
            let went = self.suffer(trouble, &step, worker.version);
            let is_committed = self.is_committed(worker);
            match went {
                Went::Crashed => return End::Crashed,
                Went::Interrupted if *held < Held::Proven && !settles && !is_committed => return End::Broken,
                Went::Interrupted if matches!(step, Step::Bake { .. }) => return End::Crashed,
                // Before it is told, others may have done something.
                Went::Interrupted | Went::Well if matches!(step, Step::Check { .. }) && !worker.healthy => {
                    return End::Failed;
                }
                Went::Interrupted | Went::Well if matches!(step, Step::Bake { .. }) && !worker.bakes_well => {
                    *in_bake = true;
                    return End::Failed;
                }
                Went::Interrupted | Went::Well => {
                    *last = std::mem::take(last).after(&step);
                    let proven = if *committed { Held::Checked } else { Held::Proven };
                    *held = (*held).max(held_after(&step, goal, *held, proven));
                    let is_served = matches!(step, Step::Check { .. } | Step::Commit { .. } | Step::Bake { .. });
                    look = !settles && (*held < Held::Proven || is_served);
                }
                Went::Away if *held >= Held::Proven || settles => look = true,
                Went::Refused if settles => look = true,
                Went::Refused | Went::Away => return End::Broken,
            }
        }
        panic!("does not come to an end: {goal:?} {self:#?}");
    }

    /// By what does not give it up.
    fn is_port_taken(&self, seen: &Observed) -> bool {
        let foreign = seen.foreign.as_ref().map(|foreign| foreign.id.as_str());
        let gives_up = |thing: &Thing| seen.ids().chain(foreign).any(|id| id == thing.container.id);
        self.docker.things.iter().any(|thing| thing.container.running && !gives_up(thing))
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
            Meddling::Rename => self.docker.rename(id, "shop-by-hand"),
            Meddling::Name if self.docker.named(BASE).is_none() => self.docker.rename(id, BASE),
            Meddling::TakeName if self.docker.named(BASE).is_none() => {
                self.docker.add(BASE, BTreeMap::new(), false, false);
                self.docker.things.iter_mut().filter(|t| t.container.name == BASE).for_each(|t| t.theirs = true);
                Ok(())
            }
            Meddling::Name | Meddling::TakeName => Ok(()),
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
        // A way back starts again what its own switch has stopped.
        let goes_back = matches!(goal, Goal::Settle | Goal::Return { .. });
        assert!(!switches || goes_back || held >= Held::Proven, "{step:?} without a proven lease");
        if let Step::Commit { id } = step {
            let runs = self.docker.things.iter().any(|thing| thing.container.id == *id && thing.container.running);
            assert!(
                held >= Held::Checked && (runs || self.meddled || !self.is_quiet()),
                "committed unchecked: {goal:?}"
            );
        }
    }
}

/// What a process knows beside what it sees.
#[derive(Debug)]
struct Memory {
    held: Held,
    last: Observed,
    committed: bool,
    in_bake: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Self { held: Held::Nothing, last: Observed::default(), committed: false, in_bake: false }
    }
}

impl Memory {
    fn way_back(&self, worker: &Worker) -> Goal {
        match worker.version {
            Some(version) if self.in_bake || self.held >= Held::Created && !self.committed => {
                Goal::Return { release: release(version.release) }
            }
            Some(_) | None => Goal::Settle,
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

fn held_after(step: &Step, goal: Goal, held: Held, proven: Held) -> Held {
    match step {
        Step::Pull => Held::Pulled,
        Step::Create => Held::Created,
        Step::ProveLease => proven,
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
