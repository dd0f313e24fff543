//! The worker's configuration: one file, as `infra/host.yaml` writes it, and the environment, which goes over it key by key.
//!
//! All that is wrong is told at once, each fault with its key, where the value came from, and how to mend it.

mod fault;
mod key;
mod reader;

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use tidegate_aws::{env, host_side::HostConfig};
use tidegate_domain::{
    container::Capability,
    id::{HostName, TenantId},
    invalid::Invalid,
};

pub use fault::{Fault, Faults, Origin};
pub(crate) use key::template;
use reader::Reader;

use crate::{policy::HostPolicy, work::Settings};

/// Where the file is, unless somebody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/tidegate/worker.toml";
/// Where the worker keeps its lock, unless somebody says otherwise.
pub(crate) const DEFAULT_DATA: &str = "/var/lib/tidegate-worker";

/// What is configured, key by key.
#[derive(Debug, Clone)]
pub struct Config {
    pub tenant: TenantId,
    /// This host's name, as registered.
    pub host: HostName,
    pub table: String,
    /// This host's queue.
    pub queue_url: String,
    pub reports_queue_url: String,
    /// Where AWS is; else as the SDK finds it.
    pub region: Option<String>,
    /// Docker's socket, as `DOCKER_HOST` writes it; else Docker's default.
    pub docker_host: Option<String>,
    /// The worker's own folder. It holds a lock, and nothing that matters.
    pub data: PathBuf,
    pub max_concurrent_jobs: usize,
    pub shutdown: Duration,
    /// Where metrics and `/healthz` are served: only loopback addresses.
    pub metrics_listen: Option<SocketAddr>,
    pub policy: HostPolicy,
}

impl Config {
    /// From the file and the process's environment. `named`: a file that somebody has named, which then must be there; the
    /// usual one may be absent, if the environment says all.
    pub fn read(named: Option<&Path>) -> Result<Self, Faults> {
        let path = named.unwrap_or(Path::new(DEFAULT_PATH));
        // To open a FIFO is to wait for somebody to write into it.
        let text = fs::metadata(path).and_then(|found| found.is_file().then(|| fs::read_to_string(path)).transpose());
        let (file, unreadable) = match text {
            Ok(Some(text)) => (Some(text), None),
            Ok(None) => (None, Some(Fault::no_file(path))),
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => (None, None),
            Err(error) => (None, Some(Fault::unreadable(path, &error))),
        };
        Self::of(path, file.as_deref(), unreadable, environment())
    }

    /// `unreadable`: the file is there, or ought to be; what it may hold is then not called missing.
    fn of(
        path: &Path,
        file: Option<&str>,
        unreadable: Option<Fault>,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, Faults> {
        let mut reader = Reader::new(path, file, unreadable, environment);
        let tenant = reader.required("tenant", TenantId::parse);
        let host = reader.required("host", HostName::parse);
        let table = reader.required("table", word);
        let queue_url = reader.required("queue_url", url);
        let reports_queue_url = reader.required("reports_queue_url", url);
        let region = reader.text("region", word);
        let docker_host = reader.text("docker_host", docker_host);
        let data = reader.text("data", plain_path).unwrap_or_else(|| PathBuf::from(DEFAULT_DATA));
        let max_concurrent_jobs = reader.integer("max_concurrent_jobs", 1..=64).unwrap_or(4);
        let shutdown_seconds = reader.integer("shutdown_seconds", 1..=300).unwrap_or(60);
        let metrics_listen = reader.text("metrics_listen", loopback);
        let usual = HostPolicy::default();
        let policy = HostPolicy {
            allowed_bind_mounts: reader.list("allowed_bind_mounts", plain_path).unwrap_or(usual.allowed_bind_mounts),
            allow_privileged: reader.boolean("allow_privileged").unwrap_or(usual.allow_privileged),
            allow_host_network: reader.boolean("allow_host_network").unwrap_or(usual.allow_host_network),
            allow_docker_socket: reader.boolean("allow_docker_socket").unwrap_or(usual.allow_docker_socket),
            allowed_capabilities: reader
                .list("allowed_capabilities", Capability::parse)
                .unwrap_or(usual.allowed_capabilities),
            allowed_log_drivers: reader.list("allowed_log_drivers", log_driver).unwrap_or(usual.allowed_log_drivers),
            min_free_disk_bytes: reader
                .integer("min_free_disk_bytes", 0..=i64::MAX.unsigned_abs())
                .unwrap_or(usual.min_free_disk_bytes),
            keep_images: reader.integer("keep_images", 0..=100).map_or(usual.keep_images, as_count),
            stable: reader.integer("stable_seconds", 1..=600).map_or(usual.stable, Duration::from_secs),
            container_prefix: reader.text("container_prefix", container_prefix).unwrap_or(usual.container_prefix),
        };
        let faults = reader.finish();
        match (tenant, host, table, queue_url, reports_queue_url) {
            (Some(tenant), Some(host), Some(table), Some(queue_url), Some(reports_queue_url))
                if faults.0.is_empty() =>
            {
                Ok(Self {
                    tenant,
                    host,
                    table,
                    queue_url,
                    reports_queue_url,
                    region,
                    docker_host,
                    data,
                    max_concurrent_jobs: as_count(max_concurrent_jobs),
                    shutdown: Duration::from_secs(shutdown_seconds),
                    metrics_listen,
                    policy,
                })
            }
            _ => Err(faults),
        }
    }

    pub fn host_config(&self) -> HostConfig {
        HostConfig {
            tenant: self.tenant.clone(),
            host: self.host.clone(),
            table: self.table.clone(),
            queue_url: self.queue_url.clone(),
            reports_queue_url: self.reports_queue_url.clone(),
        }
    }

    pub fn settings(&self) -> Settings {
        Settings { max_concurrent_jobs: self.max_concurrent_jobs, shutdown: self.shutdown, data: self.data.clone() }
    }
}

/// All of the process's that may be meant for the worker.
fn environment() -> BTreeMap<String, String> {
    let all = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        // What is not text becomes a value that no parser takes.
        (name.starts_with(env::WORKER) && name != env::WORKER_CONFIG)
            .then(|| (name, value.to_string_lossy().into_owned()))
    });
    all.collect()
}

/// Bounded by the range that it was read with.
fn as_count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn word(text: &str) -> Result<String, Invalid> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain && !text.is_empty() {
        return Ok(text.to_owned());
    }
    Err(Invalid::new(
        "bad-value",
        "not a plain name",
        "write letters, digits, `-`, `_` and `.`, as the outputs of AWS do",
    ))
}

fn url(text: &str) -> Result<String, Invalid> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let has_host = rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['));
    if has_host && text.chars().all(|c| c.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    let mend = "write it as SQS tells it: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME";
    Err(Invalid::new("bad-value", "not the URL of a queue", mend))
}

fn docker_host(text: &str) -> Result<String, Invalid> {
    let rest = text.strip_prefix("unix://").or_else(|| text.strip_prefix("tcp://"));
    if rest.is_some_and(|rest| !rest.is_empty()) {
        return Ok(text.to_owned());
    }
    let mend = "write unix:///run/docker.sock or tcp://127.0.0.1:2375";
    Err(Invalid::new("bad-value", "not an address that Docker is reached under", mend))
}

fn plain_path(text: &str) -> Result<PathBuf, Invalid> {
    let path = Path::new(text);
    if path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))) {
        return Ok(path.to_owned());
    }
    Err(Invalid::new("bad-value", "not an absolute path", "write it from / on, without . and .."))
}

fn loopback(text: &str) -> Result<SocketAddr, Invalid> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err(Invalid::new(
            "not-loopback",
            "other machines could reach it, and nobody there is asked who they are",
            "write 127.0.0.1:9464, and let what collects metrics run on this host or reach it by a tunnel",
        )),
        Err(_) => Err(Invalid::new("bad-value", "not an address with a port", "write 127.0.0.1:9464")),
    }
}

fn log_driver(text: &str) -> Result<String, Invalid> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:".contains(c));
    if plain && !text.is_empty() && !text.eq_ignore_ascii_case("all") {
        return Ok(text.to_owned());
    }
    Err(Invalid::new("bad-value", "not a log driver's name", "name each one as Docker does: json-file, syslog"))
}

fn container_prefix(text: &str) -> Result<String, Invalid> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= 40 {
        return Ok(text.to_owned());
    }
    let mend = "write up to 40 letters, digits, `-`, `_` and `.`, a letter or digit first";
    Err(Invalid::new("bad-value", "not what a container's name may begin with", mend))
}

#[cfg(test)]
mod tests;
