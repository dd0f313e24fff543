//! What an application allows a request to say beside the version.
//!
//! A type is one file below and one variant of [`ParameterType`].

mod accepting;
pub mod address;
mod boolean;
mod declaring;
mod domain;
mod email;
mod host;
mod ip;
mod ipv4;
mod json;
mod kind;
mod number;
mod public_key;
pub mod set;
mod text;
mod url;

#[cfg(test)]
mod hostile_tests;

use serde::{Deserialize, Serialize};

pub(crate) use accepting::Faults;
pub use accepting::{Accepted, MAX_FAULTS, accept, judge};
pub use declaring::{MAX_CHOICES, MAX_DECLARED_LENGTH};
pub use kind::{ParameterType, Verdict};
pub use public_key::Algorithm;
pub use text::MAX_LENGTH;

use crate::{
    invalid::Invalid,
    pattern::Pattern,
    secret::Secret,
    variable::{Layered, Origin, ValueType, VariableKey, Written},
};

/// Most parameters that an application may declare.
pub const MAX_PARAMETERS: usize = 200;

/// A declared parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameter {
    pub name: VariableKey,
    #[serde(rename = "type")]
    pub value_type: ParameterType,
    pub required: bool,
    /// Used when neither the request nor a stored variable has one.
    pub default: Option<String>,
    /// Its values are secrets: sealed, masked, redacted.
    pub sensitive: bool,
    /// When a value of the request has to be approved; none for never.
    #[serde(default)]
    pub approval: Option<ApprovalRule>,
    /// Fewest Unicode characters.
    #[serde(default)]
    pub min_length: Option<u32>,
    /// Most Unicode characters; for a `string` in place of its own [`MAX_LENGTH`].
    #[serde(default)]
    pub max_length: Option<u32>,
    /// What the whole value must match.
    #[serde(default)]
    pub pattern: Option<Pattern>,
    /// The only values that are taken; none for any.
    #[serde(default, rename = "enum")]
    pub choices: Option<Vec<String>>,
    /// Of a `string`: line breaks and other control characters are taken too, NUL never.
    #[serde(default)]
    pub multiline: bool,
    /// Of a `public_key`: which algorithms are taken; none for all.
    #[serde(default)]
    pub algorithms: Option<Vec<Algorithm>>,
}

/// When a parameter that a request carries needs its owner's decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ApprovalRule {
    /// When the value is a public address or a domain name, which may stand for one.
    PublicAddress,
    /// Whatever the value is.
    Always,
}

impl Parameter {
    /// An optional parameter of this type, without conditions.
    pub fn new(name: VariableKey, value_type: ParameterType) -> Self {
        Self {
            name,
            value_type,
            required: false,
            default: None,
            sensitive: false,
            approval: None,
            min_length: None,
            max_length: None,
            pattern: None,
            choices: None,
            multiline: false,
            algorithms: None,
        }
    }

    /// Whether a value is one that the declaration allows, and what it stands for.
    ///
    /// # Errors
    /// What keeps it from being of its type; or else, all at once, the conditions of the declaration that it fails.
    pub fn check(&self, value: &str) -> Result<Verdict, Vec<Invalid>> {
        let verdict = match self.value_type {
            ParameterType::String => text::check(value, self.multiline),
            ParameterType::Number => number::check(value),
            ParameterType::Boolean => boolean::check(value),
            ParameterType::Json => json::check(value),
            ParameterType::Email => email::check(value),
            ParameterType::Ipv4 => ipv4::check(value),
            ParameterType::Ip => ip::check(value),
            ParameterType::Domain => domain::check(value),
            ParameterType::Host => host::check(value),
            ParameterType::Url => url::check(value),
            ParameterType::PublicKey => public_key::check(value, self.algorithms.as_deref()),
        };
        let verdict = verdict.map_err(|invalid| vec![invalid])?;
        let failed: Vec<_> = [self.check_length(value), self.check_choice(value), self.check_pattern(value)]
            .into_iter()
            .flatten()
            .collect();
        if failed.is_empty() { Ok(verdict) } else { Err(failed) }
    }

    fn check_length(&self, value: &str) -> Option<Invalid> {
        let count = value.chars().count();
        let of_type = (self.value_type == ParameterType::String).then_some(MAX_LENGTH);
        if let Some(least) = self.min_length.filter(|least| count < *least as usize) {
            let suggestion = format!("send at least {least} characters");
            return Some(Invalid::new("too-short", "is shorter than the application allows", suggestion));
        }
        let most = self.max_length.or(of_type).filter(|most| count > *most as usize)?;
        let suggestion = format!("send at most {most} characters");
        Some(Invalid::new("too-long", "is longer than the application allows", suggestion))
    }

    fn check_choice(&self, value: &str) -> Option<Invalid> {
        let choices = self.choices.as_ref().filter(|choices| !choices.iter().any(|choice| choice == value))?;
        // The choices for a secret would be a list of secrets.
        let names: Vec<_> = choices.iter().map(String::as_str).take_while(|_| !self.sensitive).collect();
        let shown = names.join(", ");
        let suggestion = if names.is_empty() || shown.len() > 500 {
            "use one of those that the application's declaration lists".to_owned()
        } else {
            format!("use one of {shown}")
        };
        Some(Invalid::new("unknown-value", "is not one of the values that the application allows", suggestion))
    }

    fn check_pattern(&self, value: &str) -> Option<Invalid> {
        let pattern = self.pattern.as_ref().filter(|pattern| !pattern.is_match(value))?;
        let suggestion = format!("send a value that matches {}", pattern.as_str());
        Some(Invalid::new("pattern", "does not match the pattern that the application asks for", suggestion))
    }
}

/// The layers that a request and the parameters' defaults put over what is stored.
pub fn layers(parameters: &[Parameter], accepted: Vec<(VariableKey, String)>) -> Vec<Layered> {
    let is_secret = |key: &VariableKey| parameters.iter().any(|p| p.sensitive && p.name == *key);
    let layer = |origin, key: VariableKey, text: String| {
        let is_secret = is_secret(&key);
        // Of its own type, which has been looked at.
        let value_type = ValueType::String;
        Layered { origin, key, value: Written::Text(Secret::new(text)), value_type, is_secret }
    };
    let defaults = parameters.iter().filter_map(|p| Some((p.name.clone(), p.default.clone()?)));
    let defaults = defaults.map(|(key, text)| layer(Origin::Default, key, text));
    accepted.into_iter().map(|(key, text)| layer(Origin::Request, key, text)).chain(defaults).collect()
}

#[cfg(test)]
mod tests;
