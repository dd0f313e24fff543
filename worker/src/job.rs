//! One assignment from claim to report: holds the lease while [`perform`] does the work.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tidegate_aws::{
    assignments::StoredAssignment,
    clock,
    error::StoreError,
    host_side::{HostSide, Lost},
    random,
};
use tidegate_domain::{
    assignment::{ErrorCode, LEASE, MAX_ATTEMPTS, Outcome, Progress, Running, Step, TargetError},
    deployment::needs_an_alarm,
    id::{DeploymentId, Epoch},
    job::Job,
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    perform::{Host, LeaseLost, perform},
    standing::Standing,
};

/// Progress is written at most so often.
const PROGRESS: Duration = Duration::from_secs(1);
/// The lease is renewed so often at least: a third of it.
const RENEWAL: Duration = Duration::from_secs(20);
/// Left of the lease after the longest switch.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);
/// Wait before the second attempt; doubled before the third.
const BACKOFF: Duration = Duration::from_secs(5);
/// Between tries to write down how a job ended.
const PAUSE: Duration = Duration::from_secs(1);

/// This host, and its side of AWS.
#[derive(Debug)]
pub struct Worker {
    pub host: Host,
    pub side: HostSide,
}

/// Claims the assignment and does it. Whatever happens, the assignment says what did. `false`: the old version could not be
/// brought back, and somebody has to try again.
#[tracing::instrument(skip_all, fields(deployment.id = %assignment.deployment_id, application.id = %assignment.application_id))]
pub(crate) async fn work(worker: &Worker, assignment: StoredAssignment, epoch: Epoch) -> bool {
    let mut progress = Progress::default();
    progress.begin(Step::Claim, clock::now());
    if !claim(worker, &assignment, epoch, &progress).await {
        return true;
    }
    let attempts = assignment.attempts + 1;
    let (job, ()) = tokio::join!(worker.side.open(&assignment), report(worker, assignment.deployment_id));
    match job {
        Ok(job) => {
            let (sender, receiver) = watch::channel(progress);
            let held = Box::pin(hold_and_perform(worker, &job, epoch, &sender, receiver.clone()));
            let Some(outcome) = held.await else {
                tracing::warn!("the lease was lost before the switch; nothing was changed");
                return true;
            };
            let last = receiver.borrow().clone();
            let settled = !needs_an_alarm(&outcome);
            end(worker, assignment.deployment_id, epoch, attempts, outcome, &last).await;
            return settled;
        }
        Err(StoreError::Corrupt { what, source }) => {
            tracing::error!(what, error = &*source as &dyn std::error::Error, "the job cannot be opened");
            let error = bad_assignment();
            let outcome = Outcome::Failed { error, switched: false, running: running_now(worker, &assignment).await };
            finish(worker, assignment.deployment_id, epoch, &outcome, &progress).await;
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the job cannot be opened now");
            let error = TargetError::new(
                ErrorCode::KeyUnavailable,
                "the work order cannot be opened: the key service does not answer, or refuses this host",
                "check that the worker's role may decrypt for its tenant and host; then deploy again",
            );
            let outcome = Outcome::Failed { error, switched: false, running: running_now(worker, &assignment).await };
            end(worker, assignment.deployment_id, epoch, attempts, outcome, &progress).await;
        }
    }
    true
}

/// Ends an assignment that was begun too often: as what Docker shows of it.
#[tracing::instrument(skip_all, fields(deployment.id = %assignment.deployment_id, application.id = %assignment.application_id))]
pub(crate) async fn give_up(worker: &Worker, assignment: StoredAssignment, epoch: Epoch) {
    if !claim(worker, &assignment, epoch, &assignment.progress).await {
        return;
    }
    let standing = worker.host.standing(assignment.application_id, assignment.deployment_id).await;
    let outcome = match standing {
        // The last attempt did it, and died before it could say so.
        Ok(Standing::Committed(digest)) => Outcome::Succeeded { digest },
        Ok(Standing::OtherRuns | Standing::NothingRuns) | Err(_) => Outcome::Failed {
            error: TargetError::new(
                ErrorCode::TooManyAttempts,
                format!("it was begun {MAX_ATTEMPTS} times and never came to an end"),
                "look into the worker's log on the host, then deploy again",
            ),
            switched: false,
            running: running_now(worker, &assignment).await,
        },
    };
    finish(worker, assignment.deployment_id, epoch, &outcome, &assignment.progress).await;
}

/// Asks for the assignment to be folded. Not heard, it is said again with the next look.
pub(crate) async fn report(worker: &Worker, id: DeploymentId) {
    if let Err(error) = worker.side.report(id).await {
        tracing::warn!(deployment.id = %id, error = &error as &dyn std::error::Error, "could not report; will do so again");
    }
}

async fn claim(worker: &Worker, assignment: &StoredAssignment, epoch: Epoch, progress: &Progress) -> bool {
    match worker.side.claim(assignment, epoch, progress, clock::now()).await {
        Ok(Ok(())) => true,
        Ok(Err(Lost)) => false,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "could not claim; trying again later");
            sleep(PAUSE).await;
            false
        }
    }
}

/// `None`: abandoned before the switch.
async fn hold_and_perform(
    worker: &Worker,
    job: &Job,
    epoch: Epoch,
    progress: &watch::Sender<Progress>,
    seen: watch::Receiver<Progress>,
) -> Option<Outcome> {
    let (lost, mut lease_lost) = watch::channel(false);
    let proven_until = AtomicI64::new(0);
    let prove = async |longest: Duration| -> Result<(), LeaseLost> {
        let longest = SignedDuration::try_from(longest).unwrap_or(LEASE);
        let current = progress.borrow().clone();
        let until = clock::now() + longest + MARGIN;
        // Before the write, so that no renewal beside it takes the longer lease back.
        proven_until.store(until.as_second(), Ordering::SeqCst);
        match worker.side.renew(job.deployment_id, epoch, until, &current).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Lost)) => Err(LeaseLost),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the lease cannot be proven, so nothing is switched"
                );
                Err(LeaseLost)
            }
        }
    };
    let performing = perform(&worker.host, job, epoch, progress, &mut lease_lost, prove);
    tokio::select! {
        outcome = performing => outcome.ok(),
        () = hold(worker, job.deployment_id, epoch, seen, &lost, &proven_until) => None,
    }
}

/// Renews the lease and tells the progress. Never ends: once the lease is lost it says so and waits for the work to end.
///
/// `proven_until`, in seconds since the epoch, is what the switch was promised: a renewal never shortens it.
async fn hold(
    worker: &Worker,
    id: DeploymentId,
    epoch: Epoch,
    mut progress: watch::Receiver<Progress>,
    lost: &watch::Sender<bool>,
    proven_until: &AtomicI64,
) {
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    loop {
        ticks.tick().await;
        let changed = progress.has_changed().unwrap_or(false);
        if !changed && renewed.elapsed() < RENEWAL {
            continue;
        }
        let current = progress.borrow_and_update().clone();
        let promised = Timestamp::from_second(proven_until.load(Ordering::SeqCst)).unwrap_or_default();
        match worker.side.renew(id, epoch, promised.max(clock::now() + LEASE), &current).await {
            Ok(Ok(())) => renewed = Instant::now(),
            Ok(Err(Lost)) => {
                lost.send_replace(true);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the lease could not be renewed");
                if renewed.elapsed() > LEASE.unsigned_abs() {
                    lost.send_replace(true);
                }
            }
        }
    }
}

async fn end(worker: &Worker, id: DeploymentId, epoch: Epoch, attempts: u32, outcome: Outcome, progress: &Progress) {
    match &outcome {
        Outcome::Failed { error, switched: false, .. } if error.code.is_worth_a_retry() && attempts < MAX_ATTEMPTS => {
            tracing::warn!(code = error.code.as_str(), attempts, "failed, and tried again later");
            hand_back(worker, id, epoch, attempts).await;
        }
        Outcome::Succeeded { .. } | Outcome::Failed { .. } => finish(worker, id, epoch, &outcome, progress).await,
    }
}

async fn hand_back(worker: &Worker, id: DeploymentId, epoch: Epoch, attempts: u32) {
    let jitter = Duration::from_millis(u64::from(u16::from_be_bytes(random::bytes()) % 1_000));
    let wait = BACKOFF * 2_u32.pow(attempts.saturating_sub(1).min(4)) + jitter;
    let at = clock::now() + SignedDuration::try_from(wait).unwrap_or(LEASE);
    // Should this write fail, the lease stays, and the same process claims it anew with its next look.
    match worker.side.hand_back(id, epoch, Some(at), attempts).await {
        Ok(Ok(())) => {}
        Ok(Err(Lost)) => tracing::warn!("somebody else has taken it over"),
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "could not hand it back"),
    }
}

/// Writes down how it ended, however long AWS is away, and reports it.
///
/// A crash before the write leaves a claim: the next process takes it over, and finds in Docker what was done.
async fn finish(worker: &Worker, id: DeploymentId, epoch: Epoch, outcome: &Outcome, progress: &Progress) {
    loop {
        match worker.side.finish(id, epoch, outcome, progress, clock::now()).await {
            Ok(Ok(())) => break,
            Ok(Err(Lost)) => {
                tracing::warn!("ended without the lease; what runs here shows as drift");
                return;
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "could not write down how it ended; trying again"
                );
                sleep(PAUSE).await;
            }
        }
    }
    match outcome {
        Outcome::Succeeded { digest } => tracing::info!(image.digest = %digest, "succeeded"),
        Outcome::Failed { error, running, .. } => {
            tracing::warn!(code = error.code.as_str(), message = error.message, running = ?running, "failed");
        }
    }
    report(worker, id).await;
}

fn bad_assignment() -> TargetError {
    TargetError::new(
        ErrorCode::BadAssignment,
        "the work order was not sealed for this host, or was changed",
        "check the worker's tenant and host name, and that its role may decrypt for them; then deploy again",
    )
}

async fn running_now(worker: &Worker, assignment: &StoredAssignment) -> Running {
    match worker.host.standing(assignment.application_id, assignment.deployment_id).await {
        Ok(Standing::Committed(_)) => Running::New,
        Ok(Standing::OtherRuns) => Running::Previous,
        Ok(Standing::NothingRuns) => Running::None,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "what runs cannot be seen");
            Running::Mixed
        }
    }
}
