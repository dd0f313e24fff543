//! What a worker is to do, in full: the content of a sealed assignment.

use serde::{Deserialize, Serialize};

use crate::{
    application::{ContainerName, ContainerOptions, HealthCheck, Port, Strategy},
    id::{ApplicationId, DeploymentId, Sequence},
    image::{Digest, ImageName, RegistryServer, Version},
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
    pub deployment_id: DeploymentId,
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
}

/// Most bytes of a serialised job: sealed and as text it is a third larger, and an item holds 400 KB.
pub const MAX_JOB_BYTES: usize = 256 * 1024;
/// Most bytes of the jobs of one wave and the snapshot together: a transaction holds 4 MB.
pub const MAX_WAVE_BYTES: usize = 2_800 * 1024;

impl Job {
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
