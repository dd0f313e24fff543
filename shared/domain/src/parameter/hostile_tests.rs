//! What nobody means well: every type is fed what the others take, and texts that are as long as a body may be.

use std::net::IpAddr;

use proptest::prelude::*;

use super::{
    address::{Class, classify},
    *,
};
use crate::code;

fn of_type(value_type: ParameterType) -> Parameter {
    Parameter {
        multiline: true,
        max_length: Some(MAX_DECLARED_LENGTH),
        ..Parameter::new(VariableKey::parse("A").unwrap(), value_type)
    }
}

/// Checks a text against every type: whatever passes is what it must be, and whatever fails has a documented code.
fn check_everywhere(text: &str) {
    for value_type in ParameterType::ALL {
        match of_type(value_type).check(text) {
            Ok(verdict) => holds(value_type, text, verdict),
            Err(failed) => {
                for invalid in failed {
                    assert!(code::find(invalid.code).is_some(), "{}", invalid.code);
                    assert!(!invalid.message.is_empty() && !invalid.suggestion.is_empty());
                }
            }
        }
    }
}

fn holds(value_type: ParameterType, text: &str, verdict: Verdict) {
    let is_line = !text.chars().any(char::is_control);
    match value_type {
        ParameterType::String => assert!(!text.contains('\0')),
        ParameterType::Number => assert!(text.parse::<f64>().unwrap().is_finite()),
        ParameterType::Boolean => assert!(matches!(text, "true" | "false")),
        ParameterType::Json => assert!(serde_json::from_str::<serde_json::Value>(text).is_ok()),
        ParameterType::Email => {
            let seed =
                regex::Regex::new(r"^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.([a-zA-Z]{2,}|xn--[a-zA-Z0-9-]+)$").unwrap();
            assert!(is_line && seed.is_match(text), "{text:?}");
        }
        ParameterType::Ipv4 | ParameterType::Ip => judged_so(text, verdict),
        ParameterType::Domain => assert_eq!(verdict, Verdict::DomainName),
        ParameterType::Host => {
            let address = text.parse::<std::net::SocketAddr>().map(|both| both.ip().to_string());
            if verdict != Verdict::DomainName {
                judged_so(&address.unwrap_or_else(|_| text.to_owned()), verdict);
            }
        }
        ParameterType::Url => match ::url::Url::parse(text).unwrap().host().unwrap() {
            ::url::Host::Domain(name) => {
                assert_eq!(verdict, Verdict::DomainName);
                assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')), "{text:?}");
            }
            ::url::Host::Ipv4(address) => judged_so(&address.to_string(), verdict),
            ::url::Host::Ipv6(address) => judged_so(&address.to_string(), verdict),
        },
        ParameterType::PublicKey => assert!(text.is_ascii() && !text.contains("PRIVATE")),
    }
    if value_type == ParameterType::Domain {
        let ascii = domain::to_ascii(text).unwrap();
        let labels: Vec<_> = ascii.split('.').collect();
        let plain = |label: &&str| {
            let edges = label.starts_with('-') || label.ends_with('-');
            let ldh = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            (1..=63).contains(&label.len()) && ldh && !edges
        };
        assert!(is_line && ascii.len() <= 253 && labels.len() >= 2 && labels.iter().all(plain), "{text:?} {ascii}");
        assert_eq!(domain::to_ascii(&ascii).as_ref(), Ok(&ascii), "{text:?}");
    }
}

fn judged_so(address: &str, verdict: Verdict) {
    let class = classify(address.parse::<IpAddr>().unwrap());
    let expect = if class == Class::Private { Verdict::PrivateAddress } else { Verdict::PublicAddress };
    assert!(class != Class::Reserved && verdict == expect, "{address} {verdict:?}");
}

#[test]
fn a_text_as_long_as_a_body_costs_no_more_than_reading_it() {
    const LENGTH: usize = 256 * 1024;
    let shapes = [
        "a",
        ".",
        "-",
        "a.",
        "a-",
        "@",
        "a@",
        "%",
        "%41",
        ":",
        "::",
        "[",
        "]",
        "[::]",
        "0",
        "9",
        "0.",
        "1e",
        "{",
        "{\"a\":",
        "[[",
        "\\",
        "\"",
        "/",
        "//",
        "?",
        "#",
        "xn--",
        "xn--a.",
        "é",
        "ü.",
        "。",
        "\u{300}",
        "a\u{300}",
        "\u{200d}",
        "\u{ad}",
        "😀",
        "\n",
        "\r\n",
        "\0",
        " ",
        "A",
        "AAAA\n",
        "MIIB",
        "-----BEGIN ",
        "-----",
        "=",
        "-----BEGIN PUBLIC KEY-----\n",
        "ssh-rsa ",
        "PRIVATE ",
        "ss",
        "ﷺ",
        "１",
        "１．",
        "0x",
        "&",
        "x@x.com,",
    ];
    let starts = [
        "",
        "http://",
        "http://a",
        "http://a.com/",
        "http://a.com:",
        "https://[",
        "ssh-rsa ",
        "-----BEGIN PUBLIC KEY-----\n",
        "a@",
        "[",
        "\"",
        "xn--",
    ];
    let ends = ["", ".com", "]:80", "@a.com", "/", "-----END PUBLIC KEY-----", "=", "\"", "}"];
    for (i, shape) in shapes.iter().enumerate() {
        let start = starts[i % starts.len()];
        let end = ends[i % ends.len()];
        check_everywhere(&shape.repeat(LENGTH / shape.len()));
        check_everywhere(&format!("{start}{}{end}", shape.repeat(LENGTH / shape.len())));
    }
    // Just within what each type looks at, where the work is really done.
    for limit in [45, 63, 253, 254, 1_023, 2_000, 4_096, 16_000, 65_000] {
        for shape in shapes {
            for (start, end) in [("", ""), ("http://", "/"), ("http://a.com/", ""), ("a@", ".com"), ("xn--", ".com")] {
                let room = limit - (start.len() + end.len()).min(limit);
                check_everywhere(&format!("{start}{}{end}", shape.repeat(room / shape.len())));
            }
        }
    }
}

#[test]
fn a_pattern_takes_no_longer_for_a_text_that_almost_matches() {
    let slow_elsewhere = ["(a+)+b", "(a|a)*b", "(a|aa)+b", "(.*)*b", "(a?){50}a{50}b", r"(\w+\s?)*b", "(x+x+)+y"];
    for pattern in slow_elsewhere {
        let parameter = Parameter { pattern: Some(Pattern::parse(pattern).unwrap()), ..of_type(ParameterType::String) };
        let failed = parameter.check(&"a".repeat(60_000)).unwrap_err();
        assert_eq!(failed[0].code, "pattern", "{pattern}");
    }
}

/// Texts in which the characters that mean something are common.
fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[0-9a-fx]{1,4}",
        "[a-z0-9-]{1,8}",
        "[.:@/%\\[\\]#?\\\\_ ]",
        "(\\.com|\\.de|\\.co\\.uk|\\.рф|\\.local|xn--)",
        "(http|https|HTTP)://",
        "(10\\.0\\.0\\.1|8\\.8\\.8\\.8|127\\.0\\.0\\.1|::1|fd00::1|2606:4700::1)",
        "[。．｡１２a-c\u{ad}\u{200d}üß]{1,3}",
        ":[0-9]{1,6}",
        "\\PC",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..9).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_text_upsets_a_check(text in any::<String>()) {
        check_everywhere(&text);
    }

    #[test]
    fn what_passes_is_what_it_must_be(text in nasty()) {
        check_everywhere(&text);
    }

    #[test]
    fn every_address_is_judged_alike_wherever_it_stands(bits: u128, is_v4: bool, port in 1..=u16::MAX) {
        let address = if is_v4 { IpAddr::V4(u32::try_from(bits >> 96).unwrap().into()) } else { IpAddr::V6(bits.into()) };
        let bracketed = if is_v4 { address.to_string() } else { format!("[{address}]") };
        let verdict = |value_type, text: &str| of_type(value_type).check(text).map_err(|failed| failed[0].code);
        let expect = match classify(address) {
            Class::Private => Ok(Verdict::PrivateAddress),
            Class::Public => Ok(Verdict::PublicAddress),
            Class::Reserved => Err("reserved-address"),
        };
        prop_assert_eq!(verdict(ParameterType::Ip, &address.to_string()), expect);
        prop_assert_eq!(verdict(ParameterType::Host, &address.to_string()), expect);
        prop_assert_eq!(verdict(ParameterType::Host, &format!("{bracketed}:{port}")), expect);
        prop_assert_eq!(verdict(ParameterType::Url, &format!("http://{bracketed}:{port}/a")), expect);
        prop_assert_eq!(verdict(ParameterType::Url, &format!("https://{bracketed}")), expect);
    }

    #[test]
    fn keys_of_any_bytes_upset_nothing(bytes in prop::collection::vec(any::<u8>(), 0..600), head in 0..6_usize) {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let heads: [&[u8]; 6] = [&[], &[0x30, 0x82, 1, 0x0a, 2, 0x82, 1, 1, 0], &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 7, b's', b's', b'h', b'-', b'r', b's', b'a', 0, 0, 0, 3, 1, 0, 1], &[0x30, 0x0d, 6, 9]];
        let text = STANDARD.encode([heads[head], &bytes].concat());
        check_everywhere(&text);
        check_everywhere(&format!("ssh-rsa {text}"));
        check_everywhere(&format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"));
    }
}
