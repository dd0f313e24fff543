//! Why an input was refused, in words that say how to mend it.

use std::fmt;

/// One reason for refusing one value. `code` is stable and documented; the others are for people.
///
/// None of the texts ever repeats the value that was refused: it may be a secret in the wrong field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    pub code: &'static str,
    pub message: String,
    pub suggestion: String,
}

impl Invalid {
    pub fn new(code: &'static str, message: impl Into<String>, suggestion: impl Into<String>) -> Self {
        Self { code, message: message.into(), suggestion: suggestion.into() }
    }

    /// The same reason, said of a field: `ports[0].host`, `variables.API_URL`.
    pub fn at(self, field: impl Into<String>) -> FieldError {
        FieldError { field: field.into(), invalid: self }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.suggestion)
    }
}

impl std::error::Error for Invalid {}

/// A reason for refusing one field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub field: String,
    pub invalid: Invalid,
}
