//! The end of an application's log, without its secrets.
//!
//! What is shown is only ever the container of the release whose secrets came with the order: another one's may hold values
//! that nobody here knows to hide.

use jiff::Timestamp;
use tidegate_aws::clock;
use tidegate_domain::{
    id::DeploymentId,
    task::{LONGEST, LogLine, Logs, Refusal, TaskOrder},
};
use tokio::time::timeout;

use super::refusal;
use crate::{
    docker::{Tail, Written},
    log_lines,
    perform::Host,
    plan::{Observed, Seen, Whose},
    redact::Redactor,
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) tail: usize,
    pub(super) since: Option<Timestamp>,
    pub(super) release: DeploymentId,
}

pub(super) async fn logs<'a>(
    host: &Host,
    order: &TaskOrder,
    asked: Asked,
    secrets: impl IntoIterator<Item = &'a str>,
) -> Result<Logs, Refusal> {
    let redactor = Redactor::new(secrets);
    timeout(LONGEST, read(host, order, asked, &redactor)).await.unwrap_or(Err(Refusal::Late))
}

async fn read(host: &Host, order: &TaskOrder, asked: Asked, redactor: &Redactor) -> Result<Logs, Refusal> {
    let refused = |error| refusal(&error, |text| redactor.apply(text));
    let (label, name) = (host.label(), format!("{}{}", host.policy.container_prefix, order.name.as_str()));
    let whose = Whose { host: &label, application: order.application_id, base: &name, adopts: false };
    let containers = host.engine.containers().await.map_err(refused)?;
    let seen = shown(Observed::of(&containers, whose, clock::now())).ok_or(Refusal::NoContainer)?;
    match seen.deployment {
        Some(release) if release == asked.release => {}
        Some(release) => return Err(Refusal::OtherRelease { release }),
        None => return Err(Refusal::NoContainer),
    }
    let detail = host.engine.detail(&seen.id).await.map_err(refused)?.ok_or(Refusal::NoContainer)?;
    let tail = Tail { since: asked.since, ..log_lines::tail(asked.tail, redactor) };
    let written = host.engine.written(&seen.id, tail).await.map_err(refused)?;
    let written = written.map_err(|driver| Refusal::NotKept { driver })?;
    let (lines, truncated) = lines(written, asked, redactor);
    Ok(Logs { state: detail.state, truncated, lines }.bounded())
}

/// The one that counts. In the middle of a switch none has the application's name: then the old one, and else the new one.
fn shown(observed: Observed) -> Option<Seen> {
    let previous = observed.previous.filter(|previous| !previous.foreign).map(|previous| previous.seen);
    observed.current.or(previous).or(observed.next).or_else(|| observed.strays.into_iter().next())
}

/// Without secrets, at most as many as were asked for; and whether anything is missing.
fn lines(written: Written, asked: Asked, redactor: &Redactor) -> (Vec<LogLine>, bool) {
    let mut lines = log_lines::hidden(written.lines, written.begins_within, redactor);
    let begin = lines.len().saturating_sub(asked.tail);
    let dropped = written.dropped && begin == 0;
    let asked_for = |(line, _): &(LogLine, bool)| asked.since.is_none_or(|since| line.at.is_none_or(|at| at >= since));
    let lines: Vec<_> = lines.drain(begin..).filter(asked_for).collect();
    let truncated = dropped || lines.iter().any(|(_, is_cut)| *is_cut);
    (lines.into_iter().map(|(line, _)| line).collect(), truncated)
}

#[cfg(test)]
mod tests {
    use tidegate_domain::task::LogStream;

    use super::*;
    use crate::{
        docker::WrittenLine,
        log_lines::tests::{at, texts, written},
    };

    fn asked(tail: usize, since: Option<i64>) -> Asked {
        Asked { tail, since: since.map(at), release: DeploymentId::new(at(0), [0; 10]) }
    }

    #[test]
    fn the_end_of_the_log_is_shown() {
        use LogStream::{Stderr, Stdout};
        let check = |tail, since, expect: &[&str]| {
            let written = written(&[(Stdout, "a"), (Stderr, "b"), (Stdout, "c"), (Stderr, "d")]);
            let written = Written { lines: written.into(), dropped: false, begins_within: false };
            let (lines, truncated) = lines(written, asked(tail, since), &Redactor::new([]));
            assert_eq!((texts(&lines).as_slice(), truncated), (expect, false), "{tail} {since:?}");
        };
        check(10, None, &["a", "b", "c", "d"]);
        check(3, None, &["b", "c", "d"]);
        check(10, Some(2), &["c", "d"]);
        check(1, Some(9), &[]);
    }

    #[test]
    fn a_secret_that_begins_before_what_is_shown_is_hidden() {
        let written = written(&[(LogStream::Stdout, "68756e"), (LogStream::Stdout, "746572322120 done")]);
        let written = Written { lines: written.into(), dropped: false, begins_within: false };
        assert_eq!(texts(&lines(written, asked(1, None), &Redactor::new(["hunter2!"])).0), ["***20 done"]);
    }

    #[test]
    fn no_part_of_a_secret_is_shown_where_a_long_line_was_cut() {
        let secret = "SECRETVALUE0123456789";
        let redactor = Redactor::new([secret]);
        let masked = format!("{{\"a\":\"{secret}\"}}");
        for text in [
            format!("{}{}{}", masked.repeat(3), "q".repeat(16_200), secret.repeat(12)),
            secret.repeat(10_000),
            format!("{}{secret}{}", "A".repeat(16_380), "B".repeat(500)),
        ] {
            for shift in 0..secret.len() {
                for begins_within in [false, true] {
                    let room = log_lines::tail(1, &redactor).line_bytes;
                    let skipped = if begins_within { shift } else { 0 };
                    let bytes = text.as_bytes()[skipped..].iter().copied().take(room - shift).collect();
                    let line = WrittenLine { at: None, stream: LogStream::Stdout, bytes, cut: true };
                    let written = Written { lines: [line].into(), dropped: false, begins_within };
                    let (lines, truncated) = lines(written, asked(1, None), &redactor);
                    assert!(truncated);
                    for part in secret.as_bytes().windows(4) {
                        let part = str::from_utf8(part).unwrap();
                        assert!(!lines[0].text.contains(part), "{part}, cut {shift}, within {begins_within}");
                    }
                }
            }
        }
    }
}
