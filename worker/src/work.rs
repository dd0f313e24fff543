//! The worker's loop: which assignments are open, which of them to begin, and what to say of them.
//!
//! Level-triggered: a wake-up only says "look". The same look happens on start, once a minute, and whenever a job ends, so
//! that a lost message costs a minute and a doubled one nothing.

mod in_hand;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tidegate_aws::{
    assignments::StoredAssignment,
    clock,
    host_side::{HostSide, Work},
    queues::Received,
};
use tidegate_domain::{
    assignment::Next,
    id::{ApplicationId, DeploymentId, Epoch},
};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use in_hand::InHand;
pub(crate) use in_hand::Line;

use crate::{
    alone, heartbeat,
    job::{self, Worker},
    perform::Host,
    settle::{self, Recovered, Recovery},
    task::Tasks,
    vitals::Vitals,
};

/// In the data folder.
pub(crate) const LOCK: &str = "worker.lock";
/// Assignments are looked at so often without any wake-up.
const LOOK: Duration = Duration::from_mins(1);
const LONG_POLL: Duration = Duration::from_secs(20);
/// The same while Docker has not answered yet.
const WITHOUT_DOCKER: Duration = Duration::from_secs(2);
/// Before another try to bring back an application that could not be brought back.
const SETTLE: Duration = Duration::from_mins(1);
/// To bring back one application may take so long; then it is tried again.
const RECOVERY: Duration = Duration::from_secs(90);
/// The first look waits so long for all of them, which as a rule takes a fraction of it.
const FIRST: Duration = Duration::from_secs(15);
/// The same end is reported at most so often: longer than a report takes that is not heard.
const REPORT: Duration = Duration::from_secs(10);
/// Between tries to reach something that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// How much, and where it keeps its lock.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Applications that are worked on at once, beside those that wait for a registry.
    pub max_concurrent_jobs: usize,
    /// After a signal to stop, jobs in hand may take so long to end.
    pub shutdown: Duration,
    pub data: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    #[error("another worker runs for this host already (it holds {0})")]
    AlreadyRunning(PathBuf),
    #[error("another worker runs for this host already, with another data folder; stop it first")]
    RunningElsewhere,
    #[error("this process cannot have a Unix socket, which tells that no other worker of this host runs")]
    NoSocket(#[source] io::Error),
    #[error("a part of the worker has broken off, so that it has to start again")]
    BrokenOff,
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
/// Before it begins: the folder cannot be used, or another worker of this host runs. Later only [`WorkError::BrokenOff`].
pub async fn run(
    host: Host,
    side: HostSide,
    settings: Settings,
    vitals: Vitals,
    mut stop: watch::Receiver<bool>,
) -> Result<(), WorkError> {
    let _lock = lock(&settings.data)?;
    let alone = alone::hold(&host.label()).await.map_err(WorkError::NoSocket)?;
    let _alone = alone.ok_or(WorkError::RunningElsewhere)?;
    let worker = Arc::new(Worker { host, side, vitals, stopping: stop.clone() });
    let beat_now = Arc::new(Notify::new());
    let mut desk = Desk {
        worker: Arc::clone(&worker),
        settings,
        in_hand: BTreeMap::new(),
        jobs: JoinSet::new(),
        tasks: Tasks::new(Arc::clone(&worker)),
        recovered: false,
        recovery: RECOVERY,
        unsettled: BTreeMap::new(),
        reports: JoinSet::new(),
        reported: BTreeMap::new(),
        beat_now: Arc::clone(&beat_now),
        freed: Arc::new(Notify::new()),
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = desk.recover_first() => {}
    }
    let (wake, woken) = mpsc::channel(1);
    let mut beside = JoinSet::new();
    beside.spawn(listen(Arc::clone(&worker), wake));
    beside.spawn(heartbeat::keep_beating(Arc::clone(&worker), beat_now));
    let ended = tokio::select! {
        ended = desk.work(woken, &mut stop) => ended,
        // Neither ever ends: without it the host would look dead, or be late for everything.
        Some(_) = beside.join_next() => Err(WorkError::BrokenOff),
    };
    desk.worker.vitals.stopping();
    beside.shutdown().await;
    desk.wind_up().await;
    ended
}

/// One process per host: its holder takes over the leases of the one before.
fn lock(data: &Path) -> Result<File, WorkError> {
    let failed = |source| WorkError::Data { path: data.to_owned(), source };
    std::fs::create_dir_all(data).map_err(failed)?;
    let path = data.join(LOCK);
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

struct Desk {
    worker: Arc<Worker>,
    settings: Settings,
    /// What is being worked on: one job an application.
    in_hand: BTreeMap<ApplicationId, InHand>,
    jobs: JoinSet<Ended>,
    /// What is done beside them.
    tasks: Tasks,
    /// Whether it is known what the process before may have left: from then on each application is in hand or unsettled
    /// until it was looked at.
    recovered: bool,
    /// See [`RECOVERY`].
    recovery: Duration,
    /// Applications that could not be brought back, or whose job broke off, and when to try next.
    unsettled: BTreeMap<ApplicationId, Instant>,
    /// On their way: what has ended and was not heard.
    reports: JoinSet<()>,
    /// When each was last sent on its way, of the last moments.
    reported: BTreeMap<DeploymentId, Instant>,
    /// Told whenever a job has ended, so that views show what it left.
    beat_now: Arc<Notify>,
    /// Told whenever a job gives its place up while it waits for a registry.
    freed: Arc<Notify>,
}

/// A job that has come to its end.
struct Ended {
    application: ApplicationId,
    /// False: the old version could not be brought back.
    settled: bool,
}

impl Desk {
    async fn work(
        &mut self,
        mut woken: mpsc::Receiver<Vec<Received>>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), WorkError> {
        let mut messages = Vec::new();
        loop {
            self.worker.vitals.turned();
            if !self.recovered {
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return Ok(()),
                    () = self.recover() => {}
                }
            }
            self.settle_what_is_due();
            // A look that is left in the middle has begun each job as a whole, or not at all.
            let next_look = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                next_look = self.look() => next_look,
            };
            self.worker.vitals.working_on(self.jobs.len());
            self.worker.vitals.ready();
            self.forget(&mut messages).await;
            tokio::select! {
                () = turn_until(next_look, &self.worker.vitals) => {}
                received = woken.recv() => match received {
                    Some(received) => messages = received,
                    None => return Err(WorkError::BrokenOff),
                },
                Some(ended) = self.jobs.join_next() => self.ended(ended),
                () = self.tasks.room() => {}
                () = self.freed.notified() => {}
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    /// Before anything else, from Docker's labels alone: an application that a crash left stopped runs again within seconds.
    ///
    /// While Docker does not answer nothing can be brought back; deployments then fail and say so, and this is tried again
    /// with every look.
    async fn recover(&mut self) {
        let left = settle::applications(&self.worker.host).await;
        self.worker.vitals.docker(left.is_ok());
        match left {
            Ok(left) => {
                self.recovered = true;
                let now = Instant::now();
                self.unsettled.extend(left.into_keys().map(|application| (application, now)));
                self.settle_what_is_due();
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "Docker does not answer"),
        }
    }

    /// Left at any moment, it is gone on with by the loop.
    async fn recover_first(&mut self) {
        self.recover().await;
        let until = Instant::now() + FIRST;
        while let Ok(Some(ended)) = timeout_at(until, self.jobs.join_next()).await {
            self.ended(ended);
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
            let (worker, limit) = (Arc::clone(&self.worker), self.recovery);
            let task = self.jobs.spawn(async move {
                let settled = match timeout(limit, settle::recover(&worker.host, application)).await {
                    Ok(Ok(found)) => found.is_none_or(|found| is_settled(&found)),
                    Ok(Err(error)) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "Docker does not answer");
                        false
                    }
                    Err(_) => {
                        tracing::error!(application.id = %application, "Docker is too slow to bring it back; trying again");
                        false
                    }
                };
                Ended { application, settled }
            });
            self.in_hand.insert(application, InHand { by: task.id(), line: None });
        }
    }

    /// Looks at all open assignments and begins what can be begun. When to look again, if nothing happens before.
    async fn look(&mut self) -> Instant {
        let Work { assignments, tasks } = match self.worker.side.look().await {
            Ok(work) => work,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "what there is to do cannot be read; trying again"
                );
                return Instant::now() + PAUSE;
            }
        };
        self.worker.vitals.looked(assignments.len());
        self.tasks.tidy();
        let now = clock::now();
        // Without Docker, soon again: what a crash left stopped must not wait.
        let mut next_look = Instant::now() + if self.recovered { LOOK } else { WITHOUT_DOCKER };
        let waiting = self.unsettled.iter().filter(|(application, _)| !self.in_hand.contains_key(*application));
        next_look = waiting.map(|(_, due)| *due).fold(next_look, Instant::min);
        for assignment in assignments {
            let application = assignment.application_id;
            let in_hand = self.in_hand.get(&application);
            in_hand.filter(|_| assignment.cancel_requested).inspect(|job| job.call());
            if in_hand.is_some() || self.tasks.keeps(application) {
                continue;
            }
            match assignment.assignment().next(now) {
                Next::Wait(at) => next_look = next_look.min(Instant::now() + until(at, now)),
                Next::Report => self.report(assignment.deployment_id),
                Next::Claim(epoch) => self.begin(assignment, epoch, Begin::Job),
                Next::GiveUp(epoch) => self.begin(assignment, epoch, Begin::GiveUp),
            }
        }
        // Before a recovery any application may have been left half-done.
        let is_worked_on = |application| {
            !self.recovered || self.in_hand.contains_key(&application) || self.unsettled.contains_key(&application)
        };
        self.tasks.begin(tasks, is_worked_on, now);
        next_look
    }

    /// Beside the loop: with the queue away each takes its time, and what can be begun does not wait for it.
    fn report(&mut self, id: DeploymentId) {
        while self.reports.try_join_next().is_some() {}
        self.reported.retain(|_, at| at.elapsed() < REPORT);
        if let Entry::Vacant(vacant) = self.reported.entry(id) {
            vacant.insert(Instant::now());
            let worker = Arc::clone(&self.worker);
            self.reports.spawn(async move { job::report(&worker, id).await });
        }
    }

    fn begin(&mut self, assignment: StoredAssignment, epoch: Epoch, what: Begin) {
        if InHand::places(self.in_hand.values()) >= self.settings.max_concurrent_jobs {
            return;
        }
        let application = assignment.application_id;
        let worker = Arc::clone(&self.worker);
        let line = Line::new(&self.freed);
        let jobs_end = Arc::clone(&line);
        let task = self.jobs.spawn(async move {
            let settled = match what {
                Begin::Job => Box::pin(job::work(&worker, assignment, epoch, &jobs_end)).await,
                Begin::GiveUp => Box::pin(job::give_up(&worker, assignment, epoch, &jobs_end)).await,
            };
            Ended { application, settled }
        });
        self.in_hand.insert(application, InHand { by: task.id(), line: Some(line) });
    }

    fn ended(&mut self, ended: Result<Ended, JoinError>) {
        self.beat_now.notify_one();
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
                    self.in_hand.iter().filter(|(_, job)| job.by == error.id()).map(|(a, _)| *a).collect();
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
            self.worker.vitals.turned();
        }
    }

    /// Lets the jobs in hand end within the time for that: before their switch they give up by themselves. What does not is
    /// taken over by the next process.
    async fn wind_up(&mut self) {
        let jobs = async { while self.jobs.join_next().await.is_some() {} };
        let all = async { tokio::join!(jobs, self.tasks.wind_up()) };
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

/// Turning meanwhile.
async fn turn_until(until: Instant, vitals: &Vitals) {
    loop {
        let pulse = Instant::now() + vitals.pulse();
        sleep_until(until.min(pulse)).await;
        if until <= pulse {
            return;
        }
        vitals.turned();
    }
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    let left = at.duration_since(now).max(SignedDuration::from_millis(10));
    left.unsigned_abs()
}

#[cfg(test)]
mod tests;
