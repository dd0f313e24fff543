//! `POST /webhook/deploy`: from bytes to an answer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tidegate_aws::{admission::Admitted, applications::TokenGrant, clock, error::StoreError, idempotency::FirstAnswer};
use tidegate_domain::{
    deployment::{Deployment, Status},
    id::{ApplicationId, DeploymentId},
    image::Version,
    invalid::{FieldError, Invalid},
    secret::Secret,
    token::{Token, TokenKind},
};
use tidegate_web::{
    Problem,
    body::JsonBody,
    deployment_view,
    form::Form,
    idempotency::{IdempotencyKey, replay, replayed},
    request::RequestInfo,
};

use crate::{
    WebhookState,
    admission::{self, Refusal},
    status,
};

/// How often a lost race against a change of the application is run again before the caller is told.
const TRIES: usize = 3;
/// A function is ended after 29 s.
const LONGEST_CALL: Duration = Duration::from_secs(26);

/// A call whose credential is right.
pub(crate) struct Call {
    pub grant: TokenGrant,
    pub token_sha256: String,
    pub info: RequestInfo,
    pub key: Option<tidegate_aws::idempotency::IdempotencyKey>,
    pub begun: Instant,
}

/// What it asks for, as far as it can be read.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// None only beside a fault.
    pub version: Option<Version>,
    /// None only beside a fault.
    pub variables: Option<BTreeMap<String, Value>>,
    /// What is wrong with the body by itself; told together with what is wrong for the application.
    pub faults: Vec<FieldError>,
}

pub(crate) async fn deploy(
    State(state): State<WebhookState>,
    info: RequestInfo,
    key: IdempotencyKey,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
    let begun = Instant::now();
    let JsonBody { mut value, fingerprint } = body;
    let token = credential(&headers, &mut value).ok_or_else(Problem::unauthorized)?;
    let now = clock::now();
    let grant = state.store.grant(&token, now).await?.ok_or_else(Problem::unauthorized)?;
    let named = value.get("applicationId").and_then(Value::as_u64);
    if named.is_some_and(|id| ApplicationId(id) != grant.application_id) {
        return Err(Problem::unauthorized());
    }
    let token_sha256 = tidegate_aws::applications::token_sha256(token.expose());
    let key = key.of(&format!("application:{}", grant.application_id), &fingerprint);
    let call = Call { grant, token_sha256, info, key, begun };
    let wait = status::wait_of(query.as_deref())?;
    answer(&state, &call, value, wait).await
}

/// The token, from the body or the header. Anything but one well-formed token is no credential.
fn credential(headers: &HeaderMap, body: &mut Value) -> Option<Token> {
    let of_body = body.as_object_mut().and_then(|fields| fields.remove("token"));
    let text = match of_body {
        Some(Value::String(text)) => Secret::new(text),
        Some(_) => return None,
        None => bearer(headers)?,
    };
    Token::parse(TokenKind::Webhook, text.expose()).ok()
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<Secret<String>> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim().to_owned()))
}

async fn answer(state: &WebhookState, call: &Call, body: Value, wait: Option<Duration>) -> Result<Response, Problem> {
    let asked = read(body);
    for _ in 0..TRIES {
        match admission::admit(state, call, &asked).await {
            Ok(Admitted::Queued(deployment)) => return Ok(accepted(state, call, *deployment, wait).await),
            Ok(Admitted::Before(first)) => return again(state, call, &first, wait).await,
            Ok(Admitted::QueueFull) => return Err(Problem::queue_full(Duration::from_secs(30))),
            // The application was changed between reading and writing: decide anew on what it is now.
            Err(Refusal::Store(StoreError::Conflict)) => {}
            // Token or application went away in the middle of the call.
            Ok(Admitted::TokenGone) | Err(Refusal::Store(StoreError::Missing)) => return Err(Problem::unauthorized()),
            Err(Refusal::Store(error)) => return Err(error.into()),
            Err(Refusal::Problem(problem)) => return Err(*problem),
        }
    }
    Err(Problem::busy())
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

/// # Errors
/// 422 for a body that is not an object.
fn read(body: Value) -> Result<Asked, Problem> {
    let mut form = Form::of_body(body)?;
    // Compared with the token's already, where it is a number.
    form.required("applicationId", None::<u64>, Ok);
    let version = form.required("version", None, |text: String| Version::parse(&text));
    let variables = form.required("variables", Some(BTreeMap::new()), |value: Value| match value {
        Value::Object(fields) => Ok(fields.into_iter().collect()),
        _ => Err(Invalid::new("wrong-type", "must be an object", "send {\"NAME\": \"value\"}")),
    });
    Ok(Asked { version, variables, faults: form.into_faults() })
}

/// The answer to an admitted call, before anything has happened.
pub(crate) fn first_answer(state: &WebhookState, deployment: &Deployment) -> FirstAnswer {
    let body = body_of(state, deployment, "Deployment queued");
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
    let (status, message) = match ended.status {
        Status::Succeeded => (StatusCode::OK, "Deployment completed successfully"),
        Status::Failed { .. }
        | Status::RolledBack
        | Status::Cancelled { .. }
        | Status::Superseded { .. }
        | Status::Rejected { .. } => (StatusCode::OK, "Deployment did not succeed"),
        Status::Queued | Status::Running => (StatusCode::ACCEPTED, "Deployment queued"),
    };
    (status, Json(body_of(state, &ended, message))).into_response()
}

fn body_of(state: &WebhookState, deployment: &Deployment, message: &str) -> Value {
    let id = deployment.id;
    let mut body = json!({
        "success": match deployment.status {
            Status::Queued | Status::Running | Status::Succeeded => true,
            Status::Failed { .. }
            | Status::RolledBack
            | Status::Cancelled { .. }
            | Status::Superseded { .. }
            | Status::Rejected { .. } => false,
        },
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
    if deployment.status.is_final() {
        let whole = deployment_view::deployment(deployment);
        for field in ["error", "digest", "durationMs", "completedAt", "running"] {
            body[field] = whole[field].clone();
        }
    }
    body
}
