//! Registered hosts, and what their workers say of them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::id::{HostName, Revision, TenantId};

use crate::{
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
    pub labels: BTreeMap<String, String>,
    pub revision: Revision,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a worker said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    pub at: Timestamp,
    pub worker_version: String,
    /// Docker's version; none while Docker does not answer.
    pub engine_version: Option<String>,
}

impl Store {
    pub async fn hosts(&self, tenant: &TenantId) -> Result<Vec<RegisteredHost>> {
        let items = self.table.all(&keys::hosts(tenant), "").await?;
        items.into_iter().map(|item| record(item, "host")).collect()
    }

    pub async fn host(&self, tenant: &TenantId, name: &HostName) -> Result<RegisteredHost> {
        self.table.read(&keys::host(tenant, name), "host").await?.ok_or(StoreError::Missing)
    }

    /// By host, of those that have ever been heard of.
    pub async fn heartbeats(&self, tenant: &TenantId, hosts: &[HostName]) -> Result<BTreeMap<HostName, Heartbeat>> {
        let keys: Vec<Key> = hosts.iter().map(|host| keys::heartbeat(tenant, host)).collect();
        let by_pk: BTreeMap<&str, &HostName> = keys.iter().map(|k| k.pk.as_str()).zip(hosts).collect();
        let mut heartbeats = BTreeMap::new();
        for item in self.table.batch_get(&keys).await? {
            let host = item.get("pk").and_then(|v| v.as_s().ok()).and_then(|pk| by_pk.get(pk.as_str())).copied();
            if let Some(host) = host {
                heartbeats.insert(host.clone(), record(item, "heartbeat")?);
            }
        }
        Ok(heartbeats)
    }

    /// Registers a host, or changes a registered one that is still as `old`.
    pub async fn put_host(
        &self,
        tenant: &TenantId,
        old: Option<&RegisteredHost>,
        name: &HostName,
        labels: BTreeMap<String, String>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<RegisteredHost> {
        let new = RegisteredHost {
            name: name.clone(),
            labels,
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
