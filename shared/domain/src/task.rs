//! Tasks: what one host is asked for at once, beside deployments: an application's log, and to clean up after it.
//!
//! A task changes nothing that runs, so it has no turn in the application's order and is not recorded as a deployment.
//! Somebody waits for its answer. One whose caller has gone, or that was lost in a crash, is asked for again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    application::ContainerName,
    host::ContainerState,
    id::{ApplicationId, DeploymentId},
    image::ImageName,
    invalid::Invalid,
    secret::{Secret, in_sealed_form},
};

/// So long a caller waits for a host. The gateway ends a request after 30 s.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A host gives up a task after so long, and says so while its caller still waits.
pub const LONGEST: Duration = Duration::from_secs(15);
/// An older task is not begun. Callers take their tasks back when they give up waiting, so this is about those that died;
/// it is as long as two clocks may differ before AWS refuses the host anyway.
pub const STALE: SignedDuration = SignedDuration::from_mins(5);
/// What is left of a task is removed after so long.
pub const KEPT: SignedDuration = SignedDuration::from_mins(15);
/// Most lines of a log.
pub const MAX_TAIL: usize = 2_000;
/// Most bytes of an answer as JSON: sealed and as text it is a third larger, and an item holds 400 KB.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// For what an answer holds beside its lines.
const FRAME_BYTES: usize = 1024;

/// `UUIDv7`: it says when the task was asked for, and is bound to what was sealed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(Uuid);

impl TaskId {
    /// The id of a task asked for at `now`; `random` decides what the clock leaves open.
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| Invalid::new("format-id", "is not a task's id", "use the id of a task"))
    }

    /// By the clock of whoever asked.
    pub fn asked_at(self) -> Timestamp {
        let unix = self.0.get_timestamp().map(|stamp| stamp.to_unix());
        let at = unix
            .and_then(|(seconds, nanos)| Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok());
        at.unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// See [`STALE`].
    pub fn is_stale(self, now: Timestamp) -> bool {
        now.duration_since(self.asked_at()) > STALE
    }
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    Logs,
    Prune,
}

/// What a host is to do, in full. Serialised only to be sealed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskOrder {
    pub application_id: ApplicationId,
    pub name: ContainerName,
    pub what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum What {
    /// The end of the log of the application's container.
    Logs {
        /// Lines.
        tail: usize,
        /// Older lines are left out.
        since: Option<Timestamp>,
        /// The only release whose container may be shown: its secrets are these.
        release: DeploymentId,
        secrets: Vec<Hidden>,
    },
    /// Removes the application's images beyond what the host keeps, and containers that were left over.
    Prune { image: ImageName },
}

/// A value that must not show in an answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hidden {
    #[serde(with = "in_sealed_form")]
    pub value: Secret<String>,
}

impl What {
    pub fn kind(&self) -> TaskKind {
        match self {
            Self::Logs { .. } => TaskKind::Logs,
            Self::Prune { .. } => TaskKind::Prune,
        }
    }
}

/// What a host answers. Serialised only to be sealed: a log may hold what is nobody else's business.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum TaskAnswer {
    Logs(Logs),
    Pruned(Pruned),
    Refused { why: Refusal },
}

/// The end of a container's log, without the secrets of its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logs {
    pub state: ContainerState,
    /// Something is missing that was asked for: there was no room for all lines, or for all of a line.
    pub truncated: bool,
    /// Oldest first.
    pub lines: Vec<LogLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// By the host's clock; none of a container with a terminal.
    pub at: Option<Timestamp>,
    pub stream: LogStream,
    pub text: String,
}

/// A terminal has one for both, which is shown as `stdout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// What was removed, and why not all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    pub images_removed: usize,
    /// As the engine counts images: layers that another image shares count too.
    pub bytes_reclaimed: u64,
    pub containers_removed: usize,
    pub error: Option<Refusal>,
}

/// Why a host did not do it, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Refusal {
    /// There is no container of the application there.
    NoContainer,
    /// The container is another release's than was thought, whose secrets the host has not been given.
    OtherRelease { release: DeploymentId },
    /// Its log driver keeps nothing that can be read.
    NotKept { driver: String },
    /// A deployment of the application is in hand there.
    DeploymentInHand,
    /// Docker does not answer.
    EngineAway,
    /// Docker refuses it. Without secrets.
    Engine { message: String },
    /// It took longer than [`LONGEST`].
    Late,
}

impl Logs {
    /// With as many of its newest lines as an answer has room for.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let mut left = MAX_ANSWER_BYTES - FRAME_BYTES;
        let mut kept = 0;
        for line in self.lines.iter().rev() {
            let bytes = serde_json::to_vec(line).map_or(usize::MAX, |json| json.len() + 1);
            let Some(rest) = left.checked_sub(bytes) else { break };
            left = rest;
            kept += 1;
        }
        let too_many = self.lines.len() - kept;
        self.truncated |= too_many > 0;
        self.lines.drain(..too_many);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine { at: None, stream: LogStream::Stdout, text: text.to_owned() }
    }

    fn logs(lines: Vec<LogLine>) -> Logs {
        Logs { state: ContainerState::Running, truncated: false, lines }
    }

    #[test]
    fn an_id_tells_when_it_was_asked_for() {
        let now: Timestamp = "2026-11-22T10:00:00.123Z".parse().unwrap();
        let id = TaskId::new(now, [7; 10]);
        assert_eq!(id.asked_at(), now);
        assert_eq!(TaskId::parse(&id.to_string()).unwrap(), id);
        assert!(!id.is_stale(now + STALE) && id.is_stale(now + STALE + SignedDuration::from_millis(1)));
        assert!(!id.is_stale(now - SignedDuration::from_hours(1)), "a clock that is behind");
        assert!(TaskId::parse("x").is_err());
    }

    #[test]
    fn an_answer_keeps_the_newest_lines_that_fit() {
        let short = logs(vec![line("a"), line("b")]);
        assert_eq!(short.clone().bounded(), short);
        // As JSON each of these characters takes six bytes.
        let escaped = "\u{1}".repeat(1_000);
        let many = logs((0..100).map(|number| line(&format!("{number} {escaped}"))).collect()).bounded();
        assert!(many.truncated && many.lines.len() > 30, "{}", many.lines.len());
        assert!(many.lines[many.lines.len() - 1].text.starts_with("99 "));
        let bytes = serde_json::to_vec(&TaskAnswer::Logs(many)).unwrap().len();
        assert!((MAX_ANSWER_BYTES - 8_000..=MAX_ANSWER_BYTES).contains(&bytes), "{bytes}");
        let huge = logs(vec![line(&"x".repeat(MAX_ANSWER_BYTES))]).bounded();
        assert!(huge.truncated && huge.lines.is_empty());
    }

    #[test]
    fn an_order_and_an_answer_are_read_back() {
        let now = Timestamp::UNIX_EPOCH;
        let what = What::Logs {
            tail: 5,
            since: Some(now),
            release: DeploymentId::new(now, [1; 10]),
            secrets: vec![Hidden { value: Secret::new("hunter2".to_owned()) }],
        };
        let order = TaskOrder { application_id: ApplicationId(7), name: ContainerName::parse("shop").unwrap(), what };
        assert!(!format!("{order:?}").contains("hunter2"));
        let read: TaskOrder = serde_json::from_slice(&serde_json::to_vec(&order).unwrap()).unwrap();
        let What::Logs { secrets, release, .. } = read.what else { panic!("{:?}", read.what) };
        assert_eq!(secrets[0].value.expose(), "hunter2");
        for answer in [
            TaskAnswer::Logs(logs(vec![line("a")])),
            TaskAnswer::Pruned(Pruned { error: Some(Refusal::Late), ..Pruned::default() }),
            TaskAnswer::Refused { why: Refusal::OtherRelease { release } },
            TaskAnswer::Refused { why: Refusal::NoContainer },
        ] {
            let json = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<TaskAnswer>(&json).unwrap(), answer, "{json}");
        }
    }
}
