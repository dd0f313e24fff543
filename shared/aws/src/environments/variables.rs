//! Single variables of environments, as [`crate::variables`] has them of other scopes.
//!
//! Each is conditional on what was read of the variable itself. Its neighbours may change meanwhile: then the change is made
//! again on what is there.

use jiff::Timestamp;
use tidegate_domain::{
    id::{EnvironmentId, Revision, TenantId},
    secret::Secret,
    variable::Scope,
};

use super::Environment;
use crate::{
    audit::AuditEvent,
    catalogue::{Created, Listed, PageRequest, Replay, Stored},
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    keys,
    store::Store,
    table::{patience, pause},
    variables::{StoredValue, StoredVariable, variable_place},
};

impl Store {
    pub(crate) async fn list_environment_variables(
        &self,
        tenant: &TenantId,
        id: EnvironmentId,
        page: &PageRequest,
    ) -> Result<Listed<StoredVariable>> {
        let list = keys::variables(tenant, Scope::Environment(id));
        let after = self.read_cursor(tenant, &list, page.cursor.as_deref()).await?;
        let mut data = self.environment(tenant, id).await?.body.variables;
        data.retain(|variable| after.as_deref().is_none_or(|after| variable.key.as_str() > after));
        let more = data.len() > page.limit;
        data.truncate(page.limit);
        let next = data.last().map(|last| last.key.as_str().to_owned()).filter(|_| more);
        Ok(Listed { data, next_cursor: self.write_cursor(tenant, &list, next).await? })
    }

    pub(crate) async fn create_environment_variable(
        &self,
        tenant: &TenantId,
        id: EnvironmentId,
        variable: &StoredVariable,
        replay: Option<Replay<'_>>,
        event: &AuditEvent,
    ) -> Result<Created> {
        let now = variable.created_at;
        let add = |environment: &Environment| {
            if environment.variable(&variable.key).is_some() {
                return Err(StoreError::NameTaken { field: "key" });
            }
            Ok(environment.variables.iter().chain([variable]).cloned().collect())
        };
        match self.change_variables(tenant, id, replay, now, event, add).await {
            Ok(()) => Ok(Created::Now),
            // Of an answer that is kept already the key was used meanwhile.
            Err(error) => match replay {
                Some(replay) => match self.first_answer(tenant, replay.key, now).await? {
                    Some(first) => Ok(Created::Before(first)),
                    None => Err(error),
                },
                None => Err(error),
            },
        }
    }

    pub(crate) async fn replace_environment_variable(
        &self,
        tenant: &TenantId,
        id: EnvironmentId,
        old: &StoredVariable,
        new: &StoredVariable,
        event: &AuditEvent,
    ) -> Result<()> {
        let replace = |environment: &Environment| {
            as_read(environment, old)?;
            let of = |present: &StoredVariable| if present.key == old.key { new.clone() } else { present.clone() };
            Ok(environment.variables.iter().map(of).collect())
        };
        self.change_variables(tenant, id, None, new.updated_at, event, replace).await
    }

    pub(crate) async fn delete_environment_variable(
        &self,
        tenant: &TenantId,
        id: EnvironmentId,
        old: &StoredVariable,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        let remove = |environment: &Environment| {
            as_read(environment, old)?;
            Ok(environment.variables.iter().filter(|present| present.key != old.key).cloned().collect())
        };
        self.change_variables(tenant, id, None, now, event, remove).await
    }

    async fn change_variables(
        &self,
        tenant: &TenantId,
        id: EnvironmentId,
        replay: Option<Replay<'_>>,
        now: Timestamp,
        event: &AuditEvent,
        change: impl Fn(&Environment) -> Result<Vec<StoredVariable>>,
    ) -> Result<()> {
        let until = patience();
        let mut attempt = 0;
        loop {
            let old = self.environment(tenant, id).await?;
            let body = old.body.clone().with_variables(change(&old.body)?);
            match self.save(tenant, &old, body, replay, now, event).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Conflict) if self.answered(tenant, replay, now).await? => {
                    return Err(StoreError::Conflict);
                }
                Err(StoreError::Conflict) => pause(&mut attempt, until).await?,
                Err(other) => return Err(other),
            }
        }
    }

    /// Whether the same request was answered meanwhile: then it would only lose again.
    async fn answered(&self, tenant: &TenantId, replay: Option<Replay<'_>>, now: Timestamp) -> Result<bool> {
        match replay {
            Some(replay) => Ok(self.first_answer(tenant, replay.key, now).await?.is_some()),
            None => Ok(false),
        }
    }

    /// An environment's variables as a new one's: those that are secret are opened and sealed for their new place.
    pub async fn copy_variables(
        &self,
        tenant: &TenantId,
        from: &Stored<Environment>,
        to: EnvironmentId,
        now: Timestamp,
    ) -> Result<Vec<StoredVariable>> {
        let mut copies = Vec::new();
        for variable in &from.body.variables {
            let revision = Revision(1);
            let value = match &variable.value {
                StoredValue::Secret { .. } => {
                    let plain = self.open_of_environment(tenant, EnvironmentId(from.id), variable).await?;
                    self.seal_variable(tenant, Scope::Environment(to), &variable.key, revision, &plain).await?
                }
                StoredValue::Plain { .. } | StoredValue::Reference { .. } => variable.value.clone(),
            };
            let copy = StoredVariable { value, revision, created_at: now, updated_at: now, ..variable.clone() };
            copies.push(copy);
        }
        Ok(copies)
    }

    async fn open_of_environment(
        &self,
        tenant: &TenantId,
        id: EnvironmentId,
        variable: &StoredVariable,
    ) -> Result<Secret<String>> {
        match &variable.value {
            StoredValue::Secret { sealed } => {
                let place = variable_place(Scope::Environment(id), &variable.key);
                let place = Place { kind: "variable", id: &place, version: variable.revision.0 };
                self.sealer.open_text(&self.table, tenant, Purpose::Secret, place, &sealed.0).await
            }
            StoredValue::Plain { text } => Ok(Secret::new(text.clone())),
            StoredValue::Reference { written, .. } => Ok(Secret::new(written.clone())),
        }
    }
}

fn as_read(environment: &Environment, old: &StoredVariable) -> Result<()> {
    match environment.variable(&old.key) {
        Some(present) if present == old => Ok(()),
        Some(_) | None => Err(StoreError::Conflict),
    }
}
