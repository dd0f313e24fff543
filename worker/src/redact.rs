//! Takes a job's secrets out of whatever a container or Docker says about it.
//!
//! A value of four bytes or more is found anywhere: as it is, JSON-escaped, URL-encoded, in hexadecimal and inside longer
//! base64 text. A shorter one would be found in every second word, so it counts only where it stands alone between
//! characters that are neither letters nor digits. The lines of a value of several lines count on their own from six
//! bytes on, because logs are cut at line ends.

use std::{collections::BTreeSet, ops::Range, sync::OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use tidegate_domain::secret::Secret;

/// What stands in the place of a secret.
pub const MASK: &str = "***";
/// Shorter values are replaced only where they stand alone.
const MIN_ANYWHERE: usize = 4;
/// Shorter lines of a value of several lines are not looked for.
const MIN_LINE: usize = 6;

/// The secrets of one job. It holds copies of them for as long as the job runs, like the container's environment does.
///
/// What it looks for is built when there is first something to look into: a deployment that goes well never needs it.
pub struct Redactor {
    secrets: Vec<Secret<String>>,
    built: OnceLock<Built>,
}

struct Built {
    anywhere: Option<AhoCorasick>,
    /// By the automaton's pattern number.
    edges: Vec<Edges>,
    alone: Vec<Secret<String>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

/// Whether the base64 digit beside a match still holds some bits of the secret, and is to go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Edges {
    left: bool,
    right: bool,
}

impl Redactor {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let secrets = secrets.into_iter().map(|secret| Secret::new(secret.to_owned())).collect();
        Self { secrets, built: OnceLock::new() }
    }

    /// The text with every secret replaced. Overlapping ones become one mask, so that none of them shows a rest.
    pub fn apply(&self, text: &str) -> String {
        self.built.get_or_init(|| Built::new(self.secrets.iter().map(|secret| secret.expose().as_str()))).apply(text)
    }
}

impl Built {
    fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut forms = BTreeSet::new();
        let mut alone = Vec::new();
        for secret in secrets {
            if secret.len() >= MIN_ANYWHERE {
                add_forms(secret, &mut forms);
            } else if !secret.trim().is_empty() {
                alone.push(Secret::new(secret.to_owned()));
            }
        }
        // A set of patterns beyond the automaton's limits (2^31 states) cannot come out of a job's 128 KiB of variables.
        // Of the kinds of automaton this is the one whose building time is linear in the patterns, whatever they are: a DFA
        // takes the square of it for a long value that repeats itself.
        let anywhere = (!forms.is_empty()).then(|| {
            AhoCorasick::builder()
                .kind(Some(AhoCorasickKind::NoncontiguousNFA))
                .build(forms.iter().map(|(text, _)| text))
                .expect("a job's secrets fit an automaton")
        });
        Self { anywhere, edges: forms.into_iter().map(|(_, edges)| edges).collect(), alone }
    }

    fn apply(&self, text: &str) -> String {
        let mut found: Vec<Range<usize>> = Vec::new();
        if let Some(anywhere) = &self.anywhere {
            for hit in anywhere.find_overlapping_iter(text) {
                found.push(self.edges[hit.pattern().as_usize()].widen(text.as_bytes(), hit.range()));
            }
        }
        for secret in &self.alone {
            let hits = text.match_indices(secret.expose().as_str());
            found.extend(hits.map(|(at, hit)| at..at + hit.len()).filter(|range| stands_alone(text, range)));
        }
        found.sort_by_key(|range| range.start);
        let mut redacted = String::with_capacity(text.len());
        let mut done = 0;
        for range in found {
            if range.start >= done {
                redacted.push_str(&text[done..range.start]);
                redacted.push_str(MASK);
            }
            done = done.max(range.end);
        }
        redacted.push_str(&text[done..]);
        redacted
    }
}

impl Edges {
    fn widen(self, text: &[u8], range: Range<usize>) -> Range<usize> {
        let is_digit = |at: usize| {
            text.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'='))
        };
        let start =
            if self.left && range.start > 0 && is_digit(range.start - 1) { range.start - 1 } else { range.start };
        let end = if self.right && is_digit(range.end) { range.end + 1 } else { range.end };
        start..end
    }
}

fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let before = text[..range.start].chars().next_back();
    let after = text[range.end..].chars().next();
    !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
}

fn add_forms(secret: &str, forms: &mut BTreeSet<(String, Edges)>) {
    let mut add = |text: String| {
        if text.len() >= MIN_ANYWHERE {
            forms.insert((text, Edges::default()));
        }
    };
    // Programs trim what they read, so a value's own surrounding space must not hide it.
    for text in [secret, secret.trim()] {
        add(text.to_owned());
        add(json_escaped(text));
        for kept in KEPT_IN_URLS {
            add(url_encoded(text, kept, true));
            add(url_encoded(text, kept, false));
        }
        add(hex(text, false));
        add(hex(text, true));
    }
    let lines = secret.lines().map(str::trim);
    if secret.trim().contains('\n') {
        lines.filter(|line| line.len() >= MIN_LINE).for_each(|line| add(line.to_owned()));
    }
    forms.extend(base64_forms(secret));
    forms.extend(base64_forms(secret.trim()));
}

/// What is left as it is, beside letters and digits: RFC 3986, forms (a space becomes `+`), `encodeURIComponent`,
/// `encodeURI`, and the usual server-side default that keeps `/`.
const KEPT_IN_URLS: [&str; 5] = ["-_.~", "-_.* ", "-_.~!*'()", "-_.~!*'();,/?:@&=+$#", "-_.~/"];

fn url_encoded(text: &str, kept: &str, upper: bool) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' if kept.contains(' ') => encoded.push('+'),
            _ if byte.is_ascii_alphanumeric() || kept.as_bytes().contains(&byte) => encoded.push(char::from(byte)),
            _ => {
                encoded.push('%');
                encoded.push_str(&digits(byte, upper));
            }
        }
    }
    encoded
}

fn hex(text: &str, upper: bool) -> String {
    text.bytes().map(|byte| digits(byte, upper)).collect()
}

fn digits(byte: u8, upper: bool) -> String {
    if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }
}

fn json_escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The digits that a value alone decides, wherever in a longer encoded text it stands: with zero, one or two bytes of
/// the rest in its first group. Padding is never among them.
fn base64_forms(secret: &str) -> BTreeSet<(String, Edges)> {
    let mut forms = BTreeSet::new();
    for before in 0..3_usize {
        let end_bit = 8 * (before + secret.len());
        let digits = (8 * before).div_ceil(6)..end_bit / 6;
        let edges = Edges { left: before != 0, right: !end_bit.is_multiple_of(6) };
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(secret.as_bytes());
        for alphabet in [&STANDARD, &URL_SAFE] {
            if let Some(core) = alphabet.encode(&bytes).get(digits.clone()).filter(|core| core.len() >= MIN_ANYWHERE) {
                forms.insert((core.to_owned(), edges));
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_value_that_repeats_itself_is_found_and_does_not_take_for_ever() {
        let secret = "ab".repeat(32 * 1024);
        let redactor = Redactor::new([secret.as_str()]);
        assert_eq!(redactor.apply(&format!("before {secret} after")), "before *** after");
    }

    #[test]
    fn a_secret_is_replaced_in_every_form() {
        let check = |secret: &str, text: &str, expect: &str| {
            assert_eq!(Redactor::new([secret]).apply(text), expect, "{secret:?} in {text:?}");
        };
        check("hunter2!", "password is hunter2!.", "password is ***.");
        check("hunter2!", "hunter2!hunter2!", "******");
        check("hunter2!", "68756e7465723221 68756E7465723221", "*** ***");
        check("a b/c?d", "q=a%20b%2Fc%3Fd&r=a+b%2fc%3fd&s=a%20b/c%3Fd", "q=***&r=***&s=***");
        check("say \"hi\"\n", r#"{"v":"say \"hi\"\n"}"#, r#"{"v":"***"}"#);
        check("hunter2!", "Basic aHVudGVyMiE=", "Basic ***=");
        check("hunter2!", "dXNlcjpodW50ZXIyIQ==", "dXNlcj***==");
        check("\u{3ff}\u{3ff}>>??", "z7_Pvz4-Pz8", "***");
        check("\u{3ff}\u{3ff}>>??", "z7/Pvz4+Pz8=", "***=");
        check("-----BEGIN-----\nAAAABBBB\nEF\n-----END-----", "line AAAABBBB, EF", "line ***, EF");
        check("abc", "abc, abcd, x.abc", "***, abcd, x.***");
        check("", "nothing", "nothing");
        check(" ", "a b", "a b");
        assert_eq!(Redactor::new(["abcdef", "defghi"]).apply("abcdefghi"), "***");
        assert_eq!(Redactor::new(["abcdefgh", "bcde"]).apply("abcdefgh"), "***");
        assert_eq!(Redactor::new([]).apply("as it was"), "as it was");
    }

    proptest! {
        #[test]
        fn no_form_survives_wherever_it_stands(secret in "[a-zA-Z0-9 /+?ä\"\\\\]{4,40}", before in "[a-z]{0,5}", after in "[a-z]{0,5}") {
            let redactor = Redactor::new([secret.as_str()]);
            let whole = format!("{before}{secret}{after}");
            let gone = |text: &str, form: &str| {
                let redacted = redactor.apply(text);
                prop_assert!(redacted.contains(MASK), "{redacted}");
                prop_assert!(!redacted.contains(form), "{form} in {redacted}");
                Ok(())
            };
            gone(&whole, &secret)?;
            gone(&hex(&whole, false), &hex(&secret, false))?;
            gone(&json_escaped(&whole), &json_escaped(&secret))?;
            for kept in KEPT_IN_URLS {
                gone(&url_encoded(&whole, kept, true), &url_encoded(&secret, kept, true))?;
            }
            for encoded in [STANDARD.encode(&whole), STANDARD_NO_PAD.encode(&whole), URL_SAFE.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                let redacted = redactor.apply(&encoded);
                for (core, _) in base64_forms(&secret) {
                    prop_assert!(!redacted.contains(&core), "{core} in {redacted}");
                }
                prop_assert!(redacted.contains(MASK), "{encoded}");
            }
        }

        #[test]
        fn what_holds_no_secret_stays(text in "[a-z \n]{0,60}") {
            prop_assert_eq!(Redactor::new(["S3CRET-VALUE"]).apply(&text), text);
        }
    }
}
