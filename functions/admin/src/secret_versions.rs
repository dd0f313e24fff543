//! The values that a secret has had, and whoever reads one of them; and the variables that refer to it.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::{
    catalogue::Stored,
    error::StoreError,
    idempotency::FirstAnswer,
    registered::{Source, StoredSecret},
    secrets::{AnswerOf, SecretVersion},
};
use tidegate_domain::{
    id::{ApplicationId, EnvironmentId, ProjectId, SecretId},
    variable::{Scope, VariableKey},
    variable_id::VariableId,
};
use tidegate_web::{
    Problem,
    auth::{Read, Reveal, Write},
    body::OptionalJsonBody,
    conditional::{Conditions, etag},
    form::{Form, number_text},
    idempotency::{self, IdempotencyKey},
    page::Page,
};

use crate::{
    AdminState,
    call::{Call, Race, first_answer, missing, page, page_of, path_id},
    secrets::{View, WHAT, find},
};

const WHAT_VERSION: &str = "The secret, or this version of it,";

/// Without the value.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionView {
    version: u64,
    created_at: Timestamp,
    created_by: Option<String>,
}

impl From<SecretVersion> for VersionView {
    fn from(version: SecretVersion) -> Self {
        let SecretVersion { version, created_at, created_by, .. } = version;
        Self { version, created_at, created_by }
    }
}

/// Newest first; there are never more than one page of them.
pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    Path(id): Path<String>,
) -> Result<Json<Page<VersionView>>, Problem> {
    let secret = find(&state, call.tenant(), &id).await?;
    let versions = state.store.secret_versions(call.tenant(), &secret).await?;
    Ok(Json(Page { data: versions.into_iter().map(VersionView::from).collect(), next_cursor: None }))
}

/// Writes the value of an earlier version as a new one.
pub(crate) async fn restore(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    key: IdempotencyKey,
    Path((id, version)): Path<(String, String)>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    Form::of_body(body.value)?.finish(|| Some(()))?;
    let version = path_id(&version, WHAT_VERSION)?;
    let answer = |stored: &Stored<StoredSecret>| FirstAnswer {
        status: StatusCode::OK.as_u16(),
        ..first_answer(&View::of(stored.clone(), call.now))
    };
    let mut race = Race::new(&conditions);
    loop {
        // In the loop: what a race was lost to may be the same request.
        if let Some(key) = &key
            && let Some(first) = store.first_answer(tenant, key, call.now).await?
        {
            return Ok(idempotency::replay(&first));
        }
        let old = find(&state, tenant, &id).await?;
        conditions.allow_change(old.revision)?;
        match &old.body.source {
            Source::Manual => {}
            Source::Synced { .. } => {
                let detail = "The secret comes from a provider, whose sync alone writes it. Change it at the provider, and sync.";
                return Err(Problem::conflict(detail));
            }
        }
        let event = call.event("secret.version-restored", format!("secret/{}/versions/{version}", old.id));
        let keep = key.as_ref().map(|key| (key, &answer as &AnswerOf<'_>));
        match store.restore_secret(tenant, &old, version, call.now, &event, keep).await {
            Ok(stored) => {
                let json = [(header::CONTENT_TYPE, "application/json")];
                return Ok((etag(stored.revision), json, answer(&stored).body.expose().clone()).into_response());
            }
            Err(StoreError::Missing) => return Err(Problem::not_found(WHAT_VERSION)),
            Err(error) => race.lost(error).await?,
        }
    }
}

/// The only answer that holds a secret's value.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Revealed<'a> {
    id: u64,
    name: &'a str,
    value: &'a str,
    value_version: u64,
}

pub(crate) async fn reveal(
    State(state): State<AdminState>,
    call: Call<Reveal>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let version = form.nullable("version", None, |text: String| number_text(&text));
    let version = form.finish(|| Some(version))?;
    Form::of_body(body.value)?.finish(|| Some(()))?;
    let id = path_id(&id, WHAT)?;
    let subject = match version {
        None => format!("secret/{id}"),
        Some(version) => format!("secret/{id}/versions/{version}"),
    };
    let event = call.event("secret.revealed", subject);
    let revealed = state.store.reveal_secret(call.tenant(), id, version, call.now, &event).await;
    let (secret, value_version, value) = revealed.map_err(missing(WHAT_VERSION))?;
    let revealed = Revealed { id, name: &secret.body.name, value: value.expose(), value_version };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(revealed)).into_response())
}

/// A variable that refers to the secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UseView {
    id: String,
    scope: &'static str,
    project_id: Option<ProjectId>,
    env_id: Option<EnvironmentId>,
    application_id: Option<ApplicationId>,
    key: VariableKey,
}

impl From<VariableId> for UseView {
    fn from(variable: VariableId) -> Self {
        let id = variable.to_string();
        let VariableId { scope, key } = variable;
        let (project_id, env_id, application_id) = match scope {
            Scope::Global => (None, None, None),
            Scope::Project(id) => (Some(id), None, None),
            Scope::Environment(id) => (None, Some(id), None),
            Scope::Application(id) => (None, None, Some(id)),
        };
        Self { id, scope: scope.name(), project_id, env_id, application_id, key }
    }
}

pub(crate) async fn used_by(
    State(state): State<AdminState>,
    call: Call<Read>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<UseView>>, Problem> {
    let asked = page_of(query.as_deref())?;
    let secret = find(&state, call.tenant(), &id).await?;
    Ok(page(state.store.secret_uses(call.tenant(), SecretId(secret.id), &asked).await?, UseView::from))
}
