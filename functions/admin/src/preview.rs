//! The variables that a deployment would get now, and where each came from.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;
use serde_json::Value;
use tidegate_domain::{
    deployment::DeployedIn,
    id::ApplicationId,
    invalid::FieldError,
    secret::MASK,
    variable::{Entry, Origin, VariableKey},
};
use tidegate_gate::{Preview, Previewed};
use tidegate_web::{Problem, auth::Read, body::OptionalJsonBody, form::Form};

use crate::{
    AdminState,
    applications::{WHAT, find},
    call::{Call, missing},
};

#[derive(Serialize)]
pub(crate) struct View {
    environment: Option<DeployedIn>,
    data: Vec<VariableView>,
    errors: Vec<ErrorView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VariableView {
    key: VariableKey,
    /// Null where it is at fault, or where it refers to what is.
    value: Option<String>,
    is_secret: bool,
    origin: &'static str,
    overrides: Vec<&'static str>,
    references: Vec<String>,
}

/// As in problem documents.
#[derive(Serialize)]
struct ErrorView {
    field: String,
    code: &'static str,
    message: String,
    suggestion: String,
}

impl From<Previewed> for VariableView {
    fn from(previewed: Previewed) -> Self {
        let Previewed { entry: Entry { key, origin, is_secret, references, value }, overrides } = previewed;
        let shown = |value: &str| if is_secret { MASK.to_owned() } else { value.to_owned() };
        Self {
            key,
            value: value.map(|value| shown(value.expose())),
            is_secret,
            origin: origin.name(),
            overrides: overrides.into_iter().map(Origin::name).collect(),
            references: references.iter().map(ToString::to_string).collect(),
        }
    }
}

impl From<FieldError> for ErrorView {
    fn from(error: FieldError) -> Self {
        let FieldError { field, invalid } = error;
        Self { field, code: invalid.code, message: invalid.message, suggestion: invalid.suggestion }
    }
}

/// `{"variables"}`: what a request would say.
pub(crate) async fn preview(
    State(state): State<AdminState>,
    call: Call<Read>,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Json<View>, Problem> {
    let mut form = Form::of_body(body.with_written("variables").value)?;
    let given = form.defaulted("variables", BTreeMap::new(), Ok::<BTreeMap<String, Value>, _>);
    let given = form.finish(|| Some(given))?;
    let application = find(&state, call.tenant(), &id).await?;
    let of = (ApplicationId(application.id), application.body.application.project_id);
    let preview = state.gate.preview(call.tenant(), of, &given).await.map_err(missing(WHAT))?;
    let Preview { environment, variables, faults } = preview;
    Ok(Json(View {
        environment,
        data: variables.into_iter().map(VariableView::from).collect(),
        errors: faults.into_iter().map(ErrorView::from).collect(),
    }))
}
