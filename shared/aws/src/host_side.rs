//! All that a worker can do with AWS: look into its own host's partition, change its own assignments, open what was sealed
//! for its host, receive from its own queue, report. `infra/host.yaml` grants exactly this.

mod tasks;

use std::{fmt::Write as _, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use tidegate_domain::{
    assignment::{AssignmentState, LEASE, Outcome, Progress},
    id::{DeploymentId, Epoch, HostName, TenantId},
    job::Job,
};

use crate::{
    approvals,
    assignments::{StoredAssignment, job_place},
    clients::Clients,
    envelope::JobOpener,
    error::{Result, StoreError},
    hosts::Heartbeat,
    keys::{self, Key},
    queues::{Queue, Received, Report},
    random,
    table::{Item, Table, number, text},
    write::Expression,
};

pub use tasks::Work;

/// Names of the things in AWS that one host may touch.
#[derive(Debug, Clone)]
pub struct HostConfig {
    pub tenant: TenantId,
    pub host: HostName,
    pub table: String,
    pub queue_url: String,
    pub reports_queue_url: String,
}

#[derive(Debug, Clone)]
pub struct HostSide {
    tenant: TenantId,
    host: HostName,
    table: Table,
    opener: JobOpener,
    queue: Queue,
    reports: Queue,
}

/// Another process has taken the assignment over, or it is gone. What was done so far does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the assignment is no longer this process's")]
pub struct Lost;

/// Why work that has not come to the switch must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// See [`Lost`].
    #[error("the assignment is no longer this process's")]
    Lost,
    /// A person has called it off. The assignment is still this process's, to be finished as `cancelled`.
    #[error("the deployment was called off")]
    Cancelled,
}

impl HostSide {
    pub fn new(clients: &Clients, config: HostConfig) -> Self {
        Self {
            table: Table::new(clients.dynamodb.clone(), config.table),
            opener: JobOpener::new(clients.kms.clone()),
            queue: Queue::new(clients.sqs.clone(), config.queue_url),
            reports: Queue::new(clients.sqs.clone(), config.reports_queue_url),
            tenant: config.tenant,
            host: config.host,
        }
    }

    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Every assignment that is not folded, oldest first.
    pub async fn assignments(&self) -> Result<Vec<StoredAssignment>> {
        Ok(self.look().await?.assignments)
    }

    /// The job of an assignment.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it was not sealed for this host, deployment and epoch, or is not what was approved.
    pub async fn open(&self, assignment: &StoredAssignment) -> Result<Job> {
        let deployment = assignment.deployment_id.to_string();
        let place = job_place(&deployment, assignment.sealed_epoch);
        let plain = self.opener.open(&self.tenant, &self.host, place, &assignment.sealed_job).await?;
        let job: Job = serde_json::from_slice(plain.expose()).map_err(StoreError::corrupt_json("job"))?;
        if let Some(approved) = &job.approved
            && !(approved.scope.covers(&self.host, &job) && approvals::covers(approved, &job)?)
        {
            let other = "its approval covers something else, or this worker is older than what sealed it; see whether there is a newer one";
            return Err(StoreError::unreadable("job", other));
        }
        Ok(job)
    }

    /// Takes the assignment as it was read, with the next epoch and a lease. `Ok(Err(Lost))`: it has changed meanwhile.
    /// Not `committed`, it can be called off until it is proven again, whatever an earlier attempt had come to.
    pub async fn claim(
        &self,
        assignment: &StoredAssignment,
        epoch: Epoch,
        progress: &Progress,
        committed: bool,
        now: Timestamp,
    ) -> Result<Result<(), Lost>> {
        // The clock tells no two claims of one millisecond apart; this does, so that one knows its own write again.
        let own = i64::from(u32::from_be_bytes(random::bytes()) % 1_000_000);
        let lease_until = now + LEASE + SignedDuration::from_nanos(own);
        let change = Expression::new(
            "SET #epoch = :epoch, #status = :running, leaseUntil = :lease, attempts = :attempts, \
             startedAt = :at, progress = :progress, switching = :switching",
        )
        .name("#epoch", "epoch")
        .name("#status", "status")
        .value(":epoch", number(epoch))
        .value(":running", text("running"))
        .value(":lease", text(lease_until.to_string()))
        .value(":switching", AttributeValue::Bool(assignment.switching && committed))
        .value(":attempts", number(assignment.attempts + 1))
        .value(":at", text(assignment.started_at.unwrap_or(now).to_string()))
        .value(":progress", progress_value(progress)?);
        let condition = Expression::new("#epoch = :was AND #status <> :finished")
            .value(":was", number(assignment.epoch))
            .value(":finished", text("finished"));
        // Nobody else's lease ends at the same nanosecond.
        let is_ours = |a: &StoredAssignment| a.epoch == epoch && a.state == AssignmentState::Running { lease_until };
        self.change_once(assignment.deployment_id, change, condition, is_ours).await
    }

    /// Before the switch: keeps the lease until `until`, tells the progress, and hears whether it was called off.
    pub async fn renew(
        &self,
        id: DeploymentId,
        epoch: Epoch,
        until: Timestamp,
        progress: &Progress,
    ) -> Result<Result<(), Interrupted>> {
        self.unless_cancelled(id, epoch, lease(until, progress)?).await
    }

    /// Right before the switch: the lease lasts until `until`, and from now on nobody can call it off.
    pub async fn prove(
        &self,
        id: DeploymentId,
        epoch: Epoch,
        until: Timestamp,
        progress: &Progress,
    ) -> Result<Result<(), Interrupted>> {
        let mut change = lease(until, progress)?;
        change.text.push_str(", switching = :yes");
        self.unless_cancelled(id, epoch, change.value(":yes", AttributeValue::Bool(true))).await
    }

    /// After [`HostSide::prove`]: keeps the lease until `until` and tells the progress.
    pub async fn keep(
        &self,
        id: DeploymentId,
        epoch: Epoch,
        until: Timestamp,
        progress: &Progress,
    ) -> Result<Result<(), Lost>> {
        self.change(id, lease(until, progress)?, held(epoch)).await
    }

    async fn unless_cancelled(
        &self,
        id: DeploymentId,
        epoch: Epoch,
        change: Expression,
    ) -> Result<Result<(), Interrupted>> {
        let mut condition = held(epoch);
        condition.text.push_str(" AND cancelRequested = :no");
        let condition = condition.value(":no", AttributeValue::Bool(false));
        match self.change(id, change, condition).await? {
            Ok(()) => Ok(Ok(())),
            // One of the two; who looks closer reads the whole assignment, which is rarely needed.
            Err(Lost) if self.holds(id, epoch).await? => Ok(Err(Interrupted::Cancelled)),
            Err(Lost) => Ok(Err(Interrupted::Lost)),
        }
    }

    /// Gives it back. With `next_attempt_at` nothing of it was done, and it can be called off until it is begun anew; without,
    /// another process goes on at once, perhaps with a bake time, which cannot be called off.
    pub async fn hand_back(
        &self,
        id: DeploymentId,
        epoch: Epoch,
        next_attempt_at: Option<Timestamp>,
        attempts: u32,
    ) -> Result<Result<(), Lost>> {
        let always = "SET #status = :queued, attempts = :attempts";
        let change = match next_attempt_at {
            Some(at) => Expression::new(&format!("{always}, switching = :no, nextAttemptAt = :next REMOVE leaseUntil"))
                .value(":next", text(at.to_string()))
                .value(":no", AttributeValue::Bool(false)),
            None => Expression::new(&format!("{always} REMOVE leaseUntil, nextAttemptAt")),
        };
        let change =
            change.name("#status", "status").value(":queued", text("queued")).value(":attempts", number(attempts));
        self.change(id, change, held(epoch)).await
    }

    /// Records how it ended. After this a crash loses nothing: the next process reports it.
    pub async fn finish(
        &self,
        id: DeploymentId,
        epoch: Epoch,
        outcome: &Outcome,
        progress: &Progress,
        now: Timestamp,
    ) -> Result<Result<(), Lost>> {
        let written = serde_dynamo::to_attribute_value(outcome).map_err(StoreError::corrupt("outcome"))?;
        let change = Expression::new(
            "SET #status = :finished, outcome = :outcome, progress = :progress, completedAt = :at REMOVE leaseUntil",
        )
        .name("#status", "status")
        .value(":finished", text("finished"))
        .value(":outcome", written)
        .value(":progress", progress_value(progress)?)
        .value(":at", text(now.to_string()));
        let is_ours = |a: &StoredAssignment| {
            a.epoch == epoch && matches!(&a.state, AssignmentState::Finished { outcome: said } if said == outcome)
        };
        self.change_once(id, change, held(epoch), is_ours).await
    }

    /// Asks the functions to look at the assignment.
    pub async fn report(&self, id: DeploymentId) -> Result<()> {
        let report = Report { tenant: self.tenant.clone(), host: self.host.clone(), deployment_id: id };
        self.reports.send(&report).await
    }

    /// Whether the host's queue answers, without taking anything off it.
    pub async fn check_queue(&self) -> Result<()> {
        self.queue.check().await
    }

    /// Waits up to `wait` for a wake-up.
    pub async fn wake_ups(&self, wait: Duration) -> Result<Vec<Received>> {
        self.queue.receive(wait).await
    }

    pub async fn delete_wake_up(&self, message: &Received) -> Result<()> {
        self.queue.delete(message).await
    }

    /// Replaces what was said before: one write of one item.
    pub async fn beat(&self, heartbeat: &Heartbeat) -> Result<()> {
        let said: Item = serde_dynamo::to_item(heartbeat).map_err(StoreError::corrupt("heartbeat"))?;
        let mut change = Expression::default();
        // An update, as the host's role allows no put; names as placeholders, as some are words of the language.
        for (index, (name, value)) in said.into_iter().enumerate() {
            let separator = if index == 0 { "SET" } else { "," };
            write!(change.text, "{separator} #f{index} = :f{index}").expect("writing to a string does not fail");
            change = change.name(&format!("#f{index}"), &name).value(&format!(":f{index}"), value);
        }
        let key = keys::heartbeat(&self.tenant, &self.host);
        self.table.update(&key, change, Expression::default()).await.map(|_| ())
    }

    /// Whether an assignment is still there and held with this epoch.
    pub async fn holds(&self, id: DeploymentId, epoch: Epoch) -> Result<bool> {
        let found: Option<StoredAssignment> = self.table.read(&self.key(id), "assignment").await?;
        Ok(found.is_some_and(|a| a.epoch == epoch && matches!(a.state, AssignmentState::Running { .. })))
    }

    async fn change(&self, id: DeploymentId, change: Expression, condition: Expression) -> Result<Result<(), Lost>> {
        let done = self.table.update(&self.key(id), change, condition).await?;
        Ok(if done { Ok(()) } else { Err(Lost) })
    }

    /// Of a change that does not hold a second time. Its answer may get lost, and the next try, which the SDK makes by itself,
    /// then meets what the first one has written: that is no loss.
    async fn change_once(
        &self,
        id: DeploymentId,
        change: Expression,
        condition: Expression,
        is_ours: impl Fn(&StoredAssignment) -> bool,
    ) -> Result<Result<(), Lost>> {
        let done = self.change(id, change, condition).await?;
        if done == Err(Lost) {
            let found: Option<StoredAssignment> = self.table.read(&self.key(id), "assignment").await?;
            return Ok(if found.is_some_and(|found| is_ours(&found)) { Ok(()) } else { Err(Lost) });
        }
        Ok(done)
    }

    fn key(&self, id: DeploymentId) -> Key {
        keys::assignment(&self.tenant, &self.host, id)
    }
}

fn lease(until: Timestamp, progress: &Progress) -> Result<Expression> {
    Ok(Expression::new("SET leaseUntil = :lease, progress = :progress")
        .value(":lease", text(until.to_string()))
        .value(":progress", progress_value(progress)?))
}

fn held(epoch: Epoch) -> Expression {
    Expression::new("#epoch = :held AND #status = :running")
        .name("#epoch", "epoch")
        .name("#status", "status")
        .value(":held", number(epoch))
        .value(":running", text("running"))
}

fn progress_value(progress: &Progress) -> Result<AttributeValue> {
    serde_dynamo::to_attribute_value(progress).map_err(StoreError::corrupt("progress"))
}
