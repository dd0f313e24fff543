//! What an issue form leaves in an issue's body: `### Label`, a blank line, the value; and so on.
//!
//! Whoever writes the issue writes the body, form or no form. What is read here is therefore only ever what that person
//! asks for, and is validated like anybody's request.

use std::collections::BTreeMap;

use crate::{
    image::Version,
    invalid::{FieldError, Invalid},
    secret::Secret,
};

/// Longer bodies are refused unread. GitHub's own limit is as many characters.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// What a form leaves where a field was not filled in.
const NO_RESPONSE: &str = "_No response_";
const HEADING: &str = "### ";
const SANITISED: &str = "<!-- tidegate:sanitized -->";
const NOTE: &str = "The values of this request were taken out of the issue. Tidegate keeps them sealed.";

/// The values of a body's known fields, by name.
#[derive(Debug, Default)]
pub struct Values {
    pub given: BTreeMap<String, Secret<String>>,
    /// Fields that are there more than once.
    pub faults: Vec<FieldError>,
}

impl Values {
    /// Reads the fields of these names, in time linear in the body's length.
    ///
    /// A heading names a field if it is its name, or comes to the same once letters are in lower case and spaces and
    /// hyphens are `_`: "RS Pub Key" is `rs_pub_key`. Of a field that is there twice the first counts, and the second is a
    /// fault: one of them may have come with a value that was pasted. Sections with other headings are nobody's value.
    /// Within a code fence, which is how a form shows a field with `render`, there are no headings.
    pub fn of(body: &str, names: &[&str]) -> Self {
        let lines: Vec<&str> = body.lines().collect();
        let closings = closings(&lines);
        let mut values = Self::default();
        // The section that the line belongs to: its field, if it has one that counts, and where it begins.
        let mut section: Option<(&str, usize)> = None;
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            if let Some(heading) = heading(line) {
                values.keep(section.take(), &lines[..at]);
                if let Some(name) = named(heading, names) {
                    if values.given.contains_key(name) {
                        values.duplicate(name);
                    } else {
                        // Taken at once, so that a second one is seen even if this one is empty.
                        values.given.insert(name.to_owned(), Secret::new(String::new()));
                        section = Some((name, at + 1));
                    }
                }
            } else if let Some(ticks) = opening(line)
                && closings.get(at + 1).is_some_and(|longest| *longest >= ticks)
            {
                at += 1;
                while lines.get(at).is_some_and(|line| closing(line) < ticks) {
                    at += 1;
                }
            }
            at += 1;
        }
        values.keep(section, &lines);
        values.given.retain(|_, value| !value.expose().is_empty());
        values
    }

    fn keep(&mut self, section: Option<(&str, usize)>, until: &[&str]) {
        let Some((name, begin)) = section else { return };
        let value = value(until.get(begin..).unwrap_or_default());
        self.given.insert(name.to_owned(), Secret::new(value));
    }

    fn duplicate(&mut self, name: &str) {
        let field = format!("issue.{name}");
        if !self.faults.iter().any(|fault| fault.field == field) {
            let twice = Invalid::new(
                "duplicate",
                "is in the issue more than once",
                "give each field once; a value with lines that begin with ### has to stand in a code fence",
            );
            self.faults.push(twice.at(field));
        }
    }
}

/// The text of a line that is a heading of a form: of the third level, and not indented.
fn heading(line: &str) -> Option<&str> {
    line.strip_prefix(HEADING).map(str::trim)
}

fn named<'a>(heading: &str, names: &[&'a str]) -> Option<&'a str> {
    if let Some(name) = names.iter().find(|name| **name == heading) {
        return Some(name);
    }
    let wanted = folded(heading);
    let mut alike = names.iter().filter(|name| folded(name) == wanted);
    match (alike.next(), alike.next()) {
        (Some(name), None) => Some(name),
        // Of two names that come to the same, neither is meant for certain.
        (Some(_), Some(_)) | (None, _) => None,
    }
}

fn folded(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// How many backticks open a fence on this line.
fn opening(line: &str) -> Option<usize> {
    let rest = line.trim_start_matches('`');
    let ticks = line.len() - rest.len();
    (ticks >= 3 && !rest.contains('`')).then_some(ticks)
}

/// How many backticks the line consists of; 0 if it is anything else.
fn closing(line: &str) -> usize {
    let line = line.trim_end();
    if line.bytes().all(|b| b == b'`') { line.len() } else { 0 }
}

/// For each line the longest fence that ends there or later: a fence that nothing ends is none.
fn closings(lines: &[&str]) -> Vec<usize> {
    let mut longest = 0;
    let mut closings: Vec<usize> = lines
        .iter()
        .rev()
        .map(|line| {
            longest = longest.max(closing(line));
            longest
        })
        .collect();
    closings.reverse();
    closings
}

/// Without the blank lines around it, and without its fence if it is one fence as a whole. Empty if it was not filled in.
fn value(lines: &[&str]) -> String {
    let is_blank = |line: &&&str| line.trim().is_empty();
    let leading = lines.iter().take_while(is_blank).count();
    let trailing = lines.iter().rev().take_while(is_blank).count();
    let lines = lines.get(leading..lines.len() - trailing).unwrap_or_default();
    let inner = match lines {
        [first, inner @ .., last] => opening(first)
            .filter(|ticks| closing(last) >= *ticks && inner.iter().all(|line| closing(line) < *ticks))
            .map(|_| inner),
        _ => None,
    };
    if let Some(inner) = inner {
        return inner.join("\n");
    }
    let text = lines.join("\n");
    let text = text.trim();
    if text == NO_RESPONSE { String::new() } else { text.to_owned() }
}

/// What takes the place of a body: the version alone, if it is one. What does not look like a version is not kept, because
/// nobody knows what it is.
pub fn sanitised(version: Option<&Version>, version_field: &str) -> String {
    let kept = version.map(|version| format!("{HEADING}{version_field}\n\n{version}\n\n")).unwrap_or_default();
    format!("{kept}{NOTE}\n\n{SANITISED}")
}

/// Whether a body is one that [`sanitised`] has written, for whatever field: the marker alone, which anybody can write,
/// proves nothing.
pub fn is_sanitised(body: &str) -> bool {
    let lines: Vec<&str> = body.lines().collect();
    let rest = match lines.as_slice() {
        [heading, "", version, "", rest @ ..]
            if heading.strip_prefix(HEADING).is_some_and(|field| super::version_field(field).is_ok())
                && Version::parse(version).is_ok() =>
        {
            rest
        }
        rest => rest,
    };
    rest == [NOTE, "", SANITISED]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = ["tag", "rs_pub_key", "email", "config"];

    fn check(body: &str, expect: &[(&str, &str)], faults: &[&str]) {
        let values = Values::of(body, &NAMES);
        let given: Vec<_> = values.given.iter().map(|(name, value)| (name.as_str(), value.expose().as_str())).collect();
        assert_eq!(given, expect, "{body}");
        assert_eq!(values.faults.iter().map(|f| f.field.as_str()).collect::<Vec<_>>(), faults, "{body}");
        // As a browser sends it.
        let with_cr = Values::of(&body.replace('\n', "\r\n"), &NAMES);
        assert_eq!(
            with_cr.given.iter().map(|(n, v)| (n.as_str(), v.expose().as_str())).collect::<Vec<_>>(),
            expect,
            "with CRLF: {body}"
        );
    }

    #[test]
    fn a_form_is_read_by_its_labels() {
        check("### tag\n\nv1.2.3\n\n### E-Mail\n\na@b.example", &[("tag", "v1.2.3")], &[]);
        check("### Tag\n\nv1\n\n### RS Pub-Key\n\nabc=\n", &[("rs_pub_key", "abc="), ("tag", "v1")], &[]);
        check("### tag\n\n_No response_\n\n### email\n\n\n\n", &[], &[]);
        check(
            "### config\n\n```text\n{\n  \"a\": 1\n}\n```\n\n### tag\n\nv1",
            &[("config", "{\n  \"a\": 1\n}"), ("tag", "v1")],
            &[],
        );
        check(
            "### config\n\n```\n### tag\n\nv9\n```\n\n### tag\n\nv1",
            &[("config", "### tag\n\nv9"), ("tag", "v1")],
            &[],
        );
        check("### config\n\n````json\n```\nx\n```\n````", &[("config", "```\nx\n```")], &[]);
        check("### config\n\na\n\n```\nb\n```", &[("config", "a\n\n```\nb\n```")], &[]);
        check("before\n### tag\nv1\n### Notes\n\nwhatever\n\n- [x] read", &[("tag", "v1")], &[]);
        check("", &[], &[]);
        check("#### tag\n\nv1\n\n ### tag\n\nv2\n\n###tag\n\nv3", &[], &[]);
    }

    #[test]
    fn of_a_field_that_is_there_twice_the_first_counts_and_the_second_is_a_fault() {
        check("### tag\n\nv1\n\n### tag\n\nv2\n\n### TAG\n\nv3", &[("tag", "v1")], &["issue.tag"]);
        check("### email\n\na\n### tag\nv9\n\n### tag\n\nv1", &[("email", "a"), ("tag", "v9")], &["issue.tag"]);
        check("### tag\n\n### tag\n\nv2", &[], &["issue.tag"]);
    }

    #[test]
    fn a_fence_that_nothing_ends_is_none() {
        check("### email\n\n```\nx\n\n### tag\n\nv1", &[("email", "```\nx"), ("tag", "v1")], &[]);
        check("### email\n\n````\nx\n```\n\n### tag\n\nv1", &[("email", "````\nx\n```"), ("tag", "v1")], &[]);
    }

    #[test]
    fn of_names_that_come_to_the_same_only_the_exact_one_is_meant() {
        let read = |body: &str| Values::of(body, &["API_URL", "api_url"]).given.into_keys().collect::<Vec<_>>();
        assert_eq!(read("### api_url\n\nx"), ["api_url"]);
        assert_eq!(read("### API_URL\n\nx"), ["API_URL"]);
        assert!(read("### Api URL\n\nx").is_empty());
    }

    #[test]
    fn what_was_sanitised_is_known_and_the_marker_alone_is_not_enough() {
        let version = Version::parse("v1.2.3").unwrap();
        for body in [sanitised(Some(&version), "tag"), sanitised(None, "tag")] {
            assert!(is_sanitised(&body), "{body}");
            assert!(is_sanitised(&body.replace('\n', "\r\n")), "{body}");
            assert!(!is_sanitised(&format!("{body}\n\n### email\n\na@b.example")));
            assert!(!is_sanitised(&format!("### email\n\na@b.example\n\n{body}")));
            assert!(!is_sanitised(&body.replace(SANITISED, "")));
        }
        assert!(!is_sanitised(SANITISED));
        assert!(sanitised(Some(&version), "tag").starts_with("### tag\n\nv1.2.3\n\n"));
    }

    proptest! {
        #[test]
        fn any_body_is_read_and_a_sanitised_one_gives_nothing_but_its_version(
            parts in proptest::collection::vec(prop_oneof![
                Just("### tag\n".to_owned()), Just("### email\n".to_owned()), Just("```\n".to_owned()),
                Just("````text\n".to_owned()), Just("\n".to_owned()), "[ -~]{0,12}\n", "\\PC{0,12}",
            ], 0..40)
        ) {
            let body: String = parts.concat();
            let values = Values::of(&body, &NAMES);
            for value in values.given.values() {
                prop_assert!(!value.expose().is_empty());
            }
            let version = values.given.get("tag").and_then(|value| Version::parse(value.expose()).ok());
            let clean = sanitised(version.as_ref(), "tag");
            prop_assert!(is_sanitised(&clean));
            let again = Values::of(&clean, &["email", "config"]);
            prop_assert!(again.given.is_empty() && again.faults.is_empty());
        }
    }
}
