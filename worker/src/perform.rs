//! Carries out one work order: looks, decides ([`crate::plan`]), does one step, and looks again.
//!
//! Up to the switch a lost lease ends it with nothing changed. From the first irreversible step on it commits or goes
//! back by itself, whether or not anybody can be told.

use std::{collections::BTreeMap, time::Duration};

use tidegate_domain::{
    assignment::{ErrorCode, Outcome, Progress, Running, Step as Shown, TargetError},
    id::{ApplicationId, Epoch, HostName, TenantId},
    job::Job,
};
use tokio::sync::watch;

use crate::{
    docker::{Container, Engine, Error, NewContainer, Pulled, Stopped, UnnamedVolumes, failure, label},
    health::{self, Verdict},
    plan::{Goal, Held, Observed, Step, next_name, next_step},
    policy::HostPolicy,
    ports,
    redact::Redactor,
    settle, trace,
};

/// An engine that goes away in the middle of a switch is waited for so long, looking again each time it is back.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(500);
/// Of a switch, beside the old version's grace period and the new one's check: renames, the start, and the way back.
const SWITCH_MARGIN: Duration = Duration::from_secs(30);
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

/// The claim on the assignment is no longer ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease on the assignment is lost")]
pub struct LeaseLost;

/// It was given up before the switch: nothing has changed, and there is nothing to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("given up before the switch, as the lease was lost")]
pub struct Abandoned;

/// Deploys `job` on `host` and says how it ended. Done once more it changes nothing; only for a job that is not being
/// performed already.
///
/// `progress` is changed at every step, and at every change of the pull's figures. `lease_lost` turning true (or its
/// sender going away) abandons the work up to the switch. `prove` is called once, right before the switch, with the
/// longest time that the switch and the way back may take: it must make sure that the lease lasts so much longer.
///
/// A crash in here leaves what [`settle::recover`] brings back to the last commit.
///
/// # Errors
/// [`Abandoned`]; what goes wrong with the deployment itself is an [`Outcome`].
pub async fn perform(
    host: &Host,
    job: &Job,
    epoch: Epoch,
    progress: &watch::Sender<Progress>,
    lease_lost: &mut watch::Receiver<bool>,
    prove: impl AsyncFnOnce(Duration) -> Result<(), LeaseLost>,
) -> Result<Outcome, Abandoned> {
    let mut attempt = Attempt {
        host,
        job,
        epoch,
        progress,
        redactor: Redactor::new(job.secrets()),
        name: format!("{}{}", host.policy.container_prefix, job.name.as_str()),
        held: Held::Nothing,
        pulled: None,
        containers: Vec::new(),
        last: Observed::default(),
        set_aside: None,
        stopped: None,
        switched: false,
    };
    let outcome = match attempt.deploy(lease_lost, prove).await {
        Ok(()) => attempt.succeeded().await,
        Err(Stop::Failed(error)) => attempt.go_back(*error).await,
        Err(Stop::Abandoned) => {
            if let Err(error) = settle::clean_up(host, job.application_id, &attempt.name).await {
                trace::clean_up_failed(job, &error);
            }
            return Err(Abandoned);
        }
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

    pub(crate) async fn observe(&self, application: ApplicationId, name: &str) -> Result<Observed, Error> {
        Ok(Observed::of(&self.engine.containers().await?, &self.label(), application, name))
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
}

enum Stop {
    Abandoned,
    Failed(Box<TargetError>),
}

/// Why a step was not done.
enum Hitch {
    Docker(Error),
    Told(Box<TargetError>),
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

impl Attempt<'_> {
    async fn deploy(
        &mut self,
        lease_lost: &mut watch::Receiver<bool>,
        prove: impl AsyncFnOnce(Duration) -> Result<(), LeaseLost>,
    ) -> Result<(), Stop> {
        let goal = Goal::Deploy { deployment: self.job.deployment_id, epoch: self.epoch };
        let mut prove = Some(prove);
        let mut away_until = None;
        let mut look = true;
        for _ in 0..MOST_STEPS {
            let mut step = None;
            let result = if self.held >= Held::Proven {
                self.advance(&goal, look, &mut step).await
            } else {
                tokio::select! {
                    biased;
                    _ = lease_lost.wait_for(|lost| *lost) => return Err(Stop::Abandoned),
                    result = self.advance(&goal, look, &mut step) => result,
                }
            };
            match (result, step) {
                (Ok(()), Some(Step::Done)) => return Ok(()),
                (Ok(()), Some(Step::ProveLease)) => {
                    if let Some(prove) = prove.take() {
                        prove(self.longest_switch()).await.map_err(|LeaseLost| Stop::Abandoned)?;
                    }
                    self.hold(Held::Proven);
                    look = false;
                }
                // During the switch what a step does is predicted: no time goes into looking while nobody is served.
                (Ok(()), step) => look = self.held < Held::Proven || matches!(step, Some(Step::Commit { .. }) | None),
                (Err(Hitch::Docker(error)), _) if self.held >= Held::Proven && error.is_passing() => {
                    let now = tokio::time::Instant::now();
                    if now >= *away_until.get_or_insert(now + PATIENCE) {
                        return Err(Stop::Failed(Box::new(failure::engine(&error))));
                    }
                    trace::engine_away(self.job, &error);
                    tokio::time::sleep(PAUSE).await;
                    look = true;
                }
                (Err(Hitch::Docker(error)), step) => {
                    return Err(Stop::Failed(Box::new(self.explain(&error, step.as_ref()).await)));
                }
                (Err(Hitch::Told(error)), _) => return Err(Stop::Failed(error)),
            }
        }
        let error = TargetError::new(
            ErrorCode::Internal,
            "the application's containers on this host keep being changed by others",
            "find out who else manages them, then deploy again",
        );
        Err(Stop::Failed(Box::new(error)))
    }

    /// Looks (if asked to), decides, and does one step, which it also tells if it fails.
    async fn advance(&mut self, goal: &Goal, look: bool, decided: &mut Option<Step>) -> Result<(), Hitch> {
        if look {
            self.containers = self.host.engine.containers().await?;
            let seen = Observed::of(&self.containers, &self.host.label(), self.job.application_id, &self.name);
            self.last = seen.knowing(&self.last);
        }
        let step = decided.insert(next_step(goal, &self.last, self.held));
        let engine = &self.host.engine;
        match &*step {
            Step::Done | Step::ProveLease => {}
            Step::RefuseName => return Err(failure::name_taken(&self.name).into()),
            Step::Pull => {
                self.begin(Shown::Pull);
                self.pull().await?;
                self.hold(Held::Pulled);
            }
            Step::Create => {
                self.begin(Shown::Create);
                self.create().await?;
                self.hold(Held::Created);
            }
            Step::SetAside { id, name } => {
                self.set_aside = Some(name.clone());
                self.begin(Shown::Switch);
                self.switched = true;
                engine.rename(id, name).await?;
            }
            Step::StopPrevious { id } => self.stopped = Some(engine.stop(id, self.grace()).await?),
            Step::StartNext { id } => {
                self.begin(Shown::Switch);
                self.switched = true;
                engine.start_after(id, self.stopped.take()).await?;
            }
            Step::Check { id } => {
                self.begin(Shown::Check);
                self.check(id).await?;
                self.hold(Held::Checked);
            }
            Step::Commit { id } => {
                self.begin(Shown::Commit);
                engine.rename(id, &self.name).await?;
            }
            Step::RemoveNext { id } => engine.remove(id, UnnamedVolumes::Remove).await?,
            Step::RemovePrevious { id } => engine.remove(id, UnnamedVolumes::Keep).await?,
            Step::StartPrevious { id } => engine.restart(id).await?,
            Step::BringBack { id, name } => engine.rename(id, name).await?,
        }
        self.last = std::mem::take(&mut self.last).after(step);
        Ok(())
    }

    async fn pull(&mut self) -> Result<(), Hitch> {
        let Host { engine, policy, .. } = self.host;
        policy.check(self.job)?;
        if policy.min_free_disk_bytes > 0
            && let Some(free) = engine.free_disk_bytes().await?
            && free < policy.min_free_disk_bytes
        {
            return Err(failure::disk_too_full(free, policy.min_free_disk_bytes).into());
        }
        let told = |now: crate::docker::PullProgress| {
            self.progress.send_modify(|progress| {
                progress.percent = now.percent;
                progress.bytes_done = progress.bytes_done.max(now.bytes_done);
                progress.bytes_total = progress.bytes_total.max(now.bytes_total);
            });
        };
        let pulled = engine.pull(self.job, told).await.map_err(|error| failure::pull(&error, self.job))?;
        self.pulled = Some(pulled);
        Ok(())
    }

    async fn create(&mut self) -> Result<(), Hitch> {
        let own = self.own_ids();
        ports::check_free(self.job, &self.containers, &own, self.host.engine.is_local())?;
        // Docker would tell only at the start, with the old version already stopped.
        for network in &self.job.container.networks {
            if !self.host.engine.has_network(network).await? {
                return Err(failure::network_missing(network).into());
            }
        }
        let Some(pulled) = &self.pulled else {
            return Err(TargetError::new(ErrorCode::Internal, "created before pulled", "report this fault").into());
        };
        let labels = BTreeMap::from([
            (label::APPLICATION, self.job.application_id.to_string()),
            (label::DEPLOYMENT, self.job.deployment_id.to_string()),
            (label::SEQUENCE, self.job.sequence.to_string()),
            (label::EPOCH, self.epoch.to_string()),
            (label::HOST, self.host.label()),
            (label::TENANT, self.host.tenant.to_string()),
            (label::ROLE, "application".to_owned()),
            (label::NAME, self.name.clone()),
            (label::DIGEST, pulled.digest.to_string()),
        ]);
        let name = next_name(&self.name);
        let new = NewContainer { name: &name, alias: &self.name, image: &pulled.reference, labels, job: self.job };
        match self.host.engine.create(&new).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failure::create(&error, &name, self.job).into()),
        }
    }

    async fn check(&self, id: &str) -> Result<(), Hitch> {
        let Host { engine, policy, .. } = self.host;
        let network = self.job.container.networks.first().map(String::as_str);
        let verdict = health::check(engine, id, self.job.health_check.as_ref(), network, policy.stable).await?;
        let Some(mut error) = trace::verdict(self.job, &verdict) else { return Ok(()) };
        // Now, as the way back removes the container.
        error.log_tail = self.log_tail(id).await;
        if let Verdict::Exited { .. } = verdict
            && error.exit_code.is_none()
        {
            error.exit_code = engine.inspect(id).await.ok().and_then(|now| now.exit_code);
        }
        Err(error.into())
    }

    async fn log_tail(&self, id: &str) -> Vec<String> {
        match self.host.engine.log_tail(id).await {
            Ok(text) => trace::tail(&self.redactor.apply(&text)),
            Err(error) => vec![format!("(the container's log cannot be read: {error})")],
        }
    }

    /// What an error of Docker in a step means.
    async fn explain(&self, error: &Error, step: Option<&Step>) -> TargetError {
        match step {
            Some(Step::StartNext { id }) => {
                let others = self.host.engine.containers().await.unwrap_or_default();
                let mut told = failure::start(error, self.job, &others);
                if told.code != ErrorCode::DockerUnavailable {
                    told.log_tail = self.log_tail(id).await;
                }
                told
            }
            Some(Step::Commit { .. }) if error.status() == Some(409) => failure::name_taken(&self.name),
            _ => failure::engine(error),
        }
    }

    async fn succeeded(&mut self) -> Outcome {
        let current = self.last.current.take();
        let digest = current.and_then(|seen| seen.digest).or(self.pulled.take().map(|pulled| pulled.digest));
        // What is left of old images is tried again by the next deployment.
        let keep = self.host.policy.keep_images;
        if let Err(error) = self.host.engine.prune_images(&self.job.image, keep).await {
            trace::pruning_failed(self.job, &error);
        }
        let Some(digest) = digest else {
            let why = "the deployed container does not tell its digest";
            return self.failed(TargetError::new(ErrorCode::Internal, why, "deploy again"), Running::New);
        };
        Outcome::Succeeded { digest }
    }

    async fn go_back(&mut self, error: TargetError) -> Outcome {
        let application = self.job.application_id;
        let settled = if self.switched {
            self.begin(Shown::Restore);
            settle::restore(self.host, application, &self.name).await
        } else {
            settle::clean_up(self.host, application, &self.name).await
        };
        match settled {
            Ok(settled) => {
                let current = settled.observed.current;
                if let Some(seen) = &current
                    && seen.deployment == Some(self.job.deployment_id)
                {
                    // The commit went through although its answer was lost.
                    self.last.current = current;
                    return self.succeeded().await;
                }
                let running = running(current.as_ref().is_some_and(|seen| seen.running));
                match &self.set_aside {
                    Some(name) if current.is_none() => {
                        let gone = format!("the old version, set aside as {name}, is not there any more");
                        self.failed(failure::restore(error, &gone), running)
                    }
                    Some(_) | None => self.failed(error, running),
                }
            }
            Err(settle_error) if self.switched => {
                // What the next try makes of it is not known yet.
                self.failed(failure::restore(error, &settle_error.to_string()), Running::Mixed)
            }
            Err(_) => {
                let runs = self.last.current.as_ref().is_some_and(|seen| seen.running);
                self.failed(error, if self.containers.is_empty() { Running::Mixed } else { running(runs) })
            }
        }
    }

    fn failed(&self, mut error: TargetError, running: Running) -> Outcome {
        error.message = self.redactor.apply(&error.message);
        let error = error.bounded();
        Outcome::Failed { error, switched: self.switched, running }
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

    fn own_ids(&self) -> Vec<&str> {
        let Observed { current, next, previous, .. } = &self.last;
        let previous = previous.as_ref().map(|previous| &previous.seen);
        [current.as_ref(), next.as_ref(), previous].into_iter().flatten().map(|seen| seen.id.as_str()).collect()
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.job.container.stop_timeout_seconds))
    }

    fn longest_switch(&self) -> Duration {
        self.grace() + health::longest(self.job.health_check.as_ref(), self.host.policy.stable) + SWITCH_MARGIN
    }
}

fn running(previous: bool) -> Running {
    if previous { Running::Previous } else { Running::None }
}
