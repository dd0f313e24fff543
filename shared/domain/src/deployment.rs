//! A deployment: its states, and the one function that moves it from one to the next.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    assignment::{ErrorCode, Outcome, Progress, Running, TargetError},
    id::{ApplicationId, DeploymentId, HostName, Sequence},
    image::{Digest, Version},
};

/// Entry of the timeline for each host that gets an assignment.
const ASSIGNED: &str = "assigned";

/// What a trigger asked for, as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    pub id: DeploymentId,
    pub application_id: ApplicationId,
    /// The application's name when the deployment was recorded.
    pub application_name: String,
    /// None only for a rejected request that named none.
    pub version: Option<Version>,
    /// What the first host resolved the version to; the other hosts get the same.
    pub digest: Option<Digest>,
    /// Assigned on entering `queued`; none for a rejected one.
    pub sequence: Option<Sequence>,
    pub trigger: Trigger,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub status: Status,
    pub targets: Vec<Target>,
    /// Hosts at a time.
    pub max_parallel: u32,
    pub timeline: Vec<TimelineEntry>,
}

/// Who or what asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    pub kind: TriggerKind,
    /// The caller's IP address.
    pub source: Option<String>,
    pub actor: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TriggerKind {
    /// `POST /webhook/deploy` with the application's token.
    Webhook,
}

impl TriggerKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
        }
    }
}

/// Where a deployment stands. `Queued` and `Running` are live; every other state is final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// Admitted, with a sequence and a place in the queue. Leaves when its first host begins or fails. Whether it is the
    /// application's active deployment (and so has assignments), the application's state says. A crash here leaves an
    /// active deployment without assignments at worst, which the next pass over the application writes.
    Queued,
    /// At least one host has begun. Leaves when every target is settled. A crash here leaves assignments, which their
    /// hosts finish and report.
    Running,
    /// Every host runs the new version.
    Succeeded,
    /// It did not end well, and it is not that every switched host is back: nothing was switched, or not everything is
    /// back. `running` says what runs now.
    Failed { running: Running },
    /// It was switched somewhere, and every host is back on what ran before.
    RolledBack,
    /// Refused by validation; was never queued.
    Rejected { reason: String },
}

impl Status {
    /// The API's exact status.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::RolledBack => "rolled_back",
            Self::Rejected { .. } => "rejected",
        }
    }

    /// The seed's coarser word: `pending`, `running`, `success`, `failed`.
    pub fn phase(&self) -> &'static str {
        match self {
            Self::Queued => "pending",
            Self::Running => "running",
            Self::Succeeded => "success",
            Self::Failed { .. } | Self::RolledBack | Self::Rejected { .. } => "failed",
        }
    }

    pub fn is_final(&self) -> bool {
        match self {
            Self::Queued | Self::Running => false,
            Self::Succeeded | Self::Failed { .. } | Self::RolledBack | Self::Rejected { .. } => true,
        }
    }
}

/// One host of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub host: HostName,
    pub state: TargetState,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub progress: Progress,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TargetState {
    /// Its wave has not come.
    Waiting,
    /// Has an assignment in its host's partition.
    Assigned,
    /// The host has claimed the assignment.
    Running,
    Succeeded,
    Failed {
        error: TargetError,
        running: Running,
    },
    /// Switched, and back.
    RolledBack {
        error: TargetError,
    },
    /// An earlier wave failed.
    Skipped,
}

impl TargetState {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting | Self::Assigned => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::RolledBack { .. } => "rolled_back",
            Self::Skipped => "skipped",
        }
    }

    pub fn error(&self) -> Option<&TargetError> {
        match self {
            Self::Failed { error, .. } | Self::RolledBack { error } => Some(error),
            Self::Waiting | Self::Assigned | Self::Running | Self::Succeeded | Self::Skipped => None,
        }
    }

    fn is_settled(&self) -> bool {
        match self {
            Self::Waiting | Self::Assigned | Self::Running => false,
            Self::Succeeded | Self::Failed { .. } | Self::RolledBack { .. } | Self::Skipped => true,
        }
    }
}

/// One line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    pub at: Timestamp,
    pub event: String,
    pub host: Option<HostName>,
}

/// What happened to a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It became its application's active deployment.
    Activated,
    /// A host claimed its assignment.
    HostStarted { host: HostName, at: Timestamp },
    /// A host ended its assignment.
    HostFinished {
        host: HostName,
        started_at: Option<Timestamp>,
        completed_at: Timestamp,
        progress: Progress,
        outcome: Outcome,
    },
}

/// What is to be done because of it, in the same transaction as the new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write these hosts' assignments, and wake the hosts.
    Assign { hosts: Vec<HostName> },
    /// Free the queue slot and make the next queued deployment of the application active.
    Finish,
    /// Record what the application runs from now on.
    Release { version: Version, digest: Digest },
}

/// An event that the deployment's state does not allow. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} does not fit a deployment that is {status}")]
pub struct Illegal {
    pub status: &'static str,
    pub event: &'static str,
}

impl Deployment {
    /// The one way from state to state. The same event a second time changes nothing: reports come more than once.
    pub fn step(mut self, event: Event, now: Timestamp) -> Result<(Self, Vec<Effect>), Illegal> {
        if let Status::Rejected { .. } = self.status {
            return Err(Illegal { status: self.status.name(), event: event.name() });
        }
        let mut effects = Vec::new();
        match event {
            Event::Activated => {
                if self.targets.iter().all(|t| t.state == TargetState::Waiting) {
                    self.assign_next_wave(now, &mut effects);
                }
            }
            Event::HostStarted { host, at } => self.start(&host, at, now)?,
            Event::HostFinished { host, started_at, completed_at, progress, outcome } => {
                let target = self.target_mut(&host, "a host's end")?;
                if target.state.is_settled() {
                    return Ok((self, effects));
                }
                target.started_at = started_at;
                target.completed_at = Some(completed_at);
                target.progress = progress;
                let mut pinned = None;
                let (state, event) = match outcome {
                    Outcome::Succeeded { digest } => {
                        pinned = Some(digest);
                        (TargetState::Succeeded, "host-succeeded")
                    }
                    Outcome::Failed { error, switched: true, running: Running::Previous } => {
                        (TargetState::RolledBack { error }, "host-rolled-back")
                    }
                    Outcome::Failed { error, running, .. } => (TargetState::Failed { error, running }, "host-failed"),
                };
                target.state = state;
                if let Some(digest) = pinned {
                    self.digest.get_or_insert(digest);
                }
                self.started_at = self.started_at.or(started_at);
                if self.status == Status::Queued {
                    self.status = Status::Running;
                }
                self.note(completed_at, event, Some(host));
                self.after_a_settled_target(now, &mut effects);
            }
        }
        Ok((self, effects))
    }

    /// The first error among the targets: why the deployment did not succeed.
    pub fn error(&self) -> Option<&TargetError> {
        self.targets.iter().find_map(|t| t.state.error())
    }

    /// When this host was last given an assignment.
    pub fn assigned_at(&self, host: &HostName) -> Option<Timestamp> {
        let given = |entry: &&TimelineEntry| entry.event == ASSIGNED && entry.host.as_ref() == Some(host);
        self.timeline.iter().rfind(given).map(|entry| entry.at)
    }

    pub fn note(&mut self, at: Timestamp, event: &str, host: Option<HostName>) {
        self.timeline.push(TimelineEntry { at, event: event.to_owned(), host });
    }

    fn start(&mut self, host: &HostName, at: Timestamp, now: Timestamp) -> Result<(), Illegal> {
        let target = self.target_mut(host, "a host's start")?;
        if target.state == TargetState::Assigned {
            target.state = TargetState::Running;
            target.started_at = Some(at);
            self.started_at.get_or_insert(at);
            if self.status == Status::Queued {
                self.status = Status::Running;
            }
            self.note(at.min(now), "host-started", Some(host.clone()));
        }
        Ok(())
    }

    fn target_mut(&mut self, host: &HostName, event: &'static str) -> Result<&mut Target, Illegal> {
        let illegal = Illegal { status: self.status.name(), event };
        let target = self.targets.iter_mut().find(|t| t.host == *host).ok_or(illegal.clone())?;
        if target.state == TargetState::Waiting { Err(illegal) } else { Ok(target) }
    }

    fn assign_next_wave(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let width = usize::try_from(self.max_parallel).unwrap_or(1).max(1);
        let mut hosts = Vec::new();
        for target in self.targets.iter_mut().filter(|t| t.state == TargetState::Waiting).take(width) {
            target.state = TargetState::Assigned;
            hosts.push(target.host.clone());
        }
        for host in &hosts {
            self.note(now, ASSIGNED, Some(host.clone()));
        }
        effects.push(Effect::Assign { hosts });
    }

    fn after_a_settled_target(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let failed = self.targets.iter().any(|t| t.state.error().is_some());
        if self.targets.iter().any(|t| matches!(t.state, TargetState::Assigned | TargetState::Running)) {
            return;
        }
        if failed {
            for target in self.targets.iter_mut().filter(|t| t.state == TargetState::Waiting) {
                target.state = TargetState::Skipped;
            }
        } else if self.targets.iter().any(|t| t.state == TargetState::Waiting) {
            self.assign_next_wave(now, effects);
            return;
        }
        self.status = self.end();
        self.completed_at = Some(now);
        self.note(now, self.status.name(), None);
        if let (Status::Succeeded, Some(version), Some(digest)) = (&self.status, &self.version, &self.digest) {
            effects.push(Effect::Release { version: version.clone(), digest: digest.clone() });
        }
        effects.push(Effect::Finish);
    }

    fn end(&self) -> Status {
        if self.targets.iter().all(|t| t.state == TargetState::Succeeded) {
            return Status::Succeeded;
        }
        let touched = self.targets.iter().filter(|t| t.state != TargetState::Skipped);
        let back = |t: &Target| matches!(t.state, TargetState::RolledBack { .. });
        let unswitched = |t: &Target| matches!(t.state, TargetState::Failed { running: Running::Previous, .. });
        if touched.clone().any(back) && touched.clone().all(|t| back(t) || unswitched(t)) {
            return Status::RolledBack;
        }
        let mut running = touched.map(|t| match &t.state {
            TargetState::Succeeded => Running::New,
            TargetState::Failed { running, .. } => *running,
            TargetState::RolledBack { .. } => Running::Previous,
            TargetState::Waiting | TargetState::Assigned | TargetState::Running | TargetState::Skipped => {
                Running::Mixed
            }
        });
        let first = running.next().unwrap_or(Running::None);
        Status::Failed { running: if running.all(|r| r == first) { first } else { Running::Mixed } }
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Activated => "an activation",
            Self::HostStarted { .. } => "a host's start",
            Self::HostFinished { .. } => "a host's end",
        }
    }
}

/// Whether an alarm is due: an old version could not be brought back.
pub fn needs_an_alarm(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Succeeded { .. } => false,
        Outcome::Failed { error, .. } => error.code == ErrorCode::RestoreFailed,
    }
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;
