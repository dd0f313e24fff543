//! The calls, with the statuses, headers and bodies of the real ones.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State as Of,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use jiff::SignedDuration;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tidegate_aws::{clock, random};

use super::{BOT, Call, Comment, Fate, Issue, REPOSITORY, State, hook::Hook, repository, user};
use crate::support::hex;

type Shared = Arc<Mutex<State>>;

pub(super) fn router(state: Shared) -> Router {
    Router::new().fallback(answer).with_state(state)
}

async fn answer(Of(state): Of<Shared>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let call = Call {
        method,
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    if text("user-agent").is_empty() {
        return refused(
            403,
            "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
        );
    }
    assert_eq!(text("x-github-api-version"), "2022-11-28");
    let (answer, told) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.calls.push(call.clone());
        let fate = (state.judge)(&call);
        if let Fate::Answer(status, headers, message) = &fate {
            let mut answer = refused(*status, message);
            for (name, value) in headers {
                answer.headers_mut().insert(*name, value.parse().unwrap());
            }
            return answer;
        }
        let token = text("authorization");
        let token = token.strip_prefix("Bearer ").unwrap_or_default();
        let done = state.carry_out(&call, token);
        match fate {
            Fate::LoseAnswer => (refused(502, "Server Error"), done.1),
            Fate::Pass | Fate::Answer(..) => done,
        }
    };
    // Who did it is not kept waiting for those who are told.
    if let Some((hook, name, payload)) = told {
        tokio::spawn(async move { hook.deliver(name, &payload).await });
    }
    answer
}

/// A delivery that follows from a call.
type Told = Option<(Hook, &'static str, Value)>;

impl State {
    fn carry_out(&mut self, call: &Call, token: &str) -> (Response, Told) {
        let path = call.path.clone();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        if let Some(key) = self.app_key.clone()
            && let Some(answer) = self.as_app(&parts, &call.method, token, &key, &call.body)
        {
            return (answer, None);
        }
        if token != self.token {
            return (refused(401, "Bad credentials"), None);
        }
        if parts == ["user"] {
            return (Json(user(BOT)).into_response(), None);
        }
        let ["repos", owner, name, rest @ ..] = parts.as_slice() else { return (not_found(), None) };
        // Names are compared without regard to case.
        if !format!("{owner}/{name}").eq_ignore_ascii_case(REPOSITORY) {
            return (not_found(), None);
        }
        match rest {
            ["collaborators", login, "permission"] => {
                let role = self.roles.get(&login.to_ascii_lowercase()).copied();
                // Of a private repository strangers have nothing; an account that is none is not found.
                let (permission, role_name) = match role {
                    Some(role) => role,
                    None if login.starts_with("nobody") => return (not_found(), None),
                    None => ("none", ""),
                };
                (
                    Json(json!({"permission": permission, "role_name": role_name, "user": user(login)}))
                        .into_response(),
                    None,
                )
            }
            ["issues", "comments", id] => self.update_comment(id, &call.body),
            ["issues", number, rest @ ..] => self.of_issue(call, number.parse().unwrap_or(0), rest),
            _ => (not_found(), None),
        }
    }

    /// An app's login has an end that no person's has.
    fn ours(&self) -> String {
        if self.app_key.is_some() { format!("{BOT}[bot]") } else { BOT.to_owned() }
    }

    fn of_issue(&mut self, call: &Call, number: u64, rest: &[&str]) -> (Response, Told) {
        let Some(at) = self.issues.iter().position(|issue| issue.number == number) else { return (not_found(), None) };
        if self.issues[at].is_deleted {
            return (refused(410, "This issue was deleted"), None);
        }
        let (hook, ours) = (self.hook.clone(), self.ours());
        let url = "https://api.github.example";
        let event = |name, payload: Value| hook.clone().map(|hook| (hook, name, payload));
        match (&call.method, rest) {
            (&Method::GET, []) => (Json(issue_view(&self.issues[at], url)).into_response(), None),
            (&Method::PATCH, []) => {
                let updated_at = self.tick();
                let issue = &mut self.issues[at];
                call.body["body"].as_str().unwrap().clone_into(&mut issue.body);
                issue.updated_at = updated_at;
                let view = issue_view(issue, url);
                let told = json!({"action": "edited", "issue": view, "changes": {"body": {"from": "…"}},
                    "repository": repository(), "sender": user(&ours)});
                (Json(view).into_response(), event("issues", told))
            }
            (&Method::POST, ["labels"]) => {
                let updated_at = self.tick();
                let issue = &mut self.issues[at];
                for label in call.body["labels"].as_array().unwrap() {
                    issue.labels.push(label.as_str().unwrap().to_owned());
                }
                issue.updated_at = updated_at;
                let view = issue_view(issue, url);
                let labels = view["labels"].clone();
                let told =
                    json!({"action": "labeled", "issue": view, "repository": repository(), "sender": user(&ours)});
                (Json(labels).into_response(), event("issues", told))
            }
            (&Method::GET, ["comments"]) => (self.page(call, number), None),
            (&Method::POST, ["comments"]) => {
                let comment = self.comment(&ours, number, call.body["body"].as_str().unwrap());
                let view = comment_view(&comment, url);
                let told = json!({"action": "created", "issue": issue_view(&self.issues[at], url), "comment": view,
                    "repository": repository(), "sender": user(&ours)});
                ((StatusCode::CREATED, Json(view)).into_response(), event("issue_comment", told))
            }
            _ => (not_found(), None),
        }
    }

    /// By `page` and `per_page`, with `Link`, of what was changed `since`.
    fn page(&self, call: &Call, number: u64) -> Response {
        let query: Vec<(&str, &str)> = call.query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let value = |name: &str| query.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        let page: usize = value("page").unwrap_or("1").parse().unwrap();
        let per_page: usize = value("per_page").unwrap_or("30").parse().unwrap();
        let since = value("since").map(|since| since.replace("%3A", ":").parse::<jiff::Timestamp>().unwrap());
        let found: Vec<_> = self
            .comments
            .iter()
            .filter(|comment| comment.issue == number && since.is_none_or(|since| comment.updated_at >= since))
            .collect();
        let shown: Vec<_> = found
            .iter()
            .skip((page - 1) * per_page)
            .take(per_page)
            .map(|c| comment_view(c, "https://x.example"))
            .collect();
        let mut answer = Json(shown).into_response();
        if page * per_page < found.len() {
            let next = format!("<https://api.github.example{}?page={}>; rel=\"next\"", call.path, page + 1);
            answer.headers_mut().insert("link", next.parse().unwrap());
        }
        answer
    }

    fn update_comment(&mut self, id: &str, body: &Value) -> (Response, Told) {
        let updated_at = self.tick();
        let Some(comment) = self.comments.iter_mut().find(|comment| comment.id.to_string() == id) else {
            return (not_found(), None);
        };
        body["body"].as_str().unwrap().clone_into(&mut comment.body);
        comment.updated_at = updated_at;
        (Json(comment_view(comment, "https://x.example")).into_response(), None)
    }

    /// What only the app itself may call, with a token that it has signed.
    fn as_app(&mut self, parts: &[&str], method: &Method, token: &str, key: &[u8], body: &Value) -> Option<Response> {
        let answer = match (method, parts) {
            (&Method::GET, ["app"]) => json!({"id": 77, "slug": BOT, "name": "Tidegate"}),
            (&Method::GET, ["repos", _, _, "installation"]) => json!({"id": 4_711, "app_id": 77}),
            (&Method::POST, ["app", "installations", "4711", "access_tokens"]) => {
                assert_eq!(body["repositories"], json!([REPOSITORY.split_once('/').unwrap().1]));
                self.token = format!("ghs_{}", hex(&random::bytes::<16>()));
                json!({"token": self.token, "expires_at": (clock::now() + SignedDuration::from_hours(1)).to_string(),
                    "permissions": body["permissions"], "repository_selection": "selected"})
            }
            _ => return None,
        };
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&["77"]);
        validation.required_spec_claims = ["exp", "iss"].into_iter().map(str::to_owned).collect();
        let claims = jsonwebtoken::decode::<Value>(token, &DecodingKey::from_rsa_pem(key).unwrap(), &validation);
        let Ok(claims) = claims else { return Some(refused(401, "A JSON web token could not be decoded")) };
        let (begin, end) = (claims.claims["iat"].as_i64().unwrap(), claims.claims["exp"].as_i64().unwrap());
        assert!(end - begin <= 600 && begin <= clock::now().as_second(), "GitHub takes at most ten minutes");
        let status = if *method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
        Some((status, Json(answer)).into_response())
    }
}

pub(super) fn issue_view(issue: &Issue, url: &str) -> Value {
    let labels: Vec<_> = issue
        .labels
        .iter()
        .map(|name| json!({"id": 208_045_946, "name": name, "color": "ededed", "default": false, "description": null}))
        .collect();
    let number = issue.number;
    json!({"url": format!("{url}/repos/{REPOSITORY}/issues/{number}"), "id": 1_000 + number, "number": number, "title": "Deploy",
        "user": user(&issue.author), "labels": labels, "state": "open", "locked": false, "assignees": [], "milestone": null,
        "comments": 0, "created_at": "2026-11-22T08:00:00Z", "updated_at": issue.updated_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "closed_at": null, "author_association": "OWNER", "body": issue.body, "performed_via_github_app": null})
}

pub(super) fn comment_view(comment: &Comment, url: &str) -> Value {
    json!({"id": comment.id, "url": format!("{url}/repos/{REPOSITORY}/issues/comments/{}", comment.id), "user": user(&comment.author),
        "created_at": "2026-11-22T08:00:00Z", "updated_at": comment.updated_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "author_association": "OWNER", "body": comment.body, "performed_via_github_app": null})
}

fn not_found() -> Response {
    refused(404, "Not Found")
}

fn refused(status: u16, message: &str) -> Response {
    let body =
        json!({"message": message, "documentation_url": "https://docs.github.com/rest", "status": status.to_string()});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}
