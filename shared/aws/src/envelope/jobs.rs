//! What is sealed for one host.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use aws_sdk_kms::Client;
use tidegate_domain::{
    id::{HostName, TenantId},
    secret::Secret,
};

use super::{CACHE_TIME, Cached, DataKey, Place, Slot, aad, decrypt, encrypt, job_context, name_of, unwrap_key};
use crate::error::Result;

/// A data key that one host can unwrap.
#[derive(Debug)]
pub(crate) struct JobKey {
    pub(super) wrapped: String,
    pub(super) key: Arc<DataKey>,
}

impl JobKey {
    pub(crate) fn seal(&self, tenant: &TenantId, host: &HostName, place: Place<'_>, plain: &[u8]) -> String {
        encrypt("j1", &self.wrapped, &self.key, &aad("j1", tenant, host.as_str(), place, &self.wrapped), plain)
    }

    /// # Errors
    /// [`StoreError::Corrupt`] if it was sealed with another key, or for another place.
    pub(crate) fn open(
        &self,
        tenant: &TenantId,
        host: &HostName,
        place: Place<'_>,
        sealed: &str,
    ) -> Result<Secret<Vec<u8>>> {
        decrypt(sealed, &self.key, &aad("j1", tenant, host.as_str(), place, name_of(sealed, "j1")?))
    }
}

/// Opens what was sealed for one host; all that a worker can do with KMS.
#[derive(Debug, Clone)]
pub struct JobOpener {
    kms: Client,
    cache: Arc<Mutex<HashMap<Slot, Cached>>>,
}

impl JobOpener {
    pub(crate) fn new(kms: Client) -> Self {
        Self { kms, cache: Arc::default() }
    }

    pub(crate) async fn open(
        &self,
        tenant: &TenantId,
        host: &HostName,
        place: Place<'_>,
        sealed: &str,
    ) -> Result<Secret<Vec<u8>>> {
        self.key_of(tenant, host, sealed).await?.open(tenant, host, place, sealed)
    }

    /// The key that something was sealed for this host with.
    pub(crate) async fn key_of(&self, tenant: &TenantId, host: &HostName, sealed: &str) -> Result<JobKey> {
        let wrapped = name_of(sealed, "j1")?;
        let slot = Slot::Wrapped(wrapped.to_owned());
        let cached = {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.retain(|_, cached| cached.since.elapsed() < CACHE_TIME);
            cache.get(&slot).map(|cached| Arc::clone(&cached.key))
        };
        let key = if let Some(key) = cached {
            key
        } else {
            let key = Arc::new(unwrap_key(&self.kms, wrapped, &job_context(tenant, host)).await?);
            let cached = Cached { name: String::new(), key: Arc::clone(&key), since: Instant::now() };
            self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, cached);
            key
        };
        Ok(JobKey { wrapped: wrapped.to_owned(), key })
    }
}
