//! Many variables of one scope written at once, as a file has them.
//!
//! Of the tenant, a project or an application in steps, each of them one transaction with its audit events: a crash between
//! two leaves the first of them imported, whole, and the same import again goes on with the rest and changes nothing of what
//! is there. An environment is one item, and gets all of them at once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tidegate_domain::{
    id::{EnvironmentId, Revision, SecretId, TenantId},
    invalid::{FieldError, Invalid},
    secret::{MASK, Secret},
    variable::{Scope, ValueType, VariableKey, check_written},
    variable_id::VariableId,
};

use crate::{
    audit::{self, AuditEvent},
    catalogue::{Part, explain},
    error::{Result, StoreError},
    keys::{self, Key},
    store::Store,
    table::{item, patience, pause, record},
    variable_totals::Growth,
    variables::{StoredValue, StoredVariable, UseChange},
    write::{Expression, put},
};

/// Variables of one transaction: six writes each at most, and a hundred are all that it takes.
const STEP: usize = 15;

/// One variable of the file.
#[derive(Debug)]
pub struct ImportedVariable {
    pub key: VariableKey,
    pub value: ImportedValue,
    /// Where it stands, for what is wrong with it.
    pub field: String,
}

#[derive(Debug)]
pub enum ImportedValue {
    Text {
        text: Secret<String>,
        /// It is to be a secret; one that is a secret stays one all the same.
        is_secret: bool,
    },
    Reference(SecretId),
    /// The mask: what is stored stays.
    Masked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportResult {
    Imported,
    Updated,
    /// It is there, as the file has it.
    Unchanged,
    /// It is there, with another value; or as a secret, whose value nobody compares.
    Skipped,
}

impl ImportResult {
    fn is_written(self) -> bool {
        match self {
            Self::Imported | Self::Updated => true,
            Self::Unchanged | Self::Skipped => false,
        }
    }
}

/// How it is imported.
#[derive(Debug, Clone, Copy)]
pub struct ImportInto {
    pub scope: Scope,
    /// Variables that exist get the file's value.
    pub overwrite: bool,
    /// Only says what would become of each.
    pub dry_run: bool,
}

type Present = BTreeMap<VariableKey, StoredVariable>;

impl Store {
    /// What became of each variable, in the order of the file; or, before anything is written, all that is wrong with them.
    /// `event` makes an entry of an action and a subject.
    ///
    /// # Errors
    /// [`StoreError::ReferenceMissing`] if what is imported into does not exist, or a secret was deleted in the middle;
    /// [`StoreError::Busy`] if others change the same variables again and again. What was imported before stays.
    pub async fn import_variables(
        &self,
        tenant: &TenantId,
        into: ImportInto,
        variables: &[ImportedVariable],
        now: Timestamp,
        event: impl Fn(&str, String) -> AuditEvent,
    ) -> Result<Result<Vec<ImportResult>, Vec<FieldError>>> {
        let field = match into.scope {
            Scope::Project(_) => Some("projectId"),
            Scope::Application(_) => Some("applicationId"),
            // An environment is read with what it has.
            Scope::Global | Scope::Environment(_) => None,
        };
        if let Some(field) = field
            && !self.is_there(tenant, into.scope).await?
        {
            return Err(StoreError::ReferenceMissing { field });
        }
        let present = self.present(tenant, into.scope, variables).await?;
        let mut results = Vec::new();
        let mut faults = Vec::new();
        for variable in variables {
            match Self::judge_import(into, variable, &present) {
                Ok(result) => results.push(result),
                Err(invalid) => faults.push(invalid.at(variable.field.clone())),
            }
        }
        if !faults.is_empty() {
            return Ok(Err(faults));
        }
        if into.dry_run || !results.iter().any(|result| result.is_written()) {
            return Ok(Ok(results));
        }
        if let Scope::Environment(id) = into.scope {
            return self.import_into_the_environment(tenant, into, id, variables, now, &event).await;
        }
        let mut results = Vec::new();
        for step in variables.chunks(STEP) {
            match self.import_variables_step(tenant, into, step, now, &event).await? {
                Ok(imported) => results.extend(imported),
                Err(faults) => return Ok(Err(faults)),
            }
        }
        Ok(Ok(results))
    }

    async fn import_variables_step(
        &self,
        tenant: &TenantId,
        into: ImportInto,
        step: &[ImportedVariable],
        now: Timestamp,
        event: &impl Fn(&str, String) -> AuditEvent,
    ) -> Result<Result<Vec<ImportResult>, Vec<FieldError>>> {
        let until = patience();
        let mut attempt = 0;
        loop {
            let present = self.present(tenant, into.scope, step).await?;
            let (results, new) = match self.imported(tenant, into, step, &present, now).await? {
                Ok(imported) => imported,
                Err(faults) => return Ok(Err(faults)),
            };
            if new.is_empty() {
                return Ok(Ok(results));
            }
            let (mut writes, mut created, mut changes) = (Vec::new(), 0, Vec::new());
            for variable in &new {
                let old = present.get(&variable.key);
                let (condition, part, action) = match old {
                    None => (Expression::absent(), Part::Name("key"), "variable.created"),
                    Some(old) => (Expression::revision(old.revision.0), Part::Thing, "variable.updated"),
                };
                created += i8::from(old.is_none());
                let key = keys::variable(tenant, into.scope, &variable.key);
                writes.push(put(part, item(&key, variable)?, &self.table, Some(condition)));
                let subject = format!("variable/{}", VariableId::new(into.scope, &variable.key));
                writes.push(audit::write(Part::Other, tenant, &event(action, subject), now, &self.table)?);
                changes.push(UseChange::of(old, variable));
            }
            writes.extend(self.use_writes(tenant, into.scope, &changes));
            writes.extend((created > 0).then(|| self.scope_writes(tenant, into.scope, created)).flatten());
            let growth = new.iter().map(|variable| Growth::of(present.get(&variable.key), Some(variable))).sum();
            match self.transact_counted(tenant, into.scope, growth, writes).await.map_err(explain) {
                Ok(()) => return Ok(Ok(results)),
                // Somebody changed one of them: the step is made again on what is there now.
                Err(StoreError::Conflict | StoreError::NameTaken { .. }) => pause(&mut attempt, until).await?,
                Err(other) => return Err(other),
            }
        }
    }

    async fn import_into_the_environment(
        &self,
        tenant: &TenantId,
        into: ImportInto,
        id: EnvironmentId,
        variables: &[ImportedVariable],
        now: Timestamp,
        event: &impl Fn(&str, String) -> AuditEvent,
    ) -> Result<Result<Vec<ImportResult>, Vec<FieldError>>> {
        let until = patience();
        let mut attempt = 0;
        loop {
            let old = self.environment(tenant, id).await.map_err(no_environment)?;
            let mut present: Present = old.body.variables.iter().map(|v| (v.key.clone(), v.clone())).collect();
            let (results, new) = match self.imported(tenant, into, variables, &present, now).await? {
                Ok(imported) => imported,
                Err(faults) => return Ok(Err(faults)),
            };
            if new.is_empty() {
                return Ok(Ok(results));
            }
            present.extend(new.into_iter().map(|variable| (variable.key.clone(), variable)));
            let body = old.body.clone().with_variables(present.into_values().collect());
            let event = event("environment.updated", format!("environment/{id}"));
            match self.replace_environment(tenant, &old, body, now, &event).await {
                Ok(_) => return Ok(Ok(results)),
                Err(StoreError::Conflict) => pause(&mut attempt, until).await?,
                Err(other) => return Err(other),
            }
        }
    }

    /// Those of the variables that are there, in one round trip.
    async fn present(&self, tenant: &TenantId, scope: Scope, variables: &[ImportedVariable]) -> Result<Present> {
        let found: Vec<StoredVariable> = if let Scope::Environment(id) = scope {
            self.environment(tenant, id).await.map_err(no_environment)?.body.variables
        } else {
            let keys: Vec<Key> = variables.iter().map(|v| keys::variable(tenant, scope, &v.key)).collect();
            let items = self.table.batch_get(&keys).await?;
            items.into_iter().map(|item| record(item, "variable")).collect::<Result<_>>()?
        };
        Ok(found.into_iter().map(|variable| (variable.key.clone(), variable)).collect())
    }

    /// What becomes of each, and what is to be written.
    async fn imported(
        &self,
        tenant: &TenantId,
        into: ImportInto,
        variables: &[ImportedVariable],
        present: &Present,
        now: Timestamp,
    ) -> Result<Result<(Vec<ImportResult>, Vec<StoredVariable>), Vec<FieldError>>> {
        let (mut results, mut new, mut faults) = (Vec::new(), Vec::new(), Vec::new());
        for variable in variables {
            match Self::judge_import(into, variable, present) {
                Ok(result) => {
                    if result.is_written() {
                        new.extend(self.as_stored(tenant, into.scope, variable, present, now).await?);
                    }
                    results.push(result);
                }
                Err(invalid) => faults.push(invalid.at(variable.field.clone())),
            }
        }
        Ok(if faults.is_empty() { Ok((results, new)) } else { Err(faults) })
    }

    fn judge_import(into: ImportInto, variable: &ImportedVariable, present: &Present) -> Result<ImportResult, Invalid> {
        let old = present.get(&variable.key);
        let is_same = match (&variable.value, old.map(|old| (old, &old.value))) {
            (ImportedValue::Masked, Some((_, StoredValue::Secret { .. }))) => true,
            (ImportedValue::Masked, _) => return Err(masked()),
            (ImportedValue::Reference(secret_id), Some((old, _))) => old.secret_id() == Some(*secret_id),
            (ImportedValue::Text { text, is_secret: false }, Some((_, StoredValue::Plain { text: stored }))) => {
                text.expose() == stored
            }
            // A secret is not opened: an answer would tell whether a guess at it was right, and nobody would see it on record.
            (ImportedValue::Text { .. }, Some(_)) | (_, None) => false,
        };
        let may_be_written = old.is_none() || into.overwrite;
        if let ImportedValue::Text { text, .. } = &variable.value
            && may_be_written
        {
            check_written(type_of_text(old), text.expose())?;
        }
        Ok(match old {
            None => ImportResult::Imported,
            Some(_) if is_same => ImportResult::Unchanged,
            Some(_) if into.overwrite => ImportResult::Updated,
            Some(_) => ImportResult::Skipped,
        })
    }

    async fn as_stored(
        &self,
        tenant: &TenantId,
        scope: Scope,
        variable: &ImportedVariable,
        present: &Present,
        now: Timestamp,
    ) -> Result<Option<StoredVariable>> {
        let old = present.get(&variable.key);
        let revision = Revision(old.map_or(0, |old| old.revision.0) + 1);
        let (value_type, value) = match &variable.value {
            ImportedValue::Masked => return Ok(None),
            ImportedValue::Reference(secret_id) => {
                (ValueType::SecretRef, StoredValue::Reference { secret_id: *secret_id })
            }
            ImportedValue::Text { text, is_secret } => {
                let value = if *is_secret || old.is_some_and(StoredVariable::is_secret) {
                    self.seal_variable(tenant, scope, &variable.key, revision, text).await?
                } else {
                    StoredValue::Plain { text: text.expose().clone() }
                };
                (type_of_text(old), value)
            }
        };
        let created_at = old.map_or(now, |old| old.created_at);
        Ok(Some(StoredVariable { key: variable.key.clone(), value_type, value, revision, created_at, updated_at: now }))
    }
}

/// A variable that exists keeps its type; one that was a reference is a text from then on.
fn type_of_text(old: Option<&StoredVariable>) -> ValueType {
    match old.map(|old| old.value_type) {
        None | Some(ValueType::SecretRef) => ValueType::String,
        Some(of_text) => of_text,
    }
}

fn no_environment(error: StoreError) -> StoreError {
    match error {
        StoreError::Missing => StoreError::ReferenceMissing { field: "envId" },
        other => other,
    }
}

fn masked() -> Invalid {
    Invalid::new(
        "mask",
        format!("is {MASK}, which stands for no value here"),
        "write the value itself, or leave the line out",
    )
}
