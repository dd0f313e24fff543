//! Syncs of a provider: asked for, tried, shown.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tidegate_aws::{
    catalogue::{PageRequest, Stored},
    idempotency::{FirstAnswer, IdempotencyKey as KeptKey},
    providers::SecretProvider,
    syncs::StoredSync,
};
use tidegate_domain::{
    id::SecretProviderId,
    sync_run::{Asked, SyncFailure, SyncId, SyncProblem, SyncStatus, SyncTrigger},
};
use tidegate_providers::{
    ProviderError,
    sync::{AskError, GroupPlan, Ran},
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::OptionalJsonBody,
    form::Form,
    idempotency::{self, IdempotencyKey},
    page::Page,
};
use tokio::time::Instant;

use crate::{
    AdminState,
    call::{Call, first_answer, missing, page, page_of},
    secret_providers::{WHAT, find},
};

/// So long a caller waits for a source. The gateway ends a request at 30 s, and a write that is under way is not broken off.
const WAIT: Duration = Duration::from_secs(18);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    id: SyncId,
    trigger: SyncTrigger,
    actor: Option<String>,
    force: bool,
    status: &'static str,
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
    /// The same times by the names that a run's log has.
    started: Timestamp,
    finished: Option<Timestamp>,
    added: u64,
    updated: u64,
    renamed: u64,
    removed: u64,
    unchanged: u64,
    held_back: u64,
    problems: Vec<SyncProblem>,
    more_problems: u64,
    error: Option<SyncFailure>,
    /// All of them, where several groups failed; of many the first.
    errors: Vec<SyncFailure>,
    more_errors: u64,
}

impl From<StoredSync> for View {
    fn from(stored: StoredSync) -> Self {
        let error = stored.failure().cloned();
        let StoredSync { id, asked, status, started_at, finished_at, written, found } = stored;
        Self {
            id,
            trigger: asked.trigger,
            actor: asked.actor,
            force: asked.force,
            status: status.as_str(),
            started_at,
            finished_at,
            started: started_at,
            finished: finished_at,
            added: written.added,
            updated: written.updated,
            renamed: written.renamed,
            removed: written.removed,
            unchanged: found.unchanged,
            held_back: found.held_back,
            problems: found.problems,
            more_problems: found.more_problems,
            error,
            errors: found.failures,
            more_errors: found.more_failures,
        }
    }
}

/// Newest first.
pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<Value>>, Problem> {
    let provider = find(&state, call.tenant(), &id).await?;
    let asked = page_of(query.as_deref())?;
    let found = state.store.syncs(call.tenant(), SecretProviderId(provider.id), &asked).await.map_err(missing(WHAT))?;
    Ok(page(found, |run| view(View::from(run))))
}

fn view(view: impl Serialize) -> Value {
    serde_json::to_value(view).expect("a view of texts and numbers can be written as JSON")
}

/// Whether the source can be read. What the source has against it is the answer, not an error of the call.
pub(crate) async fn test(
    State(state): State<AdminState>,
    call: Call<Write>,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<Value>, Problem> {
    let until = Instant::now() + WAIT;
    Form::of_body(body.value)?.finish(|| Some(()))?;
    let provider = find(&state, call.tenant(), &id).await?;
    match state.syncer.check(call.tenant(), &provider, until).await {
        Ok(()) => Ok(Json(json!({"success": true, "error": null}))),
        Err(AskError::Source(error)) => Ok(Json(json!({"success": false, "error": told(&error)}))),
        Err(AskError::Store(error)) => Err(error.into()),
    }
}

fn told(error: &ProviderError) -> Value {
    json!({"code": error.code(), "message": error.to_string()})
}

/// `{"force", "dryRun"}`
pub(crate) async fn sync(
    State(state): State<AdminState>,
    call: Call<Write>,
    key: IdempotencyKey,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let until = Instant::now() + WAIT;
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    if let Some(key) = &key
        && let Some(first) = state.store.first_answer(call.tenant(), key, call.now).await?
    {
        return Ok(idempotency::replay(&first));
    }
    let mut form = Form::of_body(body.value)?;
    let force = form.defaulted("force", false, Ok);
    let dry_run = form.defaulted("dryRun", false, Ok);
    form.finish(|| Some(()))?;
    let provider = find(&state, call.tenant(), &id).await?;
    if dry_run {
        return plan(&state, &call, &provider, force, until).await;
    }
    let id = SecretProviderId(provider.id);
    let asked = Asked { trigger: SyncTrigger::Manual, actor: Some(call.user().to_owned()), force };
    // That somebody lifts the guard of deletions is on record as such.
    let action = if force { "secret-provider.sync-forced" } else { "secret-provider.sync-requested" };
    let event = call.event(action, format!("secret-provider/{id}"));
    state.store.ask_for_sync(call.tenant(), id, &asked, call.now, Some(&event)).await.map_err(missing(WHAT))?;
    // From here on it is done by schedule, whatever becomes of this call.
    loop {
        let ran = Box::pin(state.syncer.run(call.tenant(), id, until)).await.map_err(missing(WHAT))?;
        match ran {
            Ran::Finished(run) if run.started_at >= call.now => {
                return keep(&state, &call, key.as_ref(), StatusCode::OK, *run).await;
            }
            // One that somebody else had left behind.
            Ran::Finished(_) if Instant::now() < until => {}
            Ran::Finished(_) | Ran::Continues | Ran::Nothing => break,
        }
    }
    let newest = PageRequest { limit: 1, cursor: None };
    let found = state.store.syncs(call.tenant(), id, &newest).await.map_err(missing(WHAT))?;
    match found.data.into_iter().next() {
        // Another caller's run has met this request as well.
        Some(run) if run.status != SyncStatus::Running && run.started_at >= call.now => {
            keep(&state, &call, key.as_ref(), StatusCode::OK, run).await
        }
        Some(run) => keep(&state, &call, key.as_ref(), StatusCode::ACCEPTED, run).await,
        None => Err(Problem::busy()),
    }
}

async fn keep(
    state: &AdminState,
    call: &Call<Write>,
    key: Option<&KeptKey>,
    status: StatusCode,
    run: StoredSync,
) -> Result<Response, Problem> {
    let answer = FirstAnswer { status: status.as_u16(), ..first_answer(&View::from(run)) };
    if let Some(key) = key {
        state.store.keep_first_answer(call.tenant(), key, &answer, call.now).await?;
    }
    Ok((status, [(header::CONTENT_TYPE, "application/json")], answer.body.expose().clone()).into_response())
}

async fn plan(
    state: &AdminState,
    call: &Call<Write>,
    provider: &Stored<SecretProvider>,
    force: bool,
    until: Instant,
) -> Result<Response, Problem> {
    let answer = match state.syncer.plan(call.tenant(), provider, force, until).await {
        Ok(plans) => {
            json!({"dryRun": true, "groups": plans.iter().map(group).collect::<Vec<_>>(), "error": null})
        }
        Err(AskError::Source(error)) => json!({"dryRun": true, "groups": [], "error": told(&error)}),
        Err(AskError::Store(error)) => return Err(error.into()),
    };
    Ok(Json(answer).into_response())
}

/// By names, without any value.
fn group(plan: &GroupPlan) -> Value {
    let steps = plan.steps.iter().map(
        |step| json!({"action": step.action, "name": step.name, "secretId": step.secret.map(|id| id.0), "to": step.to}),
    );
    json!({"groupId": plan.group.0, "name": plan.name, "steps": steps.collect::<Vec<_>>(), "unchanged": plan.unchanged,
        "heldBack": plan.held_back, "problems": plan.problems, "error": plan.failure})
}
