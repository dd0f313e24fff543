//! Tasks of this host: begun as they are found, a few at a time, beside deployments and never in their place.

mod logs;
mod prune;

use std::{collections::BTreeMap, future::pending, sync::Arc};

use jiff::Timestamp;
use tidegate_aws::{
    host_side::Lost,
    tasks::{StoredTask, TaskState},
};
use tidegate_domain::{
    id::ApplicationId,
    task::{Refusal, TaskAnswer, TaskId, TaskKind, TaskOrder, What},
};
use tokio::task::{Id, JoinError, JoinSet};

use crate::{docker::Error, job::Worker, perform::Host};

/// So many at once; the others wait, as their callers do.
const AT_ONCE: usize = 4;

/// The tasks in hand.
pub(crate) struct Tasks {
    worker: Arc<Worker>,
    running: JoinSet<()>,
    in_hand: BTreeMap<TaskId, InHand>,
    /// Something was not begun because of a task in hand, and can be once that has ended.
    awaited: bool,
}

struct InHand {
    by: Id,
    /// Whose images and containers it changes: no deployment of it may run beside.
    cleans: Option<ApplicationId>,
}

impl Tasks {
    pub(crate) fn new(worker: Arc<Worker>) -> Self {
        Self { worker, running: JoinSet::new(), in_hand: BTreeMap::new(), awaited: false }
    }

    /// Forgets those that have ended. To be called before anything of a look is decided, and not in the middle of one: what
    /// waits for a task is told by [`Tasks::room`] that it has ended, which has to come after.
    pub(crate) fn tidy(&mut self) {
        self.awaited = false;
        while let Some(ended) = self.running.try_join_next_with_id() {
            self.forget(&ended);
        }
    }

    /// Begins what a look has found and can be begun. What changes an application is refused while `is_worked_on` says
    /// that a deployment of it is in hand.
    pub(crate) fn begin(
        &mut self,
        found: Vec<StoredTask>,
        is_worked_on: impl Fn(ApplicationId) -> bool,
        now: Timestamp,
    ) {
        for task in found {
            let is_new = matches!(task.state, TaskState::Queued { .. }) && !task.task_id.is_stale(now);
            if !is_new || self.in_hand.contains_key(&task.task_id) {
                continue;
            }
            if self.running.len() >= AT_ONCE {
                self.awaited = true;
                return;
            }
            let (id, application) = (task.task_id, task.application_id);
            let cleans = Some(application).filter(|_| task.kind == TaskKind::Prune);
            let refusal = cleans.filter(|cleaned| is_worked_on(*cleaned)).map(|_| Refusal::DeploymentInHand);
            let cleans = cleans.filter(|_| refusal.is_none());
            let worker = Arc::clone(&self.worker);
            let by = self.running.spawn(async move { carry_out(&worker, task, refusal).await }).id();
            self.in_hand.insert(id, InHand { by, cleans });
        }
    }

    /// Whether an application is being cleaned up. Whoever asks waits for the end of that: see [`Tasks::room`].
    pub(crate) fn keeps(&mut self, application: ApplicationId) -> bool {
        let keeps = self.in_hand.values().any(|task| task.cleans == Some(application));
        self.awaited |= keeps;
        keeps
    }

    /// Ends when a task has ended that something else waits for.
    pub(crate) async fn room(&mut self) {
        while let Some(ended) = self.running.join_next_with_id().await {
            self.forget(&ended);
            if std::mem::take(&mut self.awaited) {
                return;
            }
        }
        pending::<()>().await;
    }

    /// Lets those in hand end: each has its own deadline.
    pub(crate) async fn wind_up(&mut self) {
        while let Some(ended) = self.running.join_next_with_id().await {
            self.forget(&ended);
        }
    }

    fn forget(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(error) => {
                tracing::error!(error = error as &dyn std::error::Error, "a task broke off");
                error.id()
            }
        };
        self.in_hand.retain(|_, task| task.by != id);
    }
}

/// From the claim to the answer. Whatever goes wrong with AWS, the caller hears that the host did not answer.
#[tracing::instrument(level = "error", skip_all, fields(task.id = %task.task_id, application.id = %task.application_id))]
async fn carry_out(worker: &Worker, task: StoredTask, refusal: Option<Refusal>) {
    match worker.side.claim_task(&task).await {
        Ok(Ok(())) => {}
        // Taken back, or another process has it.
        Ok(Err(Lost)) => return,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a task could not be claimed");
            return;
        }
    }
    let order = match worker.side.open_task(&task).await {
        // What was judged by the words outside has to be what is inside.
        Ok(order) if order.application_id == task.application_id && order.what.kind() == task.kind => order,
        Ok(_) => {
            tracing::error!("a task is not what it says outside; it is left alone");
            return;
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a task cannot be opened");
            return;
        }
    };
    let answer = match refusal {
        Some(why) => TaskAnswer::Refused { why },
        None => answer(&worker.host, &order).await,
    };
    tell(&answer);
    match worker.side.answer_task(&task, &answer).await {
        Ok(Ok(())) => {}
        Ok(Err(Lost)) => tracing::warn!("nobody waits for the task's answer any more"),
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a task could not be answered"),
    }
}

async fn answer(host: &Host, order: &TaskOrder) -> TaskAnswer {
    let answered = match &order.what {
        What::Logs { tail, since, release, secrets } => {
            let secrets = secrets.iter().map(|hidden| hidden.value.expose().as_str());
            let asked = logs::Asked { tail: *tail, since: *since, release: *release };
            logs::logs(host, order, asked, secrets).await.map(TaskAnswer::Logs)
        }
        What::Prune { image } => Ok(TaskAnswer::Pruned(prune::prune(host, order, image).await)),
    };
    answered.unwrap_or_else(|why| TaskAnswer::Refused { why })
}

/// Never a line of the log.
fn tell(answer: &TaskAnswer) {
    match answer {
        TaskAnswer::Logs(logs) => tracing::info!(lines = logs.lines.len(), "showed a log"),
        TaskAnswer::Pruned(pruned) => {
            tracing::info!(
                images = pruned.images_removed,
                bytes = pruned.bytes_reclaimed,
                containers = pruned.containers_removed,
                refusal = ?pruned.error,
                "cleaned up"
            );
        }
        TaskAnswer::Refused { why } => tracing::info!(?why, "refused a task"),
    }
}

/// `hide` takes secrets out of the engine's words.
fn refusal(error: &Error, hide: impl Fn(&str) -> String) -> Refusal {
    match error {
        Error::Away(_) => Refusal::EngineAway,
        Error::Late(_) => Refusal::Late,
        Error::Refused { .. } | Error::Unreadable(_) => Refusal::Engine { message: hide(&error.to_string()) },
    }
}
