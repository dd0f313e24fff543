//! Bringing an application back to what was committed last, from Docker's labels and names alone.
//!
//! It is the way back of a deployment that failed, and the first thing that a new process does, before it asks anybody:
//! a worker that died in the middle of a switch has left the application stopped.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use tidegate_domain::id::ApplicationId;

use crate::{
    docker::{Error, UnnamedVolumes, label},
    perform::Host,
    plan::{Goal, Held, Observed, Step, next_step},
    trace,
};

/// Attempts of a way back, with pauses from [`FIRST_PAUSE`] doubling to [`LONGEST_PAUSE`]: about half a minute, in which
/// an engine that is being restarted is back.
const ATTEMPTS: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// More steps than any way back has; past that somebody else is changing the same containers.
const MOST_STEPS: usize = 32;

/// An application that the process before left in the middle of something.
#[derive(Debug)]
pub struct Recovered {
    pub application: ApplicationId,
    /// The application's container name.
    pub name: String,
    pub result: Recovery,
}

#[derive(Debug)]
pub enum Recovery {
    /// A container that was never committed was removed; what runs was not touched.
    Cleaned,
    /// The old version was set aside and has its place again.
    Restored,
    /// The new version had been committed; the old one, still there, was removed.
    Completed,
    /// It could not be done within the attempts. Raises an alarm; the next recovery tries again.
    Failed(Error),
}

/// Settles every application of this host. To be run before anything else on start, and never beside a deployment of
/// the same application. Applications that needed nothing
/// are not in the answer.
///
/// # Errors
/// The engine does not list its containers; nothing was done.
pub async fn recover(host: &Host) -> Result<Vec<Recovered>, Error> {
    let all = applications(host).await?.into_iter();
    let all = all.map(|(application, name)| recover_one(host, application, name));
    Ok(join_all(all).await.into_iter().flatten().collect())
}

/// Settles one application, as [`recover`] does all of them.
pub async fn recover_application(host: &Host, application: ApplicationId) -> Result<Option<Recovered>, Error> {
    match applications(host).await?.remove(&application) {
        Some(name) => Ok(recover_one(host, application, name).await),
        None => Ok(None),
    }
}

/// Applications of which there is any container here, with their container name.
async fn applications(host: &Host) -> Result<BTreeMap<ApplicationId, String>, Error> {
    let label = host.label();
    let mut applications = BTreeMap::new();
    for container in host.engine.containers().await? {
        let ours = container.labels.get(label::HOST) == Some(&label);
        let application = container.labels.get(label::APPLICATION).and_then(|id| id.parse().ok()).map(ApplicationId);
        if let Some(application) = application.filter(|_| ours) {
            let name = container.labels.get(label::NAME).cloned();
            applications.entry(application).or_insert(name.unwrap_or(container.name));
        }
    }
    Ok(applications)
}

async fn recover_one(host: &Host, application: ApplicationId, name: String) -> Option<Recovered> {
    let result = match settle(host, application, &name, ATTEMPTS).await {
        Ok(settled) => settled.recovery()?,
        Err(error) => Recovery::Failed(error),
    };
    Some(Recovered { application, name, result })
}

/// What settling found and did.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) observed: Observed,
    pub(crate) done: Vec<Step>,
}

impl Settled {
    fn recovery(&self) -> Option<Recovery> {
        let did = |wanted: fn(&Step) -> bool| self.done.iter().any(wanted);
        if did(|step| matches!(step, Step::BringBack { .. })) {
            Some(Recovery::Restored)
        } else if did(|step| matches!(step, Step::RemovePrevious { .. })) {
            Some(Recovery::Completed)
        } else {
            did(|step| matches!(step, Step::RemoveNext { .. })).then_some(Recovery::Cleaned)
        }
    }
}

/// For a way back after a switch.
pub(crate) async fn restore(host: &Host, application: ApplicationId, name: &str) -> Result<Settled, Error> {
    settle(host, application, name, ATTEMPTS).await
}

/// For what a deployment leaves behind that changed nothing: the next recovery or deployment removes it too.
pub(crate) async fn clean_up(host: &Host, application: ApplicationId, name: &str) -> Result<Settled, Error> {
    settle(host, application, name, 2).await
}

/// Any error is tried again, whatever it is: there is nothing better to do about an application that is down.
async fn settle(host: &Host, application: ApplicationId, name: &str, attempts: u32) -> Result<Settled, Error> {
    let mut done = Vec::new();
    let mut pause = FIRST_PAUSE;
    let mut left = attempts;
    loop {
        match pass(host, application, name, &mut done).await {
            Ok(observed) => return Ok(Settled { observed, done }),
            Err(error) if left <= 1 => return Err(error),
            Err(error) => {
                trace::settling_failed(application, &error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                left -= 1;
            }
        }
    }
}

/// One pass, from looking to "nothing left to do". A crash in here is what the next one begins with.
async fn pass(host: &Host, application: ApplicationId, name: &str, done: &mut Vec<Step>) -> Result<Observed, Error> {
    let engine = &host.engine;
    let mut observed = host.observe(application, name).await?;
    for _ in 0..MOST_STEPS {
        let step = next_step(&Goal::Settle, &observed, Held::Nothing);
        match &step {
            // Killed, not asked: it never served as the committed version, and the old one is waiting for its ports.
            Step::RemoveNext { id } => engine.remove(id, UnnamedVolumes::Remove).await?,
            Step::RemovePrevious { id } => engine.remove(id, UnnamedVolumes::Keep).await?,
            Step::StartPrevious { id } => engine.restart(id).await?,
            Step::BringBack { id, name } => engine.rename(id, name).await?,
            Step::Done
            | Step::RefuseName
            | Step::Pull
            | Step::Create
            | Step::ProveLease
            | Step::SetAside { .. }
            | Step::StopPrevious { .. }
            | Step::StartNext { .. }
            | Step::Check { .. }
            | Step::Commit { .. } => {
                // What was predicted is looked at once more before it is told.
                let seen = host.observe(application, name).await?;
                if next_step(&Goal::Settle, &seen, Held::Nothing) == Step::Done {
                    return Ok(seen);
                }
                observed = seen;
                continue;
            }
        }
        // While the application is down no time goes into looking.
        observed = observed.after(&step);
        done.push(step);
    }
    Err(Error::Refused { status: 409, message: "the application's containers keep being changed by others".to_owned() })
}
