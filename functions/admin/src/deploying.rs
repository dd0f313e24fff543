//! People ask for a deployment: of a version, or of what was asked for before.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde_json::Value;
use tidegate_aws::{
    catalogue::Stored, idempotency::FirstAnswer, idempotency::IdempotencyKey as KeptKey,
    registered::RegisteredApplication,
};
use tidegate_domain::{
    deployment::{Deployment, Status, TriggerKind},
    id::{ApplicationId, DeploymentId},
    image::Version,
    invalid::Invalid,
    job::Action,
    limit::Class,
    refusal::Refusal,
};
use tidegate_gate::{Asked, Caller, Checked, Decision, Request};
use tidegate_web::{
    Problem,
    auth::Deploy,
    body::{JsonBody, OptionalJsonBody},
    deployment_view::view,
    form::Form,
    idempotency::{self, IdempotencyKey},
};

use crate::{
    AdminState,
    applications::find,
    call::{Call, first_answer, missing},
    deployments,
};

/// `{"version", "variables"}`
pub(crate) async fn deploy(
    State(state): State<AdminState>,
    call: Call<Deploy>,
    key: IdempotencyKey,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    let application = find(&state, call.tenant(), &id).await?;
    let asked = read(body.with_written("variables").value);
    let request = request(&call, &application, &asked, key.as_ref(), None);
    decide(&state, &request).await
}

/// What [`deploy`] would come to: nothing is recorded, and nothing is charged.
pub(crate) async fn validate(
    State(state): State<AdminState>,
    call: Call<Deploy>,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let application = find(&state, call.tenant(), &id).await?;
    let asked = read(body.with_written("variables").value);
    let checked = state.gate.check(&request(&call, &application, &asked, None, None)).await?;
    let Checked { reasons, .. } = checked.map_err(|reason| Problem::from(Refusal { reason, deployment: None }))?;
    let approval = serde_json::json!({"required": !reasons.is_empty(), "reasons": reasons});
    Ok(Json(serde_json::json!({"validationPassed": true, "approval": approval})).into_response())
}

/// A new deployment of the same request, validated anew as the application is now.
pub(crate) async fn retry(
    State(state): State<AdminState>,
    call: Call<Deploy>,
    key: IdempotencyKey,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    Form::of_body(body.value)?.finish(|| Some(()))?;
    let id = DeploymentId::parse(&id).map_err(|_| Problem::not_found(deployments::WHAT))?;
    let stored = state.store.deployment(call.tenant(), id).await.map_err(missing(deployments::WHAT))?;
    let before = stored.deployment;
    let asked = asked_before(&state, &call, &before).await?;
    let application = find(&state, call.tenant(), &before.application_id.to_string()).await?;
    let request = request(&call, &application, &asked, key.as_ref(), Some(id));
    decide(&state, &request).await
}

/// # Errors
/// 409 for what has no request that could be repeated, or has not ended.
async fn asked_before<P>(state: &AdminState, call: &Call<P>, before: &Deployment) -> Result<Asked, Problem> {
    if !before.status.is_final() {
        return Err(Problem::conflict("This deployment has not ended yet; wait for its end, or cancel it first."));
    }
    if before.action != Action::Deploy || before.returns_to.is_some() {
        return Err(Problem::conflict("Only a deployment of a version can be asked for again."));
    }
    if let Status::Rejected { .. } = before.status {
        let detail = "What a refused request asked for is not kept. Ask for the corrected one instead.";
        return Err(Problem::conflict(detail));
    }
    let variables = match state.store.requested(call.tenant(), before.id, call.now).await? {
        Some(requested) => requested.variables()?,
        None if before.carries_variables => return Err(Problem::request_gone()),
        None => BTreeMap::new(),
    };
    Ok(Asked { version: before.version.clone(), variables: Some(variables), faults: Vec::new() })
}

fn request<'a, P>(
    call: &'a Call<P>,
    application: &Stored<RegisteredApplication>,
    asked: &'a Asked,
    key: Option<&'a KeptKey>,
    retry_of: Option<DeploymentId>,
) -> Request<'a> {
    let kind = if retry_of.is_some() { TriggerKind::Retry } else { TriggerKind::User };
    Request {
        tenant: call.tenant(),
        application: ApplicationId(application.id),
        project: application.body.application.project_id,
        trigger: call.trigger(kind),
        class: Class::Trusted,
        user: call.user(),
        source_ip: call.info().source_ip,
        caller: Caller::Person { name: call.user(), is_admin: call.is_admin() },
        asked,
        key,
        retry_of,
        issue: None,
        request_id: Some(call.info().id.to_string()),
        id: None,
    }
}

async fn decide(state: &AdminState, request: &Request<'_>) -> Result<Response, Problem> {
    let answer = |deployment: &Deployment| FirstAnswer {
        status: StatusCode::ACCEPTED.as_u16(),
        ..first_answer(&view(deployment, None))
    };
    match state.gate.decide(request, &answer).await? {
        Decision::Recorded(deployment) => Ok((StatusCode::ACCEPTED, Json(view(&deployment, None))).into_response()),
        Decision::Before(first) => Ok(idempotency::replay(&first)),
        Decision::Refused(refusal) => Err(refusal.into()),
        Decision::CallerGone => Err(Problem::not_found(crate::applications::WHAT)),
    }
}

fn read(body: Value) -> Asked {
    let mut form = Form::of_any_body(body);
    let version = form.required("version", None, |text: String| Version::parse(&text));
    let variables = form.required("variables", Some(BTreeMap::new()), |value: Value| match value {
        Value::Object(fields) => Ok(fields.into_iter().collect()),
        _ => Err(Invalid::new("wrong-type", "must be an object", r#"send {"NAME": "value"}"#)),
    });
    Asked { version, variables, faults: form.into_faults() }
}
