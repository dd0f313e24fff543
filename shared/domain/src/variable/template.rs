//! How a stored value refers to other variables: `{{NAME}}` takes from the merged set, `{{env.NAME}}` from the environment
//! alone, and `{{{{` stands for `{{`.

use std::fmt;

use super::VariableKey;
use crate::invalid::Invalid;

const OPENING: &str = "{{";
const CLOSING: &str = "}}";
const ESCAPED: &str = "{{{{";
const OF_ENVIRONMENT: &str = "env.";
/// Longer than the longest name with its prefix: so far a closing is looked for.
const LONGEST: usize = 140;

/// Where a reference looks for its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// What the container gets: of each key the strongest layer's.
    Merged,
    /// The environment's own, also where a stronger layer hides it.
    Environment,
}

/// What stands between the braces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    pub space: Space,
    pub key: VariableKey,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.space {
            Space::Merged => self.key.fmt(f),
            Space::Environment => write!(f, "{OF_ENVIRONMENT}{}", self.key),
        }
    }
}

pub enum Piece<'a> {
    Literal(&'a str),
    Reference(Reference),
}

/// A written value in its pieces. It cannot be printed: the value may be a secret.
pub struct Template<'a> {
    pieces: Vec<Piece<'a>>,
}

impl<'a> Template<'a> {
    /// Takes time in proportion to the text.
    ///
    /// # Errors
    /// An opening that no name and closing follow. The value is not repeated.
    pub fn parse(text: &'a str) -> Result<Self, Invalid> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(OPENING) {
            let (piece, after) = if let Some(after) = rest[at..].strip_prefix(ESCAPED) {
                // Half of the escape is what it stands for.
                (Piece::Literal(&rest[..at + OPENING.len()]), after)
            } else {
                pieces.push(Piece::Literal(&rest[..at]));
                let (reference, after) = named(&rest[at + OPENING.len()..]).ok_or_else(not_a_reference)?;
                (Piece::Reference(reference), after)
            };
            pieces.push(piece);
            rest = after;
        }
        pieces.push(Piece::Literal(rest));
        Ok(Self { pieces })
    }

    pub fn pieces(&self) -> &[Piece<'a>] {
        &self.pieces
    }

    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Reference(reference) => Some(reference),
        })
    }

    /// Whether it refers to nothing.
    pub fn is_literal(&self) -> bool {
        self.references().next().is_none()
    }
}

/// What the text after an opening names, and the text after its closing.
fn named(text: &str) -> Option<(Reference, &str)> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
    let length = text.bytes().take(LONGEST).take_while(|b| is_name(*b)).count();
    let after = text[length..].strip_prefix(CLOSING)?;
    let (space, name) = match text[..length].strip_prefix(OF_ENVIRONMENT) {
        Some(name) => (Space::Environment, name),
        None => (Space::Merged, &text[..length]),
    };
    let key = VariableKey::parse(name).ok()?;
    Some((Reference { space, key }, after))
}

fn not_a_reference() -> Invalid {
    Invalid::new(
        "format-template",
        "has an opening {{ that is not followed by a name and }}",
        "write {{NAME}} or {{env.NAME}} without blanks, or {{{{ for two braces that are meant as they are",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// References in angle brackets.
    fn shown(text: &str) -> Option<String> {
        let template = Template::parse(text).ok()?;
        let show = |piece: &Piece<'_>| match piece {
            Piece::Literal(text) => (*text).to_owned(),
            Piece::Reference(reference) => format!("<{reference}>"),
        };
        Some(template.pieces().iter().map(show).collect())
    }

    #[test]
    fn references_and_escapes_are_told_from_text() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(shown(text).as_deref(), expect, "{text}");
        check("", Some(""));
        check("a{b}c}}", Some("a{b}c}}"));
        check("{{A}}", Some("<A>"));
        check("{{A}}{{env.B_1}}", Some("<A><env.B_1>"));
        check("http://{{HOST}}:{{env.PORT}}/", Some("http://<HOST>:<env.PORT>/"));
        check("{{{{A}}", Some("{{A}}"));
        check("{{{{{A}}", Some("{{{A}}"));
        check("{{{{{{A}}", Some("{{<A>"));
        check("{{{{{{{{", Some("{{{{"));
        check("é{{A}}é", Some("é<A>é"));
        check(&format!("{{{{{}}}}}", "A".repeat(128)), Some(&format!("<{}>", "A".repeat(128))));
        for wrong in ["{{", "{{}}", "{{ A }}", "{{1}}", "{{{A}}", "{{A}", "{{env.}}", "{{env.A.B}}", "{{a.B}}", "{{é}}"]
        {
            check(wrong, None);
        }
        check(&format!("{{{{{}}}}}", "A".repeat(129)), None);
    }

    proptest! {
        #[test]
        fn any_text_can_be_written_so_that_it_stands_for_itself(text in r"[{}aE.é_]{0,40}") {
            prop_assert_eq!(shown(&text.replace("{{", "{{{{")), Some(text));
        }

        #[test]
        fn no_text_is_too_strange(text in r"(\{\{|\}\}|\{|\}|env\.|[A-Z_.]|\PC){0,60}") {
            let _ = shown(&text);
        }
    }
}
