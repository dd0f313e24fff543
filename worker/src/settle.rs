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
    Failed(Why),
}

/// Why an application has not come to what was committed last.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    #[error(transparent)]
    Docker(#[from] Error),
    /// What can be done without the name was done.
    #[error("a container named {0} exists on this host that is not this application's")]
    NameTaken(String),
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
    let known = Observed::default();
    let settling =
        Settling { application, name: name.clone(), goal: Goal::Settle, adopts: false, grace: Duration::ZERO, known };
    let result = match settle(host, &settling, ATTEMPTS).await {
        Ok(settled) => settled.recovery()?,
        Err(unsettled) => Recovery::Failed(unsettled.why),
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
    /// As this process last saw it; see [`Observed::knowing`].
    pub(crate) known: Observed,
}

/// What settling found and did.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) observed: Observed,
    pub(crate) done: Vec<Step>,
}

/// What settling could not do, and what it saw last.
#[derive(Debug)]
pub(crate) struct Unsettled {
    pub(crate) why: Why,
    pub(crate) observed: Observed,
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
pub(crate) async fn restore(host: &Host, settling: &Settling) -> Result<Settled, Unsettled> {
    settle(host, settling, ATTEMPTS).await
}

/// For what a deployment leaves behind that changed nothing: the next recovery or deployment removes it too.
pub(crate) async fn clean_up(host: &Host, settling: &Settling) -> Result<Settled, Unsettled> {
    settle(host, settling, 2).await
}

/// Any error is tried again, whatever it is: there is nothing better to do about an application that is down. A name that
/// somebody else has is not waited for: until it is free nothing is left to do.
async fn settle(host: &Host, settling: &Settling, attempts: u32) -> Result<Settled, Unsettled> {
    let mut done = Vec::new();
    let mut observed = settling.known.clone();
    let mut pause = FIRST_PAUSE;
    let mut left = attempts;
    loop {
        match pass(host, settling, &mut observed, &mut done).await {
            Ok(()) => return Ok(Settled { observed, done }),
            Err(why @ Why::NameTaken(_)) => return Err(Unsettled { why, observed }),
            Err(why) if left <= 1 => return Err(Unsettled { why, observed }),
            Err(Why::Docker(error)) => {
                trace::settling_failed(settling.application, &error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                left -= 1;
            }
        }
    }
}

/// One pass, from looking to "nothing left to do". A crash in here is what the next one begins with. `observed` is what
/// this process knows from before, and is left as what it knows now.
async fn pass(host: &Host, settling: &Settling, observed: &mut Observed, done: &mut Vec<Step>) -> Result<(), Why> {
    let limits = Limits { grace: settling.grace, ..Limits::default() };
    *observed = observe(host, settling).await?.knowing(observed);
    let mut looked = true;
    for _ in 0..MOST_STEPS {
        let step = next_step(&settling.goal, observed, Held::Nothing);
        match &step {
            Step::Done if looked => return Ok(()),
            // What was predicted is looked at once more before it is told.
            Step::Done => {
                *observed = observe(host, settling).await?.knowing(observed);
                looked = true;
                continue;
            }
            Step::RefuseName => return Err(Why::NameTaken(settling.name.clone())),
            _ => {}
        }
        let limit = limits.of(&step);
        match timeout(limit, settling_step(&host.engine, &step, settling.grace)).await {
            Ok(answer) => answer?,
            Err(_) => return Err(Error::Late(limit).into()),
        }
        // While the application is down no time goes into looking.
        *observed = std::mem::take(observed).after(&step);
        looked = false;
        done.push(step);
    }
    let message = "the application's containers keep being changed by others".to_owned();
    Err(Error::Refused { status: 409, message }.into())
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
        // It may hold the ports that are needed next.
        Step::StopStray { id, always } => {
            stop(engine, id, *always, grace).await?.cleared().await;
            Ok(())
        }
        Step::StartCurrent { id, always } => start(engine, id, *always).await,
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
        | Step::RefuseLost
        | Step::Pull
        | Step::Create
        | Step::ProveLease
        | Step::SetAside { .. }
        | Step::StartNext { .. }
        | Step::Check { .. }
        | Step::Commit { .. }
        | Step::Bake { .. }
        | Step::StopCurrent { .. }
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
