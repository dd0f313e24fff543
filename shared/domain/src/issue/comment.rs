//! What is said on issues. One comment for each subject and deployment: it carries a hidden marker, by which it is found
//! again, so that saying something twice changes the comment and never adds another.
//!
//! Nothing that others wrote becomes markup: names stand in code spans, and words go through [`escaped`]. No value of a
//! request is ever in a comment.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::IssueRef;
use crate::{
    approval::{Approval, ContentHash, Decision},
    assignment::Running,
    deployment::{Deployment, Status},
    invalid::FieldError,
    text::fits_a_line,
};

/// A comment with the marker that it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// Stands alone in the body's last line.
    pub marker: String,
    pub body: String,
}

/// So many of a list are told, and no more than GitHub takes with what stands around them: 65,536 characters in all.
const MAX_FAULTS: usize = 100;
const MAX_LIST_BYTES: usize = 60_000;
/// Of one text of somebody else's.
const MAX_WORDS: usize = 500;

const MARKER: &str = "<!-- tidegate:";
const MARKER_END: &str = "-->";

/// Whether a comment's last line is a marker of ours. Anybody can write one: it tells our comments from others of the same
/// account, and of nobody else.
pub fn is_marked(body: &str) -> bool {
    let last = body.trim_end().lines().next_back().unwrap_or_default();
    last.starts_with(MARKER) && last.ends_with(MARKER_END)
}

impl Comment {
    fn new(subject: &str, id: &str, text: &str) -> Self {
        let marker = format!("{MARKER}{subject} {id} {MARKER_END}");
        Self { body: format!("{}\n\n{marker}", text.trim_end()), marker }
    }

    /// Whether a comment's text is this comment, in whatever state.
    pub fn is_in(&self, body: &str) -> bool {
        body.lines().any(|line| line.trim_end() == self.marker)
    }

    /// A request that was refused, with every fault. `id` tells apart what an issue asks of: its next refusal takes the place
    /// of this one.
    pub fn rejection(id: &str, faults: &[FieldError]) -> Self {
        let mut text = "**Rejected.** Nothing was deployed. Mend these, and fill in the whole form again, in this issue or in a new one:\n\n"
                .to_owned();
        list(&mut text, faults, |FieldError { field, invalid }| {
            let (message, suggestion) = (escaped(&invalid.message), escaped(&invalid.suggestion));
            format!("{} ({}): {message}. Hint: {suggestion}.", code(field), code(invalid.code))
        });
        Self::new("result", id, &text)
    }

    /// A request that was refused as a whole: `rate-limited`, `permission-denied`, `queue-full`.
    pub fn refusal(id: &str, reason: &str, detail: &str) -> Self {
        let text = format!("**Rejected** ({}). Nothing was deployed. {}", code(reason), escaped(detail));
        Self::new("result", id, &text)
    }

    /// Asks the repository's owner to decide. `console_url` has no slash at its end.
    pub fn approval_request(deployment: &Deployment, approval: &Approval, issue: &IssueRef, console_url: &str) -> Self {
        let (id, short) = (deployment.id, approval.hash.short());
        let version =
            deployment.version.as_ref().map_or_else(String::new, |version| format!(" {}", code(&version.to_string())));
        let mut text = format!(
            "@{} Deploying{version} of {} needs your decision, because:\n\n",
            issue.repository.owner(),
            code(&deployment.application_name)
        );
        list(&mut text, &approval.reasons, |reason| format!("{}: {}", code(&reason.field), escaped(&reason.message)));
        let _ = write!(
            text,
            "\nThe values can be seen in the console: {console_url}/approvals/{id}\n\n\
             Decide there, or write a comment with one of these lines, until {}:\n\n\
             ```\n/approve {short}\n```\n```\n/reject <reason>\n```\n\n\
             Who has `admin` on this repository can decide. GitHub keeps the edit history of an issue: what must not be \
             seen belongs into a private repository, or into the console's form.",
            time(approval.expires_at)
        );
        Self::new("approval", &id.to_string(), &text)
    }

    /// How a deployment stands: queued, or how it ended.
    pub fn result(deployment: &Deployment) -> Self {
        let version = deployment.version.as_ref().map_or_else(|| "it".to_owned(), |version| code(&version.to_string()));
        let of = format!("{version} of {}", code(&deployment.application_name));
        let runs = |running: Running| match running {
            Running::Previous => "What ran before runs again.",
            Running::New => "The new version runs all the same.",
            Running::Mixed => "What runs now is not the same on every host, or not known.",
            Running::None => "Nothing runs now.",
        };
        let head = match &deployment.status {
            Status::AwaitingApproval => format!("**Waiting for approval:** {of}."),
            Status::Queued => format!("**Queued:** {of}."),
            Status::Running => format!("**Running:** {of} is being deployed."),
            Status::Succeeded => format!("**Succeeded:** {of} runs on every host."),
            Status::Failed { running } => format!("**Failed:** {of}. {}", runs(*running)),
            Status::RolledBack => format!("**Rolled back:** {of} did not work. Every host is back on what ran before."),
            Status::Cancelled { running } => format!("**Cancelled:** {of}. {}", runs(*running)),
            Status::Superseded { .. } => format!("**Superseded:** a later deployment took the place of {of}."),
            Status::Rejected { reason } => format!("**Rejected** ({}): {of}. Nothing was deployed.", code(reason)),
            Status::Denied => format!("**Denied:** {of} was not approved."),
            Status::TimedOut => {
                format!("**Timed out:** nobody decided on {of} in time. Open a new issue to ask again.")
            }
        };
        let mut text = head;
        if let Some(decision) = deployment.approval.as_ref().and_then(|approval| approval.decision.as_ref()) {
            let _ = write!(text, "\n\nDecision: {}.", verdict(decision));
            if let Some(comment) = &decision.comment {
                let _ = write!(text, " {}", escaped(comment));
            }
        }
        // The error's own words may hold what a container printed.
        if let Some(error) = deployment.error() {
            let _ = write!(text, "\n\nError: {}. {}", code(error.code.as_str()), escaped(&error.suggestion));
        }
        let _ = write!(text, "\n\nDeployment {}", code(&deployment.id.to_string()));
        Self::new("result", &deployment.id.to_string(), &text)
    }

    /// Takes the place of what asked for a decision, once none is needed any more.
    pub fn approval_closed(deployment: &Deployment, approval: &Approval) -> Self {
        let text = match &approval.decision {
            Some(decision) => format!("Decided: {}.", verdict(decision)),
            None => "Nothing has to be decided any more.".to_owned(),
        };
        Self::new("approval", &deployment.id.to_string(), &text)
    }

    /// Says why a decision that somebody wrote as a comment counts for nothing: one comment for each of them.
    pub fn undecided(login: &str, why: Undecided<'_>) -> Self {
        let why = match why {
            Undecided::OtherHash(hash) => format!(
                "That is not the request that waits, or it has changed meanwhile. What waits is `{short}`; look at it in \
                 the console, and approve it with `/approve {short}`.",
                short = hash.short()
            ),
            Undecided::NotPermitted(why) => escaped(why),
            Undecided::Invalid(faults) => {
                let faults: Vec<_> = faults
                    .iter()
                    .take(MAX_FAULTS)
                    .map(|f| format!("{} ({})", code(&f.field), code(f.invalid.code)))
                    .collect();
                format!("The application does not allow it any more as it is: {}.", faults.join(", "))
            }
            Undecided::AskerNotPermitted => format!(
                "{}: whoever asked for this may not ask for it any more. It goes on waiting until its time is over.",
                code("permission-denied")
            ),
            Undecided::NothingWaits => "Nothing of this issue waits for a decision.".to_owned(),
            Undecided::TooLate => "The time for this decision is over.".to_owned(),
        };
        Self::new("answer", &code(login).replace('`', ""), &format!("{}: {why}", code(login)))
    }
}

/// Why a decision counts for nothing.
#[derive(Debug, Clone, Copy)]
pub enum Undecided<'a> {
    /// It names another request than this one, which waits.
    OtherHash(&'a ContentHash),
    NotPermitted(&'a str),
    /// Not the decision: the request is of somebody who may not ask any more.
    AskerNotPermitted,
    /// What waits could not be deployed now.
    Invalid(&'a [FieldError]),
    NothingWaits,
    TooLate,
}

/// One line for each, as many as there is room for; the rest is counted.
fn list<T>(text: &mut String, items: &[T], line: impl Fn(&T) -> String) {
    for (listed, item) in items.iter().enumerate() {
        let line = line(item);
        if listed == MAX_FAULTS || text.len() + line.len() > MAX_LIST_BYTES {
            let _ = writeln!(text, "- and {} more.", items.len() - listed);
            return;
        }
        let _ = writeln!(text, "- {line}");
    }
}

fn verdict(decision: &Decision) -> String {
    let verdict = decision.verdict.as_str().replace('_', " ");
    format!("{verdict} by {} at {}", code(&decision.by), time(decision.at))
}

/// `2026-11-22 16:04 UTC`
fn time(at: Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// A code span, in which GitHub sees neither markup nor mentions. In one line, and without what could end it.
fn code(text: &str) -> String {
    let text: String = text.chars().map(|c| if c == '`' || !is_plain(c) { ' ' } else { c }).take(MAX_WORDS).collect();
    let text = text.trim();
    if text.is_empty() { "` `".to_owned() } else { format!("`{text}`") }
}

fn is_plain(c: char) -> bool {
    fits_a_line(c) && !matches!(c, '\u{200c}' | '\u{200d}')
}

/// Words of somebody else, or of ours that quote a configuration: in one line, without markup, links, references and
/// mentions, for which GitHub looks after it has undone every escape. What it would find is cut in two by a space of no
/// width.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars().map(|c| if is_plain(c) { c } else { ' ' }).take(MAX_WORDS) {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' => out.push_str("@\u{200b}"),
            '#' => out.push_str("\\#\u{200b}"),
            // `GH-1`, and list items.
            '-' => out.push_str("\\-\u{200b}"),
            ':' => out.push_str(":\u{200b}"),
            // `www.…`, and `1.` at the beginning of a line.
            '.' if before.is_ascii_alphanumeric() => out.push_str(".\u{200b}"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '+' | '!' | '|' | '~' | '$' | '=' => {
                out.push('\\');
                out.push(c);
            }
            // A text that looks like a commit is linked to it.
            _ if c.is_ascii_hexdigit() && before.is_ascii_hexdigit() && ends_in_hex(&out) => {
                out.push('\u{200b}');
                out.push(c);
            }
            _ => out.push(c),
        }
        before = c;
    }
    out.trim().to_owned()
}

/// Whether the last six characters are hexadecimal digits: with a seventh they could name a commit.
fn ends_in_hex(text: &str) -> bool {
    let last: Vec<char> = text.chars().rev().take(6).collect();
    last.len() == 6 && last.iter().all(char::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests;
