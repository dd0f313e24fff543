//! Which environment an application had when it was last looked at, so that its variables can be read together with what
//! says which one it is. A guess that has become wrong costs one more round trip, and nothing else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_domain::id::{ApplicationId, EnvironmentId, ProjectId, TenantId};

use crate::applications::TokenGrant;

/// Past so many a process forgets all of them.
const MOST: usize = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Of {
    /// That it is pinned to.
    Application(TenantId, ApplicationId),
    /// That is active.
    Project(TenantId, ProjectId),
}

impl Of {
    fn both(grant: &TokenGrant) -> [Self; 2] {
        let tenant = &grant.tenant;
        [Self::Application(tenant.clone(), grant.application_id), Self::Project(tenant.clone(), grant.project_id)]
    }
}

/// Clones share what is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guesses(Arc<Mutex<HashMap<Of, EnvironmentId>>>);

impl Guesses {
    pub(crate) fn of(&self, grant: &TokenGrant) -> Option<EnvironmentId> {
        let known = self.lock();
        Of::both(grant).iter().find_map(|of| known.get(of)).copied()
    }

    pub(crate) fn remember(&self, grant: &TokenGrant, pinned: Option<EnvironmentId>, active: Option<EnvironmentId>) {
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        for (of, id) in Of::both(grant).into_iter().zip([pinned, active]) {
            match id {
                Some(id) => known.insert(of, id),
                None => known.remove(&of),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Of, EnvironmentId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
