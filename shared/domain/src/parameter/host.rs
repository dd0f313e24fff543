//! `host`

use std::net::IpAddr;

use super::{Verdict, domain, ip};
use crate::invalid::Invalid;

/// The longest name, each of its characters four bytes, and a port.
const MAX_BYTES: usize = 1_024 + 8;

pub(super) fn check(text: &str) -> Result<Verdict, Invalid> {
    let (host, port) = split(text)?;
    if let Some(port) = port {
        check_port(port)?;
    }
    parse(host)?.judged()
}

/// What comes before a port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Host {
    Address(IpAddr),
    /// In lower-case ASCII and without the root's dot.
    Name(String),
}

impl Host {
    pub(super) fn judged(&self) -> Result<Verdict, Invalid> {
        match self {
            Self::Address(address) => ip::judged(*address),
            Self::Name(_) => Ok(Verdict::DomainName),
        }
    }
}

/// An address without brackets, or a domain name. What a lenient parser would take for an address is judged as one, and
/// strictly: `127.1`, `2130706433` and `0x7f.1` are neither addresses nor names.
pub(super) fn parse(text: &str) -> Result<Host, Invalid> {
    let last = text.strip_suffix('.').unwrap_or(text).rsplit('.').next().unwrap_or_default();
    if text.contains(':') || domain::is_numeric(last) {
        return ip::parse(text).map(Host::Address);
    }
    domain::to_ascii(text).map(Host::Name)
}

/// 1 to 65535 in decimal digits, without leading zeros.
pub(super) fn check_port(text: &str) -> Result<u16, Invalid> {
    let digits = text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let port = text.parse().ok().filter(|_| digits);
    port.ok_or_else(|| refused("has no port from 1 to 65535 behind its colon", "write it as in host:8080"))
}

fn split(text: &str) -> Result<(&str, Option<&str>), Invalid> {
    if text.len() > MAX_BYTES {
        return Err(refused("is too long for a host", "use an address or a name of at most 253 characters"));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let parts = rest.split_once("]:").filter(|(host, _)| host.contains(':'));
        return parts.map(|(host, port)| (host, Some(port))).ok_or_else(|| {
            refused(
                "has brackets without an IPv6 address and a port",
                "write [fd00::1]:8080, or fd00::1 without a port",
            )
        });
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn refused(why: &str, suggestion: &str) -> Invalid {
    Invalid::new("format-host", why, suggestion)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<Verdict, &str>) {
        assert_eq!(super::check(text).map_err(|e| e.code), expect, "{text:?}");
    }

    #[test]
    fn a_host_is_an_address_or_a_name_with_or_without_a_port() {
        for text in ["10.0.0.1", "10.0.0.1:1", "192.168.1.1:65535", "fd00::1", "[fd00::1]:443"] {
            check(text, Ok(Verdict::PrivateAddress));
        }
        for text in ["8.8.8.8", "8.8.8.8:53", "2606:4700::1111", "[2606:4700::1111]:53"] {
            check(text, Ok(Verdict::PublicAddress));
        }
        for text in ["example.com", "example.com:21116", "example.com.", "example.com.:80", "münchen.de:80"] {
            check(text, Ok(Verdict::DomainName));
        }
    }

    #[test]
    fn what_a_lenient_parser_would_take_for_an_address_is_no_host() {
        for text in [
            "2130706433",
            "0x7f.1",
            "127.1",
            "017700000001",
            "0x7f000001",
            "127.0.0.01",
            "127.0.0.1.",
            "0177.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "256.256.256.256",
            "0",
            "0x",
            "0X7F.1",
            "10.0.0.0x1",
            "example.123",
            "example.0x1",
            "2130706433:80",
            "fd00::1%eth0",
            "[fd00::1%25eth0]:80",
            "1:2:3",
            "fd00::1:99999",
        ] {
            check(text, Err("format-ip"));
        }
        for text in
            ["１２７。0。0。1", "①②⑦.0.0.①", "127。1", "%31%32%37.0.0.%31", "localhost", "localhost:80", "a", ""]
        {
            check(text, Err("format-domain"));
        }
        for text in ["127.0.0.1", "127.0.0.1:80", "[::1]:80", "[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1", "0.0.0.0:80"] {
            check(text, Err("reserved-address"));
        }
    }

    #[test]
    fn a_port_is_written_plainly() {
        for text in [
            "8.8.8.8:",
            "8.8.8.8:0",
            "8.8.8.8:65536",
            "8.8.8.8:99999999999999999999",
            "8.8.8.8:+80",
            "8.8.8.8:080",
            "8.8.8.8: 80",
            "8.8.8.8:80 ",
            "8.8.8.8:８０",
            "example.com:http",
            "example.com:80/",
            "example.com:-1",
            "[fd00::1]",
            "[fd00::1]:",
            "[fd00::1]80",
            "[fd00::1",
            "[8.8.8.8]:80",
            "[example.com]:80",
            "[]:80",
            "[fd00::1]:80:80",
        ] {
            check(text, Err("format-host"));
        }
        check("fd00::1]:80", Err("format-ip"));
        check("user@example.com", Err("format-domain"));
        check("http://example.com", Err("format-host"));
        check("example.com/path", Err("format-domain"));
    }
}
