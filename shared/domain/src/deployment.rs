//! A deployment and its states. [`step`] holds the one function that moves it from one to the next.

mod configured;
mod step;
mod trigger;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    application::Application,
    approval::Approval,
    assignment::{ErrorCode, Outcome, Progress, Running, TargetError},
    id::{ApplicationId, DeploymentId, Epoch, HostName, Sequence},
    image::{Digest, Version},
    issue::IssueRef,
    job::Action,
};

pub use configured::{DeployedIn, Sources};
pub use step::{Effect, Event, Illegal, Return};
pub use trigger::{Trigger, TriggerKind};

/// Entry of the timeline for each host that gets an assignment.
const ASSIGNED: &str = "assigned";

/// What a trigger asked for, as recorded: a version to deploy or to return to, or something else to be done with the
/// application's containers, in the same order and on the same record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    pub id: DeploymentId,
    pub application_id: ApplicationId,
    /// The application's name when the deployment was recorded.
    pub application_name: String,
    #[serde(default)]
    pub action: Action,
    /// What is deployed; of other actions, what ran when they were asked for. None for a rejected request that named none.
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
    /// Whether a failure brings back what ran before on the hosts that were switched already.
    #[serde(default)]
    pub rollback_on_failure: bool,
    /// Of a rollback that of its release. None if it got none, and of what is done with containers that are there.
    #[serde(default)]
    pub environment: Option<DeployedIn>,
    /// Of a rollback those of its release.
    #[serde(default)]
    pub sources: Option<Sources>,
    /// Its hosts may replace a container that is not ours, which no later work order could bring back. Known on
    /// admission.
    #[serde(default)]
    pub adopts: bool,
    /// Of a rollback: the deployment whose release it returns to.
    #[serde(default)]
    pub returns_to: Option<DeploymentId>,
    /// The request had variables of its own, which are kept sealed for a while, apart from this.
    #[serde(default)]
    pub carries_variables: bool,
    /// Of a deployment that is asked for again: the one whose request it repeats.
    #[serde(default)]
    pub retry_of: Option<DeploymentId>,
    /// The issue that asked for it, and hears of its end.
    #[serde(default)]
    pub issue: Option<IssueRef>,
    /// Where somebody had to decide on it first.
    #[serde(default)]
    pub approval: Option<Approval>,
    /// Somebody has called it off; it ends as soon as no host is in the middle of something.
    #[serde(default)]
    pub cancel_requested: Option<CancelRequest>,
    pub timeline: Vec<TimelineEntry>,
}

/// Who called a deployment off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    pub at: Timestamp,
    pub by: String,
}

/// Where a deployment stands. `AwaitingApproval` waits for a person, `Queued` and `Running` are live; every other state is
/// final.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// Validated, permitted and charged, and waiting for somebody's decision. It holds no place in the queue, no sequence
    /// and no lock. Leaves by one conditional write: approved, denied, timed out, called off or superseded. A crash here
    /// leaves it as it is, until its deadline.
    AwaitingApproval,
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
    /// Called off by a person before it was done. `running` says what runs now: hosts that had been switched have gone
    /// back, if the application says so.
    Cancelled { running: Running },
    /// Never begun: a later deployment took its place in the queue.
    Superseded { by: Option<DeploymentId> },
    /// Refused by validation; was never queued.
    Rejected { reason: String },
    /// Refused by the person who had to decide.
    Denied,
    /// Nobody decided in time.
    TimedOut,
}

impl Status {
    /// The API's exact status.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting_approval",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::RolledBack => "rolled_back",
            Self::Cancelled { .. } => "cancelled",
            Self::Superseded { .. } => "superseded",
            Self::Rejected { .. } => "rejected",
            Self::Denied => "denied",
            Self::TimedOut => "timed_out",
        }
    }

    /// The seed's coarser word: `pending`, `running`, `success`, `failed`.
    pub fn phase(&self) -> &'static str {
        match self {
            Self::AwaitingApproval | Self::Queued => "pending",
            Self::Running => "running",
            Self::Succeeded => "success",
            Self::Failed { .. }
            | Self::RolledBack
            | Self::Cancelled { .. }
            | Self::Superseded { .. }
            | Self::Rejected { .. }
            | Self::Denied
            | Self::TimedOut => "failed",
        }
    }

    pub fn is_final(&self) -> bool {
        match self {
            Self::AwaitingApproval | Self::Queued | Self::Running => false,
            Self::Succeeded
            | Self::Failed { .. }
            | Self::RolledBack
            | Self::Cancelled { .. }
            | Self::Superseded { .. }
            | Self::Rejected { .. }
            | Self::Denied
            | Self::TimedOut => true,
        }
    }
}

/// One host of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub host: HostName,
    pub state: TargetState,
    /// Of the last assignment that the host has ended; the next one is higher.
    pub epoch: Epoch,
    /// What the host ran when the deployment's turn came; none if nothing, or if it is not known.
    pub previous: Option<Runs>,
    /// `previous` was stopped by a person, and a way back leaves it so.
    #[serde(default)]
    pub stopped: bool,
    /// Without `previous`: an earlier deployment may have left something there, and nobody has heard since.
    #[serde(default)]
    pub unclear: bool,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub progress: Progress,
}

/// What a host runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Runs {
    /// Whose image and configuration it is.
    pub release: DeploymentId,
    pub version: Version,
    pub digest: Digest,
}

impl Target {
    pub fn waiting(host: HostName) -> Self {
        Self {
            host,
            state: TargetState::Waiting,
            epoch: Epoch(0),
            previous: None,
            stopped: false,
            unclear: false,
            started_at: None,
            completed_at: None,
            progress: Progress::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TargetState {
    /// Its wave has not come.
    Waiting,
    /// Has an assignment in its host's partition. Leaves when the host claims or ends it, when it is called off, or, if
    /// the host stays away, by the sweep.
    Assigned,
    /// The host has claimed the assignment. Leaves like `Assigned`.
    Running,
    /// It is as the deployment asks. Leaves only if another host fails and this one has to go back.
    Succeeded,
    Failed {
        error: TargetError,
        running: Running,
    },
    /// Switched, and back by itself.
    RolledBack {
        error: TargetError,
    },
    /// Had succeeded, and has an assignment to go back, since another host has failed. Leaves like `Assigned`.
    Returning,
    /// Had succeeded, and is back.
    Returned {
        running: Running,
    },
    /// Was not begun: an earlier wave failed, the deployment was called off, or the host is being drained.
    Skipped,
    /// Called off before the switch.
    Cancelled,
}

impl TargetState {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting | Self::Assigned => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed { error, .. } if error.code == ErrorCode::Unreachable => "unreachable",
            Self::Failed { .. } => "failed",
            Self::Returning => "rolling_back",
            Self::RolledBack { .. } | Self::Returned { .. } => "rolled_back",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn error(&self) -> Option<&TargetError> {
        match self {
            Self::Failed { error, .. } | Self::RolledBack { error } => Some(error),
            Self::Waiting
            | Self::Assigned
            | Self::Running
            | Self::Succeeded
            | Self::Returning
            | Self::Returned { .. }
            | Self::Skipped
            | Self::Cancelled => None,
        }
    }

    /// Whether the host has an assignment.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Assigned | Self::Running | Self::Returning => true,
            Self::Waiting
            | Self::Succeeded
            | Self::Failed { .. }
            | Self::RolledBack { .. }
            | Self::Returned { .. }
            | Self::Skipped
            | Self::Cancelled => false,
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

impl Deployment {
    /// A deployment as it is asked for, before it is admitted or refused: without a version, and without hosts.
    pub fn requested(
        id: DeploymentId,
        application_id: ApplicationId,
        application: &Application,
        trigger: Trigger,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            application_id,
            application_name: application.name.as_str().to_owned(),
            action: Action::Deploy,
            version: None,
            digest: None,
            sequence: None,
            trigger,
            created_at: now,
            started_at: None,
            completed_at: None,
            status: Status::Queued,
            targets: Vec::new(),
            max_parallel: application.rollout.max_parallel,
            rollback_on_failure: application.rollout.rollback_on_failure,
            environment: None,
            sources: None,
            adopts: false,
            returns_to: None,
            carries_variables: false,
            retry_of: None,
            issue: None,
            approval: None,
            cancel_requested: None,
            timeline: Vec::new(),
        }
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

    /// Whether an alarm is due should this host end its assignment so: what ran before is not back, neither by the host
    /// itself nor by a way back that it was sent on.
    pub fn needs_an_alarm(&self, host: &HostName, outcome: &Outcome) -> bool {
        let returning = self.targets.iter().any(|t| t.host == *host && t.state == TargetState::Returning);
        is_not_restored(outcome) || returning && matches!(outcome, Outcome::Failed { .. })
    }

    /// Whether no host has got anything to do yet.
    pub fn is_unassigned(&self) -> bool {
        self.targets.iter().all(|target| target.state == TargetState::Waiting)
    }

    /// Hosts that have an assignment.
    pub fn open_hosts(&self) -> impl Iterator<Item = &HostName> {
        self.targets.iter().filter(|target| target.state.is_open()).map(|target| &target.host)
    }

    /// Leaves out those hosts that are being drained and have not begun, unless what is to be done there was asked for
    /// by itself: a host is drained so that somebody can stop what runs there. To be asked before each step that may
    /// assign hosts.
    pub fn skip_drained(&mut self, drained: &BTreeSet<HostName>, now: Timestamp) {
        if self.action != Action::Deploy {
            return;
        }
        let mut skipped = Vec::new();
        for target in &mut self.targets {
            if target.state == TargetState::Waiting && drained.contains(&target.host) {
                target.state = TargetState::Skipped;
                skipped.push(target.host.clone());
            }
        }
        for host in skipped {
            self.note(now, "host-drained", Some(host));
        }
    }

    pub fn note(&mut self, at: Timestamp, event: &str, host: Option<HostName>) {
        self.timeline.push(TimelineEntry { at, event: event.to_owned(), host });
    }
}

/// Whether an old version could not be brought back by its own host.
pub fn is_not_restored(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Succeeded { .. } => false,
        Outcome::Failed { error, .. } => error.code == ErrorCode::RestoreFailed,
    }
}

#[cfg(test)]
mod tests;
