//! Who or what asks for deployments.

use serde::{Deserialize, Serialize};

/// Who or what asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    pub kind: TriggerKind,
    /// The caller's IP address.
    pub source: Option<String>,
    pub actor: String,
    /// Of an issue: who wrote it, where somebody else asked with it. It counts as theirs, too.
    #[serde(default)]
    pub author: Option<String>,
}

impl Trigger {
    /// Everybody whose request it is.
    pub fn requesters(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.actor.as_str()).chain(self.author.as_deref())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TriggerKind {
    /// `POST /webhook/deploy` with the application's token.
    Webhook,
    /// A person, through the administration.
    User,
    /// A person who returns to an earlier release.
    Rollback,
    /// A person who repeats an earlier request.
    Retry,
    /// An issue of the application's repository.
    Issue,
}

impl TriggerKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::User => "user",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
            Self::Issue => "issue",
        }
    }
}
