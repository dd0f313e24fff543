//! Asking a host, and waiting for its answer: an item of the host's partition that the host claims, answers, and the
//! caller removes.
//!
//! The order is sealed for the host as a work order is, and its answer under the same key, each bound to its task and to
//! what it is. A crash of the caller leaves the item to the next call for that host, or to the table's own expiry.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    deployment::TargetState,
    id::{ApplicationId, DeploymentId, HostName, TenantId},
    job::Job,
    task::{KEPT, PATIENCE, TaskAnswer, TaskId, TaskKind, TaskOrder},
};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::{
    audit::{self, AuditEvent},
    catalogue::explain,
    envelope::{JobKey, Place},
    error::{Result, StoreError},
    keys::{self, Key},
    random,
    store::Store,
    table::{Cancelled, item},
    write::{Expression, delete},
};

/// So many callers may wait for one host at once: what they ask for is read with each of its looks.
const MOST_OPEN: usize = 20;
/// Whoever asked for an older task has stopped waiting, whatever the two clocks say.
const LEFT_OVER: jiff::SignedDuration = jiff::SignedDuration::from_mins(1);
/// Between looks for an answer, longer each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A task as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredTask {
    pub task_id: TaskId,
    /// As in the sealed order, for whoever has not opened it.
    pub application_id: ApplicationId,
    pub kind: TaskKind,
    #[serde(flatten)]
    pub state: TaskState,
    /// Seconds since the epoch.
    ttl: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum TaskState {
    /// Written, not begun. Leaves by a claim, or is taken back by a caller that waits no more.
    Queued { sealed_order: String },
    /// Claimed. Leaves by the answer. A crash of the worker leaves it so, and the caller takes it back.
    Running { sealed_order: String },
    /// Answered. The caller removes it.
    Finished { sealed_answer: String },
}

/// Where a sealed order belongs.
pub(crate) fn order_place(task: &str) -> Place<'_> {
    Place { kind: "task", id: task, version: 1 }
}

/// Where its answer belongs: in another place, so that neither can be taken for the other.
pub(crate) fn answer_place(task: &str) -> Place<'_> {
    Place { kind: "task-answer", id: task, version: 1 }
}

/// A task that was written, and what its answer is opened with.
struct Asked<'a> {
    tenant: &'a TenantId,
    host: &'a HostName,
    id: TaskId,
    key: JobKey,
}

impl Asked<'_> {
    fn item_key(&self) -> Key {
        keys::task(self.tenant, self.host, self.id)
    }

    fn open(&self, sealed: &str) -> Result<TaskAnswer> {
        let id = self.id.to_string();
        let plain = self.key.open(self.tenant, self.host, answer_place(&id), sealed)?;
        serde_json::from_slice(plain.expose()).map_err(|e| StoreError::Corrupt { what: "answer", source: e.into() })
    }
}

/// "Look what you are asked for." Losing one costs the caller an answer in time.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Wake {
    task_id: TaskId,
}

impl Store {
    /// The host's answer; none if there was none within [`PATIENCE`].
    ///
    /// # Errors
    /// [`StoreError::Busy`] if too many wait for this host already. [`StoreError::Corrupt`] for an answer that was not given
    /// to this task.
    pub async fn ask(
        &self,
        tenant: &TenantId,
        host: &HostName,
        order: &TaskOrder,
        now: Timestamp,
    ) -> Result<Option<TaskAnswer>> {
        let until = Instant::now() + PATIENCE;
        if self.open_tasks(tenant, host, now).await? >= MOST_OPEN {
            return Err(StoreError::Busy);
        }
        let asked = self.write_task(tenant, host, order, now).await?;
        let woken = self.host_queue(tenant, host).send(&Wake { task_id: asked.id }).await;
        if let Err(error) = woken {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(host.name = %host, task.id = %asked.id, error, "a host could not be woken; it may be late");
        }
        let answer = self.wait_for_answer(&asked, until).await;
        // Whatever came of it. Should this fail, the next call for the host removes it.
        if let Err(error) = self.remove_task(&asked.item_key()).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(host.name = %host, task.id = %asked.id, error, "a task was not removed");
        }
        answer
    }

    async fn write_task<'a>(
        &self,
        tenant: &'a TenantId,
        host: &'a HostName,
        order: &TaskOrder,
        now: Timestamp,
    ) -> Result<Asked<'a>> {
        let plain = serde_json::to_vec(order).map_err(|e| StoreError::Corrupt { what: "task", source: e.into() })?;
        let plain = Zeroizing::new(plain);
        let key = self.sealer.job_key(tenant, host).await?;
        let id = TaskId::new(now, random::bytes());
        let sealed_order = key.seal(tenant, host, order_place(&id.to_string()), &plain);
        let asked = Asked { tenant, host, id, key };
        let stored = StoredTask {
            task_id: id,
            application_id: order.application_id,
            kind: order.what.kind(),
            state: TaskState::Queued { sealed_order },
            ttl: (now + KEPT).as_second(),
        };
        if self.table.put(item(&asked.item_key(), &stored)?, Some(Expression::absent())).await? {
            Ok(asked)
        } else {
            Err(StoreError::Conflict)
        }
    }

    async fn wait_for_answer(&self, asked: &Asked<'_>, until: Instant) -> Result<Option<TaskAnswer>> {
        let mut pause = FIRST_PAUSE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            match self.table.read::<StoredTask>(&asked.item_key(), "task").await? {
                Some(StoredTask { state: TaskState::Finished { sealed_answer }, .. }) => {
                    return asked.open(&sealed_answer).map(Some);
                }
                Some(StoredTask { state: TaskState::Queued { .. } | TaskState::Running { .. }, .. }) | None => {}
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    /// How many tasks of a host somebody may still wait for. What is older is removed.
    async fn open_tasks(&self, tenant: &TenantId, host: &HostName, now: Timestamp) -> Result<usize> {
        let pk = keys::host_partition(tenant, host);
        let mut open = 0;
        for sk in self.table.sort_keys(&pk, keys::TASKS).await? {
            let is_open = keys::parse_task(&sk).is_some_and(|id| now.duration_since(id.asked_at()) <= LEFT_OVER);
            if is_open {
                open += 1;
            } else {
                self.remove_task(&Key { pk: pk.clone(), sk }).await?;
            }
        }
        Ok(open)
    }

    async fn remove_task(&self, key: &Key) -> Result<()> {
        match self.table.transact(vec![delete((), key, &self.table, None)]).await {
            Ok(()) => Ok(()),
            Err(Cancelled::Conditions(_)) => Err(StoreError::Conflict),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }

    /// Puts on record what is about to be asked for.
    pub async fn record(&self, tenant: &TenantId, event: &AuditEvent, now: Timestamp) -> Result<()> {
        let write = audit::write(crate::catalogue::Part::Other, tenant, event, now, &self.table)?;
        self.table.transact(vec![write]).await.map_err(explain)
    }

    /// The work order of a release of the application that this host was given before; none if the host never was, or if
    /// it is not kept any more. A host may name a release itself: it learns nothing by it that it did not know.
    pub async fn release_of_host(
        &self,
        tenant: &TenantId,
        application: ApplicationId,
        host: &HostName,
        release: DeploymentId,
    ) -> Result<Option<Job>> {
        let deployment = match self.deployment(tenant, release).await {
            Ok(stored) => stored.deployment,
            Err(StoreError::Missing) => return Ok(None),
            Err(other) => return Err(other),
        };
        let target = deployment.targets.iter().find(|target| target.host == *host);
        let was_given = target.is_some_and(|target| match target.state {
            TargetState::Assigned
            | TargetState::Running
            | TargetState::Succeeded
            | TargetState::Failed { .. }
            | TargetState::Returning
            | TargetState::Returned { .. }
            | TargetState::RolledBack { .. } => true,
            TargetState::Waiting | TargetState::Skipped | TargetState::Cancelled => false,
        });
        if deployment.application_id != application || !was_given {
            return Ok(None);
        }
        self.find_snapshot(tenant, release).await
    }
}
