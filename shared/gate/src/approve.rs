//! Decisions of people on requests that wait.

use tidegate_aws::{
    admission::{Admission, Admitted, AskedBy, Origin},
    applications::TokenGrant,
    approvals::{Undecided, in_time, permitted},
    audit::AuditEvent,
    catalogue::Stored,
    clock,
    deployments::StoredDeployment,
    error::StoreError,
    material::Material,
    registered::RegisteredApplication,
};
use tidegate_domain::{
    approval::{Decider, Decision, Verdict},
    deployment::{Deployment, Event, Target},
    id::{DeploymentId, TenantId},
    invalid::FieldError,
    job::Job,
};

use crate::{
    Asked, Gate, QUEUE_RETRY, TRIES,
    github::Unreachable,
    resolve::{self, Resolved},
};

/// Somebody decides on a request that waits.
#[derive(Debug, Clone)]
pub struct Deciding<'a> {
    pub tenant: &'a TenantId,
    pub deployment: DeploymentId,
    pub decider: Decider<'a>,
    /// What the decider has looked at: twelve digits or more of its hash. An approval without one covers nothing.
    pub hash: Option<&'a str>,
    pub comment: Option<&'a str>,
    pub source_ip: Option<std::net::IpAddr>,
    pub request_id: Option<String>,
}

/// What became of a decision.
#[derive(Debug)]
pub enum Approval {
    /// It holds.
    Taken(Box<Deployment>),
    /// It does not wait any more: this is what has become of it.
    NotWaiting(Box<Deployment>),
    /// It is not the decider's to take; why, in words.
    Forbidden(&'static str),
    /// It would not do any more what was looked at. It goes on waiting, under the new hash and with the same deadline.
    Stale(Box<Deployment>),
    /// The application does not allow it any more as it is. It goes on waiting.
    Invalid(Vec<FieldError>),
    /// The queue has no place. It goes on waiting.
    QueueFull { retry_after: std::time::Duration },
    /// What was asked for is not kept any more.
    Gone,
    /// Who asked may not ask any more. It goes on waiting.
    AskerNotPermitted,
    /// Nobody can say now whether who asked may still ask. It goes on waiting.
    AskerUnknown(Unreachable),
}

impl Gate {
    /// Resolves the request anew and, if that comes to what was approved, gives it its place and its turn, in one
    /// transaction with the decision.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for no deployment. After any other it still waits, unless its record says otherwise.
    pub async fn approve(&self, deciding: &Deciding<'_>) -> Result<Approval, StoreError> {
        for _ in 0..TRIES {
            match Box::pin(self.approve_once(deciding)).await {
                Err(StoreError::Conflict) => {}
                other => return other,
            }
        }
        Err(StoreError::Busy)
    }

    /// # Errors
    /// [`StoreError::Missing`] for no deployment. After any other it still waits, unless its record says otherwise.
    pub async fn reject(&self, deciding: &Deciding<'_>) -> Result<Approval, StoreError> {
        let stored = self.store.deployment(deciding.tenant, deciding.deployment).await?;
        let application = self.application(deciding.tenant, &stored).await?;
        let application = &application.body.application;
        let may = permitted(application.approval, deciding.decider, &application.owner);
        let decision = decision(deciding, Verdict::Denied);
        let event = event(deciding, &stored.deployment, "deployment.denied-by");
        let denied = self.store.deny(deciding.tenant, deciding.deployment, decision, may, &event).await?;
        Ok(match denied {
            Ok(deployment) => Approval::Taken(Box::new(deployment)),
            Err(Undecided::NotWaiting(deployment)) => Approval::NotWaiting(deployment),
            Err(Undecided::Forbidden(why)) => Approval::Forbidden(why),
        })
    }

    async fn approve_once(&self, deciding: &Deciding<'_>) -> Result<Approval, StoreError> {
        let (tenant, now) = (deciding.tenant, clock::now());
        let stored = self.store.deployment(tenant, deciding.deployment).await?;
        let application = self.application(tenant, &stored).await?;
        let registered = &application.body.application;
        if let Err(why) = permitted(registered.approval, deciding.decider, &registered.owner)(&stored.deployment) {
            return Ok(Approval::Forbidden(why));
        }
        let Some(decision) = in_time(&stored.deployment, &decision(deciding, Verdict::Approved)) else {
            return Ok(Approval::NotWaiting(Box::new(stored.deployment)));
        };
        if decision.verdict == Verdict::TimedOut {
            let ended = self.store.time_out_approval(tenant, &stored, decision).await?.ok_or(StoreError::Conflict)?;
            return Ok(Approval::NotWaiting(Box::new(ended)));
        }
        let waited_for = stored.deployment.approval.as_ref().map(|approval| approval.hash.clone());
        let is_named = waited_for.as_ref().zip(deciding.hash).is_some_and(|(hash, named)| hash.is_named_by(named));
        if !is_named {
            return Ok(Approval::Stale(Box::new(stored.deployment)));
        }
        match self.may_still_ask(tenant, registered, &stored.deployment).await {
            Ok(true) => {}
            Ok(false) => return Ok(Approval::AskerNotPermitted),
            Err(Unreachable::Store(error)) => return Err(error),
            Err(unknown) => return Ok(Approval::AskerUnknown(unknown)),
        }
        let Some(requested) = self.store.requested(tenant, deciding.deployment, now).await? else {
            return Ok(Approval::Gone);
        };
        let grant = TokenGrant {
            tenant: tenant.clone(),
            application_id: stored.deployment.application_id,
            project_id: registered.project_id,
            valid_until: None,
        };
        let material = Box::pin(self.store.material(&grant, None, None, now)).await?;
        // Whoever asked was judged by the application as it was a moment ago, what it listens to included.
        if material.application.revision != application.revision {
            return Err(StoreError::Conflict);
        }
        let asked = Asked {
            version: Some(requested.version.clone()),
            variables: Some(requested.variables()?),
            faults: Vec::new(),
        };
        let Resolved { hosts, reasons, sources, mut job, .. } =
            match self.resolve(&grant, &material, &asked, &stored.deployment).await? {
                Ok(resolved) => resolved,
                Err(faults) => return Ok(Approval::Invalid(faults)),
            };
        let today = &material.application.body.application;
        let mut deployment = stored.deployment.clone();
        deployment.targets = hosts.into_iter().map(Target::waiting).collect();
        deployment.max_parallel = today.rollout.max_parallel;
        deployment.rollback_on_failure = today.rollout.rollback_on_failure;
        (deployment.environment, deployment.sources) = (material.deployed_in(), Some(sources));
        if deployment.digest.is_none() {
            // It may be known by now; then that is what has to be looked at.
            deployment.digest = self.digest(&job).await;
        }
        // What was looked at is an image, whatever its name stands for by now.
        job.digest.clone_from(&deployment.digest);
        let mut approved = requested.approved(&job, resolve::scope(&deployment))?;
        if waited_for.as_ref() != Some(&approved.hash) {
            // It may be another image by now, and who looks at it again looks at what it is today.
            deployment.digest = self.digest(&job).await;
            job.digest.clone_from(&deployment.digest);
            approved = requested.approved(&job, resolve::scope(&deployment))?;
            let hash = approved.hash.clone();
            job.approved = Some(approved);
            if let Some(approval) = &mut deployment.approval {
                approval.hash = hash;
                approval.reasons = reasons;
            }
            deployment.note(now, "approval-stale", None);
            let kept = self.store.renew_approval(tenant, &stored, deployment, &job, now).await?;
            return Ok(Approval::Stale(Box::new(kept.ok_or(StoreError::Conflict)?)));
        }
        job.approved = Some(approved);
        Box::pin(self.take_over(deciding, &stored, &material, deployment, job, decision)).await
    }

    async fn application(
        &self,
        tenant: &TenantId,
        stored: &StoredDeployment,
    ) -> Result<Stored<RegisteredApplication>, StoreError> {
        self.store.find(tenant, stored.deployment.application_id.0).await
    }

    async fn take_over(
        &self,
        deciding: &Deciding<'_>,
        stored: &StoredDeployment,
        material: &Material,
        deployment: Deployment,
        job: Job,
        decision: Decision,
    ) -> Result<Approval, StoreError> {
        let (tenant, now) = (deciding.tenant, decision.at);
        let (deployment, _) = deployment
            .step(Event::Decided(decision), now)
            .map_err(|e| StoreError::Corrupt { what: "deployment", source: e.into() })?;
        let event = event(deciding, &deployment, "deployment.approved");
        let admission = Admission {
            tenant,
            deployment,
            job,
            requested: None,
            application: &material.application,
            decided_in: Some(material.decided_in()),
            // Whoever decides is an owner or an administrator.
            asked_by: AskedBy::Priority,
            concurrency: material.application.body.application.rollout.concurrency,
            queue: material.settings.queue,
            charging: None,
            origin: Origin::Approved(stored.revision),
            replay: None,
            event: &event,
            request_id: deciding.request_id.clone(),
            measured: None,
        };
        Ok(match self.store.admit(admission, material.state.clone(), now).await? {
            Admitted::Recorded(deployment) => Approval::Taken(deployment),
            Admitted::DecidedBefore(deployment) => Approval::NotWaiting(deployment),
            Admitted::QueueFull => Approval::QueueFull { retry_after: QUEUE_RETRY },
            Admitted::Superseded(by) => {
                let ended = self.store.supersede_approval(tenant, stored.deployment.id, by, now).await?;
                Approval::NotWaiting(Box::new(ended))
            }
            // Nothing of these is asked for here.
            Admitted::Before(_) | Admitted::RateLimited(_) | Admitted::TokenGone => return Err(StoreError::Conflict),
        })
    }
}

fn decision(deciding: &Deciding<'_>, verdict: Verdict) -> Decision {
    Decision {
        verdict,
        at: clock::now(),
        by: deciding.decider.name.to_owned(),
        comment: deciding.comment.map(str::to_owned),
    }
}

fn event(deciding: &Deciding<'_>, deployment: &Deployment, action: &str) -> AuditEvent {
    AuditEvent {
        actor: deciding.decider.name.to_owned(),
        action: action.to_owned(),
        subject: format!("application/{}/deployment/{}", deployment.application_id, deployment.id),
        source_ip: deciding.source_ip.map(|ip| ip.to_string()),
        request_id: deciding.request_id.clone(),
    }
}
