//! The gate: one way from a request whose caller is known to a decision, whoever asks and however.
//!
//! A trigger (CI, a person, an issue) makes a [`Request`] of what it was sent. [`Gate::decide`] looks at its form, the
//! permission, the limits and whether somebody has to decide on it, in this order, and records what comes of it.
//! [`Gate::check`] looks in the same way and records nothing. [`Gate::approve`] goes on with one that waited.

mod approve;
pub mod asker;
mod github;
mod resolve;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tidegate_aws::{
    admission::{Admission, Admitted, AskedBy, Charging, Origin},
    applications::TokenGrant,
    approvals::Requested,
    audit::AuditEvent,
    catalogue::Replay,
    clock,
    error::StoreError,
    idempotency::{FirstAnswer, IdempotencyKey},
    limits::{Charged, Full},
    material::Material,
    measures::{Measured, Outcome},
    random,
    store::Store,
};
use tidegate_domain::{
    application::Application,
    approval::{Approval, Reason as ApprovalReason},
    deployment::{Deployment, Status, Target, Trigger},
    id::{ApplicationId, DeploymentId, ProjectId, TenantId},
    image::{Digest, ImageName, Version},
    invalid::FieldError,
    issue::IssueRef,
    job::Job,
    limit::Class,
    refusal::{Reason, Refusal},
};
use tidegate_github::Github;
use tidegate_registry::Registry;
use tidegate_web::measures;

pub use approve::{Approval as ApprovalOutcome, Deciding};
pub use github::Unreachable;
use resolve::Resolved;

/// How often a lost race against a change of the application is run again before the caller is told.
const TRIES: usize = 3;
/// All that is looked at before anything is written takes at most so long.
const VALIDATION: Duration = Duration::from_secs(5);
/// So long a registry is asked what a version stands for.
const DIGEST: Duration = Duration::from_secs(2);
/// So long a request that failed waits to be counted.
const MEASURING: Duration = Duration::from_millis(500);
/// When a queue that is full now may have a place again.
const QUEUE_RETRY: Duration = Duration::from_secs(30);

/// Decides on requests. Clones share clients and caches.
#[derive(Debug, Clone)]
pub struct Gate {
    store: Store,
    registry: Arc<Registry>,
    github: github::Clients,
}

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

/// What a registry has said of the request's version of this image.
struct Known {
    image: ImageName,
    digest: Option<Digest>,
}

/// What became of a request.
#[derive(Debug)]
pub enum Decision {
    /// It is on record: queued, or waiting for somebody's decision.
    Recorded(Box<Deployment>),
    /// The same idempotency key was first.
    Before(FirstAnswer),
    Refused(Refusal),
    /// Token or application went away in the middle.
    CallerGone,
}

/// What a request would come to, if it were sent now and nothing were full.
#[derive(Debug)]
pub struct Checked {
    pub version: Version,
    pub application_name: String,
    /// Why somebody would have to decide on it; empty if nobody would.
    pub reasons: Vec<ApprovalReason>,
}

impl Gate {
    pub fn new(store: Store) -> Self {
        Self { store, registry: Arc::new(Registry::new(DIGEST)), github: github::Clients::default() }
    }

    /// GitHub, with the tenant's credentials.
    ///
    /// # Errors
    /// There are none, or they cannot be read or used.
    pub async fn github(&self, tenant: &TenantId) -> Result<Github, Unreachable> {
        self.github.of(&self.store, tenant).await
    }

    /// Looks, decides and records.
    ///
    /// # Errors
    /// What stands behind the gate does not answer: nothing was recorded, or what was recorded is found by the request's
    /// idempotency key.
    pub async fn decide(&self, request: &Request<'_>, answer: Answer<'_>) -> Result<Decision, StoreError> {
        let begun = Instant::now();
        let mut decided = Err(StoreError::Busy);
        let mut known = None;
        for _ in 0..TRIES {
            decided = Box::pin(self.try_once(request, answer, begun, &mut known)).await;
            // Changed between reading and writing: decide anew on what it is now.
            if !matches!(decided, Err(StoreError::Conflict)) {
                break;
            }
        }
        match decided {
            Err(StoreError::Missing) => Ok(Decision::CallerGone),
            Ok(decision) => {
                if let Some((outcome, codes)) = outcome(&decision) {
                    let measured = measured(request, outcome, codes, begun);
                    tell(request, &measured);
                    self.store.measure(request.tenant, &measured, clock::now()).await;
                }
                Ok(decision)
            }
            Err(error) => {
                let measured = measured(request, Outcome::Undecided, Vec::new(), begun);
                tell(request, &measured);
                // The store may be what is away, and has been waited for already.
                let counting = self.store.measure(request.tenant, &measured, clock::now());
                let _ = tokio::time::timeout(MEASURING, counting).await;
                Err(if matches!(error, StoreError::Conflict) { StoreError::Busy } else { error })
            }
        }
    }

    /// Looks as [`Gate::decide`] does, and records nothing.
    ///
    /// # Errors
    /// What stands behind the gate does not answer.
    pub async fn check(&self, request: &Request<'_>) -> Result<Result<Checked, Reason>, StoreError> {
        let begun = Instant::now();
        let checked = match tokio::time::timeout(VALIDATION, Box::pin(self.check_once(request))).await {
            Ok(checked) => checked,
            Err(_) => Ok(Err(Reason::TimedOut)),
        };
        let (outcome, codes) = match &checked {
            Ok(Ok(_)) => (Outcome::Valid, Vec::new()),
            Ok(Err(reason)) => (outcome_of(reason), reason.codes()),
            Err(_) => (Outcome::Undecided, Vec::new()),
        };
        tell(request, &measured(request, outcome, codes, begun));
        checked
    }

    async fn check_once(&self, request: &Request<'_>) -> Result<Result<Checked, Reason>, StoreError> {
        let now = clock::now();
        let material = Box::pin(self.store.material(&grant(request), None, None, now)).await?;
        let application = &material.application.body.application;
        let deployment = new_deployment(request, application);
        match self.look(request, &material, &deployment).await? {
            Ok(Resolved { version, reasons, .. }) => {
                Ok(Ok(Checked { version, application_name: application.name.as_str().to_owned(), reasons }))
            }
            Err(reason) => Ok(Err(reason)),
        }
    }

    /// One try. Reads what is registered, decides on it, and writes on condition that it is still so.
    async fn try_once(
        &self,
        request: &Request<'_>,
        answer: Answer<'_>,
        begun: Instant,
        known: &mut Option<Known>,
    ) -> Result<Decision, StoreError> {
        let now = clock::now();
        let charged = charged(request);
        let looked = async {
            let grant = grant(request);
            let material = Box::pin(self.store.material(&grant, request.key, Some(&charged), now)).await?;
            let mut deployment = new_deployment(request, &material.application.body.application);
            deployment.version = request.asked.version.clone();
            deployment.environment = material.deployed_in();
            if material.first_answer.is_some() {
                return Ok((material, deployment, None));
            }
            let looked = self.look(request, &material, &deployment).await?;
            Ok((material, deployment, Some(looked)))
        };
        let left = VALIDATION.saturating_sub(begun.elapsed());
        let (material, deployment, looked) = match tokio::time::timeout(left, looked).await {
            Ok(looked) => looked?,
            Err(_) => return Ok(Decision::Refused(Refusal { reason: Reason::TimedOut, deployment: None })),
        };
        match looked {
            None => material.first_answer.map(Decision::Before).ok_or(StoreError::Conflict),
            Some(Err(reason)) => self.refuse(request, deployment, reason).await.map(Decision::Refused),
            Some(Ok(resolved)) => {
                Box::pin(self.admit(request, material, (deployment, resolved), answer, begun, known)).await
            }
        }
    }

    /// Everything up to the limits: the form of all fields, then the permission, and only then what is configured.
    async fn look(
        &self,
        request: &Request<'_>,
        material: &Material,
        deployment: &Deployment,
    ) -> Result<Result<Resolved, Reason>, StoreError> {
        let (application, asked) = (&material.application.body.application, request.asked);
        let (may_ask, is_public) = match request.caller {
            Caller::Token(_) if !application.webhook_enabled => return Ok(Err(Reason::WebhookDisabled)),
            Caller::Token(_) | Caller::Person { .. } => (true, false),
            Caller::Issue { may_ask } => (may_ask, true),
        };
        if !may_ask {
            let faults = resolve::faults_of_request(application, asked);
            return Ok(Err(if faults.is_empty() { Reason::PermissionDenied } else { Reason::Invalid(faults) }));
        }
        Ok(self.resolve(&grant(request), material, asked, deployment).await?.map_err(|faults| {
            Reason::Invalid(if is_public { resolve::in_public(application, asked, faults) } else { faults })
        }))
    }

    async fn admit(
        &self,
        request: &Request<'_>,
        mut material: Material,
        (mut deployment, resolved): (Deployment, Resolved),
        answer: Answer<'_>,
        begun: Instant,
        known: &mut Option<Known>,
    ) -> Result<Decision, StoreError> {
        let application = &material.application.body.application;
        let refused = |reason| Decision::Refused(Refusal { reason, deployment: None });
        let own = application.limits.is_some();
        let limits = application.limits.unwrap_or(*material.settings.limits.of(request.class));
        let windows = material.windows.take();
        // The admission looks again. Here it saves asking a registry for what is refused anyway.
        if let Some(full) = windows.as_ref().and_then(|windows| windows.charge(&limits, own, clock::now()).err()) {
            return Ok(refused(rate_limited(full)));
        }
        let Resolved { version, hosts, draining, reasons, sources, mut job } = resolved;
        let variables = request.asked.variables.clone().unwrap_or_default();
        deployment.carries_variables = !variables.is_empty();
        deployment.sources = Some(sources);
        let requested = Requested::new(version, &variables)?;
        deployment.targets = hosts.into_iter().map(Target::waiting).collect();
        let now = deployment.created_at;
        for host in draining {
            deployment.note(now, "host-drained", Some(host));
        }
        if !reasons.is_empty() {
            deployment.digest = self.known_digest(&job, begun, known).await;
            job.digest.clone_from(&deployment.digest);
            let approved = requested.approved(&job, resolve::scope(&deployment))?;
            deployment.approval = Some(Approval {
                reasons,
                asked_at: now,
                expires_at: now + jiff::SignedDuration::from_mins(material.settings.approval_timeout_minutes.into()),
                hash: approved.hash.clone(),
                decision: None,
            });
            deployment.status = Status::AwaitingApproval;
            job.approved = Some(approved);
        }
        let waits = deployment.status == Status::AwaitingApproval;
        let answer = answer(&deployment);
        let event =
            event(request, &deployment, if waits { "deployment.approval-requested" } else { "deployment.admitted" });
        let passed = if waits { Outcome::AwaitingApproval } else { Outcome::Admitted };
        let passed = measured(request, passed, Vec::new(), begun);
        let admission = Admission {
            tenant: request.tenant,
            deployment,
            job,
            requested: (waits || !variables.is_empty()).then_some(&requested),
            application: &material.application,
            asked_by: asked_by(request.caller, application),
            concurrency: application.rollout.concurrency,
            queue: material.settings.queue,
            charging: windows.map(|windows| Charging { charged: charged(request), windows, limits, own }),
            origin: Origin::New,
            replay: request.key.map(|key| Replay { key, answer: &answer }),
            event: &event,
            request_id: request.request_id.clone(),
            measured: Some(passed.clone()),
        };
        Ok(match self.store.admit(admission, material.state.clone(), now).await? {
            Admitted::Recorded(deployment) => {
                tell(request, &passed);
                if request.issue.is_some() {
                    self.store.supersede_waiting_of_issue(request.tenant, &deployment, now).await;
                }
                Decision::Recorded(deployment)
            }
            Admitted::Before(first) => Decision::Before(first),
            Admitted::QueueFull => refused(Reason::QueueFull { retry_after: QUEUE_RETRY }),
            Admitted::RateLimited(full) => refused(rate_limited(full)),
            Admitted::TokenGone => Decision::CallerGone,
            // Only of one that had waited.
            Admitted::DecidedBefore(_) | Admitted::Superseded(_) => return Err(StoreError::Conflict),
        })
    }

    /// What the version stands for, asked once for all tries of a request, and within what is left of its time.
    async fn known_digest(&self, job: &Job, begun: Instant, known: &mut Option<Known>) -> Option<Digest> {
        if let Some(known) = known.as_ref().filter(|known| known.image == job.image) {
            return known.digest.clone();
        }
        let left = VALIDATION.saturating_sub(begun.elapsed());
        let digest = tokio::time::timeout(left, self.digest(job)).await.unwrap_or_default();
        *known = Some(Known { image: job.image.clone(), digest: digest.clone() });
        digest
    }

    /// What the version stands for now, so that a decision covers an image and not a name. Where the registry cannot be
    /// asked, the first host finds it out for all.
    pub(crate) async fn digest(&self, job: &Job) -> Option<Digest> {
        match self.registry.digest(&job.image, &job.version, job.credentials.as_ref()).await {
            Ok(digest) => Some(digest),
            Err(why) => {
                tracing::info!(deployment.id = %job.deployment_id, error = &why as &dyn std::error::Error,
                    "what is to be decided on has no digest yet");
                None
            }
        }
    }

    /// Puts the refusal on record, and its id into it. A record beyond the hour's hundred is left out, not the answer.
    async fn refuse(
        &self,
        request: &Request<'_>,
        mut deployment: Deployment,
        reason: Reason,
    ) -> Result<Refusal, StoreError> {
        if !reason.is_recorded() {
            return Ok(Refusal { reason, deployment: None });
        }
        deployment.status = Status::Rejected { reason: reason.summary() };
        let at = deployment.created_at;
        deployment.completed_at = Some(at);
        deployment.note(at, "rejected", None);
        let event = event(request, &deployment, "deployment.rejected");
        let recorded = self.store.record_rejection(request.tenant, &deployment, &event).await?;
        Ok(Refusal { reason, deployment: recorded.then_some(deployment.id) })
    }
}

fn rate_limited(Full { limits: full, free_at }: Full) -> Reason {
    let retry_after = Duration::try_from(free_at.duration_since(clock::now())).unwrap_or_default();
    // Rounded up: a caller that comes back earlier than it may is refused again.
    Reason::RateLimited { full, retry_after: Duration::from_secs(retry_after.as_secs() + 1) }
}

/// How a decision is counted; none for one that is counted with its admission, and for nobody's request.
fn outcome(decision: &Decision) -> Option<(Outcome, Vec<&'static str>)> {
    let Refusal { reason, .. } = match decision {
        Decision::Recorded(_) | Decision::CallerGone => return None,
        Decision::Before(_) => return Some((Outcome::Repeated, Vec::new())),
        Decision::Refused(refusal) => refusal,
    };
    Some((outcome_of(reason), reason.codes()))
}

fn outcome_of(reason: &Reason) -> Outcome {
    match reason {
        Reason::Invalid(_) | Reason::WebhookDisabled | Reason::PermissionDenied => Outcome::Rejected,
        Reason::RateLimited { .. } => Outcome::RateLimited,
        Reason::QueueFull { .. } => Outcome::QueueFull,
        Reason::TimedOut => Outcome::Undecided,
    }
}

/// Every validation is told once, in the log and to what measures: who, how it ended, how long it took, and never a value.
fn tell(request: &Request<'_>, measured: &Measured) {
    measures::emit(measured);
    tracing::info!(
        request.id = request.request_id,
        application.id = %request.application,
        caller = request.user,
        trigger = request.trigger.kind.as_str(),
        outcome = measured.outcome.as_str(),
        codes = measured.codes.join(","),
        duration_ms = measured.duration.as_millis(),
        "validated"
    );
}

fn measured(request: &Request<'_>, outcome: Outcome, codes: Vec<&'static str>, begun: Instant) -> Measured {
    Measured {
        duration: begun.elapsed(),
        outcome,
        codes,
        trigger: request.trigger.kind,
        caller: request.user.to_owned(),
        source: request.source_ip,
    }
}

fn grant(request: &Request<'_>) -> TokenGrant {
    TokenGrant {
        tenant: request.tenant.clone(),
        application_id: request.application,
        project_id: request.project,
        valid_until: None,
    }
}

fn charged<'a>(request: &Request<'a>) -> Charged<'a> {
    Charged { class: request.class, user: request.user, ip: request.source_ip, application: request.application }
}

fn asked_by<'a>(caller: Caller<'a>, application: &Application) -> AskedBy<'a> {
    match caller {
        Caller::Token(sha256) => AskedBy::Token(sha256),
        Caller::Person { name, is_admin } => AskedBy::person(name, is_admin, application),
        Caller::Issue { .. } => AskedBy::Other,
    }
}

fn new_deployment(request: &Request<'_>, application: &Application) -> Deployment {
    let now = clock::now();
    let id = request.id.unwrap_or_else(|| DeploymentId::new(now, random::bytes()));
    let mut deployment = Deployment::requested(id, request.application, application, request.trigger.clone(), now);
    deployment.retry_of = request.retry_of;
    deployment.issue.clone_from(&request.issue);
    deployment
}

fn event(request: &Request<'_>, deployment: &Deployment, action: &str) -> AuditEvent {
    AuditEvent {
        actor: request.trigger.actor.clone(),
        action: action.to_owned(),
        subject: format!("application/{}/deployment/{}", deployment.application_id, deployment.id),
        source_ip: request.trigger.source.clone(),
        request_id: request.request_id.clone(),
    }
}
