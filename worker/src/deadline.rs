//! How long a step may take. Each is longer than any call to Docker within it, so that the call's own error is told
//! first; past it the step is given up by an error of its own words, and the application goes back to what ran.
//!
//! | step | may take |
//! | --- | --- |
//! | pull | an hour; silent for two minutes it has ended before |
//! | create | two minutes |
//! | prove the lease | half a minute |
//! | rename: set aside, commit, take back, bring back | half a minute |
//! | stop | the container's grace period and a minute and a half |
//! | start | a minute and a half |
//! | start again what was set aside | the longest grace period and a minute and a half |
//! | check | what the health check may take, and half a minute |
//! | bake | the bake time, what a last probe may take, and as long as the engine may be away |
//! | remove | a minute and a half |
//!
//! An engine that goes away in the middle of a switch is waited for [`PATIENCE`] long, beside all this.

use std::time::Duration;

use crate::{docker::LONGEST_GRACE, plan::Step};

/// An engine that goes away in the middle of a switch is waited for so long, looking again each time it is back.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// Between two such looks.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);
/// Of a switch, beside the old version's grace period and the new one's check: renames, the start, and the way back.
const SWITCH_MARGIN: Duration = Duration::from_secs(30);
/// After the latest end of a bake time a former version is kept for a worker that was away.
const BAKE_MARGIN: Duration = Duration::from_mins(10);

const PULL: Duration = Duration::from_hours(1);
const CREATE: Duration = Duration::from_mins(2);
const PROVE: Duration = Duration::from_secs(30);
const RENAME: Duration = Duration::from_secs(30);
const CHANGE: Duration = Duration::from_secs(90);
const MARGIN: Duration = Duration::from_secs(30);

/// What a job brings with it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// Between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
    /// The longest that a health check takes.
    pub(crate) check: Duration,
    pub(crate) bake: Duration,
}

impl Limits {
    pub(crate) fn of(self, step: &Step) -> Duration {
        match step {
            Step::RefuseName | Step::RefuseOlder | Step::RefuseNothing | Step::RefuseLost | Step::Done => MARGIN,
            Step::Pull => PULL,
            Step::Create => CREATE,
            Step::ProveLease => PROVE,
            Step::SetAside { .. } | Step::Commit { .. } | Step::Uncommit { .. } | Step::BringBack { .. } => RENAME,
            Step::StopPrevious { .. } | Step::StopNext { .. } | Step::StopCurrent { .. } | Step::StopStray { .. } => {
                self.grace + CHANGE
            }
            Step::StartPrevious { .. } => LONGEST_GRACE + CHANGE,
            Step::Check { .. } => self.check + MARGIN,
            Step::Bake { .. } => self.bake + self.check + PATIENCE + MARGIN,
            Step::StartNext { .. }
            | Step::StartCurrent { .. }
            | Step::RemoveNext { .. }
            | Step::RemovePrevious { .. }
            | Step::RemoveCurrent { .. }
            | Step::RemoveStray { .. } => CHANGE,
        }
    }

    /// From the first change of what runs to the commit or the way back.
    pub(crate) fn longest_switch(self) -> Duration {
        self.grace + self.check + SWITCH_MARGIN
    }

    /// From a container's creation to where nobody can be in its bake time any more.
    pub(crate) fn longest_bake(self) -> Duration {
        self.longest_switch() + self.bake + BAKE_MARGIN
    }
}

/// A step in words, for the error that tells that it took too long.
pub(crate) fn told(step: &Step) -> &'static str {
    match step {
        Step::RefuseName | Step::RefuseOlder | Step::RefuseNothing | Step::RefuseLost | Step::Done => {
            "look at the application"
        }
        Step::Pull => "pull the image",
        Step::Create => "create the new container",
        Step::ProveLease => "prove the lease",
        Step::SetAside { .. } => "set the old version aside",
        Step::StopPrevious { .. } => "stop the old version",
        Step::StartNext { .. } => "start the new version",
        Step::Check { .. } => "check the container",
        Step::Commit { .. } => "give the new version its name",
        Step::Bake { .. } => "watch the new version",
        Step::Uncommit { .. } => "take the name from the new version",
        Step::StopNext { .. } => "stop the new version",
        Step::RemoveNext { .. } => "remove the new version",
        Step::RemovePrevious { .. } => "remove the old version",
        Step::StartPrevious { .. } => "start the old version again",
        Step::BringBack { .. } => "give the old version its name back",
        Step::StopCurrent { .. } | Step::StopStray { .. } => "stop the container",
        Step::StartCurrent { .. } => "start the container",
        Step::RemoveCurrent { .. } | Step::RemoveStray { .. } => "remove the container",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_brings_with_it_is_added() {
        let seconds = Duration::from_secs;
        let limits = Limits { grace: seconds(7), check: seconds(11), bake: seconds(600) };
        let id = || "1".to_owned();
        assert_eq!(limits.of(&Step::StopPrevious { id: id(), always: false }), seconds(97));
        assert_eq!(limits.of(&Step::Check { id: id() }), seconds(41));
        assert!(limits.of(&Step::Bake { id: id() }) > seconds(611));
        assert_eq!(limits.longest_switch(), seconds(48));
        assert!(limits.longest_bake() > limits.longest_switch() + seconds(600));
    }
}
