//! What an admission is decided on, read in two round trips however much there is.

use jiff::Timestamp;
use tidegate_domain::{
    id::{SecretId, TenantId},
    image::ImageName,
    job::Credentials,
    secret::Secret,
    settings::Settings,
    variable::{Layered, Scope, SecretReference, Written, overlay},
};

use crate::{
    application_state::ApplicationState,
    applications::TokenGrant,
    catalogue::Stored,
    error::{Result, StoreError},
    hosts::RegisteredHost,
    idempotency::{FirstAnswer, IdempotencyKey},
    keys::{self, Kind},
    limits::{Charged, Windows},
    registered::{RegisteredApplication, Registry, RegistryAuth, StoredSecret},
    store::Store,
    table::record,
    variables::StoredVariable,
};

/// The first round trip: all that hangs on the application.
#[derive(Debug)]
pub struct Material {
    pub application: Stored<RegisteredApplication>,
    pub state: ApplicationState,
    pub hosts: Vec<RegisteredHost>,
    /// The first answer to the request's idempotency key.
    pub first_answer: Option<FirstAnswer>,
    pub settings: Settings,
    /// What counts against the limits of who asks; none where nobody is charged.
    pub windows: Option<Windows>,
    variables: Vec<(Scope, StoredVariable)>,
}

impl Store {
    pub async fn material(
        &self,
        grant: &TokenGrant,
        key: Option<&IdempotencyKey>,
        charged: Option<&Charged<'_>>,
        now: Timestamp,
    ) -> Result<Material> {
        let tenant = &grant.tenant;
        let scopes = [Scope::Application(grant.application_id), Scope::Project(grant.project_id), Scope::Global];
        let first_answer = async {
            match key {
                Some(key) => self.first_answer(tenant, key, now).await,
                None => Ok(None),
            }
        };
        let windows = async {
            match charged {
                Some(charged) => self.windows(tenant, charged).await.map(Some),
                None => Ok(None),
            }
        };
        let (application, state, hosts, first_answer, settings, windows, of_application, of_project, global) = tokio::try_join!(
            self.find::<RegisteredApplication>(tenant, grant.application_id.0),
            self.application_state(tenant, grant.application_id),
            self.hosts(tenant),
            first_answer,
            self.settings(tenant),
            windows,
            self.variables(tenant, scopes[0]),
            self.variables(tenant, scopes[1]),
            self.variables(tenant, scopes[2]),
        )?;
        let variables = scopes
            .into_iter()
            .zip([of_application, of_project, global])
            .flat_map(|(scope, variables)| variables.into_iter().map(move |v| (scope, v)))
            .collect();
        Ok(Material { application, state, hosts, first_answer, settings, windows, variables })
    }

    /// The second round trip: the registry and the secrets, opened. `request` are the strongest and weakest layers, which
    /// come from the request and from the application's parameters.
    ///
    /// Data keys that are not cached cost one more read and one call of KMS each.
    pub async fn configuration(
        &self,
        grant: &TokenGrant,
        material: &Material,
        request: Vec<Layered>,
    ) -> Result<Configuration> {
        let tenant = &grant.tenant;
        let mut layers = request;
        for (scope, variable) in strongest(&material.variables, &layers) {
            layers.push(self.layered(tenant, *scope, variable.clone()).await?);
        }
        let layers = overlay(layers);
        let wanted = layers.iter().filter_map(|layer| match &layer.value {
            Written::Reference(SecretReference::Id(id)) => Some(*id),
            Written::Reference(SecretReference::Named { .. }) | Written::Text(_) => None,
        });
        let mut keys: Vec<_> = wanted.map(|id| keys::thing(tenant, Kind::Secret, id.0)).collect();
        keys.sort_by(|a, b| a.sk.cmp(&b.sk));
        keys.dedup();
        let registry = material.application.body.application.registry_id;
        keys.extend(registry.map(|id| keys::thing(tenant, Kind::Registry, id.0)));
        let mut secrets = Vec::new();
        let mut credentials = None;
        for found in self.table.batch_get(&keys).await? {
            let is_registry =
                found.get("pk").and_then(|v| v.as_s().ok()) == Some(&keys::catalogue(tenant, Kind::Registry));
            if is_registry {
                let registry: Stored<Registry> = record(found, "registry")?;
                credentials = self.credentials(tenant, &registry, &material.application.body.application.image).await?;
            } else {
                let secret: Stored<StoredSecret> = record(found, "secret")?;
                secrets.push((SecretId(secret.id), self.open_secret(tenant, secret.id, &secret.body).await?));
            }
        }
        Ok(Configuration { layers, credentials, secrets })
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

/// Opened configuration of one deployment.
#[derive(Debug)]
pub struct Configuration {
    pub layers: Vec<Layered>,
    pub credentials: Option<Credentials>,
    secrets: Vec<(SecretId, Secret<String>)>,
}

impl Configuration {
    pub fn secret(&self, reference: &SecretReference) -> Option<Secret<String>> {
        let SecretReference::Id(wanted) = reference else { return None };
        self.secrets.iter().find(|(id, _)| id == wanted).map(|(_, value)| value.duplicate())
    }
}

/// The stored variables that no stronger layer hides: only these need to be opened.
fn strongest<'a>(stored: &'a [(Scope, StoredVariable)], request: &[Layered]) -> Vec<&'a (Scope, StoredVariable)> {
    use tidegate_domain::variable::Origin;
    let mut kept: Vec<&(Scope, StoredVariable)> = Vec::new();
    for entry in stored {
        let hidden = request.iter().any(|l| l.origin == Origin::Request && l.key == entry.1.key)
            || kept.iter().any(|(_, k)| k.key == entry.1.key);
        if !hidden {
            kept.push(entry);
        }
    }
    kept
}
