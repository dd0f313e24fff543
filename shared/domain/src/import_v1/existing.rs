//! What the installation has already, as far as it matters here.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    application::{HostSelector, Port},
    host::Candidate,
    id::{ApplicationId, HostName, ProjectId, RegistryId, SecretGroupId, SecretId},
    image::ImageName,
    secret::Secret,
    variable::{Scope, ValueType},
};

#[derive(Debug, Default)]
pub struct Existing {
    pub hosts: Vec<ExistingHost>,
    pub projects: Vec<ExistingProject>,
    pub registries: Vec<ExistingRegistry>,
    /// The secret groups by name.
    pub groups: BTreeMap<String, SecretGroupId>,
    pub secrets: Vec<ExistingSecret>,
    pub applications: Vec<ExistingApplication>,
    pub variables: Vec<ExistingVariable>,
}

#[derive(Debug, Clone)]
pub struct ExistingHost {
    pub name: HostName,
    pub labels: BTreeMap<String, String>,
    pub drain: bool,
}

#[derive(Debug, Clone)]
pub struct ExistingProject {
    pub id: ProjectId,
    pub key: String,
}

#[derive(Debug, Clone)]
pub struct ExistingRegistry {
    pub id: RegistryId,
    pub name: String,
    pub server: String,
    /// As the API has it.
    pub auth_type: String,
    pub username: Option<String>,
}

#[derive(Debug, Clone)]
pub struct ExistingSecret {
    pub id: SecretId,
    pub group: String,
    pub name: String,
}

#[derive(Debug, Clone)]
pub struct ExistingApplication {
    pub id: ApplicationId,
    pub name: String,
    pub project: ProjectId,
    pub image: ImageName,
    pub ports: Vec<Port>,
    pub hosts: HostSelector,
}

#[derive(Debug)]
pub struct ExistingVariable {
    pub scope: Scope,
    pub key: String,
    /// As the API shows it; of a secret one, the mask.
    pub value: Secret<String>,
    pub value_type: ValueType,
    pub is_secret: bool,
    pub secret: Option<SecretId>,
}

impl Existing {
    pub(super) fn project(&self, key: &str) -> Option<ProjectId> {
        self.projects.iter().find(|project| project.key == key).map(|project| project.id)
    }

    pub(super) fn application(&self, name: &str) -> Option<&ExistingApplication> {
        self.applications.iter().find(|application| application.name == name)
    }

    pub(super) fn secret(&self, group: &str, name: &str) -> Option<SecretId> {
        self.secrets.iter().find(|secret| secret.group == group && secret.name == name).map(|secret| secret.id)
    }

    pub(super) fn variable(&self, scope: Scope, key: &str) -> Option<&ExistingVariable> {
        self.variables.iter().find(|variable| variable.scope == scope && variable.key == key)
    }

    /// Drained or not: what runs on a drained host keeps its ports.
    pub(super) fn hosts_of<'a>(&'a self, selector: &'a HostSelector) -> BTreeSet<&'a HostName> {
        let candidate =
            |host: &'a ExistingHost| Candidate { name: &host.name, labels: &host.labels, drain: host.drain };
        match selector {
            HostSelector::Names(names) => names.iter().collect(),
            HostSelector::Labels(_) => {
                let taken = self.hosts.iter().filter(|host| selector.takes_in(candidate(host)));
                taken.map(|host| &host.name).collect()
            }
        }
    }
}
