//! Infisical, cloud or self-hosted, as a machine identity with Universal Auth.
//!
//! Facts: `POST /api/v1/auth/universal-auth/login` answers `accessToken` and `expiresIn`; wrong credentials, and an identity
//! that is locked after several of them, are 401. `GET /api/v4/secrets` gives a folder whole, without pages; servers from
//! before it have `GET /api/v3/secrets/raw`. A token that is past its life is 401, or 403 with the error `TokenError`. A folder
//! that does not exist is listed as an empty one. References between secrets are expanded by the server.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use reqwest::{
    Client,
    header::{ACCEPT, AUTHORIZATION, HeaderValue},
};
use serde::Deserialize;
use tidegate_domain::{
    invalid::FieldError,
    provider::RemotePath,
    secret::{Secret, in_sealed_form},
    sync::Listed,
};
use tokio::{sync::Mutex, time::Instant};
use url::Url;

use crate::{
    Entry, Field, Need, Page, Provider, ProviderError, Settings, field,
    http::{self, Answer, Bounds},
};

pub(crate) const WEBHOOK_SECRET: &str = "webhookSecret";

pub(crate) const FIELDS: &[Field] = &[
    Field::destination("siteUrl", Need::Default("https://app.infisical.com")),
    Field::text("clientId", Need::Required, field::line),
    Field::secret("clientSecret", Need::Required),
    Field::text("projectId", Need::Required, field::line),
    Field::text("environment", Need::Default("prod"), field::line),
    Field::text("path", Need::Default("/"), field::path),
    Field::secret(WEBHOOK_SECRET, Need::Optional),
];

pub(crate) fn faults() -> Vec<FieldError> {
    Vec::new()
}

const LOGIN: &str = "/api/v1/auth/universal-auth/login";
const LIST: &str = "/api/v4/secrets";
const LIST_BEFORE: &str = "/api/v3/secrets/raw";
/// A folder of 1,000 secrets with what is told of each is about 1 MB.
const MAX_BYTES: usize = 32 * 1024 * 1024;
const MAX_LOGIN_BYTES: usize = 64 * 1024;
/// Of a token's life: never used so late that it dies on the way.
const USED_FOR: f64 = 0.8;
/// A token that never ends is renewed all the same.
const LONGEST_LIFE: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub struct Infisical {
    http: Client,
    site: String,
    client_id: String,
    client_secret: Secret<String>,
    project_id: String,
    environment: String,
    path: RemotePath,
    patience: Duration,
    token: Mutex<Option<Token>>,
    /// It has no other way to list than the one before, as it has said itself.
    is_old: AtomicBool,
}

#[derive(Debug)]
struct Token {
    value: Secret<String>,
    until: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Login {
    #[serde(with = "in_sealed_form")]
    access_token: Secret<String>,
    #[serde(default)]
    expires_in: u64,
}

#[derive(Deserialize)]
struct List {
    secrets: Vec<RawSecret>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSecret {
    #[serde(default)]
    id: Option<String>,
    /// The same, on old servers.
    #[serde(default, rename = "_id")]
    old_id: Option<String>,
    secret_key: String,
    #[serde(default = "empty", with = "in_sealed_form")]
    secret_value: Secret<String>,
    #[serde(default)]
    secret_value_hidden: bool,
    #[serde(default)]
    secret_path: Option<String>,
    #[serde(default)]
    version: u64,
    #[serde(default, rename = "type")]
    kind: Option<String>,
}

fn empty() -> Secret<String> {
    Secret::new(String::new())
}

/// What errors look like. A route that is not there is refused by the framework as `Not Found`, a thing as `NotFound`.
#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    error: Option<String>,
}

impl Infisical {
    pub(crate) fn new(mut settings: Settings, patience: Duration) -> Result<Self, ProviderError> {
        let site = settings.required("siteUrl")?.to_owned();
        let url = Url::parse(&site).map_err(|_| ProviderError::Misconfigured("siteUrl"))?;
        Ok(Self {
            http: http::client(&url)?,
            site,
            client_id: settings.required("clientId")?.to_owned(),
            project_id: settings.required("projectId")?.to_owned(),
            environment: settings.required("environment")?.to_owned(),
            path: settings.path()?,
            client_secret: settings
                .secrets
                .remove("clientSecret")
                .ok_or(ProviderError::Misconfigured("clientSecret"))?,
            patience,
            token: Mutex::default(),
            is_old: AtomicBool::new(false),
        })
    }

    /// The token of before, or a new one. A refusal is final: an identity that is refused three times is locked.
    async fn token(&self) -> Result<Secret<String>, ProviderError> {
        let mut kept = self.token.lock().await;
        if let Some(token) = kept.as_ref().filter(|token| Instant::now() < token.until) {
            return Ok(token.value.duplicate());
        }
        *kept = None;
        let body = serde_json::json!({"clientId": self.client_id, "clientSecret": self.client_secret.expose()});
        let url = format!("{}{LOGIN}", self.site);
        // "Too many" without a time is what a login meets that races another wrong one.
        let bounds = Bounds { until: Instant::now() + self.patience, max_bytes: MAX_LOGIN_BYTES, insists: false };
        let asked = Instant::now();
        let answer = http::ask(|| self.http.post(&url).json(&body), bounds).await?;
        match answer.status {
            200 => {}
            401 | 403 => return Err(ProviderError::LoginRefused),
            404 => return Err(ProviderError::NoSuchApi),
            status => return Err(ProviderError::Refused { status }),
        }
        let Login { access_token, expires_in } = read(&answer)?;
        let life = if expires_in == 0 { LONGEST_LIFE } else { Duration::from_secs(expires_in).min(LONGEST_LIFE) };
        let value = access_token.duplicate();
        *kept = Some(Token { value: access_token, until: asked + life.mul_f64(USED_FOR) });
        Ok(value)
    }

    /// One login more, if the token is not taken any more; and the other way to list, if there is none of the first one.
    async fn fetch(&self, path: &RemotePath) -> Result<List, ProviderError> {
        let first = self.is_old.load(Ordering::Relaxed);
        let mut is_old = first;
        let mut says_so = false;
        let mut is_renewed = false;
        loop {
            let token = self.token().await?;
            let answer = self.ask(path, &token, is_old).await?;
            let refusal: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
            let error = refusal.error.as_deref();
            let is_no_route = match answer.status {
                // A site whose pages answer for every address.
                200 => !answer.is_json,
                404 => error != Some("NotFound"),
                _ => false,
            };
            let is_over = match answer.status {
                401 => true,
                403 => error == Some("TokenError"),
                _ => false,
            };
            match answer.status {
                _ if is_no_route && is_old == first => {
                    is_old = !first;
                    says_so = error == Some("Not Found");
                }
                _ if is_no_route => {
                    self.is_old.store(false, Ordering::Relaxed);
                    return Err(ProviderError::NoSuchApi);
                }
                _ if is_over && is_renewed => return Err(ProviderError::Denied),
                _ if is_over => {
                    is_renewed = true;
                    *self.token.lock().await = None;
                }
                200 => {
                    let list = read(&answer)?;
                    // Only the source itself says so: a proxy's word for one moment is no reason to ask the old way for good.
                    if !is_old || says_so {
                        self.is_old.store(is_old, Ordering::Relaxed);
                    }
                    return Ok(list);
                }
                403 => return Err(ProviderError::Denied),
                404 => return Err(ProviderError::NotFound),
                status => return Err(ProviderError::Refused { status }),
            }
        }
    }

    async fn ask(&self, path: &RemotePath, token: &Secret<String>, is_old: bool) -> Result<Answer, ProviderError> {
        let (route, project) = if is_old { (LIST_BEFORE, "workspaceId") } else { (LIST, "projectId") };
        let mut url =
            Url::parse(&format!("{}{route}", self.site)).map_err(|_| ProviderError::Misconfigured("siteUrl"))?;
        url.query_pairs_mut()
            .append_pair(project, &self.project_id)
            .append_pair("environment", &self.environment)
            .append_pair("secretPath", path.as_str())
            .append_pair("expandSecretReferences", "true");
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| ProviderError::Malformed("its token is none"))?;
        bearer.set_sensitive(true);
        let request =
            || self.http.get(url.clone()).header(AUTHORIZATION, bearer.clone()).header(ACCEPT, "application/json");
        let bounds = Bounds { until: Instant::now() + self.patience, max_bytes: MAX_BYTES, insists: true };
        http::ask(request, bounds).await
    }
}

fn read<T: for<'de> Deserialize<'de>>(answer: &Answer) -> Result<T, ProviderError> {
    // The error's own words could repeat what the answer holds.
    serde_json::from_slice(&answer.body).map_err(|_| ProviderError::Malformed("its answer has another shape"))
}

impl Provider for Infisical {
    async fn check(&self) -> Result<(), ProviderError> {
        self.list(&RemotePath::default(), None).await.map(|_| ())
    }

    async fn list(&self, path: &RemotePath, _: Option<&str>) -> Result<Page, ProviderError> {
        let folder = self.path.join(path);
        let List { secrets } = self.fetch(&folder).await?;
        // What people have overridden for themselves is theirs.
        let shared: Vec<_> = secrets.into_iter().filter(|secret| secret.kind.as_deref() != Some("personal")).collect();
        let hidden = shared.iter().filter(|secret| secret.secret_value_hidden).count();
        if hidden > 0 {
            return Err(ProviderError::Hidden { count: hidden });
        }
        let entry = |secret: RawSecret| {
            let remote_id = secret.id.or(secret.old_id).filter(|id| !id.is_empty());
            let there = secret.secret_path.and_then(|path| RemotePath::parse(&path).ok());
            Ok(Entry {
                remote_id: remote_id.ok_or(ProviderError::Malformed("a secret has no id"))?,
                path: there.as_ref().unwrap_or(&folder).entry(&secret.secret_key),
                key: secret.secret_key,
                value: Some(secret.secret_value),
                version: secret.version.to_string(),
            })
        };
        let entries = shared.into_iter().map(entry).collect::<Result<_, ProviderError>>()?;
        Ok(Page { entries, next: None })
    }

    fn place(&self, path: &RemotePath, _: &[Listed]) -> String {
        format!("{} {} {} {}", self.site, self.project_id, self.environment, self.path.join(path))
    }
}
