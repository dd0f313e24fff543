//! What a rollback comes to: a release as it was, or with the values that its secrets have by now.

use tidegate_aws::{
    application_state::{ApplicationState, Release},
    applications::TokenGrant,
    catalogue::Stored,
    environments::{DecidedIn, Environment},
    error::StoreError,
    hosts::RegisteredHost,
    material::Opening,
    registered::RegisteredApplication,
};
use tidegate_domain::{
    application::Concurrency,
    deployment::{Deployment, Target, TriggerKind},
    id::{ApplicationId, DeploymentId},
    invalid::Invalid,
    job::{Job, JobVariable},
    parameter,
    variable::{self, Layered, Resolution, ValueType, Written},
};
use tidegate_web::Problem;

use crate::{
    AdminState,
    applications::WHAT,
    call::{Call, missing},
    operations::{Planned, requested},
};

/// Which values a rollback gives to variables that are secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// Those of the release.
    Released,
    /// Those that a deployment in the release's environment would get now.
    Current,
}

impl Secrets {
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "released" => Ok(Self::Released),
            "current" => Ok(Self::Current),
            _ => Err(Invalid::new("unknown-value", "is not a choice of secrets", "use one of released, current")),
        }
    }
}

pub(crate) async fn plan<P>(
    state: &AdminState,
    call: &Call<P>,
    application: &Stored<RegisteredApplication>,
    current: &ApplicationState,
    to: Option<DeploymentId>,
    secrets: Secrets,
) -> Result<Planned, Problem> {
    let (tenant, registered) = (call.tenant(), &application.body.application);
    let release = chosen(current, to)?;
    let hosts = state.store.hosts(tenant).await?;
    let candidates: Vec<_> = hosts.iter().map(RegisteredHost::candidate).collect();
    let selection = registered.hosts.select(&candidates);
    if selection.chosen.is_empty() {
        return Err(Problem::no_release("None of the application's hosts is registered and takes deployments."));
    }
    let mut deployment = requested(call, application, TriggerKind::Rollback);
    deployment.version = Some(release.version.clone());
    deployment.digest = Some(release.digest.clone());
    deployment.returns_to = Some(release.deployment_id);
    deployment.targets = selection.chosen.into_iter().cloned().map(Target::waiting).collect();
    for host in selection.draining {
        deployment.note(call.now, "host-drained", Some(host.clone()));
    }
    let mut job = state.store.rollback_job(tenant, application, &deployment, release).await?;
    let released = state.store.deployment(tenant, release.deployment_id).await.map_err(missing(WHAT))?.deployment;
    (deployment.environment, deployment.sources) = (released.environment, released.sources);
    let decided_in = match secrets {
        Secrets::Released => None,
        Secrets::Current => Some(give_current_secrets(state, call, application, &mut deployment, &mut job).await?),
    };
    // What was asked for before somebody went back would only undo it.
    Ok(Planned { deployment, job, concurrency: Concurrency::Latest, decided_in })
}

fn chosen(current: &ApplicationState, to: Option<DeploymentId>) -> Result<&Release, Problem> {
    match to {
        Some(id) => current.releases.iter().find(|release| release.deployment_id == id).ok_or_else(|| {
            let unknown = Invalid::new(
                "unknown-release",
                "is not a release that is kept",
                "choose one of GET /applications/{id}/releases",
            );
            Problem::validation_failed(vec![unknown.at("deploymentId")])
        }),
        None => current
            .former_release()
            .ok_or_else(|| Problem::no_release("There is no earlier release of this application to return to.")),
    }
}

/// Variables that are secret get the value that a deployment of the same request would get now, in the environment of the
/// release: what is not secret is that one's, and nothing of another goes with it.
/// One that is not registered any more keeps the released one: the release may not start without it.
async fn give_current_secrets<P>(
    state: &AdminState,
    call: &Call<P>,
    application: &Stored<RegisteredApplication>,
    deployment: &mut Deployment,
    job: &mut Job,
) -> Result<DecidedIn, Problem> {
    let registered = &application.body.application;
    let environment = environment_of(state, call, deployment).await?;
    // The release was decided on as it was. What it would be now, nobody has looked at.
    if registered.approval.required {
        return Err(Problem::approval_required("The application"));
    }
    if let Some(environment) = environment.as_ref().filter(|stored| stored.body.requires_approval) {
        return Err(Problem::approval_required(&format!("The environment {}", environment.body.name)));
    }
    let grant = TokenGrant {
        tenant: call.tenant().clone(),
        application_id: ApplicationId(application.id),
        project_id: registered.project_id,
        valid_until: None,
    };
    let material = Box::pin(state.store.material_in(&grant, environment, call.now)).await?;
    let mut layers = parameter::layers(&registered.parameters, Vec::new());
    let asked = deployment.sources.as_ref().map(|sources| sources.request.clone()).unwrap_or_default();
    layers.extend(job.variables.iter().filter(|v| asked.contains(&v.key)).map(|v| Layered {
        origin: variable::Origin::Request,
        key: v.key.clone(),
        value: Written::Text(v.value.duplicate()),
        value_type: ValueType::String,
        is_secret: v.is_secret,
    }));
    let configuration = state.store.configuration(&grant, &material, layers, Opening::Whole).await?;
    let Resolution { entries, faults } =
        variable::resolve(&configuration.layers, |reference| configuration.secret(reference));
    for entry in entries {
        let of_release = |released: &&mut JobVariable| released.is_secret && released.key == entry.key;
        if let Some(released) = job.variables.iter_mut().find(of_release) {
            // What is wrong with others does not matter: the release has its own of those.
            let Some(value) = entry.value else { return Err(Problem::validation_failed(faults)) };
            released.value = value;
        }
    }
    if let Some(sources) = &mut deployment.sources {
        sources.secrets = configuration.sources.secrets;
    }
    Ok(material.decided_in())
}

/// The environment that the release was made in, as it is now; none if it was made without one.
async fn environment_of<P>(
    state: &AdminState,
    call: &Call<P>,
    deployment: &Deployment,
) -> Result<Option<Stored<Environment>>, Problem> {
    let Some(released_in) = &deployment.environment else { return Ok(None) };
    match state.store.environment(call.tenant(), released_in.env_id).await {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Missing) => Err(Problem::environment_gone(&released_in.name)),
        Err(other) => Err(other.into()),
    }
}
