//! The little of GitHub's REST API that issues need.
//!
//! Every call is one request with a time limit, follows no redirect, and gives an error that says what to do about it:
//! wait until a time, try later, or give up. Nothing is tried again here; whoever calls has a queue for that. Before a time
//! that GitHub has named nothing is sent.

pub mod auth;
mod call;
pub mod error;
pub mod event;
pub mod issues;

pub use auth::Auth;
pub use error::GithubError;

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::auth::Tokens;

/// For one request, with its connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client of one GitHub, with one tenant's credentials. Clones share their connections and tokens.
#[derive(Clone)]
pub struct Github {
    http: reqwest::Client,
    /// `https://api.github.com`, or `https://HOST/api/v3` of a GitHub Enterprise Server; without a slash at the end.
    api_url: Arc<str>,
    auth: Arc<Auth>,
    tokens: Arc<Mutex<Tokens>>,
    clock: fn() -> Timestamp,
    limited: Limited,
}

/// Until when GitHub wants no more requests. Asking all the same would make it longer.
#[derive(Clone, Default)]
struct Limited(Arc<std::sync::Mutex<Option<Timestamp>>>);

impl Limited {
    fn until(&self, now: Timestamp) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).filter(|until| *until > now)
    }

    fn note(&self, until: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = (*kept).max(Some(until));
    }
}

impl std::fmt::Debug for Github {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Github").field("api_url", &self.api_url).finish_non_exhaustive()
    }
}

impl Github {
    /// # Errors
    /// An address that is neither `https` nor of this machine: credentials never travel in the clear. No root certificates.
    pub fn new(api_url: &str, auth: Auth, clock: fn() -> Timestamp) -> Result<Self, GithubError> {
        let url = reqwest::Url::parse(api_url).map_err(|_| GithubError::BadAddress)?;
        let is_local = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if url.scheme() != "https" && !(url.scheme() == "http" && is_local) {
            return Err(GithubError::BadAddress);
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(GithubError::BadAddress);
        }
        let http = reqwest::Client::builder()
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            // A moved repository answers with one. Its new name is nobody's registered repository.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| GithubError::Away { source: Box::new(error) })?;
        Ok(Self {
            http,
            api_url: api_url.trim_end_matches('/').into(),
            auth: Arc::new(auth),
            tokens: Arc::default(),
            clock,
            limited: Limited::default(),
        })
    }
}
