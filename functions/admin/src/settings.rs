//! The tenant's settings: limits, the queue, approvals, GitHub.

use axum::{extract::State, response::Response};
use jiff::Timestamp;
use jsonwebtoken::EncodingKey;
use serde::Serialize;
use tidegate_aws::{
    settings::{SealedSecret, SettingsSecret, StoredGithub, StoredGithubAuth, StoredSettings},
    store::Store,
};
use tidegate_domain::{
    id::{Revision, TenantId},
    invalid::Invalid,
    limit::Limits,
    secret::{MASK, Secret},
    settings::{ClassLimits, MAX_APPROVAL_TIMEOUT_MINUTES, MAX_CAPACITY, QueueSettings, Settings},
};
use tidegate_web::{
    Problem,
    auth::Administer,
    body::JsonBody,
    conditional::Conditions,
    form::{Form, within},
};
use url::{Host, Url};

use crate::{
    AdminState,
    call::{Call, Race, answer_change},
    masked::{self, SecretField},
};

const GITHUB_API: &str = "https://api.github.com";
const GITHUB_WEB: &str = "https://github.com";
/// So short a secret can be guessed from one signed body.
const SHORTEST_WEBHOOK_SECRET: usize = 16;
/// More is no limit that anybody could notice.
const MOST_REQUESTS: u32 = 1_000_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    #[serde(flatten)]
    settings: Settings,
    /// Null where nobody has set it up.
    github: Option<GithubView>,
    /// 0 as long as nobody has set anything.
    revision: Revision,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GithubView {
    api_url: String,
    web_url: String,
    webhook_secret: &'static str,
    /// Either this, or `appId` and `privateKey`.
    token: Option<&'static str>,
    app_id: Option<u64>,
    private_key: Option<&'static str>,
}

impl From<StoredSettings> for View {
    fn from(stored: StoredSettings) -> Self {
        let StoredSettings { settings, github, revision, created_at, updated_at } = stored;
        Self { settings, github: github.map(GithubView::from), revision, created_at, updated_at }
    }
}

impl From<StoredGithub> for GithubView {
    fn from(stored: StoredGithub) -> Self {
        let (token, app_id) = match stored.auth {
            StoredGithubAuth::Token { .. } => (Some(MASK), None),
            StoredGithubAuth::App { app_id, .. } => (None, Some(app_id)),
        };
        let StoredGithub { api_url, web_url, .. } = stored;
        Self { api_url, web_url, webhook_secret: MASK, token, app_id, private_key: app_id.map(|_| MASK) }
    }
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Administer>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let stored = state.store.stored_settings(call.tenant()).await?;
    Ok(conditions.answer(stored.revision, View::from(stored)))
}

pub(crate) async fn change(
    State(state): State<AdminState>,
    call: Call<Administer>,
    conditions: Conditions,
    body: JsonBody,
) -> Result<Response, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let mut race = Race::new(&conditions);
    loop {
        let old = store.stored_settings(tenant).await?;
        conditions.allow_change(old.revision)?;
        let mut form = Form::of_body(body.value.clone())?;
        form.read_only(&["revision", "createdAt", "updatedAt"]);
        let Parsed { settings, github } = read(form, &old)?;
        let github = match github {
            Some(github) => Some(seal(store, tenant, old.github.as_ref(), github).await?),
            None => None,
        };
        let event = call.event("settings.updated", "settings".to_owned());
        match store.replace_settings(tenant, &old, settings, github, call.now, &event).await {
            Ok(stored) => return Ok(answer_change(stored.revision, View::from(stored))),
            Err(error) => race.lost(error).await?,
        }
    }
}

struct Parsed {
    settings: Settings,
    github: Option<ParsedGithub>,
}

/// GitHub whose secrets are not sealed yet.
struct ParsedGithub {
    api_url: String,
    web_url: String,
    webhook_secret: SecretField,
    auth: ParsedAuth,
}

enum ParsedAuth {
    Token(SecretField),
    App(u64, SecretField),
}

/// What is left out stays as it is; `null` in the place of an object stands for its defaults.
fn read(mut form: Form, stored: &StoredSettings) -> Result<Parsed, Problem> {
    let old = &stored.settings;
    let limits = form.object("limits", Some(old.limits), |form| {
        let open = form.object("open", Some(old.limits.open), |form| limits(form, Some(old.limits.open)));
        let trusted = form.object("trusted", Some(old.limits.trusted), |form| limits(form, Some(old.limits.trusted)));
        let default = ClassLimits::default();
        Some(ClassLimits { open: open.unwrap_or(default.open), trusted: trusted.unwrap_or(default.trusted) })
    });
    let queue = form.object("queue", Some(old.queue), |form| Some(queue(form, old.queue)));
    let approval_timeout_minutes =
        form.defaulted("approvalTimeoutMinutes", old.approval_timeout_minutes, within(1, MAX_APPROVAL_TIMEOUT_MINUTES));
    let github = match &stored.github {
        None if !form.has("github") => None,
        kept => {
            let unchanged = kept.as_ref().map(ParsedGithub::unchanged);
            form.object("github", unchanged, |form| github(form, kept.as_ref()))
        }
    };
    form.finish(|| {
        let (limits, queue) = (limits.unwrap_or_default(), queue.unwrap_or_default());
        Some(Parsed { settings: Settings { limits, queue, approval_timeout_minutes }, github })
    })
}

/// Also those of an application. All three must be said, unless they are stored.
pub(crate) fn limits(form: &mut Form, stored: Option<Limits>) -> Option<Limits> {
    let mut limit =
        |field, of: fn(&Limits) -> u32| form.required(field, stored.as_ref().map(of), within(0, MOST_REQUESTS));
    let per_user = limit("perUser", |limits| limits.per_user);
    let per_ip = limit("perIp", |limits| limits.per_ip);
    let total = limit("total", |limits| limits.total);
    Some(Limits { per_user: per_user?, per_ip: per_ip?, total: total? })
}

fn queue(form: &mut Form, old: QueueSettings) -> QueueSettings {
    let capacity = form.defaulted("capacity", old.capacity, within(1, MAX_CAPACITY));
    let reserved = form.defaulted("reserved", old.reserved, within(0, MAX_CAPACITY - 1));
    if reserved >= capacity {
        let why = "leaves no place for those without priority";
        form.refuse("reserved", Invalid::new("out-of-range", why, "send less than capacity"));
    }
    QueueSettings { capacity, reserved }
}

impl ParsedGithub {
    fn unchanged(stored: &StoredGithub) -> Self {
        let auth = match &stored.auth {
            StoredGithubAuth::Token { .. } => ParsedAuth::Token(SecretField::Keep),
            StoredGithubAuth::App { app_id, .. } => ParsedAuth::App(*app_id, SecretField::Keep),
        };
        Self {
            api_url: stored.api_url.clone(),
            web_url: stored.web_url.clone(),
            webhook_secret: SecretField::Keep,
            auth,
        }
    }
}

fn github(form: &mut Form, stored: Option<&StoredGithub>) -> Option<ParsedGithub> {
    let old_api = stored.map_or(GITHUB_API, |stored| &stored.api_url);
    let api_url = form.defaulted("apiUrl", old_api.to_owned(), |text: String| server(&text));
    // Credentials only ever go to the server that they were given for: kept ones would go to another.
    let kept = stored.filter(|stored| stored.api_url == api_url);
    let web_url = kept.map_or_else(|| web_of(&api_url), |kept| kept.web_url.clone());
    let web_url = form.defaulted("webUrl", web_url, |text: String| server(&text));
    let webhook_secret = masked::secret(form, "webhookSecret", stored.is_some());
    if let Some(SecretField::New(secret)) = &webhook_secret
        && secret.expose().len() < SHORTEST_WEBHOOK_SECRET
    {
        let why = format!("has less than {SHORTEST_WEBHOOK_SECRET} characters");
        form.refuse(
            "webhookSecret",
            Invalid::new("too-short", why, "make a long random one, and give it to GitHub too"),
        );
    }
    let (kept_token, kept_app) = match kept.map(|kept| &kept.auth) {
        Some(StoredGithubAuth::Token { .. }) => (true, None),
        Some(StoredGithubAuth::App { app_id, .. }) => (false, Some(*app_id)),
        None => (false, None),
    };
    let faults = form.faults();
    let token = masked::optional(form, "token", kept_token, |token| {
        let is_one = !token.expose().is_empty() && token.expose().bytes().all(|b| b.is_ascii_graphic());
        let refused = || Invalid::new("format-token", "cannot be a token", "copy it from GitHub, without spaces");
        is_one.then_some(()).ok_or_else(refused)
    });
    let app_id = form.nullable("appId", kept_app, within(1, u64::MAX));
    let private_key = masked::optional(form, "privateKey", kept_app.is_some(), private_key);
    let auth = match (token, app_id, private_key) {
        (Some(token), None, None) => Some(ParsedAuth::Token(token)),
        (None, Some(app_id), Some(key)) => Some(ParsedAuth::App(app_id, key)),
        // One of them is wrong by itself, and that was said.
        _ if form.faults() > faults => None,
        (None, _, _) => {
            let suggestion = "send a token, or appId and privateKey";
            form.refuse("token", Invalid::new("missing", "is required without an app", suggestion));
            None
        }
        (Some(_), _, _) => {
            let suggestion = "send null in the place of what is not wanted any more";
            form.refuse("token", Invalid::new("either-or", "does not go with an app", suggestion));
            None
        }
    };
    Some(ParsedGithub { api_url, web_url, webhook_secret: webhook_secret?, auth: auth? })
}

/// `https://ghe.example.com/api/v3`: without user, query and fragment, and without a slash at the end. Plain HTTP only where
/// nothing leaves the machine.
fn server(text: &str) -> Result<String, Invalid> {
    let refused =
        || Invalid::new("format-url", "is not the address of a server", "send https://, a host, and a path if any");
    let url = Url::parse(text).map_err(|_| refused())?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let is_loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(refused()),
    };
    if !plain || !(url.scheme() == "https" || url.scheme() == "http" && is_loopback) {
        return Err(refused());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Where people look at what this server has.
fn web_of(api_url: &str) -> String {
    if api_url == GITHUB_API {
        return GITHUB_WEB.to_owned();
    }
    Url::parse(api_url).map_or_else(|_| api_url.to_owned(), |url| url.origin().ascii_serialization())
}

fn private_key(pem: &Secret<String>) -> Result<(), Invalid> {
    let refused = |_| {
        let suggestion = "send the whole file that GitHub made for the app, from BEGIN to END";
        Invalid::new("format-private-key", "is not an RSA private key in PEM", suggestion)
    };
    EncodingKey::from_rsa_pem(pem.expose().as_bytes()).map(|_| ()).map_err(refused)
}

async fn seal(
    store: &Store,
    tenant: &TenantId,
    old: Option<&StoredGithub>,
    parsed: ParsedGithub,
) -> Result<StoredGithub, Problem> {
    let seal = async |secret, old: Option<&SealedSecret>, field| match (field, old) {
        (SecretField::Keep, Some(old)) => Ok(old.clone()),
        (SecretField::Keep, None) => Err(Problem::internal()),
        (SecretField::New(value), old) => Ok(store.seal_setting(tenant, secret, old, &value).await?),
    };
    let (token, private_key) = match old.map(|old| &old.auth) {
        Some(StoredGithubAuth::Token { token }) => (Some(token), None),
        Some(StoredGithubAuth::App { private_key, .. }) => (None, Some(private_key)),
        None => (None, None),
    };
    let ParsedGithub { api_url, web_url, webhook_secret, auth } = parsed;
    let webhook_secret = seal(SettingsSecret::GithubWebhook, old.map(|o| &o.webhook_secret), webhook_secret).await?;
    let auth = match auth {
        ParsedAuth::Token(field) => {
            StoredGithubAuth::Token { token: seal(SettingsSecret::GithubToken, token, field).await? }
        }
        ParsedAuth::App(app_id, field) => StoredGithubAuth::App {
            app_id,
            private_key: seal(SettingsSecret::GithubPrivateKey, private_key, field).await?,
        },
    };
    Ok(StoredGithub { api_url, web_url, webhook_secret, auth })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_reached_by_https_or_on_this_machine() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(server(text).ok().as_deref(), expect, "{text}");
        check("https://api.github.com", Some(GITHUB_API));
        check("https://ghe.example.com/api/v3/", Some("https://ghe.example.com/api/v3"));
        check("http://127.0.0.1:9", Some("http://127.0.0.1:9"));
        check("http://[::1]:9/api", Some("http://[::1]:9/api"));
        for wrong in [
            "http://ghe.example.com",
            "https://me:pw@ghe.example.com",
            "https://ghe.example.com/?x=1",
            "https://ghe.example.com/#x",
            "ftp://127.0.0.1",
            "http://127.0.0.1.example.com",
            "ghe.example.com",
            "",
        ] {
            check(wrong, None);
        }
        assert_eq!(web_of(GITHUB_API), GITHUB_WEB);
        assert_eq!(web_of("https://ghe.example.com/api/v3"), "https://ghe.example.com");
    }
}
