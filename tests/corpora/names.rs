//! Domain names: UTS-46's own vectors, the Public Suffix List twice, and host names of the JSON Schema test suite.

use serde_json::Value;
use tidegate_domain::parameter::{ParameterType, Verdict};

use super::{Suffixes, Tally, ascii, not_public, read, verdict};

fn is_domain(name: &str) -> bool {
    verdict(ParameterType::Domain, name) == Ok(Verdict::DomainName)
}

/// A line of `IdnaTestV2.txt`: the source, what it becomes, and the steps that it fails.
struct Line {
    source: String,
    unicode: String,
    ascii: String,
    failed: Vec<String>,
}

impl Line {
    /// None for a source that is no Unicode text: a half of a pair of surrogates.
    fn parse(line: &str) -> Option<Self> {
        let columns: Vec<_> = line.split('#').next().unwrap().split(';').map(str::trim).collect();
        let source = unescaped(columns[0])?;
        let or = |column: &str, before: &str| if column.is_empty() { before.to_owned() } else { column.to_owned() };
        let unicode = or(columns[1], columns[0]);
        let to_ascii = or(columns[3], &unicode);
        let status = or(columns[4], columns[2]);
        let codes = status.trim_matches(['[', ']']).split(',').map(str::trim).filter(|code| !code.is_empty());
        let failed = codes.map(str::to_owned).collect();
        Some(Self { source, unicode: unescaped(&unicode)?, ascii: unescaped(&to_ascii)?, failed })
    }
}

fn unescaped(text: &str) -> Option<String> {
    if text == "\"\"" {
        return Some(String::new());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let (digits, after) = match after.strip_prefix("x{") {
            Some(braced) => braced.split_once('}').unwrap(),
            None => after.strip_prefix('u').unwrap().split_at(4),
        };
        out.push(char::from_u32(u32::from_str_radix(digits, 16).unwrap())?);
        rest = after;
    }
    Some(out + rest)
}

#[test]
fn names_are_judged_as_uts_46_does() {
    let suffixes = Suffixes::read();
    let mut tally = Tally::of("IdnaTestV2");
    let text = read("idna", "tests/IdnaTestV2.txt");
    let mut halves = 0;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let Some(line) = Line::parse(line) else {
            halves += 1;
            continue;
        };
        let theirs = line.failed.is_empty();
        let ours = is_domain(&line.source);
        tally.count(&line.source, theirs, ours, || {
            if theirs {
                return not_public(&line.ascii, &suffixes);
            }
            // The vectors are of Unicode 16, the tables are newer and know extension J of the CJK ideographs.
            let is_newer = |c| ('\u{323b0}'..='\u{33479}').contains(&c);
            let is_assigned_since = line.failed == ["V7"] && line.unicode.chars().any(is_newer);
            is_assigned_since.then_some("a character was assigned since")
        });
        if ours && theirs {
            assert!(is_domain(&line.ascii), "{:?} passes, but not in ASCII", line.source);
        }
    }
    println!("figure: corpora: IdnaTestV2: {halves} are no Unicode text, and cannot be sent");
    tally.close(6_000);
}

#[test]
fn every_rule_of_the_public_suffix_list_has_names_below_it() {
    let mut tally = Tally::of("Public Suffix List");
    for rule in read("psl", "data/rules.txt").lines() {
        let rule = ascii(rule);
        if let Some(exception) = rule.strip_prefix('!') {
            tally.count(&rule, true, is_domain(exception), || None);
            continue;
        }
        let suffix = rule.strip_prefix("*.").map_or_else(|| rule.clone(), |rest| format!("tidegate.{rest}"));
        let below = format!("tidegate.{suffix}");
        tally
            .count(&below, true, is_domain(&below), || (rule == "onion").then_some("the end of the name is set aside"));
    }
    tally.close(9_000);
}

/// The list as it was some years ago, with its sections: what its first one lists are suffixes, what its second one lists are
/// names that companies give away parts of.
#[test]
fn the_icann_section_alone_decides_what_is_a_suffix() {
    let now = Suffixes::read();
    let list = read("addr", "tests/public_suffix_list.dat");
    let (icann, private) = list.split_once("// ===END ICANN DOMAINS===").unwrap();
    let rules = |section: &'static str, text: &str| {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        lines.map(|line| (section, ascii(line))).collect::<Vec<_>>()
    };
    let mut tally = Tally::of("Public Suffix List by sections");
    for (section, rule) in rules("icann", icann).into_iter().chain(rules("private", private)) {
        let is_private = section == "private";
        if let Some(exception) = rule.strip_prefix('!') {
            tally.count(&rule, true, is_domain(exception), || None);
            continue;
        }
        let suffix = rule.strip_prefix("*.").map_or_else(|| rule.clone(), |rest| format!("tidegate.{rest}"));
        tally.count(&rule, is_private, is_domain(&suffix), || {
            let section = psl::suffix(suffix.as_bytes()).and_then(|found| found.typ());
            match section {
                _ if !now.has(&rule) => Some("the rule is gone from the list"),
                Some(psl::Type::Private) if !is_private => Some("the rule was moved to the companies' section"),
                Some(psl::Type::Icann) if is_private => Some("the rule was moved to the ICANN section"),
                Some(_) | None => None,
            }
        });
        let below = format!("tidegate.{suffix}");
        tally.count(&below, true, is_domain(&below), || not_public(&below, &now));
    }
    tally.close(15_000);
}

#[test]
fn host_names_in_other_scripts_are_judged_as_json_schema_does() {
    let mut tally = Tally::of("JSON Schema idn-hostname");
    let groups: Vec<Value> = serde_json::from_str(&read("addr", "tests/idn-hostname.json")).unwrap();
    for test in groups.iter().flat_map(|group| group["tests"].as_array().unwrap()) {
        let Some(data) = test["data"].as_str() else { continue };
        // Most are a single label, which is no whole name.
        let name = if data.contains('.') { data.to_owned() } else { format!("{data}.com") };
        let theirs = test["valid"] == true;
        let comment = test["comment"].as_str().unwrap_or_default();
        tally.count(&name, theirs, is_domain(&name), || match () {
            () if theirs && name.ends_with(".테스트") => Some("there is no such public suffix"),
            // RFC 5892, appendix A.3 to A.9, and its list of exceptions.
            () if !theirs && comment.contains("rfc5892") => {
                Some("UTS-46 leaves the context of marks, and exceptions, to registries")
            }
            () => None,
        });
    }
    tally.close(40);
}
