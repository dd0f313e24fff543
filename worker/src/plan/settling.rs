//! The way back: to what was committed last, by names, and by what this process itself has stopped.

use tidegate_domain::id::DeploymentId;

use super::{
    Observed, Previous, Seen, Step, observed::failed_name, remove_next, remove_previous, start_previous, stop_next,
    stop_previous, stop_stray,
};

pub(super) fn settle(observed: &Observed) -> Step {
    let Observed { current, next, previous, .. } = observed;
    match (current, previous, next) {
        // Somebody else's shows nothing of ours: next has to stand beside it until it is back.
        (None, Some(previous), Some(next)) if previous.foreign => {
            if next.running {
                stop_next(next)
            } else {
                bring_back(previous, observed)
            }
        }
        // First, because it may hold the ports that previous needs.
        (_, _, Some(next)) => remove_next(next),
        (Some(current), None, None) => start_again(current, observed),
        (None, None, None) => find_again(observed),
        // Next has become current: the switch was committed. In its bake time the former version is kept, and Docker may
        // have started it again.
        (Some(current), Some(previous), None) if observed.bakes => {
            if previous.seen.running && current.running {
                stop_previous(previous)
            } else {
                Step::Done
            }
        }
        (Some(_), Some(previous), None) => remove_previous(previous),
        (None, Some(previous), None) => bring_back(previous, observed),
    }
}

/// As [`settle`], and what is kept for a bake time goes too: something else is ordered now.
pub(super) fn settle_for_good(observed: &Observed) -> Step {
    match (&observed.current, &observed.previous, &observed.next) {
        (Some(_), Some(previous), None) => remove_previous(previous),
        _ => settle(observed),
    }
}

pub(super) fn give_back(release: DeploymentId, observed: &Observed) -> Step {
    match (&observed.current, &observed.next) {
        (Some(current), None) if current.deployment == Some(release) => {
            Step::Uncommit { id: current.id.clone(), name: failed_name(&current.base) }
        }
        (Some(current), Some(next)) if current.deployment == Some(release) => remove_next(next),
        // It has served, and may have something to write down.
        (None, Some(next)) if next.was_committed && next.running => stop_next(next),
        _ => {
            let of_release = |stray: &&Seen| stray.running && stray.deployment == Some(release);
            observed.strays.iter().find(of_release).map_or_else(|| settle(observed), stop_stray)
        }
    }
}

/// What this process has stopped for another version, and somebody else has given its name back.
fn start_again(current: &Seen, observed: &Observed) -> Step {
    if observed.owes(&current.id) && !current.running {
        return Step::StartCurrent { id: current.id.clone(), always: current.always };
    }
    Step::Done
}

/// What this process has set aside, and somebody else has renamed. Nothing tells an adopted one under a name of their own.
fn find_again(observed: &Observed) -> Step {
    if let (Some(foreign), Some(owed)) = (&observed.foreign, &observed.owed)
        && foreign.id == owed.id
        && !foreign.running
    {
        return Step::StartPrevious { id: owed.id.clone(), always: owed.always };
    }
    match observed.strays.iter().find(|stray| observed.owes(&stray.id)) {
        Some(_) if observed.foreign.is_some() => Step::RefuseName,
        Some(stray) => Step::BringBack { id: stray.id.clone(), name: stray.base.clone() },
        None => Step::Done,
    }
}

/// Started before it is renamed: its name is what says that it should run.
fn bring_back(previous: &Previous, observed: &Observed) -> Step {
    if let Some(successor) = observed.strays.iter().find(|stray| is_successor(stray, previous)) {
        return stop_stray(successor);
    }
    // One that runs and cannot have its name yet is not restarted with every try.
    let waits = previous.name_taken && previous.seen.running;
    if previous.should_run && !previous.revived && !waits {
        return start_previous(previous);
    }
    if previous.name_taken {
        return Step::RefuseName;
    }
    Step::BringBack { id: previous.seen.id.clone(), name: previous.seen.base.clone() }
}

/// Whether it is what previous was set aside for: somebody has renamed it, and it may hold the ports that previous needs.
fn is_successor(stray: &Seen, previous: &Previous) -> bool {
    stray.running && stray.deployment != previous.seen.deployment && stray.sequence >= previous.seen.sequence
}
