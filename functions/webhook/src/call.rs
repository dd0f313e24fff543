//! `POST /webhook/deploy`: from bytes to an answer.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tidegate_aws::{
    applications::{TokenGrant, token_sha256},
    clock,
    error::StoreError,
    idempotency::{FirstAnswer, IdempotencyKey as KeptKey},
};
use tidegate_domain::{
    deployment::{Deployment, Status, Trigger, TriggerKind},
    id::{ApplicationId, DeploymentId},
    image::Version,
    invalid::Invalid,
    limit::Class,
    refusal::Refusal,
    secret::Secret,
    token::{Token, TokenKind},
};
use tidegate_gate::{Asked, Caller, Decision, Request};
use tidegate_web::{
    Problem,
    body::JsonBody,
    deployment_view,
    form::Form,
    idempotency::{IdempotencyKey, replay, replayed},
    request::RequestInfo,
    throttle::{Looked, guarded},
};

use crate::{WebhookState, status};

/// A function is ended after 29 s.
const LONGEST_CALL: Duration = Duration::from_secs(26);

/// A call whose credential is right.
struct Call {
    grant: TokenGrant,
    token_sha256: String,
    /// Whom the limit per user counts: a token is its application's.
    user: String,
    info: RequestInfo,
    key: Option<KeptKey>,
    begun: Instant,
}

impl Call {
    fn request<'a>(&'a self, asked: &'a Asked) -> Request<'a> {
        let source_ip = self.info.source_ip;
        Request {
            tenant: &self.grant.tenant,
            application: self.grant.application_id,
            project: self.grant.project_id,
            trigger: Trigger {
                kind: TriggerKind::Webhook,
                source: source_ip.map(|ip| ip.to_string()),
                actor: "application token".to_owned(),
                author: None,
            },
            class: Class::Trusted,
            user: &self.user,
            source_ip,
            caller: Caller::Token(&self.token_sha256),
            asked,
            key: self.key.as_ref(),
            retry_of: None,
            issue: None,
            request_id: Some(self.info.id.to_string()),
            id: None,
        }
    }
}

pub(crate) async fn deploy(
    State(state): State<WebhookState>,
    info: RequestInfo,
    key: IdempotencyKey,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let JsonBody { value, fingerprint, .. } = body.with_written("variables");
    let (mut call, body) = authenticate(&state, info, &headers, value).await?;
    call.key = key.of(&call.user, &fingerprint);
    let wait = status::wait_of(query.as_deref())?;
    let asked = read(body);
    let first = |deployment: &Deployment| first_answer(&state, deployment);
    match state.gate.decide(&call.request(&asked), &first).await? {
        Decision::Recorded(deployment) => Ok(accepted(&state, &call, *deployment, wait).await),
        Decision::Before(first) => again(&state, &call, &first, wait).await,
        Decision::Refused(refusal) => Err(refusal.into()),
        // Token or application went away in the middle of the call.
        Decision::CallerGone => Err(Problem::unauthorized()),
    }
}

/// What `POST /webhook/deploy` would come to: nothing is recorded, and nothing is charged.
pub(crate) async fn validate(
    State(state): State<WebhookState>,
    info: RequestInfo,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let body = body.with_written("variables");
    let (call, body) = authenticate(&state, info, &headers, body.value).await?;
    let asked = read(body);
    let checked = state.gate.check(&call.request(&asked)).await?;
    let checked = checked.map_err(|reason| Problem::from(Refusal { reason, deployment: None }))?;
    let waits = !checked.reasons.is_empty();
    let body = json!({
        "success": true,
        "validationPassed": true,
        "application": {
            "id": call.grant.application_id,
            "name": checked.application_name,
            "version": checked.version,
        },
        "approval": {"required": waits, "reasons": checked.reasons},
        "message": if waits { "Would wait for approval" } else { "Would be queued" },
    });
    Ok(Json(body).into_response())
}

/// The caller, and the body without its credential.
async fn authenticate(
    state: &WebhookState,
    info: RequestInfo,
    headers: &HeaderMap,
    mut body: Value,
) -> Result<(Call, Value), Problem> {
    let begun = Instant::now();
    let brought = credential(headers, &mut body);
    let named = body.get("applicationId").and_then(Value::as_u64).map(ApplicationId);
    let (token, grant) = grant_of(state, info.source_ip, brought, named).await?;
    let user = format!("application:{}", grant.application_id);
    let token_sha256 = token_sha256(token.expose());
    Ok((Call { grant, token_sha256, user, info, key: None, begun }, body))
}

/// What was brought as the token, in the body or the header.
fn credential(headers: &HeaderMap, body: &mut Value) -> Option<Secret<String>> {
    let of_body = body.as_object_mut().and_then(|fields| fields.remove("token"));
    match of_body {
        Some(Value::String(text)) => Some(Secret::new(text)),
        // Anything but a text is a wrong one.
        Some(_) => Some(Secret::new(String::new())),
        None => bearer(headers),
    }
}

/// The token and what it opens, which is the application that the request names, if it names one.
///
/// # Errors
/// The uniform 401, and 429 for an address that has sent too many wrong ones.
pub(crate) async fn grant_of(
    state: &WebhookState,
    ip: Option<IpAddr>,
    brought: Option<Secret<String>>,
    named: Option<ApplicationId>,
) -> Result<(Token, TokenGrant), Problem> {
    let look = Box::pin(async {
        let Some(text) = brought else { return Ok(Looked::NotNow) };
        let Ok(token) = Token::parse(TokenKind::Webhook, text.expose()) else { return Ok(Looked::Wrong) };
        let grant = state.store.grant(&token).await?;
        let grant = grant.filter(|grant| named.is_none_or(|id| id == grant.application_id));
        Ok::<_, StoreError>(match grant {
            // An old pipeline does not guess; it must not lock out those that it shares an address with.
            Some(grant) if !grant.is_valid(clock::now()) => Looked::NotNow,
            grant => grant.map(|grant| (token, grant)).into(),
        })
    });
    guarded(&state.store, ip, look).await
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<Secret<String>> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim().to_owned()))
}

/// The answer to a call that repeats an earlier one. Who wants to wait hears how that one ended, not only that it was queued.
async fn again(
    state: &WebhookState,
    call: &Call,
    first: &FirstAnswer,
    wait: Option<Duration>,
) -> Result<Response, Problem> {
    let kept: Value = serde_json::from_str(first.body.expose()).unwrap_or_default();
    let id = kept["deploymentId"].as_str().and_then(|id| DeploymentId::parse(id).ok());
    match (id, wait) {
        (Some(id), Some(_)) => {
            let deployment = state.store.deployment(&call.grant.tenant, id).await?.deployment;
            Ok(replayed(accepted(state, call, deployment, wait).await))
        }
        (None, _) | (_, None) => Ok(replay(first)),
    }
}

fn read(body: Value) -> Asked {
    let mut form = Form::of_any_body(body);
    // Compared with the token's already, where it is a number.
    form.required("applicationId", None::<u64>, Ok);
    let version = form.required("version", None, |text: String| Version::parse(&text));
    let variables = form.required("variables", Some(BTreeMap::new()), |value: Value| match value {
        Value::Object(fields) => Ok(fields.into_iter().collect()),
        _ => Err(Invalid::new("wrong-type", "must be an object", "send {\"NAME\": \"value\"}")),
    });
    Asked { version, variables, faults: form.into_faults() }
}

/// The answer to an admitted call, before anything has happened.
fn first_answer(state: &WebhookState, deployment: &Deployment) -> FirstAnswer {
    let body = body_of(state, deployment, message(&deployment.status));
    FirstAnswer { status: StatusCode::ACCEPTED.as_u16(), body: Secret::new(body.to_string()) }
}

/// The wait is cut so that the answer is out before the gateway gives up, however long the admission took.
async fn accepted(state: &WebhookState, call: &Call, deployment: Deployment, wait: Option<Duration>) -> Response {
    let tenant = &call.grant.tenant;
    let ended = match wait {
        Some(wait) => {
            let wait = wait.min(LONGEST_CALL.saturating_sub(call.begun.elapsed()));
            status::wait_for(state, tenant, deployment, wait, |d| d.status.is_final()).await
        }
        None => deployment,
    };
    let status = if ended.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    (status, Json(body_of(state, &ended, message(&ended.status)))).into_response()
}

fn message(status: &Status) -> &'static str {
    match status {
        Status::AwaitingApproval => "Deployment waits for approval",
        Status::Queued | Status::Running => "Deployment queued",
        Status::Succeeded => "Deployment completed successfully",
        Status::Failed { .. }
        | Status::RolledBack
        | Status::Cancelled { .. }
        | Status::Superseded { .. }
        | Status::Rejected { .. }
        | Status::Denied
        | Status::TimedOut => "Deployment did not succeed",
    }
}

fn body_of(state: &WebhookState, deployment: &Deployment, message: &str) -> Value {
    let id = deployment.id;
    let mut body = json!({
        "success": deployment.status.phase() != "failed",
        "deploymentId": id,
        "status": deployment.status.name(),
        "phase": deployment.status.phase(),
        "validationPassed": true,
        "application": {
            "id": deployment.application_id,
            "name": deployment.application_name,
            "version": deployment.version,
        },
        "message": message,
        "statusUrl": format!("{}/webhook/deployments/{id}", state.public_url),
    });
    if deployment.approval.is_some() {
        body["approval"] = deployment_view::deployment(deployment)["approval"].clone();
    }
    if deployment.status.is_final() {
        let whole = deployment_view::deployment(deployment);
        for field in ["error", "digest", "durationMs", "completedAt", "running"] {
            body[field] = whole[field].clone();
        }
    }
    body
}
