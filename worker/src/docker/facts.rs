//! What the engine says of itself, of its machine, and of our containers, for a heartbeat.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use bollard::{
    models::{
        ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummaryStateEnum as Listed,
        HealthStatusEnum,
    },
    query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder},
};
use jiff::Timestamp;
use tidegate_domain::host::{ContainerState, Health, HostFacts};

use super::{Container, Engine, Error, QUICK, label, within};

/// Of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub engine: String,
    pub api: Option<String>,
}

/// What the engine runs on. Changes with nothing but a restart of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub os: Option<String>,
    pub kernel: Option<String>,
    pub architecture: Option<String>,
    pub cpus: Option<u64>,
    pub memory_bytes: Option<u64>,
    /// Where images and containers are kept; none if that is not this machine's.
    root: Option<PathBuf>,
}

/// Of the file system that images and containers are kept on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Disk {
    total_bytes: u64,
    free_bytes: u64,
}

/// A container of ours as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub state: ContainerState,
}

/// The same, looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    pub state: ContainerState,
    /// Of the last run, if it has ended.
    pub exit_code: Option<i64>,
    pub health: Option<Health>,
    pub restarts: u64,
    pub started_at: Option<Timestamp>,
}

impl Engine {
    pub async fn version(&self) -> Result<Version, Error> {
        let version = within(QUICK, self.docker.version()).await?;
        Ok(Version { engine: version.version.unwrap_or_default(), api: version.api_version })
    }

    pub async fn machine(&self) -> Result<Machine, Error> {
        let info = within(QUICK, self.docker.info()).await?;
        let amount = |number: Option<i64>| number.and_then(|n| u64::try_from(n).ok()).filter(|&n| n > 0);
        Ok(Machine {
            os: info.operating_system,
            kernel: info.kernel_version,
            architecture: info.architecture,
            cpus: amount(info.ncpu),
            memory_bytes: amount(info.mem_total),
            root: info.docker_root_dir.filter(|_| self.is_local).map(PathBuf::from),
        })
    }

    /// All containers with this host label, running or not.
    pub async fn ours(&self, host: &str) -> Result<Vec<Ours>, Error> {
        let filters = HashMap::from([("label", vec![format!("{}={host}", label::HOST)])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = within(QUICK, self.docker.list_containers(Some(options))).await?;
        let ours = listed.into_iter().map(|summary| {
            let state = summary.state.map_or(ContainerState::Dead, state_of_listed);
            let Container { id, name, labels, .. } = Container::from(summary);
            Ours { id, name, labels, state }
        });
        Ok(ours.collect())
    }

    /// None: it has gone meanwhile.
    pub async fn detail(&self, id: &str) -> Result<Option<Detail>, Error> {
        match within(QUICK, self.docker.inspect_container(id, None::<InspectContainerOptions>)).await {
            Ok(inspected) => Ok(Some(Detail::from(inspected))),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

impl Machine {
    /// With the disk as it is now, for which no engine is needed.
    pub fn facts(&self) -> HostFacts {
        let disk = self.root.as_deref().and_then(disk);
        HostFacts {
            os: self.os.clone(),
            kernel: self.kernel.clone(),
            architecture: self.architecture.clone(),
            cpus: self.cpus,
            memory_bytes: self.memory_bytes,
            disk_total_bytes: disk.map(|disk| disk.total_bytes),
            disk_free_bytes: disk.map(|disk| disk.free_bytes),
        }
    }
}

fn disk(root: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(root).ok()?;
    Some(Disk {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

impl From<ContainerInspectResponse> for Detail {
    fn from(inspected: ContainerInspectResponse) -> Self {
        let found = inspected.state.unwrap_or_default();
        let state = found.status.map_or(ContainerState::Dead, state_of_inspected);
        let has_ended = match state {
            ContainerState::Restarting | ContainerState::Exited | ContainerState::Dead => true,
            ContainerState::Created | ContainerState::Running | ContainerState::Paused => false,
        };
        // One that was never started has the year 1.
        let started_at = found.started_at.and_then(|at| at.parse::<Timestamp>().ok());
        Self {
            state,
            exit_code: found.exit_code.filter(|_| has_ended),
            // After the end it is only what was true before.
            health: found.health.and_then(|health| health.status).filter(|_| !has_ended).and_then(health_of),
            restarts: inspected.restart_count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
            started_at: started_at.filter(|at| *at > Timestamp::UNIX_EPOCH),
        }
    }
}

fn health_of(status: HealthStatusEnum) -> Option<Health> {
    match status {
        HealthStatusEnum::STARTING => Some(Health::Starting),
        HealthStatusEnum::HEALTHY => Some(Health::Healthy),
        HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
    }
}

fn state_of_listed(state: Listed) -> ContainerState {
    match state {
        Listed::CREATED => ContainerState::Created,
        Listed::RUNNING | Listed::STOPPING => ContainerState::Running,
        Listed::PAUSED => ContainerState::Paused,
        Listed::RESTARTING => ContainerState::Restarting,
        Listed::EXITED => ContainerState::Exited,
        Listed::DEAD | Listed::REMOVING | Listed::EMPTY => ContainerState::Dead,
    }
}

fn state_of_inspected(state: Status) -> ContainerState {
    match state {
        Status::CREATED => ContainerState::Created,
        Status::RUNNING | Status::STOPPING => ContainerState::Running,
        Status::PAUSED => ContainerState::Paused,
        Status::RESTARTING => ContainerState::Restarting,
        Status::EXITED => ContainerState::Exited,
        Status::DEAD | Status::REMOVING | Status::EMPTY => ContainerState::Dead,
    }
}
