//! Whether a version that was committed keeps working for a while.
//!
//! What is watched is the same as before the commit, at the health check's own interval: the container runs, Docker has
//! not restarted it, and its probe passes. An engine that goes away is waited for, and a container that it starts again
//! with itself has not failed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidegate_domain::application::{HealthCheck, Probe};
use tokio::time::{Instant, sleep};

use super::{
    Engine, Error, Inspected, ProbeClient, Target, Verdict, address, client_of, engine_says_unhealthy, exited,
    explained, look,
};
use crate::deadline::{PATIENCE, PAUSE};

/// An engine that is back may still be starting its containers.
const SETTLES: Duration = Duration::from_secs(10);

/// How it went, and how long after its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baked {
    pub verdict: Verdict,
    pub after: Duration,
}

/// Watches a container until `length` after its start; one that is older is looked at once. `clock` tells the time.
///
/// # Errors
/// The engine does not answer, for longer than the rest of the time and a minute.
pub async fn bake(
    engine: &Engine,
    id: &str,
    own: Option<&HealthCheck>,
    network: Option<&str>,
    length: Duration,
    clock: impl Fn() -> Timestamp,
) -> Result<Baked, Error> {
    let begun = Instant::now();
    let mut watch = Watch { engine, id, own, network, length, over: None, failures: 0, next: begun, client: None };
    let mut away: Option<Away> = None;
    loop {
        let passed = match look(engine, id).await {
            Ok(Ok(now)) => {
                watch.set_end(&now, clock());
                match exited(&now, 0) {
                    None => watch.probe(&now).await,
                    Some(ended) => Err(ended),
                }
            }
            Ok(Err(ended)) => Err(ended),
            Err(error) if error.is_passing() => {
                let over = watch.over.map_or(begun + length, |(over, _)| over);
                if Instant::now() > over + PATIENCE {
                    return Err(error);
                }
                away = Some(Away { back_at: None });
                sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        let settling = away.as_mut().is_some_and(|away| now < *away.back_at.get_or_insert(now) + SETTLES);
        let is_over = watch.over.is_some_and(|(over, _)| now >= over);
        match passed {
            Err(Verdict::Removed) => return Ok(watch.told(Verdict::Removed, now)),
            Err(verdict) if !settling => {
                let verdict = explained(engine, id, verdict, begun.elapsed()).await;
                return Ok(watch.told(verdict, now));
            }
            Ok(true) if is_over => return Ok(watch.told(Verdict::Healthy, now)),
            Err(_) | Ok(_) => {}
        }
        let left = watch.over.map_or(PAUSE, |(over, _)| over.saturating_duration_since(now));
        sleep(PAUSE.min(left).max(super::FIRST_PAUSE)).await;
    }
}

/// The engine did not answer.
struct Away {
    back_at: Option<Instant>,
}

struct Watch<'a> {
    engine: &'a Engine,
    id: &'a str,
    own: Option<&'a HealthCheck>,
    network: Option<&'a str>,
    length: Duration,
    /// When the time is over, and when the container was started.
    over: Option<(Instant, Instant)>,
    /// Probes in a row.
    failures: u32,
    /// Probe.
    next: Instant,
    client: Option<ProbeClient>,
}

impl Watch<'_> {
    /// From the container's first start that is seen: one that the engine starts again does not begin anew.
    fn set_end(&mut self, seen: &Inspected, now: Timestamp) {
        if self.over.is_none() {
            let ran = ran(seen.started_at, now);
            let instant = Instant::now();
            let started = instant.checked_sub(ran).unwrap_or(instant);
            self.over = Some((instant + self.length.saturating_sub(ran), started));
        }
    }

    /// Whether the last probe passed; an error is what ends the watch.
    async fn probe(&mut self, seen: &Inspected) -> Result<bool, Verdict> {
        if self.own.is_none() && seen.healthy == Some(false) {
            return Err(engine_says_unhealthy());
        }
        let Some(check) = self.own.or(seen.image_check.as_ref()) else { return Ok(true) };
        let now = Instant::now();
        if check.probe == Probe::None || now < self.next {
            return Ok(self.failures == 0);
        }
        self.next = now + Duration::from_millis(check.interval_ms).max(PAUSE);
        let client = self.client.get_or_insert_with(|| client_of(Duration::from_millis(check.timeout_ms)));
        let target = Target { engine: self.engine, id: self.id, address: address(&seen.networks, self.network) };
        match target.probe_once(check, client).await {
            Ok(()) => self.failures = 0,
            Err(why) => {
                self.failures += 1;
                if self.failures >= check.retries.max(1) {
                    let why = format!("{why}, {} times in a row", self.failures);
                    return Err(Verdict::Unhealthy { why });
                }
            }
        }
        Ok(self.failures == 0)
    }

    fn told(&self, verdict: Verdict, now: Instant) -> Baked {
        let after = self.over.map_or(Duration::ZERO, |(_, started)| now.saturating_duration_since(started));
        Baked { verdict, after }
    }
}

/// How long a container has been running. Clocks are set back now and then.
fn ran(started_at: Option<Timestamp>, now: Timestamp) -> Duration {
    let ran = started_at.map_or(SignedDuration::ZERO, |at| now.duration_since(at));
    Duration::try_from(ran).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_makes_no_container_older() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(ran(Some(at(100)), at(130)), Duration::from_secs(30));
        assert_eq!(ran(Some(at(100)), at(90)), Duration::ZERO);
        assert_eq!(ran(None, at(90)), Duration::ZERO);
    }
}
