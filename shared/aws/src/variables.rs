//! Stored variables of every scope. Those of an environment are part of its item: see [`crate::environments`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    id::{ProjectId, Revision, SecretId, TenantId},
    secret::Secret,
    variable::{Layered, Scope, SecretReference, ValueType, VariableKey, Written},
    variable_id::VariableId,
};

use crate::{
    audit::{self, AuditEvent},
    catalogue::{Created, Listed, PageRequest, Part, Reference, Replay, Stored, explain},
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    keys::{self, Kind},
    registered::{Project, Sealed},
    store::Store,
    table::{Cancelled, PageQuery, item, key_item, record},
    variable_totals::Growth,
    write::{Expression, Write, check, delete, put},
};

/// A stored variable. Its key and scope are its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredVariable {
    pub key: VariableKey,
    pub value_type: ValueType,
    pub value: StoredValue,
    pub revision: Revision,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum StoredValue {
    Plain {
        text: String,
    },
    /// `isSecret`: sealed under this variable's place and revision.
    Secret {
        sealed: Sealed,
    },
    /// The secret that was named. By which name is forgotten: it may be another one's by now.
    #[serde(rename_all = "camelCase")]
    Reference {
        secret_id: SecretId,
    },
}

impl StoredVariable {
    pub fn is_secret(&self) -> bool {
        match self.value {
            StoredValue::Plain { .. } => false,
            StoredValue::Secret { .. } | StoredValue::Reference { .. } => true,
        }
    }

    /// Of key and value, as a deployment counts them.
    pub fn size_bytes(&self) -> usize {
        let value = match &self.value {
            StoredValue::Plain { text } => text.len(),
            StoredValue::Secret { sealed } => sealed.plain_bytes(),
            StoredValue::Reference { secret_id } => Self::reference(*secret_id).len(),
        };
        self.key.as_str().len() + value
    }

    /// A reference's value as everybody writes and sees it.
    pub fn reference(secret_id: SecretId) -> String {
        SecretReference::Id(secret_id).to_string()
    }

    /// The secret that it refers to.
    pub fn secret_id(&self) -> Option<SecretId> {
        match self.value {
            StoredValue::Reference { secret_id, .. } => Some(secret_id),
            StoredValue::Plain { .. } | StoredValue::Secret { .. } => None,
        }
    }
}

/// Of the place of a secret variable's value.
pub(crate) const VARIABLE_PLACE: &str = "variable";

/// The secrets that a variable refers to before a change and after it.
pub(crate) struct UseChange<'a> {
    pub(crate) key: &'a VariableKey,
    pub(crate) before: Option<SecretId>,
    pub(crate) after: Option<SecretId>,
}

impl<'a> UseChange<'a> {
    pub(crate) fn of(old: Option<&StoredVariable>, new: &'a StoredVariable) -> Self {
        Self { key: &new.key, before: old.and_then(StoredVariable::secret_id), after: new.secret_id() }
    }
}

impl Store {
    pub async fn variable(&self, tenant: &TenantId, scope: Scope, key: &VariableKey) -> Result<StoredVariable> {
        if let Scope::Environment(id) = scope {
            return self.environment(tenant, id).await?.body.variable(key).cloned().ok_or(StoreError::Missing);
        }
        self.table.read(&keys::variable(tenant, scope, key), "variable").await?.ok_or(StoreError::Missing)
    }

    /// # Errors
    /// [`StoreError::Missing`] for an environment that does not exist; other scopes are empty then.
    pub async fn variables(&self, tenant: &TenantId, scope: Scope) -> Result<Vec<StoredVariable>> {
        if let Scope::Environment(id) = scope {
            return Ok(self.environment(tenant, id).await?.body.variables);
        }
        let items = self.table.all(&keys::variables(tenant, scope), "").await?;
        items.into_iter().map(|item| record(item, "variable")).collect()
    }

    /// Whether what the scope is of is there.
    pub async fn is_there(&self, tenant: &TenantId, scope: Scope) -> Result<bool> {
        let (kind, id) = match scope {
            Scope::Global => return Ok(true),
            Scope::Project(id) => (Kind::Project, id.0),
            Scope::Environment(id) => (Kind::Environment, id.0),
            Scope::Application(id) => (Kind::Application, id.0),
        };
        Ok(self.table.get(&keys::thing(tenant, kind, id)).await?.is_some())
    }

    /// By key, ascending.
    pub async fn list_variables(
        &self,
        tenant: &TenantId,
        scope: Scope,
        page: &PageRequest,
    ) -> Result<Listed<StoredVariable>> {
        if let Scope::Environment(id) = scope {
            return self.list_environment_variables(tenant, id, page).await;
        }
        let list = keys::variables(tenant, scope);
        let after = self.read_cursor(tenant, &list, page.cursor.as_deref()).await?;
        let query = PageQuery { after: after.as_deref(), limit: Some(page.limit), ..PageQuery::default() };
        let found = self.table.page(&list, &query).await?;
        let data = found.items.into_iter().map(|item| record(item, "variable")).collect::<Result<_>>()?;
        Ok(Listed { data, next_cursor: self.write_cursor(tenant, &list, found.next).await? })
    }

    /// Seals the value of a secret variable that will have this revision.
    pub async fn seal_variable(
        &self,
        tenant: &TenantId,
        scope: Scope,
        key: &VariableKey,
        revision: Revision,
        value: &Secret<String>,
    ) -> Result<StoredValue> {
        let id = variable_place(scope, key);
        let place = Place { kind: VARIABLE_PLACE, id: &id, version: revision.0 };
        let sealed = self.seal(tenant, Purpose::Secret, place, value.expose().as_bytes()).await.map(Sealed)?;
        Ok(StoredValue::Secret { sealed })
    }

    /// The secret that a reference names now.
    pub async fn resolve_reference(&self, tenant: &TenantId, reference: &SecretReference) -> Result<Option<SecretId>> {
        match reference {
            SecretReference::Id(id) => Ok(self.table.get(&keys::thing(tenant, Kind::Secret, id.0)).await?.map(|_| *id)),
            SecretReference::Named { group, name } => {
                let Some(group) = self.id_by_name(tenant, Kind::SecretGroup.name(), group).await? else {
                    return Ok(None);
                };
                let scope = crate::registered::secrets_of(group.into());
                Ok(self.id_by_name(tenant, &scope, name).await?.map(SecretId))
            }
        }
    }

    /// # Errors
    /// [`StoreError::NameTaken`] if the scope has a variable of this key, [`StoreError::ReferenceMissing`] if its project
    /// or application does not exist, [`StoreError::TooManyVariables`] if no deployment could use them all.
    pub async fn create_variable(
        &self,
        tenant: &TenantId,
        scope: Scope,
        variable: &StoredVariable,
        replay: Option<Replay<'_>>,
        event: &AuditEvent,
    ) -> Result<Created> {
        if let Scope::Environment(id) = scope {
            return self.create_environment_variable(tenant, id, variable, replay, event).await;
        }
        let now = variable.created_at;
        let key = keys::variable(tenant, scope, &variable.key);
        let mut writes = vec![
            put(Part::Name("key"), item(&key, variable)?, &self.table, Some(Expression::absent())),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        writes.extend(self.use_writes(tenant, scope, &[UseChange::of(None, variable)]));
        writes.extend(self.scope_writes(tenant, scope, 1));
        if let Some(replay) = replay {
            writes.push(self.keep_answer(Part::Replay, tenant, replay.key, replay.answer, now).await?);
        }
        match self.transact_counted(tenant, scope, Growth::of(None, Some(variable)), writes).await {
            Ok(()) => Ok(Created::Now),
            Err(Cancelled::Conditions(parts)) if parts.contains(&Part::Replay) => {
                let key = replay.map(|r| r.key).ok_or(StoreError::Conflict)?;
                self.first_answer(tenant, key, now).await?.map(Created::Before).ok_or(StoreError::Conflict)
            }
            Err(cancelled) => Err(explain(cancelled)),
        }
    }

    /// Puts `new` in the place of `old`, which has the same key.
    pub async fn replace_variable(
        &self,
        tenant: &TenantId,
        scope: Scope,
        old: &StoredVariable,
        new: &StoredVariable,
        event: &AuditEvent,
    ) -> Result<()> {
        if let Scope::Environment(id) = scope {
            return self.replace_environment_variable(tenant, id, old, new, event).await;
        }
        let key = keys::variable(tenant, scope, &old.key);
        let mut writes = vec![
            put(Part::Thing, item(&key, new)?, &self.table, Some(Expression::revision(old.revision.0))),
            audit::write(Part::Other, tenant, event, new.updated_at, &self.table)?,
        ];
        writes.extend(self.use_writes(tenant, scope, &[UseChange::of(Some(old), new)]));
        self.transact_counted(tenant, scope, Growth::of(Some(old), Some(new)), writes).await.map_err(explain)
    }

    pub async fn delete_variable(
        &self,
        tenant: &TenantId,
        scope: Scope,
        old: &StoredVariable,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        if let Scope::Environment(id) = scope {
            return self.delete_environment_variable(tenant, id, old, now, event).await;
        }
        let key = keys::variable(tenant, scope, &old.key);
        let mut writes = vec![
            delete(Part::Thing, &key, &self.table, Some(Expression::revision(old.revision.0))),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        writes.extend(self.use_writes(tenant, scope, &[UseChange { after: None, ..UseChange::of(Some(old), old) }]));
        if let Scope::Project(id) = scope {
            writes.push(self.count_use(tenant, Reference { kind: Kind::Project, id: id.0, field: "projectId" }, -1));
        }
        self.transact_counted(tenant, scope, Growth::of(Some(old), None), writes).await.map_err(explain)
    }

    /// Removes a project that nothing refers to, with what was counted of its variables.
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub async fn delete_project(
        &self,
        tenant: &TenantId,
        old: &Stored<Project>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        let totals = keys::variable_totals(tenant, Scope::Project(ProjectId(old.id)));
        self.delete_with(tenant, old, now, event, vec![delete(Part::Other, &totals, &self.table, None)]).await
    }

    /// What so many new variables mean for what they are of. For the transaction that creates them.
    pub(crate) fn scope_writes(&self, tenant: &TenantId, scope: Scope, created: i8) -> Option<Write<Part>> {
        match scope {
            Scope::Global | Scope::Environment(_) => None,
            // Counted, so that a project is not deleted under its variables.
            Scope::Project(id) => {
                Some(self.count_use(tenant, Reference { kind: Kind::Project, id: id.0, field: "projectId" }, created))
            }
            Scope::Application(id) => {
                let key = keys::thing(tenant, Kind::Application, id.0);
                Some(check(Part::Reference("applicationId"), &key, &self.table, Expression::present()))
            }
        }
    }

    /// What changes of variables mean for the secrets that they refer to: each counts its uses and lists them. For the
    /// transaction that makes the changes.
    pub(crate) fn use_writes(&self, tenant: &TenantId, scope: Scope, changes: &[UseChange<'_>]) -> Vec<Write<Part>> {
        // Added up, because a transaction may write an item only once.
        let mut counts: BTreeMap<SecretId, i8> = BTreeMap::new();
        let mut writes = Vec::new();
        for UseChange { key, before, after } in changes.iter().filter(|change| change.before != change.after) {
            let of = VariableId::new(scope, key).to_string();
            if let Some(id) = after {
                *counts.entry(*id).or_default() += 1;
                let listed = key_item(&keys::secret_use(tenant, *id, &of));
                writes.push(put(Part::Other, listed, &self.table, None));
            }
            if let Some(id) = before {
                *counts.entry(*id).or_default() -= 1;
                writes.push(delete(Part::Other, &keys::secret_use(tenant, *id, &of), &self.table, None));
            }
        }
        let counted = counts.into_iter().filter(|(_, by)| *by != 0);
        writes
            .extend(counted.map(|(id, by)| {
                self.count_use(tenant, Reference { kind: Kind::Secret, id: id.0, field: "value" }, by)
            }));
        writes
    }

    /// The value as it was written; a reference is not followed.
    pub async fn open_variable(
        &self,
        tenant: &TenantId,
        scope: Scope,
        variable: &StoredVariable,
    ) -> Result<Secret<String>> {
        match &variable.value {
            StoredValue::Plain { text } => Ok(Secret::new(text.clone())),
            StoredValue::Reference { secret_id } => Ok(Secret::new(StoredVariable::reference(*secret_id))),
            StoredValue::Secret { sealed } => {
                let id = variable_place(scope, &variable.key);
                let place = Place { kind: VARIABLE_PLACE, id: &id, version: variable.revision.0 };
                self.sealer.open_text(&self.table, tenant, Purpose::Secret, place, &sealed.0).await
            }
        }
    }

    /// A stored variable as a layer's entry, its own secret opened.
    pub(crate) async fn layered(&self, tenant: &TenantId, scope: Scope, variable: StoredVariable) -> Result<Layered> {
        let is_secret = variable.is_secret();
        let value = match variable.value {
            StoredValue::Plain { text } => Written::Template(Secret::new(text)),
            StoredValue::Secret { .. } => Written::Template(self.open_variable(tenant, scope, &variable).await?),
            StoredValue::Reference { secret_id } => Written::Reference(SecretReference::Id(secret_id)),
        };
        let (origin, value_type) = (scope.origin(), variable.value_type);
        Ok(Layered { origin, key: variable.key, value, value_type, is_secret })
    }
}

pub(crate) fn variable_place(scope: Scope, key: &VariableKey) -> String {
    match scope {
        Scope::Global => format!("global/{key}"),
        Scope::Project(id) => format!("project/{id}/{key}"),
        Scope::Environment(id) => format!("environment/{}/{key}", id.0),
        Scope::Application(id) => format!("application/{id}/{key}"),
    }
}
