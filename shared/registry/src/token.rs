//! What a request is signed with: the credentials, or a token that they were exchanged for.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::Deserialize;
use tidegate_domain::{job::Credentials, secret::Secret};
use zeroize::Zeroizing;

use crate::{Registry, Unresolved, body};

/// Of a token server's answer.
const MAX_BYTES: usize = 64 * 1024;

/// Either name, by the distribution specification; a server that gives both means the same.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Registry {
    pub(crate) async fn token(&self, url: Url, credentials: Option<&Credentials>) -> Result<HeaderValue, Unresolved> {
        let mut request = self.client(&url).await?.get(url);
        if let Some(credentials) = credentials {
            request = request.header(AUTHORIZATION, basic(credentials)?);
        }
        let answer = request.send().await.map_err(Unresolved::http)?;
        let status = answer.status();
        if !status.is_success() {
            // A token server knows nothing of tags.
            return Err(match Unresolved::status(status.as_u16(), credentials.is_some()) {
                Unresolved::NotFound => Unresolved::Malformed("its token server is not there"),
                other => other,
            });
        }
        let body = Zeroizing::new(body(answer, MAX_BYTES).await?);
        let unusable = Unresolved::Malformed("its token server gives no token");
        let Ok(Answer { token, access_token }) = serde_json::from_slice(&body) else { return Err(unusable) };
        let (token, access_token) = (Secret::new(token), Secret::new(access_token));
        let token = if token.expose().is_empty() { access_token } else { token };
        if token.expose().is_empty() {
            return Err(unusable);
        }
        header("Bearer", token.expose()).ok_or(unusable)
    }
}

/// UTF-8, as Docker sends it (RFC 7617).
pub(crate) fn basic(credentials: &Credentials) -> Result<HeaderValue, Unresolved> {
    let both = Zeroizing::new(format!("{}:{}", credentials.username, credentials.password.expose()));
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(both.as_bytes()));
    header("Basic", &encoded).ok_or(Unresolved::Denied { with_credentials: true })
}

/// Not shown by anything that prints a request.
fn header(scheme: &str, value: &str) -> Option<HeaderValue> {
    let text = Zeroizing::new(format!("{scheme} {value}"));
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
