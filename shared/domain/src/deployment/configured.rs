//! Where a deployment's configuration came from.

use serde::{Deserialize, Serialize};

use crate::{id::EnvironmentId, variable::VariableKey};

/// The environment whose variables a deployment got, by its name of then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeployedIn {
    pub env_id: EnvironmentId,
    pub name: String,
}

/// What a configuration was made from, so that it can be told whether it would come out otherwise now. The three texts are
/// hashes over settings that are no secret, and over names and revisions: no value can be guessed from them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sources {
    /// Of what the application says of its containers.
    pub settings: String,
    /// Of the stored variables that were used, by scope, key and revision.
    pub variables: String,
    /// Of the secrets that those refer to, by id and version.
    pub secrets: String,
    /// What the request said itself, and what therefore hides stored variables.
    pub request: Vec<VariableKey>,
    /// Variables of the environment that are hidden, and were used because others refer to them by `{{env.NAME}}`. What
    /// those are follows from the others: as long as these are the same, so are they.
    pub environment: Vec<VariableKey>,
}
