//! A client of GitHub for each tenant, kept for as long as its credentials stay as they are: an app's tokens are good for
//! an hour.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::hmac;
use tidegate_aws::{
    applications::sha256_hex,
    clock,
    settings::{GithubAuth, GithubCredentials},
    store::Store,
};
use tidegate_domain::{id::TenantId, secret::Secret};
use tidegate_github::{Auth, Github};

use crate::Trouble;

/// More tenants than one process can have to do with in an hour.
const MOST: usize = 1_000;

#[derive(Debug, Clone, Default)]
pub(crate) struct Clients {
    /// With a hash of the credentials that each was made with.
    kept: Arc<Mutex<HashMap<TenantId, (String, Github)>>>,
}

/// What a tenant's issues are handled with.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) github: Github,
    webhook_secret: Secret<String>,
}

impl Clients {
    pub(crate) async fn of(&self, store: &Store, tenant: &TenantId) -> Result<Access, Trouble> {
        let credentials = store.github(tenant).await?.ok_or(Trouble::NoCredentials)?;
        let GithubCredentials { webhook_secret, auth, api_url, .. } = credentials;
        let (kind, secret) = match &auth {
            GithubAuth::Token(token) => ("token".to_owned(), token.expose()),
            GithubAuth::App { app_id, private_key_pem } => (format!("app {app_id}"), private_key_pem.expose()),
        };
        let made_with = sha256_hex(format!("{api_url}\n{kind}\n{}", sha256_hex(secret.as_bytes())).as_bytes());
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        if let Some((before, github)) = kept
            && before == made_with
        {
            return Ok(Access { github, webhook_secret });
        }
        let auth = match auth {
            GithubAuth::Token(token) => Auth::Token(token),
            GithubAuth::App { app_id, private_key_pem } => Auth::App { app_id, private_key_pem },
        };
        let github = Github::new(&api_url, auth, clock::now)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(tenant.clone(), (made_with, github.clone()));
        Ok(Access { github, webhook_secret })
    }
}

impl Access {
    /// What names a request without telling anything of it: everybody who can read the issue sees it. Hexadecimal digits.
    pub(crate) fn name(&self, parts: &[&str]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.webhook_secret.expose().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        for part in parts {
            // Each with its length, so that no two lists have the same bytes.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().iter().fold(String::new(), |mut hex, byte| {
            use std::fmt::Write as _;
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
            hex
        })
    }
}
