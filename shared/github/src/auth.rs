//! Who we are to GitHub: a token of somebody's, or an app, which gets a token for each repository that it is installed in.

use std::{collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_domain::{issue::Repository, secret::Secret};

use crate::{Github, error::GithubError};

/// Credentials of a tenant.
#[derive(Debug)]
pub enum Auth {
    /// A personal access token, fine-grained or classic.
    Token(Secret<String>),
    App {
        app_id: u64,
        /// RSA, in PEM, as GitHub hands it out.
        private_key_pem: Secret<String>,
    },
}

/// What is known of ourselves, and what was handed out to us.
#[derive(Default)]
pub(crate) struct Tokens {
    login: Option<String>,
    /// By repository, in lower case.
    installed: HashMap<String, Installed>,
}

struct Installed {
    token: Arc<Secret<String>>,
    expires_at: Timestamp,
}

/// An installation's token lives an hour. It is used until so long before its end, so that none ends on its way.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);
/// GitHub takes at most ten minutes, and its clock may be behind ours.
const JWT_LIFE: SignedDuration = SignedDuration::from_mins(8);
const SKEW: SignedDuration = SignedDuration::from_secs(60);
/// A tenant has few repositories; more than so many are somebody's mistake.
const MAX_INSTALLED: usize = 1_000;

/// Claims of the app's own token (RFC 7519); `iss` is its id.
#[derive(Serialize)]
struct Claims {
    iat: i64,
    exp: i64,
    iss: String,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct App {
    slug: String,
}

#[derive(Deserialize)]
struct Installation {
    id: u64,
}

#[derive(Deserialize)]
struct InstallationToken {
    token: String,
    expires_at: Timestamp,
}

impl Github {
    /// Our own login: whose comments are ours, and whose edits are no requests. Asked for once.
    pub async fn login(&self) -> Result<String, GithubError> {
        let mut tokens = self.tokens.lock().await;
        if let Some(login) = &tokens.login {
            return Ok(login.clone());
        }
        let login = match &*self.auth {
            Auth::Token(token) => self.call::<User>(Method::GET, "/user", token, None).await?.login,
            Auth::App { app_id, private_key_pem } => {
                let jwt = self.jwt(*app_id, private_key_pem)?;
                format!("{}[bot]", self.call::<App>(Method::GET, "/app", &jwt, None).await?.slug)
            }
        };
        tokens.login = Some(login.clone());
        Ok(login)
    }

    /// The token for calls about this repository.
    pub(crate) async fn token(&self, repository: &Repository) -> Result<Arc<Secret<String>>, GithubError> {
        let (app_id, private_key_pem) = match &*self.auth {
            Auth::Token(token) => return Ok(Arc::new(token.duplicate())),
            Auth::App { app_id, private_key_pem } => (*app_id, private_key_pem),
        };
        // Held while one is fetched, so that many messages at once do not fetch many.
        let mut tokens = self.tokens.lock().await;
        let now = (self.clock)();
        tokens.installed.retain(|_, installed| installed.expires_at - MARGIN > now);
        let key = repository.folded();
        if let Some(installed) = tokens.installed.get(&key) {
            return Ok(Arc::clone(&installed.token));
        }
        let jwt = self.jwt(app_id, private_key_pem)?;
        let path = format!("/repos/{repository}/installation");
        let Installation { id } = self.call(Method::GET, &path, &jwt, None).await?;
        let path = format!("/app/installations/{id}/access_tokens");
        // No more than what is needed, and for this repository alone.
        let wanted =
            json!({"repositories": [repository.name()], "permissions": {"issues": "write", "metadata": "read"}});
        let InstallationToken { token, expires_at } = self.call(Method::POST, &path, &jwt, Some(&wanted)).await?;
        let token = Arc::new(Secret::new(token));
        if tokens.installed.len() < MAX_INSTALLED {
            tokens.installed.insert(key, Installed { token: Arc::clone(&token), expires_at });
        }
        Ok(token)
    }

    /// Forgets a token that GitHub does not take any more.
    pub(crate) async fn forget_token(&self, repository: &Repository) {
        self.tokens.lock().await.installed.remove(&repository.folded());
    }

    fn jwt(&self, app_id: u64, private_key_pem: &Secret<String>) -> Result<Secret<String>, GithubError> {
        let now = (self.clock)();
        let claims =
            Claims { iat: (now - SKEW).as_second(), exp: (now + JWT_LIFE).as_second(), iss: app_id.to_string() };
        let key = EncodingKey::from_rsa_pem(private_key_pem.expose().as_bytes()).map_err(|_| GithubError::BadKey)?;
        let jwt = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key);
        jwt.map(Secret::new).map_err(|_| GithubError::BadKey)
    }
}
