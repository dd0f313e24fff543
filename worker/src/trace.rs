//! What a container that does not work leaves for the person who has to mend it.

use std::time::Duration;

use tidegate_domain::{
    application::HealthCheck,
    assignment::{ErrorCode, MAX_LOG_BYTES, TargetError},
    id::ApplicationId,
    job::{Action, Job},
    task::LogLine,
};

use crate::{deadline, docker::Error, health::Verdict, plan::Step, settle::Why};

pub(crate) const MAX_LINES: usize = 50;
/// The exit code that Docker tells for a process ended by SIGKILL.
const KILLED: i64 = 137;

/// The last of lines that may be shown, oldest first: at most 50, and [`MAX_LOG_BYTES`] in all. A newest line that is
/// longer alone keeps its beginning.
pub(crate) fn tail(hidden: &[(LogLine, bool)]) -> Vec<String> {
    let mut left = MAX_LOG_BYTES;
    let mut lines = Vec::new();
    for (line, _) in hidden.iter().rev().take(MAX_LINES) {
        let line = line.text.replace('\t', " ");
        if line.len() > left {
            if lines.is_empty() {
                lines.push(line[..line.floor_char_boundary(left)].to_owned());
            }
            break;
        }
        left -= line.len();
        lines.push(line);
    }
    lines.reverse();
    lines
}

/// The error that a verdict is, without its log; none for a container that works.
pub(crate) fn verdict(job: &Job, verdict: &Verdict) -> Option<TargetError> {
    let the_container = the_container(job);
    match verdict {
        Verdict::Healthy => None,
        Verdict::Removed => Some(removed(job)),
        Verdict::Exited { oom_killed: true, exit_code } => {
            let limit = job.container.memory_bytes.map(|bytes| format!(" of {} MiB", bytes / (1024 * 1024)));
            let message = format!("{the_container} was killed at its memory limit{}", limit.unwrap_or_default());
            let error =
                TargetError::new(ErrorCode::Exited, message, "raise memoryBytes, or let the application use less");
            Some(TargetError { exit_code: *exit_code, oom_killed: true, ..error })
        }
        Verdict::Exited { exit_code: Some(KILLED), .. } => {
            let message = format!("{the_container} was killed from outside (SIGKILL, code {KILLED})");
            let suggestion = "find out who did: docker events tells of a person or program, the kernel's log (dmesg) of a \
                              host out of memory; then deploy again";
            Some(TargetError { exit_code: Some(KILLED), ..TargetError::new(ErrorCode::Exited, message, suggestion) })
        }
        Verdict::Exited { exit_code, .. } => {
            let code = exit_code.map(|code| format!(" with code {code}")).unwrap_or_default();
            let message = format!("{the_container} ended by itself{code}");
            let error = TargetError::new(
                ErrorCode::Exited,
                message,
                "its last log lines should say why; mend it and deploy again",
            );
            Some(TargetError { exit_code: *exit_code, ..error })
        }
        Verdict::Unhealthy { why } => {
            let message = format!("{the_container} runs, but its health check does not pass: {why}");
            let suggestion = match &job.health_check {
                Some(HealthCheck { deadline_ms, .. }) => format!(
                    "read its last log lines; if it only needs longer than {deadline_ms} ms, raise startPeriodMs and deadlineMs"
                ),
                None => "read its last log lines, and check the image's HEALTHCHECK".to_owned(),
            };
            Some(TargetError::new(ErrorCode::Unhealthy, message, suggestion))
        }
    }
}

fn the_container(job: &Job) -> String {
    let new = if job.action == Action::Deploy { "new " } else { "" };
    format!("the {new}container of {}", job.image.at(&job.version))
}

/// Somebody has taken the container away.
pub(crate) fn removed(job: &Job) -> TargetError {
    TargetError::new(
        ErrorCode::Exited,
        format!("{} was removed by somebody else meanwhile", the_container(job)),
        "find out who manages the application's containers beside Tidegate (docker events), then deploy again",
    )
}

/// Somebody has given the container a name that is none of ours.
pub(crate) fn renamed(job: &Job, name: &str) -> TargetError {
    TargetError::new(
        ErrorCode::Exited,
        format!("{} was renamed to {name} by somebody else meanwhile", the_container(job)),
        "find out who manages the application's containers beside Tidegate (docker events), then deploy again",
    )
}

/// What went wrong after the commit, so long after the new version's start.
pub(crate) fn in_bake(error: TargetError, after: Duration) -> TargetError {
    let message = format!("{} (in the bake time, {} s after its start)", error.message, after.as_secs());
    TargetError { message, ..error }
}

pub(crate) fn cancelled(job: &Job) -> TargetError {
    let message = format!("the deployment of {} was called off before the switch", job.image.at(&job.version));
    TargetError::new(ErrorCode::Cancelled, message, "deploy again when it is wanted")
}

pub(crate) fn superseded() -> TargetError {
    TargetError::new(
        ErrorCode::Superseded,
        "a later deployment of the application has already run on this host",
        "nothing was changed; deploy again if this version is what should run",
    )
}

/// `renamed` is what somebody has called one of the application's.
pub(crate) fn no_container(name: &str, renamed: Option<&str>) -> TargetError {
    let message = format!("there is no container {name} of the application on this host");
    match renamed {
        Some(renamed) => TargetError::new(
            ErrorCode::NoContainer,
            format!("{message}; somebody has renamed it to {renamed}"),
            back_to(name, renamed),
        ),
        None => TargetError::new(ErrorCode::NoContainer, message, "deploy the application to this host first"),
    }
}

/// What to do about one that somebody has renamed.
pub(crate) fn back_to(name: &str, renamed: &str) -> String {
    format!("give it its name back (docker rename {renamed} {name}), or remove the application from this host first")
}

/// A step that has outlived its deadline.
pub(crate) fn late(step: &Step, limit: Duration) -> TargetError {
    let message = format!("to {} took longer than {} s, and was given up", deadline::told(step), limit.as_secs());
    if *step == Step::Pull {
        let suggestion = "check how fast this host reaches the registry, or make the image smaller; then deploy again";
        return TargetError::new(ErrorCode::RegistryUnavailable, message, suggestion);
    }
    TargetError::new(
        ErrorCode::DockerUnavailable,
        message,
        "check on the host that Docker answers in time (docker ps; its load and its log), then deploy again",
    )
}

pub(crate) fn engine_away(job: &Job, error: &Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(deployment.id = %job.deployment_id, error, "the engine went away during the switch, waiting for it");
}

pub(crate) fn clean_up_failed(job: &Job, error: &Why) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(deployment.id = %job.deployment_id, error, "the clean-up of an abandoned attempt failed");
}

pub(crate) fn pruning_failed(job: &Job, error: &Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(deployment.id = %job.deployment_id, error, "pruning old images failed");
}

pub(crate) fn settling_failed(application: ApplicationId, error: &Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(application.id = %application, error, "settling an application failed, trying again");
}

#[cfg(test)]
mod tests {
    use tidegate_domain::task::LogStream;

    use super::*;
    use crate::{
        log_lines::{self, tests::written},
        redact::Redactor,
    };

    #[test]
    fn a_tail_is_the_newest_lines_within_the_limits() {
        let redactor = Redactor::new(["hunter2!"]);
        let tail = |text: &str| {
            let lines: Vec<_> = text.lines().map(|line| (LogStream::Stdout, line)).collect();
            tail(&log_lines::hidden(written(&lines), false, &redactor))
        };
        let many: Vec<_> = (0..60).map(|n| format!("line {n}")).collect();
        let kept = tail(&many.join("\n"));
        assert_eq!((kept.len(), kept[0].as_str(), kept[49].as_str()), (50, "line 10", "line 59"));
        let long = format!("{}\n{}\nlast\n", "a".repeat(MAX_LOG_BYTES), "b".repeat(100));
        assert_eq!(tail(&long), ["b".repeat(100), "last".to_owned()]);
        let huge = tail(&"ä".repeat(MAX_LOG_BYTES));
        assert_eq!((huge.len(), huge[0].len()), (1, MAX_LOG_BYTES));
        assert_eq!(tail("\u{1b}[31mred\u{1b}[0m\tx\r\n"), ["[31mred[0m x"]);
        assert_eq!(tail("hunt\u{7}er2!\nx hun\nter2!"), ["***", "x ***", "***"]);
        assert!(tail("").is_empty());
    }

    #[test]
    fn a_verdict_says_what_happened_and_what_to_do() {
        let job = crate::samples::job();
        assert_eq!(verdict(&job, &Verdict::Healthy), None);
        let exited = verdict(&job, &Verdict::Exited { exit_code: Some(3), oom_killed: false }).unwrap();
        assert!(exited.message.ends_with("ended by itself with code 3"), "{}", exited.message);
        let killed = verdict(&job, &Verdict::Exited { exit_code: Some(137), oom_killed: true }).unwrap();
        assert!(killed.oom_killed && killed.message.contains("memory limit"), "{killed:?}");
        let by_hand = verdict(&job, &Verdict::Exited { exit_code: Some(137), oom_killed: false }).unwrap();
        assert!(by_hand.message.contains("killed from outside") && by_hand.exit_code == Some(137), "{by_hand:?}");
        let removed = verdict(&job, &Verdict::Removed).unwrap();
        assert!(removed.message.contains("removed by somebody else"), "{removed:?}");
        let baked = in_bake(exited, Duration::from_secs(90));
        assert!(baked.message.ends_with("with code 3 (in the bake time, 90 s after its start)"), "{baked:?}");
        let unhealthy = verdict(&job, &Verdict::Unhealthy { why: "GET / answers 503".to_owned() }).unwrap();
        assert_eq!((unhealthy.code, unhealthy.exit_code), (ErrorCode::Unhealthy, None));
        assert!(unhealthy.message.ends_with("answers 503"));
    }

    #[test]
    fn a_late_step_says_which_and_is_worth_another_try() {
        let told = late(&Step::StartNext { id: "1".to_owned() }, Duration::from_secs(90));
        assert!(told.message.contains("start the new version") && told.message.contains("90 s"), "{told:?}");
        assert!(told.code.is_worth_a_retry() && late(&Step::Pull, Duration::ZERO).code.is_worth_a_retry());
        assert_eq!(late(&Step::Pull, Duration::ZERO).code, ErrorCode::RegistryUnavailable);
    }
}
