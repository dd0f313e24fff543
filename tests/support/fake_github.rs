//! A GitHub of a test's own: one repository with its issues, which answers and tells as the real one does.

mod api;
mod hook;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use tidegate_aws::{clock, random};
use tokio::{net::TcpListener, task::JoinHandle};

use super::hex;
pub(crate) use hook::signed;

/// As it is written on GitHub; applications write it in other letters.
pub(crate) const REPOSITORY: &str = "Octo-Org/Shop";
/// Whose comments and edits are ours.
pub(crate) const BOT: &str = "tidegate-bot";

/// One request to the API.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
}

/// What becomes of a request.
pub(crate) enum Fate {
    Pass,
    /// Nothing is done: this status, with these headers and this message.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
    /// It is done, and a gateway answers 502.
    LoseAnswer,
}

#[derive(Debug, Clone)]
pub(crate) struct Issue {
    pub number: u64,
    pub author: String,
    pub body: String,
    pub labels: Vec<String>,
    pub updated_at: Timestamp,
    pub is_deleted: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Comment {
    pub id: u64,
    pub issue: u64,
    pub author: String,
    pub body: String,
    pub updated_at: Timestamp,
}

type Judge = Box<dyn FnMut(&Call) -> Fate + Send>;

struct State {
    token: String,
    /// Of an app: its public key, in PEM.
    app_key: Option<Vec<u8>>,
    /// `permission` and `role_name` by login.
    roles: BTreeMap<String, (&'static str, &'static str)>,
    issues: Vec<Issue>,
    comments: Vec<Comment>,
    calls: Vec<Call>,
    judge: Judge,
    hook: Option<hook::Hook>,
    next_comment: u64,
    clock: Timestamp,
}

impl State {
    /// GitHub tells times to the second; here each change has one of its own, as it has with people.
    fn tick(&mut self) -> Timestamp {
        self.clock += SignedDuration::from_secs(1);
        self.clock
    }

    fn comment(&mut self, author: &str, issue: u64, body: &str) -> Comment {
        self.next_comment += 1;
        let updated_at = self.tick();
        let comment =
            Comment { id: self.next_comment, issue, author: author.to_owned(), body: body.to_owned(), updated_at };
        self.comments.push(comment.clone());
        comment
    }
}

pub(crate) struct FakeGithub {
    url: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Drop for FakeGithub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FakeGithub {
    /// People: `owner` has admin, `maintainer` maintain, `writer` write, `reader` read; all others are strangers.
    pub(crate) async fn start() -> Self {
        let roles = [
            ("owner", ("admin", "admin")),
            ("maintainer", ("write", "maintain")),
            ("writer", ("write", "write")),
            ("reader", ("read", "read")),
            (BOT, ("write", "write")),
        ];
        let state = Arc::new(Mutex::new(State {
            token: format!("github_pat_{}", hex(&random::bytes::<16>())),
            app_key: None,
            roles: roles.into_iter().map(|(login, role)| (login.to_owned(), role)).collect(),
            issues: Vec::new(),
            comments: Vec::new(),
            calls: Vec::new(),
            judge: Box::new(|_| Fate::Pass),
            hook: None,
            next_comment: 1_000,
            clock: clock::now() - SignedDuration::from_secs(60),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = api::router(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state, server }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn token(&self) -> String {
        self.state().token.clone()
    }

    /// Only an app with this key is let in from now on.
    pub(crate) fn is_for_an_app(&self, public_key_pem: Vec<u8>) {
        self.state().app_key = Some(public_key_pem);
    }

    /// Deliveries go there from now on.
    pub(crate) fn tells(&self, url: String, secret: &str) {
        self.state().hook = Some(hook::Hook { url, secret: secret.to_owned() });
    }

    pub(crate) fn judge_by(&self, judge: impl FnMut(&Call) -> Fate + Send + 'static) {
        self.state().judge = Box::new(judge);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub(crate) fn issue(&self, number: u64) -> Issue {
        self.state().issues.iter().find(|issue| issue.number == number).unwrap().clone()
    }

    /// What we have said on an issue.
    pub(crate) fn said(&self, number: u64) -> Vec<String> {
        let state = self.state();
        let ours = state.comments.iter().filter(|c| c.issue == number && c.author.starts_with(BOT));
        ours.map(|comment| comment.body.clone()).collect()
    }

    /// As a person does it in the browser: the issue is there, and GitHub tells of it and of each of its labels.
    pub(crate) async fn open(&self, author: &str, body: &str, labels: &[&str]) -> u64 {
        let issue = self.open_quietly(author, body, labels);
        self.tell("issues", &self.issue_event(&issue, "opened", author)).await;
        for _ in labels {
            self.tell("issues", &self.issue_event(&issue, "labeled", author)).await;
        }
        issue.number
    }

    pub(crate) fn open_quietly(&self, author: &str, body: &str, labels: &[&str]) -> Issue {
        let mut state = self.state();
        let updated_at = state.tick();
        let issue = Issue {
            number: state.issues.len() as u64 + 1,
            author: author.to_owned(),
            body: body.replace('\n', "\r\n"),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            updated_at,
            is_deleted: false,
        };
        state.issues.push(issue.clone());
        issue
    }

    pub(crate) async fn edit(&self, login: &str, number: u64, body: &str) {
        let issue = self.change(number, |issue| issue.body = body.replace('\n', "\r\n"));
        self.tell("issues", &self.issue_event(&issue, "edited", login)).await;
    }

    pub(crate) async fn label(&self, login: &str, number: u64, label: &str) {
        let issue = self.change(number, |issue| issue.labels.push(label.to_owned()));
        self.tell("issues", &self.issue_event(&issue, "labeled", login)).await;
    }

    pub(crate) fn delete(&self, number: u64) {
        self.change(number, |issue| issue.is_deleted = true);
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut Issue)) -> Issue {
        let mut state = self.state();
        let updated_at = state.tick();
        let issue = state.issues.iter_mut().find(|issue| issue.number == number).unwrap();
        change(issue);
        issue.updated_at = updated_at;
        issue.clone()
    }

    pub(crate) async fn comment(&self, login: &str, number: u64, body: &str) -> u64 {
        let comment = self.state().comment(login, number, body);
        self.tell("issue_comment", &self.comment_event(&comment, "created")).await;
        comment.id
    }

    pub(crate) async fn edit_comment(&self, id: u64, body: &str) {
        let comment = {
            let mut state = self.state();
            let comment = state.comments.iter_mut().find(|comment| comment.id == id).unwrap();
            body.clone_into(&mut comment.body);
            comment.clone()
        };
        self.tell("issue_comment", &self.comment_event(&comment, "edited")).await;
    }

    pub(crate) fn issue_event(&self, issue: &Issue, action: &str, sender: &str) -> Value {
        json!({"action": action, "issue": api::issue_view(issue, &self.url), "repository": repository(), "sender": user(sender)})
    }

    fn comment_event(&self, comment: &Comment, action: &str) -> Value {
        let issue = self.issue(comment.issue);
        json!({"action": action, "issue": api::issue_view(&issue, &self.url), "comment": api::comment_view(comment, &self.url),
            "repository": repository(), "sender": user(&comment.author)})
    }

    async fn tell(&self, name: &str, payload: &Value) {
        let hook = self.state().hook.clone();
        if let Some(hook) = hook {
            assert_eq!(hook.deliver(name, payload).await.as_u16(), 202, "{name} {}", payload["action"]);
        }
    }
}

pub(crate) fn repository() -> Value {
    let (owner, name) = REPOSITORY.split_once('/').unwrap();
    json!({"id": 1_296_269, "name": name, "full_name": REPOSITORY, "private": true, "owner": user(owner),
        "html_url": format!("https://github.example/{REPOSITORY}"), "default_branch": "main"})
}

fn user(login: &str) -> Value {
    let kind = if login.ends_with("[bot]") { "Bot" } else { "User" };
    json!({"login": login, "id": 583_231, "node_id": "MDQ6VXNlcjU4MzIzMQ==", "type": kind, "site_admin": false})
}
