//! Variables of an environment, one at a time: the seed's other way to set them, on the same store.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use serde_json::Value;
use tidegate_aws::{error::StoreError, variables::StoredVariable};
use tidegate_domain::{
    id::{EnvironmentId, Revision},
    variable::{Scope, ValueType, VariableKey},
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
    AdminState,
    call::{Call, Creation, Race, Stamps, answer_change, answer_creation, first_answer, missing, page, page_of},
    environment_view::shown,
    environments::{self, find, path_env_id},
    variables::{read_value, store_value},
};

const WHAT: &str = "The variable";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    env_id: EnvironmentId,
    key: VariableKey,
    value: String,
    value_type: ValueType,
    secret_id: Option<u64>,
    is_secret: bool,
    #[serde(flatten)]
    stamps: Stamps,
}

fn view(env_id: EnvironmentId, variable: &StoredVariable) -> View {
    View {
        env_id,
        key: variable.key.clone(),
        value: shown(variable).into_owned(),
        value_type: variable.value_type,
        secret_id: variable.secret_id().map(|id| id.0),
        is_secret: variable.is_secret(),
        stamps: Stamps::new(variable.revision, variable.created_at, variable.updated_at),
    }
}

/// As audit events name it.
fn subject(env_id: EnvironmentId, key: &VariableKey) -> String {
    format!("variable/{env_id}.{key}")
}

fn path_key(text: &str) -> Result<VariableKey, Problem> {
    VariableKey::parse(text).map_err(|_| Problem::not_found(WHAT))
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    let env_id = path_env_id(&id)?;
    let asked = page_of(query.as_deref())?;
    let found = state.store.list_variables(call.tenant(), Scope::Environment(env_id), &asked).await;
    Ok(page(found.map_err(missing(environments::WHAT))?, |variable| view(env_id, &variable)))
}

pub(crate) async fn create(
    State(state): State<AdminState>,
    Path(id): Path<String>,
    mut creation: Creation,
) -> Result<Response, Problem> {
    creation.body.write_out_numbers("value");
    let mut form = Form::of_body(creation.body.take())?;
    let (store, tenant, now) = (&state.store, creation.call.tenant(), creation.call.now);
    let env_id = EnvironmentId(find(store, tenant, &id).await?.id);
    form.fixed("envId", &Value::from(env_id.to_string()));
    let key = form.required("key", None, |text: String| VariableKey::parse(&text));
    let value = read_value(&mut form, None);
    let (key, (value_type, given)) = form.finish(|| Some((key?, value?)))?;
    let scope = Scope::Environment(env_id);
    let value = store_value(store, tenant, scope, &key, (given, Revision(1)), None).await?;
    let value = value.ok_or_else(Problem::internal)?;
    let variable = StoredVariable { key, value_type, value, revision: Revision(1), created_at: now, updated_at: now };
    let event = creation.call.event("variable.created", subject(env_id, &variable.key));
    let answer = first_answer(&view(env_id, &variable));
    let created = store.create_variable(tenant, scope, &variable, creation.replay(&answer), &event).await;
    Ok(answer_creation(&created.map_err(missing(environments::WHAT))?, &answer))
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    conditions: Conditions,
    Path((id, key)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let stored = find(&state.store, call.tenant(), &id).await?;
    let variable = stored.body.variable(&path_key(&key)?).ok_or_else(|| Problem::not_found(WHAT))?;
    Ok(conditions.answer(variable.revision, view(EnvironmentId(stored.id), variable)))
}

/// Changes a variable, or creates it.
pub(crate) async fn set(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path((id, key)): Path<(String, String)>,
    mut body: JsonBody,
) -> Result<Response, Problem> {
    body.write_out_numbers("value");
    let (store, tenant) = (&state.store, call.tenant());
    let mut race = Race::new(&conditions);
    loop {
        let environment = find(store, tenant, &id).await?;
        let (env_id, parsed_key) = (EnvironmentId(environment.id), VariableKey::parse(&key));
        let old = parsed_key.as_ref().ok().and_then(|key| environment.body.variable(key));
        match old {
            Some(old) => conditions.allow_change(old.revision)?,
            None if conditions.insist() => return Err(Problem::precondition_failed()),
            None => {}
        }
        let mut form = Form::of_body(body.value.clone())?;
        form.fixed("envId", &Value::from(env_id.to_string()));
        form.fixed("key", &Value::from(key.as_str()));
        form.read_only(&["secretId", "revision", "createdAt", "updatedAt"]);
        let key = parsed_key.map_err(|invalid| form.refuse("key", invalid)).ok();
        let value = read_value(&mut form, old);
        let (key, (value_type, given)) = form.finish(|| Some((key?, value?)))?;
        let scope = Scope::Environment(env_id);
        let revision = Revision(old.map_or(1, |old| old.revision.0 + 1));
        let stored = store_value(store, tenant, scope, &key, (given, revision), old).await?;
        let value = match (stored, old) {
            (Some(value), _) => value,
            (None, Some(old)) => return Ok(answer_change(old.revision, view(env_id, old))),
            (None, None) => return Err(Problem::internal()),
        };
        let created_at = old.map_or(call.now, |old| old.created_at);
        let new = StoredVariable { key, value_type, value, revision, created_at, updated_at: call.now };
        let action = if old.is_some() { "variable.updated" } else { "variable.created" };
        let event = call.event(action, subject(env_id, &new.key));
        let set = match old {
            Some(old) => store.replace_variable(tenant, scope, old, &new, &event).await,
            None => store.create_variable(tenant, scope, &new, None, &event).await.map(|_| ()),
        };
        match set {
            Ok(()) => return Ok(answer_change(revision, view(env_id, &new))),
            // Created by somebody else since it was looked for: this is a change of it now.
            Err(StoreError::NameTaken { .. }) => race.lost(StoreError::Conflict).await?,
            Err(StoreError::Missing) => return Err(Problem::not_found(environments::WHAT)),
            Err(error) => race.lost(error).await?,
        }
    }
}

pub(crate) async fn delete(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path((id, key)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let mut race = Race::new(&conditions);
    loop {
        let environment = find(store, tenant, &id).await?;
        let env_id = EnvironmentId(environment.id);
        let old = environment.body.variable(&path_key(&key)?).ok_or_else(|| Problem::not_found(WHAT))?;
        conditions.allow_change(old.revision)?;
        let event = call.event("variable.deleted", subject(env_id, &old.key));
        match store.delete_variable(tenant, Scope::Environment(env_id), old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(error) => race.lost(error).await?,
        }
    }
}
