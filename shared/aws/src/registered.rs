//! The registered things themselves, as stored.

use serde::{Deserialize, Serialize};
use tidegate_domain::{
    application::Application,
    id::{SecretGroupId, SecretProviderId, TenantId},
    image::RegistryServer,
    provider::RemotePath,
    secret::Secret,
};

use crate::{
    catalogue::{Reference, Resource},
    envelope::{Place, Purpose},
    error::Result,
    keys::{self, Kind},
    store::Store,
};

/// A ciphertext of `envelope`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub(crate) String);

impl Sealed {
    /// How long the value is, which its ciphertext does not hide.
    pub(crate) fn plain_bytes(&self) -> usize {
        // The last part is ciphertext and tag in base64url.
        (self.0.rsplit(':').next().map_or(0, str::len) * 3 / 4).saturating_sub(16)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// Unique: `proj-001`.
    pub key: String,
    pub name: String,
    pub description: String,
}

impl Resource for Project {
    const KIND: Kind = Kind::Project;
    const NAME_FIELD: &'static str = "key";

    fn unique_name(&self) -> &str {
        &self.key
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registry {
    pub name: String,
    pub server: RegistryServer,
    pub auth: RegistryAuth,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum RegistryAuth {
    None,
    UsernamePassword {
        username: String,
        password: Sealed,
        /// Of the password: part of its place.
        version: u64,
    },
    /// A token that stands for user and password; registries take it as the password of `username`.
    Token {
        username: String,
        token: Sealed,
        version: u64,
    },
}

impl Resource for Registry {
    const KIND: Kind = Kind::Registry;
    const NAME_FIELD: &'static str = "name";

    fn unique_name(&self) -> &str {
        &self.name
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretGroup {
    pub name: String,
    pub description: String,
    /// The source that its secrets are synced from; none: people fill it.
    #[serde(default)]
    pub provider_id: Option<SecretProviderId>,
    /// The folder there, seen from the provider's.
    #[serde(default)]
    pub remote_path: RemotePath,
    /// Synced by schedule and by the source's own word, if the provider is; else only when somebody asks.
    #[serde(default)]
    pub auto_sync: bool,
}

impl Resource for SecretGroup {
    const KIND: Kind = Kind::SecretGroup;
    const NAME_FIELD: &'static str = "name";

    fn unique_name(&self) -> &str {
        &self.name
    }

    fn references(&self) -> Vec<Reference> {
        let provider =
            self.provider_id.map(|id| Reference { kind: Kind::SecretProvider, id: id.0, field: "providerId" });
        provider.into_iter().collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredSecret {
    pub group_id: SecretGroupId,
    pub name: String,
    pub value: Sealed,
    /// From 1; raised when the value changes.
    pub value_version: u64,
    /// The first version that has, or had, an item of its own; none for a value from before there were any.
    #[serde(default)]
    pub versions_from: Option<u64>,
    #[serde(default)]
    pub source: Source,
    /// When somebody should have renewed it; only a reminder.
    #[serde(default)]
    pub expires_at: Option<jiff::Timestamp>,
}

/// Where a secret's value comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Source {
    /// People write it.
    #[default]
    Manual,
    /// A provider's sync writes it.
    #[serde(rename_all = "camelCase")]
    Synced {
        provider_id: SecretProviderId,
        /// What the provider knows it by, whatever it is named.
        remote_id: String,
        /// Where the provider keeps it: the seed's `providerReference`.
        remote_path: String,
        /// Which of all folders of all sources it was listed in last.
        #[serde(default)]
        place: String,
        /// It was no longer there when last looked for, and is kept.
        stale: bool,
    },
}

impl Resource for StoredSecret {
    const KIND: Kind = Kind::Secret;
    const NAME_FIELD: &'static str = "name";

    fn unique_name(&self) -> &str {
        &self.name
    }

    fn name_scope(&self) -> String {
        secrets_of(self.group_id)
    }

    fn references(&self) -> Vec<Reference> {
        let group = Reference { kind: Kind::SecretGroup, id: self.group_id.0, field: "groupId" };
        let provider = match &self.source {
            Source::Manual => None,
            Source::Synced { provider_id, .. } => {
                Some(Reference { kind: Kind::SecretProvider, id: provider_id.0, field: "providerId" })
            }
        };
        [group].into_iter().chain(provider).collect()
    }
}

/// Scope of the names of a group's secrets.
pub fn secrets_of(group: SecretGroupId) -> String {
    keys::group_scope(group)
}

/// Of the place of a registry's password.
pub(crate) const REGISTRY_PLACE: &str = "registry";

fn password_place(registry: &str, version: u64) -> Place<'_> {
    Place { kind: REGISTRY_PLACE, id: registry, version }
}

/// An application with its token, of which only the hash is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisteredApplication {
    pub application: Application,
    pub token_sha256: String,
    pub token_hint: String,
    /// The token before, while it still works: its hash, and until when.
    pub previous_token: Option<(String, jiff::Timestamp)>,
}

impl Resource for RegisteredApplication {
    const KIND: Kind = Kind::Application;
    const NAME_FIELD: &'static str = "name";

    fn unique_name(&self) -> &str {
        self.application.name.as_str()
    }

    fn references(&self) -> Vec<Reference> {
        let project = Reference { kind: Kind::Project, id: self.application.project_id.0, field: "projectId" };
        let registry =
            self.application.registry_id.map(|id| Reference { kind: Kind::Registry, id: id.0, field: "registryId" });
        let environment =
            self.application.env_id.map(|id| Reference { kind: Kind::Environment, id: id.0, field: "envId" });
        [project].into_iter().chain(registry).chain(environment).collect()
    }
}

impl Store {
    pub async fn seal_password(
        &self,
        tenant: &TenantId,
        registry: u64,
        version: u64,
        password: &Secret<String>,
    ) -> Result<Sealed> {
        let id = registry.to_string();
        self.seal(tenant, Purpose::Secret, password_place(&id, version), password.expose().as_bytes()).await.map(Sealed)
    }

    pub async fn open_password(
        &self,
        tenant: &TenantId,
        registry: u64,
        version: u64,
        password: &Sealed,
    ) -> Result<Secret<String>> {
        let id = registry.to_string();
        let place = password_place(&id, version);
        self.sealer.open_text(&self.table, tenant, Purpose::Secret, place, &password.0).await
    }
}
