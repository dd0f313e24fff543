//! Reading environments: one, the active one, lists.

use std::collections::{BTreeMap, HashMap};

use tidegate_domain::id::{EnvironmentId, ProjectId, TenantId};

use super::{Environment, Pointer};
use crate::{
    catalogue::{Listed, PageRequest, Stored, id_of},
    error::{Result, StoreError},
    keys::{self, Key, Kind},
    store::Store,
    table::{PageQuery, record, sort_key},
    variables::StoredVariable,
};

/// A reader who sees a pointer and its environment change between his calls looks again, so often.
const LOOKS: u32 = 8;
/// A page ends early rather than be larger than an answer may be: a function's has at most 6 MB.
const PAGE_BYTES: usize = 1024 * 1024;

impl Store {
    pub async fn environment(&self, tenant: &TenantId, id: EnvironmentId) -> Result<Stored<Environment>> {
        self.find(tenant, id.0).await
    }

    /// One that can be restored, or is about to be purged.
    pub async fn deleted_environment(&self, tenant: &TenantId, id: EnvironmentId) -> Result<Stored<Environment>> {
        self.environment_of_kind(tenant, Kind::DeletedEnvironment, id).await?.ok_or(StoreError::Missing)
    }

    pub(super) async fn environment_of_kind(
        &self,
        tenant: &TenantId,
        kind: Kind,
        id: EnvironmentId,
    ) -> Result<Option<Stored<Environment>>> {
        self.table.read(&keys::thing(tenant, kind, id.0), kind.noun()).await
    }

    /// The active environment of a project; none is active at the start.
    pub async fn active_environment(&self, tenant: &TenantId, project: ProjectId) -> Result<Option<EnvironmentId>> {
        let pointer: Option<Pointer> =
            self.table.read(&keys::active_environment(tenant, project), "active environment").await?;
        Ok(pointer.map(|pointer| EnvironmentId(pointer.env_id)))
    }

    /// The environment that deployments of a project get: the one that the application is pinned to, else the active one.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the pin is gone: it has changed since it was read.
    pub async fn environment_in_effect(
        &self,
        tenant: &TenantId,
        project: ProjectId,
        pinned: Option<EnvironmentId>,
    ) -> Result<Option<Stored<Environment>>> {
        if let Some(id) = pinned {
            let found = self.environment_of_kind(tenant, Kind::Environment, id).await?;
            return found.map(Some).ok_or(StoreError::Conflict);
        }
        for _ in 0..LOOKS {
            let Some(id) = self.active_environment(tenant, project).await? else { return Ok(None) };
            // Not there: another one was activated, and this one deleted, since the pointer was read.
            if let Some(found) = self.environment_of_kind(tenant, Kind::Environment, id).await? {
                return Ok(Some(found));
            }
        }
        Err(StoreError::Busy)
    }

    /// The active environments of those of the projects that have one.
    pub async fn active_environments(
        &self,
        tenant: &TenantId,
        projects: &[ProjectId],
    ) -> Result<BTreeMap<ProjectId, EnvironmentId>> {
        let by_pk: BTreeMap<String, ProjectId> =
            projects.iter().map(|id| (keys::active_environment(tenant, *id).pk, *id)).collect();
        let keys: Vec<Key> = by_pk.values().map(|id| keys::active_environment(tenant, *id)).collect();
        let mut active = BTreeMap::new();
        for item in self.table.batch_get(&keys).await? {
            let project = item.get("pk").and_then(|v| v.as_s().ok()).and_then(|pk| by_pk.get(pk)).copied();
            let pointer: Pointer = record(item, "active environment")?;
            active.extend(project.map(|project| (project, EnvironmentId(pointer.env_id))));
        }
        Ok(active)
    }

    /// A page of a project's environments by name, or of the tenant's by id, with the active one of each project.
    ///
    /// A reader sees exactly one active if there was one: whoever reads the list, then the pointer, may find that it points
    /// to what was created or restored in between, and then reads the list again.
    pub async fn list_environments(
        &self,
        tenant: &TenantId,
        project: Option<ProjectId>,
        page: &PageRequest,
    ) -> Result<(Listed<Stored<Environment>>, BTreeMap<ProjectId, EnvironmentId>)> {
        for _ in 0..LOOKS {
            let listed = match project {
                Some(project) => {
                    self.environments_below(tenant, Kind::Environment, &keys::environment_scope(project), page).await?
                }
                None => self.list(tenant, page).await?,
            };
            let mut projects: Vec<_> = listed.data.iter().map(|found| found.body.project_id).chain(project).collect();
            projects.sort_unstable();
            projects.dedup();
            let active = self.active_environments(tenant, &projects).await?;
            let is_whole = page.cursor.is_none() && listed.next_cursor.is_none();
            let is_listed = |id: &EnvironmentId| listed.data.iter().any(|found| found.id == id.0);
            if !is_whole || active.values().all(is_listed) {
                return Ok((listed, active));
            }
        }
        Err(StoreError::Busy)
    }

    /// Those of a project, or of the tenant, that are deleted and not purged yet, by id.
    pub async fn list_deleted_environments(
        &self,
        tenant: &TenantId,
        project: Option<ProjectId>,
        page: &PageRequest,
    ) -> Result<Listed<Stored<Environment>>> {
        if let Some(project) = project {
            let scope = keys::deleted_environment_scope(project);
            return self.environments_below(tenant, Kind::DeletedEnvironment, &scope, page).await;
        }
        let list = keys::catalogue(tenant, Kind::DeletedEnvironment);
        let after = self.read_cursor(tenant, &list, page.cursor.as_deref()).await?;
        let query = PageQuery { after: after.as_deref(), limit: Some(page.limit), ..PageQuery::default() };
        let found = self.table.page(&list, &query).await?;
        let data = found.items.into_iter().map(|item| record(item, "deleted environment")).collect::<Result<_>>()?;
        Ok(Listed { data, next_cursor: self.write_cursor(tenant, &list, found.next).await? })
    }

    /// A page of a list of names, and what they name: two calls, whatever the page.
    async fn environments_below(
        &self,
        tenant: &TenantId,
        kind: Kind,
        scope: &str,
        page: &PageRequest,
    ) -> Result<Listed<Stored<Environment>>> {
        let list = keys::unique_name(tenant, scope, "").pk;
        let after = self.read_cursor(tenant, &list, page.cursor.as_deref()).await?;
        let query = PageQuery { after: after.as_deref(), limit: Some(page.limit), ..PageQuery::default() };
        let names = self.table.page(&list, &query).await?;
        let ids: Vec<u64> = names.items.iter().filter_map(id_of).collect();
        let mut next = names.next;
        let keys: Vec<Key> = ids.iter().map(|id| keys::thing(tenant, kind, *id)).collect();
        let mut found = HashMap::new();
        for item in self.table.batch_get(&keys).await? {
            let stored: Stored<Environment> = record(item, kind.noun())?;
            found.insert(stored.id, stored);
        }
        let (mut data, mut bytes) = (Vec::new(), 0);
        for item in &names.items {
            // One that is gone since its name was read is not there.
            let Some(stored) = id_of(item).and_then(|id| found.remove(&id)) else { continue };
            bytes += stored.body.variables.iter().map(StoredVariable::size_bytes).sum::<usize>();
            data.push(stored);
            if bytes >= PAGE_BYTES && names.items.last() != Some(item) {
                next = sort_key(item).map(str::to_owned);
                break;
            }
        }
        Ok(Listed { data, next_cursor: self.write_cursor(tenant, &list, next).await? })
    }
}
