//! Which applications a repository's issues are about: a delivery names the repository, and nothing else says whose it is.

use serde::{Deserialize, Serialize};
use tidegate_domain::{
    application::Application,
    id::{ApplicationId, TenantId},
    issue::{Label, Repository},
};

use crate::{
    error::Result,
    keys,
    store::Store,
    table::{item, record},
    write::{Write, delete, put},
};

/// An application that listens to a repository's issues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    pub tenant: TenantId,
    pub application_id: ApplicationId,
    /// Only issues with this label are its business. A hint: the application itself decides.
    pub label: Label,
}

impl Store {
    /// Of all tenants. Whose delivery it is, its signature says.
    pub async fn listeners(&self, repository: &Repository) -> Result<Vec<Listener>> {
        let items = self.table.all(&keys::repository(&repository.folded()), "").await?;
        items.into_iter().map(|item| record(item, "repository")).collect()
    }

    /// For the transaction that registers, changes (`old` and `new`) or removes an application.
    pub(crate) fn listener_writes<L: Copy>(
        &self,
        label: L,
        tenant: &TenantId,
        id: ApplicationId,
        old: Option<&Application>,
        new: Option<&Application>,
    ) -> Result<Vec<Write<L>>> {
        let trigger = |application: Option<&Application>| application.and_then(|a| a.issue_trigger.clone());
        let (old, new) = (trigger(old), trigger(new));
        let mut writes = Vec::new();
        if old == new {
            return Ok(writes);
        }
        if let Some(old) = &old
            && new.as_ref().is_none_or(|new| new.repository != old.repository)
        {
            writes.push(delete(label, &keys::listener(&old.repository.folded(), tenant, id), &self.table, None));
        }
        if let Some(new) = new {
            let listener = Listener { tenant: tenant.clone(), application_id: id, label: new.label };
            let key = keys::listener(&new.repository.folded(), tenant, id);
            writes.push(put(label, item(&key, &listener)?, &self.table, None));
        }
        Ok(writes)
    }
}
