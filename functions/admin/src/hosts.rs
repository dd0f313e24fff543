//! Hosts: machines that deployments may go to.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tidegate_aws::registered::RegisteredApplication;
use tidegate_aws::{
    error::StoreError,
    hosts::{Heartbeat, RegisteredHost},
};
use tidegate_domain::{
    application::{Application, HostSelector},
    id::{HostName, TenantId},
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::{Conditions, etag},
    form::Form,
    page::Page,
};

use crate::{
    AdminState, application_form,
    call::{Call, Race, Stamps, missing},
};

const WHAT: &str = "The host";
/// A worker says something at least twice a minute; one that has not for so long is taken for gone.
const ONLINE: jiff::SignedDuration = jiff::SignedDuration::from_secs(90);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    name: HostName,
    labels: BTreeMap<String, String>,
    drain: bool,
    online: bool,
    last_seen_at: Option<Timestamp>,
    worker_version: Option<String>,
    engine_version: Option<String>,
    #[serde(flatten)]
    stamps: Stamps,
}

fn view(host: RegisteredHost, heartbeat: Option<&Heartbeat>, now: Timestamp) -> View {
    View {
        name: host.name,
        labels: host.labels,
        drain: false,
        online: heartbeat.is_some_and(|h| now.duration_since(h.at) < ONLINE),
        last_seen_at: heartbeat.map(|h| h.at),
        worker_version: heartbeat.map(|h| h.worker_version.clone()),
        engine_version: heartbeat.and_then(|h| h.engine_version.clone()),
        stamps: Stamps::new(host.revision, host.created_at, host.updated_at),
    }
}

/// All of them: a tenant has few hosts, so there is one page.
pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    let asked = crate::call::page_of(query.as_deref())?;
    if asked.cursor.is_some() {
        return Err(Problem::bad_cursor());
    }
    let hosts = state.store.hosts(call.tenant()).await?;
    let names: Vec<_> = hosts.iter().map(|h| h.name.clone()).collect();
    let heartbeats = state.store.heartbeats(call.tenant(), &names).await?;
    let view = |host: RegisteredHost| {
        let heartbeat = heartbeats.get(&host.name);
        view(host, heartbeat, call.now)
    };
    Ok(Json(Page { data: hosts.into_iter().map(view).collect(), next_cursor: None }))
}

fn path_name(text: &str) -> Result<HostName, Problem> {
    HostName::parse(text).map_err(|_| Problem::not_found(WHAT))
}

async fn answer(
    state: &AdminState,
    tenant: &TenantId,
    host: RegisteredHost,
    now: Timestamp,
) -> Result<Response, Problem> {
    let heartbeats = state.store.heartbeats(tenant, std::slice::from_ref(&host.name)).await?;
    let heartbeat = heartbeats.get(&host.name);
    Ok((etag(host.revision), Json(view(host, heartbeat, now))).into_response())
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let host = state.store.host(call.tenant(), &path_name(&name)?).await.map_err(missing(WHAT))?;
    answer(&state, call.tenant(), host, call.now).await
}

/// Registers a host, or changes one.
pub(crate) async fn change(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(name): Path<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let name = HostName::parse(&name).map_err(|invalid| Problem::validation_failed(vec![invalid.at("name")]))?;
    let mut race = Race::new(&conditions);
    loop {
        let old = match state.store.host(call.tenant(), &name).await {
            Ok(host) => Some(host),
            Err(StoreError::Missing) if conditions.insist() => return Err(Problem::precondition_failed()),
            Err(StoreError::Missing) => None,
            Err(other) => return Err(other.into()),
        };
        if let Some(old) = &old {
            conditions.allow_change(old.revision)?;
        }
        let mut form = Form::of_body(body.value.clone())?;
        let default = old.as_ref().map(|o| o.labels.clone()).unwrap_or_default();
        let labels = form.defaulted("labels", default, application_form::labels);
        form.only("drain", &[false.into()]);
        form.fixed("name", &Value::from(name.as_str()));
        form.read_only(&[
            "online",
            "lastSeenAt",
            "workerVersion",
            "engineVersion",
            "revision",
            "createdAt",
            "updatedAt",
        ]);
        let labels = form.finish(|| Some(labels))?;
        let action = if old.is_some() { "host.updated" } else { "host.registered" };
        let event = call.event(action, format!("host/{name}"));
        match state.store.put_host(call.tenant(), old.as_ref(), &name, labels, call.now, &event).await {
            Ok(host) => {
                let status = if old.is_some() { StatusCode::OK } else { StatusCode::CREATED };
                let mut response = answer(&state, call.tenant(), host, call.now).await?;
                *response.status_mut() = status;
                return Ok(response);
            }
            Err(error) => race.lost(error)?,
        }
    }
}

pub(crate) async fn delete(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let name = path_name(&name)?;
    let mut race = Race::new(&conditions);
    loop {
        let old = state.store.host(call.tenant(), &name).await.map_err(missing(WHAT))?;
        conditions.allow_change(old.revision)?;
        let applications = state.store.every::<RegisteredApplication>(call.tenant()).await?;
        let users = applications.iter().filter(|a| names(&a.body.application, &name));
        let users: Vec<_> =
            users.map(|a| format!("application {} ({})", a.id, a.body.application.name.as_str())).collect();
        if !users.is_empty() {
            return Err(Problem::in_use(users));
        }
        let event = call.event("host.deleted", format!("host/{name}"));
        match state.store.delete_host(call.tenant(), &old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(error) => race.lost(error)?,
        }
    }
}

/// Chosen by name; one chosen by its labels is left out of the next deployment, which is what deleting it asks for.
fn names(application: &Application, host: &HostName) -> bool {
    match &application.hosts {
        HostSelector::Names(names) => names.contains(host),
        HostSelector::Labels(_) => false,
    }
}
