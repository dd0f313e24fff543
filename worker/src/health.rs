//! Whether a new container works.
//!
//! Two things are watched at once: the container itself, so that one that exits or keeps restarting is noticed at once,
//! and a probe. The probe is asked in quick succession at first, because the time until it passes is time that nobody
//! is served; failures count only as often as the health check's own interval says.

mod bake;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tidegate_domain::application::{HealthCheck, Probe};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::docker::{Engine, Error, Inspected, Network};
pub use bake::{Baked, bake};

/// Between two looks at the container.
const LOOK: Duration = Duration::from_millis(50);
/// Between the first probes; grows by half each time, up to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// For a connection to a container of this machine, which takes microseconds. The first packet to a new network interface
/// may be lost, and the kernel would wait a second before it sends another.
const CONNECT: Duration = Duration::from_millis(150);

/// A check begins so soon after the container's start, which it may not have outlived.
const BEFORE: Duration = Duration::from_secs(2);
/// Of a process that was killed by SIGKILL.
const KILLED: i64 = 128 + 9;

/// What became of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    /// It ended by itself, or Docker has already restarted it.
    Exited {
        exit_code: Option<i64>,
        oom_killed: bool,
    },
    /// It runs and does not pass; why the last probe failed.
    Unhealthy {
        why: String,
    },
    /// Somebody removes it, or has.
    Removed,
}

/// Whether a container was started for the check. Docker counts its own restarts since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Start,
    /// It has been running for a while, and what happened before is none of the check's.
    Now,
}

/// Watches a container until it is known to work or not.
///
/// Without a health check of the application's the image's own decides, and without that the container has to stay up
/// for `stable`. `network` is the one that its address is taken from; any if there is none of that name.
///
/// # Errors
/// The engine does not answer; nothing is known of the container then.
pub async fn check(
    engine: &Engine,
    id: &str,
    own: Option<&HealthCheck>,
    network: Option<&str>,
    stable: Duration,
    since: Since,
) -> Result<Verdict, Error> {
    let started = Instant::now();
    let verdict = judge(engine, id, own, network, stable, since).await?;
    Ok(explained(engine, id, verdict, started.elapsed()).await)
}

async fn judge(
    engine: &Engine,
    id: &str,
    own: Option<&HealthCheck>,
    network: Option<&str>,
    stable: Duration,
    since: Since,
) -> Result<Verdict, Error> {
    let started = Instant::now();
    let mut restarts = 0;
    let first = match look(engine, id).await? {
        Ok(first) => first,
        Err(ended) => return Ok(ended),
    };
    if since == Since::Now {
        restarts = first.restart_count;
    }
    if let Some(exited) = exited(&first, restarts) {
        return Ok(exited);
    }
    let from_image = own.is_none();
    let image_check = first.image_check.clone().filter(|_| from_image);
    match own.or(image_check.as_ref()) {
        None | Some(HealthCheck { probe: Probe::None, .. }) => {
            tokio::select! {
                ended = watch(engine, id, restarts, false) => ended,
                () = sleep(stable) => final_look(engine, id, restarts).await,
            }
        }
        Some(check) => {
            let target = Target { engine, id, address: address(&first.networks, network) };
            tokio::select! {
                biased;
                verdict = watch(engine, id, restarts, from_image) => verdict,
                verdict = target.probe_until_healthy(check, started) => match verdict {
                    Verdict::Healthy => final_look(engine, id, restarts).await,
                    other => Ok(other),
                },
            }
        }
    }
}

/// The longest that [`check`] takes, if the engine answers.
pub fn longest(own: Option<&HealthCheck>, stable: Duration) -> Duration {
    match own {
        Some(HealthCheck { probe: Probe::None, .. }) => stable,
        Some(check) => Duration::from_millis(check.deadline_ms + check.timeout_ms),
        // An image's own check is not known before the container exists; this is Docker's default one, failing.
        None => stable.max(Duration::from_mins(4)),
    }
}

/// Ends only when the container does, or when the engine has a verdict of its own on the image's health check.
async fn watch(engine: &Engine, id: &str, restarts: u64, engine_decides: bool) -> Result<Verdict, Error> {
    loop {
        let now = match look(engine, id).await? {
            Ok(now) => now,
            Err(ended) => return Ok(ended),
        };
        if let Some(exited) = exited(&now, restarts) {
            return Ok(exited);
        }
        match now.healthy.filter(|_| engine_decides) {
            Some(true) => return Ok(Verdict::Healthy),
            Some(false) => return Ok(engine_says_unhealthy()),
            None => sleep(LOOK).await,
        }
    }
}

/// A probe may have been answered a moment before the end, or by something else in the container.
async fn final_look(engine: &Engine, id: &str, restarts: u64) -> Result<Verdict, Error> {
    Ok(match look(engine, id).await? {
        Ok(now) => exited(&now, restarts).unwrap_or(Verdict::Healthy),
        Err(ended) => ended,
    })
}

/// The container, or that it is gone.
async fn look(engine: &Engine, id: &str) -> Result<Result<Inspected, Verdict>, Error> {
    match engine.inspect(id).await {
        Ok(now) => Ok(Ok(now)),
        Err(error) if error.status() == Some(404) => Ok(Err(Verdict::Removed)),
        Err(error) => Err(error),
    }
}

fn exited(now: &Inspected, restarts: u64) -> Option<Verdict> {
    if now.running && now.restart_count <= restarts {
        return None;
    }
    // The engine notes the wish before it kills.
    Some(if now.is_being_removed {
        Verdict::Removed
    } else {
        Verdict::Exited { exit_code: now.exit_code, oom_killed: now.oom_killed }
    })
}

/// Docker may have started it again before anybody looked, and the word that it was killed at its memory limit may come
/// after the one that it ended. Without an answer it stays as it was seen.
async fn explained(engine: &Engine, id: &str, verdict: Verdict, watched: Duration) -> Verdict {
    match verdict {
        Verdict::Exited { exit_code: exit_code @ (None | Some(KILLED)), oom_killed: false } => {
            let seen = engine.last_end(id, watched + BEFORE).await.unwrap_or_default();
            Verdict::Exited { exit_code: exit_code.or(seen.exit_code), oom_killed: seen.oom_killed }
        }
        Verdict::Healthy | Verdict::Exited { .. } | Verdict::Unhealthy { .. } | Verdict::Removed => verdict,
    }
}

fn engine_says_unhealthy() -> Verdict {
    Verdict::Unhealthy { why: "Docker reports it as unhealthy".to_owned() }
}

fn address(networks: &[Network], wanted: Option<&str>) -> Option<IpAddr> {
    let named = networks.iter().find(|network| Some(network.name.as_str()) == wanted);
    named.or(networks.first()).map(|network| network.address)
}

type ProbeClient = Client<HttpConnector, Empty<Bytes>>;

/// Every probe is a connection of its own, as a visitor's would be.
fn client_of(limit: Duration) -> ProbeClient {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT.min(limit)));
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector)
}

struct Target<'a> {
    engine: &'a Engine,
    id: &'a str,
    address: Option<IpAddr>,
}

impl Target<'_> {
    async fn probe_until_healthy(&self, check: &HealthCheck, started: Instant) -> Verdict {
        let interval = Duration::from_millis(check.interval_ms).max(FIRST_PAUSE);
        let limit = Duration::from_millis(check.timeout_ms);
        let deadline = started + Duration::from_millis(check.deadline_ms);
        let client = client_of(limit);
        let mut tally = Tally::new(check, started);
        let mut pause = FIRST_PAUSE;
        loop {
            let Err(failure) = self.probe_once(check, &client).await else { return Verdict::Healthy };
            let now = Instant::now();
            if tally.fail(now) {
                return Verdict::Unhealthy { why: format!("{}, {} times in a row", failure, check.retries.max(1)) };
            }
            if now >= deadline {
                return Verdict::Unhealthy {
                    why: format!("{failure}, until the deadline of {} ms", check.deadline_ms),
                };
            }
            sleep(pause.min(deadline - now)).await;
            pause = (pause * 3 / 2).min(interval);
        }
    }

    async fn probe_once(&self, check: &HealthCheck, client: &ProbeClient) -> Result<(), String> {
        let limit = Duration::from_millis(check.timeout_ms);
        match timeout(limit, self.probe(&check.probe, client)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} ms", check.timeout_ms)),
        }
    }

    async fn probe(&self, probe: &Probe, client: &ProbeClient) -> Result<(), String> {
        match probe {
            Probe::Http { path, port } => {
                let socket = self.socket(*port)?;
                let slash = if path.starts_with('/') { "" } else { "/" };
                let uri = format!("http://{socket}{slash}{path}");
                let uri = uri.parse().map_err(|_| format!("{path} cannot be the path of a URL"))?;
                match client.get(uri).await {
                    Ok(answer) if answer.status().is_success() || answer.status().is_redirection() => Ok(()),
                    Ok(answer) => Err(format!("GET {path} on port {port} answers {}", answer.status().as_u16())),
                    Err(error) => Err(format!("GET {path} on port {port} fails: {}", root_cause(&error))),
                }
            }
            Probe::Tcp { port } => match timeout(CONNECT, TcpStream::connect(self.socket(*port)?)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("port {port} does not accept a connection: {error}")),
                Err(_) => Err(format!("port {port} does not accept a connection")),
            },
            Probe::Command { command } => match self.engine.exec(self.id, command).await {
                Ok((0, _)) => Ok(()),
                Ok((code, output)) => {
                    let last = output.trim_end().lines().next_back().unwrap_or_default();
                    Err(format!("the command of the health check exits {code}: {last}"))
                }
                Err(error) => Err(format!("the command of the health check cannot be run: {error}")),
            },
            Probe::None => Ok(()),
        }
    }

    fn socket(&self, port: u16) -> Result<SocketAddr, String> {
        let address = self.address.ok_or("the container has no network address to be probed on")?;
        Ok(SocketAddr::new(address, port))
    }
}

/// Counts failures in a row as Docker would, however often the probe is really asked.
struct Tally {
    /// The next failure counts from here on.
    next: Instant,
    interval: Duration,
    left: u32,
}

impl Tally {
    fn new(check: &HealthCheck, started: Instant) -> Self {
        let interval = Duration::from_millis(check.interval_ms).max(FIRST_PAUSE);
        let next = started + Duration::from_millis(check.start_period_ms) + interval;
        Self { next, interval, left: check.retries.max(1) }
    }

    /// Whether this was one too many.
    fn fail(&mut self, now: Instant) -> bool {
        if now >= self.next {
            self.next = now + self.interval;
            self.left = self.left.saturating_sub(1);
        }
        self.left == 0
    }
}

/// The innermost cause says what happened; the layers above only that it did.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected() -> Inspected {
        Inspected {
            running: true,
            exit_code: None,
            oom_killed: false,
            restart_count: 0,
            started_at: None,
            is_being_removed: false,
            always: false,
            healthy: None,
            image_check: None,
            networks: Vec::new(),
            image_id: String::new(),
        }
    }

    #[test]
    fn quick_probes_do_not_use_up_the_retries() {
        let check = HealthCheck {
            probe: Probe::None,
            interval_ms: 1_000,
            timeout_ms: 100,
            retries: 2,
            start_period_ms: 5_000,
            deadline_ms: 60_000,
        };
        let start = Instant::now();
        let mut tally = Tally::new(&check, start);
        let mut fail = |ms| tally.fail(start + Duration::from_millis(ms));
        for (ms, unhealthy) in
            [(20, false), (4_000, false), (5_500, false), (6_000, false), (6_500, false), (7_000, true)]
        {
            assert_eq!(fail(ms), unhealthy, "after {ms} ms");
        }
    }

    #[test]
    fn a_container_that_was_restarted_has_exited() {
        assert_eq!(exited(&inspected(), 0), None);
        let verdict = |change: fn(&mut Inspected)| {
            let mut now = inspected();
            change(&mut now);
            exited(&now, 0)
        };
        let ended = Some(Verdict::Exited { exit_code: None, oom_killed: false });
        assert_eq!(verdict(|now| now.running = false), ended);
        assert_eq!(verdict(|now| now.restart_count = 1), ended);
        let removed = |now: &mut Inspected| (now.running, now.is_being_removed) = (false, true);
        assert_eq!(verdict(removed), Some(Verdict::Removed));
        // What Docker has restarted long before it was looked at.
        let mut old = inspected();
        old.restart_count = 3;
        assert_eq!(exited(&old, 3), None);
    }

    #[test]
    fn the_address_is_that_of_the_first_network() {
        let network = |name: &str, ip: &str| Network { name: name.to_owned(), address: ip.parse().unwrap() };
        let both = [network("bridge", "172.17.0.2"), network("shop", "172.18.0.2")];
        assert_eq!(address(&both, Some("shop")), Some(both[1].address));
        assert_eq!(address(&both, None), Some(both[0].address));
        assert_eq!(address(&[], Some("shop")), None);
    }
}
