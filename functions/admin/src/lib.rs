//! The administration API: what is registered, who signs in, what was deployed.
//!
//! One module a resource. [`router`] holds the routes alone, so that the local stack can merge them with other functions';
//! `tidegate_web::layer::complete` is applied afterwards.

mod application_form;
mod application_view;
mod applications;
mod approvals;
mod call;
mod container_form;
mod data_keys;
mod deploying;
mod deployments;
mod environment_form;
mod environment_variables;
mod environment_view;
mod environments;
mod health;
mod host_ports;
mod host_view;
mod hosts;
pub mod issuer;
mod logs;
mod masked;
mod metrics_summary;
mod operations;
mod parameter_form;
mod preview;
mod projects;
mod prune;
mod queue;
mod refusal;
mod registries;
mod releases;
mod rollback;
mod secret_groups;
mod secret_import;
mod secret_provider_form;
mod secret_providers;
mod secret_syncs;
mod secret_versions;
mod secrets;
mod settings;
pub mod sign_in;
mod variable_files;
mod variable_reveal;
mod variable_scope;
mod variables;
mod watch;
mod webhook_token;

use std::sync::Arc;

use axum::{
    Router,
    extract::FromRef,
    routing::{get, post, put},
};
use tidegate_aws::{clock, store::Store};
use tidegate_gate::Gate;
use tidegate_providers::Syncer;
use tidegate_web::auth::Verifier;

use crate::{health::LastCheck, issuer::LocalIssuer};

/// What every handler can reach. Clones share everything.
#[derive(Clone)]
pub struct AdminState {
    store: Store,
    gate: Gate,
    verifier: Verifier,
    issuer: Option<Arc<LocalIssuer>>,
    syncer: Syncer,
    last_check: Arc<LastCheck>,
}

impl AdminState {
    /// `issuer` only where people sign in here and not at Cognito: on the local stack.
    pub fn new(store: Store, verifier: Verifier, issuer: Option<Arc<LocalIssuer>>) -> Self {
        let (gate, syncer) = (Gate::new(store.clone()), Syncer::new(store.clone(), clock::now));
        Self { gate, store, verifier, issuer, syncer, last_check: Arc::default() }
    }
}

impl FromRef<AdminState> for Store {
    fn from_ref(state: &AdminState) -> Self {
        state.store.clone()
    }
}

impl FromRef<AdminState> for Verifier {
    fn from_ref(state: &AdminState) -> Self {
        state.verifier.clone()
    }
}

/// All routes of the administration.
pub fn router(state: AdminState) -> Router {
    let mut api = Router::new()
        .route("/projects", get(projects::list).post(projects::create))
        .route("/projects/{id}", get(projects::show).put(projects::change).delete(projects::delete))
        .route("/registries", get(registries::list).post(registries::create))
        .route("/registries/{id}", get(registries::show).put(registries::change).delete(registries::delete))
        .route("/secret-groups", get(secret_groups::list).post(secret_groups::create))
        .route("/secret-groups/{id}", get(secret_groups::show).put(secret_groups::change).delete(secret_groups::delete))
        .route("/secret-groups/{id}/import", post(secret_import::import))
        .route("/secret-providers", get(secret_providers::list).post(secret_providers::create))
        .route(
            "/secret-providers/{id}",
            get(secret_providers::show).put(secret_providers::change).delete(secret_providers::delete),
        )
        .route("/secret-providers/{id}/test", post(secret_syncs::test))
        .route("/secret-providers/{id}/sync", post(secret_syncs::sync))
        .route("/secret-providers/{id}/syncs", get(secret_syncs::list))
        .route("/secrets", get(secrets::list).post(secrets::create))
        .route("/secrets/{id}", get(secrets::show).put(secrets::change).delete(secrets::delete))
        .route("/secrets/{id}/reveal", post(secret_versions::reveal))
        .route("/secrets/{id}/used-by", get(secret_versions::used_by))
        .route("/secrets/{id}/versions", get(secret_versions::list))
        .route("/secrets/{id}/versions/{version}/restore", post(secret_versions::restore))
        .route("/environments", get(environments::list).post(environments::create))
        .route("/environments/active", get(environments::active))
        .route("/environments/{id}", get(environments::show).put(environments::change).delete(environments::delete))
        .route("/environments/{id}/activate", post(environments::activate))
        .route("/environments/{id}/restore", post(environments::restore))
        .route("/environments/{id}/clone", post(environments::clone))
        .route("/environments/{id}/variables", get(environment_variables::list).post(environment_variables::create))
        .route(
            "/environments/{id}/variables/{key}",
            get(environment_variables::show).put(environment_variables::set).delete(environment_variables::delete),
        )
        .route("/environments/{id}/variables/{key}/reveal", post(variable_reveal::reveal_in_environment))
        .route("/variables/import", post(variable_files::import))
        .route("/variables/export", get(variable_files::export))
        .route("/variables/{id}/reveal", post(variable_reveal::reveal))
        .route("/variables", get(variables::list).post(variables::create))
        .route("/variables/{id}", get(variables::show).put(variables::change).delete(variables::delete))
        .route("/applications", get(applications::list).post(applications::create))
        .route("/applications/{id}", get(applications::show).put(applications::change).delete(applications::delete))
        .route("/applications/{id}/webhook-token", post(webhook_token::rotate))
        .route("/applications/{id}/webhook", put(webhook_token::switch))
        .route("/applications/{id}/logs", get(logs::show))
        .route("/applications/{id}/prune", post(prune::prune))
        .route("/applications/{id}/releases", get(releases::list))
        .route("/applications/{id}/rollback", post(operations::rollback))
        .route("/applications/{id}/stop", post(operations::stop))
        .route("/applications/{id}/start", post(operations::start))
        .route("/applications/{id}/restart", post(operations::restart))
        .route("/applications/{id}/remove", post(operations::remove))
        .route("/applications/{id}/variables/preview", post(preview::preview))
        .route("/applications/{id}/deployments", post(deploying::deploy))
        .route("/applications/{id}/validate", post(deploying::validate))
        .route("/approvals", get(approvals::list))
        .route("/approvals/{id}", get(approvals::show))
        .route("/approvals/{id}/approve", post(approvals::approve))
        .route("/approvals/{id}/reject", post(approvals::reject))
        .route("/deployments", get(deployments::list))
        .route("/deployments/{id}", get(deployments::show))
        .route("/deployments/{id}/cancel", post(deployments::cancel))
        .route("/deployments/{id}/retry", post(deploying::retry))
        .route("/queue", get(queue::show))
        .route("/data-keys", get(data_keys::show))
        .route("/data-keys/rotate", post(data_keys::rotate))
        .route("/settings", get(settings::show).put(settings::change))
        .route("/metrics/summary", get(metrics_summary::show))
        .route("/hosts", get(hosts::list))
        .route("/hosts/{name}", get(hosts::show).put(hosts::change).delete(hosts::delete));
    let mut root = Router::new().route("/healthz", get(health::check));
    if state.issuer.is_some() {
        api = api.route("/auth/login", post(sign_in::login));
        root = root.route("/.well-known/jwks.json", get(sign_in::key_set));
    }
    root.nest("/api/v2", api).with_state(state)
}
