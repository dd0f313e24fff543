//! Secrets as a sync writes them: each in a transaction that counts it and that fails once the lease is another's.

use jiff::Timestamp;
use tidegate_domain::{
    id::{SecretGroupId, SecretId, SecretProviderId, TenantId},
    secret::Secret,
    sync::{Known, Link},
    sync_run::Written,
};

use crate::{
    audit::AuditEvent,
    catalogue::Stored,
    error::{Result, StoreError},
    registered::{Source, StoredSecret},
    secrets::{NewSecret, SecretChange},
    store::Store,
    syncs::SyncLease,
};

/// What a source's secret is here.
#[derive(Debug, Clone, Copy)]
pub struct There<'a> {
    pub remote_id: &'a str,
    pub reference: &'a str,
    /// The folder that was listed, as [`tidegate_domain::sync::Rules`] has it.
    pub place: &'a str,
}

/// What is to become of a secret that is there.
#[derive(Debug)]
pub enum SyncedChange<'a> {
    Rename { to: &'a str, there: Option<There<'a>> },
    Update { there: There<'a>, value: Option<Secret<String>> },
    Adopt { there: There<'a>, value: Option<Secret<String>> },
    MarkStale,
}

fn source(provider: SecretProviderId, there: There<'_>) -> Source {
    let There { remote_id, reference, place } = there;
    Source::Synced {
        provider_id: provider,
        remote_id: remote_id.to_owned(),
        remote_path: reference.to_owned(),
        place: place.to_owned(),
        stale: false,
    }
}

impl Store {
    /// All secrets of a group, by id.
    pub async fn all_of_group(&self, tenant: &TenantId, group: SecretGroupId) -> Result<Vec<Stored<StoredSecret>>> {
        let names = self.names_of_group(tenant, group).await?;
        let ids: Vec<u64> = names.iter().map(|(_, id)| id.0).collect();
        let mut secrets = self.find_many::<StoredSecret>(tenant, &ids).await?;
        // Moved to another group between the two reads.
        secrets.retain(|secret| secret.body.group_id == group);
        secrets.sort_by_key(|secret| secret.id);
        Ok(secrets)
    }

    /// As a plan is made from it, its value opened.
    pub async fn known_secret(&self, tenant: &TenantId, secret: &Stored<StoredSecret>) -> Result<Known> {
        let value = match self.open_secret(tenant, secret.id, &secret.body).await {
            Ok(value) => Some(value),
            Err(StoreError::Corrupt { .. }) => None,
            Err(other) => return Err(other),
        };
        let link = match &secret.body.source {
            Source::Manual => Link::Manual,
            Source::Synced { provider_id, remote_id, remote_path, place, stale } => Link::Synced {
                provider: *provider_id,
                remote_id: remote_id.clone(),
                reference: remote_path.clone(),
                place: place.clone(),
                stale: *stale,
            },
        };
        let name = secret.body.name.clone();
        Ok(Known { id: SecretId(secret.id), name, value, link, is_used: secret.uses > 0 })
    }

    /// # Errors
    /// [`StoreError::Conflict`] if the lease is another's, [`StoreError::NameTaken`] if somebody was faster.
    pub async fn add_synced(
        &self,
        lease: &SyncLease,
        group: SecretGroupId,
        name: &str,
        there: There<'_>,
        value: Secret<String>,
        now: Timestamp,
    ) -> Result<()> {
        let source = source(lease.provider, there);
        let new = NewSecret { group_id: group, name: name.to_owned(), value, source, expires_at: None };
        let stored = self.new_secret(&lease.tenant, new, now).await?;
        let fence = self.fenced(lease, Written { added: 1, ..Written::default() }, now);
        let event = event(lease, "secret.created", stored.id);
        self.create_secret_with(&lease.tenant, &stored, None, &event, vec![fence]).await.map(|_| ())
    }

    /// What is stored then.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the lease is another's, or the secret has moved on.
    pub async fn change_synced(
        &self,
        lease: &SyncLease,
        old: &Stored<StoredSecret>,
        change: SyncedChange<'_>,
        now: Timestamp,
    ) -> Result<Stored<StoredSecret>> {
        let mut new = SecretChange::none(&old.body);
        let mut written = Written::default();
        let action = match change {
            SyncedChange::Rename { to, there } => {
                to.clone_into(&mut new.name);
                if let Some(there) = there {
                    new.source = source(lease.provider, there);
                    written.renamed = 1;
                }
                "secret.renamed"
            }
            SyncedChange::Update { there, value } => {
                // A new link alone is the same secret, and nothing that anybody would see.
                written.updated = u64::from(value.is_some());
                new.source = source(lease.provider, there);
                new.value = value;
                "secret.updated"
            }
            SyncedChange::Adopt { there, value } => {
                written.updated = 1;
                new.source = source(lease.provider, there);
                new.value = value;
                "secret.adopted"
            }
            SyncedChange::MarkStale => {
                written.removed = 1;
                if let Source::Synced { stale, .. } = &mut new.source {
                    *stale = true;
                }
                "secret.stale"
            }
        };
        let (event, fence) = (event(lease, action, old.id), self.fenced(lease, written, now));
        self.change_secret_with(&lease.tenant, old, new, now, &event, vec![fence]).await
    }

    /// # Errors
    /// [`StoreError::Conflict`] as above; [`StoreError::InUse`] if something refers to it by now.
    pub async fn delete_synced(&self, lease: &SyncLease, old: &Stored<StoredSecret>, now: Timestamp) -> Result<()> {
        let fence = self.fenced(lease, Written { removed: 1, ..Written::default() }, now);
        let event = event(lease, "secret.deleted", old.id);
        self.delete_secret_with(&lease.tenant, old, now, &event, vec![fence]).await
    }
}

/// Who has asked for the run stands in its log and in the event of the request.
fn event(lease: &SyncLease, action: &str, secret: u64) -> AuditEvent {
    AuditEvent {
        actor: format!("secret provider {}", lease.provider),
        action: action.to_owned(),
        subject: format!("secret/{secret}"),
        source_ip: None,
        request_id: None,
    }
}
