//! The end of an application's log, asked of the host that it runs on while the caller waits.
//!
//! Whoever may read may read logs: the worker takes the secrets out, and the last lines of a deployment that failed are
//! shown to the same people already.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
};
use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::application_state::ApplicationState;
use tidegate_domain::{
    application::Application,
    host::ContainerState,
    id::{ApplicationId, DeploymentId, HostName},
    image::Version,
    invalid::Invalid,
    job::Job,
    secret::Secret,
    task::{Hidden, LogLine, Logs, MAX_TAIL, Refusal, TaskAnswer, TaskOrder, What},
};
use tidegate_web::{
    Problem,
    auth::Read,
    form::{Form, number_text, within},
};

use crate::{
    AdminState,
    applications::{WHAT, find},
    call::{Call, missing},
    deployments::time,
    refusal,
};

const TAIL: usize = 200;
/// The host may have switched to another release, or back, since its last word.
const TRIES: usize = 3;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    host: HostName,
    /// Whose container it is.
    deployment_id: DeploymentId,
    version: Version,
    container_state: ContainerState,
    /// There was no room for all that was asked for.
    truncated: bool,
    /// The newest last.
    lines: Vec<LogLine>,
}

struct Asked {
    tail: usize,
    since: Option<Timestamp>,
    host: Option<HostName>,
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<View>, Problem> {
    let asked = read(query.as_deref())?;
    let tenant = call.tenant();
    let application = find(&state, tenant, &id).await?;
    let application_id = ApplicationId(application.id);
    let current = state.store.application_state(tenant, application_id).await.map_err(missing(WHAT))?;
    let host = chosen(&current, asked.host.as_ref())?;
    let mut release = current.hosts.get(host).map(|there| there.runs.release);
    for _ in 0..TRIES {
        let Some(wanted) = release else { break };
        let job = state.store.release_of_host(tenant, application_id, host, wanted).await?;
        let Some(job) = job else { break };
        let version = job.version.clone();
        let order = order(&application.body.application, application_id, &asked, wanted, job);
        let answer = state.store.ask(tenant, host, &order, call.now).await?;
        match answer.ok_or_else(|| Problem::host_offline(host.as_str()))? {
            TaskAnswer::Logs(Logs { state: container_state, truncated, lines }) => {
                let host = host.clone();
                return Ok(Json(View { host, deployment_id: wanted, version, container_state, truncated, lines }));
            }
            TaskAnswer::Refused { why: Refusal::OtherRelease { release: seen } } => release = Some(seen),
            TaskAnswer::Refused { why } => return Err(refusal::problem(&why, host)),
            TaskAnswer::Pruned(_) => {
                tracing::error!(host.name = %host, "a host has answered something that it was not asked for");
                return Err(Problem::internal());
            }
        }
    }
    Err(Problem::no_logs(format!(
        "The container on {host} is of a release whose configuration is not kept any more, so that its secrets cannot be \
         taken out of the log. Deploy again."
    )))
}

fn read(query: Option<&str>) -> Result<Asked, Problem> {
    let mut form = Form::of_query(query)?;
    let tail = form.defaulted("tail", TAIL, |text: String| {
        let tail = number_text(&text).and_then(within(1, MAX_TAIL as u64))?;
        Ok(usize::try_from(tail).unwrap_or(MAX_TAIL))
    });
    let since = form.nullable("since", None, |text: String| time(&text));
    let host = form.nullable("host", None, |text: String| HostName::parse(&text));
    form.finish(|| Some(Asked { tail, since, host }))
}

/// The only host there is, or the one that was named.
fn chosen<'a>(current: &'a ApplicationState, named: Option<&HostName>) -> Result<&'a HostName, Problem> {
    let mut hosts = current.hosts.keys();
    let refused = match (named, hosts.next(), hosts.next()) {
        (_, None, _) => {
            return Err(Problem::no_release("Nothing of this application is deployed on any host."));
        }
        (None, Some(only), None) => return Ok(only),
        (None, Some(_), Some(_)) => {
            Invalid::new("missing", "is required, as it runs on several hosts", choices(current))
        }
        (Some(named), Some(_), _) => match current.hosts.get_key_value(named) {
            Some((host, _)) => return Ok(host),
            None => Invalid::new("unknown-host", "does not run the application", choices(current)),
        },
    };
    Err(Problem::validation_failed(vec![refused.at("host")]))
}

fn choices(current: &ApplicationState) -> String {
    let names: Vec<_> = current.hosts.keys().map(HostName::as_str).collect();
    format!("name one of {}", names.join(", "))
}

fn order(
    application: &Application,
    application_id: ApplicationId,
    asked: &Asked,
    release: DeploymentId,
    job: Job,
) -> TaskOrder {
    let password = job.credentials.map(|credentials| credentials.password);
    let variables = job.variables.into_iter().filter(|variable| variable.is_secret).map(|variable| variable.value);
    let secrets: Vec<Secret<String>> = variables.chain(password).collect();
    TaskOrder {
        application_id,
        name: application.name.clone(),
        what: What::Logs {
            tail: asked.tail,
            since: asked.since,
            release,
            secrets: secrets.into_iter().map(|value| Hidden { value }).collect(),
        },
    }
}
