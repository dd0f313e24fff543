//! `POST /webhook/deploy`: from bytes to an answer.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tidegate_aws::{
    applications::TokenGrant, clock, deployments::Admitted, error::StoreError, idempotency::FirstAnswer,
};
use tidegate_domain::{
    deployment::{Deployment, Status},
    id::ApplicationId,
    image::Version,
    secret::Secret,
    token::{Token, TokenKind},
};
use tidegate_web::{
    Problem,
    body::JsonBody,
    deployment_view,
    form::Form,
    idempotency::{IdempotencyKey, replay},
    request::RequestInfo,
};

use crate::{
    WebhookState,
    admission::{self, Refusal},
    status,
};

/// How often a lost race against a change of the application is run again before the caller is told.
const TRIES: usize = 3;

/// A call whose credential is right.
pub(crate) struct Call {
    pub grant: TokenGrant,
    pub token_sha256: String,
    pub info: RequestInfo,
    pub key: Option<tidegate_aws::idempotency::IdempotencyKey>,
}

/// What it asks for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub version: Version,
    pub variables: BTreeMap<String, Value>,
}

pub(crate) async fn deploy(
    State(state): State<WebhookState>,
    info: RequestInfo,
    key: IdempotencyKey,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: JsonBody,
) -> Result<Response, Problem> {
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
    let call = Call { grant, token_sha256, info, key };
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
            Ok(Admitted::Queued(deployment)) => return accepted(state, call, *deployment, wait).await,
            Ok(Admitted::Before(first)) => return Ok(replay(&first)),
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

fn read(body: Value) -> Result<Asked, Problem> {
    let mut form = Form::of_body(body)?;
    let application = form.required("applicationId", None::<u64>, Ok);
    let version = form.required("version", None, |text: String| Version::parse(&text));
    let variables = form.defaulted("variables", BTreeMap::new(), |value: Value| match value {
        Value::Object(fields) => Ok(fields.into_iter().collect()),
        _ => {
            Err(tidegate_domain::invalid::Invalid::new("wrong-type", "must be an object", "send {\"NAME\": \"value\"}"))
        }
    });
    form.finish(|| {
        application?;
        Some(Asked { version: version?, variables })
    })
}

/// The answer to an admitted call, before anything has happened.
pub(crate) fn first_answer(state: &WebhookState, deployment: &Deployment) -> FirstAnswer {
    let body = body_of(state, deployment, "Deployment queued");
    FirstAnswer { status: StatusCode::ACCEPTED.as_u16(), body: Secret::new(body.to_string()) }
}

async fn accepted(
    state: &WebhookState,
    call: &Call,
    deployment: Deployment,
    wait: Option<Duration>,
) -> Result<Response, Problem> {
    let tenant = &call.grant.tenant;
    let ended = match wait {
        Some(wait) => status::wait_for(state, tenant, deployment, wait, |d| d.status.is_final()).await?,
        None => deployment,
    };
    Ok(match ended.status {
        Status::Succeeded => {
            (StatusCode::OK, Json(body_of(state, &ended, "Deployment completed successfully"))).into_response()
        }
        Status::Failed { .. } | Status::RolledBack | Status::Rejected { .. } => {
            (StatusCode::OK, Json(body_of(state, &ended, "Deployment did not succeed"))).into_response()
        }
        Status::Queued | Status::Running => {
            (StatusCode::ACCEPTED, Json(body_of(state, &ended, "Deployment queued"))).into_response()
        }
    })
}

fn body_of(state: &WebhookState, deployment: &Deployment, message: &str) -> Value {
    let id = deployment.id;
    let mut body = json!({
        "success": match deployment.status {
            Status::Queued | Status::Running | Status::Succeeded => true,
            Status::Failed { .. } | Status::RolledBack | Status::Rejected { .. } => false,
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
