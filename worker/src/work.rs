//! The worker's loop: which assignments are open, which of them to begin, and what to say of them.
//!
//! Level-triggered: a wake-up only says "look". The same look happens on start, once a minute, and whenever a job ends, so
//! that a lost message costs a minute and a doubled one nothing.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tidegate_aws::{assignments::StoredAssignment, clock, host_side::HostSide, hosts::Heartbeat, queues::Received};
use tidegate_domain::{
    assignment::Next,
    id::{ApplicationId, Epoch},
};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::{
    job::{self, Worker},
    perform::Host,
    settle::{self, Recovered, Recovery},
};

/// Assignments are looked at so often without any wake-up.
const LOOK: Duration = Duration::from_mins(1);
const LONG_POLL: Duration = Duration::from_secs(20);
const HEARTBEAT: Duration = Duration::from_secs(30);
/// The same while Docker has not answered yet.
const WITHOUT_DOCKER: Duration = Duration::from_secs(2);
/// Before another try to bring back an application that could not be brought back.
const SETTLE: Duration = Duration::from_mins(1);
/// Between tries to reach something that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// How much, and where it keeps its lock.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Applications that are worked on at once.
    pub max_concurrent_jobs: usize,
    /// After a signal to stop, jobs in hand may take so long to end.
    pub shutdown: Duration,
    pub data: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    #[error("another worker runs for this host already (it holds {0})")]
    AlreadyRunning(PathBuf),
    #[error("the data folder {path} cannot be used")]
    Data {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Runs until `stop` turns true: first brings back what a crash may have left half-done, then works.
///
/// # Errors
/// Only before it begins: the folder cannot be used, or another worker of this host runs.
pub async fn run(
    host: Host,
    side: HostSide,
    settings: Settings,
    mut stop: watch::Receiver<bool>,
) -> Result<(), WorkError> {
    let _lock = lock(&settings.data)?;
    let worker = Arc::new(Worker { host, side });
    let mut desk = Desk {
        worker: Arc::clone(&worker),
        settings,
        in_hand: BTreeMap::new(),
        jobs: JoinSet::new(),
        recovered: false,
        unsettled: BTreeMap::new(),
    };
    desk.recover().await;
    let (wake, woken) = mpsc::channel(1);
    let mut beside = JoinSet::new();
    beside.spawn(listen(Arc::clone(&worker), wake));
    beside.spawn(beat(worker));
    desk.work(woken, &mut stop).await;
    beside.shutdown().await;
    desk.wind_up().await;
    Ok(())
}

/// One process per host: its holder takes over the leases of the one before.
fn lock(data: &Path) -> Result<File, WorkError> {
    let failed = |source| WorkError::Data { path: data.to_owned(), source };
    std::fs::create_dir_all(data).map_err(failed)?;
    let path = data.join("worker.lock");
    let file = File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(WorkError::AlreadyRunning(path)),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Takes wake-ups off the queue. They are deleted once the look that they asked for can no longer be missed.
async fn listen(worker: Arc<Worker>, wake: mpsc::Sender<Vec<Received>>) {
    loop {
        match worker.side.wake_ups(LONG_POLL).await {
            Ok(messages) if messages.is_empty() => {}
            Ok(messages) => {
                if wake.send(messages).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the queue does not answer; looking once a minute"
                );
                sleep(PAUSE).await;
            }
        }
    }
}

async fn beat(worker: Arc<Worker>) {
    loop {
        let engine_version = match worker.host.engine.version().await {
            Ok(version) => Some(version),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "Docker does not answer");
                None
            }
        };
        let heartbeat =
            Heartbeat { at: clock::now(), worker_version: env!("CARGO_PKG_VERSION").to_owned(), engine_version };
        if let Err(error) = worker.side.beat(&heartbeat).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "no heartbeat could be written");
        }
        sleep(HEARTBEAT).await;
    }
}

struct Desk {
    worker: Arc<Worker>,
    settings: Settings,
    /// What is being worked on, and by which task: one job an application.
    in_hand: BTreeMap<ApplicationId, Id>,
    jobs: JoinSet<Ended>,
    /// Whether all that the process before has left was looked at.
    recovered: bool,
    /// Applications that could not be brought back, or whose job broke off, and when to try next.
    unsettled: BTreeMap<ApplicationId, Instant>,
}

/// A job that has come to its end.
struct Ended {
    application: ApplicationId,
    /// False: the old version could not be brought back.
    settled: bool,
}

impl Desk {
    async fn work(&mut self, mut woken: mpsc::Receiver<Vec<Received>>, stop: &mut watch::Receiver<bool>) {
        let mut messages = Vec::new();
        loop {
            if !self.recovered && self.jobs.is_empty() {
                self.recover().await;
            }
            self.settle_what_is_due();
            let next_look = self.look().await;
            self.forget(&mut messages).await;
            tokio::select! {
                () = tokio::time::sleep_until(next_look) => {}
                received = woken.recv() => messages = received.unwrap_or_default(),
                Some(ended) = self.jobs.join_next() => self.ended(ended),
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Before anything else, from Docker's labels alone: an application that a crash left stopped runs again within seconds.
    ///
    /// While Docker does not answer nothing can be brought back; deployments then fail and say so, and this is tried again
    /// with every look.
    async fn recover(&mut self) {
        match settle::recover(&self.worker.host).await {
            Ok(recovered) => {
                self.recovered = true;
                for found in recovered {
                    if !is_settled(&found) {
                        self.unsettled.insert(found.application, Instant::now() + SETTLE);
                    }
                }
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "Docker does not answer"),
        }
    }

    /// Each as a job of its own: one that cannot be brought back does not hold up the others.
    fn settle_what_is_due(&mut self) {
        let now = Instant::now();
        let is_due =
            |application: &ApplicationId, due: &Instant| *due <= now && !self.in_hand.contains_key(application);
        let due: Vec<_> = self.unsettled.iter().filter(|(a, due)| is_due(a, due)).map(|(a, _)| *a).collect();
        for application in due {
            self.unsettled.remove(&application);
            let worker = Arc::clone(&self.worker);
            let task = self.jobs.spawn(async move {
                let settled = match settle::recover_application(&worker.host, application).await {
                    Ok(found) => found.is_none_or(|found| is_settled(&found)),
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "Docker does not answer");
                        false
                    }
                };
                Ended { application, settled }
            });
            self.in_hand.insert(application, task.id());
        }
    }

    /// Looks at all open assignments and begins what can be begun. When to look again, if nothing happens before.
    async fn look(&mut self) -> Instant {
        let open = match self.worker.side.assignments().await {
            Ok(open) => open,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the assignments cannot be read; trying again"
                );
                return Instant::now() + PAUSE;
            }
        };
        let now = clock::now();
        // Without Docker, soon again: what a crash left stopped must not wait.
        let mut next_look = Instant::now() + if self.recovered { LOOK } else { WITHOUT_DOCKER };
        next_look = self.unsettled.values().copied().fold(next_look, Instant::min);
        for assignment in open {
            if self.in_hand.contains_key(&assignment.application_id) {
                continue;
            }
            match assignment.assignment().next(now) {
                Next::Wait(at) => next_look = next_look.min(Instant::now() + until(at, now)),
                Next::Report => job::report(&self.worker, assignment.deployment_id).await,
                Next::Claim(epoch) => self.begin(assignment, epoch, Begin::Job),
                Next::GiveUp(epoch) => self.begin(assignment, epoch, Begin::GiveUp),
            }
        }
        next_look
    }

    fn begin(&mut self, assignment: StoredAssignment, epoch: Epoch, what: Begin) {
        if self.jobs.len() >= self.settings.max_concurrent_jobs {
            return;
        }
        let application = assignment.application_id;
        let worker = Arc::clone(&self.worker);
        let task = self.jobs.spawn(async move {
            let settled = match what {
                Begin::Job => Box::pin(job::work(&worker, assignment, epoch)).await,
                Begin::GiveUp => {
                    job::give_up(&worker, assignment, epoch).await;
                    true
                }
            };
            Ended { application, settled }
        });
        self.in_hand.insert(application, task.id());
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(Ended { application, settled }) => {
                self.in_hand.remove(&application);
                if !settled {
                    self.unsettled.insert(application, Instant::now() + SETTLE);
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a job broke off");
                let broken: Vec<_> =
                    self.in_hand.iter().filter(|(_, id)| **id == error.id()).map(|(a, _)| *a).collect();
                for application in broken {
                    self.in_hand.remove(&application);
                    self.unsettled.insert(application, Instant::now());
                }
            }
        }
    }

    async fn forget(&self, messages: &mut Vec<Received>) {
        for message in messages.drain(..) {
            if let Err(error) = self.worker.side.delete_wake_up(&message).await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a wake-up was not deleted and will come again"
                );
            }
        }
    }

    /// Lets the jobs in hand end within the time for that. What does not is taken over by the next process.
    async fn wind_up(&mut self) {
        let all = async { while self.jobs.join_next().await.is_some() {} };
        if timeout(self.settings.shutdown, all).await.is_err() {
            tracing::warn!(jobs = self.jobs.len(), "stopped in the middle of jobs; the next process goes on with them");
        }
    }
}

/// Logs what was found; `false` if it has to be tried again.
fn is_settled(found: &Recovered) -> bool {
    tracing::warn!(application.id = %found.application, container.name = found.name, result = ?found.result,
        "found in the middle of something");
    !matches!(found.result, Recovery::Failed(_))
}

#[derive(Debug, Clone, Copy)]
enum Begin {
    Job,
    GiveUp,
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    let left = at.duration_since(now).max(SignedDuration::from_millis(10));
    left.unsigned_abs()
}
