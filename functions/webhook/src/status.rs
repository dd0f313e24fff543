//! `GET /webhook/deployments/{id}`: how it went, at once or as soon as it changes.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use tidegate_aws::error::StoreError;
use tidegate_domain::{
    deployment::Deployment,
    id::{DeploymentId, TenantId},
};
use tidegate_web::{
    Problem, deployment_view, deployment_wait,
    form::{Form, number_text, within},
    request::RequestInfo,
};

use crate::{
    WebhookState,
    call::{bearer, grant_of},
};

/// The gateway ends a request after 30 s.
const LONGEST_WAIT_SECONDS: u64 = 20;

pub(crate) async fn status(
    State(state): State<WebhookState>,
    info: RequestInfo,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, grant) = grant_of(&state, info.source_ip, bearer(&headers), None).await?;
    let wait = wait_of(query.as_deref())?;
    let not_found = || Problem::not_found("The deployment");
    let id = DeploymentId::parse(&id).map_err(|_| not_found())?;
    let found = match state.store.deployment(&grant.tenant, id).await {
        Ok(found) if found.deployment.application_id == grant.application_id => found.deployment,
        Ok(_) | Err(StoreError::Missing) => return Err(not_found()),
        Err(other) => return Err(other.into()),
    };
    let before = found.status.clone();
    let shown = match wait {
        Some(wait) if !found.status.is_final() => {
            wait_for(&state, &grant.tenant, found, wait, |d| d.status != before).await
        }
        Some(_) | None => found,
    };
    let shown = state.store.with_live_progress(&grant.tenant, shown).await?;
    Ok(Json(deployment_view::deployment(&shown)).into_response())
}

/// `?wait=` in seconds, 0 to 20; none or 0 for an answer at once.
pub(crate) fn wait_of(query: Option<&str>) -> Result<Option<Duration>, Problem> {
    let mut form = Form::of_query(query)?;
    let in_range = within(0, LONGEST_WAIT_SECONDS);
    let seconds = form.defaulted("wait", 0, |text: String| number_text(&text).and_then(in_range));
    form.finish(|| Some((seconds > 0).then(|| Duration::from_secs(seconds))))
}

/// The deployment when `done` holds of it, or as it is when the time is over, or where many wait already.
pub(crate) async fn wait_for(
    state: &WebhookState,
    tenant: &TenantId,
    deployment: Deployment,
    wait: Duration,
    done: impl Fn(&Deployment) -> bool,
) -> Deployment {
    let Ok(_place) = state.waiting.try_acquire() else { return deployment };
    deployment_wait::until(&state.store, tenant, deployment, wait, done).await
}
