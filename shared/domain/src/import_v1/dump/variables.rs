//! Variables: rows of their own table, and what applications carry themselves.

use super::{
    ContainerName, Dump, Invalid, NamedTwice, Row, RowId, Stored, Value, ValueType, Variable, VariableKey,
    VariableScope, VariableValue, check_value, shown, wrong_type,
};

impl Dump {
    pub(super) fn variable(&mut self, row: &mut Row<'_>) {
        let key = row.required(&["key", "name"], VariableKey::parse);
        let value = row.take(&["value"]);
        let scope = self.scope(row);
        let typed = Typed::of(row);
        row.leave_out(&["id", "description"]);
        if row.has(&["envId"]) {
            let why = "is of an environment, which is not imported";
            let suggestion = format!("make the environment with the API, and put {} into `ignore`", row.path);
            row.refuse("envId", Invalid::new("unsupported", why, suggestion));
        }
        row.take(&["envId"]);
        let value = read_value(row, value, typed);
        if let (Some(scope), Some(key), Some(value)) = (scope, key, value) {
            self.variables.push(Variable { scope, key, value });
        }
    }

    /// Whose it is. What says that in several ways has to mean the same by all of them: whoever it is given to sees it.
    fn scope(&mut self, row: &mut Row<'_>) -> Option<VariableScope> {
        let scope_column = row.written(&["scope"]);
        let scope = row.text(&["scope"]);
        let is_there = row.has(&["projectId", "project", "applicationId"]);
        let project = row.reference(&["projectId", "project"]);
        let id = row.reference(&["applicationId"]);
        let name = row.parsed(&["application", "applicationName"], ContainerName::parse);
        if let (Some(name), Some((column, id))) = (&name, &id) {
            self.named_twice.push(NamedTwice { path: row.at(column), name: name.clone(), id: id.clone() });
        }
        let of_application =
            name.map(VariableScope::Application).or(id.map(|(_, id)| VariableScope::ApplicationId(id)));
        match (scope.as_deref(), of_application, project) {
            (Some("global" | "project" | "application") | None, Some(_), Some((column, _))) => {
                row.refuse(&column, either_or("is there beside an application", "keep the one whose it is"));
            }
            (Some("global"), None, None) => return Some(VariableScope::Global),
            (None, None, None) if !is_there => return Some(VariableScope::Global),
            (Some("application") | None, Some(owner), None) => return Some(owner),
            (Some("project") | None, None, Some((_, id))) => return Some(VariableScope::Project(id)),
            (Some("global" | "project"), Some(_), None) => {
                let suggestion = "say application, or take the application out";
                row.refuse(&scope_column, either_or("is another than that of the application beside it", suggestion));
            }
            (Some("global" | "application"), None, Some(_)) => {
                let suggestion = "say project, or take the project out";
                row.refuse(&scope_column, either_or("is another than that of the project beside it", suggestion));
            }
            (Some("project" | "application"), None, None) => {
                let why = Invalid::new("missing", "is required by the scope", "add the project's or application's id");
                row.refuse("projectId", why);
            }
            (None, None, None) => {
                let suggestion = "say global, or add the project's or application's id";
                row.refuse(&scope_column, Invalid::new("missing", "is required where ids are empty", suggestion));
            }
            (Some(_), _, _) => {
                let why = Invalid::new("unknown-value", "is not a scope", "use global, project or application");
                row.refuse(&scope_column, why);
            }
        }
        None
    }

    /// An object of names and values, or a list of `{key, value}`; either as JSON in a text, too.
    pub(super) fn variables_of(&mut self, row: &mut Row<'_>, name: &ContainerName, (column, value): (String, Value)) {
        let path = row.at(&column);
        match row.unwrapped(&column, value) {
            Value::Object(entries) => {
                for (key, value) in entries {
                    let mut entry = serde_json::Map::new();
                    entry.insert("key".to_owned(), key.clone().into());
                    entry.insert("value".to_owned(), value);
                    self.own_variable(row, name, format!("{path}.{}", shown(&key)), entry.into());
                }
            }
            Value::Array(entries) => {
                for (index, entry) in entries.into_iter().enumerate() {
                    self.own_variable(row, name, format!("{path}[{index}]"), entry);
                }
            }
            Value::String(text) if text.is_empty() => {}
            _ => row.refuse(&column, wrong_type("an object of names and values, or a list of {key, value}")),
        }
    }

    fn own_variable(&mut self, row: &mut Row<'_>, name: &ContainerName, path: String, entry: Value) {
        let Some(mut entry) = Row::of("environment_variables", path, entry, row.findings) else { return };
        let key = entry.required(&["key", "name"], VariableKey::parse);
        let value = entry.take(&["value"]);
        let typed = Typed::of(&mut entry);
        let value = read_value(&mut entry, value, typed);
        entry.finish();
        if let (Some(key), Some(value)) = (key, value) {
            self.variables.push(Variable { scope: VariableScope::Application(name.clone()), key, value });
        }
    }
}

/// What a row says of its value.
struct Typed {
    value_type: Option<ValueType>,
    /// With its column.
    secret: Option<(String, RowId)>,
    is_secret: bool,
}

impl Typed {
    fn of(row: &mut Row<'_>) -> Self {
        Self {
            value_type: row.parsed(&["valueType"], value_type),
            secret: row.reference(&["secretId"]),
            is_secret: row.flag(&["isSecret"]).unwrap_or(false),
        }
    }
}

fn read_value(row: &mut Row<'_>, value: Option<(String, Value)>, typed: Typed) -> Option<VariableValue> {
    let Typed { value_type, secret, is_secret } = typed;
    let (column, text) = match value {
        Some((column, value)) => {
            let text = match value {
                // V2's JSON columns.
                Value::Object(_) | Value::Array(_) if value_type == Some(ValueType::Json) => Some(value.to_string()),
                value => super::super::row::scalar(value),
            };
            if text.is_none() {
                row.refuse(&column, wrong_type("a text"));
                return None;
            }
            (column, text)
        }
        None => ("value".to_owned(), None),
    };
    let named = text.as_deref().and_then(|text| text.strip_prefix("@secret:"));
    let named = named.filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()));
    match (secret, value_type) {
        (Some((_, id)), Some(ValueType::SecretRef) | None) => {
            // V2 wrote the reference into both.
            if text.as_deref().is_none_or(str::is_empty) || named == Some(id.as_str()) {
                return Some(VariableValue::Reference(id));
            }
            row.refuse(&column, either_or("is another value than the secret beside it", "keep one of them"));
            return None;
        }
        (Some((column, _)), Some(ValueType::String | ValueType::Number | ValueType::Boolean | ValueType::Json)) => {
            let suggestion = "say secret_ref, or take the secret out";
            row.refuse(&column, either_or("is there beside a type that is not a secret's", suggestion));
            return None;
        }
        (None, Some(ValueType::SecretRef) | None) if named.is_some() => {
            return named.map(|id| VariableValue::Reference(id.to_owned()));
        }
        (None, Some(ValueType::SecretRef)) => {
            let why = Invalid::new("missing", "is required by the type", "add the secret's id");
            row.refuse("secretId", why);
            return None;
        }
        (None, Some(ValueType::String | ValueType::Number | ValueType::Boolean | ValueType::Json) | None) => {}
    }
    let Some(text) = text else {
        row.refuse("value", Invalid::new("missing", "is required", "add the column; an empty text is a value"));
        return None;
    };
    let value_type = value_type.unwrap_or(ValueType::String);
    let text = Stored::of(text);
    if let Stored::Plain(plain) = &text
        && let Err(why) = check_value(value_type, plain.expose())
    {
        row.refuse("value", why);
        return None;
    }
    Some(VariableValue::Text { text, value_type, is_secret })
}

fn either_or(message: &str, suggestion: &str) -> Invalid {
    Invalid::new("either-or", message, suggestion)
}

fn value_type(text: &str) -> Result<ValueType, Invalid> {
    serde_json::from_value(Value::from(text)).map_err(|_| {
        let names = "string, number, boolean, json, secret_ref";
        Invalid::new("unknown-value", "is not a type of value", format!("use one of {names}"))
    })
}

impl Variable {
    /// What the file calls it, until the planner knows whose it is.
    pub(in super::super) fn label(&self) -> String {
        let Self { scope, key, .. } = self;
        match scope {
            VariableScope::Global => format!("global.{key}"),
            VariableScope::Project(id) => format!("project {}.{key}", shown(id)),
            VariableScope::ApplicationId(id) => format!("application {}.{key}", shown(id)),
            VariableScope::Application(name) => format!("{}.{key}", name.as_str()),
        }
    }
}
