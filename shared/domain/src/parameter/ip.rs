//! `ip`

use std::net::IpAddr;

use super::{
    Verdict,
    address::{Class, classify},
};
use crate::invalid::Invalid;

/// No address is longer, `ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255`.
const MAX_BYTES: usize = 45;

pub(super) fn check(text: &str) -> Result<Verdict, Invalid> {
    judged(parse(text)?)
}

/// IPv4 as four decimal numbers without leading zeros, or IPv6 as RFC 4291 writes it, without a zone.
pub(super) fn parse(text: &str) -> Result<IpAddr, Invalid> {
    // The standard library's parser is strict: all four numbers, decimal, no leading zeros, no zone, nothing around.
    let address = (text.len() <= MAX_BYTES).then(|| text.parse().ok()).flatten();
    address.ok_or_else(|| {
        let suggestion = "write four numbers from 0 to 255 without leading zeros, or an IPv6 address without a zone";
        Invalid::new("format-ip", "is not an IP address", suggestion)
    })
}

/// What an address stands for.
///
/// # Errors
/// It is reserved.
pub(super) fn judged(address: IpAddr) -> Result<Verdict, Invalid> {
    match classify(address) {
        Class::Private => Ok(Verdict::PrivateAddress),
        Class::Public => Ok(Verdict::PublicAddress),
        Class::Reserved => Err(Invalid::new(
            "reserved-address",
            "is a reserved address, at which no server can be reached",
            "use an address of a private network (10/8, 172.16/12, 192.168/16, fc00::/7) or a public one",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_in_one_way() {
        let check = |text: &str, expect: Result<Verdict, &str>| {
            assert_eq!(check(text).map_err(|e| e.code), expect, "{text:?}");
        };
        for text in ["10.1.2.3", "192.168.0.1", "fd00::1", "FD00::0001", "fc00:0:0:0:0:0:0:1"] {
            check(text, Ok(Verdict::PrivateAddress));
        }
        for text in ["8.8.8.8", "223.255.255.255", "2606:4700:4700::1111"] {
            check(text, Ok(Verdict::PublicAddress));
        }
        for text in ["127.0.0.1", "0.0.0.0", "::1", "::", "fe80::1", "::ffff:8.8.8.8", "2001:db8::1"] {
            check(text, Err("reserved-address"));
        }
        for text in [
            "",
            " ",
            "1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.4.",
            ".1.2.3.4",
            "1..3.4",
            "256.1.1.1",
            "1.2.3.-4",
            "+1.2.3.4",
            "01.2.3.4",
            "1.2.3.04",
            "010.0.0.1",
            "0x7f.0.0.1",
            "127.1",
            "2130706433",
            "017700000001",
            " 8.8.8.8",
            "8.8.8.8\n",
            "8.8.8.8\0",
            "8.8.8.8/32",
            "8.8.8.8:53",
            "[::1]",
            "::1%eth0",
            "fe80::1%25eth0",
            "fd00::1/64",
            ":::",
            "1::2::3",
            "12345::",
            "g::",
            "::ffff:010.0.0.1",
            "::ffff:256.0.0.1",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7",
            "８.8.8.8",
            "8。8。8。8",
            "٨.8.8.8",
            "localhost",
            "a.b.c.d",
            "1e1.0.0.1",
            "0b1.0.0.1",
            "8.8.8.8#",
            "8.8.8.8 8.8.4.4",
        ] {
            check(text, Err("format-ip"));
        }
    }
}
