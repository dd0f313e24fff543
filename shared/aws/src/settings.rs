//! A tenant's settings, and how it gets on with GitHub.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    id::{Revision, TenantId},
    secret::Secret,
    settings::Settings,
};

use crate::{
    audit::{self, AuditEvent},
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    keys,
    registered::Sealed,
    store::Store,
    table::{Cancelled, item},
    write::{Expression, put},
};

/// Settings as they are stored. Revision 0: nobody has set any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredSettings {
    #[serde(default)]
    pub settings: Settings,
    #[serde(default)]
    pub github: Option<StoredGithub>,
    pub revision: Revision,
    pub created_at: Option<Timestamp>,
    pub updated_at: Option<Timestamp>,
}

impl Default for StoredSettings {
    fn default() -> Self {
        Self { settings: Settings::default(), github: None, revision: Revision(0), created_at: None, updated_at: None }
    }
}

/// How GitHub is reached, with its secrets sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredGithub {
    /// `https://api.github.com`, or a GitHub Enterprise Server's.
    pub api_url: String,
    /// `https://github.com`, for links.
    pub web_url: String,
    pub webhook_secret: SealedSecret,
    pub auth: StoredGithubAuth,
}

/// As what GitHub is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum StoredGithubAuth {
    Token { token: SealedSecret },
    App { app_id: u64, private_key: SealedSecret },
}

/// A sealed value of the settings. Its version is part of its place, so that an older one cannot be put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    pub(crate) sealed: Sealed,
    pub version: u64,
}

/// The secrets of the settings, each with a place of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingsSecret {
    GithubWebhook,
    GithubToken,
    GithubPrivateKey,
}

impl SettingsSecret {
    fn id(self) -> &'static str {
        match self {
            Self::GithubWebhook => "github-webhook",
            Self::GithubToken => "github-token",
            Self::GithubPrivateKey => "github-private-key",
        }
    }

    pub(crate) fn place(self, version: u64) -> Place<'static> {
        Place { kind: "settings", id: self.id(), version }
    }
}

/// What is needed to call GitHub and to believe it.
#[derive(Debug)]
pub struct GithubCredentials {
    pub webhook_secret: Secret<String>,
    pub auth: GithubAuth,
    /// Without a slash at the end.
    pub api_url: String,
    /// Without a slash at the end.
    pub web_url: String,
}

#[derive(Debug)]
pub enum GithubAuth {
    /// A personal or fine-grained access token.
    Token(Secret<String>),
    App {
        app_id: u64,
        private_key_pem: Secret<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Settings,
    Other,
}

impl Store {
    /// What holds for the tenant now: what is stored, and the defaults of all else.
    pub async fn settings(&self, tenant: &TenantId) -> Result<Settings> {
        self.stored_settings(tenant).await.map(|stored| stored.settings)
    }

    pub async fn stored_settings(&self, tenant: &TenantId) -> Result<StoredSettings> {
        Ok(self.table.read(&keys::settings(tenant), "settings").await?.unwrap_or_default())
    }

    /// Opened; none where nobody has set GitHub up.
    pub async fn github(&self, tenant: &TenantId) -> Result<Option<GithubCredentials>> {
        let Some(github) = self.stored_settings(tenant).await?.github else { return Ok(None) };
        let StoredGithub { api_url, web_url, webhook_secret, auth } = github;
        let webhook_secret = self.open_setting(tenant, SettingsSecret::GithubWebhook, &webhook_secret).await?;
        let auth = match auth {
            StoredGithubAuth::Token { token } => {
                GithubAuth::Token(self.open_setting(tenant, SettingsSecret::GithubToken, &token).await?)
            }
            StoredGithubAuth::App { app_id, private_key } => {
                let opened = self.open_setting(tenant, SettingsSecret::GithubPrivateKey, &private_key).await?;
                GithubAuth::App { app_id, private_key_pem: opened }
            }
        };
        Ok(Some(GithubCredentials { webhook_secret, auth, api_url, web_url }))
    }

    /// Seals a value in the place of `old`.
    pub async fn seal_setting(
        &self,
        tenant: &TenantId,
        secret: SettingsSecret,
        old: Option<&SealedSecret>,
        value: &Secret<String>,
    ) -> Result<SealedSecret> {
        let version = old.map_or(0, |old| old.version) + 1;
        let sealed = self.seal(tenant, Purpose::Secret, secret.place(version), value.expose().as_bytes()).await?;
        Ok(SealedSecret { sealed: Sealed(sealed), version })
    }

    async fn open_setting(
        &self,
        tenant: &TenantId,
        secret: SettingsSecret,
        sealed: &SealedSecret,
    ) -> Result<Secret<String>> {
        let SealedSecret { sealed, version } = sealed;
        self.sealer.open_text(&self.table, tenant, Purpose::Secret, secret.place(*version), &sealed.0).await
    }

    /// Puts new settings in the place of `old`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if they have moved on since `old` was read.
    pub async fn replace_settings(
        &self,
        tenant: &TenantId,
        old: &StoredSettings,
        settings: Settings,
        github: Option<StoredGithub>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<StoredSettings> {
        let new = StoredSettings {
            settings,
            github,
            revision: Revision(old.revision.0 + 1),
            created_at: old.created_at.or(Some(now)),
            updated_at: Some(now),
        };
        let condition = if old.revision.0 == 0 { Expression::absent() } else { Expression::revision(old.revision.0) };
        let writes = vec![
            put(Part::Settings, item(&keys::settings(tenant), &new)?, &self.table, Some(condition)),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        match self.table.transact(writes).await {
            Ok(()) => Ok(new),
            Err(Cancelled::Conditions(_)) => Err(StoreError::Conflict),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }

    /// Live deployments of the tenant: how many places of the queue are taken.
    pub async fn queue_length(&self, tenant: &TenantId) -> Result<usize> {
        let queue = self.table.get(&keys::queue(tenant)).await?;
        Ok(queue.and_then(|item| item.get("ids").and_then(|ids| ids.as_ss().ok()).map(Vec::len)).unwrap_or(0))
    }
}
