//! One host's work order, and what the host says of it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{id::Epoch, image::Digest};

/// Longest stay of a worker's claim without renewal.
pub const LEASE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// So many times an assignment is begun; past that it has failed.
pub const MAX_ATTEMPTS: u32 = 3;

/// Where an assignment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum AssignmentState {
    /// Written, not begun. Leaves by a claim. A crash here loses nothing: the worker reads its assignments on start and
    /// once a minute.
    Queued,
    /// Claimed until `lease_until`. Leaves by [`AssignmentState::Finished`], by a hand-back to `Queued` for a later
    /// attempt, or by the next process of the host, which takes it over with a higher epoch.
    #[serde(rename_all = "camelCase")]
    Running { lease_until: Timestamp },
    /// Ended, not yet folded into the deployment. Folding removes the assignment; until then the worker reports again.
    Finished { outcome: Outcome },
}

/// How an assignment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum Outcome {
    /// It is as the work order asks.
    Succeeded {
        /// Of the application's container; none where there is none any more.
        digest: Option<Digest>,
    },
    /// It does not; `running` says what does.
    Failed { error: TargetError, switched: bool, running: Running },
}

impl Outcome {
    /// Cut to what fits into a deployment's item, however large a host has written it.
    #[must_use]
    pub fn bounded(self) -> Self {
        match self {
            Self::Succeeded { .. } => self,
            Self::Failed { error, switched, running } => {
                Self::Failed { error: error.bounded().with_bounded_log(), switched, running }
            }
        }
    }
}

/// What runs on a host, or on all hosts, after a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Running {
    New,
    Previous,
    /// Not the same on every host, or not known: Docker could not be asked.
    Mixed,
    None,
}

/// Steps of a target, in order; `Restore` takes the place of `Commit`, or follows `Bake`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    Claim,
    Pull,
    Create,
    Switch,
    Check,
    Commit,
    /// Watched for `bakeSeconds`, with the former version kept.
    Bake,
    Restore,
}

impl Step {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Pull => "pull",
            Self::Create => "create",
            Self::Switch => "switch",
            Self::Check => "check",
            Self::Commit => "commit",
            Self::Bake => "bake",
            Self::Restore => "restore",
        }
    }
}

/// When a step was begun and ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    pub step: Step,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
}

/// More steps than any order has.
pub const MAX_STEPS: usize = 20;

/// What a worker has got done so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub steps: Vec<StepRecord>,
    /// Of the pull, 0 to 100.
    pub percent: u8,
    /// Of the pull: bytes of the layers that this host had to fetch, as far as the registry has told them.
    pub bytes_done: u64,
    pub bytes_total: u64,
}

impl Progress {
    /// Ends the step before, begins `step`.
    pub fn begin(&mut self, step: Step, now: Timestamp) {
        self.end(now);
        self.steps.push(StepRecord { step, started_at: now, completed_at: None });
    }

    pub fn end(&mut self, now: Timestamp) {
        if let Some(last) = self.steps.last_mut() {
            last.completed_at.get_or_insert(now);
        }
    }

    /// The last [`MAX_STEPS`] steps.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let excess = self.steps.len().saturating_sub(MAX_STEPS);
        self.steps.drain(..excess);
        self
    }

    pub fn step(&self) -> Option<Step> {
        self.steps.last().map(|record| record.step)
    }
}

/// Why a host could not do it, in words that a person can act on. Redacted by the worker before it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetError {
    pub code: ErrorCode,
    pub message: String,
    pub suggestion: String,
    pub exit_code: Option<i64>,
    #[serde(default)]
    pub oom_killed: bool,
    /// The container's last lines, oldest first; at most 50 and [`MAX_LOG_BYTES`].
    #[serde(default)]
    pub log_tail: Vec<String>,
}

/// Limit of a message: Docker passes on whole pages that a proxy has answered.
pub const MAX_MESSAGE_BYTES: usize = 2 * 1024;

/// Limit of a kept log tail: fifty hosts' tails fit into one deployment's item.
pub const MAX_LOG_BYTES: usize = 4 * 1024;

impl TargetError {
    pub fn new(code: ErrorCode, message: impl Into<String>, suggestion: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            suggestion: suggestion.into(),
            exit_code: None,
            oom_killed: false,
            log_tail: Vec::new(),
        }
    }

    /// The newest lines, at most 50 and [`MAX_LOG_BYTES`].
    fn with_bounded_log(mut self) -> Self {
        let mut left = MAX_LOG_BYTES;
        let fits = |line: &&String| {
            let fits = line.len() <= left;
            left = left.saturating_sub(line.len());
            fits
        };
        let kept = self.log_tail.iter().rev().take(50).take_while(fits).count();
        self.log_tail.drain(..self.log_tail.len() - kept);
        self
    }

    /// Cut to what an item can hold beside everything else. Whoever cuts the log tail knows which lines matter.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        for text in [&mut self.message, &mut self.suggestion] {
            if text.len() > MAX_MESSAGE_BYTES {
                let end = text.floor_char_boundary(MAX_MESSAGE_BYTES);
                text.truncate(end);
                text.push('…');
            }
        }
        self
    }
}

/// Stable codes of a target's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The registry does not have the tag or digest.
    ImageNotFound,
    /// The registry refused the credentials, or wants some.
    RegistryDenied,
    /// The registry did not answer as one; tried again before it is told.
    RegistryUnavailable,
    /// The host's disk is full, or fuller than the host allows.
    DiskFull,
    /// The key service does not answer, so the work order cannot be opened; tried again before it is told.
    KeyUnavailable,
    /// The host's Docker does not answer; tried again before it is told.
    DockerUnavailable,
    /// A container of that name exists that is not ours.
    NameTaken,
    /// Something else listens on a port that the application publishes.
    PortTaken,
    /// The host's own configuration forbids an option of the container.
    Forbidden,
    /// Docker refused to create or start the container.
    StartFailed,
    /// The new container ended by itself.
    Exited,
    /// The new container ran and its health check did not pass.
    Unhealthy,
    /// Begun too many times without an end.
    TooManyAttempts,
    /// The old version could not be brought back. Raises an alarm.
    RestoreFailed,
    /// The work order cannot be opened or read by this host.
    BadAssignment,
    /// The host went away in the middle and what it did is unknown.
    Unreachable,
    /// Called off by a person before the switch.
    Cancelled,
    /// A later deployment of the application has run on the host already.
    Superseded,
    /// There is no container of the application on the host to be started.
    NoContainer,
    /// A fault of the worker's own.
    Internal,
}

impl ErrorCode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageNotFound => "image-not-found",
            Self::RegistryDenied => "registry-denied",
            Self::RegistryUnavailable => "registry-unavailable",
            Self::DiskFull => "disk-full",
            Self::KeyUnavailable => "key-unavailable",
            Self::DockerUnavailable => "docker-unavailable",
            Self::NameTaken => "name-taken",
            Self::PortTaken => "port-taken",
            Self::Forbidden => "forbidden",
            Self::StartFailed => "start-failed",
            Self::Exited => "exited",
            Self::Unhealthy => "unhealthy",
            Self::TooManyAttempts => "too-many-attempts",
            Self::RestoreFailed => "restore-failed",
            Self::BadAssignment => "bad-assignment",
            Self::Unreachable => "unreachable",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::NoContainer => "no-container",
            Self::Internal => "internal",
        }
    }

    /// Whether the same thing may well work a little later.
    pub fn is_worth_a_retry(self) -> bool {
        match self {
            Self::RegistryUnavailable | Self::KeyUnavailable | Self::DockerUnavailable => true,
            Self::ImageNotFound
            | Self::RegistryDenied
            | Self::DiskFull
            | Self::NameTaken
            | Self::PortTaken
            | Self::Forbidden
            | Self::StartFailed
            | Self::Exited
            | Self::Unhealthy
            | Self::TooManyAttempts
            | Self::RestoreFailed
            | Self::BadAssignment
            | Self::Unreachable
            | Self::Cancelled
            | Self::Superseded
            | Self::NoContainer
            | Self::Internal => false,
        }
    }
}

/// An assignment beside its sealed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub state: AssignmentState,
    pub epoch: Epoch,
    pub attempts: u32,
    /// Not before, after a failed attempt.
    pub next_attempt_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub progress: Progress,
}

/// What the host's process should do about an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Claim it: with this epoch.
    Claim(Epoch),
    /// Finish it as failed: it has been begun too often.
    GiveUp(Epoch),
    /// Report it again.
    Report,
    /// Nothing, until then at least.
    Wait(Timestamp),
}

impl Assignment {
    /// `epoch` is higher than that of any assignment that the host had for the same deployment.
    pub fn queued(epoch: Epoch) -> Self {
        Self {
            state: AssignmentState::Queued,
            epoch,
            attempts: 0,
            next_attempt_at: None,
            started_at: None,
            completed_at: None,
            progress: Progress::default(),
        }
    }

    /// For the one process of the host, which does not work on it already: it takes over the leases of the process
    /// before it at once, raising the epoch, so that a restart waits for nobody.
    pub fn next(&self, now: Timestamp) -> Next {
        if matches!(self.state, AssignmentState::Finished { .. }) {
            return Next::Report;
        }
        if self.attempts >= MAX_ATTEMPTS {
            return Next::GiveUp(self.epoch.next());
        }
        match self.next_attempt_at {
            Some(at) if at > now => Next::Wait(at),
            _ => Next::Claim(self.epoch.next()),
        }
    }
}

/// A host that has said nothing for so long is taken for gone. It says something twice a minute.
pub const OFFLINE: jiff::SignedDuration = jiff::SignedDuration::from_secs(90);
/// So long a host that is gone may come back before its part of a deployment is ended without it.
pub const RETURN_DEADLINE: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);
/// So long a host that is there may let an assignment lie, or hold a lease that has run out: it is busy with others, or
/// cannot write.
pub const IDLE_DEADLINE: jiff::SignedDuration = jiff::SignedDuration::from_hours(2);
/// Whatever a host says of itself: no order takes so long.
pub const LONGEST_WORK: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

impl Assignment {
    /// Whether nobody need wait for the host any longer. `since` is when it got the assignment, `seen` when it was last
    /// heard of.
    pub fn is_abandoned(&self, since: Timestamp, seen: Option<Timestamp>, now: Timestamp) -> bool {
        let assigned = since;
        // Clocks and leases are the host's word: none is believed for longer than it could be true.
        let seen = seen.map(|seen| seen.min(now));
        let believed = |until: Timestamp| until.min(seen.unwrap_or(assigned).max(assigned) + IDLE_DEADLINE);
        let since = match self.state {
            AssignmentState::Finished { .. } => return false,
            AssignmentState::Queued => self.next_attempt_at.map_or(since, |at| believed(at).max(since)),
            AssignmentState::Running { lease_until } => believed(lease_until),
        };
        if now.duration_since(assigned) >= LONGEST_WORK {
            return true;
        }
        let is_offline = seen.is_none_or(|seen| now.duration_since(seen) >= OFFLINE);
        let away_since = seen.map_or(since, |seen| seen.max(since));
        is_offline && now.duration_since(away_since) >= RETURN_DEADLINE || now.duration_since(since) >= IDLE_DEADLINE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_waited_for_as_long_as_it_may_come_back() {
        let at = |seconds: i64| Timestamp::from_second(10_000 + seconds).unwrap();
        let queued = Assignment::queued(Epoch(1));
        let later = Assignment { next_attempt_at: Some(at(100)), ..queued.clone() };
        let running = Assignment { state: AssignmentState::Running { lease_until: at(60) }, ..queued.clone() };
        let for_ever =
            Assignment { state: AssignmentState::Running { lease_until: at(1_000_000_000) }, ..queued.clone() };
        let finished = Assignment {
            state: AssignmentState::Finished { outcome: Outcome::Succeeded { digest: None } },
            ..queued.clone()
        };
        for (assignment, seen, now, abandoned) in [
            (&queued, None, 299, false),
            (&queued, None, 300, true),
            (&queued, Some(-1_000), 300, true),
            (&queued, Some(10), 300, false),
            (&queued, Some(10), 310, true),
            (&queued, Some(300), 310, false),
            (&queued, Some(7_199), 7_199, false),
            (&queued, Some(7_200), 7_200, true),
            (&later, None, 399, false),
            (&later, None, 400, true),
            (&running, Some(0), 359, false),
            (&running, Some(0), 360, true),
            (&running, Some(7_260), 7_260, true),
            (&finished, None, 100_000, false),
            (&for_ever, Some(0), 7_499, false),
            (&for_ever, Some(0), 7_500, true),
            (&for_ever, Some(86_399), 86_399, false),
            (&for_ever, Some(1_000_000), 86_400, true),
        ] {
            assert_eq!(
                assignment.is_abandoned(at(0), seen.map(at), at(now)),
                abandoned,
                "{assignment:?} {seen:?} {now}"
            );
        }
    }

    #[test]
    fn a_new_process_takes_over_and_gives_up_after_three() {
        let now = Timestamp::from_second(1_000).unwrap();
        let later = Timestamp::from_second(1_001).unwrap();
        let queued = Assignment::queued(Epoch(1));
        assert_eq!(queued.next(now), Next::Claim(Epoch(2)));
        let running =
            Assignment { state: AssignmentState::Running { lease_until: later }, attempts: 1, ..queued.clone() };
        assert_eq!(running.next(now), Next::Claim(Epoch(2)));
        let backing_off = Assignment { next_attempt_at: Some(later), attempts: 1, ..queued.clone() };
        assert_eq!(backing_off.next(now), Next::Wait(later));
        assert_eq!(backing_off.next(later), Next::Claim(Epoch(2)));
        let exhausted = Assignment { attempts: MAX_ATTEMPTS, ..queued.clone() };
        assert_eq!(exhausted.next(now), Next::GiveUp(Epoch(2)));
        let outcome = Outcome::Succeeded { digest: None };
        let finished = Assignment { state: AssignmentState::Finished { outcome }, attempts: MAX_ATTEMPTS, ..queued };
        assert_eq!(finished.next(now), Next::Report);
    }
}
