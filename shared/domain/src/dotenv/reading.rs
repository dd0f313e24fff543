//! From a text to keys and values.

use std::collections::BTreeMap;

use crate::{
    invalid::{FieldError, Invalid},
    parameter::Faults,
    secret::Secret,
    variable::VariableKey,
};

/// A variable of the file.
#[derive(Debug)]
pub struct Line {
    pub key: VariableKey,
    pub value: Secret<String>,
    /// Where it begins, from 1.
    pub number: usize,
}

/// Takes time in proportion to the text.
///
/// # Errors
/// Every line that is none, and every key that is there again, at `<field>[<line>]` and without what stands in it: it may be
/// a secret.
pub fn read(field: &str, text: &str) -> Result<Vec<Line>, Vec<FieldError>> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut number = 1;
    let mut lines: Vec<Line> = Vec::new();
    let mut first: BTreeMap<VariableKey, usize> = BTreeMap::new();
    let mut faults = Faults::default();
    while !rest.is_empty() {
        let (read, after) = statement(rest);
        match read {
            Ok(None) => {}
            Ok(Some((key, value))) => match first.get(&key) {
                None => {
                    first.insert(key.clone(), number);
                    lines.push(Line { key, value, number });
                }
                Some(before) => faults.add(|| duplicate(&key, *before).at(format!("{field}[{number}]"))),
            },
            Err(invalid) => faults.add(|| invalid.at(format!("{field}[{number}]"))),
        }
        number += rest[..rest.len() - after.len()].matches('\n').count();
        rest = after;
    }
    let faults = faults.told();
    if faults.is_empty() { Ok(lines) } else { Err(faults) }
}

type Statement = Option<(VariableKey, Secret<String>)>;

/// What begins here, and the text after its last line.
fn statement(text: &str) -> (Result<Statement, Invalid>, &str) {
    let (line, after) = split_line(text);
    let begun = line.trim_start_matches(BLANKS);
    if begun.is_empty() || begun.starts_with('#') {
        return (one_line(begun).map(|()| None), after);
    }
    let exported = begun.strip_prefix("export").filter(|rest| rest.starts_with(BLANKS));
    let begun = exported.map_or(begun, |rest| rest.trim_start_matches(BLANKS));
    let Some((key, _)) = begun.split_once('=') else { return (Err(no_assignment()), after) };
    // In the text, because a quoted value may go on after the line.
    let value = &text[line.len() - begun.len() + key.len() + 1..];
    let value = value.trim_start_matches(BLANKS);
    let (value, after) = match value.chars().next() {
        Some('\'') => literal(&value[1..], after),
        Some('"') => escaped(&value[1..], after),
        Some(_) | None => {
            let (line, _) = split_line(value);
            (one_line(line).map(|()| Secret::new(bare(line).to_owned())), after)
        }
    };
    let key = VariableKey::parse(key.trim_end_matches(BLANKS));
    let value = value.and_then(|value| {
        if value.expose().contains('\0') {
            let hint = "remove it: an environment cannot hold it";
            return Err(Invalid::new("format-string", "contains a NUL character", hint));
        }
        Ok(value)
    });
    (key.and_then(|key| Ok(Some((key, value?)))), after)
}

const BLANKS: [char; 2] = [' ', '\t'];

/// A line without its end, and the text after it.
fn split_line(text: &str) -> (&str, &str) {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    (line.strip_suffix('\r').unwrap_or(line), after)
}

/// What some take for the end of a line and others for a character of it. Whichever is meant, the other would put a part of
/// the file into a value or a comment.
const OTHER_BREAKS: [char; 6] = ['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];

/// Whether what is outside quotes is one line to everybody.
fn one_line(text: &str) -> Result<(), Invalid> {
    if !text.contains(OTHER_BREAKS) {
        return Ok(());
    }
    let hint = "end lines with LF or CRLF, and write a value that is to hold such a character between quotes";
    Err(Invalid::new("format-dotenv", "has a line break that is neither LF nor CRLF", hint))
}

/// Up to a comment, which begins after a blank or as the value does.
fn bare(line: &str) -> &str {
    let mut before = ' ';
    let comment = line.char_indices().find(|(_, c)| {
        let begins = *c == '#' && BLANKS.contains(&before);
        before = *c;
        begins
    });
    line[..comment.map_or(line.len(), |(at, _)| at)].trim_end_matches(BLANKS)
}

/// `next` is where to go on if the quote is never closed: with the next line, so that the faults of the others are told.
fn literal<'a>(text: &'a str, next: &'a str) -> (Result<Secret<String>, Invalid>, &'a str) {
    let Some((value, after)) = text.split_once('\'') else { return (Err(unclosed("'")), next) };
    let (end, after) = ended(after);
    (end.map(|()| Secret::new(lines_ended_by_lf(value))), after)
}

fn escaped<'a>(text: &'a str, next: &'a str) -> (Result<Secret<String>, Invalid>, &'a str) {
    let mut value = String::new();
    let mut unknown = false;
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => {
                let value = Secret::new(value);
                let (end, after) = ended(&text[at + 1..]);
                let told = if unknown { Err(unknown_escape()) } else { Ok(value) };
                return (told.and_then(|value| end.map(|()| value)), after);
            }
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(same @ ('"' | '\\' | '$' | '`')) => value.push(same),
                Some(_) | None => unknown = true,
            },
            '\r' if text[at + 1..].starts_with('\n') => {}
            other => value.push(other),
        }
    }
    drop(Secret::new(value));
    (Err(unclosed("\"")), next)
}

/// What may stand after a closing quote, and the text after its line.
fn ended(text: &str) -> (Result<(), Invalid>, &str) {
    let (line, after) = split_line(text);
    let rest = line.trim_start_matches(BLANKS);
    let is_comment = rest.starts_with('#') && rest.len() < line.len();
    if rest.is_empty() || is_comment {
        return (one_line(rest), after);
    }
    let hint = "end the line there, or write the whole value between one pair of quotes";
    (Err(Invalid::new("format-dotenv", "goes on after its closing quote", hint)), after)
}

/// A line ends the same way in a value as after it.
fn lines_ended_by_lf(text: &str) -> String {
    text.replace("\r\n", "\n")
}

fn no_assignment() -> Invalid {
    Invalid::new("format-dotenv", "is neither KEY=value nor a comment", "write KEY=value, or # before a comment")
}

fn unclosed(quote: &str) -> Invalid {
    let message = format!("opens a {quote} that is never closed");
    Invalid::new(
        "format-dotenv",
        message,
        "close it, or write a quote that is meant as it is between quotes of the other kind",
    )
}

fn unknown_escape() -> Invalid {
    let hint = r#"use one of \n \r \t \" \\ \$ \`, or single quotes, in which a backslash is one"#;
    Invalid::new("format-dotenv", "has a backslash before what it is not used for", hint)
}

fn duplicate(key: &VariableKey, line: usize) -> Invalid {
    Invalid::new("duplicate", format!("names {key} again, which line {line} does"), "name each key once")
}
