//! URLs: the vectors of the Web Platform Tests.

use serde_json::Value;
use tidegate_domain::parameter::ParameterType;

use super::{Suffixes, Tally, not_public, read, verdict};

/// Why a URL that browsers take is none for us, from what the text and the corpus say of it.
fn reason(input: &str, test: &Value, suffixes: &Suffixes) -> Option<&'static str> {
    let field = |name: &str| test[name].as_str().unwrap_or_default();
    let lower = input.trim().to_ascii_lowercase();
    let after = lower.split_once("://").map(|(_, after)| after);
    let authority = after.and_then(|after| after.split(['/', '?', '#', '\\']).next()).unwrap_or_default();
    let host = field("hostname");
    let is_ipv4 = !host.is_empty() && host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match () {
        () if !matches!(field("protocol"), "http:" | "https:") => Some("the scheme is not http or https"),
        () if input.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Some("there is a blank or a control character")
        }
        () if input.contains('\\') => Some("there is a backslash"),
        () if !(lower.starts_with("http://") || lower.starts_with("https://")) => Some("it is relative, or has no //"),
        () if authority.contains('@') => Some("there is a user name or a password"),
        () if input.contains('#') => Some("there is a fragment"),
        () if authority.ends_with(':') => Some("there is a colon without a port"),
        () if !after.is_some_and(|after| after[authority.len()..].is_ascii()) => {
            Some("there are other characters than ASCII behind the host")
        }
        () if is_ipv4 && !authority.split(':').any(|part| part == host) => Some("the host is an address in disguise"),
        () if verdict(ParameterType::Ip, host.trim_matches(['[', ']'])) == Err("reserved-address") => {
            Some("the address is reserved")
        }
        () if authority.contains('%') => Some("the host is percent-encoded"),
        () if field("port").is_empty() && authority.ends_with(":0") || field("port") == "0" => Some("the port is 0"),
        () if authority.rsplit_once(':').is_some_and(|(_, port)| port.starts_with('0')) => {
            Some("the port has leading zeros")
        }
        () if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')) => {
            Some("the host has other characters than letters, digits and hyphens")
        }
        () if host.strip_suffix('.').unwrap_or(host).split('.').any(str::is_empty) => Some("a label is empty"),
        () => not_public(host, suffixes),
    }
}

#[test]
fn urls_are_judged_as_browsers_do_or_more_strictly() {
    let suffixes = Suffixes::read();
    let tests: Vec<Value> = serde_json::from_str(&read("url", "tests/urltestdata.json")).unwrap();
    let mut tally = Tally::of("Web Platform Tests urltestdata");
    for test in tests.iter().filter(|test| test.is_object()) {
        let input = test["input"].as_str().unwrap();
        let theirs = test["failure"] != true;
        let ours = verdict(ParameterType::Url, input).is_ok();
        // Nothing that a browser refuses passes.
        tally.count(input, theirs, ours, || theirs.then(|| reason(input, test, &suffixes)).flatten());
        if theirs && ours {
            let read = ::url::Url::parse(input).unwrap();
            assert_eq!(Some(read.as_str()), test["href"].as_str(), "{input:?}");
        }
    }
    tally.close(700);
}

/// Every host of the corpus, put into a URL that has nothing else to be refused for.
#[test]
fn hosts_of_urls_are_judged_as_hosts() {
    let tests: Vec<Value> = serde_json::from_str(&read("url", "tests/urltestdata.json")).unwrap();
    let mut tally = Tally::of("Web Platform Tests hosts");
    let hosts = tests.iter().filter_map(|test| test["host"].as_str()).filter(|host| !host.is_empty());
    for host in hosts {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let as_host = verdict(ParameterType::Host, bare);
        let as_url = verdict(ParameterType::Url, &format!("https://{host}/"));
        tally.count(host, as_host.is_ok(), as_url.is_ok(), || None);
        if let (Ok(as_host), Ok(as_url)) = (as_host, as_url) {
            assert_eq!(as_host, as_url, "{host}");
        }
    }
    tally.close(300);
}
