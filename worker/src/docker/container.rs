//! Containers: what there is, and what is done to one.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use bollard::{
    container::LogOutput,
    exec::{StartExecOptions, StartExecResults},
    models::{
        ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum,
        ContainerUpdateBody, ExecConfig, HealthConfig, HealthStatusEnum, PortSummaryTypeEnum, RestartPolicy,
        RestartPolicyNameEnum,
    },
    query_parameters::{
        InspectContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, RestartContainerOptions, StartContainerOptions,
    },
};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tidegate_domain::application::{HealthCheck, Port, Probe, Protocol};

use super::{Engine, Error, QUICK, SLOW, within};

/// Labels of our containers. With the names they are all that recovery has to go by.
pub mod label {
    pub const APPLICATION: &str = "tidegate.application";
    pub const DEPLOYMENT: &str = "tidegate.deployment";
    pub const SEQUENCE: &str = "tidegate.sequence";
    pub const EPOCH: &str = "tidegate.epoch";
    /// `<tenant>/<host>`
    pub const HOST: &str = "tidegate.host";
    pub const TENANT: &str = "tidegate.tenant";
    /// What the container is for: `application`. Where it stands in a switch is told by its name, which can change.
    pub const ROLE: &str = "tidegate.role";
    /// The name it has, or gets by the commit.
    pub const NAME: &str = "tidegate.name";
    /// Of its image, as the registry knows it.
    pub const DIGEST: &str = "tidegate.digest";
    /// Of the image that ran before another one than [`DIGEST`]'s: a way back needs it.
    pub const FORMER_DIGEST: &str = "tidegate.former-digest";
    /// Until then at the latest its bake time lasts, and the version before is kept.
    pub const BAKES_UNTIL: &str = "tidegate.bakes-until";
    /// [`ALWAYS`], or not there: what Docker's own policy is again whenever the container is to run.
    pub const RESTART_POLICY: &str = "tidegate.restart-policy";
    pub const ALWAYS: &str = "always";
}

/// The longest that an application may have.
pub(crate) const LONGEST_GRACE: Duration = Duration::from_mins(10);
/// Kept of a probe's output, for the message that tells why it failed.
const PROBE_OUTPUT_BYTES: usize = 4 * 1024;

/// A container as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Or restarting, or paused: the engine does not take it for stopped.
    pub running: bool,
    pub image_id: String,
    pub published: Vec<Published>,
}

/// A port of the machine that a running container listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub ip: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

impl Published {
    pub fn overlaps(&self, port: &Port) -> bool {
        let own = Port { host: self.port, container: port.container, protocol: self.protocol, host_ip: self.ip };
        own.overlaps(port)
    }
}

/// One container, looked at closely.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, as the engine tells it")]
pub struct Inspected {
    /// And not waiting for Docker to restart it.
    pub running: bool,
    /// Of the last run, if it has ended.
    pub exit_code: Option<i64>,
    pub oom_killed: bool,
    pub restart_count: u64,
    /// Of the last run.
    pub started_at: Option<Timestamp>,
    /// Somebody has asked for its removal.
    pub is_being_removed: bool,
    /// Docker starts it with its own start, even if it was stopped on purpose.
    pub always: bool,
    /// The engine's verdict on the image's own health check, if it has one.
    pub healthy: Option<bool>,
    /// The image's own health check, as one of ours.
    pub image_check: Option<HealthCheck>,
    pub networks: Vec<Network>,
    pub image_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub name: String,
    pub address: IpAddr,
}

/// What becomes of volumes that only the container refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnnamedVolumes {
    Remove,
    /// They may hold what an application has written; whoever wants it finds it with `docker volume ls`.
    Keep,
}

impl Engine {
    /// All containers of the engine, running or not, whoever made them.
    pub async fn containers(&self) -> Result<Vec<Container>, Error> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let listed = within(QUICK, self.docker.list_containers(Some(options))).await?;
        Ok(listed.into_iter().map(Container::from).collect())
    }

    pub async fn inspect(&self, id: &str) -> Result<Inspected, Error> {
        within(QUICK, self.docker.inspect_container(id, None::<InspectContainerOptions>)).await.map(Inspected::from)
    }

    pub async fn rename(&self, id: &str, name: &str) -> Result<(), Error> {
        let options = RenameContainerOptionsBuilder::default().name(name).build();
        within(QUICK, self.docker.rename_container(id, options)).await
    }

    /// Does nothing to a container that runs.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        within(SLOW, self.docker.start_container(id, None::<StartContainerOptions>)).await
    }

    /// Starts it; one that runs is stopped first, within its own grace period. So is one that Docker is stopping already
    /// for somebody else.
    pub async fn restart(&self, id: &str) -> Result<(), Error> {
        within(LONGEST_GRACE + SLOW, self.docker.restart_container(id, None::<RestartContainerOptions>)).await
    }

    /// Whether Docker starts it with its own start although it was stopped on purpose. Nothing else of its policy changes.
    pub async fn start_with_docker(&self, id: &str, always: bool) -> Result<(), Error> {
        let name = if always { RestartPolicyNameEnum::ALWAYS } else { RestartPolicyNameEnum::UNLESS_STOPPED };
        let restart_policy = Some(RestartPolicy { name: Some(name), maximum_retry_count: None });
        let body = ContainerUpdateBody { restart_policy, ..ContainerUpdateBody::default() };
        within(QUICK, self.docker.update_container(id, body)).await
    }

    /// Kills it if it runs. Does nothing if there is none.
    pub async fn remove(&self, id: &str, unnamed_volumes: UnnamedVolumes) -> Result<(), Error> {
        let remove_volumes = matches!(unnamed_volumes, UnnamedVolumes::Remove);
        let options = RemoveContainerOptionsBuilder::default().force(true).v(remove_volumes).build();
        match within(SLOW, self.docker.remove_container(id, Some(options))).await {
            Err(error) if error.status() == Some(404) => Ok(()),
            other => other,
        }
    }

    /// Runs a command in the container and waits for its end: its exit code and the end of what it wrote. The caller sets
    /// the deadline; a command that outlives it goes on inside the container, as the engine has no call to end it.
    pub async fn exec(&self, id: &str, command: &[String]) -> Result<(i64, String), Error> {
        let config = ExecConfig {
            cmd: Some(command.to_vec()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let exec = within(QUICK, self.docker.create_exec(id, config)).await?.id;
        let started = within(QUICK, self.docker.start_exec(&exec, None::<StartExecOptions>)).await?;
        let mut written = Vec::new();
        if let StartExecResults::Attached { mut output, .. } = started {
            while let Some(chunk) = output.next().await {
                written.extend_from_slice(&chunk.map(LogOutput::into_bytes)?);
                let excess = written.len().saturating_sub(PROBE_OUTPUT_BYTES);
                written.drain(..excess);
            }
        }
        let ended = within(QUICK, self.docker.inspect_exec(&exec)).await?;
        Ok((ended.exit_code.unwrap_or(-1), String::from_utf8_lossy(&written).into_owned()))
    }
}

impl From<ContainerSummary> for Container {
    fn from(summary: ContainerSummary) -> Self {
        // A container has more names when others are linked to it; its own has no second slash.
        let names = summary.names.unwrap_or_default();
        let own = names.iter().filter_map(|name| name.strip_prefix('/')).find(|name| !name.contains('/'));
        let published = summary.ports.unwrap_or_default().into_iter().filter_map(|port| {
            let protocol = match port.typ? {
                PortSummaryTypeEnum::TCP => Protocol::Tcp,
                PortSummaryTypeEnum::UDP => Protocol::Udp,
                PortSummaryTypeEnum::SCTP | PortSummaryTypeEnum::EMPTY => return None,
            };
            Some(Published { ip: port.ip?.parse().ok()?, port: port.public_port?, protocol })
        });
        Self {
            name: own.unwrap_or_default().to_owned(),
            published: published.collect(),
            id: summary.id.unwrap_or_default(),
            labels: summary.labels.unwrap_or_default().into_iter().collect(),
            running: match summary.state {
                Some(
                    ContainerSummaryStateEnum::RUNNING
                    | ContainerSummaryStateEnum::RESTARTING
                    | ContainerSummaryStateEnum::PAUSED
                    | ContainerSummaryStateEnum::STOPPING,
                ) => true,
                Some(
                    ContainerSummaryStateEnum::EMPTY
                    | ContainerSummaryStateEnum::CREATED
                    | ContainerSummaryStateEnum::EXITED
                    | ContainerSummaryStateEnum::REMOVING
                    | ContainerSummaryStateEnum::DEAD,
                )
                | None => false,
            },
            image_id: summary.image_id.unwrap_or_default(),
        }
    }
}

impl From<ContainerInspectResponse> for Inspected {
    fn from(inspected: ContainerInspectResponse) -> Self {
        let state = inspected.state.unwrap_or_default();
        let running = state.running == Some(true);
        let restarting = state.restarting == Some(true);
        let policy = inspected.host_config.and_then(|config| config.restart_policy);
        let config = inspected.config.unwrap_or_default();
        let image_check = config.healthcheck.and_then(|check| own_check(check, config.shell));
        let networks = inspected.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let networks = networks.into_iter().filter_map(|(name, endpoint)| {
            // On the host's own network the container has no address but the machine's.
            let on_host = (name == "host").then_some(Ipv4Addr::LOCALHOST.into());
            Some(Network { address: on_host.or_else(|| endpoint.ip_address?.parse().ok())?, name })
        });
        Self {
            running: running && !restarting,
            exit_code: state.exit_code.filter(|_| restarting || !running),
            oom_killed: state.oom_killed == Some(true),
            restart_count: inspected.restart_count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
            started_at: state.started_at.and_then(|at| at.parse().ok()),
            is_being_removed: matches!(
                state.status,
                Some(ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD)
            ),
            always: policy.and_then(|policy| policy.name) == Some(RestartPolicyNameEnum::ALWAYS),
            healthy: match state.health.and_then(|health| health.status) {
                Some(HealthStatusEnum::HEALTHY) => Some(true),
                Some(HealthStatusEnum::UNHEALTHY) => Some(false),
                Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE | HealthStatusEnum::STARTING) | None => None,
            },
            image_check,
            networks: networks.collect(),
            image_id: inspected.image.unwrap_or_default(),
        }
    }
}

/// Docker's `HEALTHCHECK` with Docker's defaults. The worker runs it by itself too, because the engine's first probe
/// comes only after a whole interval.
pub(super) fn own_check(check: HealthConfig, shell: Option<Vec<String>>) -> Option<HealthCheck> {
    const DEFAULT_MS: u64 = 30_000;
    let mut test = check.test.unwrap_or_default().into_iter();
    let kind = test.next()?;
    let command: Vec<String> = match kind.as_str() {
        "CMD" => test.collect(),
        "CMD-SHELL" => {
            let shell = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
            shell.into_iter().chain(test).collect()
        }
        _ => return None,
    };
    let millis =
        |nanos: Option<i64>| nanos.and_then(|n| u64::try_from(n).ok()).map(|n| n / 1_000_000).filter(|&n| n > 0);
    let interval_ms = millis(check.interval).unwrap_or(DEFAULT_MS);
    let timeout_ms = millis(check.timeout).unwrap_or(DEFAULT_MS);
    let start_period_ms = millis(check.start_period).unwrap_or(0);
    let retries = check.retries.and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0).unwrap_or(3);
    // The engine has given its own verdict by then.
    let deadline_ms = start_period_ms + (interval_ms + timeout_ms) * u64::from(retries + 1);
    let probe = Probe::Command { command };
    Some(HealthCheck { probe, interval_ms, timeout_ms, retries, start_period_ms, deadline_ms })
}
