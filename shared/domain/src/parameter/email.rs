//! `email`

use super::{Verdict, domain};
use crate::invalid::Invalid;

const MAX_LENGTH: usize = 254;
const MAX_LOCAL: usize = 64;

/// The expression of the seed (`003`, "邮箱格式验证"), `^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$`, with a punycode top-level domain
/// besides, no empty part between dots, and a domain that may exist.
pub(super) fn check(text: &str) -> Result<Verdict, Invalid> {
    let refused = |why: &str, suggestion: &str| Err(Invalid::new("format-email", why, suggestion));
    if text.len() > MAX_LENGTH {
        return refused("has more than 254 characters", "use a shorter address");
    }
    let Some((local, name)) = text.split_once('@') else {
        return refused("has no @", "write it as in name@example.com");
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'%' | b'+' | b'-');
    if !(1..=MAX_LOCAL).contains(&local.len()) || !local.bytes().all(plain) || local.split('.').any(str::is_empty) {
        return refused(
            "has no plain name before its @",
            "use 1 to 64 letters, digits and . _ % + -, without a dot at an end or beside another",
        );
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_letters = last.len() >= 2 && last.bytes().all(|b| b.is_ascii_alphabetic());
    let is_punycode = last.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
    if !name.bytes().all(plain) || !(is_letters || is_punycode) {
        return refused(
            "has no domain in ASCII behind its @",
            "write it as in name@example.com; use xn--… for other letters",
        );
    }
    match domain::to_ascii(name) {
        Ok(_) => Ok(Verdict::Plain),
        Err(fault) => {
            Err(Invalid::new("format-email", format!("has a domain that {}", fault.message), fault.suggestion))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_seeds_and_its_domain_may_exist() {
        let local = "a".repeat(64);
        let longest = format!("{local}@{0}.{0}.{1}.com", "a".repeat(63), "a".repeat(254 - 65 - 128 - 4));
        assert_eq!(longest.len(), 254);
        for text in [
            "a@example.com",
            "A.b_c%d+e-f@Sub.Example.CO.UK",
            "-@example.com",
            "a@1.de",
            "a@xn--e1afmkfd.xn--p1ai",
            "a@xn--mnchen-3ya.de",
            "100%@example.com",
            &longest,
        ] {
            assert_eq!(check(text), Ok(Verdict::Plain), "{text:?}");
        }
        for text in [
            "",
            "@",
            "a",
            "a@",
            "@example.com",
            "a@@example.com",
            "a@b@example.com",
            ".a@example.com",
            "a.@example.com",
            "a..b@example.com",
            "a b@example.com",
            "\"a b\"@example.com",
            "a@example",
            "a@example.c",
            "a@example.com.",
            "a@.example.com",
            "a@-example.com",
            "a@exam_ple.com",
            "a@example..com",
            "a@localhost",
            "a@db.internal",
            "a@a.test",
            "a@co.uk",
            "a@example.nosuchsuffix",
            "a@127.0.0.1",
            "a@[127.0.0.1]",
            "a@example.123",
            "ä@example.com",
            "a@münchen.de",
            "a@example.рф",
            "a@xn--zzzzzzzz99.com",
            "a@example.xn--",
            "a@example.xn--zzzz",
            " a@example.com",
            "a@example.com\n",
            "a@example.com ",
            "a\0@example.com",
            "a(b)@example.com",
            "<a@example.com>",
            "a@example.com,b@example.com",
            "a@example.com\r\nBcc: b@example.com",
            "mailto:a@example.com",
            "a/b@example.com",
            "'a'@example.com",
            "a`id`@example.com",
            &format!("{local}a@example.com"),
            &longest.replace(".com", "a.com"),
        ] {
            assert_eq!(check(text).map_err(|e| e.code), Err("format-email"), "{text:?}");
        }
    }
}
