//! The record of who did what. Written in the transaction of the thing itself: what is not on record did not happen.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{id::TenantId, variable::VariableKey};

use crate::{
    error::Result,
    keys, random,
    table::{Table, item},
    variables::StoredVariable,
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

/// An event with what it did to a set of variables, if it did.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'a> {
    #[serde(flatten)]
    event: &'a AuditEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    variables: Option<KeyChanges<'a>>,
}

impl<'a> Entry<'a> {
    pub(crate) fn with(event: &'a AuditEvent, variables: KeyChanges<'a>) -> Self {
        Self { event, variables: Some(variables).filter(|changes| *changes != KeyChanges::default()) }
    }
}

impl<'a> From<&'a AuditEvent> for Entry<'a> {
    fn from(event: &'a AuditEvent) -> Self {
        Self { event, variables: None }
    }
}

/// So many names an entry holds of each list. An item of the table is 400 KB at most, and a name 128 bytes.
const MOST_KEYS: usize = 100;

/// Names of variables that one change added, changed and removed.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct KeyChanges<'a> {
    added: Vec<&'a VariableKey>,
    changed: Vec<&'a VariableKey>,
    removed: Vec<&'a VariableKey>,
    /// How many names were left out.
    more: usize,
}

impl<'a> KeyChanges<'a> {
    pub(crate) fn between(before: &'a [StoredVariable], after: &'a [StoredVariable]) -> Self {
        let old: BTreeMap<&VariableKey, &StoredVariable> = before.iter().map(|v| (&v.key, v)).collect();
        let kept: BTreeSet<&VariableKey> = after.iter().map(|v| &v.key).collect();
        let mut changes = Self::default();
        for variable in after {
            match old.get(&variable.key) {
                None => changes.added.push(&variable.key),
                Some(old) if *old != variable => changes.changed.push(&variable.key),
                Some(_) => {}
            }
        }
        changes.removed = old.into_keys().filter(|key| !kept.contains(key)).collect();
        for keys in [&mut changes.added, &mut changes.changed, &mut changes.removed] {
            changes.more += keys.len().saturating_sub(MOST_KEYS);
            keys.truncate(MOST_KEYS);
        }
        changes
    }
}

#[derive(Debug, Serialize)]
struct Record<'a> {
    at: Timestamp,
    #[serde(flatten)]
    entry: Entry<'a>,
}

pub(crate) fn write<'a, L>(
    label: L,
    tenant: &TenantId,
    entry: impl Into<Entry<'a>>,
    now: Timestamp,
    table: &Table,
) -> Result<Write<L>> {
    let text = now.to_string();
    let day = text.get(..10).unwrap_or(&text);
    let id = format!("{text}#{}", URL_SAFE_NO_PAD.encode(random::bytes::<6>()));
    Ok(put(label, item(&keys::audit(tenant, day, &id), &Record { at: now, entry: entry.into() })?, table, None))
}

#[cfg(test)]
mod tests {
    use tidegate_domain::{id::Revision, variable::ValueType};

    use super::*;
    use crate::variables::StoredValue;

    fn variables(of: impl IntoIterator<Item = (String, u64)>) -> Vec<StoredVariable> {
        let variable = |(key, revision): (String, u64)| StoredVariable {
            key: VariableKey::parse(&key).unwrap(),
            value_type: ValueType::String,
            value: StoredValue::Plain { text: "a-value".to_owned() },
            revision: Revision(revision),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        };
        of.into_iter().map(variable).collect()
    }

    #[test]
    fn a_change_of_a_set_is_told_by_names_and_never_by_values() {
        let of = |keys: &[(&str, u64)]| variables(keys.iter().map(|(key, revision)| ((*key).to_owned(), *revision)));
        let (before, after) = (of(&[("A", 1), ("B", 1), ("C", 1)]), of(&[("B", 1), ("C", 2), ("D", 1)]));
        let told = serde_json::to_value(KeyChanges::between(&before, &after)).unwrap();
        let expect = serde_json::json!({"added": ["D"], "changed": ["C"], "removed": ["A"], "more": 0});
        assert_eq!(told, expect);
        assert_eq!(KeyChanges::between(&before, &before), KeyChanges::default());
    }

    #[test]
    fn an_entry_stays_small() {
        let many = variables((0..500).map(|index| (format!("{}_{index:03}", "K".repeat(124)), 1)));
        let changes = KeyChanges::between(&many, &[]);
        assert_eq!((changes.removed.len(), changes.more), (MOST_KEYS, 400));
        assert!(serde_json::to_vec(&changes).unwrap().len() < 20_000);
    }
}
