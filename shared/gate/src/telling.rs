//! What is measured and logged of requests: who, how it ended, how long it took, and never a value.

use std::time::Instant;

use tidegate_aws::measures::{Measured, Outcome};
use tidegate_domain::refusal::{Reason, Refusal};
use tidegate_web::measures;

use crate::{Decision, Request};

/// How a decision is counted; none for one that is counted with its admission, and for nobody's request.
pub(crate) fn outcome(decision: &Decision) -> Option<(Outcome, Vec<&'static str>)> {
    let Refusal { reason, .. } = match decision {
        Decision::Recorded(_) | Decision::CallerGone => return None,
        Decision::Before(_) => return Some((Outcome::Repeated, Vec::new())),
        Decision::Refused(refusal) => refusal,
    };
    Some((outcome_of(reason), reason.codes()))
}

pub(crate) fn outcome_of(reason: &Reason) -> Outcome {
    match reason {
        Reason::Invalid(_) | Reason::WebhookDisabled | Reason::PermissionDenied => Outcome::Rejected,
        Reason::RateLimited { .. } => Outcome::RateLimited,
        Reason::QueueFull { .. } => Outcome::QueueFull,
        Reason::TimedOut => Outcome::Undecided,
    }
}

/// Every validation is told once, in the log and to what measures: who, how it ended, how long it took, and never a value.
pub(crate) fn tell(request: &Request<'_>, measured: &Measured) {
    measures::emit(measured);
    tracing::info!(
        request.id = request.request_id,
        application.id = %request.application,
        caller = request.user,
        trigger = request.trigger.kind.as_str(),
        outcome = measured.outcome.as_str(),
        codes = measured.codes.join(","),
        duration_ms = measured.duration.as_millis(),
        "validated"
    );
}

pub(crate) fn measured(request: &Request<'_>, outcome: Outcome, codes: Vec<&'static str>, begun: Instant) -> Measured {
    Measured {
        duration: begun.elapsed(),
        outcome,
        codes,
        trigger: request.trigger.kind,
        caller: request.user.to_owned(),
        source: request.source_ip,
    }
}
