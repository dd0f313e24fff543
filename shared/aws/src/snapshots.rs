//! Snapshots: a deployment's work order as it was resolved at its admission, sealed under the functions' own key. Every
//! host's assignment is made from it, and a rollback returns to it.

use serde::Deserialize;
use tidegate_domain::{
    id::{DeploymentId, TenantId},
    job::Job,
};
use zeroize::Zeroizing;

use crate::{
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    keys,
    store::Store,
    table::item,
    write::{Write, delete, put},
};

impl Store {
    pub(crate) async fn snapshot_write<L>(&self, label: L, tenant: &TenantId, job: &Job) -> Result<Write<L>> {
        let plain = serde_json::to_vec(job).map_err(|e| StoreError::Corrupt { what: "job", source: e.into() })?;
        let plain = Zeroizing::new(plain);
        let id = job.deployment_id.to_string();
        let place = Place { kind: "snapshot", id: &id, version: 1 };
        let sealed = self.seal(tenant, Purpose::Snapshot, place, &plain).await?;
        let item = item(&keys::snapshot(tenant, job.deployment_id), &serde_json::json!({ "sealed": sealed }))?;
        Ok(put(label, item, &self.table, None))
    }

    /// # Errors
    /// [`StoreError::Corrupt`] also if there is none.
    pub async fn open_snapshot(&self, tenant: &TenantId, id: DeploymentId) -> Result<Job> {
        self.find_snapshot(tenant, id).await?.ok_or_else(|| StoreError::unreadable("snapshot", "it is gone"))
    }

    /// None if it is not kept, or not any more.
    pub async fn find_snapshot(&self, tenant: &TenantId, id: DeploymentId) -> Result<Option<Job>> {
        #[derive(Deserialize)]
        struct Record {
            sealed: String,
        }
        let found: Option<Record> = self.table.read(&keys::snapshot(tenant, id), "snapshot").await?;
        let Some(Record { sealed }) = found else { return Ok(None) };
        let id = id.to_string();
        let place = Place { kind: "snapshot", id: &id, version: 1 };
        let plain = self.sealer.open(&self.table, tenant, Purpose::Snapshot, place, &sealed).await?;
        let job = serde_json::from_slice(plain.expose());
        job.map(Some).map_err(|e| StoreError::Corrupt { what: "job", source: e.into() })
    }

    pub(crate) fn snapshot_removal<L>(&self, label: L, tenant: &TenantId, id: DeploymentId) -> Write<L> {
        delete(label, &keys::snapshot(tenant, id), &self.table, None)
    }
}
