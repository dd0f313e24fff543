//! Deployments: reading them, and recording refusals.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    assignment::Running,
    deployment::{Deployment, Status},
    id::{ApplicationId, DeploymentId, Revision, TenantId},
};

use crate::{
    audit::{self, AuditEvent},
    catalogue::{Listed, PageRequest},
    error::{Result, StoreError},
    keys::{self, Key},
    store::Store,
    table::{Cancelled, PageQuery, item, number, record, sort_key},
    write::{Expression, Write, put, update},
};

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    State,
    Application,
    /// The environment, or that it is the active one.
    Environment,
    Token,
    Queue,
    /// A window of accepted requests.
    Limit,
    Replay,
    Deployment,
    Assignment,
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

    /// Records that an authenticated request was refused. `false`: the application has had its hundred in this hour.
    pub async fn record_rejection(
        &self,
        tenant: &TenantId,
        deployment: &Deployment,
        event: &AuditEvent,
    ) -> Result<bool> {
        let (now, application) = (deployment.created_at, deployment.application_id);
        let hour = now.to_string().get(..13).unwrap_or_default().to_owned();
        let change = Expression::new("ADD #count :one SET #ttl = :ttl")
            .name("#count", "count")
            .name("#ttl", "ttl")
            .value(":one", number(1))
            .value(":ttl", number(now.as_second() + 7_200));
        let condition = Expression::new("attribute_not_exists(#count) OR #count < :limit")
            .value(":limit", number(RECORDED_REJECTIONS));
        let index = item(&keys::deployment_of(tenant, application, deployment.id), &serde_json::json!({}))?;
        let writes = vec![
            self.deployment_write(Part::Deployment, tenant, deployment, None)?,
            put(Part::Other, index, &self.table, None),
            update(Part::Queue, &keys::rejections(tenant, application, &hour), &self.table, change, condition),
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
            let Ok(stored) = record::<crate::assignments::StoredAssignment>(found, "assignment") else { continue };
            let of_host = |t: &&mut tidegate_domain::deployment::Target| keys::host_partition(tenant, &t.host) == host;
            if let Some(target) = deployment.targets.iter_mut().find(of_host) {
                target.progress = stored.progress;
                target.started_at = target.started_at.or(stored.started_at);
            }
        }
        Ok(deployment)
    }
}

/// Whether a status is one that the list can be filtered by.
pub fn is_status(name: &str) -> bool {
    let running = Running::None;
    let (failed, cancelled) = (Status::Failed { running }, Status::Cancelled { running });
    let superseded = Status::Superseded { by: None };
    let rejected = Status::Rejected { reason: String::new() };
    let all = [
        Status::Queued,
        Status::Running,
        Status::Succeeded,
        failed,
        Status::RolledBack,
        cancelled,
        superseded,
        rejected,
        Status::AwaitingApproval,
        Status::Denied,
        Status::TimedOut,
    ];
    all.iter().any(|s| s.name() == name)
}
