//! What people do with an application that is deployed: return to a release, stop, start, restart, remove.
//!
//! Each is recorded as a deployment and has its turn in the application's order like any other.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use tidegate_aws::{
    admission::{Admission, Admitted, AskedBy, Origin},
    application_state::ApplicationState,
    catalogue::{Replay, Stored},
    environments::DecidedIn,
    error::StoreError,
    idempotency::{FirstAnswer, IdempotencyKey as KeptKey},
    random,
    registered::RegisteredApplication,
};
use tidegate_domain::{
    application::Concurrency,
    deployment::{Deployment, Status, Target, TriggerKind},
    id::{ApplicationId, DeploymentId, HostName},
    invalid::Invalid,
    job::{Action, Job},
};
use tidegate_web::{
    Problem,
    auth::{Deploy, Write},
    body::OptionalJsonBody,
    deployment_view::view,
    deployment_wait,
    form::Form,
    idempotency::{self, IdempotencyKey},
};

use crate::{
    AdminState,
    applications::{WHAT, find},
    call::{Call, first_answer as kept_answer, missing},
    rollback::{self, Secrets},
};

/// How often a race against a change of the application is run again before the caller is told.
const TRIES: usize = 3;
/// What stops and starts need not keep others waiting for: all hosts at a time, but no more than a transaction holds.
const ALL_AT_ONCE: u32 = 10;

/// What is asked for.
#[derive(Debug, Clone)]
enum Order {
    Rollback {
        to: Option<DeploymentId>,
        secrets: Secrets,
    },
    /// On these hosts; none: wherever the application is.
    Other {
        action: Action,
        hosts: Option<Vec<HostName>>,
    },
}

pub(crate) async fn rollback(
    State(state): State<AdminState>,
    call: Call<Deploy>,
    key: IdempotencyKey,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    let mut form = Form::of_body(body.value)?;
    let to = form.nullable("deploymentId", None, |text: String| DeploymentId::parse(&text));
    let secrets = form.defaulted("secrets", Secrets::Released, |text: String| Secrets::parse(&text));
    let order = form.finish(|| Some(Order::Rollback { to, secrets }))?;
    accept(&state, &call, key.as_ref(), &id, &order).await
}

pub(crate) async fn stop(
    state: State<AdminState>,
    call: Call<Deploy>,
    key: IdempotencyKey,
    id: Path<String>,
    body: OptionalJsonBody,
) -> Result<Response, Problem> {
    act(Action::Stop, state, call, key, id, body).await
}

pub(crate) async fn start(
    state: State<AdminState>,
    call: Call<Deploy>,
    key: IdempotencyKey,
    id: Path<String>,
    body: OptionalJsonBody,
) -> Result<Response, Problem> {
    act(Action::Start, state, call, key, id, body).await
}

pub(crate) async fn restart(
    state: State<AdminState>,
    call: Call<Deploy>,
    key: IdempotencyKey,
    id: Path<String>,
    body: OptionalJsonBody,
) -> Result<Response, Problem> {
    act(Action::Restart, state, call, key, id, body).await
}

/// Only an administrator: what is gone takes a deployment to come back.
pub(crate) async fn remove(
    state: State<AdminState>,
    call: Call<Write>,
    key: IdempotencyKey,
    id: Path<String>,
    body: OptionalJsonBody,
) -> Result<Response, Problem> {
    act(Action::Remove, state, call, key, id, body).await
}

async fn act<P>(
    action: Action,
    State(state): State<AdminState>,
    call: Call<P>,
    key: IdempotencyKey,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    let mut form = Form::of_body(body.value)?;
    let named = form.has("hosts");
    let hosts = form.items("hosts", Vec::new(), |text: String| HostName::parse(&text));
    let order = form.finish(|| Some(Order::Other { action, hosts: named.then_some(hosts) }))?;
    accept(&state, &call, key.as_ref(), &id, &order).await
}

/// So long a caller waits for a removal. The gateway ends a request after 30 s.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Removes the application from every registered host, and waits for that. The answer to give if it has not ended well by
/// then; none if nothing is left.
pub(crate) async fn remove_everywhere<P>(
    state: &AdminState,
    call: &Call<P>,
    application: &Stored<RegisteredApplication>,
) -> Result<Option<Response>, Problem> {
    let tenant = call.tenant();
    let current = state.store.application_state(tenant, ApplicationId(application.id)).await.map_err(missing(WHAT))?;
    let left = registered_of(state, call, &current).await?;
    if left.is_empty() {
        return Ok(None);
    }
    let order = Order::Other { action: Action::Remove, hosts: Some(left) };
    let removing = queue(state, call, None, &application.id.to_string(), &order).await?;
    let Admitted::Recorded(removing) = removing else { return Err(Problem::busy()) };
    let ended = deployment_wait::until(&state.store, tenant, *removing, LONGEST_WAIT, |d| d.status.is_final()).await;
    if ended.status == Status::Succeeded {
        return Ok(None);
    }
    Ok(Some((StatusCode::ACCEPTED, Json(view(&ended, None))).into_response()))
}

/// 202 with the deployment that does it.
async fn accept<P>(
    state: &AdminState,
    call: &Call<P>,
    key: Option<&KeptKey>,
    id: &str,
    order: &Order,
) -> Result<Response, Problem> {
    if let Some(key) = key
        && let Some(first) = state.store.first_answer(call.tenant(), key, call.now).await?
    {
        return Ok(idempotency::replay(&first));
    }
    match queue(state, call, key, id, order).await? {
        Admitted::Recorded(deployment) => Ok((StatusCode::ACCEPTED, Json(view(&deployment, None))).into_response()),
        Admitted::Before(first) => Ok(idempotency::replay(&first)),
        Admitted::QueueFull => Err(Problem::queue_full(Duration::from_secs(30))),
        // Nothing of these is asked for here.
        Admitted::TokenGone | Admitted::RateLimited(_) | Admitted::DecidedBefore(_) | Admitted::Superseded(_) => {
            Err(Problem::busy())
        }
    }
}

async fn queue<P>(
    state: &AdminState,
    call: &Call<P>,
    key: Option<&KeptKey>,
    id: &str,
    order: &Order,
) -> Result<Admitted, Problem> {
    for _ in 0..TRIES {
        match Box::pin(admit(state, call, key, id, order)).await? {
            Ok(admitted) => return Ok(admitted),
            // Changed between reading and writing: decide anew on what it is now.
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Problem::busy())
}

/// One try. Reads what is there, decides on it, and writes on condition that it is still so.
async fn admit<P>(
    state: &AdminState,
    call: &Call<P>,
    key: Option<&KeptKey>,
    id: &str,
    order: &Order,
) -> Result<Result<Admitted, StoreError>, Problem> {
    let tenant = call.tenant();
    let application = find(state, tenant, id).await?;
    let application_id = ApplicationId(application.id);
    let current = state.store.application_state(tenant, application_id).await.map_err(missing(WHAT))?;
    let planned = match order {
        Order::Rollback { to, secrets } => rollback::plan(state, call, &application, &current, *to, *secrets).await?,
        Order::Other { action, hosts } => {
            what_runs(state, call, &application, &current, *action, hosts.as_deref()).await?
        }
    };
    let Planned { deployment, job, concurrency, decided_in } = planned;
    if let Some(why) = job.oversize(deployment.max_parallel) {
        return Err(Problem::validation_failed(vec![why.at("variables")]));
    }
    let view = view(&deployment, None);
    let answer = FirstAnswer { status: StatusCode::ACCEPTED.as_u16(), ..kept_answer(&view) };
    let verb = if deployment.returns_to.is_some() { "roll-back" } else { deployment.action.as_str() };
    let event = call
        .event(&format!("application.{verb}"), format!("application/{application_id}/deployment/{}", deployment.id));
    let admission = Admission {
        tenant,
        deployment,
        job,
        application: &application,
        decided_in,
        requested: None,
        asked_by: match order {
            // What is broken now is not to wait for a place.
            Order::Rollback { .. } => AskedBy::Priority,
            Order::Other { .. } => AskedBy::person(call.user(), call.is_admin(), &application.body.application),
        },
        concurrency,
        queue: state.store.settings(tenant).await?.queue,
        charging: None,
        origin: Origin::New,
        replay: key.map(|key| Replay { key, answer: &answer }),
        event: &event,
        request_id: event.request_id.clone(),
        measured: None,
    };
    Ok(state.store.admit(admission, current.clone(), call.now).await)
}

/// What an order comes to.
pub(crate) struct Planned {
    pub(crate) deployment: Deployment,
    pub(crate) job: Job,
    pub(crate) concurrency: Concurrency,
    /// Of what is not as it was released.
    pub(crate) decided_in: Option<DecidedIn>,
}

async fn what_runs<P>(
    state: &AdminState,
    call: &Call<P>,
    application: &Stored<RegisteredApplication>,
    current: &ApplicationState,
    action: Action,
    asked: Option<&[HostName]>,
) -> Result<Planned, Problem> {
    let hosts: Vec<HostName> = match asked {
        None => registered_of(state, call, current).await?,
        Some(asked) => {
            check_hosts(current, asked)?;
            asked.to_vec()
        }
    };
    let mut deployment = requested(call, application, TriggerKind::User);
    deployment.action = action;
    deployment.rollback_on_failure = false;
    if action != Action::Restart {
        deployment.max_parallel = ALL_AT_ONCE;
    }
    deployment.targets = hosts.iter().cloned().map(Target::waiting).collect();
    let runs = hosts.iter().filter_map(|host| current.hosts.get(host)).max_by_key(|host| host.runs.release);
    deployment.version = runs.map(|host| host.runs.version.clone());
    deployment.digest = runs.map(|host| host.runs.digest.clone());
    let job = state.store.job_for_what_runs(call.tenant(), current, &hosts, &deployment).await?;
    let job = job.ok_or_else(|| Problem::no_release("Nothing of this application is deployed on any host."))?;
    Ok(Planned { deployment, job, concurrency: Concurrency::Queue, decided_in: None })
}

/// Where the application is, but for hosts that are registered no more: nobody there would ever do it.
async fn registered_of<P>(
    state: &AdminState,
    call: &Call<P>,
    current: &ApplicationState,
) -> Result<Vec<HostName>, Problem> {
    let registered = state.store.hosts(call.tenant()).await?;
    let is_registered = |host: &&HostName| registered.iter().any(|known| known.name == **host);
    Ok(current.occupied().filter(is_registered).cloned().collect())
}

fn check_hosts(current: &ApplicationState, asked: &[HostName]) -> Result<(), Problem> {
    let unknown = |(index, host): (usize, &HostName)| {
        let why = if asked.iter().take(index).any(|other| other == host) {
            Invalid::new("duplicate", "is named twice", "name each host once")
        } else if current.release_on(host).is_none() {
            Invalid::new("unknown-host", "does not run the application", "name hosts of the application's status")
        } else {
            return None;
        };
        Some(why.at(format!("hosts[{index}]")))
    };
    let errors: Vec<_> = asked.iter().enumerate().filter_map(unknown).collect();
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation_failed(errors)) }
}

pub(crate) fn requested<P>(
    call: &Call<P>,
    application: &Stored<RegisteredApplication>,
    kind: TriggerKind,
) -> Deployment {
    let id = DeploymentId::new(call.now, random::bytes());
    let registered = &application.body.application;
    Deployment::requested(id, ApplicationId(application.id), registered, call.trigger(kind), call.now)
}
