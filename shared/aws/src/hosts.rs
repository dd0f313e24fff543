//! Registered hosts, and what their workers say of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    application::Application,
    host::{self, Candidate, ContainerReport, Expected, HostFacts, Known, Sight, Standing},
    id::{ApplicationId, HostName, Revision, TenantId},
};

use crate::{
    application_state::ApplicationState,
    audit::{self, AuditEvent},
    catalogue::{Part, explain},
    error::{Result, StoreError},
    keys::{self, Key},
    store::Store,
    table::{Cancelled, item, record, sort_key},
    write::{Expression, delete, put},
};

/// A machine that deployments may go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredHost {
    pub name: HostName,
    #[serde(flatten)]
    pub settings: HostSettings,
    pub revision: Revision,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What an administrator says of a machine.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSettings {
    pub labels: BTreeMap<String, String>,
    /// It gets no new deployments; what runs there stays.
    #[serde(default)]
    pub drain: bool,
}

impl RegisteredHost {
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate { name: &self.name, labels: &self.settings.labels, drain: self.settings.drain }
    }
}

/// What a worker said last. Fields that an older worker does not send are empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// By the host's clock, before the worker looked at anything.
    pub at: Timestamp,
    pub worker_version: String,
    /// Docker's version; none while Docker does not answer.
    pub engine_version: Option<String>,
    #[serde(default)]
    pub engine_api_version: Option<String>,
    /// As last known, if Docker does not answer; none if it has not yet since the worker started.
    #[serde(default)]
    pub facts: Option<HostFacts>,
    /// Ours; none while Docker does not answer.
    #[serde(default)]
    pub containers: Option<Vec<ContainerReport>>,
    /// So many more there are, for which there was no room.
    #[serde(default)]
    pub containers_left_out: usize,
}

impl Heartbeat {
    fn sight(&self) -> Sight<'_> {
        Sight { at: self.at, containers: self.containers.as_deref(), cut: self.containers_left_out > 0 }
    }
}

/// A host, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct HostSight<'a> {
    pub name: &'a HostName,
    /// None: it is registered no more.
    pub registered: Option<&'a RegisteredHost>,
    pub heartbeat: Option<&'a Heartbeat>,
}

/// How an application stands on a host; none if nothing was left there and nothing is seen.
pub fn standing(
    id: ApplicationId,
    application: &Application,
    state: &ApplicationState,
    host: HostSight<'_>,
    now: Timestamp,
) -> Option<Standing> {
    let left = state.hosts.get(host.name);
    let known = Known {
        application: id,
        expected: left.map(|left| Expected {
            release: left.runs.release,
            digest: &left.runs.digest,
            stopped: left.stopped,
        }),
        chosen: host.registered.is_some_and(|host| application.hosts.takes_in(host.candidate())),
        changing: state.active.is_some(),
        worked_at: left.map(|left| left.at).or_else(|| state.left.get(host.name).copied()),
    };
    host::standing(&known, host.heartbeat.map(Heartbeat::sight).as_ref(), now)
}

impl Store {
    pub async fn hosts(&self, tenant: &TenantId) -> Result<Vec<RegisteredHost>> {
        let items = self.table.all(&keys::hosts(tenant), "").await?;
        items.into_iter().map(|item| record(item, "host")).collect()
    }

    pub async fn host(&self, tenant: &TenantId, name: &HostName) -> Result<RegisteredHost> {
        self.table.read(&keys::host(tenant, name), "host").await?.ok_or(StoreError::Missing)
    }

    /// By host, of those that have ever been heard of. One that cannot be read is logged and left out: what one host has
    /// written must not hide the others.
    pub async fn heartbeats(&self, tenant: &TenantId, hosts: &[HostName]) -> Result<BTreeMap<HostName, Heartbeat>> {
        let keys: Vec<Key> = hosts.iter().map(|host| keys::heartbeat(tenant, host)).collect();
        let by_pk: BTreeMap<&str, &HostName> = keys.iter().map(|k| k.pk.as_str()).zip(hosts).collect();
        let mut heartbeats = BTreeMap::new();
        for item in self.table.batch_get(&keys).await? {
            let host = item.get("pk").and_then(|v| v.as_s().ok()).and_then(|pk| by_pk.get(pk.as_str())).copied();
            let Some(host) = host else { continue };
            match record(item, "heartbeat") {
                Ok(heartbeat) => {
                    heartbeats.insert(host.clone(), heartbeat);
                }
                Err(error) => {
                    tracing::warn!(host.name = %host, error = &error as &dyn std::error::Error, "a heartbeat cannot be read");
                }
            }
        }
        Ok(heartbeats)
    }

    /// How many assignments each host has that are not folded.
    pub async fn open_counts(&self, tenant: &TenantId, hosts: &[HostName]) -> Result<BTreeMap<HostName, usize>> {
        let counts = hosts.iter().map(async |host| {
            let open = self.table.count(&keys::host_partition(tenant, host), keys::ASSIGNMENTS).await?;
            Ok::<_, StoreError>((host.clone(), open))
        });
        Ok(futures_util::future::try_join_all(counts).await?.into_iter().collect())
    }

    /// Registers a host, or changes a registered one that is still as `old`.
    pub async fn put_host(
        &self,
        tenant: &TenantId,
        old: Option<&RegisteredHost>,
        name: &HostName,
        settings: HostSettings,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<RegisteredHost> {
        let new = RegisteredHost {
            name: name.clone(),
            settings,
            revision: Revision(old.map_or(1, |o| o.revision.0 + 1)),
            created_at: old.map_or(now, |o| o.created_at),
            updated_at: now,
        };
        let condition = old.map_or_else(Expression::absent, |o| Expression::revision(o.revision.0));
        let writes = vec![
            put(Part::Thing, item(&keys::host(tenant, name), &new)?, &self.table, Some(condition)),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        self.table.transact(writes).await.map_err(explain)?;
        Ok(new)
    }

    /// Forgets a host that has no work.
    ///
    /// # Errors
    /// [`StoreError::InUse`] naming the deployments that it has not ended.
    pub async fn delete_host(
        &self,
        tenant: &TenantId,
        old: &RegisteredHost,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        let open = self.table.all(&keys::host_partition(tenant, &old.name), keys::ASSIGNMENTS).await?;
        if !open.is_empty() {
            let of = |sk: &str| format!("deployment {}", sk.trim_start_matches(keys::ASSIGNMENTS));
            return Err(StoreError::InUse { by: open.iter().filter_map(sort_key).map(of).collect() });
        }
        let writes = vec![
            delete(
                Part::Thing,
                &keys::host(tenant, &old.name),
                &self.table,
                Some(Expression::revision(old.revision.0)),
            ),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        match self.table.transact(writes).await {
            Err(Cancelled::Conditions(_)) => Err(StoreError::Conflict),
            other => other.map_err(explain),
        }
    }
}
