//! From an authenticated call to an admitted deployment: validate, resolve, seal, admit.

use tidegate_aws::{
    admission::{Admission, Admitted, AskedBy},
    audit::AuditEvent,
    catalogue::Replay,
    clock,
    error::StoreError,
    hosts::RegisteredHost,
    material::{Configuration, Material},
    random,
};
use tidegate_domain::{
    application::{Application, MAX_HOSTS, Selection},
    deployment::{Deployment, Status, Target, Trigger, TriggerKind},
    id::{DeploymentId, HostName, Sequence},
    image::Version,
    invalid::{FieldError, Invalid},
    job::{Action, Job, JobVariable},
    parameter,
    variable::{self, Layered},
};
use tidegate_web::Problem;

use crate::{
    WebhookState,
    call::{Asked, Call, first_answer},
};

/// Why a call was not admitted.
pub(crate) enum Refusal {
    Problem(Box<Problem>),
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One try. Reads what is registered, decides on it, and writes on condition that it is still so.
pub(crate) async fn admit(
    state: &WebhookState,
    call: &Call,
    asked: &Result<Asked, Problem>,
) -> Result<Admitted, Refusal> {
    let now = clock::now();
    let material = Box::pin(state.store.material(&call.grant, call.key.as_ref(), now)).await?;
    let application = &material.application.body.application;
    let mut deployment = new_deployment(call, application);
    if let Ok(asked) = asked {
        deployment.version.clone_from(&asked.version);
    }
    if !application.webhook_enabled {
        return Err(refuse(state, call, deployment, Problem::webhook_disabled(), "webhook-disabled").await?);
    }
    let asked = match asked {
        Ok(asked) => asked,
        Err(problem) => return Err(reject(state, call, deployment, problem.clone()).await?),
    };
    let Material { first_answer: before, .. } = &material;
    if before.is_some() {
        return material.first_answer.map(Admitted::Before).ok_or(Refusal::Store(StoreError::Conflict));
    }
    let Valid { version, hosts, draining, layers } = match validate(application, &material, asked) {
        Ok(valid) => valid,
        Err(errors) => return Err(reject(state, call, deployment, Problem::validation_failed(errors)).await?),
    };
    let configuration = state.store.configuration(&call.grant, &material, layers).await?;
    let job = match job(&deployment, application, version, configuration) {
        Ok(job) => job,
        Err(errors) => return Err(reject(state, call, deployment, Problem::validation_failed(errors)).await?),
    };
    deployment.targets = hosts.into_iter().map(Target::waiting).collect();
    for host in draining {
        deployment.note(now, "host-drained", Some(host));
    }
    let answer = first_answer(state, &deployment);
    let event = event(call, &deployment, "deployment.admitted");
    let admission = Admission {
        tenant: &call.grant.tenant,
        deployment,
        job,
        application: &material.application,
        asked_by: AskedBy::Token(&call.token_sha256),
        concurrency: application.rollout.concurrency,
        replay: call.key.as_ref().map(|key| Replay { key, answer: &answer }),
        event: &event,
        request_id: Some(call.info.id.to_string()),
    };
    Ok(state.store.admit(admission, material.state.clone(), now).await?)
}

fn new_deployment(call: &Call, application: &Application) -> Deployment {
    let now = clock::now();
    let id = DeploymentId::new(now, random::bytes());
    let trigger = Trigger {
        kind: TriggerKind::Webhook,
        source: call.info.source_ip.map(|ip| ip.to_string()),
        actor: "application token".to_owned(),
    };
    Deployment::requested(id, call.grant.application_id, application, trigger, now)
}

/// A request that the application allows.
struct Valid {
    version: Version,
    hosts: Vec<HostName>,
    /// Left out.
    draining: Vec<HostName>,
    layers: Vec<Layered>,
}

/// Everything that can be judged without opening a secret: all faults at once.
fn validate(application: &Application, material: &Material, asked: &Asked) -> Result<Valid, Vec<FieldError>> {
    let mut errors = asked.faults.clone();
    if let (Some(pattern), Some(version)) = (&application.version_pattern, &asked.version)
        && !pattern.allows(version)
    {
        let message = "does not match the application's versionPattern";
        let suggestion = format!("deploy a version that matches {}", pattern.as_str());
        errors.push(Invalid::new("version-pattern", message, suggestion).at("version"));
    }
    let given = asked.variables.as_ref().map(|given| parameter::accept(&application.parameters, given));
    let accepted = given.unwrap_or_else(|| Ok(Vec::new())).unwrap_or_else(|faults| {
        errors.extend(faults);
        Vec::new()
    });
    let registered: Vec<_> = material.hosts.iter().map(RegisteredHost::candidate).collect();
    let Selection { chosen: hosts, draining, unknown } = application.hosts.select(&registered);
    let names = |hosts: &[&HostName]| hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ");
    if !unknown.is_empty() {
        let message = format!("names hosts that are not registered: {}", names(&unknown));
        errors.push(
            Invalid::new("unknown-host", message, "register them, or change the application's hosts").at("hosts"),
        );
    } else if hosts.is_empty() && !draining.is_empty() {
        let message = format!("chooses only hosts that are being drained: {}", names(&draining));
        let suggestion = "put drain of one of them to false, or choose other hosts";
        errors.push(Invalid::new("no-host", message, suggestion).at("hosts"));
    } else if hosts.is_empty() || hosts.len() > MAX_HOSTS {
        let message = format!("chooses {} hosts", hosts.len());
        let suggestion = format!("label or name 1 to {MAX_HOSTS} hosts");
        errors.push(Invalid::new("no-host", message, suggestion).at("hosts"));
    }
    match &asked.version {
        Some(version) if errors.is_empty() => Ok(Valid {
            version: version.clone(),
            hosts: hosts.into_iter().cloned().collect(),
            draining: draining.into_iter().cloned().collect(),
            layers: parameter::layers(&application.parameters, accepted),
        }),
        Some(_) | None => Err(errors),
    }
}

fn job(
    deployment: &Deployment,
    application: &Application,
    version: Version,
    mut configuration: Configuration,
) -> Result<Job, Vec<FieldError>> {
    let layers = std::mem::take(&mut configuration.layers);
    let resolved = variable::resolve(layers, |reference| configuration.secret(reference))?;
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
        credentials: configuration.credentials,
        ports: application.ports.clone(),
        variables,
        health_check: application.health_check.clone(),
        container: application.container.clone(),
        strategy: application.rollout.strategy,
        bake_seconds: application.rollout.bake_seconds,
        adopt: application.adopt,
    };
    match job.oversize(application.rollout.max_parallel) {
        Some(why) => Err(vec![why.at("variables")]),
        None => Ok(job),
    }
}

async fn reject(
    state: &WebhookState,
    call: &Call,
    deployment: Deployment,
    problem: Problem,
) -> Result<Refusal, StoreError> {
    let reason = problem.summary();
    refuse(state, call, deployment, problem, &reason).await
}

/// Puts the refusal on record, and its id into the answer. A record beyond the hour's hundred is left out, not the answer.
async fn refuse(
    state: &WebhookState,
    call: &Call,
    mut deployment: Deployment,
    problem: Problem,
    reason: &str,
) -> Result<Refusal, StoreError> {
    deployment.status = Status::Rejected { reason: reason.to_owned() };
    deployment.completed_at = Some(deployment.created_at);
    let at = deployment.created_at;
    deployment.note(at, "rejected", None);
    let event = event(call, &deployment, "deployment.rejected");
    let recorded = state.store.record_rejection(&call.grant, &deployment, &event).await?;
    let mut problem = problem.with("validationPassed", false).with("rejectReason", reason);
    if recorded {
        problem = problem.with("deploymentId", deployment.id.to_string());
    }
    Ok(Refusal::Problem(Box::new(problem)))
}

fn event(call: &Call, deployment: &Deployment, action: &str) -> AuditEvent {
    AuditEvent {
        actor: "application token".to_owned(),
        action: action.to_owned(),
        subject: format!("application/{}/deployment/{}", deployment.application_id, deployment.id),
        source_ip: call.info.source_ip.map(|ip| ip.to_string()),
        request_id: Some(call.info.id.to_string()),
    }
}
