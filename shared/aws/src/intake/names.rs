//! What requests of issues are named by. Everybody who can read an issue sees such a name, and a plain hash of what was asked
//! for would let them try values on it.
//!
//! The key is the tenant's own: made once, and the same for as long as the tenant is there. A name has to find what an
//! earlier run has begun, whichever credentials were changed since.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use tidegate_domain::id::TenantId;

use crate::{
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    keys, random,
    store::Store,
    table::{Cancelled, Item, item, record},
    write::{Expression, put},
};

const PLACE: Place<'static> = Place { kind: "issue-names", id: "key", version: 1 };

#[derive(Serialize, Deserialize)]
struct Kept {
    sealed: String,
}

/// Gives names to what issues of a tenant ask for.
#[derive(Debug)]
pub struct Names(hmac::Key);

impl Names {
    /// Of these parts in this order: 64 hexadecimal digits.
    pub fn of(&self, parts: &[&str]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            // Each with its length, so that no two lists have the same bytes.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().iter().fold(String::new(), |mut hex, byte| {
            use std::fmt::Write as _;
            write!(hex, "{byte:02x}").expect("writing to a string does not fail");
            hex
        })
    }
}

/// The sealed key of an item, and its place, for whoever seals it anew.
pub(crate) fn sealed_key(item: Item) -> Result<(Place<'static>, String)> {
    let Kept { sealed } = record(item, "names")?;
    Ok((PLACE, sealed))
}

impl Store {
    pub async fn names(&self, tenant: &TenantId) -> Result<Names> {
        let key = keys::issue_names(tenant);
        let mut kept: Option<Kept> = self.table.read(&key, "names").await?;
        if kept.is_none() {
            let sealed = self.seal(tenant, Purpose::Secret, PLACE, &random::bytes::<32>()).await?;
            let write = put((), item(&key, &Kept { sealed })?, &self.table, Some(Expression::absent()));
            match self.table.transact(vec![write]).await {
                // Whoever was first is right.
                Ok(()) | Err(Cancelled::Conditions(_)) => {}
                Err(Cancelled::Store(error)) => return Err(error),
            }
            kept = self.table.read(&key, "names").await?;
        }
        let kept = kept.ok_or(StoreError::Conflict)?;
        let opened = self.sealer.open(&self.table, tenant, Purpose::Secret, PLACE, &kept.sealed).await?;
        Ok(Names(hmac::Key::new(hmac::HMAC_SHA256, opened.expose())))
    }
}
