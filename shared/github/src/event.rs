//! What GitHub tells of issues: the little of its events that is looked at, and nothing else of them is kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    issue::{IssueRef, Repository, SANITISED_LABEL, command::Command, form::MAX_BODY_BYTES},
    secret::{Secret, in_sealed_form},
};

/// What has happened. It has one serialised form, in which it is sealed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Event {
    /// An open issue may ask for something.
    Issue {
        issue: IssueRef,
        /// Who opened it.
        author: String,
        /// Who did what is told here.
        sender: String,
        labels: Vec<String>,
        /// When GitHub last changed the issue.
        updated_at: Timestamp,
        /// As it was then. None if it is longer than anybody reads.
        #[serde(with = "body")]
        body: Option<Secret<String>>,
    },
    /// Somebody has written a decision.
    Comment {
        issue: IssueRef,
        sender: String,
        #[serde(with = "in_sealed_form")]
        body: Secret<String>,
    },
}

impl Event {
    pub fn issue(&self) -> &IssueRef {
        match self {
            Self::Issue { issue, .. } | Self::Comment { issue, .. } => issue,
        }
    }

    pub fn sender(&self) -> &str {
        match self {
            Self::Issue { sender, .. } | Self::Comment { sender, .. } => sender,
        }
    }

    /// The names of the issue's labels; none of a comment, which is about what its issue has asked for already.
    pub fn labels(&self) -> Option<&[String]> {
        match self {
            Self::Issue { labels, .. } => Some(labels),
            Self::Comment { .. } => None,
        }
    }

    /// Reads a delivery of this name (`X-GitHub-Event`). None for what nothing is to be done about, and for what is not
    /// shaped as GitHub shapes it.
    pub fn read(name: &str, payload: &[u8]) -> Option<Self> {
        match name {
            "issues" => {
                let IssuesPayload { action, issue, label, repository, sender } =
                    serde_json::from_slice(payload).ok()?;
                let is_ours = matches!(action.as_str(), "opened" | "edited" | "labeled" | "reopened");
                // With this label we only say what we have done, whoever has changed the issue since.
                let is_told =
                    action == "labeled" && label.is_some_and(|label| label.name.eq_ignore_ascii_case(SANITISED_LABEL));
                if !is_ours || is_told || issue.state != "open" || issue.pull_request.is_some() {
                    return None;
                }
                let body = Secret::new(issue.body.unwrap_or_default());
                Some(Self::Issue {
                    issue: IssueRef { repository: repository.full_name, number: issue.number },
                    author: issue.user.map(|user| user.login).unwrap_or_default(),
                    sender: sender.login,
                    labels: issue.labels.into_iter().map(|label| label.name).collect(),
                    updated_at: issue.updated_at,
                    body: Some(body).filter(|body| body.expose().len() <= MAX_BODY_BYTES),
                })
            }
            "issue_comment" => {
                let CommentPayload { action, issue, comment, repository, sender } =
                    serde_json::from_slice(payload).ok()?;
                let body = Secret::new(comment.body.unwrap_or_default());
                // What was changed afterwards counts for nothing: nobody was told of it.
                if action != "created" || issue.pull_request.is_some() || Command::of(body.expose()).is_none() {
                    return None;
                }
                let issue = IssueRef { repository: repository.full_name, number: issue.number };
                Some(Self::Comment { issue, sender: sender.login, body })
            }
            _ => None,
        }
    }
}

/// Which repository a delivery says it is about. To be believed only once the signature is found right.
pub fn repository(payload: &[u8]) -> Option<Repository> {
    #[derive(Deserialize)]
    struct Head {
        repository: RepositoryPayload,
    }
    serde_json::from_slice::<Head>(payload).ok().map(|head| head.repository.full_name)
}

#[derive(Deserialize)]
struct RepositoryPayload {
    full_name: Repository,
}

#[derive(Deserialize)]
struct IssuesPayload {
    action: String,
    issue: IssuePayload,
    /// Of `labeled`: which one.
    label: Option<LabelPayload>,
    repository: RepositoryPayload,
    sender: UserPayload,
}

#[derive(Deserialize)]
struct IssuePayload {
    number: u64,
    state: String,
    body: Option<String>,
    /// None of a deleted account.
    user: Option<UserPayload>,
    #[serde(default)]
    labels: Vec<LabelPayload>,
    updated_at: Timestamp,
    /// A pull request is an issue to GitHub.
    pull_request: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct LabelPayload {
    name: String,
}

#[derive(Deserialize)]
struct UserPayload {
    login: String,
}

#[derive(Deserialize)]
struct CommentPayload {
    action: String,
    issue: CommentedPayload,
    comment: CommentBody,
    repository: RepositoryPayload,
    sender: UserPayload,
}

#[derive(Deserialize)]
struct CommentedPayload {
    number: u64,
    pull_request: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct CommentBody {
    body: Option<String>,
}

/// [`in_sealed_form`] for what may be absent.
mod body {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use tidegate_domain::secret::Secret;

    #[expect(clippy::ref_option, reason = "serde gives the field by reference")]
    pub(super) fn serialize<S: Serializer>(body: &Option<Secret<String>>, serializer: S) -> Result<S::Ok, S::Error> {
        body.as_ref().map(|body| body.expose().as_str()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret<String>>, D::Error> {
        Option::<String>::deserialize(deserializer).map(|body| body.map(Secret::new))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn issues(changes: &Value) -> Value {
        let mut payload = json!({
            "action": "opened",
            "issue": {"number": 12, "state": "open", "title": "Deploy", "body": "### tag\r\n\r\nv1",
                "user": {"login": "octocat", "type": "User"}, "labels": [{"name": "deploy", "color": "ededed"}],
                "author_association": "NONE", "updated_at": "2026-11-22T10:00:00Z"},
            "repository": {"full_name": "Octo/Shop", "private": false, "owner": {"login": "Octo"}},
            "sender": {"login": "octocat", "type": "User"},
        });
        for (pointer, value) in changes.as_object().unwrap() {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            payload.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        payload
    }

    #[test]
    fn an_issue_is_read_when_it_may_ask_for_something() {
        let read = |name: &str, changes: Value| Event::read(name, issues(&changes).to_string().as_bytes());
        for action in ["opened", "edited", "labeled", "reopened"] {
            assert!(read("issues", json!({ "/action": action })).is_some(), "{action}");
        }
        assert!(read("issues", json!({"/action": "labeled", "/label": {"name": "deploy"}})).is_some());
        for changes in [
            json!({"/action": "labeled", "/label": {"name": "Sanitized"}}),
            json!({"/action": "closed"}),
            json!({"/action": "deleted"}),
            json!({"/issue/state": "closed"}),
            json!({"/issue/pull_request": {"url": "x"}}),
            json!({"/repository/full_name": "../x"}),
            json!({"/issue/number": -1}),
            json!({"/issue/updated_at": "x"}),
        ] {
            assert!(read("issues", changes.clone()).is_none(), "{changes}");
        }
        assert!(read("pull_request", json!({})).is_none());
        assert!(Event::read("issues", b"{").is_none());
        let Some(Event::Issue { issue, author, labels, body, .. }) = read("issues", json!({})) else { panic!() };
        assert_eq!(
            (issue.to_string(), author.as_str(), labels),
            ("Octo/Shop#12".to_owned(), "octocat", vec!["deploy".to_owned()])
        );
        assert_eq!(body.unwrap().expose(), "### tag\r\n\r\nv1");
        let Some(Event::Issue { body, author, .. }) = read("issues", json!({"/issue/body": null, "/issue/user": null}))
        else {
            panic!()
        };
        assert_eq!((body.unwrap().expose().as_str(), author.as_str()), ("", ""));
        let Some(Event::Issue { body, .. }) = read("issues", json!({"/issue/body": "a".repeat(64 * 1024 + 1)})) else {
            panic!()
        };
        assert!(body.is_none());
    }

    #[test]
    fn a_comment_is_read_when_it_is_new_and_a_decision() {
        let read = |action: &str, body: &str, issue: Value| {
            let payload = json!({"action": action, "issue": issue, "comment": {"id": 5, "body": body},
                "repository": {"full_name": "octo/shop"}, "sender": {"login": "octo"}});
            Event::read("issue_comment", payload.to_string().as_bytes())
        };
        let issue = json!({"number": 12});
        assert!(read("created", "/approve 0123456789ab", issue.clone()).is_some());
        assert!(read("edited", "/approve 0123456789ab", issue.clone()).is_none());
        assert!(read("deleted", "/approve 0123456789ab", issue.clone()).is_none());
        assert!(read("created", "nice", issue).is_none());
        assert!(read("created", "/approve 0123456789ab", json!({"number": 12, "pull_request": {}})).is_none());
    }

    #[test]
    fn what_is_sealed_is_read_back() {
        let event = Event::read("issues", issues(&json!({})).to_string().as_bytes()).unwrap();
        let sealed = serde_json::to_vec(&event).unwrap();
        let back: Event = serde_json::from_slice(&sealed).unwrap();
        assert_eq!(serde_json::to_vec(&back).unwrap(), sealed);
        assert!(!format!("{back:?}").contains("v1"));
    }

    #[test]
    fn the_repository_is_read_of_any_delivery() {
        assert_eq!(repository(br#"{"zen":"x","repository":{"full_name":"a/b"}}"#), Repository::parse("a/b").ok());
        for wrong in [&b"{}"[..], b"[]", br#"{"repository":{"full_name":"x"}}"#, b"\xff"] {
            assert_eq!(repository(wrong), None);
        }
    }
}
