//! Secret providers: outside sources that groups are filled from.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::{catalogue::Stored, keys::Kind, providers::SecretProvider};
use tidegate_domain::{
    id::{SecretProviderId, TenantId},
    secret::MASK,
    sync_run::{SyncFailure, SyncState},
};
use tidegate_providers::fields;
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
    call::{
        Call, Creation, Race, Stamps, answer_change, answer_creation, first_answer, missing, page, page_of, path_id,
        take_stamps,
    },
    secret_provider_form::{read, seal},
};

pub(crate) const WHAT: &str = "The secret provider";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    id: u64,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// All fields of the kind; secrets as the mask, and what is not set as `null`.
    config: BTreeMap<&'static str, Option<String>>,
    auto_sync: bool,
    sync_interval_minutes: u32,
    on_conflict: &'static str,
    on_removed: &'static str,
    last_sync_at: Option<Timestamp>,
    last_sync_status: Option<&'static str>,
    last_sync_error: Option<SyncFailure>,
    next_sync_at: Option<Timestamp>,
    #[serde(flatten)]
    stamps: Stamps,
}

impl View {
    fn of(stored: Stored<SecretProvider>, state: SyncState) -> Self {
        let (stamps, provider) = (Stamps::from(&stored), stored.body);
        let shown = |field: &tidegate_providers::Field| {
            let secret = provider.credentials.get(field.name).map(|_| MASK.to_owned());
            (field.name, if field.is_secret { secret } else { provider.settings.get(field.name).cloned() })
        };
        Self {
            id: stored.id,
            config: fields(provider.kind).iter().map(shown).collect(),
            kind: provider.kind.as_str(),
            name: provider.name,
            auto_sync: provider.auto_sync,
            sync_interval_minutes: provider.sync_interval_minutes,
            on_conflict: provider.on_conflict.as_str(),
            on_removed: provider.on_removed.as_str(),
            last_sync_status: state.status().map(tidegate_domain::sync_run::SyncStatus::as_str),
            last_sync_at: state.last_sync_at,
            last_sync_error: state.last_failure,
            next_sync_at: state.due_at.filter(|_| state.run.is_none()),
            stamps,
        }
    }
}

/// What answers carry and nobody writes.
fn take(form: &mut Form, id: u64) {
    take_stamps(form, id);
    form.read_only(&["lastSyncAt", "lastSyncStatus", "lastSyncError", "nextSyncAt"]);
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    let found = state.store.list::<SecretProvider>(call.tenant(), &page_of(query.as_deref())?).await?;
    let ids: Vec<u64> = found.data.iter().map(|provider| provider.id).collect();
    let mut states = state.store.sync_states(call.tenant(), &ids).await?;
    Ok(page(found, |provider| {
        // Deleted in between: it is shown as it was.
        let state = states.remove(&provider.id).unwrap_or_else(SyncState::never);
        View::of(provider, state)
    }))
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    let (store, tenant, now) = (&state.store, creation.call.tenant().clone(), creation.call.now);
    let parsed = read(Form::of_body(creation.body.take())?, &tenant, None)?;
    let id = store.next_id(Kind::SecretProvider).await?;
    let stored = Stored::new(id, seal(store, &tenant, id, None, parsed).await?, now);
    let event = creation.call.event("secret-provider.created", format!("secret-provider/{id}"));
    let first = SyncState::never().schedule(stored.body.interval(), now);
    let answer = first_answer(&View::of(stored.clone(), first));
    let created = store.create_provider(&tenant, &stored, creation.replay(&answer), &event).await?;
    Ok(answer_creation(&created, &answer))
}

pub(crate) async fn find(state: &AdminState, tenant: &TenantId, id: &str) -> Result<Stored<SecretProvider>, Problem> {
    state.store.find(tenant, path_id(id, WHAT)?).await.map_err(missing(WHAT))
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let stored = find(&state, call.tenant(), &id).await?;
    let syncs = state.store.sync_state(call.tenant(), SecretProviderId(stored.id)).await.map_err(missing(WHAT))?;
    conditions.answer_live(stored.revision, View::of(stored, syncs))
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
        take(&mut form, old.id);
        let parsed = read(form, tenant, Some(&old.body))?;
        let new = seal(store, tenant, old.id, Some(&old.body), parsed).await?;
        let event = call.event("secret-provider.updated", format!("secret-provider/{}", old.id));
        match store.replace_provider(tenant, &old, new, call.now, &event).await {
            Ok(stored) => {
                let syncs = store.sync_state(tenant, SecretProviderId(stored.id)).await.map_err(missing(WHAT))?;
                return Ok(answer_change(stored.revision, View::of(stored, syncs)));
            }
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
        let event = call.event("secret-provider.deleted", format!("secret-provider/{}", old.id));
        match state.store.delete_provider(call.tenant(), &old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(error) => race.lost(error).await?,
        }
    }
}
