//! Refused requests of issues: whoever sends too many is not answered for a while. Each costs calls of GitHub and a comment,
//! and the limits of accepted requests do not count it.

use jiff::Timestamp;
use tidegate_domain::id::TenantId;

use crate::{
    applications::sha256_hex,
    error::Result,
    keys::{self, Key},
    store::Store,
    table::number,
    write::Expression,
};

/// In an hour of the clock.
const MOST: u64 = 20;
/// Of the item, for housekeeping alone.
const KEPT_SECONDS: i64 = 7_200;

fn key(tenant: &TenantId, login: &str, now: Timestamp) -> Key {
    let hour = now.to_string().get(..13).unwrap_or_default().to_owned();
    keys::refused_requests(tenant, &sha256_hex(login.as_bytes()), &hour)
}

impl Store {
    /// Whether so many requests of this login were refused that the next is not looked at.
    pub async fn is_refused_too_often(&self, tenant: &TenantId, login: &str, now: Timestamp) -> Result<bool> {
        let found = self.table.get(&key(tenant, login, now)).await?;
        let count = found.and_then(|item| item.get("count")?.as_n().ok()?.parse::<u64>().ok());
        Ok(count.is_some_and(|count| count >= MOST))
    }

    pub async fn count_refusal(&self, tenant: &TenantId, login: &str, now: Timestamp) -> Result<()> {
        let change = Expression::new("ADD #count :one SET #ttl = :ttl")
            .name("#count", "count")
            .name("#ttl", "ttl")
            .value(":one", number(1))
            .value(":ttl", number(now.as_second() + KEPT_SECONDS));
        self.table.update(&key(tenant, login, now), change, Expression::default()).await.map(|_| ())
    }
}
