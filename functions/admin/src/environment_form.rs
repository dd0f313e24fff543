//! An environment, read from a request; above all its variables, written as one map.
//!
//! The map replaces the set. A key that exists keeps its type and whether it is secret; a new one is a plain text. So what an
//! answer shows can be sent back, masks included, and nothing is lost by it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use tidegate_aws::{
    environments::Environment,
    store::Store,
    variables::{StoredValue, StoredVariable},
};
use tidegate_domain::{
    id::{EnvironmentId, Revision, TenantId},
    invalid::{FieldError, Invalid},
    secret::{MASK, Secret},
    variable::{Scope, SecretReference, ValueType, VariableKey, check_written},
};
use tidegate_web::{
    Problem,
    form::{Form, line},
    problem::reference_missing,
};

use crate::environment_view::shown;

/// An environment whose variables are not sealed yet.
pub(crate) struct Parsed {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) requires_approval: bool,
    /// None: left out, so that what is stored stays.
    pub(crate) variables: Option<Vec<Entry>>,
}

/// What a map says of one variable.
pub(crate) enum Entry {
    Keep(StoredVariable),
    Set { key: VariableKey, text: Secret<String>, old: Option<StoredVariable> },
}

pub(crate) fn name(form: &mut Form, stored: Option<String>) -> Option<String> {
    form.required("name", stored, |text: String| {
        let text = line(1, 128)(text)?;
        if text.trim() != text {
            return Err(Invalid::new("format-name", "begins or ends with a space", "leave the space out"));
        }
        Ok(text)
    })
}

pub(crate) fn description(form: &mut Form, stored: String) -> String {
    form.defaulted("description", stored, line(0, 1_000))
}

pub(crate) fn truth(text: &str) -> Result<bool, Invalid> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Invalid::new("wrong-type", "is not a truth value", "send true or false")),
    }
}

/// All but the project; what `form` has beside that is taken before.
pub(crate) fn read(mut form: Form, stored: Option<&Environment>) -> Result<Parsed, Problem> {
    let name = name(&mut form, stored.map(|s| s.name.clone()));
    let description = description(&mut form, stored.map(|s| s.description.clone()).unwrap_or_default());
    let requires_approval = form.defaulted("requiresApproval", stored.is_some_and(|s| s.requires_approval), Ok);
    let variables = variables(&mut form, stored);
    form.finish(|| Some(Parsed { name: name?, description, requires_approval, variables }))
}

/// An answer says which one is active; that is changed by a call of its own.
pub(crate) fn take_is_active(form: &mut Form, is_active: bool) {
    form.defaulted("isActive", (), |wanted: bool| {
        if wanted == is_active {
            return Ok(());
        }
        let how = "leave it out; POST …/activate makes an environment the active one, and no other is then";
        Err(Invalid::new("read-only", "cannot be changed here", how))
    });
}

fn variables(form: &mut Form, stored: Option<&Environment>) -> Option<Vec<Entry>> {
    let map = form.defaulted("variables", None, |map: BTreeMap<String, Value>| Ok(Some(map)))?;
    let mut entries = Vec::new();
    for (key, value) in map {
        // As of unknown fields: a misplaced value may stand where a name should.
        let field = format!("variables.{}", key.chars().take(64).collect::<String>());
        match VariableKey::parse(&key).and_then(|key| {
            let old = stored.and_then(|stored| stored.variable(&key)).cloned();
            entry(key, value, old)
        }) {
            Ok(entry) => entries.push(entry),
            Err(invalid) => form.refuse(&field, invalid),
        }
    }
    Some(entries)
}

fn entry(key: VariableKey, value: Value, old: Option<StoredVariable>) -> Result<Entry, Invalid> {
    let text = match value {
        // The JSON value that stands for the text. Numbers are texts by now, as they were written.
        Value::Bool(value) => value.to_string(),
        Value::String(text) => text,
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            return Err(Invalid::new("wrong-type", "must be a text", "write the value as a text, JSON included"));
        }
    };
    match old {
        Some(old) if text == MASK && old.is_secret() => Ok(Entry::Keep(old)),
        _ if text == MASK => {
            Err(Invalid::new("mask", "is the mask, which stands for no value here", "send the value itself"))
        }
        Some(old) if !matches!(old.value, StoredValue::Secret { .. }) && text == shown(&old) => Ok(Entry::Keep(old)),
        old => {
            check_written(old.as_ref().map_or(ValueType::String, |old| old.value_type), &text)?;
            Ok(Entry::Set { key, text: Secret::new(text), old })
        }
    }
}

/// The variables as they are stored, the secret ones sealed.
pub(crate) async fn seal(
    store: &Store,
    tenant: &TenantId,
    id: EnvironmentId,
    entries: Vec<Entry>,
    now: Timestamp,
) -> Result<Vec<StoredVariable>, Problem> {
    let (mut variables, mut errors) = (Vec::new(), Vec::<FieldError>::new());
    for entry in entries {
        let (key, text, old) = match entry {
            Entry::Keep(old) => {
                variables.push(old);
                continue;
            }
            Entry::Set { key, text, old } => (key, text, old),
        };
        let revision = Revision(old.as_ref().map_or(1, |old| old.revision.0 + 1));
        let value = match old.as_ref().map(|old| &old.value) {
            None | Some(StoredValue::Plain { .. }) => StoredValue::Plain { text: text.expose().clone() },
            Some(StoredValue::Secret { .. }) => {
                store.seal_variable(tenant, Scope::Environment(id), &key, revision, &text).await?
            }
            Some(StoredValue::Reference { secret_id: old_id }) => {
                let reference = SecretReference::parse(text.expose()).map_err(|_| Problem::internal())?;
                match store.resolve_reference(tenant, &reference).await? {
                    Some(secret_id) if secret_id == *old_id => {
                        variables.extend(old);
                        continue;
                    }
                    Some(secret_id) => StoredValue::Reference { secret_id },
                    None => {
                        errors.push(reference_missing().at(format!("variables.{key}")));
                        continue;
                    }
                }
            }
        };
        variables.push(StoredVariable {
            key,
            value_type: old.as_ref().map_or(ValueType::String, |old| old.value_type),
            value,
            revision,
            created_at: old.as_ref().map_or(now, |old| old.created_at),
            updated_at: now,
        });
    }
    if errors.is_empty() { Ok(variables) } else { Err(Problem::validation_failed(errors)) }
}
