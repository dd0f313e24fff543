//! Whether a declaration can be kept by anybody.

use super::{ApprovalRule, MAX_LENGTH, Parameter, ParameterType};
use crate::invalid::{FieldError, Invalid};

/// Most values that a parameter's `enum` may list.
pub const MAX_CHOICES: usize = 100;
/// Longest text that a declaration may ask for, in characters.
pub const MAX_DECLARED_LENGTH: u32 = 65_536;

impl Parameter {
    /// What is wrong with the declaration itself, each fault at its field: `approval`, `enum[2]`. None for a good one.
    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let mut refuse = |field: &str, invalid: Invalid| faults.push(invalid.at(field));
        let of_another = |types: &str| {
            Invalid::new("either-or", "does not go with the parameter's type", format!("leave it out, or use {types}"))
        };
        if self.approval == Some(ApprovalRule::PublicAddress) && !self.value_type.carries_address() {
            refuse("approval", of_another("the type ipv4, ip, domain, host or url"));
        }
        if self.multiline && self.value_type != ParameterType::String {
            refuse("multiline", of_another("the type string"));
        }
        match &self.algorithms {
            Some(_) if self.value_type != ParameterType::PublicKey => {
                refuse("algorithms", of_another("the type public_key"));
            }
            Some(algorithms) if algorithms.is_empty() => {
                refuse(
                    "algorithms",
                    Invalid::new("missing", "names no algorithm", "name rsa or ed25519, or leave it out"),
                );
            }
            Some(_) | None => {}
        }
        for (field, length) in [("minLength", self.min_length), ("maxLength", self.max_length)] {
            if length.is_some_and(|length| length > MAX_DECLARED_LENGTH) {
                let wanted = format!("at most {MAX_DECLARED_LENGTH}");
                refuse(field, Invalid::new("out-of-range", format!("must be {wanted}"), format!("send {wanted}")));
            }
        }
        if self.min_length.is_some_and(|least| self.max_length.unwrap_or(self.longest()) < least) {
            let why = "is above the longest that is allowed, so that no value passes";
            refuse("minLength", Invalid::new("either-or", why, "lower minLength, or raise maxLength"));
        }
        if let Some(choices) = &self.choices {
            self.check_choices(choices, &mut refuse);
        }
        if self.sensitive && self.default.is_some() {
            let why = "would stand in plain text in the application, which answers show";
            refuse("default", Invalid::new("either-or", why, "store it as a secret variable of the same name"));
        }
        if let Some(default) = &self.default {
            for invalid in self.check(default).err().unwrap_or_default() {
                refuse("default", invalid);
            }
        }
        faults
    }

    fn longest(&self) -> u32 {
        if self.value_type == ParameterType::String { MAX_LENGTH } else { MAX_DECLARED_LENGTH }
    }

    fn check_choices(&self, choices: &[String], refuse: &mut impl FnMut(&str, Invalid)) {
        if choices.is_empty() || choices.len() > MAX_CHOICES {
            let wanted = format!("1 to {MAX_CHOICES} values");
            refuse("enum", Invalid::new("out-of-range", format!("must list {wanted}"), format!("list {wanted}")));
            return;
        }
        for (i, choice) in choices.iter().enumerate() {
            for invalid in self.check(choice).err().unwrap_or_default() {
                refuse(&format!("enum[{i}]"), invalid);
            }
        }
    }
}
