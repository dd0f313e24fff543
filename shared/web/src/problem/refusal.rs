//! What the gate says of requests, as problem documents.

use tidegate_domain::refusal::{Reason, Refusal};

use super::Problem;

impl From<Refusal> for Problem {
    /// What is on record carries its id.
    fn from(refusal: Refusal) -> Self {
        let summary = refusal.reason.summary();
        let problem = match refusal.reason {
            Reason::Invalid(errors) => Self::validation_failed(errors),
            Reason::WebhookDisabled => Self::webhook_disabled(),
            Reason::PermissionDenied => Self::forbidden(),
            Reason::RateLimited { full, retry_after } => Self::rate_limited(retry_after).with("limits", full),
            Reason::QueueFull { retry_after } => Self::queue_full(retry_after),
            Reason::TimedOut => Self::validation_timeout(),
        };
        let problem = problem.with("validationPassed", false).with("rejectReason", summary);
        match refusal.deployment {
            Some(id) => problem.with("deploymentId", id.to_string()),
            None => problem,
        }
    }
}
