//! Expressions that somebody else wrote and that a whole text must match.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

/// Most characters of an expression.
pub const MAX_LENGTH: usize = 512;
/// Most bytes that a compiled expression may take, so that a repeated repetition costs nobody much.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// An anchored expression of the `regex` crate (linear time), at most 512 characters.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    anchored: Regex,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        // What compiles only once it stands between our brackets has closed them: `a)|(?:b` would not be anchored.
        let is_whole = text.chars().count() <= MAX_LENGTH && compiled(text).is_ok();
        let anchored = is_whole.then(|| compiled(&format!(r"\A(?:{text})\z"))).and_then(Result::ok);
        match anchored {
            Some(anchored) => Ok(Self { text: text.to_owned(), anchored }),
            None => Err(Invalid::new(
                "format-pattern",
                "is not a regular expression of at most 512 characters",
                "use the syntax of the Rust crate regex, without look-around and back-references",
            )),
        }
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.anchored.is_match(text)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

fn compiled(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(MAX_COMPILED_BYTES).build()
}

impl TryFrom<String> for Pattern {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_anchored_whatever_it_is_made_of() {
        let check = |pattern: &str, text: &str, matches: bool| {
            assert_eq!(Pattern::parse(pattern).unwrap().is_match(text), matches, "{pattern} {text}");
        };
        check(r"a|b", "a", true);
        check(r"a|b", "ab", false);
        check(r"(?m)^a$", "a", true);
        check(r"(?m)^a$", "a\nb", false);
        check(r"(?i)a", "A", true);
        check(
            r"(?x) a # the letter
            ",
            "a",
            true,
        );
        check("", "", true);
        check("", "a", false);
    }

    #[test]
    fn what_would_step_out_of_the_anchors_is_refused() {
        for pattern in ["(", "a)|(?:b", "a)|(b", r"\", "(?x)a # b", "(?=a)", r"(a)\1", "((a{100}){100}){100}"] {
            assert_eq!(Pattern::parse(pattern).map_err(|e| e.code), Err("format-pattern"), "{pattern}");
        }
        assert!(Pattern::parse(&"é".repeat(512)).is_ok());
        assert!(Pattern::parse(&"a".repeat(513)).is_err());
    }
}
