//! The record of who did what. Written in the transaction of the thing itself: what is not on record did not happen.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::id::TenantId;

use crate::{
    error::Result,
    keys, random,
    table::{Table, item},
    write::{Write, put},
};

/// One entry. Holds names and ids, never a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// User name, or what stands for one: `application token`.
    pub actor: String,
    /// `deployment.admitted`, `secret.updated`.
    pub action: String,
    /// What it was done to: `application/12`.
    pub subject: String,
    pub source_ip: Option<String>,
    pub request_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct Record<'a> {
    at: Timestamp,
    #[serde(flatten)]
    event: &'a AuditEvent,
}

pub(crate) fn write<L>(
    label: L,
    tenant: &TenantId,
    event: &AuditEvent,
    now: Timestamp,
    table: &Table,
) -> Result<Write<L>> {
    let text = now.to_string();
    let day = text.get(..10).unwrap_or(&text);
    let id = format!("{text}#{}", URL_SAFE_NO_PAD.encode(random::bytes::<6>()));
    Ok(put(label, item(&keys::audit(tenant, day, &id), &Record { at: now, event })?, table, None))
}
