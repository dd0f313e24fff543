//! Outside sources of secrets, as far as decisions go: which there are, where in them one looks, and what is to become of
//! what clashes or goes.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

/// Which kinds of sources can be read. A further one is a variant here and a file in shared/providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderType {
    Infisical,
    AwsSecretsManager,
}

impl ProviderType {
    pub const ALL: [Self; 2] = [Self::Infisical, Self::AwsSecretsManager];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Infisical => "infisical",
            Self::AwsSecretsManager => "aws-secrets-manager",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        parse(text, &Self::ALL, Self::as_str, "is not a kind of source that can be read")
    }
}

/// What becomes of a secret that people wrote, when the source has one of the same name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Nothing of the group is synced, and the run says why.
    #[default]
    Fail,
    /// It is the source's from then on; its value before stays among its versions.
    Adopt,
}

impl OnConflict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Adopt => "adopt",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        parse(text, &[Self::Fail, Self::Adopt], Self::as_str, "is not a way to settle a conflict")
    }
}

/// What becomes of a secret that the source has no more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRemoved {
    /// It stays as it is, marked as stale.
    #[default]
    Retain,
    /// It is deleted, unless something refers to it or the listing looks wrong.
    Delete,
}

impl OnRemoved {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retain => "retain",
            Self::Delete => "delete",
        }
    }

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        parse(text, &[Self::Retain, Self::Delete], Self::as_str, "is not what can become of a removed secret")
    }
}

fn parse<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str, message: &str) -> Result<T, Invalid> {
    all.iter().copied().find(|one| name(*one) == text).ok_or_else(|| {
        let names: Vec<_> = all.iter().copied().map(name).collect();
        Invalid::new("unknown-value", message, format!("use one of {}", names.join(", ")))
    })
}

/// A folder of a source: `/`, `/prod`, `/prod/shop`. Only what stands right in it is meant, not what is in folders below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RemotePath(String);

const MAX_PATH_CHARS: usize = 500;

impl RemotePath {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refused = |message: &str| {
            Err(Invalid::new("format-path", message, "write the folder from the root, such as / or /prod/shop"))
        };
        if text.chars().count() > MAX_PATH_CHARS || text.chars().any(char::is_control) {
            return refused("has more than 500 characters, or a line break");
        }
        let Some(rest) = text.strip_prefix('/') else { return refused("does not begin with a slash") };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if text.contains("//") || !rest.is_empty() && rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refused("has an empty part, or one that means another folder");
        }
        Ok(Self(format!("/{rest}")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The other one, seen from this one.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        match (self.0.as_str(), below.0.as_str()) {
            (_, "/") => self.clone(),
            ("/", _) => below.clone(),
            (above, below) => Self(format!("{above}{below}")),
        }
    }

    /// What stands in it under this name.
    pub fn entry(&self, name: &str) -> String {
        if self.0 == "/" { format!("/{name}") } else { format!("{}/{name}", self.0) }
    }
}

impl Default for RemotePath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RemotePath {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<RemotePath> for String {
    fn from(path: RemotePath) -> String {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_folder_in_one_form() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(RemotePath::parse(text).ok().as_ref().map(RemotePath::as_str), expect, "{text}");
        };
        check("/", Some("/"));
        check("/prod", Some("/prod"));
        check("/prod/", Some("/prod"));
        check("/prod/my shop", Some("/prod/my shop"));
        check("", None);
        check("prod", None);
        check("//", None);
        check("/a//b", None);
        check("/a/../b", None);
        check("/.", None);
        check("/a\nb", None);
        check(&format!("/{}", "a".repeat(500)), None);
    }

    #[test]
    fn a_groups_folder_is_seen_from_the_providers() {
        let check = |above: &str, below: &str, expect: &str| {
            let joined = RemotePath::parse(above).unwrap().join(&RemotePath::parse(below).unwrap());
            assert_eq!(joined.as_str(), expect);
        };
        check("/", "/", "/");
        check("/prod", "/", "/prod");
        check("/", "/db", "/db");
        check("/prod", "/db", "/prod/db");
        assert_eq!(RemotePath::default().entry("A"), "/A");
        assert_eq!(RemotePath::parse("/prod").unwrap().entry("A"), "/prod/A");
    }

    #[test]
    fn names_of_kinds_are_read_back() {
        for kind in ProviderType::ALL {
            assert_eq!(ProviderType::parse(kind.as_str()), Ok(kind));
        }
        assert_eq!(ProviderType::parse("vault").unwrap_err().code, "unknown-value");
        assert_eq!(OnConflict::parse("adopt"), Ok(OnConflict::Adopt));
        assert_eq!(OnRemoved::parse("delete"), Ok(OnRemoved::Delete));
        assert!(OnRemoved::parse("").is_err());
    }
}
