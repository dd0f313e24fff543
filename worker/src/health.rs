//! Whether a new container works.
//!
//! Two things are watched at once: the container itself, so that one that exits or keeps restarting is noticed at once,
//! and a probe. The probe is asked in quick succession at first, because the time until it passes is time that nobody
//! is served; failures count only as often as the health check's own interval says.

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

/// Between two looks at the container.
const LOOK: Duration = Duration::from_millis(50);
/// Between the first probes; grows by half each time, up to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// For a connection to a container of this machine, which takes microseconds. The first packet to a new network interface
/// may be lost, and the kernel would wait a second before it sends another.
const CONNECT: Duration = Duration::from_millis(150);

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
}

/// Watches a container that was just started until it is known to work or not.
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
) -> Result<Verdict, Error> {
    let started = Instant::now();
    let first = engine.inspect(id).await?;
    if let Some(exited) = exited(&first) {
        return Ok(exited);
    }
    let from_image = own.is_none();
    let image_check = first.image_check.clone().filter(|_| from_image);
    match own.or(image_check.as_ref()) {
        None | Some(HealthCheck { probe: Probe::None, .. }) => {
            tokio::select! {
                ended = watch(engine, id, false) => ended,
                () = sleep(stable) => final_look(engine, id).await,
            }
        }
        Some(check) => {
            let target = Target { engine, id, address: address(&first.networks, network) };
            tokio::select! {
                biased;
                verdict = watch(engine, id, from_image) => verdict,
                verdict = target.probe_until_healthy(check, started) => match verdict {
                    Verdict::Healthy => final_look(engine, id).await,
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
async fn watch(engine: &Engine, id: &str, engine_decides: bool) -> Result<Verdict, Error> {
    loop {
        let now = engine.inspect(id).await?;
        if let Some(exited) = exited(&now) {
            return Ok(exited);
        }
        match now.healthy.filter(|_| engine_decides) {
            Some(true) => return Ok(Verdict::Healthy),
            Some(false) => {
                return Ok(Verdict::Unhealthy { why: "Docker reports it as unhealthy".to_owned() });
            }
            None => sleep(LOOK).await,
        }
    }
}

/// A probe may have been answered a moment before the end, or by something else in the container.
async fn final_look(engine: &Engine, id: &str) -> Result<Verdict, Error> {
    Ok(exited(&engine.inspect(id).await?).unwrap_or(Verdict::Healthy))
}

fn exited(now: &Inspected) -> Option<Verdict> {
    let gone = !now.running || now.restarting || now.restart_count > 0;
    gone.then_some(Verdict::Exited { exit_code: now.exit_code, oom_killed: now.oom_killed })
}

fn address(networks: &[Network], wanted: Option<&str>) -> Option<IpAddr> {
    let named = networks.iter().find(|network| Some(network.name.as_str()) == wanted);
    named.or(networks.first()).map(|network| network.address)
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
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT.min(limit)));
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        let mut tally = Tally::new(check, started);
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match timeout(limit, self.probe(&check.probe, &client)).await {
                Ok(Ok(())) => return Verdict::Healthy,
                Ok(Err(why)) => why,
                Err(_) => format!("no answer within {} ms", check.timeout_ms),
            };
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

    async fn probe(&self, probe: &Probe, client: &Client<HttpConnector, Empty<Bytes>>) -> Result<(), String> {
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
            restarting: false,
            exit_code: None,
            oom_killed: false,
            restart_count: 0,
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
        assert_eq!(exited(&inspected()), None);
        let gone = |change: fn(&mut Inspected)| {
            let mut now = inspected();
            change(&mut now);
            exited(&now).is_some()
        };
        assert!(gone(|now| now.running = false));
        assert!(gone(|now| now.restarting = true));
        assert!(gone(|now| now.restart_count = 1));
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
