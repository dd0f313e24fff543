//! An application's webhook: a new token, and whether it works at all.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tidegate_aws::{
    applications::Rotation, catalogue::Replay, idempotency::FirstAnswer, random, registered::RegisteredApplication,
};
use tidegate_domain::{
    id::ApplicationId,
    token::{Token, TokenKind},
};
use tidegate_web::{
    Problem,
    auth::Write,
    body::{JsonBody, OptionalJsonBody},
    conditional::Conditions,
    form::{Form, within},
    idempotency::{self, IdempotencyKey},
};

use crate::{
    AdminState,
    application_view::Webhook,
    applications::{WHAT, find},
    call::{Call, Race, answer_change, first_answer, missing},
};

/// Longest time in which the token before still works.
const MAX_OVERLAP_SECONDS: u32 = 7 * 24 * 3600;

/// Shown once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rotated {
    webhook_token: String,
    previous_valid_until: Option<Timestamp>,
}

pub(crate) async fn rotate(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    key: IdempotencyKey,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    let mut form = Form::of_body(body.value)?;
    let overlap = form.defaulted("overlapSeconds", 0, within(0, MAX_OVERLAP_SECONDS));
    let overlap = form.finish(|| Some(SignedDuration::from_secs(i64::from(overlap))))?;
    let until = (overlap > SignedDuration::ZERO).then(|| call.now + overlap);
    let token = Token::from_random(TokenKind::Webhook, &random::bytes());
    let rotated = Rotated { webhook_token: token.expose().to_owned(), previous_valid_until: until };
    let answer = FirstAnswer { status: StatusCode::OK.as_u16(), ..first_answer(&rotated) };
    let mut race = Race::new(&conditions);
    loop {
        // Within the loop: the same request may have been first, which is one way of losing the race.
        if let Some(key) = &key
            && let Some(first) = state.store.first_answer(call.tenant(), key, call.now).await?
        {
            return Ok(idempotency::replay(&first));
        }
        let old = find(&state, call.tenant(), &id).await?;
        conditions.allow_change(old.revision)?;
        let event = call.event("application.token-rotated", format!("application/{}", old.id));
        let replay = key.as_ref().map(|key| Replay { key, answer: &answer });
        let rotation = Rotation { token: &token, overlap_until: until, replay };
        match state.store.rotate_token(call.tenant(), &old, rotation, call.now, &event).await {
            Ok(_) => return Ok(Json(rotated).into_response()),
            Err(error) => race.lost(error).await?,
        }
    }
}

pub(crate) async fn switch(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let mut form = Form::of_body(body.value)?;
    let enabled = form.required("enabled", None, Ok);
    let enabled: bool = form.finish(|| enabled)?;
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, call.tenant(), &id).await?;
        conditions.allow_change(old.revision)?;
        let mut new: RegisteredApplication = old.body.clone();
        new.application.webhook_enabled = enabled;
        let action = if enabled { "application.webhook-enabled" } else { "application.webhook-disabled" };
        let event = call.event(action, format!("application/{}", old.id));
        match state.store.replace(call.tenant(), &old, new, call.now, &event).await {
            Ok(stored) => {
                let current = state.store.application_state(call.tenant(), ApplicationId(stored.id)).await;
                let current = current.map_err(missing(WHAT))?;
                return Ok(answer_change(stored.revision, Webhook::of(&stored.body, &current)));
            }
            Err(error) => race.lost(error).await?,
        }
    }
}
