//! Secrets with their versions: every value that a secret has had is an immutable item, and the last ten are kept.
//!
//! A value is sealed under the secret's id and the value's version, so the present one has the same ciphertext on the
//! secret's own item, where a deployment reads it, and on its version's. All that belongs to one change is one transaction,
//! conditional on the secret's revision: a crash leaves it as it was or as it should be, never a value without its version.

mod reading;

use std::ops::RangeInclusive;

use aws_lc_rs::constant_time;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    id::{Revision, SecretGroupId, SecretId, TenantId},
    secret::Secret,
    variable::Scope,
    variable_id::VariableId,
};

use crate::{
    audit::AuditEvent,
    catalogue::{Created, PageRequest, Part, Replay, Stored},
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    idempotency::{FirstAnswer, IdempotencyKey},
    keys::{self, Kind},
    registered::{Sealed, Source, StoredSecret},
    store::Store,
    table::item,
    write::{Expression, Write, delete, put},
};

/// How many values of a secret are kept, the present one included.
pub const VERSIONS_KEPT: u64 = 10;
/// A refused deletion names so many of the variables that refer to the secret.
const USES_NAMED: usize = 100;

/// A secret to be made.
#[derive(Debug)]
pub struct NewSecret {
    pub group_id: SecretGroupId,
    pub name: String,
    pub value: Secret<String>,
    pub source: Source,
    pub expires_at: Option<Timestamp>,
}

/// Makes the answer to a request of what is stored then.
pub type AnswerOf<'a> = dyn Fn(&Stored<StoredSecret>) -> FirstAnswer + Sync + 'a;

/// What is to become of a secret.
#[derive(Debug)]
pub struct SecretChange {
    pub group_id: SecretGroupId,
    pub name: String,
    /// None: it stays.
    pub value: Option<Secret<String>>,
    pub source: Source,
    pub expires_at: Option<Timestamp>,
}

impl SecretChange {
    /// Everything stays: for `SecretChange { name, ..SecretChange::none(&old.body) }`.
    pub fn none(secret: &StoredSecret) -> Self {
        Self {
            group_id: secret.group_id,
            name: secret.name.clone(),
            value: None,
            source: secret.source.clone(),
            expires_at: secret.expires_at,
        }
    }
}

/// One value of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretVersion {
    pub version: u64,
    pub(crate) value: Sealed,
    /// Of a value from before versions were kept: at the latest.
    pub created_at: Timestamp,
    /// Unknown of a value from before versions were kept.
    pub created_by: Option<String>,
}

/// A value sealed under its version.
struct Versioned {
    value: Sealed,
    version: u64,
}

/// Of the place of a secret's value.
pub(crate) const SECRET_PLACE: &str = "secret";

fn secret_place(id: &str, version: u64) -> Place<'_> {
    Place { kind: SECRET_PLACE, id, version }
}

impl Store {
    async fn seal_secret(&self, tenant: &TenantId, id: u64, version: u64, value: &Secret<String>) -> Result<Versioned> {
        let plain = value.expose().as_bytes();
        let sealed = self.seal(tenant, Purpose::Secret, secret_place(&id.to_string(), version), plain).await?;
        Ok(Versioned { value: Sealed(sealed), version })
    }

    async fn open_version(&self, tenant: &TenantId, id: u64, version: u64, value: &Sealed) -> Result<Secret<String>> {
        let (id, purpose) = (id.to_string(), Purpose::Secret);
        self.sealer.open_text(&self.table, tenant, purpose, secret_place(&id, version), &value.0).await
    }

    /// The present value.
    pub async fn open_secret(&self, tenant: &TenantId, id: u64, secret: &StoredSecret) -> Result<Secret<String>> {
        self.open_version(tenant, id, secret.value_version, &secret.value).await
    }

    /// Whether the secret has this value now. One that cannot be read any more is another one, so that it can be replaced.
    pub async fn is_value(
        &self,
        tenant: &TenantId,
        old: &Stored<StoredSecret>,
        value: &Secret<String>,
    ) -> Result<bool> {
        match self.open_secret(tenant, old.id, &old.body).await {
            Ok(present) => {
                let (present, value) = (present.expose().as_bytes(), value.expose().as_bytes());
                Ok(constant_time::verify_slices_are_equal(present, value).is_ok())
            }
            Err(StoreError::Corrupt { .. }) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// A secret with an id and its sealed value, for [`Store::create_secret`]: apart, because the answer that is kept for a
    /// repeated request shows the id.
    pub async fn new_secret(&self, tenant: &TenantId, new: NewSecret, now: Timestamp) -> Result<Stored<StoredSecret>> {
        let NewSecret { group_id, name, value, source, expires_at } = new;
        let id = self.next_id(Kind::Secret).await?;
        let Versioned { value, version } = self.seal_secret(tenant, id, 1, &value).await?;
        let body = StoredSecret {
            group_id,
            name,
            value,
            value_version: version,
            versions_from: Some(version),
            source,
            expires_at,
        };
        Ok(Stored::new(id, body, now))
    }

    /// # Errors
    /// [`StoreError::NameTaken`] if the group has a secret of this name, [`StoreError::ReferenceMissing`] if there is no such
    /// group.
    pub async fn create_secret(
        &self,
        tenant: &TenantId,
        stored: &Stored<StoredSecret>,
        replay: Option<Replay<'_>>,
        event: &AuditEvent,
    ) -> Result<Created> {
        self.create_secret_with(tenant, stored, replay, event, Vec::new()).await
    }

    pub(crate) async fn create_secret_with(
        &self,
        tenant: &TenantId,
        stored: &Stored<StoredSecret>,
        replay: Option<Replay<'_>>,
        event: &AuditEvent,
        more: Vec<Write<Part>>,
    ) -> Result<Created> {
        let first = SecretVersion {
            version: stored.body.value_version,
            value: stored.body.value.clone(),
            created_at: stored.created_at,
            created_by: Some(event.actor.clone()),
        };
        let mut writes = vec![self.version_write(tenant, stored.id, &first)?];
        writes.extend(self.expiry_writes(tenant, stored.id, None, stored.body.expires_at)?);
        writes.extend(more);
        self.create_with(tenant, stored, replay, event, writes).await
    }

    /// Makes the change; what is stored then. The value that it has already is no new version, and a change of nothing
    /// writes nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it has moved on since `old` was read.
    pub async fn change_secret(
        &self,
        tenant: &TenantId,
        old: &Stored<StoredSecret>,
        change: SecretChange,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Stored<StoredSecret>> {
        self.change_secret_with(tenant, old, change, now, event, Vec::new()).await
    }

    pub(crate) async fn change_secret_with(
        &self,
        tenant: &TenantId,
        old: &Stored<StoredSecret>,
        change: SecretChange,
        now: Timestamp,
        event: &AuditEvent,
        more: Vec<Write<Part>>,
    ) -> Result<Stored<StoredSecret>> {
        let SecretChange { group_id, name, value, source, expires_at } = change;
        let mut body = StoredSecret { group_id, name, source, expires_at, ..old.body.clone() };
        let mut writes = Vec::new();
        if let Some(value) = value
            && !self.is_value(tenant, old, &value).await?
        {
            let new = self.seal_secret(tenant, old.id, old.body.value_version + 1, &value).await?;
            writes.extend(self.new_version_writes(tenant, old, &new, now, event)?);
            body.versions_from = body.versions_from.or(Some(old.body.value_version));
            body.value = new.value;
            body.value_version = new.version;
        }
        if body == old.body {
            return Ok(old.clone());
        }
        writes.extend(self.expiry_writes(tenant, old.id, old.body.expires_at, body.expires_at)?);
        writes.extend(more);
        self.replace_with(tenant, old, body, now, event, writes).await
    }

    /// Writes the value of an earlier version as a new one, and with it the answer to keep for a repeated request: it is made
    /// of what is stored then. The value that it has already is no new version.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for a version that is not kept, [`StoreError::Conflict`] if the secret has moved on since `old`
    /// was read, or if the same request was first.
    pub async fn restore_secret(
        &self,
        tenant: &TenantId,
        old: &Stored<StoredSecret>,
        version: u64,
        now: Timestamp,
        event: &AuditEvent,
        keep: Option<(&IdempotencyKey, &AnswerOf<'_>)>,
    ) -> Result<Stored<StoredSecret>> {
        let value = self.version_value(tenant, old, version).await?;
        let is_new = !self.is_value(tenant, old, &value).await?;
        let mut more = Vec::new();
        if let Some((key, answer)) = keep {
            if !is_new {
                self.keep_first_answer(tenant, key, &answer(old), now).await?;
                return Ok(old.clone());
            }
            let mut restored = Stored { revision: Revision(old.revision.0 + 1), updated_at: now, ..old.clone() };
            restored.body.value_version += 1;
            more.push(self.keep_answer(Part::Replay, tenant, key, &answer(&restored), now).await?);
        }
        let change = SecretChange { value: Some(value), ..SecretChange::none(&old.body) };
        self.change_secret_with(tenant, old, change, now, event, more).await
    }

    /// Removes a secret that nothing refers to, with all its versions.
    ///
    /// # Errors
    /// [`StoreError::InUse`] with the variables that refer to it.
    pub async fn delete_secret(
        &self,
        tenant: &TenantId,
        old: &Stored<StoredSecret>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        self.delete_secret_with(tenant, old, now, event, Vec::new()).await
    }

    pub(crate) async fn delete_secret_with(
        &self,
        tenant: &TenantId,
        old: &Stored<StoredSecret>,
        now: Timestamp,
        event: &AuditEvent,
        more: Vec<Write<Part>>,
    ) -> Result<()> {
        // Each write of a value drops the one that falls out, so there are never more than these.
        let versions = kept_versions(&old.body).map(|version| {
            let key = keys::secret_version(tenant, SecretId(old.id), version);
            delete(Part::Other, &key, &self.table, None)
        });
        let mut writes: Vec<_> = versions.collect();
        writes.extend(self.expiry_writes(tenant, old.id, old.body.expires_at, None)?);
        writes.extend(more);
        match self.delete_with(tenant, old, now, event, writes).await {
            Err(StoreError::InUse { .. }) => Err(self.in_use_by(tenant, old.id).await?),
            other => other,
        }
    }

    async fn in_use_by(&self, tenant: &TenantId, id: u64) -> Result<StoreError> {
        let page = PageRequest { limit: USES_NAMED, cursor: None };
        let found = self.secret_uses(tenant, SecretId(id), &page).await?;
        let mut by: Vec<_> = found.data.iter().map(user).collect();
        if found.next_cursor.is_some() || by.is_empty() {
            by.push("further variables".to_owned());
        }
        Ok(StoreError::InUse { by })
    }

    /// The version that a change adds, the one before if it has none yet, and the end of the one that falls out.
    fn new_version_writes(
        &self,
        tenant: &TenantId,
        old: &Stored<StoredSecret>,
        new: &Versioned,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Vec<Write<Part>>> {
        let added = SecretVersion {
            version: new.version,
            value: new.value.clone(),
            created_at: now,
            created_by: Some(event.actor.clone()),
        };
        let mut writes = vec![self.version_write(tenant, old.id, &added)?];
        if old.body.versions_from.is_none() {
            writes.push(self.version_write(tenant, old.id, &before_versions(old))?);
        }
        if let Some(fallen) = new.version.checked_sub(VERSIONS_KEPT).filter(|version| *version > 0) {
            let key = keys::secret_version(tenant, SecretId(old.id), fallen);
            writes.push(delete(Part::Other, &key, &self.table, None));
        }
        Ok(writes)
    }

    fn version_write(&self, tenant: &TenantId, id: u64, version: &SecretVersion) -> Result<Write<Part>> {
        let key = keys::secret_version(tenant, SecretId(id), version.version);
        Ok(put(Part::Other, item(&key, version)?, &self.table, Some(Expression::absent())))
    }

    fn expiry_writes(
        &self,
        tenant: &TenantId,
        id: u64,
        old: Option<Timestamp>,
        new: Option<Timestamp>,
    ) -> Result<Vec<Write<Part>>> {
        let (old, new) = [old, new].map(|at| at.map(|at| keys::secret_expiry(tenant, at, SecretId(id)))).into();
        if old == new {
            return Ok(Vec::new());
        }
        let gone = old.map(|key| delete(Part::Other, &key, &self.table, None));
        let come = new.map(|key| item(&key, &serde_json::json!({ "id": id }))).transpose()?;
        Ok(gone.into_iter().chain(come.map(|item| put(Part::Other, item, &self.table, None))).collect())
    }
}

/// A variable as a refused deletion names it.
fn user(variable: &VariableId) -> String {
    let of = match variable.scope {
        Scope::Global => "global".to_owned(),
        Scope::Project(id) => format!("project {id}"),
        Scope::Environment(id) => format!("environment {id}"),
        Scope::Application(id) => format!("application {id}"),
    };
    format!("variable {} ({of})", variable.key)
}

/// The versions that may have items.
fn kept_versions(secret: &StoredSecret) -> RangeInclusive<u64> {
    secret.value_version.saturating_sub(VERSIONS_KEPT - 1).max(1)..=secret.value_version
}

/// The present value as a version of its own, of a secret from before there were any.
fn before_versions(secret: &Stored<StoredSecret>) -> SecretVersion {
    SecretVersion {
        version: secret.body.value_version,
        value: secret.body.value.clone(),
        created_at: secret.updated_at,
        created_by: None,
    }
}
