//! A project's named sets of variables, and which of them is active.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::id::{EnvironmentId, ProjectId, TenantId};

use crate::{
    catalogue::{Reference, Resource, Stored},
    error::Result,
    keys::{self, Kind},
    store::Store,
};

/// Its variables are stored under `Scope::Environment`. Which one is active stands in one pointer of the project, not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    pub project_id: ProjectId,
    /// Unique in its project, among those that are not deleted.
    pub name: String,
    pub description: String,
    /// Every deployment with it waits for somebody's decision.
    pub requires_approval: bool,
    /// It can be restored for 30 days from then.
    pub deleted_at: Option<Timestamp>,
}

impl Resource for Environment {
    const KIND: Kind = Kind::Environment;
    const NAME_FIELD: &'static str = "name";

    fn unique_name(&self) -> &str {
        &self.name
    }

    fn name_scope(&self) -> String {
        keys::environment_scope(self.project_id)
    }

    fn references(&self) -> Vec<Reference> {
        vec![Reference { kind: Kind::Project, id: self.project_id.0, field: "projectId" }]
    }
}

/// What a project's pointer holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pointer {
    env_id: EnvironmentId,
}

impl Store {
    pub async fn environment(&self, tenant: &TenantId, id: EnvironmentId) -> Result<Stored<Environment>> {
        self.find(tenant, id.0).await
    }

    /// The active environment of a project; none is active at the start.
    pub async fn active_environment(&self, tenant: &TenantId, project: ProjectId) -> Result<Option<EnvironmentId>> {
        let pointer: Option<Pointer> =
            self.table.read(&keys::active_environment(tenant, project), "active environment").await?;
        Ok(pointer.map(|pointer| pointer.env_id))
    }
}
