//! What changes with every deployment of an application: whose turn it is, what runs where, and what can be returned to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    assignment::Running,
    deployment::{Deployment, Effect, Runs, Sources, TargetState},
    id::{DeploymentId, HostName, Revision, Sequence},
    image::{Digest, Version},
    job::Action,
};

/// So many releases of an application can be returned to, the one that runs among them.
pub const KEPT_RELEASES: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationState {
    pub revision: Revision,
    /// Of the next deployment.
    pub next_sequence: Sequence,
    /// The one deployment that has assignments, or will have them with the next pass.
    pub active: Option<DeploymentId>,
    /// Waiting for it, in order. A live deployment that is neither here nor active has been superseded, whatever its own
    /// record says until somebody comes to write it.
    pub queued: Vec<DeploymentId>,
    /// The last one that took the place of those that waited.
    #[serde(default)]
    pub superseded_by: Option<DeploymentId>,
    /// The newest that was admitted as the only one that is wanted: what was asked for before it can be approved no more.
    #[serde(default)]
    pub latest: Option<DeploymentId>,
    /// What deployments that succeeded have left running, newest first; at most [`KEPT_RELEASES`].
    pub releases: Vec<Release>,
    /// What each host runs, as far as deployments have told.
    pub hosts: BTreeMap<HostName, HostRelease>,
    /// Where something may run of which nobody knows: the release that was to be put there when its host was last heard of.
    /// Only a host without an entry in `hosts` is among them.
    #[serde(default)]
    pub unclear: BTreeMap<HostName, DeploymentId>,
    /// Where nothing runs any more, and since when by the host's own clock.
    #[serde(default)]
    pub left: BTreeMap<HostName, Timestamp>,
    pub token_last_used_at: Option<Timestamp>,
}

/// What a successful deployment left running: an image, and the configuration in the snapshot of that deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    pub deployment_id: DeploymentId,
    pub sequence: Sequence,
    pub version: Version,
    pub digest: Digest,
    pub at: Timestamp,
    /// Of the newest alone: nobody asks whether another one would come out otherwise now.
    #[serde(default)]
    pub sources: Option<Sources>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostRelease {
    #[serde(flatten)]
    pub runs: Runs,
    /// On purpose, by a person.
    #[serde(default)]
    pub stopped: bool,
    /// When the host was last done with it, by the host's own clock: what its worker saw earlier says nothing of it.
    pub at: Timestamp,
}

impl Default for ApplicationState {
    fn default() -> Self {
        Self {
            revision: Revision(1),
            next_sequence: Sequence(1),
            active: None,
            queued: Vec::new(),
            superseded_by: None,
            latest: None,
            releases: Vec::new(),
            hosts: BTreeMap::new(),
            unclear: BTreeMap::new(),
            left: BTreeMap::new(),
            token_last_used_at: None,
        }
    }
}

impl ApplicationState {
    /// What the last deployment that succeeded left running.
    pub fn release(&self) -> Option<&Release> {
        self.releases.first()
    }

    /// What a rollback returns to if nobody says: the last release, if a host runs something else since; else the one
    /// before it.
    pub fn former_release(&self) -> Option<&Release> {
        let last = self.releases.first()?;
        let strays = self.hosts.values().any(|host| host.runs.release != last.deployment_id);
        if strays { Some(last) } else { self.releases.get(1) }
    }

    /// Every host on which there is something of the application, or may be.
    pub fn occupied(&self) -> impl Iterator<Item = &HostName> {
        self.hosts.keys().chain(self.unclear.keys())
    }

    /// Whose configuration what is on a host has, or may have.
    pub fn release_on(&self, host: &HostName) -> Option<DeploymentId> {
        self.hosts.get(host).map(|host| host.runs.release).or_else(|| self.unclear.get(host).copied())
    }

    /// Every release that is on a host, or may be.
    pub fn placed(&self) -> impl Iterator<Item = DeploymentId> {
        self.hosts.values().map(|host| host.runs.release).chain(self.unclear.values().copied())
    }

    /// Writes into a deployment whose turn has come what its hosts run now, which is what they go back to; and what an order
    /// such as a stop is about.
    pub(crate) fn tell_what_runs(&self, deployment: &mut Deployment) {
        for target in &mut deployment.targets {
            target.previous = self.hosts.get(&target.host).map(|host| host.runs.clone());
            target.stopped = self.hosts.get(&target.host).is_some_and(|host| host.stopped);
            target.unclear = self.unclear.contains_key(&target.host);
        }
        let newest = deployment.targets.iter().filter_map(|t| t.previous.as_ref()).max_by_key(|runs| runs.release);
        if let (false, Some(runs)) = (deployment.action == Action::Deploy, newest.cloned()) {
            (deployment.version, deployment.digest) = (Some(runs.version), Some(runs.digest));
        }
    }

    /// The same with the next revision.
    #[must_use]
    pub(crate) fn advanced(mut self) -> Self {
        self.revision = Revision(self.revision.0 + 1);
        self
    }

    /// After a step of a deployment, which was about `host` if it says so; and the snapshots that nothing can return to any
    /// more.
    pub(crate) fn after(
        &self,
        host: Option<&HostName>,
        deployment: &Deployment,
        effects: &[Effect],
        now: Timestamp,
    ) -> (Self, Vec<DeploymentId>) {
        let mut next = self.clone().advanced();
        let mut unneeded = Vec::new();
        if let Some(host) = host {
            next.remember(host, deployment, now);
        }
        for effect in effects {
            match effect {
                Effect::Assign { .. } | Effect::Return { .. } => {}
                Effect::Release { version, digest } => {
                    let release = Release {
                        deployment_id: deployment.id,
                        sequence: deployment.sequence.unwrap_or(Sequence(0)),
                        version: version.clone(),
                        digest: digest.clone(),
                        at: now,
                        sources: deployment.sources.clone(),
                    };
                    for former in &mut next.releases {
                        former.sources = None;
                    }
                    next.releases.insert(0, release);
                    let excess = next.releases.split_off(next.releases.len().min(KEPT_RELEASES));
                    unneeded.extend(excess.into_iter().map(|release| release.deployment_id));
                }
                Effect::Finish => {
                    if next.active == Some(deployment.id) {
                        next.active = if next.queued.is_empty() { None } else { Some(next.queued.remove(0)) };
                    }
                    next.queued.retain(|queued| *queued != deployment.id);
                    unneeded.push(deployment.id);
                    // Not before the end: until then a host may have to go back to it.
                    let before = deployment.targets.iter().filter_map(|target| target.previous.as_ref());
                    unneeded.extend(before.map(|runs| runs.release));
                }
            }
        }
        // Nobody can go back to what was never known to run.
        unneeded.extend(self.unclear.values().copied());
        unneeded.sort();
        unneeded.dedup();
        unneeded.retain(|id| !next.needs_snapshot(*id));
        (next, unneeded)
    }

    fn needs_snapshot(&self, id: DeploymentId) -> bool {
        self.active == Some(id)
            || self.queued.contains(&id)
            || self.releases.iter().any(|release| release.deployment_id == id)
            || self.placed().any(|release| release == id)
    }

    fn remember(&mut self, host: &HostName, deployment: &Deployment, now: Timestamp) {
        let Some(target) = deployment.targets.iter().find(|t| t.host == *host) else { return };
        let at = target.completed_at.unwrap_or(now);
        let deployed = || match (&deployment.version, &deployment.digest) {
            (Some(version), Some(digest)) => {
                Some(Runs { release: deployment.id, version: version.clone(), digest: digest.clone() })
            }
            (Some(_) | None, _) => None,
        };
        let running = match &target.state {
            TargetState::Succeeded => Running::New,
            TargetState::Failed { running, .. } => *running,
            TargetState::Returned { running } => {
                if let Some(runs) = target.previous.clone() {
                    self.hosts.insert(host.clone(), HostRelease { runs, stopped: target.stopped, at });
                }
                *running
            }
            TargetState::RolledBack { .. } => Running::Previous,
            TargetState::Waiting
            | TargetState::Assigned
            | TargetState::Running
            | TargetState::Returning
            | TargetState::Skipped
            | TargetState::Cancelled => return,
        };
        // Of other orders "new" says nothing: they act on the release that was there already.
        let done = target.state == TargetState::Succeeded;
        match (deployment.action, running) {
            (Action::Deploy, Running::New) => match deployed() {
                Some(runs) => {
                    self.hosts.insert(host.clone(), HostRelease { runs, stopped: false, at });
                }
                None if !self.hosts.contains_key(host) => {
                    self.unclear.insert(host.clone(), deployment.id);
                }
                None => {}
            },
            // What was there and is stopped now, or is gone, is still what should be there.
            (Action::Deploy, Running::None) if target.previous.is_some() => {}
            (Action::Deploy, Running::None) => {
                self.hosts.remove(host);
            }
            // It may have been put there: nobody knows, and that has to be remembered.
            (Action::Deploy, Running::Mixed) if !self.hosts.contains_key(host) => {
                self.unclear.insert(host.clone(), deployment.id);
            }
            (Action::Remove, _) if done => {
                self.hosts.remove(host);
                self.unclear.remove(host);
            }
            (Action::Stop, _) if done => self.mark(host, true),
            (Action::Start | Action::Restart, _) if done => self.mark(host, false),
            // It is there as it was, or nobody knows.
            (Action::Deploy, Running::Previous | Running::Mixed)
            | (Action::Stop | Action::Start | Action::Restart | Action::Remove, _) => {}
        }
        match self.hosts.get_mut(host) {
            Some(known) => {
                known.at = at;
                self.left.remove(host);
                self.unclear.remove(host);
            }
            None if self.unclear.contains_key(host) => {
                self.left.remove(host);
            }
            None => {
                self.left.insert(host.clone(), at);
            }
        }
    }

    fn mark(&mut self, host: &HostName, stopped: bool) {
        if let Some(known) = self.hosts.get_mut(host) {
            known.stopped = stopped;
        }
    }
}

#[cfg(test)]
#[path = "application_state_tests.rs"]
mod tests;
