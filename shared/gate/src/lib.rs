//! The gate: one way from a request whose caller is known to a decision, whoever asks and however.
//!
//! A trigger (CI, a person, an issue) makes a [`Request`] of what it was sent. [`Gate::decide`] looks at its form, the
//! permission, the limits and whether somebody has to decide on it, in this order, and records what comes of it.
//! [`Gate::check`] looks in the same way and records nothing. [`Gate::approve`] goes on with one that waited.

mod approve;
pub mod asker;
mod digest;
mod github;
mod preview;
mod request;
mod resolve;
mod telling;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_aws::{
    admission::{Admission, Admitted, Charging, Origin},
    approvals::Requested,
    catalogue::Replay,
    clock,
    error::StoreError,
    idempotency::FirstAnswer,
    limits::Full,
    material::Material,
    measures::Outcome,
    store::Store,
};
use tidegate_domain::{
    approval::{Approval, Reason as ApprovalReason},
    deployment::{Deployment, Status, Target},
    id::TenantId,
    image::Version,
    refusal::{Reason, Refusal},
};
use tidegate_github::Github;
use tidegate_registry::Registry;

pub use approve::{Approval as ApprovalOutcome, Deciding};
use digest::Known;
pub use github::Unreachable;
pub use preview::{Preview, Previewed};
pub use request::{Answer, Asked, Caller, Request};
use request::{asked_by, charged, event, grant, new_deployment};
use resolve::Resolved;
use telling::{measured, outcome, outcome_of, tell};

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
            decided_in: Some(material.decided_in()),
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
