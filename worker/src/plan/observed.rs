//! An application on a host, as Docker shows it.

use jiff::Timestamp;
use tidegate_domain::{
    id::{ApplicationId, DeploymentId, Epoch, Sequence},
    image::Digest,
};

use super::Step;
use crate::docker::{Container, label};

const NEXT: &str = ".tidegate-next";
const FAILED: &str = ".tidegate-failed";
const PREVIOUS: &str = ".tidegate-prev";
const PREVIOUS_STOPPED: &str = ".tidegate-prev-stopped";
const ADOPTED: &str = ".tidegate-adopted";
const ADOPTED_ALWAYS: &str = ".tidegate-adopted-always";
const ADOPTED_STOPPED: &str = ".tidegate-adopted-stopped";

/// The container name of what is being tried beside the application `base`.
pub fn next_name(base: &str) -> String {
    format!("{base}{NEXT}")
}

pub(super) fn failed_name(base: &str) -> String {
    format!("{base}{FAILED}")
}

pub(super) fn previous_name(base: &str, should_run: bool) -> String {
    format!("{base}{}", if should_run { PREVIOUS } else { PREVIOUS_STOPPED })
}

/// What has no labels of ours is known by this name alone, so it says all that the way back needs.
pub(super) fn adopted_name(foreign: &Foreign) -> String {
    let suffix = match (foreign.running, foreign.always) {
        (true, true) => ADOPTED_ALWAYS,
        (true, false) => ADOPTED,
        (false, _) => ADOPTED_STOPPED,
    };
    format!("{}{suffix}", foreign.base)
}

/// Whether a committed container may still be in its bake time.
pub(crate) fn bakes(container: &Container, now: Timestamp) -> bool {
    let until = container.labels.get(label::BAKES_UNTIL).and_then(|at| at.parse::<Timestamp>().ok());
    until.is_some_and(|until| now < until)
}

/// One of our containers, or one set aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    pub id: String,
    /// The application's container name when this one was created.
    pub base: String,
    pub deployment: Option<DeploymentId>,
    pub sequence: Option<Sequence>,
    pub epoch: Option<Epoch>,
    pub digest: Option<Digest>,
    /// The digest that ran before this one's.
    pub former_digest: Option<Digest>,
    /// Or being restarted by Docker, or paused: it is not stopped.
    pub running: bool,
    /// Docker starts it with its own start, even if it was stopped on purpose.
    pub always: bool,
    /// It had the application's name, and lost it in its bake time.
    pub was_committed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Previous {
    pub seen: Seen,
    pub should_run: bool,
    /// This process has started it since. Of one that merely runs nobody knows whether a process that died has asked
    /// Docker to stop it, which Docker then still does, and says nowhere.
    pub revived: bool,
    /// Not made by us.
    pub foreign: bool,
    /// Somebody else's container has the name that it is to get back.
    pub name_taken: bool,
}

/// Somebody else's container that bears the name which is to be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    pub id: String,
    pub base: String,
    pub running: bool,
    /// As [`Seen::always`]. The engine's list does not tell it: whoever looks asks for it.
    pub always: bool,
    /// By this worker for another application, or by another worker.
    pub is_managed: bool,
}

/// An application on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    pub current: Option<Seen>,
    pub next: Option<Seen>,
    pub previous: Option<Previous>,
    pub foreign: Option<Foreign>,
    /// Current is in its bake time: until its end the former version is kept.
    pub bakes: bool,
    /// Ours, with a name that we never give.
    pub strays: Vec<Seen>,
    /// What this process has set aside while it ran, and not started again since. It is owed to run, whatever name somebody
    /// else has given it meanwhile.
    pub owed: Option<Owed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub id: String,
    /// As [`Seen::always`].
    pub always: bool,
}

/// Which application's containers.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// Value of the host label.
    pub host: &'a str,
    pub application: ApplicationId,
    /// The container name that it is to have.
    pub base: &'a str,
    /// What was set aside as adopted is ours to bring back, even if nothing of ours stands beside it any more.
    pub adopts: bool,
}

impl Observed {
    /// Of one application, out of all containers of the engine.
    pub fn of(containers: &[Container], whose: Whose<'_>, now: Timestamp) -> Self {
        let mut observed = Self::default();
        let application = whose.application.to_string();
        let labelled = |c: &Container, key, value: &str| c.labels.get(key).is_some_and(|v| v == value);
        let is_ours =
            |c: &Container| labelled(c, label::HOST, whose.host) && labelled(c, label::APPLICATION, &application);
        let (ours, others): (Vec<_>, Vec<_>) = containers.iter().partition(|container| is_ours(container));
        for container in ours {
            let mut seen = Seen::of(container, whose.base);
            match container.name.strip_prefix(&seen.base) {
                Some("") => {
                    observed.bakes = bakes(container, now);
                    observed.current = Some(seen);
                }
                Some(suffix @ (NEXT | FAILED)) => {
                    seen.was_committed = suffix == FAILED;
                    // Of two, the one that may hold the ports.
                    if observed.next.as_ref().is_none_or(|other| seen.running && !other.running) {
                        observed.next = Some(seen);
                    }
                }
                Some(PREVIOUS) => observed.previous = Some(Previous::of(seen, true, false)),
                Some(PREVIOUS_STOPPED) => {
                    observed.previous.get_or_insert(Previous::of(seen, false, false));
                }
                // One that was renamed by hand to something else is left alone.
                _ => observed.strays.push(seen),
            }
        }
        observed.see_others(&others, whose);
        if let Some(previous) = &mut observed.previous {
            previous.name_taken = others.iter().any(|container| container.name == previous.seen.base);
        }
        observed
    }

    fn see_others(&mut self, others: &[&Container], whose: Whose<'_>) {
        if let Some(named) = others.iter().find(|container| container.name == whose.base) {
            self.foreign = Some(Foreign {
                id: named.id.clone(),
                base: whose.base.to_owned(),
                running: named.running,
                always: false,
                is_managed: named.labels.contains_key(label::HOST),
            });
        }
        let beside = self.next.as_ref().or(self.current.as_ref()).map(|seen| seen.base.clone());
        // Another worker of this engine may be about to adopt a container of the same name.
        let others_next = next_name(whose.base);
        let adopts = whose.adopts && others.iter().all(|container| container.name != others_next);
        let Some(base) = beside.or_else(|| adopts.then(|| whose.base.to_owned())) else { return };
        for container in others.iter().filter(|container| !container.labels.contains_key(label::HOST)) {
            let (should_run, always) = match container.name.strip_prefix(&base) {
                Some(ADOPTED) => (true, false),
                Some(ADOPTED_ALWAYS) => (true, true),
                Some(ADOPTED_STOPPED) => (false, false),
                _ => continue,
            };
            let (id, running) = (container.id.clone(), container.running);
            let seen = Seen { id, base: base.clone(), running, always, ..Seen::default() };
            // What was running beats what was not.
            if self.previous.as_ref().is_none_or(|other| should_run && !other.should_run) {
                self.previous = Some(Previous::of(seen, should_run, true));
            }
        }
    }

    /// With what this process knows from before, which Docker does not show.
    #[must_use]
    pub fn knowing(mut self, before: &Self) -> Self {
        self.owed.clone_from(&before.owed);
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
            Step::RefuseName
            | Step::RefuseOlder
            | Step::RefuseNothing
            | Step::RefuseLost
            | Step::Pull
            | Step::Create
            | Step::ProveLease
            | Step::Check { .. }
            | Step::Bake { .. }
            | Step::Done => {}
            Step::SetAside { id, name } => self.set_aside(id, name),
            Step::StopPrevious { .. } => {
                if let Some(previous) = &mut self.previous {
                    previous.seen.running = false;
                    previous.revived = false;
                }
            }
            Step::StartPrevious { .. } => {
                self.owed = None;
                if let Some(previous) = &mut self.previous {
                    previous.seen.running = true;
                    previous.revived = true;
                }
            }
            Step::StartNext { .. } => run(&mut self.next, true),
            Step::StopNext { .. } => run(&mut self.next, false),
            Step::StartCurrent { .. } => {
                self.owed = None;
                run(&mut self.current, true);
            }
            Step::StopCurrent { .. } => run(&mut self.current, false),
            Step::Commit { .. } => self.current = self.next.take(),
            Step::Uncommit { .. } => {
                self.next = self.current.take().map(|seen| Seen { was_committed: true, ..seen });
                self.bakes = false;
            }
            Step::RemoveNext { .. } => self.next = None,
            Step::RemovePrevious { .. } => self.previous = None,
            Step::RemoveCurrent { .. } => self.current = None,
            Step::StopStray { id, .. } => {
                self.strays.iter_mut().filter(|stray| stray.id == *id).for_each(|stray| stray.running = false);
            }
            Step::RemoveStray { id } => self.strays.retain(|stray| stray.id != *id),
            Step::BringBack { id, .. } => self.bring_back(id),
        }
        self
    }

    fn set_aside(&mut self, id: &str, name: &str) {
        let should_run = !name.ends_with("-stopped");
        if should_run {
            let current = self.current.as_ref().map(|seen| seen.always);
            let always = current.or(self.foreign.as_ref().map(|foreign| foreign.always)).unwrap_or(false);
            self.owed = Some(Owed { id: id.to_owned(), always });
        }
        if let Some(seen) = self.current.take_if(|seen| seen.id == id) {
            self.previous = Some(Previous::of(seen, should_run, false));
        } else if let Some(foreign) = self.foreign.take_if(|foreign| foreign.id == id) {
            let Foreign { id, base, running, always, .. } = foreign;
            let seen = Seen { id, base, running, always, ..Seen::default() };
            self.previous = Some(Previous::of(seen, should_run, true));
        }
    }

    fn bring_back(&mut self, id: &str) {
        if let Some(at) = self.strays.iter().position(|stray| stray.id == id) {
            self.current = Some(self.strays.remove(at));
            return;
        }
        let Some(Previous { seen, foreign, .. }) = self.previous.take() else { return };
        if foreign {
            let Seen { id, base, running, always, .. } = seen;
            self.foreign = Some(Foreign { id, base, running, always, is_managed: false });
        } else {
            self.current = Some(seen);
        }
    }

    /// Of every container that is, or was, the application's or gives its place up to it. Nobody makes one that others have
    /// renamed give anything up.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.placed().map(|seen| seen.id.as_str())
    }

    pub(super) fn owes(&self, id: &str) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.id == id)
    }

    /// By its sequence, of what is to run: what is being tried does not count.
    pub(super) fn newest(&self) -> Option<&Seen> {
        self.current.iter().chain(&self.strays).max_by_key(|seen| seen.sequence)
    }

    pub fn running_stray(&self) -> Option<&Seen> {
        self.strays.iter().find(|stray| stray.running)
    }

    /// Whether a container is of this release, so that its secrets are those of the release's order.
    pub fn is_of(&self, id: &str, release: DeploymentId) -> bool {
        self.all().any(|seen| seen.id == id && seen.deployment == Some(release))
    }

    fn placed(&self) -> impl Iterator<Item = &Seen> {
        let previous = self.previous.as_ref().map(|previous| &previous.seen);
        [self.current.as_ref(), self.next.as_ref(), previous].into_iter().flatten()
    }

    fn all(&self) -> impl Iterator<Item = &Seen> {
        self.placed().chain(&self.strays)
    }
}

fn run(seen: &mut Option<Seen>, running: bool) {
    if let Some(seen) = seen {
        seen.running = running;
    }
}

impl Previous {
    fn of(seen: Seen, should_run: bool, foreign: bool) -> Self {
        Self { seen, should_run, revived: false, foreign, name_taken: false }
    }
}

impl Seen {
    fn of(container: &Container, base: &str) -> Self {
        let text = |key| container.labels.get(key).map(String::as_str);
        let digest = |key| text(key).and_then(|digest| Digest::parse(digest).ok());
        Self {
            id: container.id.clone(),
            base: text(label::NAME).unwrap_or(base).to_owned(),
            deployment: text(label::DEPLOYMENT).and_then(|id| DeploymentId::parse(id).ok()),
            sequence: text(label::SEQUENCE).and_then(|sequence| sequence.parse().ok()).map(Sequence),
            epoch: text(label::EPOCH).and_then(|epoch| epoch.parse().ok()).map(Epoch),
            digest: digest(label::DIGEST),
            former_digest: digest(label::FORMER_DIGEST),
            running: container.running,
            always: text(label::RESTART_POLICY) == Some(label::ALWAYS),
            was_committed: false,
        }
    }
}
