//! Lines that a container has written, as they may be shown: without secrets, and without what steers a terminal.

use std::collections::BTreeMap;

use tidegate_domain::task::{LogLine, LogStream};

use crate::{
    docker::{Tail, WrittenLine},
    redact::{Cut, Redactor, printable},
};

/// Most bytes of a line that are shown.
pub(crate) const LINE_BYTES: usize = 16 * 1024;
/// So many lines more are read than are shown: a secret that begins before the first of them is seen as a whole.
const CONTEXT: usize = 64;

/// What has to be read for the newest `lines`.
pub(crate) fn tail(lines: usize, redactor: &Redactor) -> Tail {
    Tail {
        lines: lines + CONTEXT,
        since: None,
        // So that what is cut off below tells whether the cut goes through a secret.
        line_bytes: LINE_BYTES + redactor.longest(),
    }
}

/// In their order, each with whether anything of it is missing. Neither a secret is left nor what a cut has left of one;
/// the oldest line of either stream may be cut too where the log `begins_within` one.
///
/// What steers a terminal goes before secrets are looked for: what it stands in the middle of may be one.
pub(crate) fn hidden(
    written: impl IntoIterator<Item = WrittenLine>,
    begins_within: bool,
    redactor: &Redactor,
) -> Vec<(LogLine, bool)> {
    let mut streams: BTreeMap<LogStream, (Vec<String>, Vec<Cut>)> = BTreeMap::new();
    let mut order = Vec::new();
    for line in written {
        let (texts, cuts) = streams.entry(line.stream).or_default();
        let cut = Cut { start: begins_within && texts.is_empty(), end: line.cut };
        texts.push(printable(&String::from_utf8_lossy(&line.bytes)));
        cuts.push(cut);
        order.push((line.at, line.stream, cut.start || cut.end));
    }
    // Each stream by itself: a line of the other one in between breaks no secret.
    let mut hidden: BTreeMap<_, _> = streams
        .into_iter()
        .map(|(stream, (texts, cuts))| (stream, redactor.apply_to_cut_lines(&texts, &cuts).into_iter()))
        .collect();
    let shown = order.into_iter().map(|(at, stream, cut)| {
        let text = hidden.get_mut(&stream).and_then(Iterator::next).unwrap_or_default();
        let end = text.floor_char_boundary(LINE_BYTES);
        let line = LogLine { at, stream, text: text[..end].to_owned() };
        (line, cut || end < text.len())
    });
    shown.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use jiff::Timestamp;

    use super::*;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) fn written(lines: &[(LogStream, &str)]) -> Vec<WrittenLine> {
        let line = |(index, (stream, text)): (usize, &(LogStream, &str))| WrittenLine {
            at: Some(at(i64::try_from(index).unwrap())),
            stream: *stream,
            bytes: text.as_bytes().to_vec(),
            cut: false,
        };
        lines.iter().enumerate().map(line).collect()
    }

    pub(crate) fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn a_secret_is_hidden_across_lines_and_between_control_characters() {
        use LogStream::{Stderr, Stdout};
        let check = |secret: &str, lines: &[(LogStream, &str)], expect: &[&str]| {
            let hidden = hidden(written(lines), false, &Redactor::new([secret]));
            let shown: Vec<_> = hidden.iter().map(|(line, _)| line.text.as_str()).collect();
            assert_eq!(shown, expect, "{secret:?}");
        };
        check(
            "hunter2!",
            &[
                (Stdout, "68756e"),
                (Stderr, "between"),
                (Stdout, "74657232"),
                (Stdout, "21 done"),
                (Stderr, "hun\u{1b}[0ter2!"),
                (Stderr, "hunt\u{7}er2!"),
                (Stderr, "a\tb"),
            ],
            &["***", "between", "***", "*** done", "hun[0ter2!", "***", "a\tb"],
        );
        check("hunter2!", &[(Stdout, "hun\u{7}"), (Stdout, "\u{1}ter2!")], &["***", "***"]);
        // It has some of its own.
        check("hun\u{7}ter2!", &[(Stdout, "x hun\u{7}ter2!")], &["x ***"]);
        check("hun\u{85}ter2!", &[(Stdout, "x hun\u{85}ter2!")], &["x ***"]);
        check("hun\tter2!", &[(Stdout, "x hun\tter2!")], &["x ***"]);
        check("first\r\nsecond\u{1b}x", &[(Stdout, "first"), (Stdout, "second\u{1b}x")], &["***", "***"]);
    }

    #[test]
    fn a_long_line_is_cut_and_never_through_a_secret() {
        let secret = "0123456789abcdef0123456789abcdef";
        let redactor = Redactor::new([secret]);
        let text = format!("{}{secret}{}", "x".repeat(LINE_BYTES - 10), "y".repeat(LINE_BYTES));
        let lines = hidden(written(&[(LogStream::Stdout, &text)]), false, &redactor);
        let [(line, true)] = lines.as_slice() else { panic!("{}", lines.len()) };
        assert_eq!(line.text.len(), LINE_BYTES);
        assert!(line.text.ends_with("x***yyyyyyy"), "{}", &line.text[LINE_BYTES - 20..]);
    }
}
