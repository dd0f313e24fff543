//! A request's `variables` against what its application declares.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{ApprovalRule, Parameter, Verdict};
use crate::{
    approval::{Reason, ReasonCode},
    invalid::{FieldError, Invalid},
    variable::VariableKey,
};

/// So many faults are told; one more says how many are left out, so that a body of nothing but names has a short answer.
pub const MAX_FAULTS: usize = 100;
/// So many declared names are suggested to somebody who used another.
const MAX_SUGGESTED: usize = 20;
/// So much of a name that nobody declared is shown.
const MAX_SHOWN: usize = 64;

/// What a request may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// As the request wrote them; containers get exactly this.
    pub values: Vec<(VariableKey, String)>,
    /// What of it needs a decision before it runs. Only the request's own values are here: a default was written by whoever
    /// registered the application, who would be asked.
    pub reasons: Vec<Reason>,
}

/// The request's `variables` against what the application declares.
///
/// A value may be written as text or as the JSON value it stands for (`true`, `30`); containers get the text. Who reads a
/// body puts the text of what was written in the value's place, since a parsed number has lost it. `null` is the text
/// `null`, which only `string` and `json` take.
///
/// # Errors
/// Every undeclared name, missing value and value of a wrong form, each at its field, up to [`MAX_FAULTS`].
pub fn accept(parameters: &[Parameter], given: &BTreeMap<String, Value>) -> Result<Accepted, Vec<FieldError>> {
    let (accepted, faults) = judge(parameters, given);
    if faults.is_empty() { Ok(accepted) } else { Err(faults) }
}

/// As [`accept`], with what can be accepted beside the faults.
pub fn judge(parameters: &[Parameter], given: &BTreeMap<String, Value>) -> (Accepted, Vec<FieldError>) {
    let declared: BTreeMap<&str, &Parameter> = parameters.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut accepted = Accepted { values: Vec::new(), reasons: Vec::new() };
    let mut faults = Faults::default();
    for (name, value) in given {
        let Some(parameter) = declared.get(name.as_str()) else {
            faults.add(|| undeclared(parameters).at(format!("variables.{}", shown(name))));
            continue;
        };
        let field = format!("variables.{name}");
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match parameter.check(&text) {
            Ok(verdict) => {
                accepted.reasons.extend(reason(parameter, verdict, &field));
                accepted.values.push((parameter.name.clone(), text));
            }
            Err(failed) => failed.into_iter().for_each(|invalid| faults.add(|| invalid.at(field.clone()))),
        }
    }
    for parameter in parameters.iter().filter(|p| p.required && p.default.is_none()) {
        if !given.contains_key(parameter.name.as_str()) {
            let missing = || Invalid::new("missing", "is required by the application", "send a value for it");
            faults.add(|| missing().at(format!("variables.{}", parameter.name)));
        }
    }
    (accepted, faults.told())
}

fn reason(parameter: &Parameter, verdict: Verdict, field: &str) -> Option<Reason> {
    let (code, message) = match (parameter.approval?, verdict) {
        (ApprovalRule::Always, _) => (ReasonCode::Always, "is never used without a decision"),
        (ApprovalRule::PublicAddress, Verdict::PublicAddress) => {
            (ReasonCode::PublicAddress, "leads to an address on the public internet")
        }
        (ApprovalRule::PublicAddress, Verdict::DomainName) => {
            (ReasonCode::DomainAddress, "leads to a domain name, which may stand for any address")
        }
        (ApprovalRule::PublicAddress, Verdict::PrivateAddress | Verdict::Plain) => return None,
    };
    Some(Reason { field: field.to_owned(), code, message: message.to_owned() })
}

fn undeclared(parameters: &[Parameter]) -> Invalid {
    let names: Vec<_> = parameters.iter().map(|p| p.name.as_str()).take(MAX_SUGGESTED).collect();
    let suggestion = match parameters.len().saturating_sub(names.len()) {
        0 if names.is_empty() => "declare it in the application's parameters, or leave it out".to_owned(),
        0 => format!("declare it in the application's parameters, or use one of {}", names.join(", ")),
        more => {
            format!("declare it in the application's parameters, or use one of {} or of {more} more", names.join(", "))
        }
    };
    Invalid::new("undeclared", "is not a parameter of this application", suggestion)
}

/// A name is the caller's own text and may be a misplaced value: it is shown as far as a name would go, and with nothing in
/// it that a page or a comment would take for its own.
fn shown(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '?' };
    let mut shown: String = name.chars().take(MAX_SHOWN).map(plain).collect();
    if name.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// The first faults of many.
#[derive(Default)]
pub(crate) struct Faults {
    listed: Vec<FieldError>,
    left_out: usize,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: impl FnOnce() -> FieldError) {
        if self.listed.len() < MAX_FAULTS { self.listed.push(fault()) } else { self.left_out += 1 }
    }

    pub(crate) fn told(mut self) -> Vec<FieldError> {
        if self.left_out > 0 {
            let message = format!("has {} more faults, which are not listed", self.left_out);
            let more = Invalid::new("more-faults", message, "mend those that are listed, and send it again");
            self.listed.push(more.at("variables"));
        }
        self.listed
    }
}
