//! Variables of every scope.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use serde_json::Value;
use tidegate_aws::{
    error::StoreError,
    store::Store,
    variables::{StoredValue, StoredVariable},
};
use tidegate_domain::{
    id::{ApplicationId, EnvironmentId, ProjectId, Revision, TenantId},
    invalid::Invalid,
    secret::{MASK, Secret},
    variable::{Scope, SecretReference, ValueType, VariableKey, check_written},
    variable_id::VariableId,
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::Conditions,
    form::{Form, number_text},
    page::{Page, PageQuery},
    problem::reference_missing,
};

use crate::{
    AdminState,
    call::{Call, Creation, Race, Stamps, answer_change, answer_creation, first_answer, missing, page, request_of},
    environments,
    projects::take_project,
    variable_scope::ScopeFields,
};

pub(crate) const WHAT: &str = "The variable";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    id: String,
    scope: &'static str,
    project_id: Option<ProjectId>,
    env_id: Option<EnvironmentId>,
    application_id: Option<ApplicationId>,
    key: VariableKey,
    value: String,
    value_type: ValueType,
    secret_id: Option<u64>,
    is_secret: bool,
    #[serde(flatten)]
    stamps: Stamps,
}

fn view(scope: Scope, variable: StoredVariable) -> View {
    let (project_id, env_id, application_id) = match scope {
        Scope::Global => (None, None, None),
        Scope::Project(id) => (Some(id), None, None),
        Scope::Environment(id) => (None, Some(id), None),
        Scope::Application(id) => (None, None, Some(id)),
    };
    let is_secret = variable.is_secret();
    let (value, secret_id) = match variable.value {
        StoredValue::Plain { text } => (text, None),
        StoredValue::Secret { .. } => (MASK.to_owned(), None),
        StoredValue::Reference { secret_id } => (StoredVariable::reference(secret_id), Some(secret_id.0)),
    };
    View {
        id: VariableId::new(scope, &variable.key).to_string(),
        scope: scope.name(),
        project_id,
        env_id,
        application_id,
        key: variable.key,
        value,
        value_type: variable.value_type,
        secret_id,
        is_secret,
        stamps: Stamps::new(variable.revision, variable.created_at, variable.updated_at),
    }
}

pub(crate) fn path_id(text: &str) -> Result<VariableId, Problem> {
    VariableId::parse(text).ok_or_else(|| Problem::not_found(WHAT))
}

/// A value as a request writes it, of its type, not stored yet.
pub(crate) enum Given {
    Text {
        text: Secret<String>,
        is_secret: bool,
    },
    Reference(SecretReference),
    /// What is stored stays.
    Keep {
        is_secret: bool,
    },
}

fn read_type(form: &mut Form, stored: Option<ValueType>, value: Option<&Secret<String>>) -> ValueType {
    // A malformed one, too: it is meant as one, and is told so.
    let is_reference = value.is_some_and(|value| value.expose().starts_with(SecretReference::PREFIX));
    let default = stored.unwrap_or(if is_reference { ValueType::SecretRef } else { ValueType::String });
    form.defaulted("valueType", default, |value: Value| {
        serde_json::from_value(value).map_err(|_| {
            let names = "string, number, boolean, json, secret_ref";
            Invalid::new("unknown-value", "is not a type of value", format!("use one of {names}"))
        })
    })
}

/// Takes `value`, `valueType` and `isSecret`; what is left out stays as stored.
pub(crate) fn read_value(form: &mut Form, stored: Option<&StoredVariable>) -> Option<(ValueType, Given)> {
    let hidden = stored.is_some_and(|s| match s.value {
        StoredValue::Secret { .. } => true,
        StoredValue::Plain { .. } | StoredValue::Reference { .. } => false,
    });
    let keep = stored.is_some().then_some(None);
    let value = form.required("value", keep, |value: Value| match value {
        // The JSON value that stands for the text. Numbers are texts by now, as they were written.
        Value::Bool(_) => Ok(Some(Secret::new(value.to_string()))),
        Value::String(text) if text == MASK && hidden => Ok(None),
        Value::String(text) if text == MASK => {
            Err(Invalid::new("mask", "is the mask, which stands for no value here", "send the value itself"))
        }
        Value::String(text) => Ok(Some(Secret::new(text))),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(Invalid::new("wrong-type", "must be a text", "write the value as a text, JSON included"))
        }
    });
    let value_type = read_type(form, stored.map(|s| s.value_type), value.as_ref().and_then(Option::as_ref));
    let was_secret = stored.is_some_and(StoredVariable::is_secret);
    let is_secret = form.defaulted("isSecret", was_secret || value_type == ValueType::SecretRef, Ok);
    if value_type == ValueType::SecretRef && !is_secret {
        form.refuse("isSecret", Invalid::new("secret", "cannot be false for a secret's reference", "leave it out"));
    }
    let Some(text) = value? else {
        let stored = stored?;
        if value_type != stored.value_type || (hidden && !is_secret) {
            form.refuse("value", Invalid::new("missing", "is required for this change", "send the value again"));
        }
        return Some((value_type, Given::Keep { is_secret }));
    };
    // What is stored was right when it was written, and can be sent back.
    let is_stored = stored.is_some_and(|s| {
        s.value_type == value_type && matches!(&s.value, StoredValue::Plain { text: plain } if plain == text.expose())
    });
    if let Err(invalid) = check_written(value_type, text.expose())
        && !is_stored
    {
        form.refuse("value", invalid);
        return None;
    }
    if value_type == ValueType::SecretRef {
        let reference = SecretReference::parse(text.expose()).ok()?;
        return Some((value_type, Given::Reference(reference)));
    }
    Some((value_type, Given::Text { text, is_secret }))
}

/// The value as it is stored under the variable's next revision; `None` if nothing changes.
pub(crate) async fn store_value(
    store: &Store,
    tenant: &TenantId,
    scope: Scope,
    key: &VariableKey,
    (given, revision): (Given, Revision),
    old: Option<&StoredVariable>,
) -> Result<Option<StoredValue>, Problem> {
    let seal = async |text: &Secret<String>| store.seal_variable(tenant, scope, key, revision, text).await.map(Some);
    Ok(match given {
        Given::Text { text, is_secret: true } => seal(&text).await?,
        Given::Text { text, is_secret: false } => Some(StoredValue::Plain { text: text.expose().clone() }),
        Given::Reference(reference) => {
            let found = store.resolve_reference(tenant, &reference).await?;
            let unknown = || Problem::validation_failed(vec![reference_missing().at("value")]);
            let secret_id = found.ok_or_else(unknown)?;
            let is_stored = old.and_then(StoredVariable::secret_id) == Some(secret_id);
            (!is_stored).then_some(StoredValue::Reference { secret_id })
        }
        Given::Keep { is_secret } => match old.map(|o| &o.value) {
            Some(StoredValue::Plain { text }) if is_secret => seal(&Secret::new(text.clone())).await?,
            Some(StoredValue::Plain { .. } | StoredValue::Secret { .. } | StoredValue::Reference { .. }) | None => None,
        },
    })
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let asked = PageQuery::read(&mut form);
    let scope = ScopeFields::read(&mut form, |text: String| number_text(&text));
    let asked = form.finish(|| Some(request_of(asked)))?;
    let scope = scope.resolve_present(&state.store, call.tenant()).await?;
    Ok(page(
        state.store.list_variables(call.tenant(), scope, &asked).await.map_err(missing(environments::WHAT))?,
        |variable| view(scope, variable),
    ))
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    creation.body.write_out_numbers("value");
    let mut form = Form::of_body(creation.body.take())?;
    let scope = ScopeFields::read(&mut form, Ok::<u64, Invalid>);
    let key = form.required("key", None, |text: String| VariableKey::parse(&text));
    let value = read_value(&mut form, None);
    let (key, (value_type, given)) = form.finish(|| Some((key?, value?)))?;
    let (store, tenant, now) = (&state.store, creation.call.tenant(), creation.call.now);
    let scope = scope.resolve(store, tenant).await?;
    let value = store_value(store, tenant, scope, &key, (given, Revision(1)), None).await?;
    let value = value.ok_or_else(Problem::internal)?;
    let variable = StoredVariable { key, value_type, value, revision: Revision(1), created_at: now, updated_at: now };
    let event = creation.call.event("variable.created", format!("variable/{}", VariableId::new(scope, &variable.key)));
    let answer = first_answer(&view(scope, variable.clone()));
    let created = store.create_variable(tenant, scope, &variable, creation.replay(&answer), &event).await;
    let created = created.map_err(|error| match error {
        StoreError::Missing => StoreError::ReferenceMissing { field: "envId" },
        other => other,
    })?;
    Ok(answer_creation(&created, &answer))
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let VariableId { scope, key } = path_id(&id)?;
    let variable = state.store.variable(call.tenant(), scope, &key).await.map_err(missing(WHAT))?;
    Ok(conditions.answer(variable.revision, view(scope, variable)))
}

pub(crate) async fn change(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
    mut body: JsonBody,
) -> Result<Response, Problem> {
    body.write_out_numbers("value");
    let VariableId { scope, key } = path_id(&id)?;
    let (store, tenant) = (&state.store, call.tenant());
    let mut race = Race::new(&conditions);
    loop {
        let old = store.variable(tenant, scope, &key).await.map_err(missing(WHAT))?;
        conditions.allow_change(old.revision)?;
        let mut form = Form::of_body(body.value.clone())?;
        take_fixed(&mut form, store, tenant, &view(scope, old.clone())).await?;
        let value = read_value(&mut form, Some(&old));
        let (value_type, given) = form.finish(|| value)?;
        let revision = Revision(old.revision.0 + 1);
        let Some(value) = store_value(store, tenant, scope, &key, (given, revision), Some(&old)).await? else {
            return Ok(answer_change(old.revision, view(scope, old)));
        };
        let new = StoredVariable {
            key: key.clone(),
            value_type,
            value,
            revision,
            created_at: old.created_at,
            updated_at: call.now,
        };
        let event = call.event("variable.updated", format!("variable/{id}"));
        match store.replace_variable(tenant, scope, &old, &new, &event).await {
            Ok(()) => return Ok(answer_change(revision, view(scope, new))),
            Err(error) => race.lost(error).await?,
        }
    }
}

/// What a variable is known by cannot change, and may be sent back as it was answered.
async fn take_fixed(form: &mut Form, store: &Store, tenant: &TenantId, view: &View) -> Result<(), Problem> {
    form.fixed("id", &Value::from(view.id.as_str()));
    form.fixed("scope", &Value::from(view.scope));
    match view.project_id {
        Some(project) => take_project(form, store, tenant, project).await?,
        None => form.fixed("projectId", &Value::Null),
    }
    form.fixed("envId", &Value::from(view.env_id.map(|id| id.to_string())));
    form.fixed("applicationId", &Value::from(view.application_id.map(|id| id.0)));
    form.fixed("key", &Value::from(view.key.as_str()));
    form.read_only(&["secretId", "revision", "createdAt", "updatedAt"]);
    Ok(())
}

pub(crate) async fn delete(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let VariableId { scope, key } = path_id(&id)?;
    let mut race = Race::new(&conditions);
    loop {
        let old = state.store.variable(call.tenant(), scope, &key).await.map_err(missing(WHAT))?;
        conditions.allow_change(old.revision)?;
        let event = call.event("variable.deleted", format!("variable/{id}"));
        let deleted: Result<(), StoreError> =
            state.store.delete_variable(call.tenant(), scope, &old, call.now, &event).await;
        match deleted {
            Ok(()) => return Ok(StatusCode::NO_CONTENT.into_response()),
            Err(error) => race.lost(error).await?,
        }
    }
}
