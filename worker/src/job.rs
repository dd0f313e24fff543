//! One assignment from claim to report: holds the lease while [`perform`] does the work.

use std::{
    future::pending,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tidegate_aws::{
    assignments::StoredAssignment,
    clock,
    error::StoreError,
    host_side::{HostSide, Interrupted, Lost},
    random,
};
use tidegate_domain::{
    assignment::{ErrorCode, LEASE, MAX_ATTEMPTS, Outcome, Progress, Running, Step, TargetError},
    deployment::is_not_restored,
    id::{DeploymentId, Epoch},
    job::{Action, Job},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::{
    metrics::End,
    perform::{Abandoned, Host, Interrupt, NotProven, perform},
    standing::Standing,
    vitals::Vitals,
    work::Line,
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

/// Of a switch that nothing was promised to yet.
const NOT_PROVEN: i64 = 0;

/// This host, and its side of AWS.
#[derive(Debug)]
pub struct Worker {
    pub host: Host,
    pub side: HostSide,
    pub vitals: Vitals,
    /// Turns true once the process is to stop.
    pub stopping: watch::Receiver<bool>,
}

/// Claims the assignment and does it. Whatever happens, the assignment says what did. `false`: the old version could not be
/// brought back, and somebody has to try again.
#[tracing::instrument(level = "error", skip_all, fields(deployment.id = %assignment.deployment_id, application.id = %assignment.application_id))]
pub(crate) async fn work(worker: &Worker, assignment: StoredAssignment, epoch: Epoch, line: &Line) -> bool {
    let mut progress = Progress::default();
    progress.begin(Step::Claim, clock::now());
    if !claim(worker, &assignment, epoch, &progress).await {
        return true;
    }
    // With the queue away a report takes its time, which the work does not wait for.
    let (settled, ()) =
        tokio::join!(begun(worker, &assignment, epoch, progress, line), report(worker, assignment.deployment_id));
    settled
}

async fn begun(worker: &Worker, assignment: &StoredAssignment, epoch: Epoch, progress: Progress, line: &Line) -> bool {
    let attempts = assignment.attempts + 1;
    match worker.side.open(assignment).await {
        Ok(job) => return carry_out(worker, assignment, epoch, &job, progress, line).await,
        Err(StoreError::Corrupt { what, source }) => {
            tracing::error!(what, error = &*source as &dyn std::error::Error, "the job cannot be opened");
            let error = bad_assignment();
            let outcome = Outcome::Failed { error, switched: false, running: running_now(worker, assignment).await };
            finish(worker, assignment.deployment_id, epoch, &outcome, &progress).await;
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the job cannot be opened now");
            let error = TargetError::new(
                ErrorCode::KeyUnavailable,
                "the work order cannot be opened: the key service does not answer, or refuses this host",
                "check that the worker's role may decrypt for its tenant and host; then deploy again",
            );
            let outcome = Outcome::Failed { error, switched: false, running: running_now(worker, assignment).await };
            end(worker, assignment.deployment_id, epoch, attempts, outcome, &progress).await;
        }
    }
    true
}

async fn carry_out(
    worker: &Worker,
    assignment: &StoredAssignment,
    epoch: Epoch,
    job: &Job,
    progress: Progress,
    line: &Line,
) -> bool {
    let (sender, receiver) = watch::channel(progress);
    let held = Box::pin(hold_and_perform(worker, job, epoch, &sender, receiver.clone(), line)).await;
    let last = receiver.borrow().clone();
    let outcome = match held {
        Ok(outcome) => outcome,
        Err(abandoned) => {
            give_back(worker, assignment, epoch, abandoned, &last).await;
            return true;
        }
    };
    let settled = !is_not_restored(&outcome);
    end(worker, assignment.deployment_id, epoch, assignment.attempts + 1, outcome, &last).await;
    settled
}

/// Ends an assignment that was begun too often: as what Docker shows of it. One in its bake time is watched to its end all
/// the same, however often that was begun: nothing is switched for it, and nobody else would tell whether it works.
#[tracing::instrument(level = "error", skip_all, fields(deployment.id = %assignment.deployment_id, application.id = %assignment.application_id))]
pub(crate) async fn give_up(worker: &Worker, assignment: StoredAssignment, epoch: Epoch, line: &Line) -> bool {
    if !claim(worker, &assignment, epoch, &assignment.progress).await {
        return true;
    }
    let standing = worker.host.standing(assignment.application_id, assignment.release).await;
    // Only of a deployment does the host show that it was done.
    let job = worker.side.open(&assignment).await.ok().filter(|job| job.action == Action::Deploy);
    let outcome = match (standing, &job) {
        (Ok(Standing::Committed { bakes: true, .. }), Some(job)) => {
            return carry_out(worker, &assignment, epoch, job, assignment.progress.clone(), line).await;
        }
        // The last attempt did it, and died before it could say so.
        (Ok(Standing::Committed { digest, runs: true, .. }), Some(_)) => Outcome::Succeeded { digest: Some(digest) },
        (Ok(Standing::Committed { .. } | Standing::OtherRuns | Standing::NothingRuns) | Err(_), _) => Outcome::Failed {
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
    true
}

/// Asks for the assignment to be folded. Not heard, it is said again with the next look.
pub(crate) async fn report(worker: &Worker, id: DeploymentId) {
    if let Err(error) = worker.side.report(id).await {
        tracing::warn!(deployment.id = %id, error = &error as &dyn std::error::Error, "could not report; will do so again");
    }
}

async fn claim(worker: &Worker, assignment: &StoredAssignment, epoch: Epoch, progress: &Progress) -> bool {
    let committed = assignment.switching && may_be_committed(worker, assignment).await;
    match worker.side.claim(assignment, epoch, progress, committed, clock::now()).await {
        Ok(Ok(())) => true,
        Ok(Err(Lost)) => false,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "could not claim; trying again later");
            sleep(PAUSE).await;
            false
        }
    }
}

/// Whether an attempt that had come to its switch may have ended it, so that it is too late to call it off. What was brought
/// back since can be called off again; of other orders nothing is ever brought back.
async fn may_be_committed(worker: &Worker, assignment: &StoredAssignment) -> bool {
    match worker.host.standing(assignment.application_id, assignment.release).await {
        Ok(Standing::OtherRuns | Standing::NothingRuns) => assignment.action != Action::Deploy,
        Ok(Standing::Committed { .. }) | Err(_) => true,
    }
}

async fn hold_and_perform(
    worker: &Worker,
    job: &Job,
    epoch: Epoch,
    progress: &watch::Sender<Progress>,
    seen: watch::Receiver<Progress>,
    line: &Line,
) -> Result<Outcome, Abandoned> {
    let (interrupt, mut interrupted) = watch::channel(Interrupt::None);
    let proven_until = AtomicI64::new(NOT_PROVEN);
    let prove = async |longest: Duration| -> Result<(), NotProven> {
        let longest = SignedDuration::try_from(longest).unwrap_or(LEASE);
        let current = progress.borrow().clone();
        let until = clock::now() + longest + MARGIN;
        // Before the write, so that no renewal beside it takes the longer lease back.
        proven_until.store(until.as_second(), Ordering::SeqCst);
        match worker.side.prove(job.deployment_id, epoch, until, &current).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Interrupted::Lost)) => Err(NotProven::Lost),
            Ok(Err(Interrupted::Cancelled)) => Err(NotProven::Cancelled),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the lease cannot be proven, so nothing is switched"
                );
                Err(NotProven::Lost)
            }
        }
    };
    let performing = perform(&worker.host, job, epoch, progress, &mut interrupted, prove);
    tokio::select! {
        outcome = performing => outcome,
        () = hold(worker, job.deployment_id, epoch, seen, &interrupt, &proven_until, line) => Err(Abandoned::LeaseLost),
        () = let_go_when_stopping(worker, &interrupt) => Err(Abandoned::HandedBack),
    }
}

/// Never ends: once the process is to stop, it tells the work, which heeds it up to the switch and in a bake time.
async fn let_go_when_stopping(worker: &Worker, interrupt: &watch::Sender<Interrupt>) {
    if worker.stopping.clone().wait_for(|stopping| *stopping).await.is_ok() {
        Interrupt::HandedBack.tell(interrupt);
    }
    pending::<()>().await;
}

/// After work that was given up before the switch, or in a bake time: for the next process as if this one had never begun
/// it, if the lease is still ours.
///
/// A crash before the write leaves a claim, which the next process takes over just as soon, with one attempt less.
async fn give_back(
    worker: &Worker,
    assignment: &StoredAssignment,
    epoch: Epoch,
    abandoned: Abandoned,
    progress: &Progress,
) {
    let step = progress.step().map(Step::as_str).unwrap_or_default();
    match abandoned {
        Abandoned::LeaseLost => {
            tracing::warn!(step, "given up, as the lease was lost; what runs was not touched");
            return;
        }
        Abandoned::HandedBack => tracing::info!(step, "given up, as the worker stops; what runs was not touched"),
    }
    loop {
        match worker.side.hand_back(assignment.deployment_id, epoch, None, assignment.attempts).await {
            Ok(Ok(())) => break,
            Ok(Err(Lost)) => {
                tracing::warn!("somebody else has taken it over");
                return;
            }
            // As long as the process may still take.
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "could not hand it back; trying again");
                sleep(PAUSE).await;
            }
        }
    }
    worker.vitals.job_ended(End::HandedBack, took(progress));
}

/// From the claim until now.
fn took(progress: &Progress) -> Duration {
    let began = progress.steps.first().map(|step| step.started_at);
    began.map(|began| clock::now().duration_since(began).max(SignedDuration::ZERO).unsigned_abs()).unwrap_or_default()
}

/// Renews the lease and tells the progress; at once when the desk calls, as the answer tells what was asked of the
/// assignment. Never ends: once the work must not go on it says so and waits for its end.
///
/// `proven_until`, in seconds since the epoch, is what the switch was promised: a renewal never shortens it, and from then
/// on nobody can call the work off.
async fn hold(
    worker: &Worker,
    id: DeploymentId,
    epoch: Epoch,
    mut progress: watch::Receiver<Progress>,
    interrupt: &watch::Sender<Interrupt>,
    proven_until: &AtomicI64,
    line: &Line,
) {
    let mut ticks = interval(PROGRESS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut renewed = Instant::now();
    loop {
        let called = tokio::select! {
            _ = ticks.tick() => false,
            () = line.called() => true,
        };
        let changed = progress.has_changed().unwrap_or(false);
        line.waits_for_a_registry(progress.borrow().step() == Some(Step::Pull));
        if !called && !changed && renewed.elapsed() < RENEWAL {
            continue;
        }
        let current = progress.borrow_and_update().clone();
        let promised = proven_until.load(Ordering::SeqCst);
        let until = Timestamp::from_second(promised).unwrap_or_default().max(clock::now() + LEASE);
        let is_proven = promised != NOT_PROVEN;
        let answer = if is_proven {
            let kept = worker.side.keep(id, epoch, until, &current).await;
            kept.map(|kept| kept.map_err(|Lost| Interrupted::Lost))
        } else {
            worker.side.renew(id, epoch, until, &current).await
        };
        match answer {
            Ok(Ok(())) => renewed = Instant::now(),
            Ok(Err(Interrupted::Lost)) => Interrupt::LeaseLost.tell(interrupt),
            Ok(Err(Interrupted::Cancelled)) => {
                Interrupt::Cancelled.tell(interrupt);
                renewed = Instant::now();
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the lease could not be renewed");
                // Past the switch only a clear answer counts: somebody has to watch over what was changed.
                if !is_proven && renewed.elapsed() > LEASE.unsigned_abs() {
                    Interrupt::LeaseLost.tell(interrupt);
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
            worker.vitals.job_ended(End::Retried(error.code.as_str()), took(progress));
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
        Outcome::Succeeded { digest } => {
            worker.vitals.job_ended(End::Succeeded, took(progress));
            tracing::info!(image.digest = digest.as_ref().map(tracing::field::display), "succeeded");
        }
        Outcome::Failed { error, running, .. } => {
            worker.vitals.job_ended(End::Failed(error.code.as_str()), took(progress));
            tracing::warn!(code = error.code.as_str(), reason = error.message, running = ?running, "failed");
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
    match worker.host.standing(assignment.application_id, assignment.release).await {
        Ok(Standing::Committed { runs: true, .. }) if assignment.action == Action::Deploy => Running::New,
        // Any other order is about the release that was there before it.
        Ok(Standing::Committed { runs: true, .. } | Standing::OtherRuns) => Running::Previous,
        Ok(Standing::Committed { runs: false, .. } | Standing::NothingRuns) => Running::None,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "what runs cannot be seen");
            Running::Mixed
        }
    }
}
