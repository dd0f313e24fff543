//! Outside sources of secrets, as they are registered.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    id::{SecretProviderId, TenantId},
    provider::{OnConflict, OnRemoved, ProviderType},
    secret::Secret,
    sync_run::SyncState,
};

use crate::{
    audit::AuditEvent,
    catalogue::{Created, Part, Replay, Resource, Stored},
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    keys::{self, Kind},
    registered::{Sealed, SecretGroup, Source, StoredSecret},
    store::Store,
    table::item,
    write::{Expression, delete, put},
};

/// A refused deletion names so many of the secrets that came from it.
const SECRETS_NAMED: usize = 100;

/// What its fields mean, shared/providers knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretProvider {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: ProviderType,
    pub settings: BTreeMap<String, String>,
    pub credentials: BTreeMap<String, SealedCredential>,
    pub auto_sync: bool,
    pub sync_interval_minutes: u32,
    #[serde(default)]
    pub on_conflict: OnConflict,
    #[serde(default)]
    pub on_removed: OnRemoved,
}

/// Its version is part of its place, so that an older one cannot be put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCredential {
    pub(crate) sealed: Sealed,
    pub(crate) version: u64,
}

impl SecretProvider {
    /// Between two syncs, if it syncs by itself.
    pub fn interval(&self) -> Option<SignedDuration> {
        self.auto_sync.then(|| SignedDuration::from_mins(self.sync_interval_minutes.max(1).into()))
    }
}

impl Resource for SecretProvider {
    const KIND: Kind = Kind::SecretProvider;
    const NAME_FIELD: &'static str = "name";

    fn unique_name(&self) -> &str {
        &self.name
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    tenant: TenantId,
}

pub(crate) const PROVIDER_PLACE: &str = "secret-provider";

/// Each field has a place of its own.
pub(crate) fn credential_place(provider: u64, field: &str) -> String {
    format!("{provider}.{field}")
}

fn place(id: &str, version: u64) -> Place<'_> {
    Place { kind: PROVIDER_PLACE, id, version }
}

impl Store {
    /// Seals a credential in the place of `old`.
    pub async fn seal_credential(
        &self,
        tenant: &TenantId,
        provider: u64,
        field: &str,
        old: Option<&SealedCredential>,
        value: &Secret<String>,
    ) -> Result<SealedCredential> {
        let version = old.map_or(0, |old| old.version) + 1;
        let id = credential_place(provider, field);
        let sealed = self.seal(tenant, Purpose::Secret, place(&id, version), value.expose().as_bytes()).await?;
        Ok(SealedCredential { sealed: Sealed(sealed), version })
    }

    pub async fn open_credential(
        &self,
        tenant: &TenantId,
        provider: u64,
        field: &str,
        credential: &SealedCredential,
    ) -> Result<Secret<String>> {
        let (id, version) = (credential_place(provider, field), credential.version);
        self.sealer.open_text(&self.table, tenant, Purpose::Secret, place(&id, version), &credential.sealed.0).await
    }

    /// With the place where its syncs are kept, and with its first one due if it syncs by itself.
    pub async fn create_provider(
        &self,
        tenant: &TenantId,
        stored: &Stored<SecretProvider>,
        replay: Option<Replay<'_>>,
        event: &AuditEvent,
    ) -> Result<Created> {
        let id = SecretProviderId(stored.id);
        let state = SyncState::never().schedule(stored.body.interval(), stored.created_at);
        let owner = item(&keys::provider_owner(id), &Owner { tenant: tenant.clone() })?;
        let mut writes = self.state_writes(tenant, id, None, &state)?;
        writes.push(put(Part::Other, owner, &self.table, None));
        self.create_with(tenant, stored, replay, event, writes).await
    }

    /// Its next sync is due by what is new, and a run that is under way writes nothing more by what was before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it, or its syncs, have moved on.
    pub async fn replace_provider(
        &self,
        tenant: &TenantId,
        old: &Stored<SecretProvider>,
        new: SecretProvider,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Stored<SecretProvider>> {
        let id = SecretProviderId(old.id);
        let state = self.sync_state(tenant, id).await?;
        let writes = self.state_writes(tenant, id, Some(&state), &state.schedule(new.interval(), now))?;
        self.replace_with(tenant, old, new, now, event, writes).await
    }

    /// Puts a new group in the place of `old`. If other secrets are to be in it then, runs that are under way at its providers
    /// read it anew before they write anything more.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it, or the syncs of its providers, have moved on.
    pub async fn replace_group(
        &self,
        tenant: &TenantId,
        old: &Stored<SecretGroup>,
        new: SecretGroup,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Stored<SecretGroup>> {
        let source = |group: &SecretGroup| (group.provider_id, group.remote_path.clone(), group.auto_sync);
        let mut providers = BTreeSet::new();
        if source(&old.body) != source(&new) {
            providers.extend(old.body.provider_id.into_iter().chain(new.provider_id));
        }
        let mut writes = Vec::new();
        for provider in providers {
            match self.sync_state(tenant, provider).await {
                // Also if nobody is at it: a run that begins meanwhile may have read the group as it was.
                Ok(state) => {
                    writes.extend(self.state_writes(tenant, provider, Some(&state), &state.interrupt(now))?);
                }
                // There is no such provider, which the group's own reference to it tells.
                Err(StoreError::Missing) => {}
                Err(other) => return Err(other),
            }
        }
        self.replace_with(tenant, old, new, now, event, writes).await
    }

    /// A run that is under way writes nothing more. Its log goes last; what a crash leaves of it nobody sees, because ids
    /// are not given twice.
    ///
    /// # Errors
    /// [`StoreError::InUse`] with the groups that it fills, and the secrets that come from it.
    pub async fn delete_provider(
        &self,
        tenant: &TenantId,
        old: &Stored<SecretProvider>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        let id = SecretProviderId(old.id);
        let state = self.sync_state(tenant, id).await?;
        let as_read = Expression::revision(state.revision);
        let mut writes = vec![
            delete(Part::Other, &keys::sync_state(tenant, id), &self.table, Some(as_read)),
            delete(Part::Other, &keys::provider_owner(id), &self.table, None),
        ];
        writes.extend(state.due_at.map(|at| delete(Part::Other, &keys::due_sync(at, tenant, id), &self.table, None)));
        match self.delete_with(tenant, old, now, event, writes).await {
            Ok(()) => self.trim_syncs(tenant, id, 0).await,
            Err(StoreError::InUse { .. }) => Err(StoreError::InUse { by: self.users_of_provider(tenant, id).await? }),
            Err(other) => Err(other),
        }
    }

    /// Reads every secret, which only a refused deletion pays for.
    async fn users_of_provider(&self, tenant: &TenantId, id: SecretProviderId) -> Result<Vec<String>> {
        let groups = self.groups_of(tenant, id).await?;
        let mut by: Vec<_> =
            groups.iter().map(|group| format!("secret group {} ({})", group.id, group.body.name)).collect();
        let secrets = self.every::<StoredSecret>(tenant).await?;
        let is_from = |source: &Source| match source {
            Source::Synced { provider_id, .. } => *provider_id == id,
            Source::Manual => false,
        };
        let theirs = secrets.iter().filter(|secret| is_from(&secret.body.source)).take(SECRETS_NAMED);
        by.extend(theirs.map(|secret| format!("secret {} ({})", secret.id, secret.body.name)));
        Ok(by)
    }

    /// Whose it is.
    pub async fn owner_of_provider(&self, id: SecretProviderId) -> Result<Option<TenantId>> {
        let owner: Option<Owner> = self.table.read(&keys::provider_owner(id), "owner of a provider").await?;
        Ok(owner.map(|owner| owner.tenant))
    }

    /// The groups that it fills, by id.
    pub async fn groups_of(&self, tenant: &TenantId, id: SecretProviderId) -> Result<Vec<Stored<SecretGroup>>> {
        let mut groups = self.every::<SecretGroup>(tenant).await?;
        groups.retain(|group| group.body.provider_id == Some(id));
        Ok(groups)
    }
}
