//! The second round trip: what the variables refer to, opened as far as it is needed.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_domain::{
    deployment::Sources,
    id::{SecretId, TenantId},
    image::ImageName,
    job::Credentials,
    secret::Secret,
    variable::{Layered, Origin, Scope, SecretReference, VariableKey, Written, judged_by_value},
};

use super::{Material, sources, used};
use crate::{
    applications::TokenGrant,
    catalogue::Stored,
    error::{Result, StoreError},
    keys::{self, Kind},
    registered::{RegisteredApplication, Registry, RegistryAuth, StoredSecret},
    store::Store,
    table::record,
    variables::StoredVariable,
};

/// How much of what is sealed is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// All that a deployment needs.
    Whole,
    /// What has to be known to tell what is at fault: variables, which may refer to others, and secrets in values of a type
    /// of their own. Other secrets are stood for by as many asterisks, and no credentials are there.
    Judging,
}

/// Opened configuration of one deployment.
#[derive(Debug)]
pub struct Configuration {
    /// The strongest of each key, weaker defaults, and what of the environment is hidden and referred to all the same.
    pub layers: Vec<Layered>,
    pub credentials: Option<Credentials>,
    pub sources: Sources,
    secrets: BTreeMap<SecretId, Secret<String>>,
}

impl Configuration {
    pub fn secret(&self, reference: &SecretReference) -> Option<&Secret<String>> {
        match reference {
            SecretReference::Id(id) => self.secrets.get(id),
            // Stored variables name the secret that a name stood for when they were written.
            SecretReference::Named { .. } => None,
        }
    }
}

impl Store {
    /// The second round trip: the registry and the secrets, opened. `request` are the strongest and weakest layers, which
    /// come from the request and from the application's parameters.
    ///
    /// Data keys that are not cached cost one more read and one call of KMS each.
    pub async fn configuration(
        &self,
        grant: &TokenGrant,
        material: &Material,
        request: Vec<Layered>,
        opening: Opening,
    ) -> Result<Configuration> {
        let tenant = &grant.tenant;
        let application = &material.application.body.application;
        let asked: Vec<VariableKey> =
            request.iter().filter(|l| l.origin == Origin::Request).map(|l| l.key.clone()).collect();
        let (layers, of_environment) = self.open_layers(tenant, material, request, &asked).await?;
        let referred: BTreeSet<SecretId> = layers.iter().filter_map(|layer| referred(&layer.value)).collect();
        let mut keys: Vec<_> = referred.iter().map(|id| keys::thing(tenant, Kind::Secret, id.0)).collect();
        if opening == Opening::Whole {
            keys.extend(application.registry_id.map(|id| keys::thing(tenant, Kind::Registry, id.0)));
        }
        let judged: BTreeSet<&SecretReference> = judged_by_value(&layers).into_iter().collect();
        let (mut secrets, mut versions, mut credentials) = (BTreeMap::new(), BTreeMap::new(), None);
        for found in self.table.batch_get(&keys).await? {
            let is_registry =
                found.get("pk").and_then(|v| v.as_s().ok()) == Some(&keys::catalogue(tenant, Kind::Registry));
            if is_registry {
                let registry: Stored<Registry> = record(found, "registry")?;
                credentials = self.credentials(tenant, &registry, &application.image).await?;
            } else {
                let secret: Stored<StoredSecret> = record(found, "secret")?;
                let id = SecretId(secret.id);
                let value = if opening == Opening::Whole || judged.contains(&SecretReference::Id(id)) {
                    self.open_secret(tenant, secret.id, &secret.body).await?
                } else {
                    Secret::new("*".repeat(secret.body.value.plain_bytes()))
                };
                versions.insert(id, secret.body.value_version);
                secrets.insert(id, value);
            }
        }
        let used = used(&material.variables, &asked, &of_environment);
        let sources = sources(application, &used, &versions, asked, of_environment);
        Ok(Configuration { layers, credentials, sources, secrets })
    }

    /// The request's layers with those stored variables that are not hidden, or that are hidden in the environment and
    /// referred to; and the keys of the latter.
    async fn open_layers(
        &self,
        tenant: &TenantId,
        material: &Material,
        request: Vec<Layered>,
        asked: &[VariableKey],
    ) -> Result<(Vec<Layered>, Vec<VariableKey>)> {
        let mut layers = request;
        let mut hidden: BTreeMap<&VariableKey, &(Scope, StoredVariable)> = material
            .variables
            .iter()
            .filter(|(scope, _)| matches!(scope, Scope::Environment(_)))
            .map(|e| (&e.1.key, e))
            .collect();
        let mut wanted: Vec<VariableKey> = Vec::new();
        for (scope, variable) in used(&material.variables, asked, &[]) {
            if matches!(scope, Scope::Environment(_)) {
                hidden.remove(&variable.key);
            }
            let opened = self.layered(tenant, *scope, variable.clone()).await?;
            wanted.extend(opened.value.environment_keys());
            layers.push(opened);
        }
        let mut of_environment = Vec::new();
        while let Some(key) = wanted.pop() {
            let Some((scope, variable)) = hidden.remove(&key) else { continue };
            let opened = self.layered(tenant, *scope, variable.clone()).await?;
            wanted.extend(opened.value.environment_keys());
            layers.push(opened);
            of_environment.push(key);
        }
        of_environment.sort();
        Ok((layers, of_environment))
    }

    /// The credentials of the application's registry as they are now, if the image is that registry's.
    pub(crate) async fn credentials_of(
        &self,
        tenant: &TenantId,
        application: &Stored<RegisteredApplication>,
        image: &ImageName,
    ) -> Result<Option<Credentials>> {
        let Some(id) = application.body.application.registry_id else { return Ok(None) };
        match self.find::<Registry>(tenant, id.0).await {
            Ok(registry) => self.credentials(tenant, &registry, image).await,
            Err(StoreError::Missing) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The registry's credentials, if the image is that registry's: they never go to another server.
    async fn credentials(
        &self,
        tenant: &TenantId,
        registry: &Stored<Registry>,
        image: &ImageName,
    ) -> Result<Option<Credentials>> {
        if registry.body.server != *image.server() {
            return Ok(None);
        }
        let (username, sealed, version) = match &registry.body.auth {
            RegistryAuth::None => return Ok(None),
            RegistryAuth::UsernamePassword { username, password, version } => (username, password, *version),
            RegistryAuth::Token { username, token, version } => (username, token, *version),
        };
        let password = self.open_password(tenant, registry.id, version, sealed).await?;
        Ok(Some(Credentials { server: registry.body.server.clone(), username: username.clone(), password }))
    }
}

fn referred(value: &Written) -> Option<SecretId> {
    match value {
        Written::Reference(SecretReference::Id(id)) => Some(*id),
        Written::Reference(SecretReference::Named { .. }) | Written::Text(_) | Written::Template(_) => None,
    }
}
