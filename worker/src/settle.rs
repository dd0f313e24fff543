//! Bringing an application back to what was committed last, from Docker's labels and names alone.
//!
//! It is the way back of a deployment that failed, and the first thing that a new process does, before it asks anybody:
//! a worker that died in the middle of a switch has left the application stopped.

use std::{collections::BTreeMap, time::Duration};

use tidegate_domain::id::ApplicationId;
use tokio::time::timeout;

use crate::{
    deadline::Limits,
    docker::{Engine, Error, Stopped, label},
    perform::Host,
    plan::{Goal, Held, Observed, Step, Whose, next_step},
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

/// Settles one application. To be done with each of [`applications`] before anything else on start, and never beside a
/// deployment of the same one. None: it needed nothing.
///
/// # Errors
/// The engine does not list its containers; nothing was done.
pub async fn recover(host: &Host, application: ApplicationId) -> Result<Option<Recovered>, Error> {
    match applications(host).await?.remove(&application) {
        Some(name) => Ok(recover_one(host, application, name).await),
        None => Ok(None),
    }
}

/// Applications of which there is any container here, with their container name.
///
/// # Errors
/// The engine does not list its containers.
pub async fn applications(host: &Host) -> Result<BTreeMap<ApplicationId, String>, Error> {
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
    let settling =
        Settling { application, name: name.clone(), goal: Goal::Settle, adopts: false, grace: Duration::ZERO };
    let result = match settle(host, &settling, ATTEMPTS).await {
        Ok(settled) => settled.recovery()?,
        Err(error) => Recovery::Failed(error),
    };
    Some(Recovered { application, name, result })
}

/// What is to be settled.
#[derive(Debug, Clone)]
pub(crate) struct Settling {
    pub(crate) application: ApplicationId,
    /// Its container's.
    pub(crate) name: String,
    /// [`Goal::Settle`] or [`Goal::Return`].
    pub(crate) goal: Goal,
    /// See [`Whose::adopts`].
    pub(crate) adopts: bool,
    /// Of what was committed and goes.
    pub(crate) grace: Duration,
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
pub(crate) async fn restore(host: &Host, settling: &Settling) -> Result<Settled, Error> {
    settle(host, settling, ATTEMPTS).await
}

/// For what a deployment leaves behind that changed nothing: the next recovery or deployment removes it too.
pub(crate) async fn clean_up(host: &Host, settling: &Settling) -> Result<Settled, Error> {
    settle(host, settling, 2).await
}

/// Any error is tried again, whatever it is: there is nothing better to do about an application that is down.
async fn settle(host: &Host, settling: &Settling, attempts: u32) -> Result<Settled, Error> {
    let mut done = Vec::new();
    let mut pause = FIRST_PAUSE;
    let mut left = attempts;
    loop {
        match pass(host, settling, &mut done).await {
            Ok(observed) => return Ok(Settled { observed, done }),
            Err(error) if left <= 1 => return Err(error),
            Err(error) => {
                trace::settling_failed(settling.application, &error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                left -= 1;
            }
        }
    }
}

/// One pass, from looking to "nothing left to do". A crash in here is what the next one begins with.
async fn pass(host: &Host, settling: &Settling, done: &mut Vec<Step>) -> Result<Observed, Error> {
    let limits = Limits { grace: settling.grace, ..Limits::default() };
    let mut observed = observe(host, settling).await?;
    for _ in 0..MOST_STEPS {
        let step = next_step(&settling.goal, &observed, Held::Nothing);
        if step == Step::Done {
            // What was predicted is looked at once more before it is told.
            let seen = observe(host, settling).await?;
            if next_step(&settling.goal, &seen, Held::Nothing) == Step::Done {
                return Ok(seen);
            }
            observed = seen;
            continue;
        }
        let limit = limits.of(&step);
        match timeout(limit, settling_step(&host.engine, &step, settling.grace)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Error::Late(limit)),
        }
        // While the application is down no time goes into looking.
        observed = observed.after(&step);
        done.push(step);
    }
    Err(Error::Refused { status: 409, message: "the application's containers keep being changed by others".to_owned() })
}

async fn observe(host: &Host, settling: &Settling) -> Result<Observed, Error> {
    let label = host.label();
    let Settling { application, name, adopts, .. } = settling;
    let whose = Whose { host: &label, application: *application, base: name, adopts: *adopts };
    Ok(Observed::of(&host.engine.containers().await?, whose, tidegate_aws::clock::now()))
}

/// A step that any way back may have. `grace` is for what was committed; a version that was only tried is killed.
pub(crate) async fn settling_step(engine: &Engine, step: &Step, grace: Duration) -> Result<(), Error> {
    match step {
        Step::RemoveNext { id, volumes } | Step::RemovePrevious { id, volumes } => engine.remove(id, *volumes).await,
        Step::StopNext { id, always } | Step::StopPrevious { id, always } => {
            stop(engine, id, *always, grace).await.map(drop)
        }
        Step::StartPrevious { id, always } => {
            engine.restart(id).await?;
            // Before it is renamed, so that a crash in between does it again.
            if *always { engine.start_with_docker(id, true).await } else { Ok(()) }
        }
        Step::BringBack { id, name } | Step::Uncommit { id, name } => engine.rename(id, name).await,
        Step::Done
        | Step::RefuseName
        | Step::RefuseOlder
        | Step::RefuseNothing
        | Step::Pull
        | Step::Create
        | Step::ProveLease
        | Step::SetAside { .. }
        | Step::StartNext { .. }
        | Step::Check { .. }
        | Step::Commit { .. }
        | Step::Bake { .. }
        | Step::StopCurrent { .. }
        | Step::StartCurrent { .. }
        | Step::RemoveCurrent { .. }
        | Step::RemoveStray { .. } => Ok(()),
    }
}

/// Stops a container for good: Docker does not start it again with itself.
///
/// A crash before the stop leaves one that runs, and is started again after every end but one on purpose: what `always`
/// promises beyond that is missing until its next start.
pub(crate) async fn stop(engine: &Engine, id: &str, always: bool, grace: Duration) -> Result<Stopped, Error> {
    if always {
        engine.start_with_docker(id, false).await?;
    }
    engine.stop(id, grace).await
}

/// Starts what was stopped so.
pub(crate) async fn start(engine: &Engine, id: &str, always: bool) -> Result<(), Error> {
    engine.start(id).await?;
    if always { engine.start_with_docker(id, true).await } else { Ok(()) }
}
