//! Names of things. Each is a type of its own, so that two of them are never mixed up.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::invalid::Invalid;

macro_rules! integer_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<u64> for $name {
            fn from(id: u64) -> Self {
                Self(id)
            }
        }
    )+};
}

integer_ids! {
    /// Unique per installation.
    ProjectId,
    /// Unique per installation; the seed's `applicationId`.
    ApplicationId,
    /// Unique per installation.
    RegistryId,
    /// Unique per installation.
    SecretGroupId,
    /// Unique per installation; what `@secret:12` names.
    SecretId,
    /// Unique per installation.
    SecretProviderId,
    /// Order of the deployments of one application, from 1; assigned on entering `queued`.
    Sequence,
    /// Raised whenever an assignment changes hands; a holder with an older one has lost it.
    Epoch,
    /// Counts the changes of a stored thing, from 1; the `ETag` of the API.
    Revision,
}

impl Epoch {
    #[must_use]
    pub fn next(self) -> Self {
        // A host that writes the largest there is spoils its own assignment, and nothing else.
        Self(self.0.saturating_add(1))
    }
}

/// Unique per installation; written `env-12`, the form of the seed's `envId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnvironmentId(pub u64);

impl EnvironmentId {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let digits = text.strip_prefix("env-").filter(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
        // One form for one environment: `env-012` is none.
        digits.and_then(|rest| rest.parse().ok()).map(Self).filter(|id| id.to_string() == text).ok_or_else(|| {
            Invalid::new(
                "format-id",
                "is not an environment's id",
                "use the envId of an earlier answer, such as env-12",
            )
        })
    }
}

impl fmt::Display for EnvironmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "env-{}", self.0)
    }
}

impl TryFrom<String> for EnvironmentId {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<EnvironmentId> for String {
    fn from(id: EnvironmentId) -> String {
        id.to_string()
    }
}

/// Owner of everything below; data never crosses tenants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(String);

/// A machine with Docker, as registered in its tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Lower-case letters, digits and inner hyphens, at most 32: both names become parts of queue names, table keys and
/// IAM conditions, where anything else would need escaping.
fn parse_label(text: &str) -> Result<String, Invalid> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 32 || !text.chars().all(inner) || text.starts_with('-') || text.ends_with('-') {
        return Err(Invalid::new(
            "format-name",
            "is not a valid name",
            "use 1 to 32 lower-case letters, digits and inner hyphens",
        ));
    }
    Ok(text.to_owned())
}

macro_rules! labels {
    ($($name:ident),+) => {$(
        impl $name {
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                parse_label(text).map(Self)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;
            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::parse(&text)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    )+};
}

labels!(TenantId, HostName);

/// `UUIDv7`: unique without a look-up, and in order of creation, which the table's sort keys rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentId(Uuid);

impl DeploymentId {
    /// The id of a deployment created at `now`; `random` decides what the clock leaves open.
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Uuid::try_parse(text).map(Self).map_err(|_| {
            Invalid::new("format-id", "is not a deployment id", "use the deploymentId of an earlier answer")
        })
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_deployments_sort_by_time() {
        let at = |second| DeploymentId::new(Timestamp::from_second(second).unwrap(), [7; 10]).to_string();
        assert!(at(1_000) < at(1_001));
        assert_eq!(DeploymentId::parse(&at(5)).unwrap().to_string(), at(5));
    }

    #[test]
    fn a_name_can_be_part_of_a_key() {
        for (text, valid) in [
            ("local", true),
            ("web-1", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("a#b", false),
            ("ä", false),
        ] {
            assert_eq!(HostName::parse(text).is_ok(), valid, "{text}");
        }
    }
}
