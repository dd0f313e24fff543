//! Calls of an installation's administration API.

use std::{error::Error, net::IpAddr, time::Duration};

use reqwest::{Method, StatusCode, header::HeaderMap, redirect::Policy};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tidegate_aws::random;
use tidegate_domain::secret::Secret;
use url::{Host, Url};

/// As whom to call.
#[derive(Debug)]
pub enum Credential {
    /// A person's token.
    Token(Secret<String>),
    /// Of an installation that signs people in itself.
    Person { user: String, password: Secret<String> },
}

/// Why a call did not bring what it should.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("--url is no address of an installation; use https://HOST, or http://127.0.0.1:PORT on this machine")]
    Url,
    #[error("--url begins with http, and secrets would cross the network in plaintext; use https")]
    Unprotected,
    #[error("no answer to {call}; what was done until then stays, and another run goes on from there")]
    NoAnswer {
        call: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{call} is answered with {status}{why}")]
    Refused { call: String, status: StatusCode, why: String },
    #[error("{call} is answered with something else than expected; is it an installation of another version?")]
    Odd {
        call: String,
        #[source]
        source: serde_json::Error,
    },
}

/// A caller that has signed in.
pub(super) struct Api {
    http: reqwest::Client,
    url: String,
    token: Secret<String>,
    /// Whose token may have to be renewed: an import may take longer than it lasts.
    person: Option<(String, Secret<String>)>,
}

/// What became of a creation.
pub(super) enum Created {
    /// The thing, and whether an earlier call had made it.
    Yes { body: Value, replayed: bool },
    /// What the installation says against it.
    Refused(String),
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Api {
    pub(super) async fn sign_in(url: &str, credential: Credential) -> Result<Self, ApiError> {
        let url = checked(url)?;
        // A credential goes nowhere else than where it was meant to.
        let http = reqwest::Client::builder().redirect(Policy::none()).timeout(Duration::from_mins(1)).build();
        let http = http.map_err(|error| no_answer("the start", error))?;
        let mut api = Self { http, url, token: Secret::new(String::new()), person: None };
        match credential {
            Credential::Token(token) => api.token = token,
            Credential::Person { user, password } => {
                api.person = Some((user, password));
                api.renew().await?;
            }
        }
        Ok(api)
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    async fn renew(&mut self) -> Result<(), ApiError> {
        let Some((user, password)) = &self.person else { return Ok(()) };
        let body = json!({ "username": user, "password": password.expose() });
        let answer = self.send(&Method::POST, "auth/login", None, Some(&body)).await?;
        let token = answer.body["token"].as_str().map(str::to_owned);
        match (answer.status, token) {
            (StatusCode::OK, Some(token)) => {
                self.token = Secret::new(token);
                Ok(())
            }
            (status, _) => Err(ApiError::Refused {
                call: "POST /api/v2/auth/login".to_owned(),
                status,
                why: "; set TIDEGATE_ADMIN_PASSWORD, or TIDEGATE_TOKEN where people sign in elsewhere".to_owned(),
            }),
        }
    }

    /// All pages of a list.
    pub(super) async fn every<T: DeserializeOwned>(&mut self, resource: &str) -> Result<Vec<T>, ApiError> {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut path = format!("{resource}{}limit=200", if resource.contains('?') { '&' } else { '?' });
            if let Some(cursor) = &cursor {
                path.push_str("&cursor=");
                path.extend(url::form_urlencoded::byte_serialize(cursor.as_bytes()));
            }
            let mut answer = self.call(&Method::GET, &path, None, None).await?;
            let call = format!("GET /api/v2/{resource}");
            if !answer.status.is_success() {
                return Err(refused(call, &answer));
            }
            let odd = |source| ApiError::Odd { call: call.clone(), source };
            let data: Vec<T> = serde_json::from_value(answer.body["data"].take()).map_err(odd)?;
            found.extend(data);
            cursor = answer.body["nextCursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return Ok(found);
            }
        }
    }

    pub(super) async fn is_there(&mut self, path: &str) -> Result<bool, ApiError> {
        let answer = self.call(&Method::GET, path, None, None).await?;
        match answer.status {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(refused(format!("GET /api/v2/{path}"), &answer)),
        }
    }

    /// Creates something once, however often the network swallows the answer.
    pub(super) async fn create(&mut self, resource: &str, key: &str, body: &Value) -> Result<Created, ApiError> {
        let answer = match self.call(&Method::POST, resource, Some(key), Some(body)).await {
            Err(ApiError::NoAnswer { .. }) => self.call(&Method::POST, resource, Some(key), Some(body)).await?,
            answered => answered?,
        };
        match answer.status {
            status if status.is_success() => {
                Ok(Created::Yes { replayed: answer.headers.contains_key("idempotent-replayed"), body: answer.body })
            }
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
                Ok(Created::Refused(format!("{}{}", answer.status, reasons(&answer.body))))
            }
            _ => Err(refused(format!("POST /api/v2/{resource}"), &answer)),
        }
    }

    async fn call(
        &mut self,
        method: &Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, ApiError> {
        let answer = self.send(method, path, key, body).await?;
        if answer.status != StatusCode::UNAUTHORIZED || self.person.is_none() {
            return Ok(answer);
        }
        self.renew().await?;
        self.send(method, path, key, body).await
    }

    async fn send(
        &self,
        method: &Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, ApiError> {
        let call = format!("{method} /api/v2/{}", path.split('?').next().unwrap_or_default());
        let mut request = self.http.request(method.clone(), format!("{}/api/v2/{path}", self.url));
        if !self.token.expose().is_empty() {
            request = request.bearer_auth(self.token.expose());
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| no_answer(&call, error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.bytes().await.map_err(|error| no_answer(&call, error))?;
        // What is no JSON is no answer of an installation: its status is all there is to say of it.
        Ok(Answer { status, headers, body: serde_json::from_slice(&text).unwrap_or_default() })
    }
}

/// A key for one creation.
pub(super) fn new_key() -> String {
    format!("import-v1-{:032x}", u128::from_be_bytes(random::bytes()))
}

fn no_answer(call: &str, error: reqwest::Error) -> ApiError {
    ApiError::NoAnswer { call: call.to_owned(), source: error.without_url().into() }
}

fn refused(call: String, answer: &Answer) -> ApiError {
    ApiError::Refused { call, status: answer.status, why: reasons(&answer.body) }
}

/// Fields, codes and messages of a problem document, which never repeat a value.
fn reasons(problem: &Value) -> String {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let errors = problem["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said = errors.iter().map(|e| format!("{} {} ({})", text(e, "field"), text(e, "message"), text(e, "code")));
    let said: Vec<_> = said.collect();
    let why = if said.is_empty() { text(problem, "title") } else { said.join("; ") };
    if why.is_empty() { why } else { format!(": {why}") }
}

/// Without a slash at its end. Secrets go over the network encrypted, or not at all.
fn checked(text: &str) -> Result<String, ApiError> {
    let url = Url::parse(text).map_err(|_| ApiError::Url)?;
    let plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let local = match url.host().ok_or(ApiError::Url)? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => IpAddr::V4(address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(address).is_loopback(),
    };
    match url.scheme() {
        "https" | "http" if !plain || url.password().is_some() => Err(ApiError::Url),
        "https" => Ok(url.as_str().trim_end_matches('/').to_owned()),
        "http" if local => Ok(url.as_str().trim_end_matches('/').to_owned()),
        "http" => Err(ApiError::Unprotected),
        _ => Err(ApiError::Url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_over_the_network_encrypted_or_not_at_all() {
        let check = |text: &str, expect: Result<&str, &str>| {
            let found = checked(text).map_err(|error| match error {
                ApiError::Unprotected => "unprotected",
                _ => "url",
            });
            assert_eq!(found.as_deref(), expect.as_ref().map(|text| &**text), "{text}");
        };
        check("http://127.0.0.1:8080/", Ok("http://127.0.0.1:8080"));
        check("http://[::1]:8080", Ok("http://[::1]:8080"));
        check("http://localhost:8080", Ok("http://localhost:8080"));
        check("https://deploy.example.com/gate/", Ok("https://deploy.example.com/gate"));
        check("http://deploy.example.com", Err("unprotected"));
        check("http://127.0.0.1.example.com", Err("unprotected"));
        for text in ["deploy.example.com", "ftp://127.0.0.1", "https://a:b@example.com", "https://example.com?x", ""] {
            check(text, Err("url"));
        }
    }
}
