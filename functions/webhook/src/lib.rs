//! What CI calls: deploy, and ask how it went.

mod call;
mod github;
mod secret_provider;
mod status;

use std::sync::Arc;

use axum::{
    Router,
    http::Uri,
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use tidegate_aws::store::Store;
use tidegate_gate::Gate;
use tidegate_web::Problem;
use tokio::sync::Semaphore;

/// So many callers of one process may wait at a time; the others get their answer at once.
const WAITING_CALLERS: usize = 16;

#[derive(Debug, Clone)]
pub struct WebhookState {
    pub store: Store,
    pub gate: Gate,
    /// For `statusUrl`, without a slash at the end.
    pub public_url: String,
    waiting: Arc<Semaphore>,
}

impl WebhookState {
    pub fn new(store: Store, public_url: &str) -> Self {
        let public_url = public_url.trim_end_matches('/').to_owned();
        Self { gate: Gate::new(store.clone()), store, public_url, waiting: Arc::new(Semaphore::new(WAITING_CALLERS)) }
    }
}

/// To be merged with others' routes, or completed by itself, with [`tidegate_web::layer::complete`].
pub fn routes(state: WebhookState) -> Router {
    Router::new()
        .route("/webhook/deploy", post(call::deploy))
        .route("/webhook/validate", post(call::validate))
        .route("/webhook/deployments/{id}", get(status::status))
        .route("/webhook/github", post(github::deliver))
        .route("/webhook/secret-providers/{id}", post(secret_provider::deliver))
        .route("/deploy", any(gone))
        .with_state(state)
}

/// The first version's call, with one secret for all applications.
async fn gone(_: Uri) -> Response {
    Problem::gone(
        "POST /deploy took any image under one shared secret. Register the application, then call POST /webhook/deploy with \
         {\"applicationId\", \"version\", \"token\"}: the application's own token, shown when it was registered.",
    )
    .into_response()
}
