//! How a work order ended, and the way back of one that failed.

use std::time::Duration;

use tidegate_domain::{
    assignment::{ErrorCode, Outcome, Running, Step as Shown, TargetError},
    image::{Digest, ImageName},
    job::Action,
};

use super::{Abandoned, Attempt, Interrupt};
use crate::{
    docker::{Error, failure},
    plan::{Goal, Observed},
    settle::{self, Settling, Unsettled, Why},
    trace,
};

impl Attempt<'_> {
    pub(super) async fn interrupted(&mut self, by: Interrupt) -> Result<Outcome, Abandoned> {
        let mut running = Running::New;
        if !self.is_committed() {
            running = match settle::clean_up(self.host, &self.settling(Goal::Settle)).await {
                Ok(settled) => {
                    self.last = settled.observed;
                    if self.is_committed() { Running::New } else { self.running() }
                }
                Err(unsettled) => {
                    trace::clean_up_failed(self.job, &unsettled.why);
                    if self.containers.is_empty() { Running::Mixed } else { self.running() }
                }
            };
        }
        match by {
            Interrupt::Cancelled => Ok(self.failed(trace::cancelled(self.job), running)),
            Interrupt::HandedBack => Err(Abandoned::HandedBack),
            Interrupt::LeaseLost | Interrupt::None => Err(Abandoned::LeaseLost),
        }
    }

    pub(super) async fn succeeded(&mut self) -> Outcome {
        let current = self.last.current.take();
        let policy = &self.host.policy;
        let engine = &self.host.engine;
        let image = &self.job.image;
        // What is left of old images is tried again by the next deployment.
        let pruned = match self.job.action {
            Action::Deploy => engine.prune_images(image, policy.keep_images, None).await,
            Action::Remove => self.prune_all(image).await,
            Action::Stop | Action::Start | Action::Restart => Ok(()),
        };
        if let Err(error) = pruned {
            trace::pruning_failed(self.job, &error);
        }
        let digest: Option<Digest> = current.and_then(|seen| seen.digest);
        if self.job.action != Action::Deploy {
            return Outcome::Succeeded { digest };
        }
        if let Some(digest) = digest.or(self.pulled.take().map(|pulled| pulled.digest)) {
            return Outcome::Succeeded { digest: Some(digest) };
        }
        let why = "the deployed container does not tell its digest";
        self.failed(TargetError::new(ErrorCode::Internal, why, "deploy again"), Running::New)
    }

    pub(super) async fn go_back(&mut self, error: TargetError, goal: Goal) -> Outcome {
        let settling = self.settling(goal);
        let settled = if self.switched {
            self.begin(Shown::Restore);
            settle::restore(self.host, &settling).await
        } else {
            settle::clean_up(self.host, &settling).await
        };
        match settled {
            Ok(settled) => {
                self.last = settled.observed;
                if self.is_committed() {
                    // The commit went through although its answer was lost.
                    return self.succeeded().await;
                }
                let running = self.running();
                match &self.set_aside {
                    Some(name)
                        if running == Running::None && self.last.current.is_none() && self.last.foreign.is_none() =>
                    {
                        let gone = format!("the old version, set aside as {name}, is not there any more");
                        self.failed(failure::restore(error, &gone), running)
                    }
                    Some(_) | None => self.failed(error, running),
                }
            }
            Err(Unsettled { why: Why::NameTaken(name), observed }) => {
                self.last = observed;
                let running = self.running();
                let error = if self.switched { failure::name_not_back(error, &name, running) } else { error };
                self.failed(error, running)
            }
            // What the next try makes of it is not known yet.
            Err(Unsettled { why, .. }) if self.switched => {
                self.failed(failure::restore(error, &why.to_string()), Running::Mixed)
            }
            Err(_) => self.failed(error, if self.containers.is_empty() { Running::Mixed } else { self.running() }),
        }
    }

    /// Of an application whose new version has not come to stay.
    fn running(&self) -> Running {
        let Observed { current, previous, foreign, strays, .. } = &self.last;
        let previous = previous.as_ref().map(|previous| &previous.seen);
        let old = strays.iter().filter(|stray| stray.deployment != Some(self.job.release));
        let mut old = current.iter().chain(previous).chain(old);
        // The one that was to be adopted is what ran before.
        let adopted = foreign.as_ref().is_some_and(|foreign| foreign.running && !foreign.is_managed);
        if adopted || old.any(|seen| seen.running) {
            return Running::Previous;
        }
        let is_deployed = self.job.action == Action::Deploy;
        match self.last.running_stray() {
            Some(_) if is_deployed => Running::New,
            Some(_) => Running::Previous,
            None => Running::None,
        }
    }

    fn settling(&self, goal: Goal) -> Settling {
        Settling {
            application: self.job.application_id,
            name: self.name.clone(),
            goal,
            adopts: self.job.adopt,
            // What never served as the committed version is killed: the old one is waiting for its ports.
            grace: if self.committed { self.limits.grace } else { Duration::ZERO },
            known: self.last.clone(),
        }
    }

    fn failed(&self, mut error: TargetError, running: Running) -> Outcome {
        error.message = self.redactor.apply(&error.message);
        let error = error.bounded();
        Outcome::Failed { error, switched: self.switched, running }
    }

    /// After the last container: all images of the application, or, where another one deploys the same image, those
    /// beyond what it keeps.
    async fn prune_all(&self, image: &ImageName) -> Result<(), Error> {
        let engine = &self.host.engine;
        let keep = if engine.is_image_used(image).await? { self.host.policy.keep_images } else { 0 };
        engine.prune_images(image, keep, None).await
    }
}
