//! What to do next, decided by looking: at Docker's names, labels and states, never at a memory of what was done.
//!
//! An application's containers on a host differ by name only:
//!
//! | name | role |
//! | --- | --- |
//! | `shop` | current: what was committed last |
//! | `shop.tidegate-next` | next: being tried |
//! | `shop.tidegate-prev` | previous: was running when it was set aside, so it is started again if next fails |
//! | `shop.tidegate-prev-stopped` | previous: was stopped when it was set aside, and stays so |
//!
//! Giving next the application's name is the commit, one atomic rename in Docker. Whatever a killed worker leaves
//! behind is one of these names too, so [`Goal::Settle`] brings back what was committed from the names alone.

use tidegate_domain::{
    id::{ApplicationId, DeploymentId, Epoch},
    image::Digest,
};

use crate::docker::{Container, label};

const NEXT: &str = ".tidegate-next";
const PREVIOUS: &str = ".tidegate-prev";
const PREVIOUS_STOPPED: &str = ".tidegate-prev-stopped";

/// What the host should come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// This deployment runs; tried by the holder of this epoch.
    Deploy { deployment: DeploymentId, epoch: Epoch },
    /// What was committed last runs, and nothing is left of anything else.
    Settle,
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
    /// Next has passed its check.
    Checked,
}

/// One of our containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    /// The application's container name when this one was created.
    pub base: String,
    pub deployment: Option<DeploymentId>,
    pub epoch: Option<Epoch>,
    pub digest: Option<Digest>,
    /// Or being restarted by Docker, or paused: it is not stopped.
    pub running: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    pub seen: Seen,
    pub should_run: bool,
    /// This process has started it since. Of one that merely runs nobody knows whether a process that died has asked
    /// Docker to stop it, which Docker then still does, and says nowhere.
    pub revived: bool,
}

/// An application on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    pub current: Option<Seen>,
    pub next: Option<Seen>,
    pub previous: Option<Previous>,
    /// Somebody else's container bears the name that is to be deployed.
    pub name_is_taken: bool,
}

/// One change, each a single call to Docker (or none). All may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    RefuseName,
    Pull,
    Create,
    ProveLease,
    SetAside {
        id: String,
        name: String,
    },
    StopPrevious {
        id: String,
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
    RemoveNext {
        id: String,
    },
    RemovePrevious {
        id: String,
    },
    /// Again, if it runs.
    StartPrevious {
        id: String,
    },
    BringBack {
        id: String,
        name: String,
    },
    Done,
}

/// The container name of what is being tried beside the application `base`.
pub fn next_name(base: &str) -> String {
    format!("{base}{NEXT}")
}

pub fn next_step(goal: &Goal, observed: &Observed, held: Held) -> Step {
    match *goal {
        Goal::Settle => settle(observed),
        Goal::Deploy { deployment, epoch } => deploy(deployment, epoch, observed, held),
    }
}

fn settle(observed: &Observed) -> Step {
    // First, because it may hold the ports that previous needs.
    if let Some(next) = &observed.next {
        return Step::RemoveNext { id: next.id.clone() };
    }
    match (&observed.current, &observed.previous) {
        (_, None) => Step::Done,
        // Next has become current: the switch was committed.
        (Some(_), Some(previous)) => Step::RemovePrevious { id: previous.seen.id.clone() },
        // Started before it is renamed: its name is what says that it should run.
        (None, Some(Previous { seen, should_run, revived })) if *should_run && !*revived => {
            Step::StartPrevious { id: seen.id.clone() }
        }
        (None, Some(Previous { seen, .. })) => Step::BringBack { id: seen.id.clone(), name: seen.base.clone() },
    }
}

fn deploy(deployment: DeploymentId, epoch: Epoch, observed: &Observed, held: Held) -> Step {
    let Observed { current, next, previous, name_is_taken } = observed;
    if current.as_ref().is_some_and(|seen| seen.deployment == Some(deployment)) {
        return settle(observed);
    }
    let ours = |seen: &Seen| held >= Held::Created && seen.deployment == Some(deployment) && seen.epoch == Some(epoch);
    let switching = held >= Held::Proven && next.as_ref().is_some_and(ours);
    if let Some(previous) = previous {
        // Left by an attempt that was never settled, unless it is this one's.
        if current.is_some() || !switching {
            return settle(observed);
        }
        if previous.seen.running {
            return Step::StopPrevious { id: previous.seen.id.clone() };
        }
    }
    if *name_is_taken {
        return Step::RefuseName;
    }
    match next {
        Some(next) if !ours(next) => Step::RemoveNext { id: next.id.clone() },
        None if held < Held::Pulled => Step::Pull,
        None => Step::Create,
        Some(_) if held < Held::Proven => Step::ProveLease,
        Some(next) => match current {
            Some(seen) => {
                let suffix = if seen.running { PREVIOUS } else { PREVIOUS_STOPPED };
                Step::SetAside { id: seen.id.clone(), name: format!("{}{suffix}", seen.base) }
            }
            None if !next.running => Step::StartNext { id: next.id.clone() },
            None if held < Held::Checked => Step::Check { id: next.id.clone() },
            None => Step::Commit { id: next.id.clone() },
        },
    }
}

impl Observed {
    /// Of one application, out of all containers of the engine. `base` is the container name that it is to have.
    pub fn of(containers: &[Container], host: &str, application: ApplicationId, base: &str) -> Self {
        let mut observed = Self::default();
        let application = application.to_string();
        for container in containers {
            let labelled = |key, value: &str| container.labels.get(key).is_some_and(|v| v == value);
            let ours = labelled(label::HOST, host) && labelled(label::APPLICATION, &application);
            if !ours {
                observed.name_is_taken |= container.name == base;
                continue;
            }
            let seen = Seen::of(container, base);
            // One that was renamed by hand to something else is left alone.
            match container.name.strip_prefix(&seen.base) {
                Some("") => observed.current = Some(seen),
                Some(NEXT) => observed.next = Some(seen),
                Some(PREVIOUS) => observed.previous = Some(Previous { seen, should_run: true, revived: false }),
                Some(PREVIOUS_STOPPED) if observed.previous.is_none() => {
                    observed.previous = Some(Previous { seen, should_run: false, revived: false });
                }
                _ => {}
            }
        }
        observed
    }

    /// With what this process knows from before, which Docker does not show.
    #[must_use]
    pub fn knowing(mut self, before: &Self) -> Self {
        let revived = before.previous.as_ref().filter(|before| before.revived).map(|before| &before.seen.id);
        if let Some(previous) = &mut self.previous {
            previous.revived = previous.seen.running && revived == Some(&previous.seen.id);
        }
        self
    }

    /// What Docker will show after a step that went well.
    #[must_use]
    pub fn after(mut self, step: &Step) -> Self {
        match step {
            Step::RefuseName | Step::Pull | Step::Create | Step::ProveLease | Step::Check { .. } | Step::Done => {}
            Step::SetAside { name, .. } => {
                let should_run = !name.ends_with(PREVIOUS_STOPPED);
                self.previous = self.current.take().map(|seen| Previous { should_run, seen, revived: false });
            }
            Step::StopPrevious { .. } => {
                if let Some(previous) = &mut self.previous {
                    previous.seen.running = false;
                }
            }
            Step::StartNext { .. } => {
                if let Some(next) = &mut self.next {
                    next.running = true;
                }
            }
            Step::Commit { .. } => self.current = self.next.take(),
            Step::RemoveNext { .. } => self.next = None,
            Step::RemovePrevious { .. } => self.previous = None,
            Step::StartPrevious { .. } => {
                if let Some(previous) = &mut self.previous {
                    previous.seen.running = true;
                    previous.revived = true;
                }
            }
            Step::BringBack { .. } => self.current = self.previous.take().map(|previous| previous.seen),
        }
        self
    }
}

impl Seen {
    fn of(container: &Container, base: &str) -> Self {
        let text = |key| container.labels.get(key).map(String::as_str);
        Self {
            id: container.id.clone(),
            base: text(label::NAME).unwrap_or(base).to_owned(),
            deployment: text(label::DEPLOYMENT).and_then(|id| DeploymentId::parse(id).ok()),
            epoch: text(label::EPOCH).and_then(|epoch| epoch.parse().ok()).map(Epoch),
            digest: text(label::DIGEST).and_then(|digest| Digest::parse(digest).ok()),
            running: container.running,
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
