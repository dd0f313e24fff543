//! Secrets: values that are sealed when written and never shown.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::{
    catalogue::Stored,
    registered::{Source, StoredSecret},
    secrets::{NewSecret, SecretChange},
};
use tidegate_domain::{
    id::{SecretGroupId, TenantId},
    invalid::Invalid,
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
    deployments::time,
    masked::{self, SecretField},
};

pub(crate) const WHAT: &str = "The secret";

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
    stale: bool,
    value_version: u64,
    expires_at: Option<Timestamp>,
    expired: bool,
    used_by: u64,
    #[serde(flatten)]
    stamps: Stamps,
}

impl View {
    pub(crate) fn of(stored: Stored<StoredSecret>, now: Timestamp) -> Self {
        let stamps = Stamps::from(&stored);
        let Stored { id, uses: used_by, body, .. } = stored;
        let StoredSecret { group_id, name, value: _, value_version, versions_from: _, source, expires_at } = body;
        let SourceView { source, provider_id, provider_reference, stale } = SourceView::of(source);
        Self {
            id,
            group_id: group_id.0,
            name,
            value: MASK,
            source,
            provider_id,
            provider_reference,
            stale,
            value_version,
            expires_at,
            expired: expires_at.is_some_and(|at| at <= now),
            used_by,
            stamps,
        }
    }
}

const MANUAL: &str = "manual";

struct SourceView {
    source: &'static str,
    provider_id: Option<u64>,
    provider_reference: Option<String>,
    stale: bool,
}

impl SourceView {
    fn of(source: Source) -> Self {
        match source {
            Source::Manual => Self { source: MANUAL, provider_id: None, provider_reference: None, stale: false },
            Source::Synced { provider_id, remote_path, stale, .. } => Self {
                source: "synced",
                provider_id: Some(provider_id.0),
                provider_reference: Some(remote_path),
                stale,
            },
        }
    }

    /// Where the secret is to come from. A synced one is taken from its provider with `"source": "manual"`; the other way
    /// leads through a sync alone. What else tells of it may be sent back as it was answered.
    fn take(self, form: &mut Form, stored: Source) -> Source {
        let source = form.defaulted("source", self.source.to_owned(), |text: String| {
            if text == self.source || text == MANUAL {
                return Ok(text);
            }
            let suggestion = format!("leave it out, or write {MANUAL} to take a secret from its provider");
            Err(Invalid::new("read-only", "cannot be changed into this", suggestion))
        });
        form.read_only(&["stale", "valueVersion", "expired", "usedBy"]);
        if source != self.source {
            form.read_only(&["providerId", "providerReference"]);
            return Source::Manual;
        }
        form.fixed("providerId", &self.provider_id.into());
        form.fixed("providerReference", &self.provider_reference.into());
        stored
    }
}

/// A secret whose value is not sealed yet.
struct Parsed {
    group_id: SecretGroupId,
    name: String,
    value: SecretField,
    source: Source,
    expires_at: Option<Timestamp>,
}

fn read(mut form: Form, stored: Option<&StoredSecret>) -> Result<Parsed, Problem> {
    let group_id = form.required("groupId", stored.map(|s| s.group_id), |id: u64| Ok(SecretGroupId(id)));
    let name = form.required("name", stored.map(|s| s.name.clone()), plain_name);
    let value = masked::secret(&mut form, "value", stored.is_some());
    let expires_at = form.nullable("expiresAt", stored.and_then(|s| s.expires_at), |text: String| reminder(&text));
    let source = stored.map(|s| s.source.clone()).unwrap_or_default();
    let source = SourceView::of(source.clone()).take(&mut form, source);
    if let (Some(stored), Source::Synced { .. }) = (stored, &source) {
        let synced = || {
            let hint = "change it at the provider, and sync; or take it from there with \"source\": \"manual\"";
            Invalid::new("synced", "comes from a provider, whose sync alone writes it", hint)
        };
        if group_id.is_some_and(|group| group != stored.group_id) {
            form.refuse("groupId", synced());
        }
        if name.as_ref().is_some_and(|name| *name != stored.name) {
            form.refuse("name", synced());
        }
        if matches!(value, Some(SecretField::New(_))) {
            form.refuse("value", synced());
        }
    }
    form.finish(|| Some(Parsed { group_id: group_id?, name: name?, value: value?, source, expires_at }))
}

/// To the second: it is a date to be reminded of, and found by.
fn reminder(text: &str) -> Result<Timestamp, Invalid> {
    let at = Timestamp::from_second(time(text)?.as_second()).unwrap_or(Timestamp::MAX);
    if at < Timestamp::UNIX_EPOCH {
        return Err(Invalid::new("out-of-range", "is before 1970", "use a later date, or null for none"));
    }
    Ok(at)
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let asked = PageQuery::read(&mut form);
    let group = form.nullable("groupId", None, |text: String| number_text(&text).map(SecretGroupId));
    let before = form.nullable("expiresBefore", None, |text: String| time(&text));
    if group.is_some() && before.is_some() {
        let why = Invalid::new("one-filter", "does not go with groupId", "filter by one of the two");
        form.refuse("expiresBefore", why);
    }
    let asked = form.finish(|| Some(request_of(asked)))?;
    let (store, tenant) = (&state.store, call.tenant());
    let found = match (group, before) {
        (Some(group), _) => store.secrets_of_group(tenant, group, &asked).await?,
        (None, Some(before)) => store.expiring_secrets(tenant, before, &asked).await?,
        (None, None) => store.list(tenant, &asked).await?,
    };
    Ok(page(found, |secret| View::of(secret, call.now)))
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    let Parsed { group_id, name, value, source, expires_at } = read(Form::of_body(creation.body.take())?, None)?;
    let SecretField::New(value) = value else { return Err(Problem::internal()) };
    let (store, tenant) = (&state.store, creation.call.tenant());
    let new = NewSecret { group_id, name, value, source, expires_at };
    let stored = store.new_secret(tenant, new, creation.call.now).await?;
    let id = stored.id;
    let event = creation.call.event("secret.created", format!("secret/{id}"));
    let answer = first_answer(&View::of(stored.clone(), creation.call.now));
    let created = store.create_secret(tenant, &stored, creation.replay(&answer), &event).await?;
    Ok(answer_creation(&created, &answer))
}

pub(crate) async fn find(state: &AdminState, tenant: &TenantId, id: &str) -> Result<Stored<StoredSecret>, Problem> {
    state.store.find(tenant, path_id(id, WHAT)?).await.map_err(missing(WHAT))
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let stored = find(&state, call.tenant(), &id).await?;
    conditions.answer_live(stored.revision, View::of(stored, call.now))
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
        let Parsed { group_id, name, value, source, expires_at } = read(form, Some(&old.body))?;
        let value = match value {
            SecretField::Keep => None,
            SecretField::New(value) => Some(value),
        };
        let action = if source == old.body.source { "secret.updated" } else { "secret.detached" };
        let event = call.event(action, format!("secret/{}", old.id));
        let change = SecretChange { group_id, name, value, source, expires_at };
        match store.change_secret(tenant, &old, change, call.now, &event).await {
            Ok(stored) => return Ok(answer_change(stored.revision, View::of(stored, call.now))),
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
        let event = call.event("secret.deleted", format!("secret/{}", old.id));
        match state.store.delete_secret(call.tenant(), &old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(error) => race.lost(error).await?,
        }
    }
}
