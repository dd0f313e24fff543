//! The tenant's queue: how many deployments live, and how many may.

use axum::{Json, extract::State};
use serde::Serialize;
use tidegate_domain::settings::QueueSettings;
use tidegate_web::{Problem, auth::Read};

use crate::{AdminState, call::Call};

#[derive(Serialize)]
pub(crate) struct View {
    /// Deployments that have begun and not ended, or wait for their turn.
    length: usize,
    #[serde(flatten)]
    settings: QueueSettings,
}

pub(crate) async fn show(State(state): State<AdminState>, call: Call<Read>) -> Result<Json<View>, Problem> {
    let (length, settings) =
        tokio::try_join!(state.store.queue_length(call.tenant()), state.store.settings(call.tenant()))?;
    Ok(Json(View { length, settings: settings.queue }))
}
