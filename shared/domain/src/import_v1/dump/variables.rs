//! Variables: rows of their own table, and what applications carry themselves.

use super::{
    ContainerName, Dump, Invalid, Row, RowId, Stored, Value, ValueType, Variable, VariableKey, VariableScope,
    VariableValue, check_value, shown, unwrapped, wrong_type,
};

impl Dump {
    pub(super) fn variable(&mut self, row: &mut Row<'_>) {
        let key = row.required(&["key", "name"], VariableKey::parse);
        let value = row.take(&["value"]);
        let scope_column = row.written(&["scope"]);
        let scope = row.text(&["scope"]);
        let project = row.text(&["projectId", "project"]);
        let application = row.parsed(&["application", "applicationName"], ContainerName::parse);
        let application_id = row.text(&["applicationId"]);
        let value_type = row.parsed(&["valueType"], value_type);
        let secret_id = row.text(&["secretId"]);
        let is_secret = row.flag(&["isSecret"]).unwrap_or(false);
        row.leave_out(&["id", "description"]);
        if row.has(&["envId"]) {
            let why = "is of an environment, which is not imported";
            let suggestion = format!("make the environment with the API, and put {} into `ignore`", row.path);
            row.refuse("envId", Invalid::new("unsupported", why, suggestion));
        }
        row.take(&["envId"]);
        let owner = application.map(VariableScope::Application);
        let owner = owner.or(application_id.map(VariableScope::ApplicationId)).or(project.map(VariableScope::Project));
        let scope = match (scope.as_deref(), owner) {
            (Some("global"), _) | (None, None) => Some(VariableScope::Global),
            (Some("project" | "application") | None, Some(owner)) => Some(owner),
            (Some("project" | "application"), None) => {
                let why = Invalid::new("missing", "is required by the scope", "add the project's or application's id");
                row.refuse("projectId", why);
                None
            }
            (Some(_), _) => {
                let why = Invalid::new("unknown-value", "is not a scope", "use global, project or application");
                row.refuse(&scope_column, why);
                None
            }
        };
        let value = read_value(row, value, Typed { value_type, secret_id, is_secret });
        if let (Some(scope), Some(key), Some(value)) = (scope, key, value) {
            self.variables.push(Variable { scope, key, value });
        }
    }

    /// An object of names and values, or a list of `{key, value}`; either as JSON in a text, too.
    pub(super) fn variables_of(&mut self, row: &mut Row<'_>, name: &ContainerName, (column, value): (String, Value)) {
        let path = row.at(&column);
        match unwrapped(value) {
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
        let value_type = entry.parsed(&["valueType"], value_type);
        let secret_id = entry.text(&["secretId"]);
        let is_secret = entry.flag(&["isSecret"]).unwrap_or(false);
        let value = read_value(&mut entry, value, Typed { value_type, secret_id, is_secret });
        entry.finish();
        if let (Some(key), Some(value)) = (key, value) {
            self.variables.push(Variable { scope: VariableScope::Application(name.clone()), key, value });
        }
    }
}

/// What a row says of its value.
struct Typed {
    value_type: Option<ValueType>,
    secret_id: Option<RowId>,
    is_secret: bool,
}

fn read_value(row: &mut Row<'_>, value: Option<(String, Value)>, typed: Typed) -> Option<VariableValue> {
    let Typed { value_type, secret_id, is_secret } = typed;
    let text = match value {
        Some((column, value)) => match value {
            // V2's JSON columns.
            Value::Object(_) | Value::Array(_) if value_type == Some(ValueType::Json) => Some(value.to_string()),
            value => {
                let text = super::super::row::scalar(value);
                if text.is_none() {
                    row.refuse(&column, wrong_type("a text"));
                    return None;
                }
                text
            }
        },
        None => None,
    };
    let named = text.as_deref().and_then(|text| text.strip_prefix("@secret:"));
    let named = named.filter(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).map(str::to_owned);
    match (secret_id.or(named), value_type) {
        (Some(id), Some(ValueType::SecretRef) | None) => return Some(VariableValue::Reference(id)),
        (None, Some(ValueType::SecretRef)) => {
            let why = Invalid::new("missing", "is required by the type", "add the secret's id");
            row.refuse("secretId", why);
            return None;
        }
        (_, Some(ValueType::String | ValueType::Number | ValueType::Boolean | ValueType::Json) | None) => {}
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
