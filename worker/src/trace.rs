//! What a container that does not work leaves for the person who has to mend it.

use tidegate_domain::{
    application::HealthCheck,
    assignment::{ErrorCode, MAX_LOG_BYTES, TargetError},
    id::ApplicationId,
    job::Job,
};

use crate::{docker::Error, health::Verdict};

const MAX_LINES: usize = 50;

/// The last lines of a log that was redacted before, oldest first: at most 50, and [`MAX_LOG_BYTES`] in all. A newest
/// line that is longer alone keeps its beginning.
pub(crate) fn tail(redacted: &str) -> Vec<String> {
    let mut left = MAX_LOG_BYTES;
    let mut lines = Vec::new();
    for line in redacted.lines().rev().take(MAX_LINES) {
        // Colours and cursor movements mean nothing outside a terminal.
        let line: String = line.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()).collect();
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
    let image = job.image.at(&job.version);
    match verdict {
        Verdict::Healthy => None,
        Verdict::Exited { oom_killed: true, exit_code } => {
            let limit = job.container.memory_bytes.map(|bytes| format!(" of {} MiB", bytes / (1024 * 1024)));
            let message =
                format!("the new container of {image} was killed at its memory limit{}", limit.unwrap_or_default());
            let error =
                TargetError::new(ErrorCode::Exited, message, "raise memoryBytes, or let the application use less");
            Some(TargetError { exit_code: *exit_code, oom_killed: true, ..error })
        }
        Verdict::Exited { exit_code, .. } => {
            let code = exit_code.map(|code| format!(" with code {code}")).unwrap_or_default();
            let message = format!("the new container of {image} ended by itself{code}");
            let error = TargetError::new(
                ErrorCode::Exited,
                message,
                "its last log lines should say why; mend it and deploy again",
            );
            Some(TargetError { exit_code: *exit_code, ..error })
        }
        Verdict::Unhealthy { why } => {
            let message = format!("the new container of {image} runs, but its health check does not pass: {why}");
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

pub(crate) fn engine_away(job: &Job, error: &Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(deployment.id = %job.deployment_id, error, "the engine went away during the switch, waiting for it");
}

pub(crate) fn clean_up_failed(job: &Job, error: &Error) {
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
    use super::*;

    #[test]
    fn a_tail_is_the_newest_lines_within_the_limits() {
        let many: Vec<_> = (0..60).map(|n| format!("line {n}")).collect();
        let kept = tail(&many.join("\n"));
        assert_eq!((kept.len(), kept[0].as_str(), kept[49].as_str()), (50, "line 10", "line 59"));
        let long = format!("{}\n{}\nlast\n", "a".repeat(MAX_LOG_BYTES), "b".repeat(100));
        assert_eq!(tail(&long), ["b".repeat(100), "last".to_owned()]);
        let huge = tail(&"ä".repeat(MAX_LOG_BYTES));
        assert_eq!((huge.len(), huge[0].len()), (1, MAX_LOG_BYTES));
        assert_eq!(tail("\u{1b}[31mred\u{1b}[0m\tx\r\n"), ["[31mred[0m x"]);
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
        let unhealthy = verdict(&job, &Verdict::Unhealthy { why: "GET / answers 503".to_owned() }).unwrap();
        assert_eq!((unhealthy.code, unhealthy.exit_code), (ErrorCode::Unhealthy, None));
        assert!(unhealthy.message.ends_with("answers 503"));
    }
}
