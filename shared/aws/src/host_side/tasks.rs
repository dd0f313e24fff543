//! What a host finds to do, and its part of tasks.

use tidegate_domain::task::{TaskAnswer, TaskOrder};
use zeroize::Zeroizing;

use super::{HostSide, Lost};
use crate::{
    assignments::StoredAssignment,
    error::{Result, StoreError},
    keys,
    table::{end_of, record, sort_key, text},
    tasks::{StoredTask, TaskState, answer_place, order_place},
    write::Expression,
};

/// All that one look finds, oldest first.
#[derive(Debug, Default)]
pub struct Work {
    /// Every one that is not folded.
    pub assignments: Vec<StoredAssignment>,
    /// Every one that nobody has removed yet.
    pub tasks: Vec<StoredTask>,
}

impl HostSide {
    /// All that there is to do, in one query. What cannot be read (a later version may have written it) is logged and left
    /// out: it must not hold up the rest.
    pub async fn look(&self) -> Result<Work> {
        let partition = keys::host_partition(&self.tenant, &self.host);
        let end = end_of(keys::ASSIGNMENTS);
        let mut work = Work::default();
        for item in self.table.range(&partition, Some(keys::TASKS), Some(&end)).await? {
            let name = sort_key(&item).unwrap_or_default().to_owned();
            let read = if name.starts_with(keys::TASKS) {
                record(item, "task").map(|task| work.tasks.push(task))
            } else {
                record(item, "assignment").map(|assignment| work.assignments.push(assignment))
            };
            if let Err(error) = read {
                let error = &error as &dyn std::error::Error;
                tracing::error!(item = name, error, "what there is to do cannot be read");
            }
        }
        Ok(work)
    }

    /// Takes a task that nobody has begun. A crash from here on leaves it to its caller, who is told that the host did not
    /// answer, and asks again.
    pub async fn claim_task(&self, task: &StoredTask) -> Result<Result<(), Lost>> {
        self.change_task(task, Expression::new("SET #status = :to"), "queued", "running").await
    }

    /// # Errors
    /// [`StoreError::Corrupt`] if it was not sealed for this host and task.
    pub async fn open_task(&self, task: &StoredTask) -> Result<TaskOrder> {
        let (id, sealed) = (task.task_id.to_string(), sealed_order(task)?);
        let plain = self.opener.open(&self.tenant, &self.host, order_place(&id), sealed).await?;
        serde_json::from_slice(plain.expose()).map_err(|e| StoreError::Corrupt { what: "task", source: e.into() })
    }

    /// Answers, under the key that it was asked with; the order goes, so that both need no room at once. `Ok(Err(Lost))`:
    /// nobody waits any more.
    pub async fn answer_task(&self, task: &StoredTask, answer: &TaskAnswer) -> Result<Result<(), Lost>> {
        let plain = serde_json::to_vec(answer).map_err(|e| StoreError::Corrupt { what: "answer", source: e.into() })?;
        let plain = Zeroizing::new(plain);
        let key = self.opener.key_of(&self.tenant, &self.host, sealed_order(task)?).await?;
        let id = task.task_id.to_string();
        let sealed = key.seal(&self.tenant, &self.host, answer_place(&id), &plain);
        let change = Expression::new("SET #status = :to, sealedAnswer = :answer REMOVE sealedOrder")
            .value(":answer", text(sealed));
        self.change_task(task, change, "running", "finished").await
    }

    async fn change_task(
        &self,
        task: &StoredTask,
        change: Expression,
        from: &str,
        to: &str,
    ) -> Result<Result<(), Lost>> {
        let change = change.name("#status", "status").value(":to", text(to));
        let condition = Expression::new("#status = :from").value(":from", text(from));
        let key = keys::task(&self.tenant, &self.host, task.task_id);
        Ok(if self.table.update(&key, change, condition).await? { Ok(()) } else { Err(Lost) })
    }
}

fn sealed_order(task: &StoredTask) -> Result<&str> {
    match &task.state {
        TaskState::Queued { sealed_order } | TaskState::Running { sealed_order } => Ok(sealed_order),
        TaskState::Finished { .. } => Err(StoreError::unreadable("task", "it has been answered")),
    }
}
