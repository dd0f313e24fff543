//! Carries out one work order: looks, decides ([`crate::plan`]), does one step, and looks again.
//!
//! Up to the switch an interruption ends it with nothing changed. From the first irreversible step on it commits or goes
//! back by itself, whether or not anybody can be told.

mod outcome;
mod steps;

use std::time::Duration;

use tidegate_domain::{
    assignment::{ErrorCode, Outcome, Progress, Step as Shown, TargetError},
    id::{Epoch, HostName, TenantId},
    job::{Action, Job},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    deadline::{Limits, PATIENCE, PAUSE},
    docker::{Container, Engine, Error, Pulled, Stopped, failure},
    health::{self, Since},
    plan::{Deploy, Goal, Held, Observed, Step, Whose, next_step},
    policy::HostPolicy,
    redact::Redactor,
    trace,
};

/// More steps than any way to the goal has; past that somebody else is changing the same containers.
const MOST_STEPS: usize = 64;

/// This machine, as the executor needs it.
#[derive(Debug, Clone)]
pub struct Host {
    pub engine: Engine,
    /// Which installation of Tidegate the worker belongs to: each one counts its applications from 1, and containers of
    /// another one are none of ours.
    pub installation: String,
    pub tenant: TenantId,
    pub name: HostName,
    pub policy: HostPolicy,
}

/// Why the work should not go on, the weightier ones last. All are heeded before the switch, the last two in a bake time,
/// and else none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Interrupt {
    #[default]
    None,
    /// A person has called it off.
    Cancelled,
    /// The process ends, and another one goes on.
    HandedBack,
    /// The claim on the assignment is no longer ours.
    LeaseLost,
}

impl Interrupt {
    /// Tells the work, unless it was told something weightier.
    pub fn tell(self, work: &watch::Sender<Self>) {
        work.send_if_modified(|now| {
            let is_more = self > *now;
            *now = (*now).max(self);
            is_more
        });
    }
}

/// Why the switch must not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotProven {
    #[error("the lease on the assignment is lost, or cannot be proven")]
    Lost,
    #[error("the deployment was called off")]
    Cancelled,
}

/// There is nothing to report: nothing has changed, or, in a bake time, the new version runs and the former one is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Abandoned {
    #[error("given up, as the lease was lost")]
    LeaseLost,
    #[error("given up, for another process to go on with")]
    HandedBack,
}

/// Does what `job` orders on `host`, and says how it ended. Done once more it changes nothing (but restarts once more);
/// only for a job that is not being performed already.
///
/// `progress` is changed at every step, and at every change of the pull's figures. `interrupt` (or its sender going away)
/// abandons the work up to the switch. `prove` is called once, right before the switch, with the longest time that the
/// switch and the way back may take: it must make sure that the lease lasts so much longer.
///
/// A crash in here leaves what [`settle::recover`] brings back to the last commit.
///
/// # Errors
/// [`Abandoned`]; what goes wrong with the order itself is an [`Outcome`].
pub async fn perform(
    host: &Host,
    job: &Job,
    epoch: Epoch,
    progress: &watch::Sender<Progress>,
    interrupt: &mut watch::Receiver<Interrupt>,
    prove: impl AsyncFnOnce(Duration) -> Result<(), NotProven>,
) -> Result<Outcome, Abandoned> {
    let mut attempt = Attempt::new(host, job, epoch, progress);
    let outcome = match attempt.run(interrupt, prove).await {
        Ok(()) => attempt.succeeded().await,
        Err(End::Failed(error)) => attempt.go_back(*error, attempt.way_back()).await,
        Err(End::FailedInBake(error)) => {
            attempt.switched = true;
            attempt.go_back(*error, Goal::Return { release: job.release }).await
        }
        Err(End::Interrupted(by)) => attempt.interrupted(by).await?,
    };
    progress.send_modify(|progress| progress.end(tidegate_aws::clock::now()));
    Ok(outcome)
}

impl Host {
    /// The value of our containers' host label. Workers that share an engine differ in their prefix at least, and leave each
    /// other's containers alone.
    pub(crate) fn label(&self) -> String {
        let prefix = &self.policy.container_prefix;
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("{}/{}/{}{slash}{prefix}", self.installation, self.tenant, self.name)
    }
}

struct Attempt<'a> {
    host: &'a Host,
    job: &'a Job,
    epoch: Epoch,
    progress: &'a watch::Sender<Progress>,
    redactor: Redactor,
    /// The container's, with the host's prefix.
    name: String,
    /// The host's.
    label: String,
    limits: Limits,
    held: Held,
    pulled: Option<Pulled>,
    /// As last listed.
    containers: Vec<Container>,
    last: Observed,
    /// The name that the old version was given.
    set_aside: Option<String>,
    /// The old version, since its process has ended.
    stopped: Option<Stopped>,
    /// Something that ran or is published was touched.
    switched: bool,
    /// The new version has its name by a commit: this attempt's, of which the answer may be lost, or an earlier one's.
    committed: bool,
}

enum End {
    Interrupted(Interrupt),
    Failed(Box<TargetError>),
    FailedInBake(Box<TargetError>),
}

/// Why a step was not done.
enum Hitch {
    Docker(Error),
    Told(Box<TargetError>),
    InBake(Box<TargetError>),
}

impl From<Error> for Hitch {
    fn from(error: Error) -> Self {
        Self::Docker(error)
    }
}

impl From<TargetError> for Hitch {
    fn from(error: TargetError) -> Self {
        Self::Told(Box::new(error))
    }
}

/// Which interruptions count now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heed {
    All,
    /// Of a bake time: it is too late to call it off.
    Ours,
    Nothing,
}

impl Heed {
    /// Ends with one that counts.
    async fn wait(self, interrupt: &mut watch::Receiver<Interrupt>) -> Interrupt {
        let counts = |now: &Interrupt| match now {
            Interrupt::None => false,
            Interrupt::LeaseLost | Interrupt::HandedBack => true,
            Interrupt::Cancelled => self == Self::All,
        };
        if self == Self::Nothing {
            return std::future::pending().await;
        }
        interrupt.wait_for(counts).await.map_or(Interrupt::LeaseLost, |now| *now)
    }
}

impl<'a> Attempt<'a> {
    fn new(host: &'a Host, job: &'a Job, epoch: Epoch, progress: &'a watch::Sender<Progress>) -> Self {
        let limits = Limits {
            grace: Duration::from_secs(u64::from(job.container.stop_timeout_seconds)),
            check: health::longest(job.health_check.as_ref(), host.policy.stable),
            bake: Duration::from_secs(u64::from(job.bake_seconds)),
        };
        Self {
            host,
            job,
            epoch,
            progress,
            redactor: Redactor::new(job.secrets()),
            name: format!("{}{}", host.policy.container_prefix, job.name.as_str()),
            label: host.label(),
            limits,
            held: Held::Nothing,
            pulled: None,
            containers: Vec::new(),
            last: Observed::default(),
            set_aside: None,
            stopped: None,
            switched: false,
            committed: false,
        }
    }

    fn goal(&self) -> Goal {
        let Job { release, sequence, bake_seconds, adopt, stopped, .. } = *self.job;
        match self.job.action {
            Action::Deploy => {
                let (epoch, bake) = (self.epoch, bake_seconds > 0);
                Goal::Deploy(Deploy { release, sequence, epoch, bake, adopt, stopped })
            }
            Action::Stop => Goal::Stop { sequence },
            Action::Start => Goal::Start { sequence },
            Action::Restart => Goal::Restart { sequence },
            Action::Remove => Goal::Remove { sequence },
        }
    }

    async fn run(
        &mut self,
        interrupt: &mut watch::Receiver<Interrupt>,
        prove: impl AsyncFnOnce(Duration) -> Result<(), NotProven>,
    ) -> Result<(), End> {
        let goal = self.goal();
        let mut prove = Some(prove);
        let mut away_until = None;
        let mut look = true;
        for _ in 0..MOST_STEPS {
            let looked = look;
            if look {
                let heed = self.heed(None);
                let seen = tokio::select! {
                    biased;
                    by = heed.wait(interrupt) => return Err(End::Interrupted(by)),
                    seen = self.look() => seen,
                };
                if let Err(error) = seen {
                    self.wait_for_engine(error, None, &mut away_until).await?;
                    continue;
                }
            }
            let step = next_step(&goal, &self.last, self.held);
            if step == Step::Done {
                if looked {
                    return Ok(());
                }
                // What was predicted is looked at before it is told.
                look = true;
                continue;
            }
            if step == Step::ProveLease {
                self.prove(&mut prove).await?;
                look = false;
                continue;
            }
            let (heed, limit) = (self.heed(Some(&step)), self.limits.of(&step));
            let done = tokio::select! {
                biased;
                by = heed.wait(interrupt) => return Err(End::Interrupted(by)),
                done = timeout(limit, self.advance(&step)) => done,
            };
            match done {
                Ok(Ok(())) => {
                    // During the switch what a step does is predicted: no time goes into looking while nobody is served.
                    // A check and a bake time are long enough for others to change what was seen before them.
                    let is_served = matches!(step, Step::Check { .. } | Step::Commit { .. } | Step::Bake { .. });
                    look = self.held < Held::Proven || is_served;
                    self.last = std::mem::take(&mut self.last).after(&step);
                }
                Ok(Err(Hitch::Docker(error))) => {
                    self.wait_for_engine(error, Some(&step), &mut away_until).await?;
                    look = true;
                }
                Ok(Err(Hitch::Told(error))) => return Err(End::Failed(error)),
                Ok(Err(Hitch::InBake(error))) => return Err(End::FailedInBake(error)),
                Err(_) => return Err(End::Failed(Box::new(trace::late(&step, limit)))),
            }
        }
        let error = TargetError::new(
            ErrorCode::Internal,
            "the application's containers on this host keep being changed by others",
            "find out who else manages them, then deploy again",
        );
        Err(End::Failed(Box::new(error)))
    }

    /// `step` is what is to be done next, if that is known.
    fn heed(&self, step: Option<&Step>) -> Heed {
        match step {
            Some(Step::Bake { .. }) => Heed::Ours,
            Some(_) | None if self.held >= Held::Proven => Heed::Nothing,
            Some(_) | None if self.is_committed() => Heed::Ours,
            Some(_) | None => Heed::All,
        }
    }

    /// The new version has its place; what may be missing is the rest of its bake time.
    fn is_committed(&self) -> bool {
        let deploys = self.job.action == Action::Deploy;
        deploys && self.last.current.as_ref().is_some_and(|seen| seen.deployment == Some(self.job.release))
    }

    /// Of an attempt that failed. A new version that it made itself and has not committed must not be left running, whoever
    /// has given it the application's name or another one.
    fn way_back(&self) -> Goal {
        let made = self.job.action == Action::Deploy && self.held >= Held::Created;
        if made && !self.committed { Goal::Return { release: self.job.release } } else { Goal::Settle }
    }

    async fn prove(
        &mut self,
        prove: &mut Option<impl AsyncFnOnce(Duration) -> Result<(), NotProven>>,
    ) -> Result<(), End> {
        // What is there already shows its image's check; of a new version the pull has told it.
        if self.job.health_check.is_none()
            && let Some(current) = &self.last.current
        {
            let seen = self.host.engine.inspect(&current.id).await.ok();
            self.allow_for(seen.and_then(|seen| seen.image_check).as_ref());
        }
        let limit = self.limits.of(&Step::ProveLease);
        // What was committed has passed its check.
        self.committed = self.is_committed();
        let proven = if self.committed { Held::Checked } else { Held::Proven };
        let Some(prove) = prove.take() else {
            self.hold(proven);
            return Ok(());
        };
        match timeout(limit, prove(self.limits.longest_switch())).await {
            Ok(Ok(())) => {}
            // Called off while nobody worked on it, but too late: the new version has its place.
            Ok(Err(NotProven::Cancelled)) if self.is_committed() => {}
            Ok(Err(NotProven::Cancelled)) => return Err(End::Interrupted(Interrupt::Cancelled)),
            Ok(Err(NotProven::Lost)) | Err(_) => return Err(End::Interrupted(Interrupt::LeaseLost)),
        }
        self.hold(proven);
        Ok(())
    }

    /// In the middle of a switch an engine that is away is waited for; what else it says ends the work.
    async fn wait_for_engine(
        &self,
        error: Error,
        step: Option<&Step>,
        away_until: &mut Option<Instant>,
    ) -> Result<(), End> {
        if self.held < Held::Proven || !error.is_passing() {
            return Err(End::Failed(Box::new(self.explain(&error, step).await)));
        }
        let now = Instant::now();
        if now >= *away_until.get_or_insert(now + PATIENCE) {
            return Err(End::Failed(Box::new(failure::engine(&error))));
        }
        trace::engine_away(self.job, &error);
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Error> {
        let whose =
            Whose { host: &self.label, application: self.job.application_id, base: &self.name, adopts: self.job.adopt };
        self.containers = self.host.engine.containers().await?;
        let mut seen = Observed::of(&self.containers, whose, tidegate_aws::clock::now()).knowing(&self.last);
        if let Some(foreign) = seen.foreign.as_mut().filter(|foreign| self.job.adopt && !foreign.is_managed) {
            foreign.always = self.host.engine.inspect(&foreign.id).await?.always;
        }
        self.last = seen;
        Ok(())
    }

    fn hold(&mut self, now: Held) {
        self.held = self.held.max(now);
    }

    fn begin(&self, step: Shown) {
        self.progress.send_if_modified(|progress| {
            let is_new = progress.step() != Some(step);
            if is_new {
                progress.begin(step, tidegate_aws::clock::now());
            }
            is_new
        });
    }

    /// Of a check: whether the container was started for it.
    fn since(&self) -> Since {
        if self.switched { Since::Start } else { Since::Now }
    }
}
