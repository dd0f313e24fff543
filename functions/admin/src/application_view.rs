//! An application as answers show it.

use jiff::Timestamp;
use serde::Serialize;
use tidegate_aws::{application_state::ApplicationState, catalogue::Stored, registered::RegisteredApplication};
use tidegate_domain::{
    application::{HealthCheck, HostSelector, Port, Rollout},
    approval::ApprovalPolicy,
    container::ContainerOptions,
    host::{Drift, Health, State},
    id::{ApplicationId, EnvironmentId, HostName, ProjectId, RegistryId},
    issue::IssueTrigger,
    limit::Limits,
    parameter::Parameter,
};

use crate::{call::Stamps, watch::Watch};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    id: u64,
    project_id: ProjectId,
    name: String,
    owner: String,
    image: String,
    registry_id: Option<RegistryId>,
    ports: Vec<Port>,
    hosts: HostSelector,
    env_id: Option<EnvironmentId>,
    version_pattern: Option<String>,
    parameters: Vec<Parameter>,
    health_check: Option<HealthCheck>,
    container: ContainerOptions,
    rollout: Rollout,
    adopt: bool,
    limits: Option<Limits>,
    approval: ApprovalPolicy,
    trusted_repositories: [String; 0],
    issue_trigger: Option<IssueTrigger>,
    webhook: Webhook,
    status: Status,
    #[serde(flatten)]
    stamps: Stamps,
    /// Only in the answer that creates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Webhook {
    enabled: bool,
    token_hint: String,
    last_used_at: Option<Timestamp>,
}

impl Webhook {
    pub(crate) fn of(body: &RegisteredApplication, state: &ApplicationState) -> Self {
        Self {
            enabled: body.application.webhook_enabled,
            token_hint: body.token_hint.clone(),
            last_used_at: state.token_last_used_at,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    /// `deploying`; `running` as deployments left it, or `down` where no host that should run it does; `stopped` on purpose;
    /// `removed`; `not-deployed`. What each host shows of it is in `hosts`.
    state: &'static str,
    version: Option<String>,
    digest: Option<String>,
    last_deployed_at: Option<Timestamp>,
    /// Whether a deployment now would be given another configuration; null before the first one.
    needs_redeploy: Option<bool>,
    hosts: Vec<HostStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostStatus {
    host: HostName,
    state: State,
    /// As deployed; null where nothing was left.
    version: Option<String>,
    /// Of the container that is there; of what was deployed, if it cannot be seen.
    digest: Option<String>,
    /// Null without a health check of the engine's own.
    health: Option<Health>,
    drift: Option<Drift>,
    restarts: Option<u64>,
    online: bool,
    last_seen_at: Option<Timestamp>,
}

fn state_word(state: &ApplicationState, seen: &[HostStatus]) -> &'static str {
    let is_down = |host: &HostName| {
        let state = seen.iter().find(|status| status.host == *host).map(|status| status.state);
        matches!(state, Some(State::Vanished | State::Stopped))
    };
    let mut to_run = state.hosts.iter().filter(|(_, host)| !host.stopped).map(|(name, _)| name).peekable();
    if state.active.is_some() {
        "deploying"
    } else if to_run.peek().is_some() {
        if to_run.all(is_down) { "down" } else { "running" }
    } else if !state.hosts.is_empty() {
        "stopped"
    } else if state.release().is_some() {
        "removed"
    } else {
        "not-deployed"
    }
}

fn status(
    id: ApplicationId,
    stored: &Stored<RegisteredApplication>,
    state: &ApplicationState,
    watch: &Watch,
    needs_redeploy: Option<bool>,
) -> Status {
    let release = state.release();
    let hosts = watch.standings(id, &stored.body.application, state).into_iter().map(|(host, standing)| {
        let left = state.hosts.get(host);
        let digest = standing.digest.or_else(|| left.map(|left| left.runs.digest.clone()));
        HostStatus {
            host: host.clone(),
            state: standing.state,
            version: left.map(|left| left.runs.version.to_string()),
            digest: digest.map(|digest| digest.to_string()),
            health: standing.health,
            drift: standing.drift,
            restarts: standing.restarts,
            online: watch.is_online(host),
            last_seen_at: watch.heartbeat(host).map(|heartbeat| heartbeat.at),
        }
    });
    let hosts: Vec<_> = hosts.collect();
    Status {
        state: state_word(state, &hosts),
        version: release.map(|r| r.version.to_string()),
        digest: release.map(|r| r.digest.to_string()),
        last_deployed_at: release.map(|r| r.at),
        needs_redeploy,
        hosts,
    }
}

/// `needs_redeploy` is none of what was never deployed.
pub(crate) fn view(
    stored: Stored<RegisteredApplication>,
    state: &ApplicationState,
    watch: &Watch,
    needs_redeploy: Option<bool>,
) -> View {
    let stamps = Stamps::from(&stored);
    let status = status(ApplicationId(stored.id), &stored, state, watch, needs_redeploy);
    let webhook = Webhook::of(&stored.body, state);
    let application = stored.body.application;
    View {
        id: stored.id,
        project_id: application.project_id,
        name: application.name.as_str().to_owned(),
        owner: application.owner,
        image: application.image.to_string(),
        registry_id: application.registry_id,
        ports: application.ports,
        hosts: application.hosts,
        env_id: application.env_id,
        version_pattern: application.version_pattern.map(|pattern| pattern.as_str().to_owned()),
        parameters: application.parameters,
        health_check: application.health_check,
        container: application.container,
        rollout: application.rollout,
        adopt: application.adopt,
        limits: application.limits,
        approval: application.approval,
        trusted_repositories: [],
        issue_trigger: application.issue_trigger.clone(),
        webhook,
        status,
        stamps,
        webhook_token: None,
    }
}

impl View {
    #[must_use]
    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.webhook_token = Some(token.to_owned());
        self
    }
}
