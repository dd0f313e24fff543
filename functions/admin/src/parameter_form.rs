//! The parameters of an application, read from a request: those it declares itself, and those of a ready-made set.

use serde_json::Value;
use tidegate_domain::{
    invalid::Invalid,
    parameter::{Algorithm, ApprovalRule, MAX_PARAMETERS, Parameter, ParameterType, set},
    pattern::Pattern,
    variable::VariableKey,
};
use tidegate_web::form::Form;

use crate::application_form::unknown_value;

/// `parameters`, and behind them what `parameterSet` stands for. A set is taken once, when it is named: what is stored, and
/// shown later, are its declarations.
pub(crate) fn parameters(form: &mut Form, stored: Vec<Parameter>) -> Vec<Parameter> {
    let mut parameters = form.objects("parameters", stored, parameter);
    check_names(form, &parameters);
    let of_set = form.nullable("parameterSet", None, |name: String| {
        set::set(&name)
            .ok_or_else(|| unknown_value("a set of parameters that this release has", &set::NAMES.join(", ")))
    });
    for declared in of_set.unwrap_or_default() {
        match parameters.iter().find(|other| other.name == declared.name) {
            None => parameters.push(declared),
            // What was stored of the set before, or sent back as it was shown.
            Some(other) if *other == declared => {}
            Some(_) => {
                let message = format!("has a parameter {} that is declared otherwise already", declared.name);
                let suggestion = "remove the other declaration, or write all of them without the set";
                form.refuse("parameterSet", Invalid::new("duplicate", message, suggestion));
            }
        }
    }
    if parameters.len() > MAX_PARAMETERS {
        let wanted = format!("at most {MAX_PARAMETERS} parameters");
        form.refuse("parameters", Invalid::new("out-of-range", format!("must be {wanted}"), format!("send {wanted}")));
    }
    parameters
}

fn parameter(form: &mut Form) -> Option<Parameter> {
    let name = form.required("name", None, |text: String| VariableKey::parse(&text));
    let value_type =
        form.defaulted("type", Some(ParameterType::String), |text: String| ParameterType::parse(&text).map(Some));
    let required = form.defaulted("required", false, Ok);
    let default = form.nullable("default", None, |value| Ok(text(value)));
    let sensitive = form.defaulted("sensitive", false, Ok);
    let approval = form.nullable("approval", None, |text: String| match text.as_str() {
        "public-address" => Ok(ApprovalRule::PublicAddress),
        "always" => Ok(ApprovalRule::Always),
        _ => Err(unknown_value("a rule for approvals", "public-address, always")),
    });
    let min_length = form.nullable("minLength", None, Ok);
    let max_length = form.nullable("maxLength", None, Ok);
    let pattern = form.nullable("pattern", None, |text: String| Pattern::parse(&text));
    let choices = form.nullable("enum", None, |value| match value {
        Value::Array(values) => Ok(values.into_iter().map(text).collect()),
        _ => Err(Invalid::new("wrong-type", "must be a list of values", "send a list of values")),
    });
    let multiline = form.defaulted("multiline", false, Ok);
    let algorithms = form.nullable("algorithms", None, |names: Vec<String>| {
        names.iter().map(|name| Algorithm::parse(name)).collect::<Result<_, _>>()
    });
    let parameter = Parameter {
        name: name?,
        value_type: value_type?,
        required,
        default,
        sensitive,
        approval,
        min_length,
        max_length,
        pattern,
        choices,
        multiline,
        algorithms,
    };
    for fault in parameter.faults() {
        form.refuse(&fault.field, fault.invalid);
    }
    Some(parameter)
}

/// A value may be written as text or as the JSON value it stands for.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn check_names(form: &mut Form, parameters: &[Parameter]) {
    for (i, parameter) in parameters.iter().enumerate() {
        if parameters.iter().take(i).any(|other| other.name == parameter.name) {
            let twice = Invalid::new("duplicate", "is declared twice", "declare each name once");
            form.refuse(&format!("parameters[{i}].name"), twice);
        }
    }
}
