//! Whether this process lives: what its loop, its jobs and its heartbeat say of themselves, for the service manager, for
//! `/healthz` and for Prometheus.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tidegate_aws::call_log::CallLog;

use crate::{
    metrics::{End, Metrics, Reading},
    systemd::ServiceManager,
};

/// A loop that has not turned for so long hangs: whatever it waits for has a shorter deadline.
const LONGEST_TURN: Duration = Duration::from_mins(2);
/// A loop with nothing to do turns at least so often.
const PULSE: Duration = Duration::from_secs(20);

/// A cheap copy shares it.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    metrics: Metrics,
    seen: Mutex<Seen>,
    manager: Option<ServiceManager>,
}

#[derive(Debug, Default)]
struct Seen {
    turned: Option<Instant>,
    looked: Option<Instant>,
    beat: Option<Instant>,
    docker_up: bool,
    ready: bool,
}

impl Default for Vitals {
    /// Of a worker that is part of another process: no service manager waits for it.
    fn default() -> Self {
        Self::new(CallLog::default(), None)
    }
}

impl Vitals {
    pub fn new(calls: CallLog, manager: Option<ServiceManager>) -> Self {
        Self(Arc::new(Shared { metrics: Metrics::new(calls), seen: Mutex::default(), manager }))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the loop is to say that it turns.
    pub(crate) fn pulse(&self) -> Duration {
        let watchdog = self.0.manager.as_ref().and_then(ServiceManager::watchdog);
        watchdog.map_or(PULSE, |watchdog| PULSE.min(watchdog / 3))
    }

    /// Said by the loop alone, from inside: a loop that hangs cannot say it, and the watchdog ends the process.
    pub(crate) fn turned(&self) {
        let now = Instant::now();
        self.seen().turned = Some(now);
        if let Some(manager) = &self.0.manager {
            manager.alive(now);
        }
    }

    /// What a crash may have left was looked at, and so were the assignments, or it was tried: from here on the loop heals
    /// what it finds.
    pub(crate) fn ready(&self) {
        let first = !std::mem::replace(&mut self.seen().ready, true);
        if first && self.0.manager.is_some() {
            ServiceManager::ready();
        }
    }

    pub(crate) fn stopping(&self) {
        if self.0.manager.is_some() {
            ServiceManager::stopping();
        }
    }

    /// The assignments were read: so many are open.
    pub(crate) fn looked(&self, open: usize) {
        self.seen().looked = Some(Instant::now());
        self.0.metrics.open.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Whether Docker answered when it was asked just now.
    pub(crate) fn docker(&self, answered: bool) {
        self.seen().docker_up = answered;
    }

    /// A heartbeat was written.
    pub(crate) fn beat(&self) {
        self.seen().beat = Some(Instant::now());
    }

    pub(crate) fn working_on(&self, jobs: usize) {
        self.0.metrics.running.set(i64::try_from(jobs).unwrap_or(i64::MAX));
    }

    pub(crate) fn job_ended(&self, end: End, took: Duration) {
        self.0.metrics.ended(end, took);
    }

    /// What is not well, one word each; nothing if the worker can work.
    pub(crate) fn ailments(&self, now: Instant) -> Vec<&'static str> {
        let seen = self.seen();
        let mut ailments = Vec::new();
        if seen.turned.is_none_or(|turned| now.saturating_duration_since(turned) > LONGEST_TURN) {
            ailments.push("loop");
        }
        if !seen.docker_up {
            ailments.push("docker");
        }
        ailments
    }

    /// For Prometheus.
    pub(crate) fn render(&self, now: Instant) -> Result<String, std::fmt::Error> {
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        let reading = {
            let seen = self.seen();
            Reading {
                loop_age: since(seen.turned),
                look_age: since(seen.looked),
                heartbeat_age: since(seen.beat),
                docker_up: seen.docker_up,
            }
        };
        self.0.metrics.render(&reading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_and_a_silent_docker_are_told() {
        let vitals = Vitals::default();
        assert_eq!(vitals.ailments(Instant::now()), ["loop", "docker"]);
        vitals.docker(true);
        vitals.turned();
        let now = Instant::now();
        assert!(vitals.ailments(now).is_empty());
        assert!(vitals.ailments(now + Duration::from_secs(119)).is_empty());
        assert_eq!(vitals.ailments(now + Duration::from_secs(121)), ["loop"]);
        vitals.docker(false);
        assert_eq!(vitals.ailments(now), ["docker"]);
    }
}
