//! The issuer's public keys, fetched when needed and kept (RFC 7517).

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, Jwk},
};
use tokio::sync::{Mutex, OnceCell};

use crate::problem::Problem;

/// For connection and answer together; the caller of the API waits meanwhile.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// An unknown key id asks the issuer again at most so often, or anybody could make us ask.
const AFTER_SUCCESS: Duration = Duration::from_mins(1);
/// A failed fetch is repeated sooner, because nobody can sign in meanwhile.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// Keys older than this are fetched again, so that a withdrawn one stops working.
const MAX_AGE: Duration = Duration::from_hours(1);
const MAX_BYTES: usize = 64 * 1024;

type Keys = Arc<HashMap<String, Arc<DecodingKey>>>;

pub(crate) struct KeySet {
    url: String,
    /// Made late: loading the system's root certificates is most of a cold start.
    client: OnceCell<reqwest::Client>,
    keys: RwLock<Keys>,
    last: Mutex<Option<Attempt>>,
}

#[derive(Clone, Copy)]
struct Attempt {
    at: Instant,
    succeeded: bool,
}

impl Attempt {
    fn is_over(self) -> bool {
        self.at.elapsed() >= if self.succeeded { AFTER_SUCCESS } else { AFTER_FAILURE }
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the issuer's key set cannot be fetched")]
    Http(#[from] reqwest::Error),
    #[error("the issuer's key set is larger than {MAX_BYTES} bytes")]
    TooLarge,
    #[error("the issuer's key set cannot be read")]
    Format(#[from] serde_json::Error),
}

#[derive(serde::Deserialize)]
struct Document {
    /// One by one: a key of a kind that we do not know must not hide the others.
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    pub(crate) fn new(url: String) -> Self {
        Self { url, client: OnceCell::new(), keys: RwLock::default(), last: Mutex::new(None) }
    }

    fn known(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(kid).cloned()
    }

    /// The key of this id, if the issuer has it.
    ///
    /// # Errors
    /// 503 if that cannot be found out.
    pub(crate) async fn find(&self, kid: &str) -> Result<Option<Arc<DecodingKey>>, Problem> {
        let known = self.known(kid);
        if known.is_some() {
            // Whoever refreshes already does it for all; nobody waits for a refresh of a key that is there.
            if let Ok(mut last) = self.last.try_lock()
                && last.is_none_or(|attempt| attempt.at.elapsed() >= MAX_AGE)
            {
                self.refresh(&mut last).await;
                return Ok(if last.is_some_and(|attempt| attempt.succeeded) { self.known(kid) } else { known });
            }
            return Ok(known);
        }
        let mut last = self.last.lock().await;
        if let Some(key) = self.known(kid) {
            return Ok(Some(key));
        }
        if last.is_none_or(Attempt::is_over) {
            self.refresh(&mut last).await;
        }
        match *last {
            Some(Attempt { succeeded: true, .. }) => Ok(self.known(kid)),
            Some(Attempt { succeeded: false, .. }) | None => Err(Problem::away("The issuer of sign-in tokens")),
        }
    }

    async fn refresh(&self, last: &mut Option<Attempt>) {
        let fetched = self.fetch().await;
        *last = Some(Attempt { at: Instant::now(), succeeded: fetched.is_ok() });
        match fetched {
            Ok(keys) => *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys),
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "no keys to verify tokens with"),
        }
    }

    async fn fetch(&self) -> Result<HashMap<String, Arc<DecodingKey>>, FetchError> {
        let build = async || {
            reqwest::Client::builder().timeout(FETCH_TIMEOUT).redirect(reqwest::redirect::Policy::none()).build()
        };
        let client = self.client.get_or_try_init(build).await?;
        let mut response = client.get(&self.url).send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let document: Document = serde_json::from_slice(&body)?;
        Ok(document.keys.into_iter().filter_map(usable).collect())
    }
}

/// RSA keys with an id; others cannot sign what we accept.
fn usable(key: serde_json::Value) -> Option<(String, Arc<DecodingKey>)> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let AlgorithmParameters::RSA(_) = &jwk.algorithm else { return None };
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    Some((jwk.common.key_id?, Arc::new(decoding)))
}
