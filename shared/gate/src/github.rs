//! A client of GitHub for each tenant, kept for as long as its credentials stay as they are: an app's tokens are good for
//! an hour.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use tidegate_aws::{
    applications::sha256_hex,
    clock,
    error::StoreError,
    settings::{GithubAuth, GithubCredentials},
    store::Store,
};
use tidegate_domain::id::TenantId;
use tidegate_github::{Auth, Github, GithubError};

/// More tenants than one process can have to do with in an hour.
const MOST: usize = 1_000;

/// Why GitHub cannot be asked, or does not say.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    #[error("GitHub did not do it")]
    Github(#[from] GithubError),
    #[error("the store did not do it")]
    Store(#[from] StoreError),
    #[error("the tenant has no GitHub credentials")]
    NoCredentials,
}

impl Unreachable {
    /// Nothing is to be asked before this time; none where nobody has named one.
    pub fn until(&self) -> Option<Timestamp> {
        if let Self::Github(GithubError::RateLimited { until }) = self { Some(*until) } else { None }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Clients {
    /// With a hash of the credentials that each was made with.
    kept: Arc<Mutex<HashMap<TenantId, (String, Github)>>>,
}

impl Clients {
    pub(crate) async fn of(&self, store: &Store, tenant: &TenantId) -> Result<Github, Unreachable> {
        let credentials = store.github(tenant).await?.ok_or(Unreachable::NoCredentials)?;
        let GithubCredentials { auth, api_url, .. } = credentials;
        let (kind, secret) = match &auth {
            GithubAuth::Token(token) => ("token".to_owned(), token.expose()),
            GithubAuth::App { app_id, private_key_pem } => (format!("app {app_id}"), private_key_pem.expose()),
        };
        let made_with = sha256_hex(format!("{api_url}\n{kind}\n{}", sha256_hex(secret.as_bytes())).as_bytes());
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned();
        if let Some((before, github)) = kept
            && before == made_with
        {
            return Ok(github);
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
        Ok(github)
    }
}
