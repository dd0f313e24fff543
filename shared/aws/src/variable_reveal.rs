//! Reading the value of one variable, for somebody who may see it.

use jiff::Timestamp;
use tidegate_domain::{
    id::{SecretId, TenantId},
    secret::Secret,
    variable::Scope,
    variable_id::VariableId,
};

use crate::{
    audit::{self, AuditEvent},
    catalogue::{Part, Stored, explain},
    environments::Environment,
    error::{Result, StoreError},
    keys::{self, Key, Kind},
    registered::StoredSecret,
    store::Store,
    table::{patience, pause},
    variables::{StoredValue, StoredVariable},
    write::{Expression, check},
};

impl Store {
    /// The variable, and its value as it is stored: a text that refers to others is not resolved, and of a reference to a
    /// secret it is the secret's value. `event` makes an entry of an action and a subject; what is read is on record before
    /// it is opened, the secret by itself as well. A crash in between leaves an event without a reader, never the other way
    /// round.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such variable.
    pub async fn reveal_variable(
        &self,
        tenant: &TenantId,
        id: &VariableId,
        now: Timestamp,
        event: impl Fn(&str, String) -> AuditEvent,
    ) -> Result<(StoredVariable, Secret<String>)> {
        let until = patience();
        let mut attempt = 0;
        loop {
            match self.try_reveal(tenant, id, now, &event).await {
                // Changed since it was read: what is on record is what is shown.
                Err(StoreError::Conflict) => pause(&mut attempt, until).await?,
                other => return other,
            }
        }
    }

    async fn try_reveal(
        &self,
        tenant: &TenantId,
        id: &VariableId,
        now: Timestamp,
        event: &impl Fn(&str, String) -> AuditEvent,
    ) -> Result<(StoredVariable, Secret<String>)> {
        let (variable, key, revision) = self.variable_in_its_item(tenant, id).await?;
        let revealed = event("variable.revealed", format!("variable/{id}"));
        let mut writes = vec![
            check(Part::Thing, &key, &self.table, Expression::revision(revision)),
            audit::write(Part::Other, tenant, &revealed, now, &self.table)?,
        ];
        if let Some(SecretId(secret)) = variable.secret_id() {
            let key = keys::thing(tenant, Kind::Secret, secret);
            writes.push(check(Part::Thing, &key, &self.table, Expression::present()));
            let revealed = event("secret.revealed", format!("secret/{secret}"));
            writes.push(audit::write(Part::Other, tenant, &revealed, now, &self.table)?);
        }
        self.table.transact(writes).await.map_err(explain)?;
        let value = match &variable.value {
            StoredValue::Plain { text } => Secret::new(text.clone()),
            StoredValue::Secret { .. } => self.open_variable(tenant, id.scope, &variable).await?,
            StoredValue::Reference { secret_id, .. } => {
                let secret: Stored<StoredSecret> = self.find(tenant, secret_id.0).await?;
                self.open_secret(tenant, secret.id, &secret.body).await?
            }
        };
        Ok((variable, value))
    }

    /// With the item that it is in, and that item's revision: an environment's variables are one item with it.
    async fn variable_in_its_item(&self, tenant: &TenantId, id: &VariableId) -> Result<(StoredVariable, Key, u64)> {
        if let Scope::Environment(environment) = id.scope {
            let stored: Stored<Environment> = self.environment(tenant, environment).await?;
            let variable = stored.body.variable(&id.key).cloned().ok_or(StoreError::Missing)?;
            return Ok((variable, keys::thing(tenant, Kind::Environment, stored.id), stored.revision.0));
        }
        let variable = self.variable(tenant, id.scope, &id.key).await?;
        let revision = variable.revision.0;
        Ok((variable, keys::variable(tenant, id.scope, &id.key), revision))
    }
}
