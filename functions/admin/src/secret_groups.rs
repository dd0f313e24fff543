//! Secret groups: sets of secrets, in which names are unique.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use tidegate_aws::{
    catalogue::{PageRequest, Stored},
    error::StoreError,
    keys::Kind,
    registered::SecretGroup,
};
use tidegate_domain::{
    id::{SecretGroupId, SecretProviderId, TenantId},
    invalid::Invalid,
    provider::RemotePath,
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::Conditions,
    form::{Form, line},
    page::Page,
};

use crate::{
    AdminState,
    call::{
        Call, Creation, Race, Stamps, answer_change, answer_creation, first_answer, missing, page, page_of, path_id,
        plain_name, take_stamps,
    },
};

pub(crate) const WHAT: &str = "The secret group";
/// A refused deletion names so many of the group's secrets.
const SECRETS_NAMED: usize = 100;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    id: u64,
    name: String,
    description: String,
    provider_id: Option<u64>,
    remote_path: RemotePath,
    auto_sync: bool,
    #[serde(flatten)]
    stamps: Stamps,
}

impl From<Stored<SecretGroup>> for View {
    fn from(stored: Stored<SecretGroup>) -> Self {
        let stamps = Stamps::from(&stored);
        let SecretGroup { name, description, provider_id, remote_path, auto_sync } = stored.body;
        let provider_id = provider_id.map(|id| id.0);
        Self { id: stored.id, name, description, provider_id, remote_path, auto_sync, stamps }
    }
}

fn read(mut form: Form, stored: Option<&SecretGroup>) -> Result<SecretGroup, Problem> {
    let name = form.required("name", stored.map(|s| s.name.clone()), plain_name);
    let default = stored.map(|s| s.description.clone()).unwrap_or_default();
    let description = form.defaulted("description", default, line(0, 1_000));
    let provider_id =
        form.nullable("providerId", stored.and_then(|s| s.provider_id), |id: u64| Ok(SecretProviderId(id)));
    let default = stored.map(|s| s.remote_path.clone()).unwrap_or_default();
    let remote_path = form.defaulted("remotePath", default, |text: String| RemotePath::parse(&text));
    // Who takes the source away need not say that it is not synced from any.
    let default = stored.is_some_and(|s| s.auto_sync) && provider_id.is_some();
    let auto_sync = form.defaulted("autoSync", default, Ok);
    if auto_sync && provider_id.is_none() && form.faults() == 0 {
        let why = "cannot be, as there is no provider to sync from";
        form.refuse("autoSync", Invalid::new("missing", why, "set providerId as well"));
    }
    form.finish(|| Some(SecretGroup { name: name?, description, provider_id, remote_path, auto_sync }))
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    Ok(page(state.store.list(call.tenant(), &page_of(query.as_deref())?).await?, View::from))
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    let group = read(Form::of_body(creation.body.take())?, None)?;
    let id = state.store.next_id(Kind::SecretGroup).await?;
    let stored = Stored::new(id, group, creation.call.now);
    let event = creation.call.event("secret-group.created", format!("secret-group/{id}"));
    let answer = first_answer(&View::from(stored.clone()));
    let created = state.store.create(creation.call.tenant(), &stored, creation.replay(&answer), &event).await?;
    Ok(answer_creation(&created, &answer))
}

pub(crate) async fn find(state: &AdminState, tenant: &TenantId, id: &str) -> Result<Stored<SecretGroup>, Problem> {
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
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, call.tenant(), &id).await?;
        conditions.allow_change(old.revision)?;
        let mut form = Form::of_body(body.value.clone())?;
        take_stamps(&mut form, old.id);
        let new = read(form, Some(&old.body))?;
        let event = call.event("secret-group.updated", format!("secret-group/{}", old.id));
        match state.store.replace_group(call.tenant(), &old, new, call.now, &event).await {
            Ok(stored) => return Ok(answer_change(stored.revision, View::from(stored))),
            Err(error) => race.lost(error).await?,
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
        let event = call.event("secret-group.deleted", format!("secret-group/{}", old.id));
        match state.store.delete(call.tenant(), &old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(StoreError::InUse { .. }) => {
                let first = PageRequest { limit: SECRETS_NAMED, cursor: None };
                let own = state.store.secrets_of_group(call.tenant(), SecretGroupId(old.id), &first).await?;
                let mut users: Vec<_> = own.data.iter().map(|s| format!("secret {} ({})", s.id, s.body.name)).collect();
                users.extend(own.next_cursor.map(|_| "further secrets".to_owned()));
                return Err(Problem::in_use(users));
            }
            Err(error) => race.lost(error).await?,
        }
    }
}
