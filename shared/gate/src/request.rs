//! What a trigger asks of the gate.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde_json::Value;
use tidegate_aws::{
    admission::AskedBy,
    applications::TokenGrant,
    audit::AuditEvent,
    clock,
    idempotency::{FirstAnswer, IdempotencyKey},
    limits::Charged,
    random,
};
use tidegate_domain::{
    application::Application,
    deployment::{Deployment, Trigger},
    id::{ApplicationId, DeploymentId, ProjectId, TenantId},
    image::Version,
    invalid::FieldError,
    issue::IssueRef,
    limit::Class,
};

/// Somebody known asks for a version of one application.
pub struct Request<'a> {
    pub tenant: &'a TenantId,
    pub application: ApplicationId,
    pub project: ProjectId,
    pub trigger: Trigger,
    pub class: Class,
    /// Whom the limit per user counts: the application of a token, a person's name, a login.
    pub user: &'a str,
    pub source_ip: Option<IpAddr>,
    pub caller: Caller<'a>,
    pub asked: &'a Asked,
    pub key: Option<&'a IdempotencyKey>,
    pub retry_of: Option<DeploymentId>,
    pub issue: Option<IssueRef>,
    pub request_id: Option<String>,
    /// The deployment's, where the same request may come again and must not be recorded twice; none for a new one.
    pub id: Option<DeploymentId>,
}

/// What a repeated call with the same idempotency key hears: the answer to the deployment as it is recorded.
pub type Answer<'a> = &'a (dyn Fn(&Deployment) -> FirstAnswer + Send + Sync);

/// What the caller's credential is worth for this application.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// The application's own token, by its SHA-256.
    Token(&'a str),
    /// A person who may deploy: an administrator, or any other.
    Person { name: &'a str, is_admin: bool },
    /// Somebody on an issue, who may ask or not.
    Issue { may_ask: bool },
}

/// What is asked for, as far as it can be read.
#[derive(Clone)]
pub struct Asked {
    /// None only beside a fault.
    pub version: Option<Version>,
    /// None only beside a fault.
    pub variables: Option<BTreeMap<String, Value>>,
    /// What is wrong with the request by itself; told together with what is wrong for the application.
    pub faults: Vec<FieldError>,
}

/// Values of a request are never printed.
impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("version", &self.version).field("faults", &self.faults).finish_non_exhaustive()
    }
}

pub(crate) fn grant(request: &Request<'_>) -> TokenGrant {
    TokenGrant {
        tenant: request.tenant.clone(),
        application_id: request.application,
        project_id: request.project,
        valid_until: None,
    }
}

pub(crate) fn charged<'a>(request: &Request<'a>) -> Charged<'a> {
    Charged { class: request.class, user: request.user, ip: request.source_ip, application: request.application }
}

pub(crate) fn asked_by<'a>(caller: Caller<'a>, application: &Application) -> AskedBy<'a> {
    match caller {
        Caller::Token(sha256) => AskedBy::Token(sha256),
        Caller::Person { name, is_admin } => AskedBy::person(name, is_admin, application),
        Caller::Issue { .. } => AskedBy::Other,
    }
}

pub(crate) fn new_deployment(request: &Request<'_>, application: &Application) -> Deployment {
    let now = clock::now();
    let id = request.id.unwrap_or_else(|| DeploymentId::new(now, random::bytes()));
    let mut deployment = Deployment::requested(id, request.application, application, request.trigger.clone(), now);
    deployment.retry_of = request.retry_of;
    deployment.issue.clone_from(&request.issue);
    deployment
}

pub(crate) fn event(request: &Request<'_>, deployment: &Deployment, action: &str) -> AuditEvent {
    AuditEvent {
        actor: request.trigger.actor.clone(),
        action: action.to_owned(),
        subject: format!("application/{}/deployment/{}", deployment.application_id, deployment.id),
        source_ip: request.trigger.source.clone(),
        request_id: request.request_id.clone(),
    }
}
