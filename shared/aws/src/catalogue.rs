//! Things that are registered: projects, applications, registries, secret groups, secrets. All are created, listed,
//! replaced and deleted in the same way: with an integer id, a unique name, a revision, and a count of what refers to them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tidegate_domain::id::{Revision, TenantId};

use crate::{
    audit::{self, AuditEvent},
    error::{Result, StoreError},
    idempotency::{FirstAnswer, IdempotencyKey},
    keys::{self, Key, Kind},
    store::Store,
    table::{Cancelled, Item, PageQuery, item, number, record, text},
    write::{Expression, Write, delete, put, update},
};

/// What a registered thing says of itself.
pub trait Resource: Serialize + DeserializeOwned + Send + Sync {
    const KIND: Kind;
    /// The field that the unique name is in.
    const NAME_FIELD: &'static str;

    fn unique_name(&self) -> &str;

    /// Within what the name is unique: `PROJECT`, `GROUP#3`.
    fn name_scope(&self) -> String {
        Self::KIND.name().to_owned()
    }

    /// What it refers to, and in which field; those can then not be deleted.
    fn references(&self) -> Vec<Reference> {
        Vec::new()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    pub kind: Kind,
    pub id: u64,
    pub field: &'static str,
}

/// A registered thing with what the store keeps beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored<T> {
    pub id: u64,
    pub revision: Revision,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// How many refer to it. Others change it, without a new revision.
    #[serde(default)]
    pub uses: u64,
    pub body: T,
}

impl<T> Stored<T> {
    pub fn new(id: u64, body: T, now: Timestamp) -> Self {
        Self { id, revision: Revision(1), created_at: now, updated_at: now, uses: 0, body }
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Listed<T> {
    pub data: Vec<T>,
    pub next_cursor: Option<String>,
}

/// Which page.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// 1 to 200.
    pub limit: usize,
    pub cursor: Option<String>,
}

/// The key of a request and the answer to keep for it.
#[derive(Debug, Clone, Copy)]
pub struct Replay<'a> {
    pub key: &'a IdempotencyKey,
    pub answer: &'a FirstAnswer,
}

/// What became of a creation.
#[derive(Debug)]
pub enum Created {
    Now,
    /// The same request was first: this was its answer.
    Before(FirstAnswer),
}

/// What a write of these transactions is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Thing,
    Name(&'static str),
    Reference(&'static str),
    Replay,
    /// A project's pointer to its active environment.
    Pointer,
    /// How many variables a scope has.
    Totals,
    Other,
}

impl Store {
    /// A new id; one that is never used leaves a gap, nothing else.
    pub async fn next_id(&self, kind: Kind) -> Result<u64> {
        self.table.count_up(&keys::counter(kind)).await
    }

    pub async fn find<T: Resource>(&self, tenant: &TenantId, id: u64) -> Result<Stored<T>> {
        self.table.read(&keys::thing(tenant, T::KIND, id), T::KIND.noun()).await?.ok_or(StoreError::Missing)
    }

    /// Those of the ids that exist.
    pub async fn find_many<T: Resource>(&self, tenant: &TenantId, ids: &[u64]) -> Result<Vec<Stored<T>>> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let keys: Vec<Key> = ids.iter().map(|id| keys::thing(tenant, T::KIND, *id)).collect();
        let items = self.table.batch_get(&keys).await?;
        items.into_iter().map(|item| record(item, T::KIND.noun())).collect()
    }

    /// By id, ascending.
    pub async fn list<T: Resource>(&self, tenant: &TenantId, page: &PageRequest) -> Result<Listed<Stored<T>>> {
        let list = T::KIND.name();
        let after = self.read_cursor(tenant, list, page.cursor.as_deref()).await?;
        let query = PageQuery { after: after.as_deref(), limit: Some(page.limit), ..PageQuery::default() };
        let found = self.table.page(&keys::catalogue(tenant, T::KIND), &query).await?;
        let data = found.items.into_iter().map(|item| record(item, T::KIND.noun())).collect::<Result<_>>()?;
        Ok(Listed { data, next_cursor: self.write_cursor(tenant, list, found.next).await? })
    }

    pub async fn every<T: Resource>(&self, tenant: &TenantId) -> Result<Vec<Stored<T>>> {
        let items = self.table.all(&keys::catalogue(tenant, T::KIND), "").await?;
        items.into_iter().map(|item| record(item, T::KIND.noun())).collect()
    }

    /// The id of the thing with this unique name.
    pub async fn id_by_name(&self, tenant: &TenantId, scope: &str, name: &str) -> Result<Option<u64>> {
        let found = self.table.get(&keys::unique_name(tenant, scope, name)).await?;
        Ok(found.as_ref().and_then(id_of))
    }

    /// Writes a new thing with its name, its references, its audit entry and the answer to its idempotency key.
    pub async fn create<T: Resource>(
        &self,
        tenant: &TenantId,
        stored: &Stored<T>,
        replay: Option<Replay<'_>>,
        event: &AuditEvent,
    ) -> Result<Created> {
        self.create_with(tenant, stored, replay, event, Vec::new()).await
    }

    pub(crate) async fn create_with<T: Resource>(
        &self,
        tenant: &TenantId,
        stored: &Stored<T>,
        replay: Option<Replay<'_>>,
        event: &AuditEvent,
        more: Vec<Write<Part>>,
    ) -> Result<Created> {
        let now = stored.created_at;
        let mut writes = vec![
            put(
                Part::Thing,
                item(&keys::thing(tenant, T::KIND, stored.id), stored)?,
                &self.table,
                Some(Expression::absent()),
            ),
            self.claim_name(tenant, stored)?,
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        writes.extend(stored.body.references().into_iter().map(|r| self.count_use(tenant, r, 1)));
        if let Some(replay) = replay {
            writes.push(self.keep_answer(Part::Replay, tenant, replay.key, replay.answer, now).await?);
        }
        writes.extend(more);
        match self.table.transact(writes).await {
            Ok(()) => Ok(Created::Now),
            Err(Cancelled::Conditions(parts)) if parts.contains(&Part::Replay) => {
                let key = replay.map(|r| r.key).ok_or(StoreError::Conflict)?;
                self.first_answer(tenant, key, now).await?.map(Created::Before).ok_or(StoreError::Conflict)
            }
            Err(cancelled) => Err(explain(cancelled)),
        }
    }

    /// Puts a new body in the place of `old`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it has moved on since `old` was read.
    pub async fn replace<T: Resource>(
        &self,
        tenant: &TenantId,
        old: &Stored<T>,
        body: T,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Stored<T>> {
        self.replace_with(tenant, old, body, now, event, Vec::new()).await
    }

    pub(crate) async fn replace_with<T: Resource>(
        &self,
        tenant: &TenantId,
        old: &Stored<T>,
        body: T,
        now: Timestamp,
        event: impl Into<audit::Entry<'_>>,
        more: Vec<Write<Part>>,
    ) -> Result<Stored<T>> {
        let new = Stored {
            id: old.id,
            revision: Revision(old.revision.0 + 1),
            created_at: old.created_at,
            updated_at: now,
            uses: old.uses,
            body,
        };
        let value = serde_dynamo::to_attribute_value(&new.body).map_err(StoreError::corrupt(T::KIND.noun()))?;
        // An update, not a put: the count of uses beside the body is others' to change.
        let change = Expression::new("SET body = :body, #revision = :now, updatedAt = :at")
            .value(":body", value)
            .value(":now", number(new.revision))
            .value(":at", text(now.to_string()));
        let key = keys::thing(tenant, T::KIND, old.id);
        let mut writes = vec![
            update(Part::Thing, &key, &self.table, change, Expression::revision(old.revision.0)),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        if (old.body.name_scope(), old.body.unique_name()) != (new.body.name_scope(), new.body.unique_name()) {
            writes.push(self.claim_name(tenant, &new)?);
            let free = keys::unique_name(tenant, &old.body.name_scope(), old.body.unique_name());
            writes.push(delete(Part::Other, &free, &self.table, None));
        }
        let (before, after) = (old.body.references(), new.body.references());
        let same = |a: &Reference, b: &Reference| (a.kind, a.id) == (b.kind, b.id);
        let gained = after.iter().filter(|r| !before.iter().any(|o| same(o, r)));
        writes.extend(gained.map(|r| self.count_use(tenant, *r, 1)));
        let lost = before.iter().filter(|r| !after.iter().any(|o| same(o, r)));
        writes.extend(lost.map(|r| self.count_use(tenant, *r, -1)));
        writes.extend(more);
        self.table.transact(writes).await.map_err(explain)?;
        Ok(new)
    }

    /// Removes a thing that nothing refers to.
    ///
    /// # Errors
    /// [`StoreError::InUse`] with an empty list if something does: the caller knows how to find out what.
    pub async fn delete<T: Resource>(
        &self,
        tenant: &TenantId,
        old: &Stored<T>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        self.delete_with(tenant, old, now, event, Vec::new()).await
    }

    pub(crate) async fn delete_with<T: Resource>(
        &self,
        tenant: &TenantId,
        old: &Stored<T>,
        now: Timestamp,
        event: &AuditEvent,
        more: Vec<Write<Part>>,
    ) -> Result<()> {
        let key = keys::thing(tenant, T::KIND, old.id);
        let condition = Expression::new("#revision = :was AND uses = :none")
            .name("#revision", "revision")
            .value(":was", number(old.revision))
            .value(":none", number(0));
        let mut writes = vec![
            delete(Part::Thing, &key, &self.table, Some(condition)),
            delete(
                Part::Other,
                &keys::unique_name(tenant, &old.body.name_scope(), old.body.unique_name()),
                &self.table,
                None,
            ),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        writes.extend(old.body.references().into_iter().map(|r| self.count_use(tenant, r, -1)));
        writes.extend(more);
        match self.table.transact(writes).await {
            Ok(()) => Ok(()),
            Err(Cancelled::Conditions(parts)) if parts.contains(&Part::Thing) => match self.table.get(&key).await? {
                None => Err(StoreError::Missing),
                Some(item) if uses(&item) > 0 => Err(StoreError::InUse { by: Vec::new() }),
                Some(_) => Err(StoreError::Conflict),
            },
            Err(cancelled) => Err(explain(cancelled)),
        }
    }

    pub(crate) fn count_use(&self, tenant: &TenantId, reference: Reference, by: i8) -> Write<Part> {
        let key = keys::thing(tenant, reference.kind, reference.id);
        let change = Expression::new("ADD uses :by").value(":by", number(by));
        update(Part::Reference(reference.field), &key, &self.table, change, Expression::present())
    }

    pub(crate) fn claim_name<T: Resource>(&self, tenant: &TenantId, stored: &Stored<T>) -> Result<Write<Part>> {
        let key = keys::unique_name(tenant, &stored.body.name_scope(), stored.body.unique_name());
        let item = item(&key, &serde_json::json!({ "id": stored.id }))?;
        Ok(put(Part::Name(T::NAME_FIELD), item, &self.table, Some(Expression::absent())))
    }
}

pub(crate) fn explain(cancelled: Cancelled<Part>) -> StoreError {
    let parts = match cancelled {
        Cancelled::Store(error) => return error,
        Cancelled::Conditions(parts) => parts,
    };
    let of = |part: &Part| match part {
        Part::Name(field) => Some(StoreError::NameTaken { field }),
        Part::Reference(field) => Some(StoreError::ReferenceMissing { field }),
        Part::Totals => Some(StoreError::TooManyVariables),
        Part::Thing | Part::Replay | Part::Pointer | Part::Other => None,
    };
    parts.iter().find_map(of).unwrap_or(StoreError::Conflict)
}

pub(crate) fn uses(item: &Item) -> u64 {
    item.get("uses").and_then(|v| v.as_n().ok()).and_then(|n| n.parse().ok()).unwrap_or(0)
}

pub(crate) fn id_of(item: &Item) -> Option<u64> {
    item.get("id").and_then(|v| v.as_n().ok()).and_then(|n| n.parse().ok())
}
