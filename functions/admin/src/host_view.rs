//! A host as answers show it: what is registered, what its worker says, and what is not as it should be.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::{
    application_state::ApplicationState,
    catalogue::Stored,
    error::Result,
    hosts::{HostSettings, RegisteredHost},
    registered::RegisteredApplication,
    store::Store,
};
use tidegate_domain::{
    host::{ContainerReport, Drift, HostFacts},
    id::{ApplicationId, HostName, TenantId},
};

use crate::{call::Stamps, watch::Watch};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    name: HostName,
    #[serde(flatten)]
    settings: HostSettings,
    online: bool,
    last_seen_at: Option<Timestamp>,
    worker_version: Option<String>,
    /// Null while Docker does not answer.
    engine_version: Option<String>,
    engine_api_version: Option<String>,
    facts: Option<HostFacts>,
    /// As last seen; null while Docker does not answer.
    containers: Option<Vec<ContainerReport>>,
    containers_left_out: usize,
    open_assignments: usize,
    /// Names of containers whose application does not choose this host, or does not exist.
    orphans: Vec<String>,
    drift: Vec<Drifting>,
    #[serde(flatten)]
    stamps: Stamps,
}

/// Fields of an answer that a request may send back and cannot change.
pub(crate) const READ_ONLY: &[&str] = &[
    "online",
    "lastSeenAt",
    "workerVersion",
    "engineVersion",
    "engineApiVersion",
    "facts",
    "containers",
    "containersLeftOut",
    "openAssignments",
    "orphans",
    "drift",
    "revision",
    "createdAt",
    "updatedAt",
];

/// An application that is not as it was left.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Drifting {
    application_id: ApplicationId,
    application_name: String,
    drift: Drift,
}

/// All that the views of some hosts are made of.
struct Around {
    watch: Watch,
    open: BTreeMap<HostName, usize>,
    applications: BTreeMap<ApplicationId, Stored<RegisteredApplication>>,
    states: BTreeMap<ApplicationId, ApplicationState>,
}

/// In the order of `hosts`.
pub(crate) async fn views(
    store: &Store,
    tenant: &TenantId,
    hosts: Vec<RegisteredHost>,
    now: Timestamp,
) -> Result<Vec<View>> {
    let names: Vec<_> = hosts.iter().map(|host| host.name.clone()).collect();
    let (heartbeats, open, applications) = tokio::try_join!(
        store.heartbeats(tenant, &names),
        store.open_counts(tenant, &names),
        store.every::<RegisteredApplication>(tenant),
    )?;
    let applications: BTreeMap<_, _> = applications.into_iter().map(|a| (ApplicationId(a.id), a)).collect();
    let ids: Vec<_> = applications.keys().copied().collect();
    let states = store.application_states(tenant, &ids).await?;
    let around = Around { watch: Watch::over(&hosts, heartbeats, now), open, applications, states };
    Ok(hosts.into_iter().map(|host| around.view(host)).collect())
}

impl Around {
    fn view(&self, host: RegisteredHost) -> View {
        let heartbeat = self.watch.heartbeat(&host.name);
        let containers = heartbeat.and_then(|said| said.containers.as_deref());
        View {
            online: self.watch.is_online(&host.name),
            last_seen_at: heartbeat.map(|said| said.at),
            worker_version: heartbeat.map(|said| said.worker_version.clone()),
            engine_version: heartbeat.and_then(|said| said.engine_version.clone()),
            engine_api_version: heartbeat.and_then(|said| said.engine_api_version.clone()),
            facts: heartbeat.and_then(|said| said.facts.clone()),
            containers: containers.map(<[_]>::to_vec),
            containers_left_out: heartbeat.map_or(0, |said| said.containers_left_out),
            open_assignments: self.open.get(&host.name).copied().unwrap_or(0),
            orphans: self.orphans(&host, containers.unwrap_or_default()),
            drift: self.drift(&host.name),
            stamps: Stamps::new(host.revision, host.created_at, host.updated_at),
            name: host.name,
            settings: host.settings,
        }
    }

    fn orphans(&self, host: &RegisteredHost, containers: &[ContainerReport]) -> Vec<String> {
        let belongs = |container: &&ContainerReport| {
            let application = self.applications.get(&container.application_id);
            application.is_some_and(|found| found.body.application.hosts.takes_in(host.candidate()))
        };
        containers.iter().filter(|container| !belongs(container)).map(|container| container.name.clone()).collect()
    }

    fn drift(&self, host: &HostName) -> Vec<Drifting> {
        let drifting = |(id, state): (&ApplicationId, &ApplicationState)| {
            let application = &self.applications.get(id)?.body.application;
            let drift = self.watch.standing(*id, application, state, host)?.drift?;
            Some(Drifting { application_id: *id, application_name: application.name.as_str().to_owned(), drift })
        };
        self.states.iter().filter_map(drifting).collect()
    }
}
