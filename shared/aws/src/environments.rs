//! A project's named sets of variables, and which of them is active.
//!
//! An environment is one item, its variables included: a set is read in one call, and replaced, copied or deleted as a whole
//! however many variables it has. Limits keep it below what an item can hold. Which one is active stands in one pointer of
//! the project, conditional on the environment being there; so it is always one, or at the start none.

mod decided;
mod lifecycle;
mod reading;
mod uses;
mod variables;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    id::{EnvironmentId, ProjectId, SecretId, TenantId},
    variable::{MAX_TOTAL_BYTES, MAX_VARIABLES, VariableKey},
};

pub use decided::DecidedIn;
pub use lifecycle::Deletion;
pub use uses::EnvironmentsSwept;

use crate::{
    audit::{self, AuditEvent},
    catalogue::{Part, Reference, Resource, Stored, explain},
    error::{Result, StoreError},
    keys::{self, Kind},
    store::Store,
    table::{item, number},
    variables::StoredVariable,
    write::{Expression, check, put},
};

/// How long a deleted environment can be restored.
const RESTORABLE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// As stored. Which one is active stands in one pointer of the project, not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    pub project_id: ProjectId,
    /// Unique in its project, among those that are not deleted.
    pub name: String,
    pub description: String,
    /// Every deployment with it waits for somebody's decision.
    pub requires_approval: bool,
    /// It can be restored for 30 days from then.
    pub deleted_at: Option<Timestamp>,
    /// By key, ascending.
    pub variables: Vec<StoredVariable>,
    /// Uses of secrets that are counted for it and that no variable makes: a change of more of them than one transaction
    /// holds is in hand, or was cut short.
    surplus: BTreeSet<Use>,
    /// When the sweep is to end the surplus.
    settle_at: Option<Timestamp>,
}

/// That a variable refers to a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Use {
    key: VariableKey,
    secret_id: SecretId,
}

impl Environment {
    pub fn new(project_id: ProjectId, name: String, description: String, requires_approval: bool) -> Self {
        Self {
            project_id,
            name,
            description,
            requires_approval,
            deleted_at: None,
            variables: Vec::new(),
            surplus: BTreeSet::new(),
            settle_at: None,
        }
    }

    pub fn variable(&self, key: &VariableKey) -> Option<&StoredVariable> {
        self.variables.iter().find(|variable| variable.key == *key)
    }

    /// The same with these variables, whatever their order.
    #[must_use]
    pub fn with_variables(mut self, mut variables: Vec<StoredVariable>) -> Self {
        variables.sort_by(|a, b| a.key.cmp(&b.key));
        self.variables = variables;
        self
    }

    /// Of a deleted one: until when it can be restored.
    pub fn restorable_until(&self) -> Option<Timestamp> {
        self.deleted_at.map(|at| at + RESTORABLE)
    }

    /// The uses of secrets that its variables make.
    fn referred(&self) -> BTreeSet<Use> {
        let of = |variable: &StoredVariable| Some(Use { key: variable.key.clone(), secret_id: variable.secret_id()? });
        self.variables.iter().filter_map(of).collect()
    }

    /// The uses of secrets that are counted for it.
    fn counted(&self) -> BTreeSet<Use> {
        self.referred().union(&self.surplus).cloned().collect()
    }

    /// What a deployment could not use has no place in an item that is limited to 400 KB.
    fn check_size(&self) -> Result<()> {
        let bytes: usize = self.variables.iter().map(StoredVariable::size_bytes).sum();
        if self.variables.len() > MAX_VARIABLES || bytes > MAX_TOTAL_BYTES {
            return Err(StoreError::TooManyVariables);
        }
        Ok(())
    }
}

impl Resource for Environment {
    const KIND: Kind = Kind::Environment;
    const NAME_FIELD: &'static str = "name";

    fn unique_name(&self) -> &str {
        &self.name
    }

    fn name_scope(&self) -> String {
        keys::environment_scope(self.project_id)
    }

    /// Without the secrets of its variables, which may be more than a transaction holds: see [`uses`].
    fn references(&self) -> Vec<Reference> {
        vec![in_project(self.project_id)]
    }
}

fn in_project(project: ProjectId) -> Reference {
    Reference { kind: Kind::Project, id: project.0, field: "projectId" }
}

/// What a project's pointer holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pointer {
    env_id: u64,
}

impl Store {
    /// Makes it the active one of its project; no other is from then on.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if it is not there, or was deleted meanwhile.
    pub async fn activate_environment(
        &self,
        tenant: &TenantId,
        stored: &Stored<Environment>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        let pointer = keys::active_environment(tenant, stored.body.project_id);
        let thing = keys::thing(tenant, Kind::Environment, stored.id);
        let writes = vec![
            // Whatever it pointed to: the last of two callers wins. Its project cannot have changed, nor be deleted under it.
            put(Part::Pointer, item(&pointer, &Pointer { env_id: stored.id })?, &self.table, None),
            check(Part::Thing, &thing, &self.table, Expression::present()),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        self.table.transact(writes).await.map_err(|cancelled| match explain(cancelled) {
            StoreError::Conflict => StoreError::Missing,
            other => other,
        })
    }

    /// That this environment is not the active one, as a part of the transaction that deletes it.
    fn not_active(&self, tenant: &TenantId, project: ProjectId, id: EnvironmentId) -> crate::write::Write<Part> {
        let condition = Expression::new("attribute_not_exists(pk) OR envId <> :id").value(":id", number(id.0));
        check(Part::Pointer, &keys::active_environment(tenant, project), &self.table, condition)
    }
}
