//! Admission: what was decided about a request becomes a deployment, all of it in one transaction.

use jiff::Timestamp;
use tidegate_domain::{
    application::{Application, Concurrency},
    deployment::{Deployment, Event, Status},
    id::{DeploymentId, HostName, Revision, TenantId},
    job::Job,
    limit::Limits,
    settings::QueueSettings,
};

use crate::{
    application_state::ApplicationState,
    approvals::Requested,
    audit::{self, AuditEvent},
    catalogue::{Replay, Stored},
    deployments::Part,
    environments::DecidedIn,
    error::{Result, StoreError},
    idempotency::FirstAnswer,
    keys::{self, Kind},
    limits::{Charge, Charged, Full, Windows},
    measures::Measured,
    queues::WakeUp,
    registered::RegisteredApplication,
    store::Store,
    table::{Cancelled, item, number},
    write::{Expression, Write, check, put, update},
};

/// All that an admission writes.
#[derive(Debug)]
pub struct Admission<'a> {
    pub tenant: &'a TenantId,
    /// Without a sequence, in one of two states: `queued`, or `awaiting_approval` for one that somebody has to decide on
    /// first, which takes no place and no turn yet.
    pub deployment: Deployment,
    /// Without a sequence that means anything.
    pub job: Job,
    /// What was asked for; none for what is made from a release.
    pub requested: Option<&'a Requested>,
    /// What the decision was made on: it must not have changed.
    pub application: &'a Stored<RegisteredApplication>,
    /// As `application`; none for what is made from a release as it is.
    pub decided_in: Option<DecidedIn>,
    pub asked_by: AskedBy<'a>,
    /// What becomes of those that wait.
    pub concurrency: Concurrency,
    pub queue: QueueSettings,
    /// None for what costs nothing: what is made from a release, and what was charged when its approval was asked for.
    pub charging: Option<Charging<'a>>,
    pub origin: Origin,
    pub replay: Option<Replay<'a>>,
    pub event: &'a AuditEvent,
    pub request_id: Option<String>,
    /// Counted once it is recorded, beside the wake-ups, so that it costs no time.
    pub measured: Option<Measured>,
}

/// Whose request it is, as far as the admission has to know.
#[derive(Debug, Clone, Copy)]
pub enum AskedBy<'a> {
    /// The application's token, by its SHA-256: it must still be there.
    Token(&'a str),
    /// Somebody who may fill the places of the queue that are kept free: an owner or an administrator, and whoever rolls
    /// back.
    Priority,
    /// Anybody else.
    Other,
}

impl AskedBy<'_> {
    /// A person who may deploy the application.
    pub fn person(name: &str, is_admin: bool, application: &Application) -> Self {
        if is_admin || name == application.owner { Self::Priority } else { Self::Other }
    }
}

/// The limits that a request counts against.
#[derive(Debug)]
pub struct Charging<'a> {
    pub charged: Charged<'a>,
    pub windows: Windows,
    pub limits: Limits,
    /// They are the application's own, with windows of their own.
    pub own: bool,
}

/// Where the deployment comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    New,
    /// It has waited, was read with this revision, and has just been approved.
    Approved(Revision),
}

/// What became of an admission.
#[derive(Debug)]
pub enum Admitted {
    /// As it stands in the table now: queued, or waiting for a decision.
    Recorded(Box<Deployment>),
    /// The same idempotency key was first.
    Before(FirstAnswer),
    /// The queue has no place.
    QueueFull,
    /// These limits are full.
    RateLimited(Full),
    /// The token was revoked meanwhile.
    TokenGone,
    /// Of an approved one: somebody else has decided first.
    DecidedBefore(Box<Deployment>),
    /// Of an approved one: a later deployment was admitted as the only one that is wanted.
    Superseded(DeploymentId),
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
    /// Records a deployment in one transaction: it, its sealed job and request, what it costs, its audit entry, the answer to
    /// its idempotency key; and unless it waits for a decision, its place in the queue and in the application's order and,
    /// if nothing is active, the first assignments.
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
        let mut turn = None;
        loop {
            if let (Origin::Approved(_), Concurrency::Latest, Some(latest)) =
                (admission.origin, admission.concurrency, state.latest)
                && latest > admission.deployment.id
            {
                return Ok(Admitted::Superseded(latest));
            }
            let charge = match admission.charging.as_ref().map(|c| c.windows.charge(&c.limits, c.own, now)).transpose()
            {
                Ok(charge) => charge,
                Err(full) => return Ok(Admitted::RateLimited(full)),
            };
            let draft = self.draft(&mut admission, &state, charge.as_ref(), now).await?;
            let id = draft.deployment.id;
            match self.table.transact(draft.writes).await {
                Ok(()) => {
                    let wake_up = WakeUp { deployment_id: id, request_id: admission.request_id.clone() };
                    tracing::info!(deployment.id = %id, application.id = %application,
                        status = draft.deployment.status.name(), "admitted");
                    let measure = async {
                        if let Some(measured) = &admission.measured {
                            self.measure(tenant, measured, now).await;
                        }
                    };
                    tokio::join!(self.wake(tenant, &draft.hosts, &wake_up), measure);
                    self.supersede(tenant, &draft.superseded, Some(id), now).await;
                    if admission.origin != Origin::New {
                        self.send_notice(tenant, &draft.deployment).await;
                    }
                    if admission.concurrency == Concurrency::Latest {
                        self.supersede_waiting(tenant, application, id, now).await;
                    }
                    return Ok(Admitted::Recorded(Box::new(draft.deployment)));
                }
                Err(Cancelled::Store(error)) => {
                    // The answer may have been lost after the fact: look, never send again blindly.
                    let Ok(found) = self.deployment(tenant, id).await else { return Err(error) };
                    if admission.origin != Origin::New && found.deployment.status == Status::AwaitingApproval {
                        return Err(error);
                    }
                    self.wake(tenant, &draft.hosts, &WakeUp { deployment_id: id, request_id: None }).await;
                    return Ok(recorded(&admission, found.deployment));
                }
                Err(Cancelled::Conditions(parts)) => {
                    if parts.contains(&Part::Deployment) {
                        let found = self.deployment(tenant, id).await?;
                        return Ok(recorded(&admission, found.deployment));
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
                    if parts.contains(&Part::Application) || parts.contains(&Part::Environment) {
                        return Err(StoreError::Conflict);
                    }
                    if parts.contains(&Part::Queue) {
                        return Ok(Admitted::QueueFull);
                    }
                    // Another deployment of the application, or another one that counts against the same limits, came
                    // first: look where they stand now.
                    if turn.is_none() {
                        turn = Some(self.losers.lock().await);
                    } else {
                        crate::table::pause(&mut attempt, until).await?;
                    }
                    let windows = async {
                        match &admission.charging {
                            Some(charging) => self.windows(tenant, &charging.charged).await.map(Some),
                            None => Ok(None),
                        }
                    };
                    let (state_now, windows) = tokio::try_join!(self.application_state(tenant, application), windows)?;
                    state = state_now;
                    if let (Some(charging), Some(windows)) = (&mut admission.charging, windows) {
                        charging.windows = windows;
                    }
                }
            }
        }
    }

    async fn draft(
        &self,
        admission: &mut Admission<'_>,
        state: &ApplicationState,
        charge: Option<&Charge>,
        now: Timestamp,
    ) -> Result<Draft> {
        let tenant = admission.tenant;
        let mut deployment = admission.deployment.clone();
        deployment.adopts = admission.job.adopt;
        let (id, application) = (deployment.id, deployment.application_id);
        let was = match admission.origin {
            Origin::New => None,
            Origin::Approved(revision) => Some(revision),
        };
        let mut writes = vec![
            self.unchanged(tenant, admission.application),
            audit::write(Part::Other, tenant, admission.event, now, &self.table)?,
        ];
        writes.extend(admission.decided_in.iter().flat_map(|decided| self.still_in(tenant, decided)));
        if let AskedBy::Token(sha256) = admission.asked_by {
            writes.push(check(Part::Token, &keys::token(sha256), &self.table, Expression::present()));
        }
        if let Some(charge) = charge {
            writes.extend(self.charge_writes(tenant, charge)?);
        }
        if let Some(requested) = admission.requested {
            writes.push(self.request_write(tenant, id, requested, now).await?);
        }
        if let Some(replay) = admission.replay {
            writes.push(self.keep_answer(Part::Replay, tenant, replay.key, replay.answer, now).await?);
        }
        let index = item(&keys::deployment_of(tenant, application, id), &serde_json::json!({}))?;
        writes.push(put(Part::Other, index, &self.table, None));
        let (mut hosts, mut superseded) = (Vec::new(), Vec::new());
        if deployment.status == Status::AwaitingApproval {
            deployment.note(now, deployment.status.name(), None);
            writes.extend(self.pending_writes(tenant, &deployment)?);
        } else {
            if was.is_some() {
                writes.extend(self.pending_removal(tenant, &deployment));
                writes.extend(self.notice_write(Part::Other, tenant, &deployment, now)?);
            }
            let placed = self.placed(admission, &mut deployment, state, now).await?;
            writes.extend(placed.writes);
            (hosts, superseded) = (placed.hosts, placed.superseded);
        }
        writes.push(self.snapshot_write(Part::Other, tenant, &admission.job).await?);
        writes.push(self.deployment_write(Part::Deployment, tenant, &deployment, was)?);
        Ok(Draft { deployment, hosts, superseded, writes })
    }

    /// Its place in the queue and in the application's order, and its assignments if its turn is now.
    async fn placed(
        &self,
        admission: &mut Admission<'_>,
        deployment: &mut Deployment,
        state: &ApplicationState,
        now: Timestamp,
    ) -> Result<Placed> {
        let tenant = admission.tenant;
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
            state.tell_what_runs(deployment);
            (*deployment, effects) = deployment
                .clone()
                .step(Event::Activated, now)
                .map_err(|e| StoreError::Corrupt { what: "deployment", source: e.into() })?;
        } else {
            if admission.concurrency == Concurrency::Latest {
                superseded = std::mem::take(&mut next.queued);
                next.superseded_by = Some(id);
            }
            next.queued.push(id);
        }
        if admission.concurrency == Concurrency::Latest {
            next.latest = next.latest.max(Some(id));
        }
        if let AskedBy::Token(_) = admission.asked_by {
            next.token_last_used_at = Some(now);
        }
        let live = item(&keys::live(tenant, id), &serde_json::json!({}))?;
        let mut writes = vec![
            self.slot_write(tenant, id, admission.queue.places(matches!(admission.asked_by, AskedBy::Priority))),
            self.state_write(Part::State, tenant, application, state.revision, &next)?,
            put(Part::Other, live, &self.table, None),
        ];
        let assigned = self.assignment_writes(tenant, deployment, &effects, Some(&admission.job)).await?;
        writes.extend(assigned.writes);
        Ok(Placed { writes, hosts: assigned.hosts, superseded })
    }

    fn unchanged(&self, tenant: &TenantId, application: &Stored<RegisteredApplication>) -> Write<Part> {
        let key = keys::thing(tenant, Kind::Application, application.id);
        check(Part::Application, &key, &self.table, Expression::revision(application.revision.0))
    }

    fn slot_write(&self, tenant: &TenantId, id: DeploymentId, places: u32) -> Write<Part> {
        let ids = aws_sdk_dynamodb::types::AttributeValue::Ss(vec![id.to_string()]);
        let change = Expression::new("ADD ids :id").value(":id", ids);
        let condition =
            Expression::new("attribute_not_exists(ids) OR size(ids) < :limit").value(":limit", number(places));
        update(Part::Queue, &keys::queue(tenant), &self.table, change, condition)
    }

    pub(crate) fn free_slot_write<L>(&self, label: L, tenant: &TenantId, id: DeploymentId) -> Write<L> {
        let ids = aws_sdk_dynamodb::types::AttributeValue::Ss(vec![id.to_string()]);
        let change = Expression::new("DELETE ids :id").value(":id", ids);
        update(label, &keys::queue(tenant), &self.table, change, Expression::default())
    }
}

/// What a place costs and gives.
struct Placed {
    writes: Vec<Write<Part>>,
    hosts: Vec<HostName>,
    superseded: Vec<DeploymentId>,
}

/// Of a deployment that was found to be written already: by an earlier try of ours, or by somebody who decided first.
fn recorded(admission: &Admission<'_>, found: Deployment) -> Admitted {
    let ours = |deployment: &Deployment| deployment.approval.as_ref().and_then(|a| a.decision.clone());
    if admission.origin == Origin::New || ours(&found) == ours(&admission.deployment) {
        Admitted::Recorded(Box::new(found))
    } else {
        Admitted::DecidedBefore(Box::new(found))
    }
}
