//! People of the local issuer. On AWS they are in Cognito.

use serde::{Deserialize, Serialize};
use tidegate_domain::id::TenantId;

use crate::{error::Result, keys, store::Store, table::item};

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredUser {
    pub name: String,
    pub password_bcrypt: String,
    /// `admin`, `operator` or `viewer`.
    pub role: String,
}

impl std::fmt::Debug for StoredUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredUser").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

impl Store {
    pub async fn user(&self, tenant: &TenantId, name: &str) -> Result<Option<StoredUser>> {
        self.table.read(&keys::user(tenant, name), "user").await
    }

    pub async fn put_user(&self, tenant: &TenantId, user: &StoredUser) -> Result<()> {
        self.table.put(item(&keys::user(tenant, &user.name), user)?, None).await.map(|_| ())
    }
}
