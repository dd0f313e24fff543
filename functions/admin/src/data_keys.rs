//! The rotation of the data keys that secrets are encrypted with.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::{
    data_keys::{AnswerOf, Rotation, RotationState, Started},
    idempotency::FirstAnswer,
};
use tidegate_web::{
    Problem,
    auth::Administer,
    body::OptionalJsonBody,
    form::Form,
    idempotency::{self, IdempotencyKey},
};

use crate::{
    AdminState,
    call::{Call, first_answer},
};

/// The last rotation; null where there was none.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    state: Option<&'static str>,
    started_at: Option<Timestamp>,
    started_by: Option<String>,
    finished_at: Option<Timestamp>,
    looked_at: u64,
    reencrypted: u64,
    unreadable: u64,
    /// Null where nobody has looked: before the first rotation, and while one runs.
    data_keys_in_use: Option<u64>,
}

impl From<&Rotation> for View {
    fn from(rotation: &Rotation) -> Self {
        let state = match rotation.state {
            RotationState::Running => "running",
            RotationState::Succeeded => "succeeded",
            RotationState::Failed => "failed",
        };
        Self {
            state: Some(state),
            started_at: Some(rotation.started_at),
            started_by: Some(rotation.started_by.clone()),
            finished_at: rotation.finished_at,
            looked_at: rotation.looked_at,
            reencrypted: rotation.reencrypted,
            unreadable: rotation.unreadable,
            data_keys_in_use: rotation.keys_in_use(),
        }
    }
}

pub(crate) async fn show(State(state): State<AdminState>, call: Call<Administer>) -> Result<Json<View>, Problem> {
    let rotation = state.store.rotation(call.tenant()).await?;
    Ok(Json(rotation.as_ref().map(View::from).unwrap_or_default()))
}

fn answer(rotation: &Rotation) -> FirstAnswer {
    FirstAnswer { status: StatusCode::ACCEPTED.as_u16(), ..first_answer(&View::from(rotation)) }
}

/// 202 with the job; the sweep does it.
pub(crate) async fn rotate(
    State(state): State<AdminState>,
    call: Call<Administer>,
    key: IdempotencyKey,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    if let Some(key) = &key
        && let Some(first) = store.first_answer(tenant, key, call.now).await?
    {
        return Ok(idempotency::replay(&first));
    }
    Form::of_body(body.value)?.finish(|| Some(()))?;
    let event = call.event("data-keys.rotation-started", "data-keys".to_owned());
    let replay = key.as_ref().map(|key| (key, answer as AnswerOf));
    match store.rotate_data_keys(tenant, replay, call.now, &event).await? {
        Started::Now(rotation) => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            Ok((StatusCode::ACCEPTED, json, answer(&rotation).body.expose().clone()).into_response())
        }
        Started::Before(first) => Ok(idempotency::replay(&first)),
        Started::Running => Err(Problem::conflict(
            "A rotation runs already; GET /data-keys says how far it is. Repeat the request when it has ended.",
        )),
    }
}
