//! Variables: keys, typed values, scopes, and what a container gets of them.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    id::{ApplicationId, EnvironmentId, ProjectId, SecretId},
    invalid::{FieldError, Invalid},
    secret::Secret,
};

/// Most variables a deployment may have, all layers together.
pub const MAX_VARIABLES: usize = 500;
/// Most bytes of keys and values together; also what a sealed job can hold in one item.
pub const MAX_TOTAL_BYTES: usize = 128 * 1024;

/// `[A-Za-z_][A-Za-z0-9_]{0,127}`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VariableKey(String);

impl VariableKey {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !first || text.len() > 128 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Invalid::new(
                "format-key",
                "cannot be a variable's name",
                "use 1 to 128 letters, digits and '_', not starting with a digit",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VariableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for VariableKey {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<VariableKey> for String {
    fn from(key: VariableKey) -> String {
        key.0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    String,
    /// A finite JSON number, kept as written.
    Number,
    /// `true` or `false`.
    Boolean,
    /// At most 64 KiB and 32 levels deep, kept as written.
    Json,
    /// `@secret:12`, or `@secret:group/NAME`.
    SecretRef,
}

/// Where a stored variable applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    Global,
    Project(ProjectId),
    Environment(EnvironmentId),
    Application(ApplicationId),
}

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Project(_) => "project",
            Self::Environment(_) => "environment",
            Self::Application(_) => "application",
        }
    }
}

/// What a `secret_ref` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretReference {
    /// `@secret:12`
    Id(SecretId),
    /// `@secret:group/NAME`
    Named { group: String, name: String },
}

impl SecretReference {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refused = || {
            Invalid::new("format-secret-ref", "is not a reference to a secret", "use @secret:12 or @secret:group/NAME")
        };
        let rest = text.strip_prefix("@secret:").ok_or_else(refused)?;
        if let Some((group, name)) = rest.split_once('/') {
            if group.is_empty() || name.is_empty() || name.contains('/') {
                return Err(refused());
            }
            return Ok(Self::Named { group: group.to_owned(), name: name.to_owned() });
        }
        let all_digits = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit());
        rest.parse().ok().filter(|_| all_digits).map(|id| Self::Id(SecretId(id))).ok_or_else(refused)
    }
}

/// Whether a value is of its type. NUL is never allowed: no environment can hold it.
pub fn check_value(value_type: ValueType, text: &str) -> Result<(), Invalid> {
    if text.contains('\0') {
        return Err(Invalid::new(
            "format-string",
            "contains a NUL character",
            "remove it: an environment cannot hold it",
        ));
    }
    match value_type {
        ValueType::String => Ok(()),
        ValueType::Number => {
            let number = serde_json::from_str::<serde_json::Number>(text).ok().and_then(|n| n.as_f64());
            match number {
                Some(number) if number.is_finite() => Ok(()),
                _ => Err(Invalid::new("format-number", "is not a number", "write it as JSON does: 30, -1.5, 1e6")),
            }
        }
        ValueType::Boolean if matches!(text, "true" | "false") => Ok(()),
        ValueType::Boolean => Err(Invalid::new("format-boolean", "is not a boolean", "use true or false")),
        ValueType::Json => check_json(text),
        ValueType::SecretRef => SecretReference::parse(text).map(|_| ()),
    }
}

fn check_json(text: &str) -> Result<(), Invalid> {
    const MAX_BYTES: usize = 64 * 1024;
    const MAX_DEPTH: usize = 32;
    fn depth(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            serde_json::Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    let valid = text.len() <= MAX_BYTES
        && serde_json::from_str::<serde_json::Value>(text).is_ok_and(|value| depth(&value) <= MAX_DEPTH);
    if valid {
        return Ok(());
    }
    Err(Invalid::new("format-json", "is not JSON of at most 64 KiB and 32 levels", "check quotes, commas and brackets"))
}

/// Which layer a value came from, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Request,
    Application,
    /// The one that the application is pinned to, or else the project's active one.
    Environment,
    Project,
    Global,
    /// A parameter's default.
    Default,
}

/// A value of one layer, as it was written.
#[derive(Debug)]
pub struct Layered {
    pub origin: Origin,
    pub key: VariableKey,
    pub value: Written,
    pub is_secret: bool,
}

/// What a layer says of a key.
#[derive(Debug)]
pub enum Written {
    /// A plain value, or a sealed one that was opened.
    Text(Secret<String>),
    Reference(SecretReference),
}

/// A variable as a container gets it.
#[derive(Debug)]
pub struct Resolved {
    pub key: VariableKey,
    pub value: Secret<String>,
    pub origin: Origin,
    /// To be redacted wherever the container's output is shown.
    pub is_secret: bool,
}

/// The strongest layer's entry of each key, in order of keys.
pub fn overlay(layers: Vec<Layered>) -> Vec<Layered> {
    let mut strongest: BTreeMap<VariableKey, Layered> = BTreeMap::new();
    for entry in layers {
        match strongest.get(&entry.key) {
            Some(present) if present.origin <= entry.origin => {}
            _ => {
                strongest.insert(entry.key.clone(), entry);
            }
        }
    }
    strongest.into_values().collect()
}

/// The container's variables, every reference replaced by what `secret` finds.
///
/// # Errors
/// Every reference that names nothing, and the limits on count and size, all at once.
pub fn resolve(
    overlaid: Vec<Layered>,
    secret: impl Fn(&SecretReference) -> Option<Secret<String>>,
) -> Result<Vec<Resolved>, Vec<FieldError>> {
    let mut resolved = Vec::new();
    let mut errors = Vec::new();
    for Layered { origin, key, value, is_secret } in overlaid {
        match value {
            Written::Text(text) => resolved.push(Resolved { key, value: unescape(text), origin, is_secret }),
            Written::Reference(reference) => match secret(&reference) {
                Some(value) => resolved.push(Resolved { key, value, origin, is_secret: true }),
                None => errors.push(
                    Invalid::new(
                        "unknown-secret",
                        "refers to a secret that does not exist",
                        "create the secret or change the variable",
                    )
                    .at(format!("variables.{key}")),
                ),
            },
        }
    }
    let bytes: usize = resolved.iter().map(|v| v.key.as_str().len() + v.value.expose().len()).sum();
    if resolved.len() > MAX_VARIABLES || bytes > MAX_TOTAL_BYTES {
        errors.push(
            Invalid::new(
                "too-many-variables",
                format!("{} variables of {bytes} bytes in all", resolved.len()),
                format!("stay within {MAX_VARIABLES} variables and {MAX_TOTAL_BYTES} bytes"),
            )
            .at("variables"),
        );
    }
    if errors.is_empty() { Ok(resolved) } else { Err(errors) }
}

/// `@@secret:` stands for a plain value that begins with `@secret:`.
fn unescape(text: Secret<String>) -> Secret<String> {
    match text.expose().strip_prefix('@') {
        Some(rest) if rest.starts_with("@secret:") => Secret::new(rest.to_owned()),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(origin: Origin, key: &str, value: &str) -> Layered {
        Layered {
            origin,
            key: VariableKey::parse(key).unwrap(),
            value: Written::Text(Secret::new(value.to_owned())),
            is_secret: false,
        }
    }

    fn reference(key: &str, written: &str) -> Layered {
        let value = Written::Reference(SecretReference::parse(written).unwrap());
        Layered { origin: Origin::Project, key: VariableKey::parse(key).unwrap(), value, is_secret: false }
    }

    #[test]
    fn the_stronger_layer_wins() {
        let layers = vec![
            text(Origin::Global, "A", "global"),
            text(Origin::Request, "A", "request"),
            text(Origin::Project, "A", "project"),
            text(Origin::Default, "B", "default"),
            text(Origin::Global, "C", "global"),
            text(Origin::Application, "C", "application"),
        ];
        let resolved = resolve(overlay(layers), |_| None).unwrap();
        let got: Vec<_> = resolved.iter().map(|v| (v.key.as_str(), v.value.expose().as_str())).collect();
        assert_eq!(got, [("A", "request"), ("B", "default"), ("C", "application")]);
    }

    #[test]
    fn a_reference_becomes_its_secret_and_is_one() {
        let layers = vec![
            reference("A", "@secret:1"),
            reference("B", "@secret:db/URL"),
            text(Origin::Project, "C", "@@secret:1"),
        ];
        let resolved = resolve(layers, |r| Some(Secret::new(format!("{r:?}")))).unwrap();
        assert_eq!(resolved.iter().map(|v| v.is_secret).collect::<Vec<_>>(), [true, true, false]);
        assert_eq!(resolved[2].value.expose(), "@secret:1");
    }

    #[test]
    fn every_unknown_secret_is_named() {
        let layers = vec![reference("A", "@secret:1"), reference("B", "@secret:2"), text(Origin::Project, "C", "")];
        let errors = resolve(layers, |_| None).unwrap_err();
        assert_eq!(errors.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), ["variables.A", "variables.B"]);
    }

    #[test]
    fn values_are_of_their_type() {
        let check = |value_type, text: &str, valid| assert_eq!(check_value(value_type, text).is_ok(), valid, "{text}");
        check(ValueType::Number, "1e6", true);
        check(ValueType::Number, "1e999", false);
        check(ValueType::Number, "NaN", false);
        check(ValueType::Number, "", false);
        check(ValueType::Boolean, "true", true);
        check(ValueType::Boolean, "True", false);
        check(ValueType::Json, r#"{"a":[1]}"#, true);
        check(ValueType::Json, &("[".repeat(33) + &"]".repeat(33)), false);
        check(ValueType::Json, "{", false);
        check(ValueType::String, "a\0", false);
        check(ValueType::SecretRef, "@secret:1", true);
        check(ValueType::SecretRef, "@secret:+1", false);
        check(ValueType::SecretRef, "@secret:a/b/c", false);
    }

    proptest! {
        #[test]
        fn the_order_of_layers_does_not_matter(mut entries in prop::collection::vec((0_usize..5, "[A-C]", "[a-z]{0,3}"), 0..12), seed: u64) {
            let origins = [Origin::Request, Origin::Application, Origin::Project, Origin::Global, Origin::Default];
            entries.sort();
            entries.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1);
            let build = |entries: &[(usize, String, String)]| {
                let layers = entries.iter().map(|(origin, key, value)| text(origins[*origin], key, value)).collect();
                let resolved = resolve(overlay(layers), |_| None).unwrap();
                resolved.into_iter().map(|v| (v.key.to_string(), v.value.expose().clone())).collect::<Vec<_>>()
            };
            let straight = build(&entries);
            let length = entries.len().max(1);
            entries.rotate_left(usize::try_from(seed % length as u64).unwrap() % length.max(1));
            entries.reverse();
            prop_assert_eq!(straight, build(&entries));
        }
    }
}
