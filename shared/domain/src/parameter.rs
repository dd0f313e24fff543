//! What an application allows a request to say beside the version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    invalid::{FieldError, Invalid},
    secret::Secret,
    variable::{Layered, Origin, ValueType, VariableKey, Written, check_value},
};

/// A declared parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameter {
    pub name: VariableKey,
    /// `string`, `number`, `boolean` or `json`.
    #[serde(rename = "type")]
    pub value_type: ValueType,
    pub required: bool,
    /// Used when neither the request nor a stored variable has one.
    pub default: Option<String>,
    /// Its values are secrets: sealed, masked, redacted.
    pub sensitive: bool,
}

/// The request's `variables` against what the application declares.
///
/// A value may be written as text or as the JSON value it stands for (`true`, `30`); containers get the text.
///
/// # Errors
/// Every undeclared name, missing value and value of a wrong form, each at its field.
pub fn accept(
    parameters: &[Parameter],
    given: &BTreeMap<String, Value>,
) -> Result<Vec<(VariableKey, String)>, Vec<FieldError>> {
    let mut accepted = Vec::new();
    let mut errors = Vec::new();
    for (name, value) in given {
        let field = format!("variables.{name}");
        let Some(parameter) = parameters.iter().find(|p| p.name.as_str() == name) else {
            errors.push(undeclared(parameters).at(field));
            continue;
        };
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match check_value(parameter.value_type, &text) {
            Ok(()) => accepted.push((parameter.name.clone(), text)),
            Err(invalid) => errors.push(invalid.at(field)),
        }
    }
    for parameter in parameters.iter().filter(|p| p.required && p.default.is_none()) {
        if !given.contains_key(parameter.name.as_str()) {
            let missing = Invalid::new("missing", "is required by the application", "send a value for it");
            errors.push(missing.at(format!("variables.{}", parameter.name)));
        }
    }
    if errors.is_empty() { Ok(accepted) } else { Err(errors) }
}

fn undeclared(parameters: &[Parameter]) -> Invalid {
    let names: Vec<_> = parameters.iter().map(|p| p.name.as_str()).collect();
    let suggestion = if names.is_empty() {
        "declare it in the application's parameters, or leave it out".to_owned()
    } else {
        format!("declare it in the application's parameters, or use one of {}", names.join(", "))
    };
    Invalid::new("undeclared", "is not a parameter of this application", suggestion)
}

/// The layers that a request and the parameters' defaults put over what is stored.
pub fn layers(parameters: &[Parameter], accepted: Vec<(VariableKey, String)>) -> Vec<Layered> {
    let is_secret = |key: &VariableKey| parameters.iter().any(|p| p.sensitive && p.name == *key);
    let layer = |origin, key: VariableKey, text: String| {
        let is_secret = is_secret(&key);
        Layered { origin, key, value: Written::Text(Secret::new(text)), is_secret }
    };
    let defaults = parameters.iter().filter_map(|p| Some((p.name.clone(), p.default.clone()?)));
    let defaults = defaults.map(|(key, text)| layer(Origin::Default, key, text));
    accepted.into_iter().map(|(key, text)| layer(Origin::Request, key, text)).chain(defaults).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Pairs<'a> = Vec<(&'a str, &'a str)>;

    #[test]
    fn every_fault_of_the_variables_is_told_at_once() {
        let parameter = |name: &str, value_type, required| Parameter {
            name: VariableKey::parse(name).unwrap(),
            value_type,
            required,
            default: None,
            sensitive: false,
        };
        let parameters = [
            parameter("A", ValueType::Number, false),
            parameter("B", ValueType::Boolean, true),
            parameter("C", ValueType::String, true),
        ];
        let check = |given: Value, expect: Result<Pairs<'_>, Pairs<'_>>| {
            let given = serde_json::from_value(given).unwrap();
            let got = accept(&parameters, &given);
            match (&got, expect) {
                (Ok(got), Ok(expect)) => {
                    assert_eq!(got.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expect);
                }
                (Err(got), Err(expect)) => {
                    assert_eq!(got.iter().map(|e| (e.field.as_str(), e.invalid.code)).collect::<Vec<_>>(), expect);
                }
                _ => panic!("{got:?}"),
            }
        };
        check(json!({"A": 1.5, "B": true, "C": "x"}), Ok(vec![("A", "1.5"), ("B", "true"), ("C", "x")]));
        check(json!({"B": "false", "C": ""}), Ok(vec![("B", "false"), ("C", "")]));
        check(
            json!({"A": "x", "D": "y", "C": "z"}),
            Err(vec![("variables.A", "format-number"), ("variables.D", "undeclared"), ("variables.B", "missing")]),
        );
    }
}
