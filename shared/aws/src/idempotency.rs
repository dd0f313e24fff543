//! First answers to idempotency keys, kept for a day and sealed.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tidegate_domain::{id::TenantId, secret::Secret};

use crate::{
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    keys,
    store::Store,
    table::{Cancelled, Item, item, number, record},
    write::{Expression, Write, put},
};

const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// A caller's key for one request: the same key with the same body gets the first answer again.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The credential, so that two callers' keys never meet: `token:…`, `user:…`.
    pub caller: String,
    /// SHA-256 of the header's value, hex.
    pub key_sha256: String,
    /// SHA-256 of method, path and body, hex.
    pub request_sha256: String,
}

/// A kept answer.
#[derive(Debug)]
pub struct FirstAnswer {
    pub status: u16,
    /// JSON.
    pub body: Secret<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    request_sha256: String,
    status: u16,
    sealed_answer: String,
    /// Seconds since the epoch: judged when read, because the table's own expiry lags by days.
    expires_at: i64,
    ttl: i64,
}

impl Store {
    /// The first answer to this key, if it was used in the last 24 hours.
    ///
    /// # Errors
    /// [`StoreError::IdempotencyKeyReused`] if it was used with another body.
    pub async fn first_answer(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        now: Timestamp,
    ) -> Result<Option<FirstAnswer>> {
        match self.table.get(&keys::idempotency(tenant, &key.caller, &key.key_sha256)).await? {
            Some(item) => self.open_answer(tenant, key, item, now).await,
            None => Ok(None),
        }
    }

    async fn open_answer(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        item: Item,
        now: Timestamp,
    ) -> Result<Option<FirstAnswer>> {
        let record: Record = record(item, "answer")?;
        if record.expires_at <= now.as_second() {
            return Ok(None);
        }
        if record.request_sha256 != key.request_sha256 {
            return Err(StoreError::IdempotencyKeyReused);
        }
        let place = Place { kind: "answer", id: &key.key_sha256, version: 1 };
        let body = self.sealer.open_text(&self.table, tenant, Purpose::Replay, place, &record.sealed_answer).await?;
        Ok(Some(FirstAnswer { status: record.status, body }))
    }

    /// Keeps the answer to what can be done again without harm, and so needs no transaction. Another one's with the same key
    /// stays.
    pub async fn keep_first_answer(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        answer: &FirstAnswer,
        now: Timestamp,
    ) -> Result<()> {
        match self.table.transact(vec![self.keep_answer((), tenant, key, answer, now).await?]).await {
            Ok(()) | Err(Cancelled::Conditions(_)) => Ok(()),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }

    /// The write that keeps an answer, for the transaction that makes it true. Its condition fails if another request
    /// with the same key was first.
    pub(crate) async fn keep_answer<L>(
        &self,
        label: L,
        tenant: &TenantId,
        key: &IdempotencyKey,
        answer: &FirstAnswer,
        now: Timestamp,
    ) -> Result<Write<L>> {
        let place = Place { kind: "answer", id: &key.key_sha256, version: 1 };
        let sealed_answer = self.seal(tenant, Purpose::Replay, place, answer.body.expose().as_bytes()).await?;
        let expires_at = (now + KEPT).as_second();
        let record = Record {
            request_sha256: key.request_sha256.clone(),
            status: answer.status,
            sealed_answer,
            expires_at,
            ttl: expires_at,
        };
        let item = item(&keys::idempotency(tenant, &key.caller, &key.key_sha256), &record)?;
        let condition = Expression::new("attribute_not_exists(pk) OR #expires <= :now")
            .name("#expires", "expiresAt")
            .value(":now", number(now.as_second()));
        Ok(put(label, item, &self.table, Some(condition)))
    }
}
