//! The worker's one file, as `infra/host.yaml` writes it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tidegate_aws::host_side::HostConfig;
use tidegate_domain::id::{HostName, TenantId};

use crate::{policy::HostPolicy, work::Settings};

/// What the file says, key by key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub tenant: TenantId,
    /// This host's name, as registered.
    pub host: HostName,
    pub table: String,
    /// This host's queue.
    pub queue_url: String,
    pub reports_queue_url: String,
    /// Where AWS is; else as the SDK finds it.
    #[serde(default)]
    pub region: Option<String>,
    /// Docker's socket, as `DOCKER_HOST` writes it; else Docker's default.
    #[serde(default)]
    pub docker_host: Option<String>,
    /// The worker's own folder. It holds a lock, and nothing that matters.
    #[serde(default = "default_data")]
    pub data: PathBuf,
    #[serde(default = "default_jobs")]
    pub max_concurrent_jobs: usize,
    #[serde(default = "default_shutdown")]
    pub shutdown_seconds: u64,
    /// What a bind mount's source may be, or be below of.
    #[serde(default)]
    pub allowed_bind_mounts: Vec<PathBuf>,
    /// Less free disk than this fails a deployment before it begins.
    #[serde(default)]
    pub min_free_disk_bytes: u64,
    #[serde(default = "default_images")]
    pub keep_images: usize,
    /// Without any health check, a container that stays up so long counts as working.
    #[serde(default = "default_stable")]
    pub stable_seconds: u64,
    /// Before every container's name, for several workers on one engine.
    #[serde(default)]
    pub container_prefix: String,
}

fn default_data() -> PathBuf {
    PathBuf::from("/var/lib/tidegate-worker")
}

fn default_jobs() -> usize {
    4
}

fn default_shutdown() -> u64 {
    60
}

fn default_images() -> usize {
    3
}

fn default_stable() -> u64 {
    5
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {path} cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the configuration file {path} is not right")]
    Wrong {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
}

impl Config {
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Wrong { path: path.to_owned(), source: Box::new(source) })
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

    pub fn policy(&self) -> HostPolicy {
        HostPolicy {
            allowed_bind_mounts: self.allowed_bind_mounts.clone(),
            min_free_disk_bytes: self.min_free_disk_bytes,
            keep_images: self.keep_images,
            stable: Duration::from_secs(self.stable_seconds),
            container_prefix: self.container_prefix.clone(),
        }
    }

    pub fn settings(&self) -> Settings {
        Settings {
            max_concurrent_jobs: self.max_concurrent_jobs.max(1),
            shutdown: Duration::from_secs(self.shutdown_seconds),
            data: self.data.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str =
        "tenant = \"default\"\nhost = \"web-1\"\ntable = \"t\"\nqueue_url = \"q\"\nreports_queue_url = \"r\"\n";

    #[test]
    fn five_lines_are_a_configuration_and_a_misspelt_one_is_not() {
        let config: Config = toml::from_str(SMALLEST).unwrap();
        assert_eq!(config.settings().max_concurrent_jobs, 4);
        assert!(toml::from_str::<Config>(&format!("{SMALLEST}keep_image = 2\n")).is_err());
        assert!(toml::from_str::<Config>(&SMALLEST.replace("web-1", "Web_1")).is_err());
    }
}
