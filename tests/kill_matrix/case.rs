//! What a worker is killed in: an order, how it ends, and how its version is checked.

use serde_json::{Value, json};
use tidegate_local::demo_image::Mode;

/// What is done, and with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// A good version over a running one.
    Over,
    /// A version that never gets healthy over a running one.
    Back,
    /// A version that dies in its bake time over a running one.
    Bake,
    /// A good version over a running one, taken back because another host refuses it.
    Return,
    /// A good version where nothing runs.
    First,
    /// A good version over what somebody has started by hand.
    Adopt,
    Restart,
    Stop,
    /// Of a stopped one.
    Start,
    Remove,
}

impl Case {
    /// How it ends.
    pub(crate) fn status(self) -> &'static str {
        match self {
            Self::Back | Self::Bake | Self::Return => "rolled_back",
            _ => "succeeded",
        }
    }

    /// What may be there first after a restart of the worker: one of the versions, or what else is asked for.
    pub(crate) fn allowed(self) -> &'static [&'static str] {
        match self {
            Self::Over | Self::Back | Self::Bake | Self::Return | Self::Adopt => &["old", "new"],
            Self::First => &["new"],
            Self::Restart | Self::Start => &["old"],
            Self::Stop => &["stopped"],
            Self::Remove => &["none"],
        }
    }

    /// Of a path, where no version is deployed.
    pub(super) fn verb(self) -> Option<&'static str> {
        match self {
            Self::Restart => Some("restart"),
            Self::Stop => Some("stop"),
            Self::Start => Some("start"),
            Self::Remove => Some("remove"),
            _ => None,
        }
    }

    pub(super) fn mode(self) -> Mode {
        match self {
            Self::Back => Mode::Unhealthy,
            Self::Bake => Mode::CrashLater,
            _ => Mode::Ok,
        }
    }
}

/// Of an application that is slow to get healthy. A good version has all the time that a busy machine may need; one that
/// never gets healthy is found so soon.
pub(super) fn check(case: Case) -> Value {
    let start_period = if case == Case::Back { 900 } else { 30_000 };
    http("/healthz", start_period)
}

/// A file that a version does not have when it starts; see [`Lane::say_healthy`](super::lane::Lane::say_healthy).
pub(super) const HEALTHY: &str = "/healthy";

/// Not passed before the test has made the new version healthy, and not failed for as long as anybody looks.
pub(super) fn held(case: Case) -> Value {
    // On the way back nobody makes it healthy, and the end of this time is waited for.
    let start_period = if case == Case::Back { 15_000 } else { 120_000 };
    http(&format!("/read{HEALTHY}"), start_period)
}

fn http(path: &str, start_period_ms: u64) -> Value {
    json!({"type": "http", "path": path, "port": 8080, "intervalMs": 100, "startPeriodMs": start_period_ms, "retries": 2,
        "deadlineMs": start_period_ms + 10_000})
}
