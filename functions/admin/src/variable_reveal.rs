//! The value of one variable, for those who may see it.

use axum::{
    Json,
    extract::{Path, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tidegate_domain::{
    variable::{Scope, ValueType, VariableKey},
    variable_id::VariableId,
};
use tidegate_web::{Problem, auth::Reveal, body::OptionalJsonBody, form::Form};

use crate::{
    AdminState,
    call::{Call, missing},
    environments::path_env_id,
    variables::{WHAT, path_id},
};

/// An answer that holds a value that may be a secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Revealed<'a> {
    id: String,
    key: &'a VariableKey,
    /// As it is stored; of a reference, the secret's.
    value: &'a str,
    value_type: ValueType,
    secret_id: Option<u64>,
    is_secret: bool,
}

pub(crate) async fn reveal(
    State(state): State<AdminState>,
    call: Call<Reveal>,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    Form::of_body(body.value)?.finish(|| Some(()))?;
    answer(&state, &call, &path_id(&id)?).await
}

pub(crate) async fn reveal_in_environment(
    State(state): State<AdminState>,
    call: Call<Reveal>,
    Path((id, key)): Path<(String, String)>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    Form::of_body(body.value)?.finish(|| Some(()))?;
    let key = VariableKey::parse(&key).map_err(|_| Problem::not_found(WHAT))?;
    answer(&state, &call, &VariableId::new(Scope::Environment(path_env_id(&id)?), &key)).await
}

async fn answer(state: &AdminState, call: &Call<Reveal>, id: &VariableId) -> Result<Response, Problem> {
    let event = |action: &str, subject: String| call.event(action, subject);
    let revealed = state.store.reveal_variable(call.tenant(), id, call.now, event).await;
    let (variable, value) = revealed.map_err(missing(WHAT))?;
    let revealed = Revealed {
        id: id.to_string(),
        key: &variable.key,
        value: value.expose(),
        value_type: variable.value_type,
        secret_id: variable.secret_id().map(|id| id.0),
        is_secret: variable.is_secret(),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(revealed)).into_response())
}
