//! What people write on an issue to decide on its deployment.

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Of the request with this hash, or the beginning of one: as written, which may be anything.
    Approve { hash: String },
    /// For this reason: one line, without control characters, at most 500 characters.
    Reject { reason: String },
}

/// Longer ones are cut.
const MAX_REASON: usize = 500;
/// A whole hash has 64.
const MAX_HASH: usize = 80;

impl Command {
    /// The decision in a comment: a line of its own, `/approve <hash>` or `/reject <reason>`, from its first column. Not in a
    /// code fence and not in an HTML comment, where people show how it is written, or do not see it at all. None if there
    /// is more than one, since nobody can tell then which is meant.
    pub fn of(comment: &str) -> Option<Self> {
        let mut found = None;
        let mut fence: Option<Fence> = None;
        let mut is_hidden = false;
        for line in comment.lines() {
            if is_hidden {
                is_hidden = !line.contains("-->");
                continue;
            }
            match (fence, Fence::opened_by(line)) {
                (Some(open), _) => fence = Some(open).filter(|open| !open.is_closed_by(line)),
                (None, Some(opened)) => fence = Some(opened),
                (None, None) => {
                    if let Some((_, hidden)) = line.rsplit_once("<!--") {
                        is_hidden = !hidden.contains("-->");
                    } else if let Some(command) = Self::of_line(line.trim_end()) {
                        if found.is_some() {
                            return None;
                        }
                        found = Some(command);
                    }
                }
            }
        }
        found
    }

    fn of_line(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ')?;
        let rest = rest.trim();
        match word {
            "/approve" if !rest.is_empty() && rest.len() <= MAX_HASH && rest.bytes().all(|b| b.is_ascii_graphic()) => {
                Some(Self::Approve { hash: rest.to_ascii_lowercase() })
            }
            "/reject" => {
                let reason: String = rest.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
                (!reason.is_empty()).then_some(Self::Reject { reason })
            }
            _ => None,
        }
    }
}

/// A code fence that is open: of which mark, and of how many.
#[derive(Debug, Clone, Copy)]
struct Fence {
    mark: char,
    count: usize,
}

impl Fence {
    /// However far it is indented: in a list it may be, and what is taken for code by mistake decides nothing.
    fn opened_by(line: &str) -> Option<Self> {
        let line = line.trim_start();
        let mark = line.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
        let rest = line.trim_start_matches(mark);
        let count = line.len() - rest.len();
        // Marks that are closed in the same line are a code span.
        (count >= 3 && !(mark == '`' && rest.contains('`'))).then_some(Self { mark, count })
    }

    /// By a line of the same mark alone, as many as opened it or more, indented by no more than three spaces.
    fn is_closed_by(self, line: &str) -> bool {
        let marks = line.trim_end().trim_start_matches(' ');
        let indent = line.len() - line.trim_start_matches(' ').len();
        indent <= 3 && marks.len() >= self.count && marks.chars().all(|c| c == self.mark)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_decision_is_a_line_of_its_own() {
        let approve = |hash: &str| Some(Command::Approve { hash: hash.to_owned() });
        let reject = |reason: &str| Some(Command::Reject { reason: reason.to_owned() });
        for (comment, expect) in [
            ("/approve 0123456789ab", approve("0123456789ab")),
            ("Looks good.\r\n\r\n/approve 0123456789AB  \r\nThanks!", approve("0123456789ab")),
            ("/approve yes", approve("yes")),
            ("/reject not today: see #12", reject("not today: see #12")),
            ("```\ncode\n```\n/reject no", reject("no")),
            ("<!-- note --> text\n/reject no", reject("no")),
            // Not of its own, not from the first column, not complete.
            ("I would /approve 0123456789ab", None),
            (" /approve 0123456789ab", None),
            ("> /approve 0123456789ab", None),
            ("/approve", None),
            ("/approve ", None),
            ("/approve a b", None),
            ("/approved 0123456789ab", None),
            ("/Approve 0123456789ab", None),
            ("/reject", None),
            ("/reject   ", None),
            ("", None),
            // Shown, not said.
            ("```\n/approve 0123456789ab\n```", None),
            ("~~~\n```\n/approve 0123456789ab\n~~~", None),
            ("```\n/approve 0123456789ab", None),
            ("````\n```\n/approve 0123456789ab\n```\n````", None),
            ("```\n``` x\n/approve 0123456789ab\n```", None),
            ("```\n    ```\n/approve 0123456789ab\n```", None),
            ("```\n~~~\n/approve 0123456789ab\n```", None),
            ("- as in\n    ```\n/approve 0123456789ab", None),
            ("```x```\n/approve 0123456789ab", approve("0123456789ab")),
            ("```sh\nls\n`````\n/approve 0123456789ab", approve("0123456789ab")),
            ("<!--\n/approve 0123456789ab\n-->", None),
            // Two of them.
            ("/approve 0123456789ab\n/reject no", None),
            ("/approve 0123456789ab\n/approve 0123456789ab", None),
        ] {
            assert_eq!(Command::of(comment), expect, "{comment:?}");
        }
        let long = format!("/reject {}", "ä".repeat(600));
        assert_eq!(Command::of(&long), reject(&"ä".repeat(500)));
    }

    proptest! {
        #[test]
        fn no_comment_makes_the_parser_panic(text in "(/approve |/reject |```|~~~|<!--|-->|\n|\\PC){0,30}") {
            let _ = Command::of(&text);
        }
    }
}
