//! What to do next, decided by looking: at Docker's names, labels and states, never at a memory of what was done.
//!
//! An application's containers on a host differ by name only:
//!
//! | name | role |
//! | --- | --- |
//! | `shop` | current: what was committed last |
//! | `shop.tidegate-next` | next: being tried |
//! | `shop.tidegate-failed` | next: was committed, failed in its bake time, and is to go |
//! | `shop.tidegate-prev` | previous: was running when it was set aside, so it is started again if it comes back |
//! | `shop.tidegate-prev-stopped` | previous: was stopped when it was set aside, and stays so |
//! | `shop.tidegate-adopted`, `…-always`, `…-stopped` | previous: somebody else's, set aside as the application adopts it |
//!
//! Giving next the application's name is the commit, one atomic rename in Docker; taking it away again is the way back
//! out of a bake time. Whatever a killed worker leaves behind is one of these names too, so [`Goal::Settle`] brings back
//! what was committed from the names alone. A restart goes the same way: the container is set aside as one that was
//! running, and comes back.

mod observed;
mod settling;

use tidegate_domain::id::{DeploymentId, Epoch, Sequence};

use crate::docker::UnnamedVolumes;
pub(crate) use observed::bakes;
pub use observed::{Foreign, Observed, Previous, Seen, Whose, next_name};
use observed::{adopted_name, previous_name};
use settling::{give_back, settle, settle_for_good};

/// What the host should come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// A version runs.
    Deploy(Deploy),
    /// The application's container is there and stopped.
    Stop { sequence: Sequence },
    /// It runs.
    Start { sequence: Sequence },
    /// It was stopped, and runs again.
    Restart { sequence: Sequence },
    /// No container of the application is there.
    Remove { sequence: Sequence },
    /// What was committed last runs, and nothing is left of anything else.
    Settle,
    /// The same, with this release neither committed nor running under any name: it failed in its check or its bake time.
    Return { release: DeploymentId },
}

/// A version to be put in the place of the one that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deploy {
    pub release: DeploymentId,
    pub sequence: Sequence,
    /// Of the one who tries it.
    pub epoch: Epoch,
    /// It is watched after the commit, with the former version kept.
    pub bake: bool,
    /// A container of the application's name that nobody manages is replaced.
    pub adopt: bool,
    /// It takes the place, and is not started.
    pub stopped: bool,
}

/// What this process knows beyond what Docker shows, each including those before. A crash forgets it, and the host is
/// settled instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    Nothing,
    /// The image is on the host.
    Pulled,
    /// Next was created by this attempt, from this very work order.
    Created,
    /// The lease lasts longer than the switch may take.
    Proven,
    /// The container was started again, where that was the order.
    Restarted,
    /// The container has passed its check, or is stopped, where that was the order.
    Checked,
    /// It has passed its bake time.
    Baked,
}

/// One change (or none). All may be repeated. `always`: Docker would start the container with its own start, although it
/// was stopped on purpose, so that has to be switched off with the stop, and on again with the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Somebody else's container has the name. On a way back: what ran before runs, as far as it should, and waits for it.
    RefuseName,
    /// A later sequence has run here.
    RefuseOlder,
    /// There is no container that could be started.
    RefuseNothing,
    /// The container of the new version has gone, or has a name that we never give.
    RefuseLost,
    Pull,
    Create,
    ProveLease,
    SetAside {
        id: String,
        name: String,
    },
    StopPrevious {
        id: String,
        always: bool,
    },
    StartNext {
        id: String,
    },
    Check {
        id: String,
    },
    /// Rename next to the application's name.
    Commit {
        id: String,
    },
    Bake {
        id: String,
    },
    /// Take the application's name away from current.
    Uncommit {
        id: String,
        name: String,
    },
    StopNext {
        id: String,
        always: bool,
    },
    RemoveNext {
        id: String,
        volumes: UnnamedVolumes,
    },
    RemovePrevious {
        id: String,
        volumes: UnnamedVolumes,
    },
    /// Again, if it runs.
    StartPrevious {
        id: String,
        always: bool,
    },
    BringBack {
        id: String,
        name: String,
    },
    StopCurrent {
        id: String,
        always: bool,
    },
    StartCurrent {
        id: String,
        always: bool,
    },
    RemoveCurrent {
        id: String,
    },
    /// One of the application's that somebody gave another name.
    StopStray {
        id: String,
        always: bool,
    },
    RemoveStray {
        id: String,
    },
    Done,
}

pub fn next_step(goal: &Goal, observed: &Observed, held: Held) -> Step {
    match *goal {
        Goal::Settle => settle(observed),
        Goal::Return { release } => give_back(release, observed),
        Goal::Deploy(goal) => deploy(goal, observed, held),
        Goal::Stop { sequence } => stop(sequence, observed, held),
        Goal::Start { sequence } => start(sequence, observed, held),
        Goal::Restart { sequence } => restart(sequence, observed, held),
        Goal::Remove { sequence } => remove(sequence, observed, held),
    }
}

fn deploy(goal: Deploy, observed: &Observed, held: Held) -> Step {
    let Observed { current, next, previous, foreign, .. } = observed;
    if let Some(current) = current.as_ref().filter(|seen| seen.deployment == Some(goal.release)) {
        // Somebody else gave it the name: that is no commit.
        let unchecked = held >= Held::Created && held < Held::Checked && !goal.stopped;
        return match unchecked {
            true if held >= Held::Proven && current.running => Step::Check { id: current.id.clone() },
            true => Step::RefuseLost,
            false => committed(goal, current, observed, held),
        };
    }
    if is_newer(current.as_ref(), goal.sequence) {
        return Step::RefuseOlder;
    }
    let is_ours = |seen: &Seen| {
        let same = seen.deployment == Some(goal.release) && seen.epoch == Some(goal.epoch);
        same && held >= Held::Created && !seen.was_committed
    };
    let is_there = next.as_ref().is_some_and(is_ours);
    if held >= Held::Created && !is_there {
        return Step::RefuseLost;
    }
    let switching = held >= Held::Proven && is_there;
    if let Some(previous) = previous {
        // Left by an attempt that was never settled, or kept for a bake time that this deployment ends.
        if current.is_some() {
            return remove_previous(previous);
        }
        if !switching {
            return settle(observed);
        }
        if previous.seen.running {
            return stop_previous(previous);
        }
    }
    let stranger = foreign.as_ref();
    if stranger.is_some_and(|f| !goal.adopt || f.is_managed || current.is_some() || previous.is_some()) {
        return Step::RefuseName;
    }
    match next {
        Some(next) if !is_ours(next) => remove_next(next),
        None if held < Held::Pulled => Step::Pull,
        None => Step::Create,
        Some(_) if held < Held::Proven => Step::ProveLease,
        Some(next) => match (current, stranger) {
            (Some(seen), _) => Step::SetAside { id: seen.id.clone(), name: previous_name(&seen.base, seen.running) },
            (None, Some(foreign)) => Step::SetAside { id: foreign.id.clone(), name: adopted_name(foreign) },
            (None, None) if goal.stopped => Step::Commit { id: next.id.clone() },
            (None, None) if !next.running => Step::StartNext { id: next.id.clone() },
            (None, None) if held < Held::Checked => Step::Check { id: next.id.clone() },
            (None, None) => Step::Commit { id: next.id.clone() },
        },
    }
}

/// Of a deployment that was committed: the rest of its bake time, and then nothing of another version.
fn committed(goal: Deploy, current: &Seen, observed: &Observed, held: Held) -> Step {
    if let Some(next) = &observed.next {
        return remove_next(next);
    }
    let baking = goal.bake && observed.bakes && held < Held::Baked;
    match &observed.previous {
        // Of a process that goes on with it: from here on nobody calls it off.
        _ if baking && held < Held::Proven => Step::ProveLease,
        Some(previous) if baking && previous.seen.running && current.running => stop_previous(previous),
        _ if baking => Step::Bake { id: current.id.clone() },
        Some(previous) => remove_previous(previous),
        None => Step::Done,
    }
}

fn stop(sequence: Sequence, observed: &Observed, held: Held) -> Step {
    match &observed.current {
        _ if is_newer(observed.newest(), sequence) => Step::RefuseOlder,
        _ if settle_for_good(observed) != Step::Done => settle_for_good(observed),
        // Stopped means that nothing of it runs, whatever its name.
        _ if observed.running_stray().is_some() => {
            once_proven(held, observed.running_stray().map_or(Step::Done, stop_stray))
        }
        // One that ended by itself would be started with Docker.
        Some(current) if current.running || current.always && held < Held::Checked => {
            once_proven(held, Step::StopCurrent { id: current.id.clone(), always: current.always })
        }
        Some(_) | None => Step::Done,
    }
}

fn start(sequence: Sequence, observed: &Observed, held: Held) -> Step {
    match &observed.current {
        current if is_newer(current.as_ref(), sequence) => Step::RefuseOlder,
        _ if settle_for_good(observed) != Step::Done => settle_for_good(observed),
        None => Step::RefuseNothing,
        Some(_) if held >= Held::Checked => Step::Done,
        Some(current) if current.running => Step::Check { id: current.id.clone() },
        Some(current) => once_proven(held, Step::StartCurrent { id: current.id.clone(), always: current.always }),
    }
}

fn restart(sequence: Sequence, observed: &Observed, held: Held) -> Step {
    if held >= Held::Restarted {
        return match (settle(observed), &observed.current) {
            (Step::Done, Some(current)) if held < Held::Checked => Step::Check { id: current.id.clone() },
            (Step::Done, None) => Step::RefuseNothing,
            (step, _) => step,
        };
    }
    match (&observed.current, &observed.previous) {
        (current, _) if is_newer(current.as_ref(), sequence) => Step::RefuseOlder,
        // Set aside by this process, which is asked to start it whatever it looks like.
        (None, Some(previous)) if held >= Held::Proven => start_previous(previous),
        _ if settle_for_good(observed) != Step::Done => settle_for_good(observed),
        (None, _) => Step::RefuseNothing,
        (Some(current), _) => {
            let name = previous_name(&current.base, true);
            once_proven(held, Step::SetAside { id: current.id.clone(), name })
        }
    }
}

/// Current goes last: with it gone, a crash would bring previous back.
fn remove(sequence: Sequence, observed: &Observed, held: Held) -> Step {
    let Observed { current, next, previous, strays, .. } = observed;
    if is_newer(observed.newest(), sequence) {
        return Step::RefuseOlder;
    }
    // Somebody else's that was set aside is not the application's to remove.
    if current.is_none() && previous.as_ref().is_some_and(|previous| previous.foreign) {
        return settle(observed);
    }
    let volumes = UnnamedVolumes::Remove;
    let step = match (next, previous, strays.first(), current) {
        (Some(next), ..) => Step::RemoveNext { id: next.id.clone(), volumes },
        (None, Some(previous), ..) if previous.seen.running => stop_previous(previous),
        (None, Some(previous), ..) if previous.foreign => remove_previous(previous),
        (None, Some(previous), ..) => Step::RemovePrevious { id: previous.seen.id.clone(), volumes },
        (None, None, Some(stray), _) => Step::RemoveStray { id: stray.id.clone() },
        (None, None, None, Some(current)) if current.running => {
            Step::StopCurrent { id: current.id.clone(), always: current.always }
        }
        (None, None, None, Some(current)) => Step::RemoveCurrent { id: current.id.clone() },
        (None, None, None, None) => return Step::Done,
    };
    once_proven(held, step)
}

fn once_proven(held: Held, step: Step) -> Step {
    if held < Held::Proven { Step::ProveLease } else { step }
}

/// A late order must not undo what came after it. A way back carries the sequence of what it takes back.
fn is_newer(current: Option<&Seen>, sequence: Sequence) -> bool {
    current.and_then(|seen| seen.sequence).is_some_and(|seen| seen > sequence)
}

fn start_previous(previous: &Previous) -> Step {
    Step::StartPrevious { id: previous.seen.id.clone(), always: previous.seen.always }
}

fn stop_previous(previous: &Previous) -> Step {
    Step::StopPrevious { id: previous.seen.id.clone(), always: previous.seen.always }
}

fn stop_stray(stray: &Seen) -> Step {
    Step::StopStray { id: stray.id.clone(), always: stray.always }
}

fn stop_next(next: &Seen) -> Step {
    Step::StopNext { id: next.id.clone(), always: next.always }
}

/// What served as the committed version may have written something that somebody wants.
fn remove_next(next: &Seen) -> Step {
    let volumes = if next.was_committed { UnnamedVolumes::Keep } else { UnnamedVolumes::Remove };
    Step::RemoveNext { id: next.id.clone(), volumes }
}

fn remove_previous(previous: &Previous) -> Step {
    Step::RemovePrevious { id: previous.seen.id.clone(), volumes: UnnamedVolumes::Keep }
}

#[cfg(test)]
#[path = "plan/explore_tests.rs"]
mod explore_tests;
#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
