//! Finds marked values in whatever form they may have leaked.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use aho_corasick::AhoCorasick;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use crate::support::hex;

/// Searches for every form of every marked value.
pub(crate) struct Needles {
    automaton: AhoCorasick,
    /// What each pattern is: `the webhook token, base64`.
    names: Vec<String>,
}

/// What was searched, to be told with the result.
#[derive(Debug, Default)]
pub(crate) struct Searched {
    pub places: usize,
    pub bytes: usize,
    pub hits: Vec<String>,
}

impl Needles {
    pub(crate) fn of(values: &[(&str, &str)]) -> Self {
        let mut patterns = BTreeSet::new();
        for (what, value) in values {
            assert!(longest_word(value).len() >= 12, "{what} is too short to be found for certain");
            for text in [*value, longest_word(value)] {
                let forms = forms(text).into_iter();
                patterns.extend(forms.map(|(form, pattern)| (pattern, format!("{what}, {form}"))));
            }
        }
        let automaton = AhoCorasick::new(patterns.iter().map(|(pattern, _)| pattern)).unwrap();
        Self { automaton, names: patterns.into_iter().map(|(_, name)| name).collect() }
    }

    pub(crate) fn patterns(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn search(&self, place: &str, content: impl AsRef<[u8]>, searched: &mut Searched) {
        searched.places += 1;
        searched.bytes += content.as_ref().len();
        let found = self.automaton.find_overlapping_iter(content.as_ref());
        let names: BTreeSet<_> = found.map(|hit| &self.names[hit.pattern().as_usize()]).collect();
        searched.hits.extend(names.into_iter().map(|name| format!("{place}: {name}")));
    }

    /// Every file below the folder.
    pub(crate) fn search_folder(&self, folder: &Path, searched: &mut Searched) {
        for file in files(folder) {
            // One that went away meanwhile (SQLite's own) holds nothing any more.
            if let Ok(content) = std::fs::read(&file) {
                self.search(&file.display().to_string(), content, searched);
            }
        }
    }
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

/// Whatever is done to the characters around it, this part of a value stays together.
fn longest_word(value: &str) -> &str {
    value.split(|c: char| !c.is_ascii_alphanumeric()).max_by_key(|word| word.len()).unwrap_or_default()
}

/// Every form with its name.
pub(crate) fn forms(text: &str) -> Vec<(&'static str, String)> {
    let bytes = text.as_bytes();
    let json = serde_json::to_string(text).unwrap();
    let escaped = json[1..json.len() - 1].to_owned();
    let decimal = |separator: &str| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(separator);
    let mut forms = vec![
        ("plain", text.to_owned()),
        ("JSON", escaped.clone()),
        ("JSON in JSON", serde_json::to_string(&escaped).unwrap().trim_matches('"').to_owned()),
        ("debug", text.escape_debug().to_string()),
        ("hex", hex(bytes)),
        ("upper-case hex", hex(bytes).to_uppercase()),
        ("URL-encoded", percent(bytes, true, true)),
        ("lower-case URL-encoded", percent(bytes, true, false)),
        ("wholly URL-encoded", percent(bytes, false, true)),
        ("wholly lower-case URL-encoded", percent(bytes, false, false)),
        ("list of bytes", decimal(",")),
        ("spaced list of bytes", decimal(", ")),
    ];
    for before in 0..3 {
        forms.push(("base64", base64_after(&STANDARD_NO_PAD, before, bytes)));
        forms.push(("URL-safe base64", base64_after(&URL_SAFE_NO_PAD, before, bytes)));
    }
    forms
}

fn percent(bytes: &[u8], keep_letters: bool, upper: bool) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if keep_letters && (byte.is_ascii_alphanumeric() || b"-_.~".contains(byte)) {
            text.push(char::from(*byte));
        } else if upper {
            write!(text, "%{byte:02X}").unwrap();
        } else {
            write!(text, "%{byte:02x}").unwrap();
        }
        text
    })
}

/// The digits that hold nothing but the value, where so many bytes come before it.
fn base64_after(engine: &impl base64::Engine, before: usize, value: &[u8]) -> String {
    let bytes = [&vec![0; before][..], value].concat();
    let digits = engine.encode(&bytes);
    let (first, last) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    digits[first..last].to_owned()
}

#[test]
fn a_planted_value_is_found_in_every_form() {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    let value = "s\"é?>~/+=\n0123456789abcdefXYZ";
    let needles = Needles::of(&[("it", value)]);
    let json = serde_json::to_string(value).unwrap();
    let url = format!("https://{}@example.com", percent(value.as_bytes(), true, false));
    let mut planted = vec![
        format!("a {value} b"),
        format!("{{\"a\":{json}}}"),
        serde_json::to_string(&json).unwrap(),
        format!("{value:?}"),
        format!("{:?}", value.as_bytes()),
        serde_json::to_string(value.as_bytes()).unwrap(),
        hex(value.as_bytes()),
        hex(value.as_bytes()).to_uppercase(),
        url,
        percent(value.as_bytes(), false, true),
        value.replace('\n', ""),
        hex(format!("before{value}after").as_bytes()),
    ];
    for before in ["", "1", "12", "123"] {
        for after in ["", "1", "12"] {
            let text = format!("{before}{value}{after}");
            planted.extend([STANDARD.encode(&text), URL_SAFE.encode(&text), URL_SAFE_NO_PAD.encode(&text)]);
        }
    }
    for text in planted {
        let mut searched = Searched::default();
        needles.search("here", &text, &mut searched);
        assert!(!searched.hits.is_empty(), "{text}");
    }
    let mut searched = Searched::default();
    needles.search("here", "s\"e?>~/+=\n1123456789abcdefXYZ", &mut searched);
    assert_eq!((searched.places, searched.hits.len()), (1, 0), "{:?}", searched.hits);
}
