//! Why a request whose caller is known goes no further.

use std::{collections::BTreeSet, time::Duration};

use crate::{id::DeploymentId, invalid::FieldError};

/// A request that was refused after its caller was known.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub reason: Reason,
    /// Under which the history shows it; none if it is not on record, as what is refused for the moment only.
    pub deployment: Option<DeploymentId>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// Every fault of the request.
    Invalid(Vec<FieldError>),
    /// The application's webhook is switched off.
    WebhookDisabled,
    /// Whoever asks may not deploy this application.
    PermissionDenied,
    /// So many requests were accepted lately that these limits are full: `per-user`, `per-ip`, `total`.
    RateLimited { full: Vec<&'static str>, retry_after: Duration },
    /// As many deployments of the tenant are live as may be.
    QueueFull { retry_after: Duration },
    /// The checks took longer than anybody waits. Nothing was done.
    TimedOut,
}

impl Reason {
    /// The code of the whole; single faults have their own.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "validation-failed",
            Self::WebhookDisabled => "webhook-disabled",
            Self::PermissionDenied => "permission-denied",
            Self::RateLimited { .. } => "rate-limited",
            Self::QueueFull { .. } => "queue-full",
            Self::TimedOut => "validation-timeout",
        }
    }

    /// All codes that it comes to, each once.
    pub fn codes(&self) -> Vec<&'static str> {
        match self {
            Self::Invalid(faults) => {
                let mut codes: Vec<_> = faults.iter().map(|fault| fault.invalid.code).collect();
                codes.sort_unstable();
                codes.dedup();
                codes
            }
            Self::WebhookDisabled
            | Self::PermissionDenied
            | Self::RateLimited { .. }
            | Self::QueueFull { .. }
            | Self::TimedOut => vec![self.code()],
        }
    }

    /// What the history shows: field and code of every fault, never a value. A field that nobody has declared shows by the
    /// one that it stands in: its name is the caller's own, and may be anything.
    pub fn summary(&self) -> String {
        match self {
            Self::Invalid(faults) if !faults.is_empty() => {
                let mut faults: Vec<_> = faults.iter().map(|f| format!("{}: {}", shown(f), f.invalid.code)).collect();
                let mut seen = BTreeSet::new();
                faults.retain(|fault| seen.insert(fault.clone()));
                faults.join(", ")
            }
            other => other.code().to_owned(),
        }
    }

    /// Whether the history shows it: what holds for the moment only is counted and not recorded.
    pub fn is_recorded(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::WebhookDisabled | Self::PermissionDenied => true,
            Self::RateLimited { .. } | Self::QueueFull { .. } | Self::TimedOut => false,
        }
    }
}

fn shown(fault: &FieldError) -> &str {
    match fault.invalid.code {
        "undeclared" => "variables",
        "unknown-field" => "body",
        _ => &fault.field,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invalid::Invalid;

    #[test]
    fn the_history_shows_no_name_that_only_the_caller_knows() {
        let fault = |code, field: &str| Invalid::new(code, "m", "s").at(field);
        let reason = Reason::Invalid(vec![
            fault("format-ip", "variables.SERVER"),
            fault("undeclared", "variables.my-password.x"),
            fault("undeclared", "variables.other"),
            fault("unknown-field", "pass.word"),
            fault("unknown-field", "password"),
        ]);
        assert_eq!(reason.summary(), "variables.SERVER: format-ip, variables: undeclared, body: unknown-field");
        assert_eq!(reason.codes(), ["format-ip", "undeclared", "unknown-field"]);
        assert_eq!(Reason::TimedOut.summary(), "validation-timeout");
    }
}
