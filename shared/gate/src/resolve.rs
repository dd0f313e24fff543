//! What a request comes to with what is registered: version, hosts, configuration, and the work order made of them.

use tidegate_aws::{
    applications::TokenGrant,
    error::StoreError,
    hosts::RegisteredHost,
    material::{Configuration, Material, Opening},
};
use tidegate_domain::{
    application::{Application, MAX_HOSTS, Selection},
    approval::{Reason, ReasonCode, Scope},
    deployment::{Deployment, Sources},
    id::{HostName, Sequence},
    image::Version,
    invalid::{FieldError, Invalid},
    job::{Action, Job, JobVariable},
    parameter,
    variable::{self, Layered, VariableKey},
};

use crate::{Asked, Gate};

/// A request that the application allows, and what it would do.
pub(crate) struct Resolved {
    pub(crate) version: Version,
    pub(crate) hosts: Vec<HostName>,
    /// Left out.
    pub(crate) draining: Vec<HostName>,
    /// Why somebody has to decide on it.
    pub(crate) reasons: Vec<Reason>,
    pub(crate) sources: Sources,
    pub(crate) job: Job,
}

/// What can be judged without opening a secret.
struct Valid {
    version: Version,
    hosts: Vec<HostName>,
    draining: Vec<HostName>,
    reasons: Vec<Reason>,
    layers: Vec<Layered>,
}

impl Gate {
    /// All faults at once; those of the configuration only if the request itself has none.
    pub(crate) async fn resolve(
        &self,
        grant: &TokenGrant,
        material: &Material,
        asked: &Asked,
        deployment: &Deployment,
    ) -> Result<Result<Resolved, Vec<FieldError>>, StoreError> {
        let application = &material.application.body.application;
        let Valid { version, hosts, draining, reasons, layers } = match validate(application, material, asked) {
            Ok(valid) => valid,
            Err(faults) => return Ok(Err(faults)),
        };
        let mut configuration = self.store.configuration(grant, material, layers, Opening::Whole).await?;
        let sources = configuration.sources.clone();
        Ok(job(deployment, application, version.clone(), &mut configuration).map(|job| Resolved {
            version,
            hosts,
            draining,
            reasons,
            sources,
            job,
        }))
    }
}

/// What the request itself comes to, whatever else is registered.
struct OfRequest {
    errors: Vec<FieldError>,
    reasons: Vec<Reason>,
    values: Vec<(VariableKey, String)>,
}

impl OfRequest {
    fn of(application: &Application, asked: &Asked) -> Self {
        let mut errors = asked.faults.clone();
        if let (Some(pattern), Some(version)) = (&application.version_pattern, &asked.version)
            && !pattern.allows(version)
        {
            let message = "does not match the application's versionPattern";
            let suggestion = format!("deploy a version that matches {}", pattern.as_str());
            errors.push(Invalid::new("version-pattern", message, suggestion).at("version"));
        }
        let (mut reasons, mut values) = (Vec::new(), Vec::new());
        if let Some(given) = &asked.variables {
            match parameter::accept(&application.parameters, given) {
                Ok(accepted) => (reasons, values) = (accepted.reasons, accepted.values),
                Err(faults) => errors.extend(faults),
            }
        }
        Self { errors, reasons, values }
    }
}

/// What is wrong with the request itself: all that may be told to somebody who may not ask.
pub(crate) fn faults_of_request(application: &Application, asked: &Asked) -> Vec<FieldError> {
    OfRequest::of(application, asked).errors
}

/// The faults as everybody may read them: of those that are not the request's own, where and which, and none of the words,
/// which name hosts, variables and secrets.
pub(crate) fn in_public(application: &Application, asked: &Asked, faults: Vec<FieldError>) -> Vec<FieldError> {
    let own = faults_of_request(application, asked);
    let concealed = |fault: FieldError| {
        if own.contains(&fault) {
            return fault;
        }
        let hint = "ask the application's owner to check a request in the console, which says more";
        Invalid::new(fault.invalid.code, "is wrong with the application itself", hint).at(fault.field)
    };
    faults.into_iter().map(concealed).collect()
}

/// What an approval of the deployment covers beside its work order.
pub(crate) fn scope(deployment: &Deployment) -> Scope {
    Scope {
        digest: deployment.digest.clone(),
        hosts: deployment.targets.iter().map(|target| target.host.clone()).collect(),
        max_parallel: deployment.max_parallel,
        rollback_on_failure: deployment.rollback_on_failure,
    }
}

fn validate(application: &Application, material: &Material, asked: &Asked) -> Result<Valid, Vec<FieldError>> {
    let OfRequest { mut errors, mut reasons, values } = OfRequest::of(application, asked);
    if application.approval.required {
        let message = "the application wants somebody to decide on every deployment".to_owned();
        reasons.push(Reason { field: "application".to_owned(), code: ReasonCode::Always, message });
    }
    if let Some(environment) = material.environment.as_ref().filter(|stored| stored.body.requires_approval) {
        let name = &environment.body.name;
        let message = format!("the environment {name} wants somebody to decide on every deployment");
        reasons.push(Reason { field: "environment".to_owned(), code: ReasonCode::Always, message });
    }
    let registered: Vec<_> = material.hosts.iter().map(RegisteredHost::candidate).collect();
    let Selection { chosen: hosts, draining, unknown } = application.hosts.select(&registered);
    errors.extend(wrong_hosts(&hosts, &draining, &unknown).map(|invalid| invalid.at("hosts")));
    match &asked.version {
        Some(version) if errors.is_empty() => Ok(Valid {
            version: version.clone(),
            hosts: hosts.into_iter().cloned().collect(),
            draining: draining.into_iter().cloned().collect(),
            reasons,
            layers: parameter::layers(&application.parameters, values),
        }),
        Some(_) | None => Err(errors),
    }
}

fn wrong_hosts(chosen: &[&HostName], draining: &[&HostName], unknown: &[&HostName]) -> Option<Invalid> {
    let names = |hosts: &[&HostName]| hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ");
    if !unknown.is_empty() {
        let message = format!("names hosts that are not registered: {}", names(unknown));
        return Some(Invalid::new("unknown-host", message, "register them, or change the application's hosts"));
    }
    if chosen.is_empty() && !draining.is_empty() {
        let message = format!("chooses only hosts that are being drained: {}", names(draining));
        let suggestion = "put drain of one of them to false, or choose other hosts";
        return Some(Invalid::new("no-host", message, suggestion));
    }
    if chosen.is_empty() || chosen.len() > MAX_HOSTS {
        let message = format!("chooses {} hosts", chosen.len());
        return Some(Invalid::new("no-host", message, format!("label or name 1 to {MAX_HOSTS} hosts")));
    }
    None
}

fn job(
    deployment: &Deployment,
    application: &Application,
    version: Version,
    configuration: &mut Configuration,
) -> Result<Job, Vec<FieldError>> {
    let resolved = variable::resolve(&configuration.layers, |reference| configuration.secret(reference)).complete()?;
    let variables: Vec<_> =
        resolved.into_iter().map(|v| JobVariable { key: v.key, value: v.value, is_secret: v.is_secret }).collect();
    let job = Job {
        deployment_id: deployment.id,
        release: deployment.id,
        action: Action::Deploy,
        application_id: deployment.application_id,
        // Assigned by the admission.
        sequence: Sequence(0),
        name: application.name.clone(),
        image: application.image.clone(),
        version,
        digest: None,
        credentials: configuration.credentials.take(),
        ports: application.ports.clone(),
        variables,
        health_check: application.health_check.clone(),
        container: application.container.clone(),
        strategy: application.rollout.strategy,
        bake_seconds: application.rollout.bake_seconds,
        adopt: application.adopt,
        stopped: false,
        approved: None,
    };
    match job.oversize(application.rollout.max_parallel) {
        Some(why) => Err(vec![why.at("variables")]),
        None => Ok(job),
    }
}
