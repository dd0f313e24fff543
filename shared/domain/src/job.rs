//! What a worker is to do, in full: the content of a sealed assignment.

use serde::{Deserialize, Serialize};

use crate::{
    application::{ContainerName, HealthCheck, Port, Strategy},
    approval::Approved,
    container::ContainerOptions,
    id::{ApplicationId, DeploymentId, Sequence},
    image::{Digest, ImageName, RegistryServer, Version},
    invalid::Invalid,
    secret::{Secret, in_sealed_form},
    variable::VariableKey,
};

/// Everything a host needs to run one version of one application.
///
/// It is serialised only to be encrypted: as the deployment's snapshot under the functions' key, and as one host's
/// assignment under that host's key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Whose assignment it is.
    pub deployment_id: DeploymentId,
    /// The deployment whose configuration and image this is: another one where a host goes back to what ran before.
    pub release: DeploymentId,
    /// What is to be done with the application's container.
    #[serde(default)]
    pub action: Action,
    pub application_id: ApplicationId,
    pub sequence: Sequence,
    pub name: ContainerName,
    pub image: ImageName,
    pub version: Version,
    /// Pinned by the first host of the deployment, so that a tag which moves meanwhile changes nothing.
    pub digest: Option<Digest>,
    pub credentials: Option<Credentials>,
    pub ports: Vec<Port>,
    pub variables: Vec<JobVariable>,
    pub health_check: Option<HealthCheck>,
    pub container: ContainerOptions,
    pub strategy: Strategy,
    /// After the switch the new version is watched so long, and the former one comes back if it fails meanwhile.
    #[serde(default)]
    pub bake_seconds: u32,
    /// A container of the application's name that is not ours may be replaced.
    #[serde(default)]
    pub adopt: bool,
    /// Of a way back to what a person had stopped: the container is made, and not started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// Of a deployment that somebody had to decide on: what the decision covers. Of no other work order, not even one that
    /// returns to it.
    #[serde(default)]
    pub approved: Option<Approved>,
}

/// What a work order does with an application's container on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Puts a version in the place of the one that runs.
    #[default]
    Deploy,
    /// Stops the container and leaves it there.
    Stop,
    /// Starts the container that is there, and checks it.
    Start,
    /// Stops and starts the container that is there, and checks it.
    Restart,
    /// Removes every container of the application from the host; named volumes stay.
    Remove,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
            Self::Remove => "remove",
        }
    }
}

/// Most bytes of a serialised job: sealed and as text it is a third larger, and an item holds 400 KB.
pub const MAX_JOB_BYTES: usize = 256 * 1024;
/// Most bytes of the jobs of one wave and the snapshot together: a transaction holds 4 MB.
pub const MAX_WAVE_BYTES: usize = 2_800 * 1024;

impl Job {
    /// Why it cannot be written for so many hosts at a time: it must fit into an item, and a wave of it into a
    /// transaction. Escapes count: a line break takes two bytes.
    pub fn oversize(&self, max_parallel: u32) -> Option<Invalid> {
        let bytes = serde_json::to_vec(self).map_or(usize::MAX, |plain| zeroize::Zeroizing::new(plain).len());
        let copies = 1 + usize::try_from(max_parallel).unwrap_or(usize::MAX - 1);
        if bytes <= MAX_JOB_BYTES && bytes.saturating_mul(copies) <= MAX_WAVE_BYTES {
            return None;
        }
        let message = format!("with everything else take {bytes} bytes for each of {max_parallel} hosts at a time");
        let suggestion = format!(
            "stay within {MAX_JOB_BYTES} bytes a host and {MAX_WAVE_BYTES} for all at a time: shorten values, or lower maxParallel"
        );
        Some(Invalid::new("too-many-variables", message, suggestion))
    }

    /// What must not show in any log line or error of this job.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        let variables = self.variables.iter().filter(|v| v.is_secret).map(|v| v.value.expose().as_str());
        let password = self.credentials.iter().map(|c| c.password.expose().as_str());
        variables.chain(password)
    }
}

/// For one registry, and never sent to another.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    pub server: RegistryServer,
    pub username: String,
    /// Or token.
    #[serde(with = "in_sealed_form")]
    pub password: Secret<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobVariable {
    pub key: VariableKey,
    #[serde(with = "in_sealed_form")]
    pub value: Secret<String>,
    pub is_secret: bool,
}
