//! GitHub issues as a trigger: which issues may ask for what, and what is said on them.
//!
//! Everything that comes from an issue is written by somebody who may be anybody. [`form`] reads a body, [`command`] a
//! comment, and [`comment`] writes ours, in which nothing that others wrote is markup.

pub mod command;
pub mod comment;
pub mod form;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

/// What issues of an application's repository may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssueTrigger {
    pub repository: Repository,
    /// Only issues that carry this label ask for a deployment; compared as GitHub does, without regard to case.
    pub label: Label,
    /// Who may ask.
    #[serde(default)]
    pub allow: Allow,
    /// The form's field that holds the version.
    #[serde(default = "tag")]
    pub version_field: String,
}

/// The version's field, and the only one that a sanitised issue keeps.
pub const VERSION_FIELD: &str = "tag";

fn tag() -> String {
    VERSION_FIELD.to_owned()
}

/// The name of a form's field that holds the version: 1 to 64 letters, digits, `_` and `-`, starting with a letter.
pub fn version_field(text: &str) -> Result<String, Invalid> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if first && rest && text.len() <= 64 {
        return Ok(text.to_owned());
    }
    Err(Invalid::new(
        "format-key",
        "cannot be the name of a form's field",
        "use 1 to 64 letters, digits, '_' and '-', starting with a letter",
    ))
}

/// Whose issues count, by what the repository's owner has given them there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allow {
    /// Who has `admin`.
    Owner,
    /// Who may push: `write`, `maintain` or `admin`.
    #[default]
    Write,
    /// Whoever can open an issue.
    Anyone,
}

impl Allow {
    /// Whether somebody with this role may ask.
    pub fn admits(self, role: RepositoryRole) -> bool {
        match self {
            Self::Owner => role >= RepositoryRole::Admin,
            Self::Write => role >= RepositoryRole::Write,
            Self::Anyone => true,
        }
    }
}

/// What a person may do in a repository, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepositoryRole {
    /// Nothing, or no more than anybody.
    None,
    Read,
    Triage,
    Write,
    Maintain,
    Admin,
}

impl RepositoryRole {
    /// By the two fields of GitHub's answer. `permission` knows only the old four names; `role_name` also knows `triage`,
    /// `maintain` and roles that an organisation has made itself, which stand for whatever `permission` says.
    pub fn of(permission: &str, role_name: Option<&str>) -> Self {
        let named = |name| match name {
            "admin" => Some(Self::Admin),
            "maintain" => Some(Self::Maintain),
            "write" | "push" => Some(Self::Write),
            "triage" => Some(Self::Triage),
            "read" | "pull" => Some(Self::Read),
            "none" => Some(Self::None),
            _ => None,
        };
        let permission = named(permission).unwrap_or(Self::None);
        let Some(role) = role_name.and_then(named) else { return permission };
        // `maintain` is told as `write`, `triage` as `read`; where the two disagree otherwise, the smaller one counts.
        match (permission, role) {
            (Self::Write, Self::Maintain) => Self::Maintain,
            (Self::Read, Self::Triage) => Self::Triage,
            (permission, role) => permission.min(role),
        }
    }
}

/// `owner/name`. Compared without regard to case, as GitHub does; kept as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Repository(String);

impl Repository {
    /// The owner: 1 to 39 letters, digits and single inner hyphens (`_` too, of managed users); the name: 1 to 100 letters,
    /// digits, `-`, `_` and `.`, but not `.` or `..`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let is_owner = |text: &str| {
            (1..=39).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                && !text.starts_with('-')
        };
        let is_name = |text: &str| {
            (1..=100).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
                && !matches!(text, "." | "..")
        };
        if text.split_once('/').is_some_and(|(owner, name)| is_owner(owner) && is_name(name)) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new("format-repository", "is not a repository of GitHub", "write it as owner/name"))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// In lower case: the same text for all ways to write it.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    pub fn owner(&self) -> &str {
        self.0.split_once('/').map_or("", |(owner, _)| owner)
    }

    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl PartialEq for Repository {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Repository {}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for Repository {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> String {
        repository.0
    }
}

/// A label's name: 1 to 50 characters, none of them a control character or a comma.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// The label of an issue that holds no values any more.
pub const SANITISED_LABEL: &str = "sanitized";

impl Label {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let plain = text.chars().all(|c| !c.is_control() && c != ',');
        if !plain || text.trim() != text || !(1..=50).contains(&text.chars().count()) {
            return Err(Invalid::new(
                "format-label",
                "cannot be the name of a label",
                "use 1 to 50 characters, without commas",
            ));
        }
        if text.eq_ignore_ascii_case(SANITISED_LABEL) {
            return Err(Invalid::new(
                "format-label",
                "is the label that issues get once their values are taken out",
                "use another label for those that ask for a deployment",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an issue's label of this name is this label.
    pub fn is_named(&self, name: &str) -> bool {
        self.0.to_lowercase() == name.to_lowercase()
    }
}

impl TryFrom<String> for Label {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> String {
        label.0
    }
}

/// One issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueRef {
    pub repository: Repository,
    /// Counted in its repository, from 1.
    pub number: u64,
}

/// `owner/name#12`
impl fmt::Display for IssueRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.repository, self.number)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_repository_is_an_owner_and_a_name() {
        for (text, valid) in [
            ("octo-org/shop.web_1", true),
            ("a/b", true),
            ("short_ent/a", true),
            ("a", false),
            ("a/", false),
            ("/a", false),
            ("a/b/c", false),
            ("a/..", false),
            ("a/.", false),
            ("-a/b", false),
            ("a b/c", false),
            ("a#b/c", false),
            ("ä/b", false),
            ("a/b\n", false),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/b", false),
        ] {
            assert_eq!(Repository::parse(text).is_ok(), valid, "{text}");
        }
        let (one, other) = (Repository::parse("Octo/Shop").unwrap(), Repository::parse("octo/shop").unwrap());
        assert_eq!(one, other);
        assert_eq!(
            (one.folded(), one.as_str(), one.owner(), one.name()),
            (other.folded(), "Octo/Shop", "Octo", "Shop")
        );
    }

    #[test]
    fn a_label_is_compared_as_github_does() {
        let label = Label::parse("Deploy ÄÖ").unwrap();
        assert!(label.is_named("deploy äö") && !label.is_named("deploy"));
        let long = "a".repeat(51);
        for refused in ["", " a", "a ", "a,b", "a\nb", "Sanitized", &long] {
            assert!(Label::parse(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_trigger_is_for_those_who_may_push_and_reads_the_tag_unless_it_says_otherwise() {
        let trigger: IssueTrigger = serde_json::from_value(json!({"repository": "a/b", "label": "deploy"})).unwrap();
        assert_eq!((trigger.allow, trigger.version_field.as_str()), (Allow::Write, "tag"));
        let whole = json!({"repository": "a/b", "label": "deploy", "allow": "write", "versionField": "tag"});
        assert_eq!(serde_json::to_value(&trigger).unwrap(), whole);
    }

    #[test]
    fn a_role_is_the_least_that_both_fields_say() {
        use RepositoryRole::{Admin, Maintain, None, Read, Triage, Write};
        for (permission, role_name, expect) in [
            ("admin", Some("admin"), Admin),
            ("write", Some("maintain"), Maintain),
            ("write", Some("write"), Write),
            ("read", Some("triage"), Triage),
            ("read", Some("read"), Read),
            ("none", Some(""), None),
            ("none", Option::None, None),
            // Roles that an organisation has made itself.
            ("write", Some("release-engineer"), Write),
            ("admin", Some("security"), Admin),
            // What GitHub does not answer.
            ("read", Some("admin"), Read),
            ("admin", Some("read"), Read),
            ("owner", Some("owner"), None),
            ("", Option::None, None),
        ] {
            let role = RepositoryRole::of(permission, role_name);
            assert_eq!(role, expect, "{permission} {role_name:?}");
            assert!(Allow::Anyone.admits(role));
            assert_eq!(Allow::Write.admits(role), role >= Write, "{role:?}");
            assert_eq!(Allow::Owner.admits(role), role == Admin, "{role:?}");
        }
    }
}
