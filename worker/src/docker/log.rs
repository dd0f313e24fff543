//! What a container has written, line by line.

use std::collections::VecDeque;

use bollard::{
    container::LogOutput,
    query_parameters::{InspectContainerOptions, LogsOptionsBuilder},
};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use tidegate_domain::task::LogStream;

use super::{Engine, Error, QUICK, within};

/// As the engine writes a line's time before it: always with nine digits.
const STAMP: usize = "2026-11-22T10:00:00.000000000Z".len();
/// Most bytes of a line that the engine keeps as one.
const ENTRY: usize = 16 * 1024;
/// Kept of all lines together: the newest.
const MAX_BYTES: usize = 512 * 1024;

/// Which part of a log.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    pub lines: usize,
    /// Where the lines have no times, older ones are left out here.
    pub since: Option<Timestamp>,
    /// Of a longer line only the beginning is kept.
    pub line_bytes: usize,
}

/// What was read, oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub lines: VecDeque<WrittenLine>,
    /// There was no room for more, so the oldest lines are missing.
    pub dropped: bool,
    /// The oldest line of either stream may be the rest of a longer one.
    pub begins_within: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct WrittenLine {
    pub at: Option<Timestamp>,
    pub stream: LogStream,
    /// Without the line's end.
    pub bytes: Vec<u8>,
    /// It was longer.
    pub cut: bool,
}

impl Engine {
    /// The end of both streams in the order they were written, nothing taken out yet. None: the container's log driver,
    /// which is named, keeps nothing that can be read.
    pub async fn written(&self, id: &str, tail: Tail) -> Result<Result<Written, String>, Error> {
        let inspected = within(QUICK, self.docker.inspect_container(id, None::<InspectContainerOptions>)).await?;
        let has_terminal = inspected.config.and_then(|config| config.tty) == Some(true);
        let driver = inspected.host_config.and_then(|config| config.log_config).and_then(|log| log.typ);
        let mut options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&tail.lines.to_string());
        if has_terminal {
            // Its log is one stream of bytes, in which a time in the middle of a long line could not be told from text.
            let seconds = tail.since.and_then(|since| i32::try_from(since.as_second()).ok());
            options = options.since(seconds.unwrap_or(0));
        } else {
            options = options.timestamps(true);
        }
        let mut stream = self.docker.logs(id, Some(options.build()));
        let mut reader = Reader::new(tail.line_bytes, MAX_BYTES);
        loop {
            match within(QUICK, async { stream.next().await.transpose() }).await {
                Ok(Some(LogOutput::StdErr { message })) => reader.frame(LogStream::Stderr, &message),
                Ok(Some(LogOutput::StdOut { message })) => reader.frame(LogStream::Stdout, &message),
                Ok(Some(LogOutput::Console { message } | LogOutput::StdIn { message })) => reader.raw(&message),
                Ok(None) => {
                    let since_within = has_terminal && tail.since.is_some();
                    let filled = reader.entries() >= tail.lines;
                    let mut written = reader.end();
                    written.begins_within = since_within || filled || written.dropped;
                    return Ok(Ok(written));
                }
                Err(Error::Refused { message, .. }) if message.contains("does not support reading") => {
                    return Ok(Err(driver.unwrap_or_default()));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Puts together what comes in pieces: a line longer than 16 KiB comes in several, each with a time of its own, and those of
/// the two streams come mixed.
struct Reader {
    written: Written,
    bytes: usize,
    /// Begun, and not ended.
    open: [Option<WrittenLine>; 2],
    line_bytes: usize,
    max_bytes: usize,
    /// Of the engine's messages, and of a terminal's bytes.
    ends: usize,
    received: usize,
}

impl Reader {
    fn new(line_bytes: usize, max_bytes: usize) -> Self {
        Self { written: Written::default(), bytes: 0, open: [None, None], line_bytes, max_bytes, ends: 0, received: 0 }
    }

    /// At most so many entries of the engine's, which are what it counts for the tail: it cuts a longer line every 16 KiB.
    fn entries(&self) -> usize {
        self.ends + self.received / ENTRY + self.open.len()
    }

    /// One message of the engine's: a line or a part of one, after its time.
    fn frame(&mut self, stream: LogStream, message: &[u8]) {
        let stamp = message.get(..STAMP).and_then(|text| str::from_utf8(text).ok()).and_then(|text| text.parse().ok());
        match stamp {
            Some(at) => {
                let text = &message[STAMP..];
                self.text(stream, Some(at), text.strip_prefix(b" ").unwrap_or(text));
            }
            None => self.text(stream, None, message),
        }
    }

    /// Bytes of a terminal.
    fn raw(&mut self, bytes: &[u8]) {
        self.text(LogStream::Stdout, None, bytes);
    }

    fn text(&mut self, stream: LogStream, at: Option<Timestamp>, text: &[u8]) {
        self.received += text.len();
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            let open = &mut self.open[stream as usize];
            let line = open.get_or_insert_with(|| WrittenLine { at, stream, bytes: Vec::new(), cut: false });
            let content = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = self.line_bytes.saturating_sub(line.bytes.len());
            line.cut |= content.len() > room;
            line.bytes.extend_from_slice(&content[..content.len().min(room)]);
            self.ends += usize::from(content.len() < piece.len());
            if content.len() < piece.len()
                && let Some(line) = open.take()
            {
                self.close(line);
            }
        }
    }

    fn close(&mut self, mut line: WrittenLine) {
        if line.bytes.last() == Some(&b'\r') {
            line.bytes.pop();
        }
        self.bytes += line.bytes.len();
        self.written.lines.push_back(line);
        while self.bytes > self.max_bytes && self.written.lines.len() > 1 {
            let oldest = self.written.lines.pop_front();
            self.bytes -= oldest.map_or(0, |line| line.bytes.len());
            self.written.dropped = true;
        }
    }

    fn end(mut self) -> Written {
        for line in std::mem::take(&mut self.open).into_iter().flatten() {
            self.close(line);
        }
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-22T10:00:00.000000001Z";

    fn shown(written: &Written) -> Vec<(LogStream, String, bool)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        written.lines.iter().map(|line| (line.stream, text(&line.bytes), line.cut)).collect()
    }

    #[test]
    fn pieces_of_a_line_are_put_together_without_their_times() {
        let mut reader = Reader::new(100, 1_000);
        let mut frame = |stream, text: &str| reader.frame(stream, format!("{AT} {text}").as_bytes());
        frame(LogStream::Stdout, "one\n");
        frame(LogStream::Stdout, "two, first half, ");
        frame(LogStream::Stderr, "between\n");
        frame(LogStream::Stdout, "second half\r\n");
        frame(LogStream::Stdout, "\n");
        frame(LogStream::Stderr, "no end");
        let written = reader.end();
        let expected = [
            (LogStream::Stdout, "one"),
            (LogStream::Stderr, "between"),
            (LogStream::Stdout, "two, first half, second half"),
            (LogStream::Stdout, ""),
            (LogStream::Stderr, "no end"),
        ];
        assert_eq!(shown(&written), expected.map(|(stream, text)| (stream, text.to_owned(), false)));
        assert!(written.lines.iter().all(|line| line.at == Some(AT.parse().unwrap())));
    }

    #[test]
    fn a_terminal_has_no_times() {
        let mut reader = Reader::new(100, 1_000);
        reader.raw(b"one\r\nt");
        reader.raw(b"wo\r\n");
        // As a program may write it itself.
        reader.raw(format!("{AT} three").as_bytes());
        let written = reader.end();
        let expected = ["one".to_owned(), "two".to_owned(), format!("{AT} three")];
        assert_eq!(shown(&written), expected.map(|text| (LogStream::Stdout, text, false)));
        assert!(written.lines.iter().all(|line| line.at.is_none()));
    }

    #[test]
    fn as_many_entries_are_counted_as_the_engine_may_have_made() {
        let mut reader = Reader::new(10, 25);
        reader.raw(b"one\ntwo\n");
        assert_eq!(reader.entries(), 4);
        reader.raw(&vec![b'x'; 2 * ENTRY]);
        assert_eq!(reader.entries(), 6);
    }

    #[test]
    fn what_has_no_room_goes() {
        let mut reader = Reader::new(10, 25);
        for text in ["0123456789", "0123456789ab", "0123456789", "c"] {
            reader.frame(LogStream::Stdout, format!("{AT} {text}\n").as_bytes());
        }
        let written = reader.end();
        assert!(written.dropped);
        let expected = [("0123456789", true), ("0123456789", false), ("c", false)];
        assert_eq!(shown(&written), expected.map(|(text, cut)| (LogStream::Stdout, text.to_owned(), cut)));
    }
}
