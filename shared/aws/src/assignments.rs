//! Assignments as items of a host's partition: written and folded by the functions, worked on by the host.

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    assignment::{Assignment, AssignmentState, Progress},
    id::{ApplicationId, DeploymentId, Epoch, HostName, TenantId},
    job::{Action, Job},
};
use zeroize::Zeroizing;

use crate::{
    envelope::Place,
    error::{Result, StoreError},
    keys,
    store::Store,
    table::{item, number, text},
    write::{Expression, Write, delete, put, update},
};

/// An assignment with its sealed job, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredAssignment {
    pub deployment_id: DeploymentId,
    /// Whose container is to stand there afterwards: label `tidegate.deployment`.
    pub release: DeploymentId,
    /// What is to be done: also told while the job cannot be opened.
    #[serde(default)]
    pub action: Action,
    pub application_id: ApplicationId,
    pub epoch: Epoch,
    /// The epoch it was written with, which the sealed job is bound to.
    pub sealed_epoch: Epoch,
    pub sealed_job: String,
    #[serde(flatten)]
    pub state: AssignmentState,
    pub attempts: u32,
    pub next_attempt_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub progress: Progress,
    /// Somebody has called it off after it was claimed. Obeyed before the switch.
    #[serde(default)]
    pub cancel_requested: bool,
    /// From here on the host commits or restores by itself, and nobody can call it off.
    #[serde(default)]
    pub switching: bool,
}

impl StoredAssignment {
    pub fn assignment(&self) -> Assignment {
        Assignment {
            state: self.state.clone(),
            epoch: self.epoch,
            attempts: self.attempts,
            next_attempt_at: self.next_attempt_at,
            started_at: self.started_at,
            completed_at: self.completed_at,
            progress: self.progress.clone(),
        }
    }
}

fn as_read(assignment: &StoredAssignment) -> Expression {
    let status = match assignment.state {
        AssignmentState::Queued => "queued",
        AssignmentState::Running { .. } => "running",
        AssignmentState::Finished { .. } => "finished",
    };
    Expression::new("#epoch = :was AND #status = :status")
        .name("#epoch", "epoch")
        .name("#status", "status")
        .value(":was", number(assignment.epoch))
        .value(":status", text(status))
}

/// Where a sealed job belongs.
pub(crate) fn job_place(deployment: &str, sealed_epoch: Epoch) -> Place<'_> {
    Place { kind: "job", id: deployment, version: sealed_epoch.0 }
}

impl Store {
    /// The write of a new assignment. It never replaces one: a second wave pass finds the first one's.
    pub(crate) async fn assignment_write<L>(
        &self,
        label: L,
        tenant: &TenantId,
        host: &HostName,
        job: &Job,
        epoch: Epoch,
    ) -> Result<Write<L>> {
        let fresh = Assignment::queued(epoch);
        let plain = serde_json::to_vec(job).map_err(|e| StoreError::Corrupt { what: "job", source: e.into() })?;
        let plain = Zeroizing::new(plain);
        let deployment = job.deployment_id.to_string();
        let sealed_job = self.sealer.seal_job(tenant, host, job_place(&deployment, fresh.epoch), &plain).await?;
        let stored = StoredAssignment {
            deployment_id: job.deployment_id,
            release: job.release,
            action: job.action,
            application_id: job.application_id,
            epoch: fresh.epoch,
            sealed_epoch: fresh.epoch,
            sealed_job,
            state: fresh.state,
            attempts: fresh.attempts,
            next_attempt_at: fresh.next_attempt_at,
            started_at: fresh.started_at,
            completed_at: fresh.completed_at,
            progress: fresh.progress,
            cancel_requested: false,
            switching: false,
        };
        let item = item(&keys::assignment(tenant, host, job.deployment_id), &stored)?;
        Ok(put(label, item, &self.table, Some(Expression::absent())))
    }

    pub async fn assignment(
        &self,
        tenant: &TenantId,
        host: &HostName,
        id: DeploymentId,
    ) -> Result<Option<StoredAssignment>> {
        self.table.read(&keys::assignment(tenant, host, id), "assignment").await
    }

    /// The write that removes an assignment, if it is still as it was read: in the same hands, and in the same status.
    pub(crate) fn assignment_removal<L>(
        &self,
        label: L,
        tenant: &TenantId,
        host: &HostName,
        assignment: &StoredAssignment,
    ) -> Write<L> {
        let condition = as_read(assignment);
        delete(label, &keys::assignment(tenant, host, assignment.deployment_id), &self.table, Some(condition))
    }

    /// The write that asks the holder of a claimed assignment to give it up before the switch.
    pub(crate) fn cancel_request<L>(
        &self,
        label: L,
        tenant: &TenantId,
        host: &HostName,
        assignment: &StoredAssignment,
    ) -> Write<L> {
        let mut condition = as_read(assignment);
        condition.text.push_str(" AND switching = :no");
        let condition = condition.value(":no", AttributeValue::Bool(false));
        let change = Expression::new("SET cancelRequested = :yes").value(":yes", AttributeValue::Bool(true));
        update(label, &keys::assignment(tenant, host, assignment.deployment_id), &self.table, change, condition)
    }
}
