//! What a decision about a deployment has to do with its environment, and that it is still so when it is recorded.

use aws_sdk_dynamodb::types::AttributeValue;
use tidegate_domain::id::{EnvironmentId, ProjectId, TenantId};

use super::Environment;
use crate::{
    catalogue::Stored,
    deployments::Part,
    keys::{self, Kind},
    store::Store,
    table::number,
    write::{Expression, Write, check},
};

/// The environment that something was decided on, and what the decision hangs on beside its variables: these may change a
/// moment after a deployment as well as a moment before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecidedIn {
    /// The project whose pointer named it, if nothing else did.
    active_of: Option<ProjectId>,
    environment: Option<(EnvironmentId, RequiresApproval)>,
}

type RequiresApproval = bool;

impl DecidedIn {
    pub(crate) fn new(active_of: Option<ProjectId>, environment: Option<&Stored<Environment>>) -> Self {
        let of = |stored: &Stored<Environment>| (EnvironmentId(stored.id), stored.body.requires_approval);
        Self { active_of, environment: environment.map(of) }
    }
}

impl Store {
    /// That it is still the one, is still there, and still wants or does not want a decision. An application's pin needs no
    /// check of its own: it changes with the application.
    pub(crate) fn still_in(&self, tenant: &TenantId, decided: &DecidedIn) -> Vec<Write<Part>> {
        let mut checks = Vec::new();
        if let Some((id, requires_approval)) = decided.environment {
            let key = keys::thing(tenant, Kind::Environment, id.0);
            let condition = Expression::new("#body.#requires = :requires")
                .name("#body", "body")
                .name("#requires", "requiresApproval")
                .value(":requires", AttributeValue::Bool(requires_approval));
            checks.push(check(Part::Environment, &key, &self.table, condition));
        }
        if let Some(project) = decided.active_of {
            let condition = match decided.environment {
                Some((id, _)) => Expression::new("envId = :id").value(":id", number(id.0)),
                None => Expression::absent(),
            };
            checks.push(check(Part::Environment, &keys::active_environment(tenant, project), &self.table, condition));
        }
        checks
    }
}
