//! Secrets: values that are sealed when written and never shown.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use serde_json::Value;
use tidegate_aws::{
    catalogue::Stored,
    registered::{Source, StoredSecret},
    secrets::{NewSecret, SecretChange},
};
use tidegate_domain::{
    id::{SecretGroupId, TenantId},
    secret::MASK,
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::Conditions,
    form::{Form, number_text},
    page::{Page, PageQuery},
};

use crate::{
    AdminState,
    call::{
        Call, Creation, Race, Stamps, answer_change, answer_creation, first_answer, missing, page, path_id, plain_name,
        request_of, take_stamps,
    },
    masked::{self, SecretField},
};

const WHAT: &str = "The secret";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    id: u64,
    group_id: u64,
    name: String,
    value: &'static str,
    source: &'static str,
    provider_id: Option<u64>,
    provider_reference: Option<String>,
    value_version: u64,
    #[serde(flatten)]
    stamps: Stamps,
}

impl From<Stored<StoredSecret>> for View {
    fn from(stored: Stored<StoredSecret>) -> Self {
        let stamps = Stamps::from(&stored);
        let StoredSecret { group_id, name, value: _, value_version, .. } = stored.body;
        Self {
            id: stored.id,
            group_id: group_id.0,
            name,
            value: MASK,
            source: "manual",
            provider_id: None,
            provider_reference: None,
            value_version,
            stamps,
        }
    }
}

/// A secret whose value is not sealed yet.
struct Parsed {
    group_id: SecretGroupId,
    name: String,
    value: SecretField,
}

fn read(mut form: Form, stored: Option<&StoredSecret>) -> Result<Parsed, Problem> {
    let group_id = form.required("groupId", stored.map(|s| s.group_id), |id: u64| Ok(SecretGroupId(id)));
    let name = form.required("name", stored.map(|s| s.name.clone()), plain_name);
    let value = masked::secret(&mut form, "value", stored.is_some());
    form.only("source", &["manual".into()]);
    form.only("providerId", &[Value::Null]);
    form.only("providerReference", &[Value::Null]);
    form.finish(|| Some(Parsed { group_id: group_id?, name: name?, value: value? }))
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let asked = PageQuery::read(&mut form);
    let group = form.nullable("groupId", None, |text: String| number_text(&text).map(SecretGroupId));
    let asked = form.finish(|| Some(request_of(asked)))?;
    let found = match group {
        None => state.store.list(call.tenant(), &asked).await?,
        Some(group) => state.store.secrets_of_group(call.tenant(), group, &asked).await?,
    };
    Ok(page(found, View::from))
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    let Parsed { group_id, name, value } = read(Form::of_body(creation.body.take())?, None)?;
    let SecretField::New(value) = value else { return Err(Problem::internal()) };
    let (store, tenant) = (&state.store, creation.call.tenant());
    let new = NewSecret { group_id, name, value, source: Source::Manual, expires_at: None };
    let stored = store.new_secret(tenant, new, creation.call.now).await?;
    let id = stored.id;
    let event = creation.call.event("secret.created", format!("secret/{id}"));
    let answer = first_answer(&View::from(stored.clone()));
    let created = store.create_secret(tenant, &stored, creation.replay(&answer), &event).await?;
    Ok(answer_creation(&created, &answer))
}

async fn find(state: &AdminState, tenant: &TenantId, id: &str) -> Result<Stored<StoredSecret>, Problem> {
    state.store.find(tenant, path_id(id, WHAT)?).await.map_err(missing(WHAT))
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let stored = find(&state, call.tenant(), &id).await?;
    Ok(conditions.answer(stored.revision, View::from(stored)))
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
        form.read_only(&["valueVersion"]);
        let Parsed { group_id, name, value } = read(form, Some(&old.body))?;
        let value = match value {
            SecretField::Keep => None,
            SecretField::New(value) => Some(value),
        };
        let change = SecretChange { group_id, name, value, ..SecretChange::none(&old.body) };
        let event = call.event("secret.updated", format!("secret/{}", old.id));
        match store.change_secret(tenant, &old, change, call.now, &event).await {
            Ok(stored) => return Ok(answer_change(stored.revision, View::from(stored))),
            Err(error) => race.lost(error)?,
        }
    }
}

pub(crate) async fn delete(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, call.tenant(), &id).await?;
        conditions.allow_change(old.revision)?;
        let event = call.event("secret.deleted", format!("secret/{}", old.id));
        match state.store.delete_secret(call.tenant(), &old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(error) => race.lost(error)?,
        }
    }
}
