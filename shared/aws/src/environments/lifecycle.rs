//! How environments come, change and go.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tidegate_domain::id::{EnvironmentId, Revision, TenantId};

use super::{Environment, in_project, uses::STEP};
use crate::{
    audit::{self, AuditEvent},
    catalogue::{Created, Part, Replay, Resource as _, Stored, explain, uses},
    error::{Result, StoreError},
    keys::{self, Kind},
    store::Store,
    table::{Cancelled, Item, item, number},
    write::{Expression, Write, delete, put},
};

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    Done,
    /// It is its project's active one, and stays.
    Active,
}

impl Store {
    /// Writes a new environment whole: it is not there before its last variable is.
    ///
    /// # Errors
    /// [`StoreError::TooManyVariables`]; [`StoreError::ReferenceMissing`] for a project or a secret that does not exist.
    pub async fn create_environment(
        &self,
        tenant: &TenantId,
        stored: &Stored<Environment>,
        replay: Option<Replay<'_>>,
        event: &AuditEvent,
    ) -> Result<Created> {
        stored.body.check_size()?;
        let id = EnvironmentId(stored.id);
        let gained: Vec<_> = stored.body.referred().into_iter().collect();
        if gained.len() <= STEP {
            let more = self.count_uses(tenant, id, &gained, []);
            return self.create_with(tenant, stored, replay, event, more).await;
        }
        // The uses are counted for a draft, which the environment then takes the place of. One whose maker is gone is purged.
        let draft = self.environment_draft(tenant, stored).await?;
        let made = async {
            let at = self.count_before(tenant, Kind::EnvironmentDraft, draft, &gained, stored.created_at).await?;
            let key = keys::thing(tenant, Kind::EnvironmentDraft, at.id);
            let mut more = vec![delete(Part::Other, &key, &self.table, Some(Expression::revision(at.revision.0)))];
            more.extend(at.body.settle_at.map(|due| {
                let due = keys::environment_due(due, tenant, Kind::EnvironmentDraft, at.id);
                delete(Part::Other, &due, &self.table, None)
            }));
            self.create_with(tenant, stored, replay, event, more).await
        };
        let made = made.await;
        if !matches!(made, Ok(Created::Now))
            && let Err(error) = self.purge(tenant, Kind::EnvironmentDraft, id, stored.created_at).await
        {
            tracing::warn!(environment.id = %id, error = &error as &dyn std::error::Error,
                "the draft of an environment could not be removed; the sweep does it");
        }
        made
    }

    async fn environment_draft(&self, tenant: &TenantId, of: &Stored<Environment>) -> Result<Stored<Environment>> {
        let settle_at = Self::settle_time(of.created_at);
        let mut draft = of.clone();
        draft.body.variables = Vec::new();
        draft.body.settle_at = Some(settle_at);
        let writes = vec![
            put(
                Part::Thing,
                kind_item(tenant, Kind::EnvironmentDraft, &draft)?,
                &self.table,
                Some(Expression::absent()),
            ),
            self.due(tenant, Kind::EnvironmentDraft, draft.id, settle_at),
        ];
        self.table.transact(writes).await.map_err(explain)?;
        Ok(draft)
    }

    /// Puts a new body in the place of `old`, its variables included: all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it has moved on since `old` was read; as [`Store::create_environment`].
    pub async fn replace_environment(
        &self,
        tenant: &TenantId,
        old: &Stored<Environment>,
        body: Environment,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Stored<Environment>> {
        self.save(tenant, old, body, None, now, event).await
    }

    pub(super) async fn save(
        &self,
        tenant: &TenantId,
        old: &Stored<Environment>,
        mut body: Environment,
        replay: Option<Replay<'_>>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Stored<Environment>> {
        body.check_size()?;
        let id = EnvironmentId(old.id);
        let mut more = Vec::new();
        if let Some(replay) = replay {
            more.push(self.keep_answer(Part::Replay, tenant, replay.key, replay.answer, now).await?);
        }
        let (gained, lost) = old.body.change_of_uses(&body);
        if gained.len() + lost.len() <= STEP {
            more.extend(self.count_uses(tenant, id, &gained, &lost));
            more.extend(self.not_due(tenant, old));
            (body.surplus, body.settle_at) = (BTreeSet::new(), None);
            return self.replace_set(tenant, old, body, now, event, more).await;
        }
        let at = self.count_before(tenant, Kind::Environment, old.clone(), &gained, now).await?;
        body.surplus = at.body.change_of_uses(&body).1.into_iter().collect();
        body.settle_at = None;
        if body.surplus.is_empty() {
            more.extend(self.not_due(tenant, &at));
        } else {
            let settle_at = at.body.settle_at.unwrap_or_else(|| Self::settle_time(now));
            body.settle_at = Some(settle_at);
            more.push(self.due(tenant, Kind::Environment, old.id, settle_at));
        }
        let stored = self.replace_set(tenant, &at, body, now, event, more).await?;
        // The change is made; what it leaves to be done concerns nobody who reads it.
        match self.settle(tenant, Kind::Environment, id).await {
            Ok(Some(settled)) => Ok(settled),
            Ok(None) => Ok(stored),
            Err(error) => {
                tracing::warn!(environment.id = %id, error = &error as &dyn std::error::Error,
                    "former uses of secrets could not be counted off; the sweep does it");
                Ok(stored)
            }
        }
    }

    /// With the names of the variables that change on record.
    async fn replace_set(
        &self,
        tenant: &TenantId,
        old: &Stored<Environment>,
        body: Environment,
        now: Timestamp,
        event: &AuditEvent,
        more: Vec<Write<Part>>,
    ) -> Result<Stored<Environment>> {
        let after = body.variables.clone();
        let entry = audit::Entry::with(event, audit::KeyChanges::between(&old.body.variables, &after));
        self.replace_with(tenant, old, body, now, entry, more).await
    }

    /// The write that takes its surplus from what is due, if it has any.
    pub(super) fn not_due(&self, tenant: &TenantId, of: &Stored<Environment>) -> Option<Write<Part>> {
        let due = keys::environment_due(of.body.settle_at?, tenant, Kind::Environment, of.id);
        Some(delete(Part::Other, &due, &self.table, None))
    }

    /// Sets an environment aside, so that it can be restored.
    ///
    /// # Errors
    /// [`StoreError::InUse`] with an empty list if applications are pinned to it.
    pub async fn delete_environment(
        &self,
        tenant: &TenantId,
        old: &Stored<Environment>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Deletion> {
        let inactive = self.not_active(tenant, old.body.project_id, EnvironmentId(old.id));
        self.set_aside(tenant, old, inactive, now, event).await
    }

    /// As [`Store::delete_environment`], of the active one: none is active then. For a project that is about to go.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if another one is active.
    pub async fn delete_active_environment(
        &self,
        tenant: &TenantId,
        old: &Stored<Environment>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        let pointer = keys::active_environment(tenant, old.body.project_id);
        let condition = Expression::new("envId = :id").value(":id", number(old.id));
        let pointer = delete(Part::Pointer, &pointer, &self.table, Some(condition));
        match self.set_aside(tenant, old, pointer, now, event).await? {
            Deletion::Done => Ok(()),
            Deletion::Active => Err(StoreError::Conflict),
        }
    }

    async fn set_aside(
        &self,
        tenant: &TenantId,
        old: &Stored<Environment>,
        pointer: Write<Part>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Deletion> {
        let key = keys::thing(tenant, Kind::Environment, old.id);
        let mut aside = next(old, now);
        aside.body.deleted_at = Some(now);
        let condition = Expression::new("#revision = :was AND uses = :none")
            .name("#revision", "revision")
            .value(":was", number(old.revision))
            .value(":none", number(0));
        let name = keys::unique_name(tenant, &old.body.name_scope(), old.body.unique_name());
        let listed = item(&listed_deleted(tenant, &aside), &serde_json::json!({ "id": aside.id }))?;
        let mut writes = vec![
            pointer,
            delete(Part::Thing, &key, &self.table, Some(condition)),
            delete(Part::Other, &name, &self.table, None),
            put(
                Part::Other,
                kind_item(tenant, Kind::DeletedEnvironment, &aside)?,
                &self.table,
                Some(Expression::absent()),
            ),
            put(Part::Other, listed, &self.table, None),
            // Its project may go before it does; then it cannot be restored.
            self.count_use(tenant, in_project(old.body.project_id), -1),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        if let Some(until) = aside.body.restorable_until() {
            writes.push(self.due(tenant, Kind::DeletedEnvironment, aside.id, until));
        }
        match self.table.transact(writes).await {
            Ok(()) => Ok(Deletion::Done),
            Err(Cancelled::Conditions(parts)) if parts.contains(&Part::Pointer) => Ok(Deletion::Active),
            Err(Cancelled::Conditions(parts)) if parts.contains(&Part::Thing) => match self.table.get(&key).await? {
                None => Err(StoreError::Missing),
                Some(item) if uses(&item) > 0 => Err(StoreError::InUse { by: Vec::new() }),
                Some(_) => Err(StoreError::Conflict),
            },
            Err(cancelled) => Err(explain(cancelled)),
        }
    }

    /// Brings a deleted environment back, as it was but inactive.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`] if another one has its name now, [`StoreError::ReferenceMissing`] if its project is gone.
    pub async fn restore_environment(
        &self,
        tenant: &TenantId,
        old: &Stored<Environment>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Stored<Environment>> {
        let key = keys::thing(tenant, Kind::DeletedEnvironment, old.id);
        let mut back = next(old, now);
        back.body.deleted_at = None;
        let mut writes = vec![
            delete(Part::Thing, &key, &self.table, Some(Expression::revision(old.revision.0))),
            self.unlist_deleted(tenant, old),
            put(Part::Other, kind_item(tenant, Kind::Environment, &back)?, &self.table, Some(Expression::absent())),
            self.claim_name(tenant, &back)?,
            self.count_use(tenant, in_project(back.body.project_id), 1),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        writes.extend(old.body.restorable_until().map(|until| {
            let due = keys::environment_due(until, tenant, Kind::DeletedEnvironment, old.id);
            delete(Part::Other, &due, &self.table, None)
        }));
        if let Some(settle_at) = back.body.settle_at {
            writes.push(self.due(tenant, Kind::Environment, back.id, settle_at));
        }
        self.table.transact(writes).await.map_err(explain)?;
        Ok(back)
    }

    pub(super) fn unlist_deleted(&self, tenant: &TenantId, of: &Stored<Environment>) -> Write<Part> {
        delete(Part::Other, &listed_deleted(tenant, of), &self.table, None)
    }
}

fn next(old: &Stored<Environment>, now: Timestamp) -> Stored<Environment> {
    Stored { revision: Revision(old.revision.0 + 1), updated_at: now, ..old.clone() }
}

fn listed_deleted(tenant: &TenantId, of: &Stored<Environment>) -> keys::Key {
    let scope = keys::deleted_environment_scope(of.body.project_id);
    keys::unique_name(tenant, &scope, &format!("{:020}", of.id))
}

/// With no uses: of one that is not there for others, or was not until now.
fn kind_item(tenant: &TenantId, kind: Kind, stored: &Stored<Environment>) -> Result<Item> {
    let mut item = item(&keys::thing(tenant, kind, stored.id), stored)?;
    item.insert("uses".to_owned(), number(0));
    Ok(item)
}
