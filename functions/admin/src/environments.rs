//! Environments: a project's named sets of variables, one of which is active.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use serde_json::Value;
use tidegate_aws::{
    audit::AuditEvent,
    catalogue::Stored,
    environments::{Deletion, Environment},
    error::StoreError,
    keys::Kind,
    registered::{Project, RegisteredApplication},
    store::Store,
};
use tidegate_domain::id::{EnvironmentId, ProjectId, TenantId};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::Conditions,
    form::Form,
    page::{Page, PageQuery},
    problem::reference_missing,
};

use crate::{
    AdminState,
    call::{Call, Creation, Race, answer_change, answer_creation, first_answer, missing, page, request_of},
    environment_form::{self, Parsed, description, name, read, take_is_active, truth},
    environment_view::{ProjectKeys, View, current, view},
    projects::{ProjectRef, take_project},
};

pub(crate) const WHAT: &str = "The environment";

pub(crate) fn path_env_id(text: &str) -> Result<EnvironmentId, Problem> {
    EnvironmentId::parse(text).map_err(|_| Problem::not_found(WHAT))
}

pub(crate) async fn find(store: &Store, tenant: &TenantId, id: &str) -> Result<Stored<Environment>, Problem> {
    store.environment(tenant, path_env_id(id)?).await.map_err(missing(WHAT))
}

/// The project that a query names.
async fn project_of_query(store: &Store, tenant: &TenantId, project: &ProjectRef) -> Result<Stored<Project>, Problem> {
    project.find(store, tenant).await.map_err(missing("The project"))
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let asked = PageQuery::read(&mut form);
    let project = form.nullable("projectId", None, Ok::<ProjectRef, _>);
    let deleted = form.defaulted("deleted", false, |text: String| truth(&text));
    let asked = form.finish(|| Some(request_of(asked)))?;
    let (store, tenant) = (&state.store, call.tenant());
    let project = match &project {
        Some(project) => Some(ProjectId(project_of_query(store, tenant, project).await?.id)),
        None => None,
    };
    if deleted {
        let mut found = store.list_deleted_environments(tenant, project, &asked).await?;
        // What the sweep has not removed yet is not there any more.
        found.data.retain(|stored| stored.body.restorable_until().is_some_and(|until| until > call.now));
        let keys = ProjectKeys::of(store, tenant, &found.data).await?;
        return Ok(page(found, |stored| view(&stored, &keys.key(stored.body.project_id), false)));
    }
    let (found, active) = store.list_environments(tenant, project, &asked).await?;
    let keys = ProjectKeys::of(store, tenant, &found.data).await?;
    Ok(page(found, |stored| {
        let is_active = active.get(&stored.body.project_id) == Some(&EnvironmentId(stored.id));
        view(&stored, &keys.key(stored.body.project_id), is_active)
    }))
}

pub(crate) async fn active(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let project = form.required("projectId", None, Ok::<ProjectRef, _>);
    let project = form.finish(|| project)?;
    let project = project_of_query(&state.store, call.tenant(), &project).await?;
    let found = state.store.environment_in_effect(call.tenant(), ProjectId(project.id), None).await?;
    let stored = found.ok_or_else(Problem::no_active_environment)?;
    Ok(answer_change(stored.revision, view(&stored, &project.body.key, true)))
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    creation.body.write_out_numbers("variables");
    let mut form = Form::of_body(creation.body.take())?;
    let project = form.required("projectId", None, Ok::<ProjectRef, _>);
    take_is_active(&mut form, false);
    let parsed = read(form, None)?;
    let (store, tenant, now) = (&state.store, creation.call.tenant(), creation.call.now);
    let project = project.ok_or_else(Problem::internal)?.find(store, tenant).await.map_err(|error| match error {
        StoreError::Missing => Problem::validation_failed(vec![reference_missing().at("projectId")]),
        other => other.into(),
    })?;
    let id = EnvironmentId(store.next_id(Kind::Environment).await?);
    let Parsed { name, description, requires_approval, variables } = parsed;
    let variables = environment_form::seal(store, tenant, id, variables.unwrap_or_default(), now).await?;
    let body = Environment::new(ProjectId(project.id), name, description, requires_approval);
    let stored = Stored::new(id.0, body.with_variables(variables), now);
    let event = creation.call.event("environment.created", format!("environment/{id}"));
    create_as(store, &creation, &stored, &project.body.key, &event).await
}

async fn create_as(
    store: &Store,
    creation: &Creation,
    stored: &Stored<Environment>,
    project_key: &str,
    event: &AuditEvent,
) -> Result<Response, Problem> {
    let answer = first_answer(&view(stored, project_key, false));
    let replay = creation.replay(&answer);
    let created = store.create_environment(creation.call.tenant(), stored, replay, event).await?;
    Ok(answer_creation(&created, &answer))
}

/// A new environment with the variables of this one, its secret ones included.
pub(crate) async fn clone(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    mut creation: Creation,
) -> Result<Response, Problem> {
    let (store, body) = (&state.store, creation.body.take());
    let (tenant, now) = (creation.call.tenant(), creation.call.now);
    let source = find(store, tenant, &id).await?;
    let mut form = Form::of_body(body)?;
    let name = name(&mut form, None);
    let description = description(&mut form, source.body.description.clone());
    let name = form.finish(|| name)?;
    let id = EnvironmentId(store.next_id(Kind::Environment).await?);
    let variables = store.copy_variables(tenant, &source, id, now).await?;
    let body = Environment::new(source.body.project_id, name, description, source.body.requires_approval);
    let stored = Stored::new(id.0, body.with_variables(variables), now);
    let keys = ProjectKeys::of(store, tenant, std::slice::from_ref(&stored)).await?;
    let event = creation.call.event("environment.cloned", format!("environment/{id}"));
    create_as(store, &creation, &stored, &keys.key(source.body.project_id), &event).await
}

/// Sent whole each time, as all of these: which one is active changes without the revision.
pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let stored = find(&state.store, call.tenant(), &id).await?;
    conditions.answer_live(stored.revision, current(&state.store, call.tenant(), &stored).await?)
}

pub(crate) async fn change(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
    mut body: JsonBody,
) -> Result<Response, Problem> {
    body.write_out_numbers("variables");
    let (store, tenant) = (&state.store, call.tenant());
    let mut race = Race::new(&conditions);
    loop {
        let old = find(store, tenant, &id).await?;
        conditions.allow_change(old.revision)?;
        let env_id = EnvironmentId(old.id);
        let is_active = store.active_environment(tenant, old.body.project_id).await? == Some(env_id);
        let mut form = Form::of_body(body.value.clone())?;
        take_fixed(&mut form, store, tenant, &old).await?;
        take_is_active(&mut form, is_active);
        let parsed = read(form, Some(&old.body))?;
        let mut new = old.body.clone();
        if let Some(entries) = parsed.variables {
            new = new.with_variables(environment_form::seal(store, tenant, env_id, entries, call.now).await?);
        }
        (new.name, new.description) = (parsed.name, parsed.description);
        new.requires_approval = parsed.requires_approval;
        let event = call.event("environment.updated", format!("environment/{env_id}"));
        match store.replace_environment(tenant, &old, new, call.now, &event).await {
            Ok(stored) => return Ok(answer_change(stored.revision, current(store, tenant, &stored).await?)),
            Err(error) => race.lost(error).await?,
        }
    }
}

async fn take_fixed(
    form: &mut Form,
    store: &Store,
    tenant: &TenantId,
    old: &Stored<Environment>,
) -> Result<(), Problem> {
    form.fixed("envId", &Value::from(EnvironmentId(old.id).to_string()));
    take_project(form, store, tenant, old.body.project_id).await?;
    form.read_only(&["revision", "createdAt", "updatedAt"]);
    Ok(())
}

#[derive(Serialize)]
struct Activated {
    #[serde(flatten)]
    view: View,
    message: &'static str,
}

pub(crate) async fn activate(
    State(state): State<AdminState>,
    call: Call<Write>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let stored = find(store, tenant, &id).await?;
    let keys = ProjectKeys::of(store, tenant, std::slice::from_ref(&stored)).await?;
    let event = call.event("environment.activated", format!("environment/{}", EnvironmentId(stored.id)));
    store.activate_environment(tenant, &stored, call.now, &event).await.map_err(missing(WHAT))?;
    let view = view(&stored, &keys.key(stored.body.project_id), true);
    Ok(answer_change(stored.revision, Activated { view, message: "Environment activated successfully" }))
}

pub(crate) async fn delete(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let mut race = Race::new(&conditions);
    loop {
        let old = find(store, tenant, &id).await?;
        conditions.allow_change(old.revision)?;
        let env_id = EnvironmentId(old.id);
        let event = call.event("environment.deleted", format!("environment/{env_id}"));
        match store.delete_environment(tenant, &old, call.now, &event).await {
            Ok(Deletion::Done) => return Ok(StatusCode::NO_CONTENT),
            Ok(Deletion::Active) => return Err(Problem::environment_active(&old.body.name)),
            Err(StoreError::InUse { .. }) => return Err(Problem::in_use(pinned(store, tenant, env_id).await?)),
            Err(error) => race.lost(error).await?,
        }
    }
}

/// The applications that are pinned to it.
async fn pinned(store: &Store, tenant: &TenantId, id: EnvironmentId) -> Result<Vec<String>, StoreError> {
    let applications = store.every::<RegisteredApplication>(tenant).await?;
    let pinned = applications.iter().filter(|a| a.body.application.env_id == Some(id));
    Ok(pinned.map(|a| format!("application {} ({})", a.id, a.body.application.name.as_str())).collect())
}

/// Of one that is not deleted there is nothing to be done: the answer to the first call may have got lost.
pub(crate) async fn restore(
    State(state): State<AdminState>,
    call: Call<Write>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let env_id = path_env_id(&id)?;
    let answer = async |stored: Stored<Environment>| -> Result<Response, Problem> {
        let shown = current(store, tenant, &stored).await?;
        Ok(answer_change(stored.revision, shown))
    };
    let old = match store.deleted_environment(tenant, env_id).await {
        Ok(old) => old,
        Err(StoreError::Missing) => return answer(find(store, tenant, &id).await?).await,
        Err(other) => return Err(other.into()),
    };
    if old.body.restorable_until().is_none_or(|until| until <= call.now) {
        return Err(Problem::gone("It was deleted more than 30 days ago, and is not kept any more. Create it anew."));
    }
    let event = call.event("environment.restored", format!("environment/{env_id}"));
    match store.restore_environment(tenant, &old, call.now, &event).await {
        Ok(stored) => answer(stored).await,
        // Somebody else restored it in this moment.
        Err(StoreError::Conflict) => answer(find(store, tenant, &id).await?).await,
        Err(StoreError::ReferenceMissing { .. }) => {
            Err(Problem::gone("Its project was deleted, so that it has no place to come back to. Create it anew."))
        }
        Err(other) => Err(other.into()),
    }
}
