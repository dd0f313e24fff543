//! Deployments: reading them, admitting them, and recording refusals.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    deployment::{Deployment, Effect, Event, Status},
    id::{ApplicationId, DeploymentId, HostName, Revision, TenantId},
    job::Job,
};
use zeroize::Zeroizing;

use crate::{
    applications::{ApplicationState, TokenGrant},
    audit::{self, AuditEvent},
    catalogue::{Listed, PageRequest, Replay, Stored},
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    idempotency::FirstAnswer,
    keys::{self, Key, Kind},
    queues::WakeUp,
    registered::RegisteredApplication,
    store::Store,
    table::{Cancelled, PageQuery, item, number, record, sort_key},
    write::{Expression, Write, check, put, update},
};

/// Deployments of a tenant that may be live at once.
pub const QUEUE_CAPACITY: u32 = 100;
/// Of these, so many are kept free for owners and admins.
pub const QUEUE_RESERVED: u32 = 20;
/// Refusals of one application that are recorded in an hour.
const RECORDED_REJECTIONS: u32 = 100;
/// Pages that a filtered list reads for one answer; it may then be short, with a cursor.
const FILTERED_PAGES: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDeployment {
    #[serde(flatten)]
    pub deployment: Deployment,
    pub revision: Revision,
}

/// What a list of deployments shows.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFilter {
    pub application: Option<ApplicationId>,
    /// Exact status.
    pub status: Option<String>,
    pub trigger: Option<String>,
    /// Created at or after.
    pub from: Option<Timestamp>,
    /// Created before.
    pub to: Option<Timestamp>,
}

impl DeploymentFilter {
    fn admits(&self, deployment: &Deployment) -> bool {
        self.application.is_none_or(|id| deployment.application_id == id)
            && self.status.as_deref().is_none_or(|status| deployment.status.name() == status)
            && self.trigger.as_deref().is_none_or(|trigger| deployment.trigger.kind.as_str() == trigger)
            && self.from.is_none_or(|from| deployment.created_at >= from)
            && self.to.is_none_or(|to| deployment.created_at < to)
    }
}

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
    /// The token that asked: it must still be there.
    pub token_sha256: &'a str,
    pub replay: Option<Replay<'a>>,
    pub event: &'a AuditEvent,
    pub request_id: Option<String>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    State,
    Application,
    Token,
    Queue,
    Replay,
    Deployment,
    Other,
}

impl Store {
    pub async fn deployment(&self, tenant: &TenantId, id: DeploymentId) -> Result<StoredDeployment> {
        self.table.read(&keys::deployment(tenant, id), "deployment").await?.ok_or(StoreError::Missing)
    }

    /// The newest first. A filtered page may be shorter than its limit and still have a cursor.
    pub async fn list_deployments(
        &self,
        tenant: &TenantId,
        filter: &DeploymentFilter,
        page: &PageRequest,
    ) -> Result<Listed<StoredDeployment>> {
        let list = filter.application.map_or_else(|| keys::deployments(tenant), |id| keys::deployments_of(tenant, id));
        // Ids are in order of time, so that times bound the sort keys.
        let from = filter.from.map(|at| DeploymentId::new(at, [0; 10]).to_string());
        let to = filter.to.map(|at| DeploymentId::new(at, [0xff; 10]).to_string());
        let mut after = self.read_cursor(tenant, &list, page.cursor.as_deref()).await?;
        let mut data = Vec::new();
        for _ in 0..FILTERED_PAGES {
            let query = PageQuery {
                from: from.as_deref(),
                to: to.as_deref(),
                after: after.as_deref(),
                limit: Some(page.limit - data.len()),
                newest_first: true,
            };
            let found = self.table.page(&list, &query).await?;
            let items = if filter.application.is_some() {
                self.deployments_named(tenant, &found.items).await?
            } else {
                found.items
            };
            for item in items {
                let stored: StoredDeployment = record(item, "deployment")?;
                if filter.admits(&stored.deployment) {
                    data.push(stored);
                }
            }
            after = found.next;
            if after.is_none() || data.len() >= page.limit {
                break;
            }
        }
        data.sort_by_key(|stored| std::cmp::Reverse(stored.deployment.id));
        Ok(Listed { data, next_cursor: self.write_cursor(tenant, &list, after).await? })
    }

    async fn deployments_named(
        &self,
        tenant: &TenantId,
        index: &[crate::table::Item],
    ) -> Result<Vec<crate::table::Item>> {
        let ids = index.iter().filter_map(sort_key).filter_map(|sk| DeploymentId::parse(sk).ok());
        let keys: Vec<Key> = ids.map(|id| keys::deployment(tenant, id)).collect();
        self.table.batch_get(&keys).await
    }

    /// Admits a deployment in one transaction: it, its sealed job, its place in the queue and in the application's order,
    /// its audit entry, the answer to its idempotency key, and, if nothing is active, the first assignments.
    ///
    /// A crash before the transaction leaves nothing; one after it leaves a deployment whose hosts find it within a minute.
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
            let (deployment, hosts, writes) = self.admission_writes(&mut admission, &state, now).await?;
            let id = deployment.id;
            match self.table.transact(writes).await {
                Ok(()) => {
                    let wake_up = WakeUp { deployment_id: id, request_id: admission.request_id.clone() };
                    tracing::info!(deployment.id = %id, application.id = %application, "admitted");
                    self.wake(tenant, &hosts, &wake_up).await;
                    return Ok(Admitted::Queued(Box::new(deployment)));
                }
                Err(Cancelled::Store(error)) => {
                    // The answer may have been lost after the fact: look, never send again blindly.
                    let Ok(found) = self.deployment(tenant, id).await else { return Err(error) };
                    self.wake(tenant, &hosts, &WakeUp { deployment_id: id, request_id: None }).await;
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

    async fn admission_writes(
        &self,
        admission: &mut Admission<'_>,
        state: &ApplicationState,
        now: Timestamp,
    ) -> Result<(Deployment, Vec<HostName>, Vec<Write<Part>>)> {
        let tenant = admission.tenant;
        let mut deployment = admission.deployment.clone();
        let (id, application) = (deployment.id, deployment.application_id);
        deployment.sequence = Some(state.next_sequence);
        admission.job.sequence = state.next_sequence;
        deployment.note(now, "queued", None);

        let mut next = state.clone().advanced();
        next.next_sequence = (state.next_sequence.0 + 1).into();
        next.token_last_used_at = Some(now);
        let mut hosts = Vec::new();
        if state.active.is_none() {
            next.active = Some(id);
            let (activated, effects) = deployment
                .step(Event::Activated, now)
                .map_err(|e| StoreError::Corrupt { what: "deployment", source: e.into() })?;
            deployment = activated;
            hosts = assigned(&effects);
        } else {
            next.queued.push(id);
        }
        let mut writes = vec![
            self.deployment_write(Part::Deployment, tenant, &deployment, None)?,
            self.snapshot_write(tenant, &admission.job).await?,
            self.state_write(Part::State, tenant, application, state.revision, &next)?,
            self.unchanged(tenant, admission.application),
            self.slot_write(tenant, id),
            check(Part::Token, &keys::token(admission.token_sha256), &self.table, Expression::present()),
            audit::write(Part::Other, tenant, admission.event, now, &self.table)?,
        ];
        let index = item(&keys::deployment_of(tenant, application, id), &serde_json::json!({}))?;
        writes.push(put(Part::Other, index, &self.table, None));
        let live = item(&keys::live(tenant, id), &serde_json::json!({}))?;
        writes.push(put(Part::Other, live, &self.table, None));
        for host in &hosts {
            writes.push(self.assignment_write(Part::Other, tenant, host, &admission.job).await?);
        }
        if let Some(replay) = admission.replay {
            writes.push(self.keep_answer(Part::Replay, tenant, replay.key, replay.answer, now).await?);
        }
        Ok((deployment, hosts, writes))
    }

    /// Records that an authenticated request was refused. `false`: the application has had its hundred in this hour.
    pub async fn record_rejection(
        &self,
        grant: &TokenGrant,
        deployment: &Deployment,
        event: &AuditEvent,
    ) -> Result<bool> {
        let (tenant, now) = (&grant.tenant, deployment.created_at);
        let hour = now.to_string().get(..13).unwrap_or_default().to_owned();
        let change = Expression::new("ADD #count :one SET #ttl = :ttl")
            .name("#count", "count")
            .name("#ttl", "ttl")
            .value(":one", number(1))
            .value(":ttl", number(now.as_second() + 7_200));
        let condition = Expression::new("attribute_not_exists(#count) OR #count < :limit")
            .value(":limit", number(RECORDED_REJECTIONS));
        let index = item(&keys::deployment_of(tenant, grant.application_id, deployment.id), &serde_json::json!({}))?;
        let writes = vec![
            self.deployment_write(Part::Deployment, tenant, deployment, None)?,
            put(Part::Other, index, &self.table, None),
            update(Part::Queue, &keys::rejections(tenant, grant.application_id, &hour), &self.table, change, condition),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        match self.table.transact(writes).await {
            Ok(()) => Ok(true),
            Err(Cancelled::Conditions(_)) => Ok(false),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }

    pub(crate) fn deployment_write<L>(
        &self,
        label: L,
        tenant: &TenantId,
        deployment: &Deployment,
        was: Option<Revision>,
    ) -> Result<Write<L>> {
        let revision = Revision(was.map_or(1, |r| r.0 + 1));
        let stored = StoredDeployment { deployment: deployment.clone(), revision };
        let condition = was.map_or_else(Expression::absent, |r| Expression::revision(r.0));
        Ok(put(label, item(&keys::deployment(tenant, deployment.id), &stored)?, &self.table, Some(condition)))
    }

    async fn snapshot_write(&self, tenant: &TenantId, job: &Job) -> Result<Write<Part>> {
        let plain = serde_json::to_vec(job).map_err(|e| StoreError::Corrupt { what: "job", source: e.into() })?;
        let plain = Zeroizing::new(plain);
        let id = job.deployment_id.to_string();
        let place = Place { kind: "snapshot", id: &id, version: 1 };
        let sealed = self.seal(tenant, Purpose::Snapshot, place, &plain).await?;
        let item = item(&keys::snapshot(tenant, job.deployment_id), &serde_json::json!({ "sealed": sealed }))?;
        Ok(put(Part::Other, item, &self.table, None))
    }

    pub(crate) async fn open_snapshot(&self, tenant: &TenantId, id: DeploymentId) -> Result<Job> {
        #[derive(Deserialize)]
        struct Record {
            sealed: String,
        }
        let found: Option<Record> = self.table.read(&keys::snapshot(tenant, id), "snapshot").await?;
        let sealed = found.ok_or_else(|| StoreError::unreadable("snapshot", "it is gone"))?.sealed;
        let id = id.to_string();
        let place = Place { kind: "snapshot", id: &id, version: 1 };
        let plain = self.sealer.open(&self.table, tenant, Purpose::Snapshot, place, &sealed).await?;
        serde_json::from_slice(plain.expose()).map_err(|e| StoreError::Corrupt { what: "job", source: e.into() })
    }

    fn unchanged(&self, tenant: &TenantId, application: &Stored<RegisteredApplication>) -> Write<Part> {
        let key = keys::thing(tenant, Kind::Application, application.id);
        check(Part::Application, &key, &self.table, Expression::revision(application.revision.0))
    }

    fn slot_write(&self, tenant: &TenantId, id: DeploymentId) -> Write<Part> {
        let ids = aws_sdk_dynamodb::types::AttributeValue::Ss(vec![id.to_string()]);
        let change = Expression::new("ADD ids :id").value(":id", ids);
        let condition = Expression::new("attribute_not_exists(ids) OR size(ids) < :limit")
            .value(":limit", number(QUEUE_CAPACITY - QUEUE_RESERVED));
        update(Part::Queue, &keys::queue(tenant), &self.table, change, condition)
    }

    pub(crate) fn free_slot_write<L>(&self, label: L, tenant: &TenantId, id: DeploymentId) -> Write<L> {
        let ids = aws_sdk_dynamodb::types::AttributeValue::Ss(vec![id.to_string()]);
        let change = Expression::new("DELETE ids :id").value(":id", ids);
        update(label, &keys::queue(tenant), &self.table, change, Expression::default())
    }

    /// What the hosts say of their open assignments, put into a deployment that is being shown. Nothing is written: the
    /// record follows with the hosts' reports.
    pub async fn with_live_progress(&self, tenant: &TenantId, mut deployment: Deployment) -> Result<Deployment> {
        if deployment.status.is_final() {
            return Ok(deployment);
        }
        let keys: Vec<Key> =
            deployment.targets.iter().map(|t| keys::assignment(tenant, &t.host, deployment.id)).collect();
        for found in self.table.batch_get(&keys).await? {
            let host = found.get("pk").and_then(|v| v.as_s().ok()).cloned().unwrap_or_default();
            let stored: crate::assignments::StoredAssignment = record(found, "assignment")?;
            let of_host = |t: &&mut tidegate_domain::deployment::Target| keys::host_partition(tenant, &t.host) == host;
            if let Some(target) = deployment.targets.iter_mut().find(of_host) {
                target.progress = stored.progress;
                target.started_at = target.started_at.or(stored.started_at);
            }
        }
        Ok(deployment)
    }
}

pub(crate) fn assigned(effects: &[Effect]) -> Vec<HostName> {
    let hosts = |effect: &Effect| match effect {
        Effect::Assign { hosts } => hosts.clone(),
        Effect::Finish | Effect::Release { .. } => Vec::new(),
    };
    effects.iter().flat_map(hosts).collect()
}

/// Whether a status is one that the list can be filtered by.
pub fn is_status(name: &str) -> bool {
    let failed = Status::Failed { running: tidegate_domain::assignment::Running::None };
    let rejected = Status::Rejected { reason: String::new() };
    [Status::Queued, Status::Running, Status::Succeeded, failed, Status::RolledBack, rejected]
        .iter()
        .any(|s| s.name() == name)
}
