//! What the installation has already.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tidegate_domain::{
    application::{HostSelector, Port},
    id::{ApplicationId, HostName, ProjectId, RegistryId, SecretGroupId, SecretId},
    image::ImageName,
    import_v1::{
        Existing, ExistingApplication, ExistingHost, ExistingProject, ExistingRegistry, ExistingSecret,
        ExistingVariable, PlannedScope,
    },
    secret::Secret,
    variable::{Scope, ValueType},
};

use super::api::{Api, ApiError};

#[derive(Deserialize)]
struct Host {
    name: HostName,
    labels: BTreeMap<String, String>,
    drain: bool,
}

#[derive(Deserialize)]
struct Project {
    id: ProjectId,
    key: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registry {
    id: RegistryId,
    name: String,
    server: String,
    auth_type: String,
    username: Option<String>,
}

#[derive(Deserialize)]
struct Group {
    id: SecretGroupId,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSecret {
    id: SecretId,
    group_id: SecretGroupId,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Application {
    id: ApplicationId,
    name: String,
    project_id: ProjectId,
    image: ImageName,
    ports: Vec<Port>,
    hosts: HostSelector,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variable {
    key: String,
    value: String,
    value_type: ValueType,
    is_secret: bool,
    secret_id: Option<SecretId>,
}

/// Everything that could stand in the way. Variables only of these scopes: a tenant may have many.
pub(super) async fn around(api: &mut Api, scopes: &BTreeSet<PlannedScope>) -> Result<Existing, ApiError> {
    let hosts = api.every::<Host>("hosts").await?;
    let projects = api.every::<Project>("projects").await?;
    let registries = api.every::<Registry>("registries").await?;
    let groups = api.every::<Group>("secret-groups").await?;
    let secrets = api.every::<StoredSecret>("secrets").await?;
    let applications = api.every::<Application>("applications").await?;
    let mut existing = Existing {
        hosts: hosts.into_iter().map(|Host { name, labels, drain }| ExistingHost { name, labels, drain }).collect(),
        projects: projects.into_iter().map(|Project { id, key }| ExistingProject { id, key }).collect(),
        registries: registries.into_iter().map(registry).collect(),
        groups: groups.iter().map(|group| (group.name.clone(), group.id)).collect(),
        secrets: secrets.into_iter().filter_map(|secret| in_group(secret, &groups)).collect(),
        applications: applications.into_iter().map(application).collect(),
        variables: Vec::new(),
    };
    for scope in scopes {
        let Some((scope, query)) = place(scope, &existing) else { continue };
        let found = api.every::<Variable>(&format!("variables?{query}")).await?;
        existing.variables.extend(found.into_iter().map(|found| variable(scope, found)));
    }
    Ok(existing)
}

fn registry(found: Registry) -> ExistingRegistry {
    let Registry { id, name, server, auth_type, username } = found;
    ExistingRegistry { id, name, server, auth_type, username }
}

/// A secret of a group that was made since the groups were read cannot be in the way of one that was planned before.
fn in_group(secret: StoredSecret, groups: &[Group]) -> Option<ExistingSecret> {
    let group = groups.iter().find(|group| group.id == secret.group_id)?;
    Some(ExistingSecret { id: secret.id, group: group.name.clone(), name: secret.name })
}

fn application(found: Application) -> ExistingApplication {
    let Application { id, name, project_id, image, ports, hosts } = found;
    ExistingApplication { id, name, project: project_id, image, ports, hosts }
}

/// The scope as it is stored, and as a list's query says it; none if its owner is not there yet.
fn place(scope: &PlannedScope, existing: &Existing) -> Option<(Scope, String)> {
    match scope {
        PlannedScope::Global => Some((Scope::Global, "scope=global".to_owned())),
        PlannedScope::Project(key) => {
            let project = existing.projects.iter().find(|project| project.key == *key)?;
            Some((Scope::Project(project.id), format!("scope=project&projectId={}", project.id)))
        }
        PlannedScope::Application(name) => {
            let application = existing.applications.iter().find(|found| found.name == name.as_str())?;
            Some((Scope::Application(application.id), format!("scope=application&applicationId={}", application.id)))
        }
    }
}

fn variable(scope: Scope, found: Variable) -> ExistingVariable {
    let Variable { key, value, value_type, is_secret, secret_id } = found;
    ExistingVariable { scope, key, value: Secret::new(value), value_type, is_secret, secret: secret_id }
}
