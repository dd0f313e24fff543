//! Envelope encryption: data keys from KMS, AES-256-GCM with a key per record, a key commitment, and additional data that
//! ties a ciphertext to its place.
//!
//! Text form: `v2:<dataKey>:<salt>:<iv>:<commitment>:<ciphertext+tag>`, base64url without padding. A job's form, `j1:…`,
//! holds the wrapped data key itself in the second place, because its host can read nothing else.

mod jobs;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    constant_time, hkdf,
};
use aws_sdk_kms::{Client, error::ProvideErrorMetadata, primitives::Blob, types::DataKeySpec};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tidegate_domain::{
    id::{HostName, TenantId},
    secret::Secret,
};
use zeroize::Zeroizing;

pub(crate) use jobs::JobKey;
pub use jobs::JobOpener;

use crate::{
    error::{Result, StoreError},
    keys, random,
    table::{Table, item},
    write::Expression,
};

/// An unwrapped data key is used at most so long, judged at its use: a frozen function may hold one for hours.
const CACHE_TIME: Duration = Duration::from_mins(5);
const CACHE_ENTRIES: usize = 1_000;

/// What a ciphertext is for; part of the encryption context that KMS checks and IAM can limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Secrets, secret variables, registry passwords.
    Secret,
    /// The sealed job of a deployment.
    Snapshot,
    /// Stored answers, and cursors.
    Replay,
    /// What came in from outside and is not handled yet.
    Intake,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Snapshot => "snapshot",
            Self::Replay => "replay",
            Self::Intake => "intake",
        }
    }
}

/// Where a ciphertext belongs: a record's kind, its id, and its version. In another place it does not decrypt.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub kind: &'a str,
    pub id: &'a str,
    pub version: u64,
}

#[derive(Debug)]
struct DataKey(Zeroizing<[u8; 32]>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Slot {
    /// The key that new ciphertexts of this tenant and purpose get.
    Current(TenantId, Purpose),
    /// A key by its id.
    Id(TenantId, Purpose, String),
    /// The key that new jobs of this host get.
    Job(TenantId, HostName),
    /// A job's key, by its wrapped form.
    Wrapped(String),
}

#[derive(Debug, Clone)]
struct Cached {
    /// Id, or wrapped form for a job.
    name: String,
    key: Arc<DataKey>,
    since: Instant,
}

/// Seals and opens. Clones share the cache.
#[derive(Debug, Clone)]
pub struct Sealer {
    kms: Client,
    key_id: String,
    cache: Arc<Mutex<HashMap<Slot, Cached>>>,
}

impl Sealer {
    pub(crate) fn new(kms: Client, key_id: String) -> Self {
        Self { kms, key_id, cache: Arc::default() }
    }

    /// Forgets every unwrapped key.
    pub fn forget(&self) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// # Errors
    /// KMS away or the key disabled: nothing was written but, at worst, a data key that nothing uses.
    pub(crate) async fn seal(
        &self,
        table: &Table,
        tenant: &TenantId,
        purpose: Purpose,
        place: Place<'_>,
        plain: &[u8],
    ) -> Result<String> {
        let chosen = match purpose {
            Purpose::Secret => chosen_key(table, tenant).await?,
            Purpose::Snapshot | Purpose::Replay | Purpose::Intake => None,
        };
        if let Some(name) = chosen {
            return self.seal_under(table, tenant, purpose, &name, place, plain).await;
        }
        let Cached { name, key, .. } = self.current(table, tenant, purpose).await?;
        Ok(encrypt("v2", &name, &key, &aad("v2", tenant, purpose.as_str(), place, &name), plain))
    }

    /// As [`Sealer::seal`], under the data key of this id.
    pub(crate) async fn seal_under(
        &self,
        table: &Table,
        tenant: &TenantId,
        purpose: Purpose,
        data_key: &str,
        place: Place<'_>,
        plain: &[u8],
    ) -> Result<String> {
        let key = self.by_id(table, tenant, purpose, data_key).await?;
        Ok(encrypt("v2", data_key, &key, &aad("v2", tenant, purpose.as_str(), place, data_key), plain))
    }

    pub(crate) async fn open(
        &self,
        table: &Table,
        tenant: &TenantId,
        purpose: Purpose,
        place: Place<'_>,
        sealed: &str,
    ) -> Result<Secret<Vec<u8>>> {
        let name = name_of(sealed, "v2")?;
        let data_key = self.by_id(table, tenant, purpose, name).await?;
        decrypt(sealed, &data_key, &aad("v2", tenant, purpose.as_str(), place, name))
    }

    pub(crate) async fn open_text(
        &self,
        table: &Table,
        tenant: &TenantId,
        purpose: Purpose,
        place: Place<'_>,
        sealed: &str,
    ) -> Result<Secret<String>> {
        let bytes = self.open(table, tenant, purpose, place, sealed).await?;
        String::from_utf8(bytes.expose().clone())
            .map(Secret::new)
            .map_err(|_| StoreError::unreadable("secret", "it is not text"))
    }

    /// Sealed for one host; `place` binds deployment and epoch.
    pub(crate) async fn seal_job(
        &self,
        tenant: &TenantId,
        host: &HostName,
        place: Place<'_>,
        plain: &[u8],
    ) -> Result<String> {
        Ok(self.job_key(tenant, host).await?.seal(tenant, host, place, plain))
    }

    /// The key that this host can unwrap: also for what it answers, which it seals under the key that it was asked with.
    pub(crate) async fn job_key(&self, tenant: &TenantId, host: &HostName) -> Result<JobKey> {
        let slot = Slot::Job(tenant.clone(), host.clone());
        if let Some(Cached { name, key, .. }) = self.cached(&slot) {
            return Ok(JobKey { wrapped: name, key });
        }
        let (key, wrapped) = self.generate(&job_context(tenant, host)).await?;
        let Cached { name, key, .. } = self.remember(slot, URL_SAFE_NO_PAD.encode(wrapped), key);
        Ok(JobKey { wrapped: name, key })
    }

    async fn current(&self, table: &Table, tenant: &TenantId, purpose: Purpose) -> Result<Cached> {
        let slot = Slot::Current(tenant.clone(), purpose);
        if let Some(cached) = self.cached(&slot) {
            return Ok(cached);
        }
        let new = self.new_key(table, tenant, purpose).await?;
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, new.clone());
        Ok(new)
    }

    /// A data key that nothing is encrypted with yet.
    async fn new_key(&self, table: &Table, tenant: &TenantId, purpose: Purpose) -> Result<Cached> {
        let id = URL_SAFE_NO_PAD.encode(random::bytes::<12>());
        let (key, wrapped) = self.generate(&context(tenant, purpose, &id)).await?;
        let key_of_item = keys::data_key(tenant, &id);
        let record = HashMap::from([("wrapped".to_owned(), URL_SAFE_NO_PAD.encode(wrapped))]);
        // Before any ciphertext: a crash right here leaves a key that nothing uses, never the other way round.
        table.put(item(&key_of_item, &record)?, Some(Expression::absent())).await?;
        Ok(self.remember(Slot::Id(tenant.clone(), purpose, id.clone()), id, key))
    }

    /// The id of a new data key.
    pub(crate) async fn new_data_key(&self, table: &Table, tenant: &TenantId, purpose: Purpose) -> Result<String> {
        self.new_key(table, tenant, purpose).await.map(|new| new.name)
    }

    async fn by_id(&self, table: &Table, tenant: &TenantId, purpose: Purpose, id: &str) -> Result<Arc<DataKey>> {
        let slot = Slot::Id(tenant.clone(), purpose, id.to_owned());
        if let Some(cached) = self.cached(&slot) {
            return Ok(cached.key);
        }
        let found = table.get(&keys::data_key(tenant, id)).await?;
        let wrapped = found
            .and_then(|item| item.get("wrapped").and_then(|v| v.as_s().ok()).cloned())
            .ok_or_else(|| StoreError::unreadable("secret", "its data key is gone"))?;
        let key = unwrap_key(&self.kms, &wrapped, &context(tenant, purpose, id)).await?;
        Ok(self.remember(slot, id.to_owned(), key).key)
    }

    async fn generate(&self, context: &HashMap<String, String>) -> Result<(DataKey, Vec<u8>)> {
        let answer = self
            .kms
            .generate_data_key()
            .key_id(&self.key_id)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(context.clone()))
            .send()
            .await
            .map_err(|e| kms_error(e, &self.key_id))?;
        let plain = Zeroizing::new(answer.plaintext.map(Blob::into_inner).unwrap_or_default());
        let wrapped = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        Ok((data_key(&plain)?, wrapped))
    }

    fn cached(&self, slot: &Slot) -> Option<Cached> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|_, cached| cached.since.elapsed() < CACHE_TIME);
        cache.get(slot).cloned()
    }

    fn remember(&self, slot: Slot, name: String, key: DataKey) -> Cached {
        let cached = Cached { name, key: Arc::new(key), since: Instant::now() };
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE_ENTRIES {
            cache.clear();
        }
        cache.insert(slot, cached.clone());
        cached
    }
}

/// The data key that the last rotation chose for all that is sealed from then on. Read at each use, so that nobody goes on
/// with the one before.
async fn chosen_key(table: &Table, tenant: &TenantId) -> Result<Option<String>> {
    let rotation = table.get(&keys::rotation(tenant)).await?;
    Ok(rotation.and_then(|item| item.get("dataKey").and_then(|v| v.as_s().ok()).cloned()))
}

/// The data key that something was sealed under.
pub(crate) fn data_key_of(sealed: &str) -> Result<&str> {
    name_of(sealed, "v2")
}

async fn unwrap_key(kms: &Client, wrapped: &str, context: &HashMap<String, String>) -> Result<DataKey> {
    let blob =
        URL_SAFE_NO_PAD.decode(wrapped).map_err(|_| StoreError::unreadable("data key", "it is not base64url"))?;
    let answer = kms
        .decrypt()
        .ciphertext_blob(Blob::new(blob))
        .set_encryption_context(Some(context.clone()))
        .send()
        .await
        .map_err(|e| kms_error(e, "that the data was encrypted with"))?;
    data_key(&Zeroizing::new(answer.plaintext.map(Blob::into_inner).unwrap_or_default()))
}

fn kms_error<E, R>(error: aws_sdk_kms::error::SdkError<E, R>, key: &str) -> StoreError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    match error.code() {
        Some("DisabledException" | "KMSInvalidStateException" | "NotFoundException") => {
            StoreError::KeyDisabled { key: key.to_owned() }
        }
        Some("InvalidCiphertextException" | "IncorrectKeyException") => {
            StoreError::unreadable("data key", "KMS refuses it in this context")
        }
        _ => StoreError::Away { service: "KMS", source: error.into() },
    }
}

fn data_key(plain: &[u8]) -> Result<DataKey> {
    let bytes: [u8; 32] = plain.try_into().map_err(|_| StoreError::unreadable("data key", "it is not of 32 bytes"))?;
    Ok(DataKey(Zeroizing::new(bytes)))
}

fn context(tenant: &TenantId, purpose: Purpose, data_key: &str) -> HashMap<String, String> {
    pairs(&[("app", "tidegate"), ("purpose", purpose.as_str()), ("tenant", tenant.as_str()), ("dataKey", data_key)])
}

fn job_context(tenant: &TenantId, host: &HostName) -> HashMap<String, String> {
    pairs(&[("app", "tidegate"), ("purpose", "job"), ("tenant", tenant.as_str()), ("host", host.as_str())])
}

fn pairs(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// Each part with its length before it, so that no two places have the same bytes.
fn aad(format: &str, tenant: &TenantId, purpose: &str, place: Place<'_>, data_key: &str) -> Vec<u8> {
    let version = place.version.to_string();
    let mut bytes = Vec::new();
    for part in [format, tenant.as_str(), purpose, place.kind, place.id, &version, data_key] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// The record's own key and the commitment to it, both from the data key and a random salt.
fn derive(key: &DataKey, salt: &[u8]) -> (LessSafeKey, [u8; 32]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&*key.0);
    let mut output = Zeroizing::new([0_u8; 64]);
    pseudorandom
        .expand(&[b"tidegate record key and commitment"], Length(64))
        .and_then(|okm| okm.fill(&mut *output))
        .expect("64 bytes are within what HKDF-SHA256 can give");
    let (record_key, commitment) = output.split_at(32);
    let unbound = UnboundKey::new(&AES_256_GCM, record_key).expect("32 bytes are an AES-256 key");
    (LessSafeKey::new(unbound), commitment.try_into().expect("the other half is of 32 bytes"))
}

fn encrypt(format: &str, name: &str, key: &DataKey, aad: &[u8], plain: &[u8]) -> String {
    let salt: [u8; 32] = random::bytes();
    let iv: [u8; 12] = random::bytes();
    let (record_key, commitment) = derive(key, &salt);
    let mut buffer = plain.to_vec();
    record_key
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(iv), Aad::from(aad), &mut buffer)
        .expect("a record is far below the limit of AES-GCM");
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!("{format}:{name}:{}:{}:{}:{}", encode(&salt), encode(&iv), encode(&commitment), encode(&buffer))
}

fn name_of<'a>(sealed: &'a str, format: &str) -> Result<&'a str> {
    let mut parts = sealed.split(':');
    match (parts.next(), parts.next()) {
        (Some(found), Some(name)) if found == format => Ok(name),
        _ => Err(StoreError::unreadable("ciphertext", "its format is unknown")),
    }
}

fn decrypt(sealed: &str, key: &DataKey, aad: &[u8]) -> Result<Secret<Vec<u8>>> {
    let refused = |why| StoreError::unreadable("ciphertext", why);
    let parts: Vec<&str> = sealed.split(':').collect();
    let [_, _, salt, iv, commitment, ciphertext] = parts[..] else {
        return Err(refused("it has not six parts"));
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| refused("it is not base64url"));
    let (record_key, expected) = derive(key, &decode(salt)?);
    constant_time::verify_slices_are_equal(&decode(commitment)?, &expected)
        .map_err(|_| refused("it was made with another key"))?;
    let iv: [u8; 12] = decode(iv)?.try_into().map_err(|_| refused("its nonce is not of 12 bytes"))?;
    let mut buffer = decode(ciphertext)?;
    let length = record_key
        .open_in_place(Nonce::assume_unique_for_key(iv), Aad::from(aad), &mut buffer)
        .map_err(|_| refused("it was changed or belongs elsewhere"))?
        .len();
    let plain = buffer[..length].to_vec();
    zeroize::Zeroize::zeroize(&mut buffer);
    Ok(Secret::new(plain))
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
