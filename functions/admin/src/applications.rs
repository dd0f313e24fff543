//! Applications: what may be deployed, and how.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use tidegate_aws::{
    application_state::ApplicationState,
    applications::token_sha256,
    catalogue::Stored,
    error::StoreError,
    keys::Kind,
    random,
    registered::{RegisteredApplication, Registry},
    store::Store,
};
use tidegate_domain::{
    application::Application,
    id::{ApplicationId, TenantId},
    invalid::Invalid,
    token::{Token, TokenKind},
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::Conditions,
    form::Form,
    page::Page,
    problem::reference_missing,
};

use crate::{
    AdminState, application_form,
    application_view::{View, view},
    call::{
        Call, Creation, Race, answer_change, answer_creation, first_answer, missing, page, page_of, path_id,
        take_stamps,
    },
    host_ports, operations,
    watch::Watch,
};

pub(crate) const WHAT: &str = "The application";

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    let found = state.store.list::<RegisteredApplication>(call.tenant(), &page_of(query.as_deref())?).await?;
    let ids: Vec<_> = found.data.iter().map(|a| ApplicationId(a.id)).collect();
    let states = state.store.application_states(call.tenant(), &ids).await?;
    let unused = ApplicationState::default();
    let state_of = |id: u64| states.get(&ApplicationId(id)).unwrap_or(&unused);
    let all: Vec<_> = found.data.iter().map(|stored| (&stored.body.application, state_of(stored.id))).collect();
    let released: Vec<_> = found.data.iter().map(|stored| (stored, state_of(stored.id))).collect();
    let watch = Watch::over_hosts_of(&state.store, call.tenant(), &all, call.now);
    let changed = state.store.needs_redeploy(call.tenant(), &released);
    let (watch, changed) = tokio::try_join!(watch, changed)?;
    Ok(page(found, |stored| {
        let (id, of) = (ApplicationId(stored.id), state_of(stored.id));
        view(stored, of, &watch, changed.get(&id).copied())
    }))
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    let (store, body) = (&state.store, creation.body.take());
    let (call, tenant) = (&creation.call, creation.call.tenant());
    let parsed = application_form::read(Form::of_body(body)?, call.user(), None)?;
    let project = parsed.project.of_field(store, tenant).await?;
    let application = parsed.in_project(project);
    check_registry(store, tenant, &application).await?;
    check_environment(store, tenant, &application).await?;
    host_ports::check(store, tenant, None, &application).await?;
    let id = store.next_id(Kind::Application).await?;
    let token = Token::from_random(TokenKind::Webhook, &random::bytes());
    let body = RegisteredApplication {
        application,
        token_sha256: token_sha256(token.expose()),
        token_hint: token.hint(),
        previous_token: None,
    };
    let stored = Stored::new(id, body, call.now);
    let event = call.event("application.created", format!("application/{id}"));
    // Nothing of it can be anywhere yet.
    let nowhere = Watch::over(&[], BTreeMap::new(), call.now);
    let shown = view(stored.clone(), &ApplicationState::default(), &nowhere, None);
    let answer = first_answer(&shown.with_token(token.expose()));
    let created = store.create_application(tenant, &stored, creation.replay(&answer), &event).await?;
    Ok(answer_creation(&created, &answer))
}

/// Credentials only ever go to their own server, so an image of another one cannot be pulled with them.
async fn check_registry(store: &Store, tenant: &TenantId, application: &Application) -> Result<(), Problem> {
    let Some(id) = application.registry_id else { return Ok(()) };
    let refused = |why: Invalid| Problem::validation_failed(vec![why.at("registryId")]);
    let registry: Stored<Registry> = store.find(tenant, id.0).await.map_err(|error| match error {
        StoreError::Missing => refused(reference_missing()),
        other => other.into(),
    })?;
    if registry.body.server != *application.image.server() {
        return Err(refused(Invalid::new(
            "registry-mismatch",
            "is a registry that the image does not come from",
            format!("use a registry whose server is {}", application.image.server()),
        )));
    }
    Ok(())
}

/// Another project's is as unknown as one that does not exist. That it is not deleted meanwhile is for the transaction to see.
async fn check_environment(store: &Store, tenant: &TenantId, application: &Application) -> Result<(), Problem> {
    let Some(id) = application.env_id else { return Ok(()) };
    match store.environment(tenant, id).await {
        Ok(stored) if stored.body.project_id == application.project_id => Ok(()),
        Ok(_) | Err(StoreError::Missing) => Err(Problem::validation_failed(vec![reference_missing().at("envId")])),
        Err(other) => Err(other.into()),
    }
}

pub(crate) async fn find(
    state: &AdminState,
    tenant: &TenantId,
    id: &str,
) -> Result<Stored<RegisteredApplication>, Problem> {
    state.store.find(tenant, path_id(id, WHAT)?).await.map_err(missing(WHAT))
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let stored = find(&state, call.tenant(), &id).await?;
    let state_of =
        state.store.application_state(call.tenant(), ApplicationId(stored.id)).await.map_err(missing(WHAT))?;
    let revision = stored.revision;
    conditions.answer_live(revision, current(&state.store, &call, stored, &state_of).await?)
}

/// The application as it was stored, with what is known of it now.
async fn current<P>(
    store: &Store,
    call: &Call<P>,
    stored: Stored<RegisteredApplication>,
    state: &ApplicationState,
) -> Result<View, Problem> {
    let of = [(&stored.body.application, state)];
    let released = [(&stored, state)];
    let watch = Watch::over_hosts_of(store, call.tenant(), &of, call.now);
    let changed = store.needs_redeploy(call.tenant(), &released);
    let (watch, changed) = tokio::try_join!(watch, changed)?;
    let changed = changed.get(&ApplicationId(stored.id)).copied();
    Ok(view(stored, state, &watch, changed))
}

pub(crate) async fn change(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, tenant, &id).await?;
        conditions.allow_change(old.revision)?;
        let mut form = Form::of_body(body.value.clone())?;
        take_stamps(&mut form, old.id);
        form.read_only(&["status"]);
        let parsed = application_form::read(form, call.user(), Some(&old.body.application))?;
        let project = parsed.project.of_field(store, tenant).await?;
        let application = parsed.in_project(project);
        let current = store.application_state(tenant, ApplicationId(old.id)).await.map_err(missing(WHAT))?;
        check_identity(&old.body.application, &application, &current)?;
        check_registry(store, tenant, &application).await?;
        check_environment(store, tenant, &application).await?;
        host_ports::check(store, tenant, Some(old.id), &application).await?;
        let new = RegisteredApplication { application, ..old.body.clone() };
        let event = call.event("application.updated", format!("application/{}", old.id));
        match store.replace_application(tenant, &old, new, call.now, &event).await {
            Ok(stored) => {
                let revision = stored.revision;
                return Ok(answer_change(revision, self::current(store, &call, stored, &current).await?));
            }
            Err(error) => race.lost(error).await?,
        }
    }
}

/// The project is part of the token's grant, and the name that of the containers that run.
fn check_identity(old: &Application, new: &Application, state: &ApplicationState) -> Result<(), Problem> {
    let mut errors = Vec::new();
    if old.project_id != new.project_id {
        let fixed =
            Invalid::new("read-only", "cannot be changed", "register the application anew in the other project");
        errors.push(fixed.at("projectId"));
    }
    let in_use = state.occupied().next().is_some() || state.active.is_some() || !state.queued.is_empty();
    if old.name != new.name && in_use {
        let fixed = Invalid::new(
            "read-only",
            "cannot be changed while containers of that name run",
            "register another application under the new name",
        );
        errors.push(fixed.at("name"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation_failed(errors)) }
}

/// With `?remove=true` what still runs is removed from its hosts first. If that takes longer than a call may, the answer is
/// 202 with the deployment that does it, and the call is to be repeated once it has ended.
pub(crate) async fn delete(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let remove = form.defaulted("remove", false, |text: String| match text.as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Invalid::new("wrong-type", "is not a truth value", "send true or false")),
    });
    let remove = form.finish(|| Some(remove))?;
    let old = find(&state, call.tenant(), &id).await?;
    conditions.allow_change(old.revision)?;
    if remove && let Some(removing) = operations::remove_everywhere(&state, &call, &old).await? {
        return Ok(removing);
    }
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, call.tenant(), &id).await?;
        conditions.allow_change(old.revision)?;
        let event = call.event("application.deleted", format!("application/{}", old.id));
        match state.store.delete_application(call.tenant(), &old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT.into_response()),
            Err(error) => race.lost(error).await?,
        }
    }
}
