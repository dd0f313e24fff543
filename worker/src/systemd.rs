//! What systemd is told (`sd_notify(3)`), where it has started us.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sd_notify::NotifyState;

/// systemd, waiting for word from us.
#[derive(Debug)]
pub struct ServiceManager {
    watchdog: Option<Duration>,
    pinged: Mutex<Option<Instant>>,
}

impl ServiceManager {
    /// None where nobody waits: in a container, or started by hand.
    pub fn from_environment() -> Option<Self> {
        std::env::var_os("NOTIFY_SOCKET")?;
        Some(Self { watchdog: sd_notify::watchdog_enabled(), pinged: Mutex::default() })
    }

    /// Silence for so long ends the process.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Told at most four times in a watchdog's time, however often it is said.
    pub(crate) fn alive(&self, now: Instant) {
        let Some(watchdog) = self.watchdog else { return };
        let mut pinged = self.pinged.lock().unwrap_or_else(PoisonError::into_inner);
        if pinged.is_none_or(|at| now.saturating_duration_since(at) >= watchdog / 4) {
            *pinged = Some(now);
            tell(&[NotifyState::Watchdog]);
        }
    }

    pub(crate) fn ready() {
        tell(&[NotifyState::Ready, NotifyState::Status("waits for work")]);
    }

    pub(crate) fn stopping() {
        tell(&[NotifyState::Stopping, NotifyState::Status("ends what it has in hand")]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(error = &error as &dyn std::error::Error, "the service manager cannot be told");
    }
}
