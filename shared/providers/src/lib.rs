//! Outside sources of secrets, all behind one trait, and the sync that keeps groups as the sources have them.
//!
//! A source is a stranger: it is reached by `https` alone (or inside this machine), no redirect of its is followed, its
//! answers are bounded in size and time, and what it says of an error is not repeated. A further source is a file beside
//! [`infisical`], a variant of [`ProviderType`] and one of [`Connection`]; the compiler names the rest.

pub mod aws_secrets_manager;
pub mod error;
pub mod field;
mod http;
pub mod infisical;
pub mod sync;

use std::{future::Future, time::Duration};

use tidegate_domain::{
    provider::{ProviderType, RemotePath},
    secret::Secret,
    sync::Listed,
};

pub use error::ProviderError;
pub use field::{Field, Need, Settings};
pub use sync::Syncer;

use crate::{aws_secrets_manager::AwsSecretsManager, infisical::Infisical};

/// One secret of a source.
#[derive(Debug)]
pub struct Entry {
    /// What the source knows it by, whatever it is named.
    pub remote_id: String,
    /// Where the source keeps it: `/prod/DATABASE_URL`.
    pub path: String,
    pub key: String,
    /// None: it is not text.
    pub value: Option<Secret<String>>,
    /// By the source's own count. Two values may share one, so that values are what is compared.
    pub version: String,
}

/// Some entries of a folder, and where the next ones begin.
#[derive(Debug)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// None: that was the last page.
    pub next: Option<String>,
}

/// What every source can do. Neither call changes anything there.
pub trait Provider {
    /// Whether the credentials are right and the configured folder can be read, values included.
    fn check(&self) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// One page of what stands right in a folder, from the beginning or from where a page before it ended.
    fn list(&self, path: &RemotePath, after: Option<&str>) -> impl Future<Output = Result<Page, ProviderError>> + Send;

    /// Which of all folders of all sources that is, after what was listed there: the same text only for the same folder.
    fn place(&self, path: &RemotePath, listing: &[Listed]) -> String;
}

/// A source as it is configured.
#[derive(Debug)]
pub enum Connection {
    Infisical(Box<Infisical>),
    AwsSecretsManager(AwsSecretsManager),
}

impl Connection {
    /// Nothing is asked yet. One request takes at most `patience`, with its retries.
    ///
    /// # Errors
    /// [`ProviderError::Misconfigured`] for settings that were not checked by [`fields`] and [`field::faults`].
    pub async fn new(kind: ProviderType, settings: Settings, patience: Duration) -> Result<Self, ProviderError> {
        match kind {
            ProviderType::Infisical => Infisical::new(settings, patience).map(Box::new).map(Self::Infisical),
            ProviderType::AwsSecretsManager => {
                AwsSecretsManager::new(&settings, patience).await.map(Self::AwsSecretsManager)
            }
        }
    }

    /// All of a folder.
    ///
    /// # Errors
    /// The first one of any page: half a list is none.
    pub async fn all(&self, path: &RemotePath) -> Result<Vec<Listed>, ProviderError> {
        let (mut all, mut bytes): (Vec<Listed>, usize) = (Vec::new(), 0);
        let mut after: Option<String> = None;
        loop {
            let page = self.list(path, after.as_deref()).await?;
            for Entry { remote_id, path, key, value, version: _ } in page.entries {
                bytes += value.as_ref().map_or(0, |value| value.expose().len());
                all.push(Listed { remote_id, key, reference: path, value });
            }
            if all.len() > MAX_ENTRIES || bytes > MAX_BYTES {
                return Err(ProviderError::TooLarge);
            }
            if page.next.is_some() && page.next == after {
                return Err(ProviderError::Malformed("its pages go round in a circle"));
            }
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }
}

/// A folder of more is somebody's mistake, and would not fit into a function's memory.
const MAX_ENTRIES: usize = 10_000;
const MAX_BYTES: usize = 24 * 1024 * 1024;

impl Provider for Connection {
    async fn check(&self) -> Result<(), ProviderError> {
        match self {
            Self::Infisical(source) => source.check().await,
            Self::AwsSecretsManager(source) => source.check().await,
        }
    }

    async fn list(&self, path: &RemotePath, after: Option<&str>) -> Result<Page, ProviderError> {
        match self {
            Self::Infisical(source) => source.list(path, after).await,
            Self::AwsSecretsManager(source) => source.list(path, after).await,
        }
    }

    fn place(&self, path: &RemotePath, listing: &[Listed]) -> String {
        match self {
            Self::Infisical(source) => source.place(path, listing),
            Self::AwsSecretsManager(source) => source.place(path, listing),
        }
    }
}

/// What is configured of a kind of source.
pub fn fields(kind: ProviderType) -> &'static [Field] {
    match kind {
        ProviderType::Infisical => infisical::FIELDS,
        ProviderType::AwsSecretsManager => aws_secrets_manager::FIELDS,
    }
}
