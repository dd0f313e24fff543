//! An application as answers show it.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tidegate_aws::{applications::ApplicationState, catalogue::Stored, registered::RegisteredApplication};
use tidegate_domain::{
    application::{Application, ContainerOptions, HealthCheck, HostSelector, Port},
    id::{HostName, ProjectId, RegistryId},
    parameter::Parameter,
};

use crate::call::Stamps;

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
    env_id: Option<String>,
    version_pattern: Option<String>,
    parameters: Vec<Parameter>,
    health_check: Option<HealthCheck>,
    container: ContainerOptions,
    rollout: Map<String, Value>,
    approval: Value,
    trusted_repositories: [String; 0],
    issue_trigger: Option<String>,
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
    /// `deploying`, `running`, or `not-deployed`.
    state: &'static str,
    version: Option<String>,
    digest: Option<String>,
    last_deployed_at: Option<Timestamp>,
    /// Whether the configuration has changed since; null before the first deployment.
    needs_redeploy: Option<bool>,
    hosts: Vec<HostStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HostStatus {
    host: HostName,
    state: &'static str,
    version: String,
    digest: String,
    /// Not watched between deployments.
    health: Option<&'static str>,
    drift: Option<&'static str>,
}

fn status(updated_at: Timestamp, state: &ApplicationState) -> Status {
    let word = match (&state.active, &state.release) {
        (Some(_), _) => "deploying",
        (None, Some(_)) if state.hosts.is_empty() => "stopped",
        (None, Some(_)) => "running",
        (None, None) => "not-deployed",
    };
    let release = state.release.as_ref();
    let hosts = state.hosts.iter().map(|(host, runs)| HostStatus {
        host: host.clone(),
        state: "running",
        version: runs.version.to_string(),
        digest: runs.digest.to_string(),
        health: None,
        drift: None,
    });
    Status {
        state: word,
        version: release.map(|r| r.version.to_string()),
        digest: release.map(|r| r.digest.to_string()),
        last_deployed_at: release.map(|r| r.at),
        needs_redeploy: release.map(|r| updated_at > r.at),
        hosts: hosts.collect(),
    }
}

fn rollout(application: &Application) -> Map<String, Value> {
    let mut rollout = match serde_json::to_value(&application.rollout) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) | Err(_) => Map::new(),
    };
    // What this release does always, and a later one lets choose.
    rollout.insert("rollbackOnFailure".to_owned(), true.into());
    rollout.insert("bakeSeconds".to_owned(), 0.into());
    rollout.insert("concurrency".to_owned(), "queue".into());
    rollout
}

pub(crate) fn view(stored: Stored<RegisteredApplication>, state: &ApplicationState) -> View {
    let stamps = Stamps::from(&stored);
    let webhook = Webhook::of(&stored.body, state);
    let application = stored.body.application;
    View {
        id: stored.id,
        rollout: rollout(&application),
        project_id: application.project_id,
        name: application.name.as_str().to_owned(),
        owner: application.owner,
        image: application.image.to_string(),
        registry_id: application.registry_id,
        ports: application.ports,
        hosts: application.hosts,
        env_id: None,
        version_pattern: application.version_pattern.map(String::from),
        parameters: application.parameters,
        health_check: application.health_check,
        container: application.container,
        approval: json!({"required": false, "requireOtherApprover": false}),
        trusted_repositories: [],
        issue_trigger: None,
        webhook,
        status: status(stored.updated_at, state),
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
