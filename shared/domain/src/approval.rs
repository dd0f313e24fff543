//! What needs somebody's decision before it runs, who may decide, and what exactly a decision covers.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    deployment::{Trigger, TriggerKind},
    id::HostName,
    image::Digest,
    invalid::Invalid,
    job::Job,
    secret::{Secret, in_sealed_form},
};

/// One thing about a request that its owner has to decide on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Where in the request: `variables.API_SERVER`; `application` where nothing in it is unusual.
    pub field: String,
    pub code: ReasonCode,
    /// In words, and without the value.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReasonCode {
    /// The value is an address on the public internet.
    PublicAddress,
    /// The value is a domain name, which may stand for any address.
    DomainAddress,
    /// The parameter, the application or the environment is never used without a decision.
    Always,
}

/// The state of an approval that a deployment needs or needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Why it is asked for; all of them are decided on together.
    pub reasons: Vec<Reason>,
    pub asked_at: Timestamp,
    /// A decision after this moment is none, whether or not anybody has recorded yet that the time is over.
    pub expires_at: Timestamp,
    /// What is decided on.
    pub hash: ContentHash,
    /// None while it waits, and of one that was called off or superseded.
    pub decision: Option<Decision>,
}

/// What became of an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    pub verdict: Verdict,
    pub at: Timestamp,
    pub by: String,
    /// What the decider said of it.
    pub comment: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Approved,
    Denied,
    TimedOut,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::TimedOut => "timed_out",
        }
    }
}

/// A keyed hash of all that a deployment would do: 64 hexadecimal digits. Without the key, which is sealed with the
/// request, nothing can be learned from it, so that it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash(String);

/// So many digits of a hash are enough to name it in a comment.
const SHORT: usize = 12;

impl ContentHash {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(is_hex) {
            return Ok(Self(text.to_owned()));
        }
        Err(Invalid::new("format-hash", "is not a hash of a request", "copy it from the approval that it is about"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits.
    pub fn short(&self) -> &str {
        self.0.get(..SHORT).unwrap_or(&self.0)
    }

    /// Whether `text` names this hash: the whole of it, or its beginning, twelve digits or more.
    pub fn is_named_by(&self, text: &str) -> bool {
        text.len() >= SHORT && self.0.starts_with(&text.to_ascii_lowercase())
    }
}

impl TryFrom<String> for ContentHash {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> String {
        hash.0
    }
}

/// The proof of an approval that travels in the work order, sealed with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Approved {
    pub hash: ContentHash,
    /// Of the hash: random, and never outside of sealed records.
    #[serde(with = "in_sealed_form")]
    pub salt: Secret<String>,
    pub scope: Scope,
}

/// What a decision covers beside the work order itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// The image, where it was known when the approval was asked for; else the first host finds it out.
    pub digest: Option<Digest>,
    /// Every host that it may go to.
    pub hosts: Vec<HostName>,
    pub max_parallel: u32,
    pub rollback_on_failure: bool,
}

impl Scope {
    /// The text that the hash covers: the whole work order and the scope, but for what is only known when its turn comes.
    /// Names are sorted, so that no writer's order matters.
    ///
    /// # Errors
    /// A work order that cannot be written as JSON.
    pub fn content(&self, job: &Job) -> Result<Zeroizing<String>, serde_json::Error> {
        let mut whole = serde_json::to_value(job)?;
        if let Some(fields) = whole.as_object_mut() {
            for later in ["sequence", "digest", "approved"] {
                fields.remove(later);
            }
        }
        let mut text = Zeroizing::new(String::new());
        canonical(&json!({ "scope": self, "workOrder": whole }), &mut text);
        Ok(text)
    }

    /// Whether a host may carry the work order out.
    pub fn covers(&self, host: &HostName, job: &Job) -> bool {
        self.hosts.contains(host) && (self.digest.is_none() || self.digest == job.digest)
    }
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (name, field) in sorted {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                canonical(field, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

/// What an application asks for beside what its parameters do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalPolicy {
    /// No version is deployed without a decision. What was released before can be returned to, stopped and started.
    pub required: bool,
    /// Nobody decides on what they asked for themselves. Of a request that came through GitHub or with a token nobody can
    /// tell whether it is the owner's: on those an administrator decides, who answers for being somebody else.
    pub require_other_approver: bool,
}

/// Who wants to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decider<'a> {
    /// As the trigger of their own requests would name them.
    pub name: &'a str,
    /// An administrator of the tenant; of an issue's repository, who has `admin` there.
    pub is_admin: bool,
}

impl ApprovalPolicy {
    /// Whether this person may decide on that request.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn permits(self, decider: Decider<'_>, owner: &str, trigger: &Trigger) -> Result<(), &'static str> {
        if !decider.is_admin && decider.name != owner {
            return Err("Only the application's owner or an administrator decides on this.");
        }
        if self.require_other_approver && trigger.requesters().any(|requester| requester == decider.name) {
            return Err("This application wants somebody else to decide than who asked.");
        }
        let has_another_name = match trigger.kind {
            TriggerKind::Webhook | TriggerKind::Issue => true,
            TriggerKind::User | TriggerKind::Rollback | TriggerKind::Retry => false,
        };
        if self.require_other_approver && has_another_name && !decider.is_admin {
            return Err(
                "This application wants somebody else to decide than who asked. Through GitHub or with a token that \
                may have been the owner: an administrator decides.",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_administrators_decide_and_on_their_own_requests_only_if_they_may() {
        let (free, strict) =
            (ApprovalPolicy::default(), ApprovalPolicy { require_other_approver: true, ..ApprovalPolicy::default() });
        for (policy, name, is_admin, requester, permitted) in [
            (free, "owner", false, "ci", true),
            (free, "owner", false, "owner", true),
            (free, "other", false, "ci", false),
            (free, "other", false, "other", false),
            (free, "root", true, "root", true),
            (strict, "owner", false, "other", true),
            (strict, "owner", false, "owner", false),
            (strict, "root", true, "root", false),
            (strict, "root", true, "owner", true),
            (strict, "other", false, "ci", false),
        ] {
            let by = |actor: &str, author: Option<&str>| Trigger {
                kind: TriggerKind::User,
                source: None,
                actor: actor.to_owned(),
                author: author.map(str::to_owned),
            };
            // Whoever wrote an issue has asked as much as who labelled it.
            for trigger in [by(requester, None), by("labeller", Some(requester))] {
                let decided = policy.permits(Decider { name, is_admin }, "owner", &trigger);
                assert_eq!(decided.is_ok(), permitted, "{policy:?} {name} {is_admin} {trigger:?}");
            }
        }
    }

    #[test]
    fn where_nobody_can_tell_who_asked_the_owner_is_not_somebody_else() {
        let strict = ApprovalPolicy { require_other_approver: true, ..ApprovalPolicy::default() };
        for (kind, actor, by_owner) in [
            (TriggerKind::Webhook, "application token", false),
            (TriggerKind::Issue, "github:owner", false),
            (TriggerKind::Issue, "github:other", false),
            (TriggerKind::User, "other", true),
            (TriggerKind::Retry, "other", true),
            (TriggerKind::Rollback, "other", true),
        ] {
            let trigger = Trigger { kind, source: None, actor: actor.to_owned(), author: None };
            for (name, is_admin, permitted) in [("owner", false, by_owner), ("root", true, true)] {
                let decided = strict.permits(Decider { name, is_admin }, "owner", &trigger);
                assert_eq!(decided.is_ok(), permitted, "{name} {trigger:?}");
                let free = ApprovalPolicy::default().permits(Decider { name, is_admin }, "owner", &trigger);
                assert!(free.is_ok(), "{name} {trigger:?}");
            }
        }
    }

    #[test]
    fn a_hash_is_named_by_twelve_of_its_digits_or_more() {
        let hash = ContentHash::parse(&"0123456789abcdef".repeat(4)).unwrap();
        for (text, named) in [
            ("0123456789ab", true),
            ("0123456789ABCDEF", true),
            (hash.as_str(), true),
            ("0123456789a", false),
            ("", false),
            ("1123456789ab", false),
            ("0123456789ab ", false),
        ] {
            assert_eq!(hash.is_named_by(text), named, "{text}");
        }
        for wrong in ["", "0123", &"0123456789abcdeF".repeat(4), &"0123456789abcdeg".repeat(4)] {
            assert!(ContentHash::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn canonical_text_does_not_depend_on_the_order_of_names() {
        let texts = [r#"{"b":[1,{"y":null,"x":"\n"}],"a":true}"#, r#"{"a":true,"b":[1,{"x":"\n","y":null}]}"#];
        let [first, second] = texts.map(|text| {
            let mut out = String::new();
            canonical(&serde_json::from_str(text).unwrap(), &mut out);
            out
        });
        assert_eq!(first, second);
        assert_eq!(first, r#"{"a":true,"b":[1,{"x":"\n","y":null,},],}"#);
    }
}
