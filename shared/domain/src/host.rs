//! Hosts: which of them may be chosen, what a worker tells of its machine and of our containers there, and how that differs
//! from what deployments left.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    id::{ApplicationId, DeploymentId, HostName},
    image::Digest,
};

/// A worker says something at least twice a minute; one that has not for so long is taken for gone.
pub const ONLINE: SignedDuration = SignedDuration::from_secs(90);
/// A heartbeat tells of at most so many containers, which fit into an item of the table several times over.
pub const MAX_CONTAINERS: usize = 300;

/// A container that restarted so often, and the last time only just, keeps restarting, even if it happens to run when it is
/// looked at.
const MANY_RESTARTS: u64 = 3;
const JUST_STARTED: SignedDuration = SignedDuration::from_mins(2);

/// A registered machine, as a selector looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub name: &'a HostName,
    pub labels: &'a BTreeMap<String, String>,
    /// It gets no new deployments; what runs there stays.
    pub drain: bool,
}

/// What the engine says of the machine that it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    /// The distribution's own words: `Debian GNU/Linux 12 (bookworm)`.
    pub os: Option<String>,
    pub kernel: Option<String>,
    pub architecture: Option<String>,
    pub cpus: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// Where Docker keeps images and containers; none if the worker cannot see that folder.
    pub disk_total_bytes: Option<u64>,
    pub disk_free_bytes: Option<u64>,
}

/// A container of ours as its host's worker saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerReport {
    pub application_id: ApplicationId,
    /// Whose image and configuration it has: an earlier one where a host went back.
    pub deployment_id: DeploymentId,
    /// As the engine knows it.
    pub name: String,
    pub place: Place,
    /// Of its image; none if the image came from no registry.
    pub digest: Option<Digest>,
    pub state: ContainerState,
    /// Of the last run, if it has ended.
    pub exit_code: Option<i64>,
    /// What the engine's own check says; none without one.
    pub health: Option<Health>,
    /// By the engine, after the process had ended by itself; none if it was not looked at closely.
    pub restarts: Option<u64>,
    /// The last start.
    pub started_at: Option<Timestamp>,
}

/// What a container's name makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// It has the application's name, so it is the one that counts.
    Current,
    /// It stands beside another in a switch, or waits to be removed.
    Aside,
    /// Any other name: somebody has given it that.
    Renamed,
}

/// In the engine's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    Created,
    Running,
    Paused,
    /// Its process has ended, and the engine waits before it starts it again.
    Restarting,
    Exited,
    /// Or being removed.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

/// How a host differs from what deployments left there. Told only of a host that is online, while nothing is being done to
/// the application, and from a heartbeat that is younger than the last thing that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// There is no container of ours under the application's name, nor under another.
    Vanished,
    /// It is there, set aside by a switch that could not be undone yet: `state` tells whether it runs.
    Aside,
    /// There is one of another release: an older one was brought back by hand, or a host that had been given up finished
    /// after all.
    Changed,
    /// It is there under another name.
    Renamed,
    /// Its process has ended, though nobody stopped the application.
    Stopped,
    /// It runs, though the application was stopped.
    Started,
    Paused,
    /// Its process ends again and again.
    Restarting,
    /// There is one, though the application does not choose the host, or nothing that was deployed there is known to have
    /// stayed. It runs on until it is removed.
    Orphan,
}

/// What an application does on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Running,
    Stopped,
    Restarting,
    Paused,
    Vanished,
    /// The host is offline, its engine does not answer, or a switch is under way.
    Unknown,
}

/// What deployments left of an application on a host.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub release: DeploymentId,
    pub digest: &'a Digest,
    pub stopped: bool,
}

/// What is known of an application and a host without asking the host.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub application: ApplicationId,
    /// None: nothing.
    pub expected: Option<Expected<'a>>,
    /// Whether the application's selector takes in the host.
    pub chosen: bool,
    /// A deployment, or other work on the application, has not ended.
    pub changing: bool,
    /// When work on the application last ended on this host, by the host's own clock: what was seen earlier says nothing.
    pub worked_at: Option<Timestamp>,
}

/// One look of a worker at its host.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// By the host's clock, before it looked.
    pub at: Timestamp,
    /// None: the engine did not answer.
    pub containers: Option<&'a [ContainerReport]>,
    /// There are more than were told of.
    pub cut: bool,
}

/// How an application stands on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    pub health: Option<Health>,
    pub restarts: Option<u64>,
    /// Of the container that was seen.
    pub digest: Option<Digest>,
    pub drift: Option<Drift>,
}

impl Standing {
    fn unseen(state: State, drift: Option<Drift>) -> Self {
        Self { state, health: None, restarts: None, digest: None, drift }
    }
}

/// Whether a worker that said something at `seen_at` still counts as there. One whose clock is ahead does.
pub fn is_online(seen_at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(seen_at) < ONLINE
}

/// How the application stands on the host; none if nothing was left there and nothing is seen.
pub fn standing(known: &Known<'_>, sight: Option<&Sight<'_>>, now: Timestamp) -> Option<Standing> {
    let unknown = || known.expected.map(|_| Standing::unseen(State::Unknown, None));
    let Some(sight) = sight.filter(|sight| is_online(sight.at, now)) else { return unknown() };
    if known.worked_at.is_some_and(|worked| sight.at < worked) {
        let left = |expected: Expected<'_>| if expected.stopped { State::Stopped } else { State::Running };
        return known.expected.map(|expected| Standing::unseen(left(expected), None));
    }
    let Some(containers) = sight.containers else { return unknown() };
    let Some(container) = the_one(containers, known) else {
        return if known.changing || sight.cut {
            unknown()
        } else {
            known.expected.map(|_| Standing::unseen(State::Vanished, Some(Drift::Vanished)))
        };
    };
    let drift = match (&known.expected, known.changing) {
        // What a first deployment has made so far.
        (None, true) => return None,
        (Some(_), true) => None,
        (None, false) => Some(Drift::Orphan),
        (Some(_), false) if !known.chosen => Some(Drift::Orphan),
        (Some(expected), false) => difference(expected, container, sight.at),
    };
    Some(Standing {
        state: state_of(container.state),
        health: container.health,
        restarts: container.restarts,
        digest: container.digest.clone(),
        drift,
    })
}

/// Of several, the one with the application's name; else the one that is expected, whatever it is called. One that stands
/// aside counts only where nothing else does, and nothing is being done: a switch that could not be undone left it.
fn the_one<'a>(containers: &'a [ContainerReport], known: &Known<'_>) -> Option<&'a ContainerReport> {
    let ours = || containers.iter().filter(|container| container.application_id == known.application);
    let is_expected = |container: &&ContainerReport| {
        known.expected.is_none_or(|expected| expected.release == container.deployment_id)
    };
    let renamed = || ours().filter(|container| container.place == Place::Renamed).find(is_expected);
    let aside = || {
        let aside = ours().filter(|container| container.place == Place::Aside).filter(is_expected);
        aside.max_by_key(|container| container.state == ContainerState::Running)
    };
    let settled = known.expected.is_some() && !known.changing;
    let current = ours().find(|container| container.place == Place::Current);
    current.or_else(renamed).or_else(|| aside().filter(|_| settled))
}

fn difference(expected: &Expected<'_>, container: &ContainerReport, at: Timestamp) -> Option<Drift> {
    let is_other = container.digest.as_ref().is_some_and(|digest| digest != expected.digest);
    if container.deployment_id != expected.release || is_other {
        return Some(Drift::Changed);
    }
    match container.place {
        Place::Renamed => return Some(Drift::Renamed),
        Place::Aside => return Some(Drift::Aside),
        Place::Current => {}
    }
    match (container.state, expected.stopped) {
        (ContainerState::Paused, _) => Some(Drift::Paused),
        (ContainerState::Created | ContainerState::Exited | ContainerState::Dead, stopped) => {
            (!stopped).then_some(Drift::Stopped)
        }
        (ContainerState::Running | ContainerState::Restarting, true) => Some(Drift::Started),
        (ContainerState::Restarting, false) => Some(Drift::Restarting),
        (ContainerState::Running, false) => keeps_restarting(container, at).then_some(Drift::Restarting),
    }
}

fn keeps_restarting(container: &ContainerReport, at: Timestamp) -> bool {
    let just_started = container.started_at.is_some_and(|started| at.duration_since(started) < JUST_STARTED);
    container.restarts.is_some_and(|restarts| restarts >= MANY_RESTARTS) && just_started
}

fn state_of(state: ContainerState) -> State {
    match state {
        ContainerState::Running => State::Running,
        ContainerState::Paused => State::Paused,
        ContainerState::Restarting => State::Restarting,
        ContainerState::Created | ContainerState::Exited | ContainerState::Dead => State::Stopped,
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
