//! Issues, their comments, and what people may do in a repository.

use jiff::Timestamp;
use reqwest::Method;
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::json;
use tidegate_domain::{
    issue::{IssueRef, Repository, RepositoryRole, comment::Comment},
    secret::Secret,
};

use crate::{Github, error::GithubError};

const PER_PAGE: usize = 50;
/// GitHub allows 2,500 comments an issue.
const MAX_PAGES: usize = 60;

/// An issue, as far as we look at it.
#[derive(Debug)]
pub struct Issue {
    pub body: Secret<String>,
    /// Names.
    pub labels: Vec<String>,
}

#[derive(Deserialize)]
struct IssueAnswer {
    body: Option<String>,
    #[serde(default)]
    labels: Vec<LabelAnswer>,
}

/// A label is told as an object, and in old answers as its name alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum LabelAnswer {
    Object { name: Option<String> },
    Name(String),
}

#[derive(Deserialize)]
struct PermissionAnswer {
    permission: String,
    role_name: Option<String>,
}

#[derive(Deserialize)]
struct CommentAnswer {
    id: u64,
    body: Option<String>,
    /// None of a deleted account.
    user: Option<Login>,
}

#[derive(Deserialize)]
struct Login {
    login: String,
}

impl Github {
    /// What somebody may do in a repository, whichever way they came to it. Who does not exist may do nothing.
    pub async fn role(&self, repository: &Repository, login: &str) -> Result<RepositoryRole, GithubError> {
        if !is_login(login) {
            return Ok(RepositoryRole::None);
        }
        let path = format!("/repos/{repository}/collaborators/{}/permission", encoded(login));
        match self.ask::<PermissionAnswer>(repository, Method::GET, &path, None).await {
            Ok(answer) => Ok(RepositoryRole::of(&answer.permission, answer.role_name.as_deref())),
            // GitHub says so of an account that is gone; and of a repository that these credentials do not see, for which
            // there is no role either.
            Err(GithubError::NotFound) => Ok(RepositoryRole::None),
            Err(other) => Err(other),
        }
    }

    /// As it is now.
    pub async fn issue(&self, issue: &IssueRef) -> Result<Issue, GithubError> {
        let answer: IssueAnswer = self.of_issue(issue, Method::GET, "", None).await?;
        let name = |label| match label {
            LabelAnswer::Object { name } => name,
            LabelAnswer::Name(name) => Some(name),
        };
        let labels = answer.labels.into_iter().filter_map(name).collect();
        Ok(Issue { body: Secret::new(answer.body.unwrap_or_default()), labels })
    }

    /// Puts this in the place of an issue's body. GitHub keeps what was there in the issue's history.
    pub async fn replace_body(&self, issue: &IssueRef, body: &str) -> Result<(), GithubError> {
        let body = json!({ "body": body });
        self.of_issue::<IgnoredAny>(issue, Method::PATCH, "", Some(&body)).await.map(|_| ())
    }

    /// A label that the repository does not have is made by GitHub.
    pub async fn add_label(&self, issue: &IssueRef, label: &str) -> Result<(), GithubError> {
        let body = json!({ "labels": [label] });
        self.of_issue::<IgnoredAny>(issue, Method::POST, "/labels", Some(&body)).await.map(|_| ())
    }

    /// Says it on the issue: in our comment with the same marker, if there is one that was written or changed since, or
    /// else in a new one. Two at once would say it twice: whoever calls holds the issue's lease.
    ///
    /// A crash, or a lost answer, right after the comment was made leaves one that the next call finds.
    pub async fn say(&self, issue: &IssueRef, comment: &Comment, since: Timestamp) -> Result<(), GithubError> {
        let login = self.login().await?;
        let body = json!({ "body": comment.body });
        for page in 1..=MAX_PAGES {
            let path = format!(
                "/repos/{}/issues/{}/comments?per_page={PER_PAGE}&page={page}&since={}",
                issue.repository,
                issue.number,
                since.strftime("%Y-%m-%dT%H:%M:%SZ")
            );
            let answer = self.ask_page::<Vec<CommentAnswer>>(&issue.repository, Method::GET, &path, None).await?;
            // Anybody can write our marker, so it counts in our own comments only.
            let ours = answer.body.iter().find(|other| {
                other.user.as_ref().is_some_and(|user| user.login.eq_ignore_ascii_case(&login))
                    && other.body.as_deref().is_some_and(|body| comment.is_in(body))
            });
            if let Some(ours) = ours {
                if ours.body.as_deref() == Some(comment.body.as_str()) {
                    return Ok(());
                }
                let path = format!("/repos/{}/issues/comments/{}", issue.repository, ours.id);
                return self.ask::<IgnoredAny>(&issue.repository, Method::PATCH, &path, Some(&body)).await.map(|_| ());
            }
            if !answer.has_next {
                return self.of_issue::<IgnoredAny>(issue, Method::POST, "/comments", Some(&body)).await.map(|_| ());
            }
        }
        Err(GithubError::Refused { status: 200 })
    }

    async fn of_issue<T: DeserializeOwned>(
        &self,
        issue: &IssueRef,
        method: Method,
        rest: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<T, GithubError> {
        let path = format!("/repos/{}/issues/{}{rest}", issue.repository, issue.number);
        self.ask(&issue.repository, method, &path, body).await
    }
}

/// People's names are of letters, digits, `-` and `_`; an app's ends in `[bot]`. Nothing else goes into an address.
fn is_login(login: &str) -> bool {
    let name = login.strip_suffix("[bot]").unwrap_or(login);
    (1..=100).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn encoded(login: &str) -> String {
    login.replace('[', "%5B").replace(']', "%5D")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_login_goes_into_an_address() {
        for (login, valid) in [
            ("octocat", true),
            ("a-b_c", true),
            ("dependabot[bot]", true),
            ("", false),
            ("a/b", false),
            ("a?b", false),
            ("..", false),
        ] {
            assert_eq!(is_login(login), valid, "{login}");
        }
        assert_eq!(encoded("dependabot[bot]"), "dependabot%5Bbot%5D");
    }
}
