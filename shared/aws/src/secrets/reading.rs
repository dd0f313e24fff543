//! Reading secrets: their versions, lists of them, and what refers to them.

use jiff::Timestamp;
use tidegate_domain::{
    id::{SecretGroupId, SecretId, TenantId},
    secret::Secret,
    variable_id::VariableId,
};

use super::{SecretVersion, before_versions};
use crate::{
    audit::{self, AuditEvent},
    catalogue::{Listed, PageRequest, Part, Stored, explain, id_of},
    error::{Result, StoreError},
    keys::{self, Kind},
    registered::{StoredSecret, secrets_of},
    store::Store,
    table::{Item, PageQuery, record, sort_key},
    write::{Expression, check},
};

impl Store {
    /// The kept versions, newest first.
    pub async fn secret_versions(
        &self,
        tenant: &TenantId,
        secret: &Stored<StoredSecret>,
    ) -> Result<Vec<SecretVersion>> {
        if secret.body.versions_from.is_none() {
            return Ok(vec![before_versions(secret)]);
        }
        let query = PageQuery { newest_first: true, ..PageQuery::default() };
        // Ten values of 64 KiB are a page or two.
        let list = keys::secret_versions(tenant, SecretId(secret.id));
        let (mut versions, mut after) = (Vec::new(), None);
        loop {
            let found = self.table.page(&list, &PageQuery { after: after.as_deref(), ..query }).await?;
            for item in found.items {
                versions.push(record(item, "version of a secret")?);
            }
            after = found.next;
            if after.is_none() {
                return Ok(versions);
            }
        }
    }

    /// The value of a version that is kept.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if it is not.
    pub async fn version_value(
        &self,
        tenant: &TenantId,
        secret: &Stored<StoredSecret>,
        version: u64,
    ) -> Result<Secret<String>> {
        if version == secret.body.value_version {
            return self.open_secret(tenant, secret.id, &secret.body).await;
        }
        let key = keys::secret_version(tenant, SecretId(secret.id), version);
        let found: SecretVersion = self.table.read(&key, "version of a secret").await?.ok_or(StoreError::Missing)?;
        self.open_version(tenant, secret.id, version, &found.value).await
    }

    /// Reads a value for somebody who may see it; with the secret as it was then, and the value's version. The event is on
    /// record before anything is read: a crash in between leaves an event without a reader, never the other way round.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such secret, or the version is not kept.
    pub async fn reveal_secret(
        &self,
        tenant: &TenantId,
        id: u64,
        version: Option<u64>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<(Stored<StoredSecret>, u64, Secret<String>)> {
        let writes = vec![
            check(Part::Thing, &keys::thing(tenant, Kind::Secret, id), &self.table, Expression::present()),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        match self.table.transact(writes).await.map_err(explain) {
            Ok(()) => {}
            Err(StoreError::Conflict) => return Err(StoreError::Missing),
            Err(other) => return Err(other),
        }
        let stored: Stored<StoredSecret> = self.find(tenant, id).await?;
        let version = version.unwrap_or(stored.body.value_version);
        let value = self.version_value(tenant, &stored, version).await?;
        Ok((stored, version, value))
    }

    /// A group's secrets, by name. What a page costs does not depend on how many there are.
    pub async fn secrets_of_group(
        &self,
        tenant: &TenantId,
        group: SecretGroupId,
        page: &PageRequest,
    ) -> Result<Listed<Stored<StoredSecret>>> {
        self.listed_secrets(tenant, &keys::unique_names(tenant, &secrets_of(group)), None, page).await
    }

    /// Names and ids of a group's secrets, by name.
    pub async fn names_of_group(&self, tenant: &TenantId, group: SecretGroupId) -> Result<Vec<(String, SecretId)>> {
        let names = self.table.all(&keys::unique_names(tenant, &secrets_of(group)), "").await?;
        let read = |item: &Item| {
            let read = sort_key(item).zip(id_of(item)).map(|(name, id)| (name.to_owned(), SecretId(id)));
            read.ok_or_else(|| StoreError::unreadable("name", "it names nothing"))
        };
        names.iter().map(read).collect()
    }

    /// Secrets whose reminder is before the time, by that time.
    pub async fn expiring_secrets(
        &self,
        tenant: &TenantId,
        before: Timestamp,
        page: &PageRequest,
    ) -> Result<Listed<Stored<StoredSecret>>> {
        // Sort keys go on behind the time, so those of the bound itself are after it; what is left of its second is before.
        let second = before.as_second() + i64::from(before.subsec_nanosecond() > 0);
        let to = keys::deadline_time(Timestamp::from_second(second).unwrap_or(Timestamp::MAX));
        let mut found = self.listed_secrets(tenant, &keys::secret_expiries(tenant), Some(&to), page).await?;
        // Changed between the two reads.
        found.data.retain(|secret| secret.body.expires_at.is_some_and(|at| at < before));
        Ok(found)
    }

    /// Secrets that the items of an index name, in its order.
    async fn listed_secrets(
        &self,
        tenant: &TenantId,
        index: &str,
        to: Option<&str>,
        page: &PageRequest,
    ) -> Result<Listed<Stored<StoredSecret>>> {
        let after = self.read_cursor(tenant, index, page.cursor.as_deref()).await?;
        let query = PageQuery { to, after: after.as_deref(), limit: Some(page.limit), ..PageQuery::default() };
        let found = self.table.page(index, &query).await?;
        let ids: Vec<u64> = found.items.iter().filter_map(id_of).collect();
        let mut data = self.find_many::<StoredSecret>(tenant, &ids).await?;
        data.sort_by_key(|secret| ids.iter().position(|id| *id == secret.id));
        Ok(Listed { data, next_cursor: self.write_cursor(tenant, index, found.next).await? })
    }

    /// Variables that refer to the secret.
    pub async fn secret_uses(
        &self,
        tenant: &TenantId,
        secret: SecretId,
        page: &PageRequest,
    ) -> Result<Listed<VariableId>> {
        let list = keys::secret_uses(tenant, secret);
        let after = self.read_cursor(tenant, &list, page.cursor.as_deref()).await?;
        let query = PageQuery { after: after.as_deref(), limit: Some(page.limit), ..PageQuery::default() };
        let found = self.table.page(&list, &query).await?;
        let id = |item| sort_key(item).and_then(VariableId::parse);
        let unreadable = || StoreError::unreadable("use of a secret", "its key is no variable's");
        let data = found.items.iter().map(|item| id(item).ok_or_else(unreadable)).collect::<Result<_>>()?;
        Ok(Listed { data, next_cursor: self.write_cursor(tenant, &list, found.next).await? })
    }
}
