//! An environment as answers show it: the seed's fields, and some more.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::{
    catalogue::Stored,
    environments::Environment,
    error::StoreError,
    registered::Project,
    store::Store,
    variables::{StoredValue, StoredVariable},
};
use tidegate_domain::{
    id::{EnvironmentId, ProjectId, TenantId},
    secret::MASK,
};

use crate::call::Stamps;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    env_id: EnvironmentId,
    /// The project's key.
    project_id: String,
    name: String,
    description: String,
    is_active: bool,
    requires_approval: bool,
    variables: BTreeMap<String, String>,
    /// Only of a deleted one; until when it can be restored as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restorable_until: Option<Timestamp>,
    #[serde(flatten)]
    stamps: Stamps,
}

/// A variable's value as everybody may see it.
pub(crate) fn shown(variable: &StoredVariable) -> Cow<'_, str> {
    match &variable.value {
        StoredValue::Plain { text } => text.into(),
        StoredValue::Secret { .. } => MASK.into(),
        StoredValue::Reference { secret_id } => StoredVariable::reference(*secret_id).into(),
    }
}

pub(crate) fn view(stored: &Stored<Environment>, project_key: &str, is_active: bool) -> View {
    let body = &stored.body;
    View {
        env_id: EnvironmentId(stored.id),
        project_id: project_key.to_owned(),
        name: body.name.clone(),
        description: body.description.clone(),
        is_active,
        requires_approval: body.requires_approval,
        variables: body.variables.iter().map(|v| (v.key.as_str().to_owned(), shown(v).into_owned())).collect(),
        deleted_at: body.deleted_at,
        restorable_until: body.restorable_until(),
        stamps: Stamps::from(stored),
    }
}

/// Keys of projects, for the views of their environments.
pub(crate) struct ProjectKeys(BTreeMap<u64, String>);

impl ProjectKeys {
    pub(crate) async fn of(
        store: &Store,
        tenant: &TenantId,
        environments: &[Stored<Environment>],
    ) -> Result<Self, StoreError> {
        let ids: Vec<u64> = environments.iter().map(|environment| environment.body.project_id.0).collect();
        let projects = store.find_many::<Project>(tenant, &ids).await?;
        Ok(Self(projects.into_iter().map(|project| (project.id, project.body.key)).collect()))
    }

    /// Of a deleted environment the project may be gone; then its id stands in its place.
    pub(crate) fn key(&self, project: ProjectId) -> String {
        self.0.get(&project.0).cloned().unwrap_or_else(|| project.to_string())
    }
}

/// As it is now, with whether it is active.
pub(crate) async fn current(
    store: &Store,
    tenant: &TenantId,
    stored: &Stored<Environment>,
) -> Result<View, StoreError> {
    let project = stored.body.project_id;
    let (keys, active) = tokio::try_join!(
        ProjectKeys::of(store, tenant, std::slice::from_ref(stored)),
        store.active_environment(tenant, project),
    )?;
    Ok(view(stored, &keys.key(project), active == Some(EnvironmentId(stored.id))))
}
