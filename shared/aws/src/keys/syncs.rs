//! Keys of what keeps secrets as their sources have them.

use jiff::Timestamp;
use tidegate_domain::{
    id::{SecretProviderId, TenantId},
    sync_run::SyncId,
};

use super::{Key, deadline_time, key, tenant};

/// When a provider is synced, and what its last sync has done.
pub fn sync_state(t: &TenantId, provider: SecretProviderId) -> Key {
    key(tenant(t, &format!("SECRET_PROVIDER#{provider}")), "SYNC")
}

/// Runs of a provider, in order of time.
pub fn syncs(t: &TenantId, provider: SecretProviderId) -> String {
    tenant(t, &format!("SECRET_PROVIDER#{provider}#SYNCS"))
}

pub fn sync(t: &TenantId, provider: SecretProviderId, id: SyncId) -> Key {
    key(syncs(t, provider), id.to_string())
}

/// Providers of all tenants that are to be synced, in order of when, so that a pass reads no more than what is due.
pub fn due_syncs() -> String {
    "SYNCS_DUE".to_owned()
}

/// `at` to the second, as [`deadline_time`] writes it.
pub fn due_sync(at: Timestamp, t: &TenantId, provider: SecretProviderId) -> Key {
    key(due_syncs(), format!("{}#{t}#{provider}", deadline_time(at)))
}

/// What [`due_sync`] put into the sort key.
pub fn parse_due_sync(sk: &str) -> Option<(TenantId, SecretProviderId)> {
    let (tenant, id) = sk.split_once('#')?.1.split_once('#')?;
    Some((TenantId::parse(tenant).ok()?, SecretProviderId(id.parse().ok()?)))
}

/// Whose a provider is, for a source that tells of a change: it brings no tenant, and ids are unique per installation.
pub fn provider_owner(provider: SecretProviderId) -> Key {
    key(format!("SECRET_PROVIDER#{provider}"), "OWNER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_is_in_order_of_time_and_read_back() {
        let (tenant, id) = (TenantId::parse("acme").unwrap(), SecretProviderId(7));
        let at = |second| due_sync(Timestamp::from_second(second).unwrap(), &tenant, id);
        assert!(at(9).sk < at(10).sk && at(10).sk < at(1_000_000_000).sk);
        assert_eq!(parse_due_sync(&at(10).sk), Some((tenant, id)));
        assert_eq!(parse_due_sync("000000000010#acme"), None);
    }
}
