//! Deployments that are not to go on: called off by a person, or superseded by a later one.

use jiff::Timestamp;
use tidegate_domain::{
    approval::{Decision, Verdict},
    assignment::AssignmentState,
    deployment::{CancelRequest, Deployment, Event, Status, TargetState},
    id::{ApplicationId, DeploymentId, HostName, TenantId},
};

use crate::{
    assignments::StoredAssignment,
    audit::{self, AuditEvent},
    deployments::{Part, StoredDeployment},
    error::{Result, StoreError},
    store::Store,
    table::{patience, pause},
    transition::About,
};

/// Why a deployment cannot be called off any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("every host has ended its part, or is in the middle of its switch")]
pub struct TooLate;

/// The hosts of a deployment that have an assignment, by what can be done about it.
#[derive(Default)]
struct Open {
    /// Taken back.
    unclaimed: Vec<(HostName, StoredAssignment)>,
    /// Asked to give up before the switch.
    claimed: Vec<(HostName, StoredAssignment)>,
}

impl Store {
    /// Calls a deployment off, in one transaction: it and its unclaimed assignments. Hosts that have claimed theirs are asked
    /// to give up before the switch; hosts in the middle of it end it. What was switched goes back if the application says
    /// so.
    pub async fn cancel(
        &self,
        tenant: &TenantId,
        id: DeploymentId,
        event: &AuditEvent,
        now: Timestamp,
    ) -> Result<std::result::Result<Deployment, TooLate>> {
        let until = patience();
        let mut attempt = 0;
        loop {
            let stored = self.deployment(tenant, id).await?;
            if stored.deployment.status.is_final() {
                return Ok(Err(TooLate));
            }
            if is_overdue(&stored.deployment, now) {
                let decision =
                    Decision { verdict: Verdict::TimedOut, at: now, by: "tidegate".to_owned(), comment: None };
                if self.end_waiting(tenant, &stored, decision, None, now).await?.is_some() {
                    return Ok(Err(TooLate));
                }
                pause(&mut attempt, until).await?;
                continue;
            }
            let open = self.open_of(tenant, &stored.deployment).await?;
            let waits = stored.deployment.targets.iter().any(|t| t.state == TargetState::Waiting);
            if !waits && open.unclaimed.is_empty() && open.claimed.is_empty() {
                return Ok(Err(TooLate));
            }
            if let Some(deployment) = self.cancel_once(tenant, &stored, &open, event, now).await? {
                // Its place may be another one's now.
                self.launch(tenant, deployment.application_id, now).await?;
                return Ok(Ok(deployment));
            }
            pause(&mut attempt, until).await?;
        }
    }

    async fn cancel_once(
        &self,
        tenant: &TenantId,
        stored: &StoredDeployment,
        open: &Open,
        event: &AuditEvent,
        now: Timestamp,
    ) -> Result<Option<Deployment>> {
        // One that waits for a decision has no place that could be freed.
        let state = if stored.deployment.status == Status::AwaitingApproval {
            None
        } else {
            Some(self.application_state(tenant, stored.deployment.application_id).await?)
        };
        let unclaimed = open.unclaimed.iter().map(|(host, _)| host.clone()).collect();
        let request = CancelRequest { at: now, by: event.actor.clone() };
        let about = About { state: state.as_ref(), host: None, actor: &event.actor };
        let cancelled = Event::Cancelled { request, unclaimed };
        let mut transition = self.transition(tenant, stored, cancelled, about, now).await?;
        for (host, assignment) in &open.unclaimed {
            transition.writes.push(self.assignment_removal(Part::Assignment, tenant, host, assignment));
        }
        for (host, assignment) in &open.claimed {
            transition.writes.push(self.cancel_request(Part::Assignment, tenant, host, assignment));
            transition.hosts.push(host.clone());
        }
        transition.writes.push(audit::write(Part::Other, tenant, event, now, &self.table)?);
        self.commit(tenant, transition).await
    }

    async fn open_of(&self, tenant: &TenantId, deployment: &Deployment) -> Result<Open> {
        let mut open = Open::default();
        for target in &deployment.targets {
            if !matches!(target.state, TargetState::Assigned | TargetState::Running) {
                continue;
            }
            let assignment = match self.assignment(tenant, &target.host, deployment.id).await {
                Ok(Some(assignment)) => assignment,
                // The sweep sees to what cannot be read.
                Ok(None) | Err(StoreError::Corrupt { .. }) => continue,
                Err(other) => return Err(other),
            };
            match assignment.state {
                // Also one that was claimed and handed back.
                AssignmentState::Queued if !assignment.switching => {
                    open.unclaimed.push((target.host.clone(), assignment));
                }
                AssignmentState::Running { .. } if !assignment.switching => {
                    open.claimed.push((target.host.clone(), assignment));
                }
                // Past the switch: of one that waits, another process goes on with its bake time.
                AssignmentState::Queued | AssignmentState::Running { .. } | AssignmentState::Finished { .. } => {}
            }
        }
        Ok(open)
    }

    /// Records that these deployments have lost their place. Nobody waits for it: one at which it fails is found by the sweep.
    pub(crate) async fn supersede(
        &self,
        tenant: &TenantId,
        ids: &[DeploymentId],
        by: Option<DeploymentId>,
        now: Timestamp,
    ) {
        for id in ids {
            if let Err(error) = self.supersede_one(tenant, *id, by, now).await {
                tracing::warn!(deployment.id = %id, error = &error as &dyn std::error::Error,
                    "could not record that it was superseded; the sweep will");
            }
        }
    }

    /// `false`: it has its place, or has ended.
    pub(crate) async fn supersede_one(
        &self,
        tenant: &TenantId,
        id: DeploymentId,
        by: Option<DeploymentId>,
        now: Timestamp,
    ) -> Result<bool> {
        let until = patience();
        let mut attempt = 0;
        loop {
            let stored = self.deployment(tenant, id).await?;
            if !stored.deployment.is_unassigned() || stored.deployment.status.is_final() {
                return Ok(false);
            }
            if stored.deployment.status == Status::AwaitingApproval {
                return self.supersede_waiting_one(tenant, &stored, by, now).await;
            }
            // Read after the deployment: what is in neither place then was dropped, or its record has changed since.
            let state = self.application_state(tenant, stored.deployment.application_id).await?;
            if state.active == Some(id) || state.queued.contains(&id) {
                return Ok(false);
            }
            let about = About { state: None, host: None, actor: "tidegate" };
            let superseded = Event::Superseded { by: by.or(state.superseded_by) };
            let transition = self.transition(tenant, &stored, superseded, about, now).await?;
            if self.commit(tenant, transition).await?.is_some() {
                return Ok(true);
            }
            pause(&mut attempt, until).await?;
        }
    }
    /// Ends those of an application that wait for a decision and were asked for before `by`: nobody wants them any more.
    /// One at which it fails stays, and cannot be approved: see [`crate::admission::Admitted::Superseded`].
    pub(crate) async fn supersede_waiting(
        &self,
        tenant: &TenantId,
        application: ApplicationId,
        by: DeploymentId,
        now: Timestamp,
    ) {
        let waiting = match self.pending_approvals(tenant, Some(application)).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(application.id = %application, error = &error as &dyn std::error::Error,
                    "could not see what waits for a decision; it cannot be approved any more");
                return;
            }
        };
        let older: Vec<_> = waiting.into_iter().map(|s| s.deployment.id).filter(|id| *id < by).collect();
        self.supersede(tenant, &older, Some(by), now).await;
    }

    /// Ends those that the same issue asked for before: it was changed, and says something else now. One at which it fails
    /// stays until its deadline.
    pub async fn supersede_waiting_of_issue(&self, tenant: &TenantId, latest: &Deployment, now: Timestamp) {
        let waiting = match self.pending_approvals(tenant, Some(latest.application_id)).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(deployment.id = %latest.id, error = &error as &dyn std::error::Error,
                    "could not see what else its issue waits for");
                return;
            }
        };
        let older = waiting.into_iter().map(|stored| stored.deployment);
        let older = older.filter(|d| d.issue == latest.issue && d.id < latest.id).map(|d| d.id).collect::<Vec<_>>();
        self.supersede(tenant, &older, Some(latest.id), now).await;
    }

    async fn supersede_waiting_one(
        &self,
        tenant: &TenantId,
        stored: &StoredDeployment,
        by: Option<DeploymentId>,
        now: Timestamp,
    ) -> Result<bool> {
        let about = About { state: None, host: None, actor: "tidegate" };
        let transition = self.transition(tenant, stored, Event::Superseded { by }, about, now).await?;
        // Decided meanwhile: that holds.
        Ok(self.commit(tenant, transition).await?.is_some())
    }
}

fn is_overdue(deployment: &Deployment, now: Timestamp) -> bool {
    deployment.status == Status::AwaitingApproval
        && deployment.approval.as_ref().is_some_and(|approval| approval.expires_at <= now)
}
