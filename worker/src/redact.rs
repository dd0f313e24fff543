//! Takes a job's secrets out of whatever a container or Docker says about it.
//!
//! A value of four bytes or more is found anywhere: as it is, JSON-escaped, HTML-escaped, URL-encoded, in hexadecimal
//! and inside longer base64 text. A shorter one would be found in every second word, so it counts only where it stands alone between
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

/// Where something of a line is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cut {
    pub start: bool,
    pub end: bool,
}

struct Built {
    anywhere: Option<AhoCorasick>,
    /// By the automaton's pattern number.
    edges: Vec<Edges>,
    longest: usize,
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
        mask(text, self.built().found(text))
    }

    /// Lines without their ends, each with every secret replaced: also one that goes on in the next line, be it a value of
    /// several lines or an encoded one that was wrapped.
    pub fn apply_to_lines(&self, lines: &[String]) -> Vec<String> {
        lines.iter().zip(self.found_in_lines(lines)).map(|(line, found)| mask(line, found)).collect()
    }

    /// The same where lines were cut before they came here: what is left of a secret at the cut cannot be found, so as much
    /// as the longest one goes there, by its place before anything was replaced.
    pub fn apply_to_cut_lines(&self, lines: &[String], cuts: &[Cut]) -> Vec<String> {
        let within = |((line, cut), found): ((&String, &Cut), Vec<Range<usize>>)| {
            let start = if cut.start { line.ceil_char_boundary(self.longest().min(line.len())) } else { 0 };
            let end =
                if cut.end { line.floor_char_boundary(line.len().saturating_sub(self.longest())) } else { line.len() };
            let end = end.max(start);
            let clipped = found.into_iter().map(|range| range.start.clamp(start, end)..range.end.clamp(start, end));
            let found = clipped.filter(|range| !range.is_empty()).map(|range| range.start - start..range.end - start);
            mask(&line[start..end], found.collect())
        };
        lines.iter().zip(cuts).zip(self.found_in_lines(lines)).map(within).collect()
    }

    /// By line.
    fn found_in_lines(&self, lines: &[String]) -> Vec<Vec<Range<usize>>> {
        let mut found = vec![Vec::new(); lines.len()];
        for separator in ["\n", ""] {
            let text = lines.join(separator);
            let mut starts = Vec::with_capacity(lines.len());
            let mut start = 0;
            for line in lines {
                starts.push(start);
                start += line.len() + separator.len();
            }
            for range in self.built().found(&text) {
                let first = starts.partition_point(|start| *start <= range.start).saturating_sub(1);
                for (index, start) in starts.iter().enumerate().skip(first).take_while(|(_, start)| **start < range.end)
                {
                    let within = range.start.max(*start)..range.end.min(start + lines[index].len());
                    if within.start < within.end {
                        found[index].push(within.start - start..within.end - start);
                    }
                }
            }
        }
        found
    }

    /// The longest text that is looked for, in bytes: where a text is cut, so much after the cut tells whether it goes
    /// through a secret.
    pub fn longest(&self) -> usize {
        self.built().longest
    }

    fn built(&self) -> &Built {
        self.built.get_or_init(|| Built::new(self.secrets.iter().map(|secret| secret.expose().as_str())))
    }
}

/// Ranges may overlap; those that do become one mask, so that none of them shows a rest.
fn mask(text: &str, mut found: Vec<Range<usize>>) -> String {
    found.sort_by_key(|range| range.start);
    let mut masked = String::with_capacity(text.len());
    let mut done = 0;
    for range in found {
        if range.start >= done {
            masked.push_str(&text[done..range.start]);
            masked.push_str(MASK);
        }
        done = done.max(range.end);
    }
    masked.push_str(&text[done..]);
    masked
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
        let longest = forms.iter().map(|(text, _)| text.len() + 2).max().unwrap_or(MIN_ANYWHERE);
        Self { anywhere, edges: forms.into_iter().map(|(_, edges)| edges).collect(), longest, alone }
    }

    fn found(&self, text: &str) -> Vec<Range<usize>> {
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
        found
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

/// Without what steers a terminal.
pub fn printable(text: &str) -> String {
    text.chars().filter(|c| *c == '\t' || !c.is_control()).collect()
}

fn add_forms(secret: &str, forms: &mut BTreeSet<(String, Edges)>) {
    let mut add = |text: String| {
        // Control characters are taken out of what is looked into, where it is a log.
        let printable = printable(&text);
        for text in [text, printable] {
            if text.len() >= MIN_ANYWHERE {
                forms.insert((text, Edges::default()));
            }
        }
    };
    // Programs trim what they read, so a value's own surrounding space must not hide it.
    for text in [secret, secret.trim()] {
        add(text.to_owned());
        for style in JSON {
            add(json_escaped(text, style));
        }
        for quotes in HTML_QUOTES {
            add(html_escaped(text, quotes));
        }
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

/// What is escaped beside what has to be, whether all beyond ASCII is too, and whether hexadecimal is in upper case.
type Json = (&'static str, bool, bool);

/// As most write it, with `\/`, as Go does in either case, in ASCII only in either case, and in ASCII with `\/` as PHP does.
const JSON: [Json; 7] = [
    ("", false, false),
    ("/", false, false),
    ("<>&\u{2028}\u{2029}", false, false),
    ("<>&\u{2028}\u{2029}", false, true),
    ("", true, false),
    ("", true, true),
    ("/", true, false),
];

fn json_escaped(text: &str, (also, ascii, upper): Json) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        let short = match c {
            '"' | '\\' => Some(c),
            '/' if also.contains('/') => Some(c),
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            '\u{8}' => Some('b'),
            '\u{c}' => Some('f'),
            _ => None,
        };
        if let Some(short) = short {
            escaped.extend(['\\', short]);
        } else if c < ' ' || also.contains(c) || (ascii && !c.is_ascii()) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let [high, low] = unit.to_be_bytes();
                escaped.push_str("\\u");
                escaped.push_str(&digits(high, upper));
                escaped.push_str(&digits(low, upper));
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// How `"` and `'` are written: by XML, by most for HTML, by Python, by Go, and in text, where they may stay.
const HTML_QUOTES: [[&str; 2]; 6] =
    [["&quot;", "&apos;"], ["&quot;", "&#39;"], ["&quot;", "&#x27;"], ["&#34;", "&#39;"], ["&quot;", "'"], ["\"", "'"]];

fn html_escaped(text: &str, [double, single]: [&str; 2]) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str(double),
            '\'' => escaped.push_str(single),
            _ => escaped.push(c),
        }
    }
    escaped
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

    #[test]
    fn a_secret_is_replaced_however_it_is_escaped() {
        let secret = "<a&\"b\"'/é\u{1f600}\u{2028}>";
        for text in [
            r#"\u003ca\u0026\"b\"'/é😀\u2028\u003e"#,
            r#"\u003Ca\u0026\"b\"'/é😀\u2028\u003E"#,
            r#"<a&\"b\"'/\u00e9\ud83d\ude00\u2028>"#,
            r#"<a&\"b\"'/\u00E9\uD83D\uDE00\u2028>"#,
            r#"<a&\"b\"'\/\u00e9\ud83d\ude00\u2028>"#,
            "<a&\\\"b\\\"'\\/é😀\u{2028}>",
            "&lt;a&amp;&quot;b&quot;&apos;/é😀\u{2028}&gt;",
            "&lt;a&amp;&quot;b&quot;&#39;/é😀\u{2028}&gt;",
            "&lt;a&amp;&#34;b&#34;&#39;/é😀\u{2028}&gt;",
            "&lt;a&amp;&quot;b&quot;&#x27;/é😀\u{2028}&gt;",
            "&lt;a&amp;\"b\"'/é😀\u{2028}&gt;",
        ] {
            assert_eq!(Redactor::new([secret]).apply(&format!("x {text} y")), "x *** y", "{text}");
        }
    }

    #[test]
    fn a_secret_that_goes_over_several_lines_is_replaced_in_each() {
        let check = |secret: &str, lines: &[&str], expect: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(Redactor::new([secret]).apply_to_lines(&lines), expect, "{secret:?} in {lines:?}");
        };
        check("ab\ncd\nef", &["x ab", "cd", "ef y", "cd"], &["x ***", "***", "*** y", "cd"]);
        check("hunter2!", &["a hunter2! b", "", "hunter2!"], &["a *** b", "", "***"]);
        // As programs wrap base64 and hexadecimal.
        check("hunter2!hunter2!", &["aHVudGVyMiF", "odW50ZXIyIQ==", "a"], &["***", "***==", "a"]);
        check("hunter2!", &["687", "56e7465", "7221 68756e7465723221"], &["687", "56e7465", "7221 ***"]);
        check("hunter2!", &["6875", "6e746572", "3221 end"], &["***", "***", "*** end"]);
        check("äbcdef", &["ä", "äbc", "def", "ä"], &["ä", "***", "***", "ä"]);
        // A short value stands alone at the end of a line.
        check("abc", &["x abc", "def"], &["x ***", "def"]);
        check("hunter2!", &[], &[]);
        assert_eq!(Redactor::new([]).apply_to_lines(&["a".to_owned()]), ["a"]);
    }

    #[test]
    fn nothing_that_is_looked_for_is_longer_than_the_longest() {
        let redactor = Redactor::new(["hunter2!", "a \"quoted\"\nvalue"]);
        let encoded = url_encoded("a \"quoted\"\nvalue", "", true);
        assert!((encoded.len()..encoded.len() + 20).contains(&redactor.longest()), "{}", redactor.longest());
        assert!(Redactor::new([]).longest() > 0);
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
            prop_assert_eq!(serde_json::Value::from(whole.as_str()).to_string(), format!("\"{}\"", json_escaped(&whole, JSON[0])));
            for style in JSON {
                gone(&json_escaped(&whole, style), &json_escaped(&secret, style))?;
            }
            for quotes in HTML_QUOTES {
                gone(&html_escaped(&whole, quotes), &html_escaped(&secret, quotes))?;
            }
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
        fn of_a_cut_line_no_part_of_a_secret_is_shown(
            secret in "[A-Z0-9\"&é]{4,24}", filler in 0..300_usize, times in 1..12_usize, head in 0..400_usize, tail in 0..400_usize,
        ) {
            let redactor = Redactor::new([secret.as_str()]);
            let whole = format!("{}{}{}", secret.repeat(times), "q".repeat(filler), secret.repeat(times));
            let (start, end) = (whole.ceil_char_boundary(head.min(whole.len())), whole.floor_char_boundary(whole.len().saturating_sub(tail)));
            let line = whole[start..end.max(start)].to_owned();
            let cut = Cut { start: start > 0, end: end < whole.len() };
            let shown = redactor.apply_to_cut_lines(&[line], &[cut]);
            let chars: Vec<_> = secret.chars().collect();
            for part in chars.windows(4) {
                let part: String = part.iter().collect();
                prop_assert!(!shown[0].contains(&part), "{part} in {}", shown[0]);
            }
        }

        #[test]
        fn what_holds_no_secret_stays(text in "[a-z \n]{0,60}") {
            prop_assert_eq!(Redactor::new(["S3CRET-VALUE"]).apply(&text), text);
        }
    }
}
