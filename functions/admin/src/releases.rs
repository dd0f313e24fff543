//! What an application can return to.

use axum::{
    Json,
    extract::{Path, State},
};
use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::application_state::Release;
use tidegate_domain::{
    id::{ApplicationId, DeploymentId, HostName},
    image::Digest,
};
use tidegate_web::{Problem, auth::Read, page::Page};

use crate::{
    AdminState,
    applications::{WHAT, find},
    call::{Call, missing},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReleaseView {
    deployment_id: DeploymentId,
    sequence: u64,
    version: String,
    digest: Digest,
    released_at: Timestamp,
    /// Where it runs.
    hosts: Vec<HostName>,
}

/// What can be returned to, newest first.
pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    Path(id): Path<String>,
) -> Result<Json<Page<ReleaseView>>, Problem> {
    let application = find(&state, call.tenant(), &id).await?;
    let current = state.store.application_state(call.tenant(), ApplicationId(application.id)).await;
    let current = current.map_err(missing(WHAT))?;
    let view = |release: &Release| ReleaseView {
        deployment_id: release.deployment_id,
        sequence: release.sequence.0,
        version: release.version.to_string(),
        digest: release.digest.clone(),
        released_at: release.at,
        hosts: current
            .hosts
            .iter()
            .filter(|(_, host)| host.runs.release == release.deployment_id)
            .map(|(name, _)| name.clone())
            .collect(),
    };
    Ok(Json(Page { data: current.releases.iter().map(view).collect(), next_cursor: None }))
}
