//! `domain`

use std::borrow::Cow;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use psl::Type;

use super::Verdict;
use crate::invalid::Invalid;

/// No name of 253 characters is longer before UTS-46 makes it ASCII, unless it is padded with what that leaves out.
const MAX_BYTES: usize = 1_024;
/// As many of a label, whose punycode takes time that is quadratic in its length. In ASCII, which is as it stays: 63.
const MAX_LABEL_BYTES: usize = 4 * MAX_ASCII_LABEL_BYTES;
const MAX_ASCII_LABEL_BYTES: usize = 63;
/// What UTS-46 takes for a dot.
const DOTS: [char; 4] = ['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'];

/// Last labels that stand for no place of the public DNS (RFC 2606, RFC 6761, RFC 6762, RFC 7686, and `internal` by the
/// resolution of the ICANN board of 2024).
const SPECIAL: &[&str] = &["localhost", "local", "internal", "test", "example", "invalid", "onion"];

pub(super) fn check(text: &str) -> Result<Verdict, Invalid> {
    to_ascii(text).map(|_| Verdict::DomainName)
}

/// The name in lower-case ASCII and without the root's dot.
///
/// Labels are letters, digits and hyphens, none at an end; hyphens in the third and fourth place are allowed, because
/// names of large hosters have them (`r3---sn-….example.com`).
pub(super) fn to_ascii(text: &str) -> Result<String, Invalid> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let fits = text.len() <= MAX_BYTES && text.split(DOTS).all(label_fits);
    let name = fits.then(|| uts46(text, Hyphens::CheckFirstLast)).flatten();
    // A label in punycode has no second one inside, nor hyphens where punycode marks itself.
    let is_sound = |label: &str| !label.starts_with("xn--") || uts46(label, Hyphens::Check).is_some();
    let Some(name) = name.filter(|name| name.split('.').all(is_sound)) else {
        return Err(refused(
            "is not a domain name",
            "use letters, digits and hyphens with dots between them, at most 63 in a label and 253 in all",
        ));
    };
    let Some((_, last)) = name.rsplit_once('.') else {
        return Err(refused("has only one label", "write the whole name, as in registry.example.com"));
    };
    if is_numeric(last) {
        return Err(refused("ends in a number, as only addresses do", "write four numbers, or a name"));
    }
    if SPECIAL.contains(&last) {
        return Err(refused(
            "ends in a name that is set aside, and is nowhere in the public DNS",
            "use a name below a public suffix, or an address of your private network",
        ));
    }
    match public_suffix(&name) {
        None => Err(refused("ends in no public suffix that is known", "check the end of the name")),
        Some(suffix) if suffix == name => {
            Err(refused("is a public suffix, under which others have their names", "write the whole name"))
        }
        Some(_) => Ok(name.into_owned()),
    }
}

fn label_fits(label: &str) -> bool {
    label.len() <= if label.is_ascii() { MAX_ASCII_LABEL_BYTES } else { MAX_LABEL_BYTES }
}

fn uts46(text: &str, hyphens: Hyphens) -> Option<Cow<'_, str>> {
    Uts46::new().to_ascii(text.as_bytes(), AsciiDenyList::STD3, hyphens, DnsLength::Verify).ok()
}

fn refused(why: &str, suggestion: &str) -> Invalid {
    Invalid::new("format-domain", why, suggestion)
}

/// What a lenient parser reads as a number, also as hexadecimal (the URL standard, "ends-in-a-number checker").
pub(super) fn is_numeric(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    let is_hex = hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    is_hex || (!label.is_empty() && label.bytes().all(|b| b.is_ascii_digit()))
}

/// The longest suffix of the ICANN section of the Public Suffix List. Suffixes that companies list for themselves
/// (`github.io`) are names like others here.
fn public_suffix(name: &str) -> Option<&str> {
    let mut rest = name;
    loop {
        let suffix = psl::suffix(rest.as_bytes())?;
        let tail = &rest[rest.len() - suffix.as_bytes().len()..];
        match suffix.typ()? {
            Type::Icann => return Some(tail),
            // What lies above a company's suffix is not below it, so that this ends.
            Type::Private => rest = tail.split_once('.')?.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_a_public_suffix_are_domains() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}.com", "a".repeat(57));
        assert_eq!(longest.len(), 253);
        for text in [
            "example.com",
            "EXAMPLE.Com",
            "example.com.",
            "a.b.c.example.co.uk",
            "1.2.3.com",
            "127.0.0.1.nip.io",
            "a-b.de",
            "r3---sn-4g5e6n7k.example.com",
            "xn--mnchen-3ya.de",
            "münchen.de",
            "bücher.example.org",
            "食狮.公司.cn",
            "пример.рф",
            "xn--e1afmkfd.xn--p1ai",
            "github.io",
            "me.github.io",
            "s3.amazonaws.com",
            "www.ck",
            "a.b.ck",
            "example。com",
            "ｅｘａｍｐｌｅ．ｃｏｍ",
            &format!("{label}。{label}｡{label}．com"),
            &format!("{}.com", "ａ".repeat(63)),
            &format!("{}.com", "𝐚".repeat(63)),
            "faß.de",
            &longest,
            &format!("{longest}."),
        ] {
            assert_eq!(check(text), Ok(Verdict::DomainName), "{text:?}");
        }
        assert_eq!(to_ascii("MÜNCHEN.de.").unwrap(), "xn--mnchen-3ya.de");
        assert_eq!(to_ascii("faß.de").unwrap(), "xn--fa-hia.de");
    }

    #[test]
    fn what_is_no_name_of_the_public_dns_is_refused() {
        let label = "a".repeat(64);
        let long = format!("{0}.{0}.{0}.{1}.com", "a".repeat(63), "a".repeat(58));
        assert_eq!(long.len(), 254);
        for text in [
            "",
            ".",
            "..",
            "com",
            "com.",
            "localhost",
            "a.localhost",
            "printer.local",
            "db.internal",
            "a.test",
            "a.example",
            "a.invalid",
            "facebookcorewwwi.onion",
            "A.LOCAL",
            "co.uk",
            "b.ck",
            "公司.cn",
            "a.nosuchsuffix",
            "a.b.123",
            "a.0x7f",
            "a.0x",
            "1.2.3.4",
            "127.1",
            "127.0.0.1",
            "１２７.0.0.1",
            "127。0。0。1",
            "①②⑦.0.0.1",
            "example.com..",
            "example..com",
            ".example.com",
            "-a.com",
            "a-.com",
            "a.-b.com",
            "a_b.com",
            "*.example.com",
            "a b.com",
            " a.com",
            "a.com ",
            "a.com\n",
            "a\0.com",
            "a.com:80",
            "a.com/",
            "http://a.com",
            "user@a.com",
            "a%2ecom.de",
            "a,b.com",
            "ex\u{202e}ample.com",
            "a\u{200b}\u{2028}.com",
            "xn--a.com",
            "xn--.com",
            "xn--zzzzzzzz99.com",
            "xn--xn--a--gua.com",
            "XN--aa---o47jg78q.com",
            "a\u{ad}-.com",
            "\u{300}a.com",
            "example.com。",
            "example。.com",
            &format!("{label}.com"),
            &long,
            "::1",
            "[::1]",
            "ａ＠b.com",
        ] {
            assert_eq!(check(text).map_err(|e| e.code), Err("format-domain"), "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_name_is_told() {
        let check = |text: &str, expect: &str| {
            let message = to_ascii(text).unwrap_err().message;
            assert!(message.contains(expect), "{text}: {message}");
        };
        check("a_b.com", "not a domain name");
        check("com", "only one label");
        check("127.0.0.1", "ends in a number");
        check("a.0x7f", "ends in a number");
        check("db.internal", "set aside");
        check("a.nosuchsuffix", "no public suffix");
        check("co.uk", "is a public suffix");
    }
}
