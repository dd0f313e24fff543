//! Cursors of lists: opaque, and useless for another list or tenant.

use tidegate_domain::id::TenantId;

use crate::{
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    store::Store,
};

impl Store {
    /// A cursor is the last sort key of a page, sealed: bound to its list and tenant, so that a changed one is noticed.
    pub(crate) async fn write_cursor(
        &self,
        tenant: &TenantId,
        list: &str,
        sort_key: Option<String>,
    ) -> Result<Option<String>> {
        let Some(sort_key) = sort_key else { return Ok(None) };
        let place = Place { kind: "cursor", id: list, version: 1 };
        Ok(Some(self.seal(tenant, Purpose::Replay, place, sort_key.as_bytes()).await?))
    }

    pub(crate) async fn read_cursor(
        &self,
        tenant: &TenantId,
        list: &str,
        cursor: Option<&str>,
    ) -> Result<Option<String>> {
        let Some(cursor) = cursor else { return Ok(None) };
        let place = Place { kind: "cursor", id: list, version: 1 };
        match self.sealer.open_text(&self.table, tenant, Purpose::Replay, place, cursor).await {
            Ok(sort_key) => Ok(Some(sort_key.expose().clone())),
            Err(StoreError::Corrupt { .. }) => Err(StoreError::BadCursor),
            Err(other) => Err(other),
        }
    }
}
