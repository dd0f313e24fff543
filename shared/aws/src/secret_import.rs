//! A group's secrets as variables: one reference each, named as the secret is.
//!
//! Of a project or an application in steps, each of them one transaction with its audit events. A crash between two leaves
//! the first of them imported, whole; the same import again goes on with the rest and changes nothing of what is there.
//! An environment is one item, and gets all of them at once.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use tidegate_domain::{
    id::{EnvironmentId, Revision, SecretGroupId, SecretId, TenantId},
    invalid::Invalid,
    variable::{Scope, ValueType, VariableKey},
    variable_id::VariableId,
};
use tokio::time::Instant;

use crate::{
    audit::{self, AuditEvent},
    catalogue::{Part, Stored, explain},
    error::{Result, StoreError},
    keys::{self, Key, Kind},
    registered::StoredSecret,
    store::Store,
    table::{item, patience, pause, record},
    variable_totals::Growth,
    variables::{StoredValue, StoredVariable, UseChange},
    write::{Expression, put},
};

/// Secrets of one transaction: six writes each at most, and a hundred are all that it takes.
const STEP: usize = 15;
/// The gateway ends a request after 30 s; what is left then is told, and done by the same import again.
const LONGEST: Duration = Duration::from_secs(20);

/// What is to be imported, and where to.
#[derive(Debug, Clone, Copy)]
pub struct Import {
    pub group: SecretGroupId,
    pub scope: Scope,
    /// Variables that exist get the reference in place of their value.
    pub overwrite: bool,
}

/// What became of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    Created,
    Overwritten,
    /// The variable refers to the secret already.
    Unchanged,
    /// There is another variable of this name.
    Exists,
    /// No variable can be named so.
    NotAKey(Invalid),
    /// It was deleted, renamed or moved meanwhile.
    Gone,
    /// The time was over: import again.
    Left,
}

impl Imported {
    fn is_written(&self) -> bool {
        match self {
            Self::Created | Self::Overwritten => true,
            Self::Unchanged | Self::Exists | Self::NotAKey(_) | Self::Gone | Self::Left => false,
        }
    }
}

/// A secret of the group, and what became of it.
#[derive(Debug)]
pub struct ImportedSecret {
    pub id: SecretId,
    pub name: String,
    pub result: Imported,
}

/// A secret whose name a variable can have.
struct Candidate {
    at: usize,
    id: SecretId,
    key: VariableKey,
}

impl Store {
    /// Imports, and says of each secret of the group what became of it, by name. `event` makes an entry of an action and a
    /// subject.
    ///
    /// # Errors
    /// [`StoreError::ReferenceMissing`] if what is imported into does not exist; [`StoreError::Busy`] if others change the
    /// same variables again and again. What was imported before stays.
    pub async fn import_group(
        &self,
        tenant: &TenantId,
        import: Import,
        now: Timestamp,
        event: impl Fn(&str, String) -> AuditEvent,
    ) -> Result<Vec<ImportedSecret>> {
        let until = Instant::now() + LONGEST;
        let mut secrets = Vec::new();
        let mut candidates = Vec::new();
        for (at, (name, id)) in self.names_of_group(tenant, import.group).await?.into_iter().enumerate() {
            let result = match VariableKey::parse(&name) {
                Ok(key) => {
                    candidates.push(Candidate { at, id, key });
                    Imported::Left
                }
                Err(invalid) => Imported::NotAKey(invalid),
            };
            secrets.push(ImportedSecret { id, name, result });
        }
        if let Scope::Environment(id) = import.scope {
            let results = self.import_into_environment(tenant, import, id, &candidates, now, &event).await?;
            for (candidate, result) in candidates.iter().zip(results) {
                secrets[candidate.at].result = result;
            }
            return Ok(secrets);
        }
        for step in candidates.chunks(STEP) {
            if Instant::now() > until {
                break;
            }
            for (candidate, result) in step.iter().zip(self.import_step(tenant, import, step, now, &event).await?) {
                secrets[candidate.at].result = result;
            }
        }
        Ok(secrets)
    }

    async fn import_step(
        &self,
        tenant: &TenantId,
        import: Import,
        step: &[Candidate],
        now: Timestamp,
        event: &impl Fn(&str, String) -> AuditEvent,
    ) -> Result<Vec<Imported>> {
        let until = patience();
        let mut attempt = 0;
        loop {
            match self.try_step(tenant, import, step, now, event).await {
                // Somebody changed one of the variables or secrets: the step is made again on what is there now.
                Err(
                    StoreError::Conflict
                    | StoreError::NameTaken { .. }
                    | StoreError::ReferenceMissing { field: "value" },
                ) => pause(&mut attempt, until).await?,
                other => return other,
            }
        }
    }

    async fn try_step(
        &self,
        tenant: &TenantId,
        import: Import,
        step: &[Candidate],
        now: Timestamp,
        event: &impl Fn(&str, String) -> AuditEvent,
    ) -> Result<Vec<Imported>> {
        let (secrets, variables) = self.read_step(tenant, import.scope, step).await?;
        let (mut results, mut writes) = (Vec::new(), Vec::new());
        let (mut new, mut created) = (Vec::new(), 0);
        for candidate in step {
            let old = variables.get(&candidate.key);
            let is_there = secrets.get(&candidate.id).is_some_and(|secret| candidate.is(secret, import.group));
            let result = if is_there { candidate.judge(old, import.overwrite) } else { Imported::Gone };
            let is_written = result.is_written();
            created += i8::from(result == Imported::Created);
            results.push(result);
            if !is_written {
                continue;
            }
            let (condition, part, action) = match old {
                None => (Expression::absent(), Part::Name("key"), "variable.created"),
                Some(old) => (Expression::revision(old.revision.0), Part::Thing, "variable.updated"),
            };
            let variable = candidate.reference(old, now);
            let key = keys::variable(tenant, import.scope, &variable.key);
            writes.push(put(part, item(&key, &variable)?, &self.table, Some(condition)));
            let subject = format!("variable/{}", VariableId::new(import.scope, &variable.key));
            writes.push(audit::write(Part::Other, tenant, &event(action, subject), now, &self.table)?);
            new.push((old, variable));
        }
        if writes.is_empty() {
            return Ok(results);
        }
        let changes: Vec<_> = new.iter().map(|(old, new)| UseChange::of(*old, new)).collect();
        writes.extend(self.use_writes(tenant, import.scope, &changes));
        writes.extend((created > 0).then(|| self.scope_writes(tenant, import.scope, created)).flatten());
        let growth = new.iter().map(|(old, new)| Growth::of(*old, Some(new))).sum();
        self.transact_counted(tenant, import.scope, growth, writes).await.map_err(explain)?;
        Ok(results)
    }

    /// Secrets and variables as they are now, in one call.
    async fn read_step(
        &self,
        tenant: &TenantId,
        scope: Scope,
        step: &[Candidate],
    ) -> Result<(HashMap<SecretId, StoredSecret>, HashMap<VariableKey, StoredVariable>)> {
        let of_secrets = step.iter().map(|candidate| keys::thing(tenant, Kind::Secret, candidate.id.0));
        let of_variables = step.iter().map(|candidate| keys::variable(tenant, scope, &candidate.key));
        let keys: Vec<Key> = of_secrets.chain(of_variables).collect();
        let list = keys::catalogue(tenant, Kind::Secret);
        let (mut secrets, mut variables) = (HashMap::new(), HashMap::new());
        for found in self.table.batch_get(&keys).await? {
            if found.get("pk").and_then(|v| v.as_s().ok()) == Some(&list) {
                let secret: Stored<StoredSecret> = record(found, "secret")?;
                secrets.insert(SecretId(secret.id), secret.body);
            } else {
                let variable: StoredVariable = record(found, "variable")?;
                variables.insert(variable.key.clone(), variable);
            }
        }
        Ok((secrets, variables))
    }

    async fn import_into_environment(
        &self,
        tenant: &TenantId,
        import: Import,
        id: EnvironmentId,
        candidates: &[Candidate],
        now: Timestamp,
        event: &impl Fn(&str, String) -> AuditEvent,
    ) -> Result<Vec<Imported>> {
        let until = patience();
        let mut attempt = 0;
        loop {
            let old = self.environment(tenant, id).await.map_err(|error| match error {
                StoreError::Missing => StoreError::ReferenceMissing { field: "envId" },
                other => other,
            })?;
            let mut variables = old.body.variables.clone();
            let mut results = Vec::new();
            for candidate in candidates {
                let present = variables.iter().position(|variable| variable.key == candidate.key);
                let result = candidate.judge(present.map(|at| &variables[at]), import.overwrite);
                if result.is_written() {
                    match present {
                        None => variables.push(candidate.reference(None, now)),
                        Some(at) => variables[at] = candidate.reference(Some(&variables[at]), now),
                    }
                }
                results.push(result);
            }
            if !results.iter().any(Imported::is_written) {
                return Ok(results);
            }
            let body = old.body.clone().with_variables(variables);
            let event = event("environment.updated", format!("environment/{id}"));
            match self.replace_environment(tenant, &old, body, now, &event).await {
                Ok(_) => return Ok(results),
                Err(StoreError::Conflict) => pause(&mut attempt, until).await?,
                Err(other) => return Err(other),
            }
        }
    }
}

impl Candidate {
    fn is(&self, secret: &StoredSecret, group: SecretGroupId) -> bool {
        secret.group_id == group && secret.name == self.key.as_str()
    }

    fn judge(&self, old: Option<&StoredVariable>, overwrite: bool) -> Imported {
        match old {
            None => Imported::Created,
            Some(old) if old.secret_id() == Some(self.id) => Imported::Unchanged,
            Some(_) if overwrite => Imported::Overwritten,
            Some(_) => Imported::Exists,
        }
    }

    fn reference(&self, old: Option<&StoredVariable>, now: Timestamp) -> StoredVariable {
        StoredVariable {
            key: self.key.clone(),
            value_type: ValueType::SecretRef,
            value: StoredValue::Reference { secret_id: self.id },
            revision: Revision(old.map_or(0, |old| old.revision.0) + 1),
            created_at: old.map_or(now, |old| old.created_at),
            updated_at: now,
        }
    }
}
