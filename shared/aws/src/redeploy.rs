//! Whether what runs would come out otherwise if it were deployed now.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidegate_domain::{
    deployment::Sources,
    id::{ApplicationId, EnvironmentId, ProjectId, SecretId, TenantId},
    variable::Scope,
};

use crate::{
    application_state::ApplicationState,
    catalogue::Stored,
    environments::Environment,
    error::Result,
    material::{settings, sources, used},
    registered::{RegisteredApplication, StoredSecret},
    store::Store,
    variables::StoredVariable,
};

/// So many scopes' variables are read at a time.
const AT_ONCE: usize = 16;

/// An application whose settings are still those of its release: its variables decide.
struct Undecided<'a> {
    id: ApplicationId,
    application: &'a Stored<RegisteredApplication>,
    released: &'a Sources,
}

/// All that the applications' configurations are made from.
struct Registered {
    variables: BTreeMap<Scope, Vec<StoredVariable>>,
    active: BTreeMap<ProjectId, EnvironmentId>,
}

impl Store {
    /// Of each application that has a release, whether a deployment of the same request would be given another configuration
    /// now. Told by revisions, so that nothing is opened: what was written again with the same value counts as changed.
    ///
    /// One call for each application, one for each of their projects, and four more, which wait for each other at most
    /// twice.
    pub async fn needs_redeploy(
        &self,
        tenant: &TenantId,
        applications: &[(&Stored<RegisteredApplication>, &ApplicationState)],
    ) -> Result<BTreeMap<ApplicationId, bool>> {
        let mut decided = BTreeMap::new();
        let mut undecided = Vec::new();
        for (application, state) in applications {
            let (id, Some(release)) = (ApplicationId(application.id), state.release()) else { continue };
            match &release.sources {
                Some(released) if released.settings == settings(&application.body.application) => {
                    undecided.push(Undecided { id, application, released });
                }
                Some(_) => {
                    decided.insert(id, true);
                }
                // Of a release that did not keep them yet.
                None => {
                    decided.insert(id, application.updated_at > release.at);
                }
            }
        }
        if undecided.is_empty() {
            return Ok(decided);
        }
        let registered = self.read_registered(tenant, &undecided).await?;
        let referred =
            undecided.iter().flat_map(|of| of.used(&registered)).filter_map(|(_, variable)| variable.secret_id());
        let referred: BTreeSet<u64> = referred.map(|id| id.0).collect();
        let secrets = self.find_many::<StoredSecret>(tenant, &referred.into_iter().collect::<Vec<_>>()).await?;
        let versions: BTreeMap<_, _> = secrets.iter().map(|s| (SecretId(s.id), s.body.value_version)).collect();
        decided.extend(undecided.iter().map(|of| (of.id, of.has_changed(&registered, &versions))));
        Ok(decided)
    }

    async fn read_registered(&self, tenant: &TenantId, undecided: &[Undecided<'_>]) -> Result<Registered> {
        let projects: BTreeSet<ProjectId> = undecided.iter().map(Undecided::project).collect();
        let projects: Vec<ProjectId> = projects.into_iter().collect();
        let pinned: Vec<_> = undecided.iter().filter_map(|of| of.application.body.application.env_id).collect();
        let mut scopes = vec![Scope::Global];
        scopes.extend(projects.iter().copied().map(Scope::Project));
        scopes.extend(undecided.iter().map(|of| Scope::Application(of.id)));
        let variables = stream::iter(scopes)
            .map(|scope| async move { Ok((scope, self.variables(tenant, scope).await?)) })
            .buffer_unordered(AT_ONCE)
            .try_collect::<BTreeMap<_, _>>();
        let environments = async {
            let active = self.active_environments(tenant, &projects).await?;
            let ids: Vec<u64> = active.values().chain(&pinned).map(|id| id.0).collect();
            Ok((active, self.find_many::<Environment>(tenant, &ids).await?))
        };
        let (mut variables, (active, environments)) = tokio::try_join!(variables, environments)?;
        let of_environments =
            environments.into_iter().map(|e| (Scope::Environment(EnvironmentId(e.id)), e.body.variables));
        variables.extend(of_environments);
        Ok(Registered { variables, active })
    }
}

impl Undecided<'_> {
    fn project(&self) -> ProjectId {
        self.application.body.application.project_id
    }

    /// As a deployment would take them, from the strongest layer to the weakest.
    fn used<'r>(&self, registered: &'r Registered) -> Vec<(Scope, &'r StoredVariable)> {
        let pinned = self.application.body.application.env_id;
        let environment = pinned.or_else(|| registered.active.get(&self.project()).copied());
        let layers = [
            Some(Scope::Application(self.id)),
            environment.map(Scope::Environment),
            Some(Scope::Project(self.project())),
            Some(Scope::Global),
        ];
        let variables = layers.into_iter().flatten().flat_map(|scope| {
            let variables = registered.variables.get(&scope).map(Vec::as_slice).unwrap_or_default();
            variables.iter().map(move |variable| (scope, variable))
        });
        used(variables, &self.released.request, &self.released.environment)
    }

    fn has_changed(&self, registered: &Registered, versions: &BTreeMap<SecretId, u64>) -> bool {
        let Sources { request, environment, .. } = self.released.clone();
        let now = sources(&self.application.body.application, &self.used(registered), versions, request, environment);
        now != *self.released
    }
}
