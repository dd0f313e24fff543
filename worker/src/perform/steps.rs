//! The steps of a work order, each as calls to Docker.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;
use tidegate_domain::{
    application::HealthCheck,
    assignment::{ErrorCode, Step as Shown, TargetError},
    container::RestartPolicy,
    image::Digest,
    job::Action,
};
use tokio::time::Instant;

use super::{Attempt, Hitch};
use crate::{
    deadline,
    docker::{Error, NewContainer, PullProgress, UnnamedVolumes, failure, label},
    health::{self, Verdict},
    log_lines,
    plan::{Held, Step, next_name},
    ports, settle, trace,
};

/// An engine that is busy may take so long to make a container.
const LATE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);
const HOST_NETWORK: &str = "host";

impl Attempt<'_> {
    /// Does one step. Done twice it is done once.
    pub(super) async fn advance(&mut self, step: &Step) -> Result<(), Hitch> {
        let engine = &self.host.engine;
        let grace = self.limits.grace;
        match step {
            Step::Done | Step::ProveLease => {}
            Step::RefuseName => return Err(failure::name_taken(&self.name).into()),
            Step::RefuseOlder => return Err(trace::superseded().into()),
            Step::RefuseNothing => {
                let renamed = self.last.strays.first().and_then(|stray| self.name_of(&stray.id));
                return Err(trace::no_container(&self.name, renamed).into());
            }
            Step::RefuseLost => return Err(self.lost()),
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
                self.touch();
                self.set_aside = Some(name.clone());
                engine.rename(id, name).await?;
            }
            Step::StopPrevious { id, always } => self.stopped = Some(settle::stop(engine, id, *always, grace).await?),
            Step::StartNext { id } => {
                self.touch();
                // Only now does Docker follow the links of what is mounted.
                self.host.policy.check(self.job)?;
                engine.start_after(id, self.stopped.take()).await?;
            }
            Step::Check { id } => {
                self.begin(Shown::Check);
                self.check(id).await?;
                self.hold(Held::Checked);
            }
            Step::Commit { id } => {
                self.begin(Shown::Commit);
                self.committed = true;
                engine.rename(id, &self.name).await?;
            }
            Step::Bake { id } => {
                self.begin(Shown::Bake);
                self.bake(id).await?;
                self.hold(Held::Baked);
            }
            Step::StopCurrent { id, always } => {
                self.touch();
                settle::stop(engine, id, *always, grace).await?.cleared().await;
                if self.job.action == Action::Stop {
                    self.hold(Held::Checked);
                }
            }
            Step::StartCurrent { id, always } => {
                self.touch();
                settle::start(engine, id, *always).await?;
            }
            Step::StopStray { .. } => {
                self.touch();
                settle::settling_step(engine, step, grace).await?;
            }
            Step::RemoveCurrent { id } | Step::RemoveStray { id } => {
                self.touch();
                engine.remove(id, UnnamedVolumes::Remove).await?;
            }
            Step::StartPrevious { .. } => {
                settle::settling_step(engine, step, grace).await?;
                if self.job.action == Action::Restart && self.held >= Held::Proven {
                    self.hold(Held::Restarted);
                }
            }
            Step::StopNext { .. }
            | Step::RemoveNext { .. }
            | Step::RemovePrevious { .. }
            | Step::BringBack { .. }
            | Step::Uncommit { .. } => settle::settling_step(engine, step, grace).await?,
        }
        Ok(())
    }

    /// What runs is changed from here on.
    fn touch(&mut self) {
        self.begin(Shown::Switch);
        self.switched = true;
    }

    async fn pull(&mut self) -> Result<(), Hitch> {
        self.host.policy.check(self.job)?;
        self.check_networks().await?;
        self.find_room().await?;
        let told = |now: PullProgress| {
            self.progress.send_modify(|progress| {
                progress.percent = now.percent;
                progress.bytes_done = progress.bytes_done.max(now.bytes_done);
                progress.bytes_total = progress.bytes_total.max(now.bytes_total);
            });
        };
        let pulled = self.host.engine.pull(self.job, told).await.map_err(|error| failure::pull(&error, self.job))?;
        if self.job.health_check.is_none() {
            self.allow_for(self.host.engine.image_check(&pulled.reference).await?.as_ref());
        }
        self.pulled = Some(pulled);
        Ok(())
    }

    /// Docker would tell only at the start, with the old version already stopped. A network's id says as little to the rules
    /// about names.
    async fn check_networks(&self) -> Result<(), Hitch> {
        for network in &self.job.container.networks {
            match self.host.engine.network_named(network).await? {
                Some(name) if name == HOST_NETWORK && name != *network => {
                    return Err(failure::host_network_by_id(network).into());
                }
                Some(_) => {}
                None => return Err(failure::network_missing(network).into()),
            }
        }
        Ok(())
    }

    /// An image's own check may take longer than Docker's default one.
    pub(super) fn allow_for(&mut self, check: Option<&HealthCheck>) {
        self.limits.check = self.limits.check.max(health::longest(check, self.host.policy.stable));
    }

    /// Before a pull as much has to be free as the host wants to keep. The application's own old images go first; those that
    /// a rollback would need only where that makes enough room, so that a refusal has cost nothing.
    async fn find_room(&self) -> Result<(), Hitch> {
        let engine = &self.host.engine;
        let wanted = self.host.policy.min_free_disk_bytes;
        let too_few =
            async || engine.free_disk_bytes().await.map(|free: Option<u64>| free.filter(|free| *free < wanted));
        if wanted == 0 || engine.has_image_of(self.job).await? || too_few().await?.is_none() {
            return Ok(());
        }
        let image = &self.job.image;
        let application = Some(self.job.application_id);
        for (keep, of_no_use) in [(self.host.policy.keep_images, None), (0, application)] {
            let Some(free) = too_few().await? else { return Ok(()) };
            if of_no_use.is_some() && free + engine.removable_bytes(image, keep, of_no_use).await? < wanted {
                break;
            }
            if let Err(error) = engine.prune_images(image, keep, of_no_use).await {
                trace::pruning_failed(self.job, &error);
            }
        }
        match too_few().await? {
            Some(free) => Err(failure::disk_too_full(free, wanted).into()),
            None => Ok(()),
        }
    }

    /// Of the image that a way back from `new` would need.
    fn former_digest(&self, new: &Digest) -> Option<Digest> {
        let current = self.last.current.as_ref()?;
        let same = current.digest.as_ref() == Some(new);
        // The same image with another configuration: what ran before both is still the former one.
        if same { current.former_digest.clone() } else { current.digest.clone() }
    }

    async fn create(&mut self) -> Result<(), Hitch> {
        let foreign = self.last.foreign.as_ref().filter(|_| self.job.adopt).map(|foreign| foreign.id.as_str());
        let own: Vec<&str> = self.last.ids().chain(foreign).collect();
        let free = ports::check_free(self.job, &self.containers, &own, self.host.engine.is_local());
        free.map_err(|taken| self.by_a_stray(taken))?;
        self.check_networks().await?;
        let Some(pulled) = &self.pulled else {
            return Err(TargetError::new(ErrorCode::Internal, "created before pulled", "report this fault").into());
        };
        let labels = self.labels(&pulled.digest);
        let name = next_name(&self.name);
        // A pull takes its time, and what runs meanwhile may have put a link into its folder.
        self.host.policy.check(self.job)?;
        let new = NewContainer { name: &name, alias: &self.name, image: &pulled.reference, labels, job: self.job };
        let until = Instant::now() + LATE;
        loop {
            match self.host.engine.create(&new).await {
                Ok(_) => return Ok(()),
                Err(error) if error.status() == Some(409) && Instant::now() < until && self.frees(&name).await? => {}
                Err(error) => return Err(failure::create(&error, &name, self.job).into()),
            }
        }
    }

    /// The new version's container is not where it was put.
    fn lost(&self) -> Hitch {
        let strays = self.last.strays.iter().filter(|stray| stray.deployment == Some(self.job.release));
        let renamed = strays.max_by_key(|stray| (stray.running, stray.epoch)).and_then(|stray| self.name_of(&stray.id));
        let error = renamed.map_or_else(|| trace::removed(self.job), |name| trace::renamed(self.job, name));
        // With nothing to go back to, a version that has proven itself is left serving.
        let goes_back = self.held >= Held::Baked && self.last.previous.is_some();
        if goes_back { Hitch::InBake(Box::new(error)) } else { error.into() }
    }

    /// A port may be held by one of the application's own that somebody has renamed: it is theirs to say what it is for.
    fn by_a_stray(&self, taken: TargetError) -> TargetError {
        let names = self.last.strays.iter().filter_map(|stray| self.name_of(&stray.id));
        match names.into_iter().find(|name| taken.message.ends_with(&format!("the container {name}"))) {
            Some(name) => {
                let message = format!("{}, which is this application's own and was renamed by somebody", taken.message);
                TargetError { message, suggestion: trace::back_to(&self.name, name), ..taken }
            }
            None => taken,
        }
    }

    /// As last listed.
    fn name_of(&self, id: &str) -> Option<&str> {
        self.containers.iter().find(|container| container.id == id).map(|container| container.name.as_str())
    }

    /// Whether a name that is taken may be had after all. The engine goes on making a container whose process has died:
    /// its name is taken before there is anything to be seen, and so after the next process has looked.
    async fn frees(&self, name: &str) -> Result<bool, Error> {
        let engine = &self.host.engine;
        let containers = engine.containers().await?;
        let Some(found) = containers.iter().find(|container| container.name == name) else {
            tokio::time::sleep(PAUSE).await;
            return Ok(true);
        };
        let labelled = |key, value: &str| found.labels.get(key).is_some_and(|v| v == value);
        let ours = labelled(label::HOST, &self.label)
            && labelled(label::APPLICATION, &self.job.application_id.to_string())
            && !found.running;
        if ours {
            engine.remove(&found.id, UnnamedVolumes::Remove).await?;
        }
        Ok(ours)
    }

    fn labels(&self, digest: &Digest) -> BTreeMap<&'static str, String> {
        let job = self.job;
        let mut labels = BTreeMap::from([
            (label::APPLICATION, job.application_id.to_string()),
            (label::DEPLOYMENT, job.release.to_string()),
            (label::SEQUENCE, job.sequence.to_string()),
            (label::EPOCH, self.epoch.to_string()),
            (label::HOST, self.label.clone()),
            (label::TENANT, self.host.tenant.to_string()),
            (label::ROLE, "application".to_owned()),
            (label::NAME, self.name.clone()),
            (label::DIGEST, digest.to_string()),
        ]);
        if let Some(former) = self.former_digest(digest) {
            labels.insert(label::FORMER_DIGEST, former.to_string());
        }
        if job.container.restart_policy == RestartPolicy::Always {
            labels.insert(label::RESTART_POLICY, label::ALWAYS.to_owned());
        }
        if job.bake_seconds > 0 {
            let seconds = i64::try_from(self.limits.longest_bake().as_secs()).unwrap_or(i64::from(u32::MAX));
            let until = tidegate_aws::clock::now() + SignedDuration::from_secs(seconds);
            labels.insert(label::BAKES_UNTIL, until.to_string());
        }
        labels
    }

    async fn check(&self, id: &str) -> Result<(), Hitch> {
        let engine = &self.host.engine;
        let own = self.job.health_check.as_ref();
        let verdict = health::check(engine, id, own, self.network(), self.host.policy.stable, self.since()).await?;
        match self.told(id, &verdict).await {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    async fn bake(&self, id: &str) -> Result<(), Hitch> {
        let own = self.job.health_check.as_ref();
        let clock = tidegate_aws::clock::now;
        let baked = health::bake(&self.host.engine, id, own, self.network(), self.limits.bake, clock).await?;
        match self.told(id, &baked.verdict).await {
            None => Ok(()),
            Some(error) => Err(Hitch::InBake(Box::new(trace::in_bake(error, baked.after)))),
        }
    }

    fn network(&self) -> Option<&str> {
        self.job.container.networks.first().map(String::as_str)
    }

    /// The error that a verdict is; none for a container that works.
    async fn told(&self, id: &str, verdict: &Verdict) -> Option<TargetError> {
        let is_known = self.last.is_of(id, self.job.release);
        let mut error = match verdict {
            // A probe may have repeated a value.
            Verdict::Unhealthy { .. } if !is_known => {
                let why = "what it says is left out, as its release's secrets are not known here".to_owned();
                trace::verdict(self.job, &Verdict::Unhealthy { why })?
            }
            Verdict::Healthy | Verdict::Exited { .. } | Verdict::Removed | Verdict::Unhealthy { .. } => {
                trace::verdict(self.job, verdict)?
            }
        };
        if *verdict == Verdict::Removed {
            return Some(error);
        }
        // Now, as the way back removes the container.
        error.log_tail = self.log_tail(id).await;
        if let Verdict::Exited { .. } = verdict
            && error.exit_code.is_none()
        {
            error.exit_code = self.host.engine.inspect(id).await.ok().and_then(|now| now.exit_code);
        }
        Some(error)
    }

    async fn log_tail(&self, id: &str) -> Vec<String> {
        // What ran when the order was given may have been replaced since, by a version with other secrets.
        if !self.last.is_of(id, self.job.release) {
            return vec![
                "(left out: the container is of another release, whose secrets are not known here)".to_owned(),
            ];
        }
        let tail = log_lines::tail(trace::MAX_LINES, &self.redactor);
        match self.host.engine.written(id, tail).await {
            Ok(Ok(written)) => trace::tail(&log_lines::hidden(written.lines, written.begins_within, &self.redactor)),
            Ok(Err(driver)) => vec![format!("(the container's log driver {driver} keeps nothing that can be read)")],
            Err(error) => vec![format!("(the container's log cannot be read: {error})")],
        }
    }

    /// What an error of Docker in a step means.
    pub(super) async fn explain(&self, error: &Error, step: Option<&Step>) -> TargetError {
        match step {
            Some(
                Step::StartNext { id }
                | Step::Check { id }
                | Step::Commit { id }
                | Step::StartCurrent { id, .. }
                | Step::StopCurrent { id, .. },
            ) if self.is_gone(error, id).await => trace::removed(self.job),
            Some(Step::StartNext { id } | Step::StartCurrent { id, .. } | Step::StartPrevious { id, .. }) => {
                let others = self.host.engine.containers().await.unwrap_or_default();
                let mut told = failure::start(error, self.job, &others);
                if told.code != ErrorCode::DockerUnavailable {
                    told.log_tail = self.log_tail(id).await;
                }
                told
            }
            Some(Step::Commit { .. }) if error.status() == Some(409) => failure::name_taken(&self.name),
            Some(step) => failure::refused(error, deadline::told(step)),
            None => failure::refused(error, "list its containers"),
        }
    }

    /// A start answers 404 for a program that the image does not have, too.
    async fn is_gone(&self, error: &Error, id: &str) -> bool {
        error.status() == Some(404)
            && self.host.engine.inspect(id).await.is_err_and(|error| error.status() == Some(404))
    }
}
