//! The history of deployments.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use tidegate_aws::{
    cancellation::TooLate,
    deployments::{DeploymentFilter, is_status},
};
use tidegate_domain::{
    id::{ApplicationId, DeploymentId},
    invalid::Invalid,
};
use tidegate_web::{
    Problem,
    auth::{Deploy, Read},
    deployment_view::{DeploymentView, view},
    form::{Form, number_text},
    page::{Page, PageQuery},
};

use crate::{
    AdminState,
    call::{Call, missing, page, request_of},
};

pub(crate) const WHAT: &str = "The deployment";

/// The newest first.
pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<DeploymentView>>, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let asked = PageQuery::read(&mut form);
    let application = form.nullable("applicationId", None, |text: String| number_text(&text).map(ApplicationId));
    let status = form.nullable("status", None, |text: String| {
        let unknown = || Invalid::new("unknown-value", "is not a status", "use one that a deployment has shown");
        is_status(&text).then_some(text).ok_or_else(unknown)
    });
    let trigger = form.nullable("trigger", None, |text: String| {
        let unknown = || Invalid::new("unknown-value", "is not a trigger", "use one that a deployment has shown");
        is_trigger(&text).then_some(text).ok_or_else(unknown)
    });
    let from = form.nullable("from", None, |text: String| time(&text));
    let to = form.nullable("to", None, |text: String| time(&text));
    let filter = DeploymentFilter { application, status, trigger, from, to };
    let asked = form.finish(|| Some(request_of(asked)))?;
    let found = state.store.list_deployments(call.tenant(), &filter, &asked).await?;
    Ok(page(found, |stored| view(&stored.deployment, None)))
}

/// The triggers of the documentation, of which some come with later releases and have no deployments yet.
fn is_trigger(text: &str) -> bool {
    matches!(text, "webhook" | "oidc" | "api-key" | "user" | "issue" | "rollback" | "retry")
}

pub(crate) fn time(text: &str) -> Result<Timestamp, Invalid> {
    let example = "write it as RFC 3339 does: 2026-01-31T12:00:00Z";
    text.parse().map_err(|_| Invalid::new("format-time", "is not a time", example))
}

/// Called off, or being called off: what hosts have begun ends first.
pub(crate) async fn cancel(
    State(state): State<AdminState>,
    call: Call<Deploy>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = DeploymentId::parse(&id).map_err(|_| Problem::not_found(WHAT))?;
    let event = call.event("deployment.cancel-requested", format!("deployment/{id}"));
    match state.store.cancel(call.tenant(), id, &event, call.now).await.map_err(missing(WHAT))? {
        Ok(deployment) => Ok((StatusCode::ACCEPTED, Json(view(&deployment, None))).into_response()),
        Err(TooLate) => Err(Problem::too_late()),
    }
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    Path(id): Path<String>,
) -> Result<Json<DeploymentView>, Problem> {
    let id = DeploymentId::parse(&id).map_err(|_| Problem::not_found(WHAT))?;
    let stored = state.store.deployment(call.tenant(), id).await.map_err(missing(WHAT))?;
    let deployment = state.store.with_live_progress(call.tenant(), stored.deployment).await?;
    let position = if deployment.status.is_final() {
        None
    } else {
        let application = state.store.application_state(call.tenant(), deployment.application_id).await;
        application.ok().and_then(|a| a.queued.iter().position(|queued| *queued == id)).map(|index| index + 1)
    };
    Ok(Json(view(&deployment, position)))
}
