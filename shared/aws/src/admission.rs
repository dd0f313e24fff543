//! Admission: what was decided about a request becomes a deployment, all of it in one transaction.

use jiff::Timestamp;
use tidegate_domain::{
    application::Concurrency,
    deployment::{Deployment, Event},
    id::{DeploymentId, HostName, TenantId},
    job::Job,
};

use crate::{
    application_state::ApplicationState,
    audit::{self, AuditEvent},
    catalogue::{Replay, Stored},
    deployments::Part,
    error::{Result, StoreError},
    idempotency::FirstAnswer,
    keys::{self, Kind},
    queues::WakeUp,
    registered::RegisteredApplication,
    store::Store,
    table::{Cancelled, item, number},
    write::{Expression, Write, check, put, update},
};

/// Deployments of a tenant that may be live at once.
pub const QUEUE_CAPACITY: u32 = 100;
/// Of these, so many are kept free for owners and admins.
pub const QUEUE_RESERVED: u32 = 20;
/// All that an admission writes.
#[derive(Debug)]
pub struct Admission<'a> {
    pub tenant: &'a TenantId,
    /// In state `queued`, without a sequence.
    pub deployment: Deployment,
    /// Without a sequence that means anything.
    pub job: Job,
    /// What the decision was made on: it must not have changed.
    pub application: &'a Stored<RegisteredApplication>,
    pub asked_by: AskedBy<'a>,
    /// What becomes of those that wait.
    pub concurrency: Concurrency,
    pub replay: Option<Replay<'a>>,
    pub event: &'a AuditEvent,
    pub request_id: Option<String>,
}

/// Whose request it is, as far as the admission has to know.
#[derive(Debug, Clone, Copy)]
pub enum AskedBy<'a> {
    /// The application's token, by its SHA-256: it must still be there.
    Token(&'a str),
    /// A person with the permission, who may use the places of the queue that are kept free.
    Person,
}

/// What became of an admission.
#[derive(Debug)]
pub enum Admitted {
    Queued(Box<Deployment>),
    /// The same idempotency key was first.
    Before(FirstAnswer),
    /// The queue has no place.
    QueueFull,
    /// The token was revoked meanwhile.
    TokenGone,
}

/// What one try of an admission comes to.
struct Draft {
    deployment: Deployment,
    /// To be woken.
    hosts: Vec<HostName>,
    /// Those that lose their place.
    superseded: Vec<DeploymentId>,
    writes: Vec<Write<Part>>,
}

impl Store {
    /// Admits a deployment in one transaction: it, its sealed job, its place in the queue and in the application's order,
    /// its audit entry, the answer to its idempotency key, and, if nothing is active, the first assignments.
    ///
    /// A crash before the transaction leaves nothing; one after it leaves a deployment whose hosts find it within a minute,
    /// and superseded ones that have lost their place and are recorded as such by the next sweep.
    pub async fn admit(
        &self,
        mut admission: Admission<'_>,
        mut state: ApplicationState,
        now: Timestamp,
    ) -> Result<Admitted> {
        let tenant = admission.tenant;
        let application = admission.deployment.application_id;
        let until = crate::table::patience();
        let mut attempt = 0;
        loop {
            let draft = self.draft(&mut admission, &state, now).await?;
            let id = draft.deployment.id;
            match self.table.transact(draft.writes).await {
                Ok(()) => {
                    let wake_up = WakeUp { deployment_id: id, request_id: admission.request_id.clone() };
                    tracing::info!(deployment.id = %id, application.id = %application, "admitted");
                    self.wake(tenant, &draft.hosts, &wake_up).await;
                    self.supersede(tenant, &draft.superseded, Some(id), now).await;
                    return Ok(Admitted::Queued(Box::new(draft.deployment)));
                }
                Err(Cancelled::Store(error)) => {
                    // The answer may have been lost after the fact: look, never send again blindly.
                    let Ok(found) = self.deployment(tenant, id).await else { return Err(error) };
                    self.wake(tenant, &draft.hosts, &WakeUp { deployment_id: id, request_id: None }).await;
                    return Ok(Admitted::Queued(Box::new(found.deployment)));
                }
                Err(Cancelled::Conditions(parts)) => {
                    if parts.contains(&Part::Deployment) {
                        let found = self.deployment(tenant, id).await?;
                        return Ok(Admitted::Queued(Box::new(found.deployment)));
                    }
                    if parts.contains(&Part::Replay) {
                        let key = admission.replay.map(|r| r.key).ok_or(StoreError::Conflict)?;
                        return self
                            .first_answer(tenant, key, now)
                            .await?
                            .map(Admitted::Before)
                            .ok_or(StoreError::Conflict);
                    }
                    if parts.contains(&Part::Token) {
                        return Ok(Admitted::TokenGone);
                    }
                    if parts.contains(&Part::Application) {
                        return Err(StoreError::Conflict);
                    }
                    if parts.contains(&Part::Queue) {
                        return Ok(Admitted::QueueFull);
                    }
                    // Another deployment of the application came first: look where the order stands now.
                    crate::table::pause(&mut attempt, until).await?;
                    state = self.application_state(tenant, application).await?;
                }
            }
        }
    }

    async fn draft(&self, admission: &mut Admission<'_>, state: &ApplicationState, now: Timestamp) -> Result<Draft> {
        let tenant = admission.tenant;
        let mut deployment = admission.deployment.clone();
        let (id, application) = (deployment.id, deployment.application_id);
        deployment.sequence = Some(state.next_sequence);
        admission.job.sequence = state.next_sequence;
        deployment.note(now, "queued", None);

        let mut next = state.clone().advanced();
        next.next_sequence = (state.next_sequence.0 + 1).into();
        let mut effects = Vec::new();
        let mut superseded = Vec::new();
        if state.active.is_none() {
            next.active = Some(id);
            state.tell_what_runs(&mut deployment);
            (deployment, effects) = deployment
                .step(Event::Activated, now)
                .map_err(|e| StoreError::Corrupt { what: "deployment", source: e.into() })?;
        } else {
            if admission.concurrency == Concurrency::Latest {
                superseded = std::mem::take(&mut next.queued);
                next.superseded_by = Some(id);
            }
            next.queued.push(id);
        }
        let mut writes = vec![
            self.deployment_write(Part::Deployment, tenant, &deployment, None)?,
            self.snapshot_write(Part::Other, tenant, &admission.job).await?,
            self.unchanged(tenant, admission.application),
            self.slot_write(tenant, id, admission.asked_by),
            audit::write(Part::Other, tenant, admission.event, now, &self.table)?,
        ];
        if let AskedBy::Token(sha256) = admission.asked_by {
            next.token_last_used_at = Some(now);
            writes.push(check(Part::Token, &keys::token(sha256), &self.table, Expression::present()));
        }
        writes.push(self.state_write(Part::State, tenant, application, state.revision, &next)?);
        let index = item(&keys::deployment_of(tenant, application, id), &serde_json::json!({}))?;
        writes.push(put(Part::Other, index, &self.table, None));
        let live = item(&keys::live(tenant, id), &serde_json::json!({}))?;
        writes.push(put(Part::Other, live, &self.table, None));
        let assigned = self.assignment_writes(tenant, &deployment, &effects, Some(&admission.job)).await?;
        writes.extend(assigned.writes);
        if let Some(replay) = admission.replay {
            writes.push(self.keep_answer(Part::Replay, tenant, replay.key, replay.answer, now).await?);
        }
        Ok(Draft { deployment, hosts: assigned.hosts, superseded, writes })
    }

    fn unchanged(&self, tenant: &TenantId, application: &Stored<RegisteredApplication>) -> Write<Part> {
        let key = keys::thing(tenant, Kind::Application, application.id);
        check(Part::Application, &key, &self.table, Expression::revision(application.revision.0))
    }

    fn slot_write(&self, tenant: &TenantId, id: DeploymentId, asked_by: AskedBy<'_>) -> Write<Part> {
        let limit = match asked_by {
            AskedBy::Token(_) => QUEUE_CAPACITY - QUEUE_RESERVED,
            AskedBy::Person => QUEUE_CAPACITY,
        };
        let ids = aws_sdk_dynamodb::types::AttributeValue::Ss(vec![id.to_string()]);
        let change = Expression::new("ADD ids :id").value(":id", ids);
        let condition =
            Expression::new("attribute_not_exists(ids) OR size(ids) < :limit").value(":limit", number(limit));
        update(Part::Queue, &keys::queue(tenant), &self.table, change, condition)
    }

    pub(crate) fn free_slot_write<L>(&self, label: L, tenant: &TenantId, id: DeploymentId) -> Write<L> {
        let ids = aws_sdk_dynamodb::types::AttributeValue::Ss(vec![id.to_string()]);
        let change = Expression::new("DELETE ids :id").value(":id", ids);
        update(label, &keys::queue(tenant), &self.table, change, Expression::default())
    }
}
