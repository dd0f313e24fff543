//! Hosts: machines that deployments may go to.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use jiff::Timestamp;
use serde_json::Value;
use tidegate_aws::{
    error::StoreError,
    hosts::{HostSettings, RegisteredHost},
    registered::RegisteredApplication,
};
use tidegate_domain::{
    application::{Application, HostSelector},
    id::{HostName, Revision, TenantId},
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::Conditions,
    form::Form,
    page::Page,
};

use crate::{
    AdminState, application_form,
    call::{Call, Race, answer_change, missing},
    host_view::{READ_ONLY, View, views},
};

const WHAT: &str = "The host";

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
    Ok(Json(Page { data: views(&state.store, call.tenant(), hosts, call.now).await?, next_cursor: None }))
}

fn path_name(text: &str) -> Result<HostName, Problem> {
    HostName::parse(text).map_err(|_| Problem::not_found(WHAT))
}

/// The host as it was stored, with what is known of it now.
async fn current(
    state: &AdminState,
    tenant: &TenantId,
    host: RegisteredHost,
    now: Timestamp,
) -> Result<(Revision, Option<View>), Problem> {
    let revision = host.revision;
    let view = views(&state.store, tenant, vec![host], now).await?.into_iter().next();
    Ok((revision, view))
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    conditions: Conditions,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let host = state.store.host(call.tenant(), &path_name(&name)?).await.map_err(missing(WHAT))?;
    let (revision, view) = current(&state, call.tenant(), host, call.now).await?;
    conditions.answer_live(revision, view)
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
        let HostSettings { labels, drain } = old.as_ref().map(|o| o.settings.clone()).unwrap_or_default();
        let labels = form.defaulted("labels", labels, application_form::labels);
        let drain = form.defaulted("drain", drain, Ok);
        form.fixed("name", &Value::from(name.as_str()));
        form.read_only(READ_ONLY);
        let settings = form.finish(|| Some(HostSettings { labels, drain }))?;
        let event = call.event(action(old.as_ref(), &settings), format!("host/{name}"));
        match state.store.put_host(call.tenant(), old.as_ref(), &name, settings, call.now, &event).await {
            Ok(host) => {
                let status = if old.is_some() { StatusCode::OK } else { StatusCode::CREATED };
                let (revision, view) = current(&state, call.tenant(), host, call.now).await?;
                let mut response = answer_change(revision, view);
                *response.status_mut() = status;
                return Ok(response);
            }
            Err(error) => race.lost(error).await?,
        }
    }
}

/// For the audit.
fn action(old: Option<&RegisteredHost>, new: &HostSettings) -> &'static str {
    match (old.map(|old| old.settings.drain), new.drain) {
        (None, _) => "host.registered",
        (Some(false), true) => "host.drained",
        (Some(true), false) => "host.undrained",
        (Some(true), true) | (Some(false), false) => "host.updated",
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
            Err(error) => race.lost(error).await?,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidegate_domain::id::Revision;

    use super::*;

    #[test]
    fn draining_a_host_has_its_own_word_in_the_audit() {
        let settings = |drain| HostSettings { labels: BTreeMap::new(), drain };
        let old = |drain| RegisteredHost {
            name: HostName::parse("web-1").unwrap(),
            settings: settings(drain),
            revision: Revision(1),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        };
        for (before, after, expected) in [
            (None, true, "host.registered"),
            (Some(false), true, "host.drained"),
            (Some(true), false, "host.undrained"),
            (Some(true), true, "host.updated"),
            (Some(false), false, "host.updated"),
        ] {
            assert_eq!(action(before.map(old).as_ref(), &settings(after)), expected, "{before:?} to {after}");
        }
    }
}
