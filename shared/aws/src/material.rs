//! What an admission is decided on, read in two round trips however much there is.

mod configuration;
mod guess;
mod sources;

use jiff::Timestamp;
use tidegate_domain::{
    deployment::DeployedIn,
    id::{EnvironmentId, ProjectId, TenantId},
    settings::Settings,
    variable::{Origin, Scope, VariableKey},
};

use crate::{
    application_state::ApplicationState,
    applications::TokenGrant,
    catalogue::Stored,
    environments::{DecidedIn, Environment},
    error::{Result, StoreError},
    hosts::RegisteredHost,
    idempotency::{FirstAnswer, IdempotencyKey},
    limits::{Charged, Windows},
    registered::RegisteredApplication,
    store::Store,
    variables::StoredVariable,
};

pub use configuration::{Configuration, Opening};
pub(crate) use guess::Guesses;
pub(crate) use sources::{settings, sources, used};

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
    /// The environment that the application is pinned to, or else its project's active one; without its variables.
    pub environment: Option<Stored<Environment>>,
    /// The project whose active one that is, or of which none is active; none where something else chose it.
    active_of: Option<ProjectId>,
    /// From the strongest layer to the weakest.
    variables: Vec<(Scope, StoredVariable)>,
}

impl Material {
    pub fn deployed_in(&self) -> Option<DeployedIn> {
        let environment = self.environment.as_ref()?;
        Some(DeployedIn { env_id: EnvironmentId(environment.id), name: environment.body.name.clone() })
    }

    /// For the admission of what is decided on this.
    pub fn decided_in(&self) -> DecidedIn {
        DecidedIn::new(self.active_of, self.environment.as_ref())
    }

    /// In this environment, whichever is in effect.
    fn put_into(&mut self, mut environment: Option<Stored<Environment>>) {
        self.variables.retain(|(scope, _)| !matches!(scope, Scope::Environment(_)));
        if let Some(stored) = &mut environment {
            let scope = Scope::Environment(EnvironmentId(stored.id));
            let stronger =
                self.variables.iter().take_while(|(scope, _)| matches!(scope, Scope::Application(_))).count();
            let variables = std::mem::take(&mut stored.body.variables).into_iter().map(|v| (scope, v));
            self.variables.splice(stronger..stronger, variables);
        }
        (self.environment, self.active_of) = (environment, None);
    }

    fn stored(&self) -> impl Iterator<Item = (Scope, &StoredVariable)> {
        self.variables.iter().map(|(scope, variable)| (*scope, variable))
    }

    /// Which stored layers have a variable of this key, strongest first.
    pub fn layers_of<'a>(&'a self, key: &'a VariableKey) -> impl Iterator<Item = Origin> + 'a {
        self.variables.iter().filter(move |(_, variable)| variable.key == *key).map(|(scope, _)| scope.origin())
    }
}

impl Store {
    /// # Errors
    /// [`StoreError::Conflict`] if the application was pinned to another environment in the middle of it, and that one
    /// deleted.
    pub async fn material(
        &self,
        grant: &TokenGrant,
        key: Option<&IdempotencyKey>,
        charged: Option<&Charged<'_>>,
        now: Timestamp,
    ) -> Result<Material> {
        let tenant = &grant.tenant;
        let (of_application, of_project) = (Scope::Application(grant.application_id), Scope::Project(grant.project_id));
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
        // Which one it is stands in what is only being read: the one of last time is read beside it.
        let guess = self.guesses.of(grant);
        let guessed = async {
            match guess {
                Some(id) => self.environment_if_there(tenant, id).await,
                None => Ok(None),
            }
        };
        let (application, state, hosts, first_answer, settings, windows, active, guessed, own, project, global) = tokio::try_join!(
            self.find::<RegisteredApplication>(tenant, grant.application_id.0),
            self.application_state(tenant, grant.application_id),
            self.hosts(tenant),
            first_answer,
            self.settings(tenant),
            windows,
            self.active_environment(tenant, grant.project_id),
            guessed,
            self.variables(tenant, of_application),
            self.variables(tenant, of_project),
            self.variables(tenant, Scope::Global),
        )?;
        let pinned = application.body.application.env_id;
        self.guesses.remember(grant, pinned, active);
        let mut environment = match pinned.or(active) {
            None => None,
            Some(id) if guess == Some(id) && guessed.is_some() => guessed,
            Some(id) => self.environment_if_there(tenant, id).await?,
        };
        if environment.is_none() && pinned.or(active).is_some() {
            // It went away in the middle: whatever is in effect since.
            environment = self.environment_in_effect(tenant, grant.project_id, pinned).await?;
        }
        let in_environment = environment.as_mut().map(|stored| {
            let scope = Scope::Environment(EnvironmentId(stored.id));
            (scope, std::mem::take(&mut stored.body.variables))
        });
        let layers =
            [Some((of_application, own)), in_environment, Some((of_project, project)), Some((Scope::Global, global))];
        let variables = layers.into_iter().flatten();
        let variables =
            variables.flat_map(|(scope, variables)| variables.into_iter().map(move |v| (scope, v))).collect();
        let active_of = pinned.is_none().then_some(grant.project_id);
        Ok(Material { application, state, hosts, first_answer, settings, windows, environment, active_of, variables })
    }

    /// As [`Store::material`], in an environment that something else than application and project chooses: the one of a
    /// release, or none.
    ///
    /// # Errors
    /// See [`Store::material`].
    pub async fn material_in(
        &self,
        grant: &TokenGrant,
        environment: Option<Stored<Environment>>,
        now: Timestamp,
    ) -> Result<Material> {
        let mut material = Box::pin(self.material(grant, None, None, now)).await?;
        material.put_into(environment);
        Ok(material)
    }

    async fn environment_if_there(&self, tenant: &TenantId, id: EnvironmentId) -> Result<Option<Stored<Environment>>> {
        match self.environment(tenant, id).await {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::Missing) => Ok(None),
            Err(other) => Err(other),
        }
    }
}
