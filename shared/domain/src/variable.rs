//! Variables: keys, typed values and scopes. [`template`] is how a stored value refers to others, and [`resolution`] what a
//! container gets of all of them.

mod order;
pub mod resolution;
pub mod template;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use resolution::{Entry, Layered, Origin, Resolution, Resolved, Written, judged_by_value, resolve};
pub use template::Template;

use crate::{
    id::{ApplicationId, EnvironmentId, ProjectId, SecretId},
    invalid::Invalid,
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

    /// Of the project, environment or application; of the tenant's own there is none.
    pub fn id(self) -> u64 {
        match self {
            Self::Global => 0,
            Self::Project(id) => id.0,
            Self::Environment(id) => id.0,
            Self::Application(id) => id.0,
        }
    }

    /// Which layer its variables are in.
    pub fn origin(self) -> Origin {
        match self {
            Self::Global => Origin::Global,
            Self::Project(_) => Origin::Project,
            Self::Environment(_) => Origin::Environment,
            Self::Application(_) => Origin::Application,
        }
    }
}

/// What a `secret_ref` names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretReference {
    /// `@secret:12`
    Id(SecretId),
    /// `@secret:group/NAME`
    Named { group: String, name: String },
}

impl SecretReference {
    /// How each begins.
    pub const PREFIX: &str = "@secret:";

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refused = || {
            let how = "use @secret:12 or @secret:group/NAME, or @@secret: for a text that begins so";
            Invalid::new("format-secret-ref", "is not a reference to a secret", how)
        };
        let rest = text.strip_prefix(Self::PREFIX).ok_or_else(refused)?;
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

/// As it is written.
impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{}{id}", Self::PREFIX),
            Self::Named { group, name } => write!(f, "{}{group}/{name}", Self::PREFIX),
        }
    }
}

/// Whether a value may be stored under its type: what refers to others can be judged only as far as its form goes, until it
/// is resolved. What begins as a reference to a secret is one, or is escaped: else it would reach the container as it is
/// written, which nobody means.
///
/// # Errors
/// As [`check_value`] and [`Template::parse`].
pub fn check_written(value_type: ValueType, text: &str) -> Result<(), Invalid> {
    let is_template = match value_type {
        ValueType::SecretRef => false,
        ValueType::String | ValueType::Number | ValueType::Boolean | ValueType::Json => {
            if text.starts_with(SecretReference::PREFIX) {
                return Err(unescaped_reference());
            }
            !Template::parse(text)?.is_literal()
        }
    };
    // Every type has the same say about NUL.
    check_value(if is_template { ValueType::String } else { value_type }, text)
}

fn unescaped_reference() -> Invalid {
    Invalid::new(
        "unescaped-secret-ref",
        "begins as a reference to a secret does, and is of another type",
        "send it for this key alone, with the valueType secret_ref, or write @@secret: for a text that begins so",
    )
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_refers_to_others_is_judged_by_its_form_when_it_is_written() {
        let check = |value_type, text: &str, code: Option<&str>| {
            assert_eq!(check_written(value_type, text).err().map(|invalid| invalid.code), code, "{text}");
        };
        check(ValueType::Number, "{{PORT}}", None);
        check(ValueType::Number, "80{{env.SUFFIX}}", None);
        check(ValueType::Number, "eighty", Some("format-number"));
        check(ValueType::Json, r#"{"a":{"b":"{{X}}"}}"#, None);
        check(ValueType::Json, r#"{"a":{{"#, Some("format-template"));
        check(ValueType::String, "{{ X }}", Some("format-template"));
        check(ValueType::String, "{{{{ X }}", None);
        check(ValueType::String, "{{X}}\0", Some("format-string"));
        // What an escape stands for is its value: two braces are no number.
        check(ValueType::Number, "{{{{", Some("format-number"));
    }

    #[test]
    fn what_begins_as_a_reference_is_one_or_is_escaped() {
        let check = |value_type, text: &str, code: Option<&str>| {
            assert_eq!(check_written(value_type, text).err().map(|invalid| invalid.code), code, "{text}");
        };
        for text in ["@secret:12", "@secret:12 ", "@secret:a/b/c", "@secret:db/URL", "@secret:", "@secret:{{X}}"] {
            for value_type in [ValueType::String, ValueType::Number, ValueType::Boolean, ValueType::Json] {
                check(value_type, text, Some("unescaped-secret-ref"));
            }
        }
        for text in ["@@secret:12", "@@secret:", "@@@secret:1", " @secret:12", "@Secret:12", "@secret", "x@secret:12"] {
            check(ValueType::String, text, None);
        }
        check(ValueType::SecretRef, "@secret:12", None);
        check(ValueType::SecretRef, "@secret:db/URL", None);
        for text in ["@secret:12 ", "@secret:a/b/c", "@secret:", "@@secret:12", "12"] {
            check(ValueType::SecretRef, text, Some("format-secret-ref"));
        }
    }

    #[test]
    fn a_reference_is_written_as_it_is_read() {
        for text in ["@secret:12", "@secret:db/URL", "@secret:a b/c:d"] {
            assert_eq!(SecretReference::parse(text).unwrap().to_string(), text);
        }
    }
}
