//! What waits for a decision, and the decisions.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use serde_json::Value;
use tidegate_aws::clock;
use tidegate_domain::{
    approval::{ContentHash, Decider},
    deployment::{Deployment, Status},
    id::{ApplicationId, DeploymentId},
    invalid::Invalid,
    secret::MASK,
};
use tidegate_gate::{ApprovalOutcome, Deciding};
use tidegate_web::{
    Problem,
    auth::{Deploy, Read},
    body::OptionalJsonBody,
    deployment_view::{DeploymentView, view},
    form::{Form, line},
    page::Page,
};

use crate::{
    AdminState,
    applications::find,
    call::{Call, missing},
};

const WHAT: &str = "The approval";
/// Where GitHub names no time.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Of a comment, in characters.
const LONGEST_COMMENT: usize = 500;

/// What waits, the oldest first, all of it: what is not decided ends by itself.
pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<DeploymentView>>, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    form.defaulted("status", (), |text: String| {
        let others = "GET /deployments?status= lists what was approved, denied or timed out";
        if text == "pending" {
            Ok(())
        } else {
            Err(Invalid::new("unknown-value", "is not a list of approvals", others))
        }
    });
    let application =
        form.nullable("applicationId", None, |text: String| tidegate_web::form::number_text(&text).map(ApplicationId));
    let application = form.finish(|| Some(application))?;
    let waiting = state.store.pending_approvals(call.tenant(), application).await?;
    let data = waiting.iter().map(|stored| view(&stored.deployment, None)).collect();
    Ok(Json(Page { data, next_cursor: None }))
}

/// A deployment that waits, with what was asked for, for who decides on it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApprovalView {
    #[serde(flatten)]
    deployment: DeploymentView,
    /// As the request wrote them; those that are sensitive, masked.
    variables: BTreeMap<String, Value>,
}

/// Only for those who decide: what was asked for may be personal.
pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Deploy>,
    Path(id): Path<String>,
) -> Result<Json<ApprovalView>, Problem> {
    let id = DeploymentId::parse(&id).map_err(|_| Problem::not_found(WHAT))?;
    let stored = state.store.deployment(call.tenant(), id).await.map_err(missing(WHAT))?;
    if stored.deployment.approval.is_none() {
        return Err(Problem::not_found(WHAT));
    }
    let application = find(&state, call.tenant(), &stored.deployment.application_id.to_string()).await?;
    let registered = &application.body.application;
    if !call.is_admin() && call.user() != registered.owner {
        return Err(Problem::not_yours_to_decide("Only the application's owner or an administrator decides on this."));
    }
    let mut variables = match state.store.requested(call.tenant(), id, call.now).await? {
        Some(requested) => requested.variables()?,
        None => return Err(Problem::request_gone()),
    };
    // What is not declared any more may have been sensitive, and what is not now may have been when it was asked for.
    let asked = state.store.find_snapshot(call.tenant(), id).await?;
    let was_plain = |name: &str| {
        asked.as_ref().is_some_and(|job| job.variables.iter().any(|v| v.key.as_str() == name && !v.is_secret))
    };
    for (name, value) in &mut variables {
        let is_plain = registered.parameters.iter().any(|p| p.name.as_str() == name && !p.sensitive);
        if !is_plain || !was_plain(name) {
            *value = Value::from(MASK);
        }
    }
    Ok(Json(ApprovalView { deployment: view(&stored.deployment, None), variables }))
}

/// `{"hash": "…"}`: what was looked at. Nobody approves what they have not seen.
pub(crate) async fn approve(
    State(state): State<AdminState>,
    call: Call<Deploy>,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let mut form = Form::of_body(body.value)?;
    let hash = form.required("hash", None, |text: String| ContentHash::parse(&text));
    let comment = form.nullable("comment", None, line(1, LONGEST_COMMENT));
    let (hash, comment) = form.finish(|| Some((hash?, comment)))?;
    let deciding = deciding(&call, &id, Some(hash.as_str()), comment.as_deref())?;
    answer(state.gate.approve(&deciding).await.map_err(missing(WHAT))?)
}

/// `{"comment": "…"}`
pub(crate) async fn reject(
    State(state): State<AdminState>,
    call: Call<Deploy>,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let mut form = Form::of_body(body.value)?;
    let comment = form.nullable("comment", None, line(1, LONGEST_COMMENT));
    let comment = form.finish(|| Some(comment))?;
    let deciding = deciding(&call, &id, None, comment.as_deref())?;
    answer(state.gate.reject(&deciding).await.map_err(missing(WHAT))?)
}

fn deciding<'a, P>(
    call: &'a Call<P>,
    id: &str,
    hash: Option<&'a str>,
    comment: Option<&'a str>,
) -> Result<Deciding<'a>, Problem> {
    let deployment = DeploymentId::parse(id).map_err(|_| Problem::not_found(WHAT))?;
    Ok(Deciding {
        tenant: call.tenant(),
        deployment,
        decider: Decider { name: call.user(), is_admin: call.is_admin() },
        hash,
        comment,
        source_ip: call.info().source_ip,
        request_id: Some(call.info().id.to_string()),
    })
}

fn answer(outcome: ApprovalOutcome) -> Result<Response, Problem> {
    match outcome {
        ApprovalOutcome::Taken(deployment) => {
            let status = if deployment.status == Status::Denied { StatusCode::OK } else { StatusCode::ACCEPTED };
            Ok((status, Json(view(&deployment, None))).into_response())
        }
        ApprovalOutcome::NotWaiting(deployment) => Err(Problem::not_waiting(deployment.status.name())),
        ApprovalOutcome::Forbidden(why) => Err(Problem::not_yours_to_decide(why)),
        ApprovalOutcome::Stale(deployment) => Err(Problem::approval_stale(hash_of(&deployment))),
        ApprovalOutcome::Invalid(faults) => Err(Problem::validation_failed(faults)),
        ApprovalOutcome::QueueFull { retry_after } => Err(Problem::queue_full(retry_after)),
        ApprovalOutcome::Gone => Err(Problem::request_gone()),
        ApprovalOutcome::AskerNotPermitted => Err(Problem::asker_not_permitted()),
        ApprovalOutcome::AskerUnknown(why) => {
            tracing::warn!(error = &why as &dyn std::error::Error, "nobody can say whether who asked may still ask");
            let pause = why.until().and_then(|until| until.duration_since(clock::now()).try_into().ok());
            Err(Problem::asker_unknown(pause.unwrap_or(ASK_AGAIN)))
        }
    }
}

fn hash_of(deployment: &Deployment) -> &str {
    deployment.approval.as_ref().map_or("", |approval| approval.hash.as_str())
}
