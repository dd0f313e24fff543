//! A deployment as answers show it, to people and to CI alike.

use jiff::Timestamp;
use serde::Serialize;
use tidegate_domain::{
    approval::{Approval, Reason},
    assignment::{Running, Step, StepRecord, TargetError},
    deployment::{DeployedIn, Deployment, Status, Target, TargetState, TimelineEntry},
    job::Action,
};

/// The `deployment` shape of the API.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentView {
    deployment_id: String,
    application_id: u64,
    application_name: String,
    /// `deploy`, or what else was done with the containers: `stop`, `start`, `restart`, `remove`.
    action: &'static str,
    version: Option<String>,
    digest: Option<String>,
    sequence: Option<u64>,
    status: &'static str,
    phase: &'static str,
    trigger: TriggerView,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    /// From start to end; null until then.
    duration_ms: Option<u64>,
    targets: Vec<TargetView>,
    error: Option<ErrorView>,
    /// What runs after it; null until it has ended, or where it was never begun.
    running: Option<Running>,
    /// Whose variables it got; null if there was none, and where nothing was configured.
    environment: Option<DeployedIn>,
    queue_position: Option<usize>,
    validation_passed: bool,
    reject_reason: Option<String>,
    approval: Option<ApprovalView>,
    /// The deployment whose request it repeats.
    retry_of: Option<String>,
    /// The issue that asked for it: `owner/name#12`.
    issue: Option<String>,
    /// Of a rollback: the deployment whose release it returns to.
    returns_to: Option<String>,
    /// The later deployment that took its place.
    superseded_by: Option<String>,
    /// Who has called it off, and when.
    cancel_requested: Option<CancelView>,
    timeline: Vec<TimelineView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ApprovalView {
    /// `pending`, `approved`, `denied`, `timed_out`; `withdrawn` if it was called off or superseded undecided.
    status: &'static str,
    reasons: Vec<Reason>,
    asked_at: Timestamp,
    expires_at: Timestamp,
    /// Of everything that would run; what a decision names.
    hash: String,
    decided_at: Option<Timestamp>,
    decided_by: Option<String>,
    comment: Option<String>,
}

#[derive(Debug, Serialize)]
struct CancelView {
    at: Timestamp,
    by: String,
}

#[derive(Debug, Serialize)]
struct TriggerView {
    #[serde(rename = "type")]
    kind: &'static str,
    source: Option<String>,
    actor: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetView {
    host: String,
    status: &'static str,
    step: Option<&'static str>,
    /// Percent of the pull; 100 from then on.
    progress: u8,
    bytes_done: u64,
    bytes_total: u64,
    steps: Vec<StepView>,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    error: Option<TargetErrorView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepView {
    step: &'static str,
    started_at: Timestamp,
    completed_at: Option<Timestamp>,
    duration_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ErrorView {
    code: &'static str,
    message: String,
    suggestion: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetErrorView {
    #[serde(flatten)]
    error: ErrorView,
    exit_code: Option<i64>,
    oom_killed: bool,
    log_tail: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TimelineView {
    at: Timestamp,
    event: String,
    detail: DetailView,
}

#[derive(Debug, Serialize)]
struct DetailView {
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
}

/// `queue_position` counts from 1, among the application's waiting deployments; none for one that does not wait.
pub fn view(deployment: &Deployment, queue_position: Option<usize>) -> DeploymentView {
    let reject_reason = match &deployment.status {
        Status::Rejected { reason } => Some(reason.clone()),
        Status::Denied => Some("approval-denied".to_owned()),
        Status::TimedOut => Some("approval-timed-out".to_owned()),
        Status::AwaitingApproval
        | Status::Queued
        | Status::Running
        | Status::Succeeded
        | Status::Failed { .. }
        | Status::RolledBack
        | Status::Cancelled { .. }
        | Status::Superseded { .. } => None,
    };
    let superseded_by = match &deployment.status {
        Status::Superseded { by } => by.map(|id| id.to_string()),
        Status::AwaitingApproval
        | Status::Queued
        | Status::Running
        | Status::Succeeded
        | Status::Failed { .. }
        | Status::RolledBack
        | Status::Cancelled { .. }
        | Status::Rejected { .. }
        | Status::Denied
        | Status::TimedOut => None,
    };
    DeploymentView {
        deployment_id: deployment.id.to_string(),
        application_id: deployment.application_id.0,
        application_name: deployment.application_name.clone(),
        action: deployment.action.as_str(),
        version: deployment.version.as_ref().map(ToString::to_string),
        digest: deployment.digest.as_ref().map(ToString::to_string),
        sequence: deployment.sequence.map(|s| s.0),
        status: deployment.status.name(),
        phase: deployment.status.phase(),
        trigger: TriggerView {
            kind: deployment.trigger.kind.as_str(),
            source: deployment.trigger.source.clone(),
            actor: deployment.trigger.actor.clone(),
        },
        created_at: deployment.created_at,
        started_at: deployment.started_at,
        completed_at: deployment.completed_at,
        duration_ms: between(deployment.started_at, deployment.completed_at),
        targets: deployment.targets.iter().map(target).collect(),
        error: deployment.error().map(error),
        running: running(deployment),
        environment: deployment.environment.clone(),
        queue_position,
        validation_passed: !matches!(deployment.status, Status::Rejected { .. }),
        reject_reason,
        approval: deployment.approval.as_ref().map(|asked| approval(asked, deployment.status.is_final())),
        retry_of: deployment.retry_of.map(|id| id.to_string()),
        issue: deployment.issue.as_ref().map(ToString::to_string),
        returns_to: deployment.returns_to.map(|id| id.to_string()),
        superseded_by,
        cancel_requested: deployment
            .cancel_requested
            .clone()
            .map(|request| CancelView { at: request.at, by: request.by }),
        timeline: deployment.timeline.iter().map(timeline).collect(),
    }
}

fn approval(approval: &Approval, is_over: bool) -> ApprovalView {
    let decision = approval.decision.as_ref();
    let undecided = if is_over { "withdrawn" } else { "pending" };
    ApprovalView {
        status: decision.map_or(undecided, |decision| decision.verdict.as_str()),
        reasons: approval.reasons.clone(),
        asked_at: approval.asked_at,
        expires_at: approval.expires_at,
        hash: approval.hash.as_str().to_owned(),
        decided_at: decision.map(|decision| decision.at),
        decided_by: decision.map(|decision| decision.by.clone()),
        comment: decision.and_then(|decision| decision.comment.clone()),
    }
}

/// [`view`] as JSON, for answers that take single fields of it.
pub fn deployment(deployment: &Deployment) -> serde_json::Value {
    serde_json::to_value(view(deployment, None)).expect("a view of texts and numbers can be written as JSON")
}

fn running(deployment: &Deployment) -> Option<Running> {
    match &deployment.status {
        Status::AwaitingApproval
        | Status::Queued
        | Status::Running
        | Status::Superseded { .. }
        | Status::Rejected { .. }
        | Status::Denied
        | Status::TimedOut => None,
        Status::Succeeded => Some(match deployment.action {
            Action::Deploy | Action::Start | Action::Restart => Running::New,
            Action::Stop | Action::Remove => Running::None,
        }),
        Status::Failed { running } | Status::Cancelled { running } => Some(*running),
        Status::RolledBack => Some(Running::Previous),
    }
}

fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<u64> {
    let duration = to?.duration_since(from?);
    u64::try_from(duration.as_millis()).ok()
}

fn target(target: &Target) -> TargetView {
    let step = target.progress.step();
    let pulled = match step {
        None | Some(Step::Claim | Step::Pull) => target.state == TargetState::Succeeded,
        Some(Step::Create | Step::Switch | Step::Check | Step::Commit | Step::Bake | Step::Restore) => true,
    };
    TargetView {
        host: target.host.to_string(),
        status: target.state.name(),
        step: step.map(Step::as_str),
        progress: if pulled { 100 } else { target.progress.percent },
        bytes_done: target.progress.bytes_done,
        bytes_total: target.progress.bytes_total,
        steps: target.progress.steps.iter().map(step_view).collect(),
        started_at: target.started_at,
        completed_at: target.completed_at,
        error: target.state.error().map(|e| TargetErrorView {
            error: error(e),
            exit_code: e.exit_code,
            oom_killed: e.oom_killed,
            log_tail: e.log_tail.clone(),
        }),
    }
}

fn step_view(record: &StepRecord) -> StepView {
    StepView {
        step: record.step.as_str(),
        started_at: record.started_at,
        completed_at: record.completed_at,
        duration_ms: between(Some(record.started_at), record.completed_at),
    }
}

fn error(error: &TargetError) -> ErrorView {
    ErrorView { code: error.code.as_str(), message: error.message.clone(), suggestion: error.suggestion.clone() }
}

fn timeline(entry: &TimelineEntry) -> TimelineView {
    let host = entry.host.as_ref().map(ToString::to_string);
    TimelineView { at: entry.at, event: entry.event.clone(), detail: DetailView { host } }
}
