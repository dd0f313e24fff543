//! `url`

use super::{
    Verdict,
    host::{self, Host},
};
use crate::invalid::Invalid;

const MAX_LENGTH: usize = 2_048;

/// The text is taken apart as it is written, before any parser makes it nicer: what one of them silently mends, another one
/// reads differently. The `url` crate then has to find the same host and port.
pub(super) fn check(text: &str) -> Result<Verdict, Invalid> {
    // A character has at most four bytes; whoever sends more than that pays for no counting.
    if text.len() > 4 * MAX_LENGTH || text.chars().count() > MAX_LENGTH {
        return Err(refused("has more than 2,048 characters", "use a shorter URL"));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, '\\' | '#')) {
        return Err(refused(
            "has a blank, a control character, a backslash or a fragment",
            "percent-encode or remove it",
        ));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => 80,
        "https" => 443,
        _ => {
            return Err(refused(
                "does not begin with http:// or https://",
                "write the whole URL, as in https://host/path",
            ));
        }
    };
    let (authority, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !after.is_ascii() {
        return Err(refused("has other characters than ASCII behind its host", "percent-encode them"));
    }
    if authority.contains('@') {
        return Err(refused(
            "has a user name or a password",
            "leave it out; use a sensitive parameter of its own for it",
        ));
    }
    let (written, port) = split_port(authority)?;
    let port = port.map(host::check_port).transpose().map_err(of_url)?;
    let host = host::parse(written).map_err(of_url)?;
    let verdict = host.judged()?;
    if !is_read_so(text, &host, port.unwrap_or(default_port)) {
        return Err(refused("is read in more than one way", "write it plainly, as in https://host:8443/path"));
    }
    Ok(verdict)
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), Invalid> {
    let Some(rest) = authority.strip_prefix('[') else {
        return Ok(authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))));
    };
    let parts = rest.split_once(']').filter(|(host, _)| host.contains(':'));
    let parts = parts.and_then(|(host, port)| match port {
        "" => Some((host, None)),
        port => port.strip_prefix(':').map(|port| (host, Some(port))),
    });
    parts.ok_or_else(|| refused("has brackets without an IPv6 address", "write it as in http://[fd00::1]:8080/"))
}

/// Whether the parser of the URL standard finds the same.
fn is_read_so(text: &str, host: &Host, port: u16) -> bool {
    let Ok(url) = ::url::Url::parse(text) else { return false };
    let same_host = match (url.host(), host) {
        (Some(::url::Host::Ipv4(read)), Host::Address(ours)) => *ours == read,
        (Some(::url::Host::Ipv6(read)), Host::Address(ours)) => *ours == read,
        (Some(::url::Host::Domain(read)), Host::Name(ours)) => read.strip_suffix('.').unwrap_or(read) == ours,
        (Some(_) | None, _) => false,
    };
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    same_host && bare && url.port_or_known_default() == Some(port)
}

/// A fault of the host, said of the URL.
fn of_url(fault: Invalid) -> Invalid {
    Invalid::new("format-url", format!("has a host that {}", fault.message), fault.suggestion)
}

fn refused(why: &str, suggestion: &str) -> Invalid {
    Invalid::new("format-url", why, suggestion)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<Verdict, &str>) {
        assert_eq!(super::check(text).map_err(|e| e.code), expect, "{text:?}");
    }

    #[test]
    fn a_url_is_classified_by_its_host() {
        for text in ["http://10.0.0.1", "https://192.168.1.1:8443/a?b=c", "http://[fd00::1]/", "HTTP://10.0.0.1:1?x"] {
            check(text, Ok(Verdict::PrivateAddress));
        }
        for text in ["https://8.8.8.8/", "https://[2606:4700::1111]:443/a//b/../c", "http://8.8.8.8?"] {
            check(text, Ok(Verdict::PublicAddress));
        }
        for text in [
            "https://example.com",
            "https://EXAMPLE.com:65535/%20?a=b&c=d@e:f",
            "http://example.com./",
            "https://münchen.de/",
            "https://api.example.co.uk/?u=http://10.0.0.1/",
            "https://10.0.0.1.nip.io/",
            "https://example.com/a;b=(c)",
        ] {
            check(text, Ok(Verdict::DomainName));
        }
        let longest = format!("https://example.com/{}", "a".repeat(2_048 - 20));
        check(&longest, Ok(Verdict::DomainName));
        check(&format!("{longest}a"), Err("format-url"));
    }

    #[test]
    fn a_reserved_address_is_refused_in_a_url_too() {
        for text in [
            "http://127.0.0.1/",
            "http://0.0.0.0:80",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/",
            "http://[::ffff:a00:1]/",
            "http://[64:ff9b::808:808]/",
        ] {
            check(text, Err("reserved-address"));
        }
    }

    #[test]
    fn what_parsers_disagree_on_is_refused() {
        for text in [
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://017700000001/",
            "http://0x7f000001/",
            "http://0/",
            "http://10.0.0.010/",
            "http://10.0.0.1./",
            "http://１２７.0.0.1/",
            "http://127。0。0。1/",
            "http://127.0.0.1%2f/",
            "http://①②⑦.⓪.⓪.①/",
            "http://%31%30.0.0.1/",
            "http://0xa.0xa.0xa.0xa/",
            "http://example.0x7f/",
            "http://user@10.0.0.1/",
            "http://user:pass@10.0.0.1/",
            "http://@10.0.0.1/",
            "http://10.0.0.1@evil.com/",
            "http://10.0.0.1:80@evil.com/",
            "http://evil.com\\@10.0.0.1/",
            "http://10.0.0.1\\.evil.com/",
            "http:\\\\10.0.0.1/",
            "http://10.0.0.1#@evil.com/",
            "http://10.0.0.1/#",
            "http://10.0.0.1?#",
            "http:///10.0.0.1/",
            "http:/10.0.0.1/",
            "http:10.0.0.1",
            "//10.0.0.1/",
            "10.0.0.1/",
            "http://",
            "http:///",
            "http://?",
            "https://:443/",
            "http://10.0.0.1:/",
            "http://10.0.0.1:0/",
            "http://10.0.0.1:65536/",
            "http://10.0.0.1:080/",
            "http://10.0.0.1:+80/",
            "http://10.0.0.1:80:80/",
            "http://10.0.0.1: 80/",
            "ftp://10.0.0.1/",
            "file:///etc/passwd",
            "javascript://a.com/",
            "https+unix://10.0.0.1/",
            "ｈttp://10.0.0.1/",
            " http://10.0.0.1/",
            "http://10.0.0.1/ ",
            "http://10.0.0.1/\n",
            "ht\ntp://10.0.0.1/",
            "http://10.0\t.0.1/",
            "http://10.0.0.1/a b",
            "http://10.0.0.1/\0",
            "http://10.0.0.1/\u{a0}",
            "http://10.0.0.1/ü",
            "http://10.0.0.1/\u{202e}",
            "http://[fd00::1%25eth0]/",
            "http://[fd00::1/",
            "http://fd00::1/",
            "http://[fd00::1]80/",
            "http://[fd00::1]x/",
            "http://[10.0.0.1]/",
            "http://[]/",
            "http://[v1.a]/",
            "http://localhost/",
            "http://db/",
            "http://db.internal/",
            "http://a.nosuchsuffix/",
            "http://co.uk/",
            "http://a_b.com/",
            "http://-a.com/",
            "http://exa%6dple.com/",
            "http://example。com%2f/",
            "http://ex ample.com/",
            "http://a..com/",
            "http://.com/",
            "",
            "http://10.0.0.1/a\\b",
            "http://10.0.0.1/?a\\b",
            "view-source:http://10.0.0.1/",
            "http://http://10.0.0.1/",
            "http://10.0.0.1,evil.com/",
            "http://10.0.0.1;evil.com/",
        ] {
            check(text, Err("format-url"));
        }
    }

    #[test]
    fn a_user_name_is_told_apart_from_a_wrong_host() {
        for text in ["http://user@10.0.0.1/", "http://user:pass@example.com/", "http://10.0.0.1:80@example.com/"] {
            assert!(super::check(text).unwrap_err().message.contains("user name"), "{text}");
        }
    }

    #[test]
    fn whatever_another_parser_reads_otherwise_is_refused() {
        let address = Host::Address([10, 0, 0, 1].into());
        let name = Host::Name("example.com".to_owned());
        let check = |text: &str, host: &Host, port: u16, same: bool| {
            assert_eq!(is_read_so(text, host, port), same, "{text}");
        };
        check("http://10.0.0.1/", &address, 80, true);
        check("https://10.0.0.1/", &address, 443, true);
        check("http://0xa.1/", &address, 80, true);
        check("http://10.0.0.2/", &address, 80, false);
        check("http://10.0.0.1/", &address, 443, false);
        check("http://user@10.0.0.1/", &address, 80, false);
        check("http://:a@10.0.0.1/", &address, 80, false);
        check("http://10.0.0.1/#a", &address, 80, false);
        check("http://10.0.0.1.example.com/", &address, 80, false);
        check("http://[::ffff:10.0.0.1]/", &address, 80, false);
        check("http://EXAMPLE.com.:8080/", &name, 8_080, true);
        check("http://example.com.evil.net/", &name, 80, false);
        check("http://10.0.0.1/", &name, 80, false);
        check("no URL", &name, 80, false);
    }
}
