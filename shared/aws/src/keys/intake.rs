//! Keys of what comes from GitHub and goes there.

use tidegate_domain::{
    id::{ApplicationId, DeploymentId, TenantId},
    issue::IssueRef,
};

use super::{Key, key, tenant};

/// Everything that came in and is not done, of all tenants, so that the sweep finds it with one query.
pub fn intake() -> String {
    "INTAKE".to_owned()
}

/// In the sort keys of what came in.
pub const DELIVERY: &str = "DELIVERY";
/// In the sort keys of what is to be told.
pub const NOTICE: &str = "NOTICE";

pub fn intake_delivery(t: &TenantId, uuid: &str) -> Key {
    key(intake(), format!("{t}#{DELIVERY}#{uuid}"))
}

pub fn intake_notice(t: &TenantId, id: DeploymentId) -> Key {
    key(intake(), format!("{t}#{NOTICE}#{id}"))
}

/// Tenant, [`DELIVERY`] or [`NOTICE`], and id, as [`intake_delivery`] and [`intake_notice`] put them into the sort key.
pub fn parse_intake(sk: &str) -> Option<(TenantId, &str, &str)> {
    let (tenant, rest) = sk.split_once('#')?;
    let (kind, id) = rest.split_once('#')?;
    Some((TenantId::parse(tenant).ok()?, kind, id))
}

/// That a delivery was here.
pub fn seen_delivery(t: &TenantId, uuid: &str) -> Key {
    key(tenant(t, &format!("{DELIVERY}#{uuid}")), DELIVERY)
}

/// Applications of all tenants that listen to a repository's issues; its name in lower case.
pub fn repository(folded: &str) -> String {
    format!("REPOSITORY#{folded}")
}

pub fn listener(folded: &str, t: &TenantId, id: ApplicationId) -> Key {
    key(repository(folded), format!("{t}#{id}"))
}

/// Who is at an issue, and what of it is answered.
pub fn issue(t: &TenantId, issue: &IssueRef) -> Key {
    key(tenant(t, &format!("ISSUE#{}#{}", issue.repository.folded(), issue.number)), "ISSUE")
}

/// What names of issues' requests are made with.
pub fn issue_names(t: &TenantId) -> Key {
    key(tenant(t, "ISSUE_NAMES"), "ISSUE_NAMES")
}

/// How many requests of a login were refused in the hour (`2026-11-22T10`); the login is hashed, as in [`super::user_window`].
pub fn refused_requests(t: &TenantId, sha256_hex: &str, hour: &str) -> Key {
    key(tenant(t, &format!("REFUSED#{sha256_hex}")), hour)
}
