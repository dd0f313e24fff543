//! Whom an IP address belongs to.
//!
//! Source: the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890) as of October 2025, and for what is
//! multicast, site-local or embeds an IPv4 address the IANA IPv4 and IPv6 address space registries. A prefix that a
//! registry lists is not for everybody, even where it says "globally reachable": what answers there is whatever is nearest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Whom an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The networks that everybody may have for themselves. It passes.
    Private,
    /// Set aside for a purpose; never somebody's server. It is refused.
    Reserved,
    /// Of the public internet.
    Public,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    pub net: IpNet,
    pub class: Class,
    /// As the registry calls it.
    pub purpose: &'static str,
}

/// The class of the longest prefix that holds the address; public without one.
pub fn classify(address: IpAddr) -> Class {
    classify_by(RANGES, address)
}

fn classify_by(ranges: &[Range], address: IpAddr) -> Class {
    let longest = ranges.iter().filter(|range| range.net.contains(&address)).max_by_key(|range| range.net.prefix_len());
    longest.map_or(Class::Public, |range| range.class)
}

const fn v4(address: [u8; 4], length: u8, class: Class, purpose: &'static str) -> Range {
    Range { net: IpNet::new_assert(IpAddr::V4(Ipv4Addr::from_octets(address)), length), class, purpose }
}

const fn v6(address: [u16; 8], length: u8, class: Class, purpose: &'static str) -> Range {
    Range { net: IpNet::new_assert(IpAddr::V6(Ipv6Addr::from_segments(address)), length), class, purpose }
}

use Class::{Private, Reserved};

/// Every prefix that is not public.
pub const RANGES: &[Range] = &[
    // IPv4
    v4([0, 0, 0, 0], 8, Reserved, "this network (RFC 791)"),
    v4([10, 0, 0, 0], 8, Private, "private use (RFC 1918)"),
    v4([100, 64, 0, 0], 10, Reserved, "shared address space (RFC 6598)"),
    v4([127, 0, 0, 0], 8, Reserved, "loopback (RFC 1122)"),
    v4([169, 254, 0, 0], 16, Reserved, "link local (RFC 3927)"),
    v4([172, 16, 0, 0], 12, Private, "private use (RFC 1918)"),
    v4([192, 0, 0, 0], 24, Reserved, "IETF protocol assignments (RFC 6890)"),
    v4([192, 0, 2, 0], 24, Reserved, "documentation, TEST-NET-1 (RFC 5737)"),
    v4([192, 31, 196, 0], 24, Reserved, "AS112-v4 (RFC 7535)"),
    v4([192, 52, 193, 0], 24, Reserved, "AMT (RFC 7450)"),
    v4([192, 88, 99, 0], 24, Reserved, "6to4 relay anycast, deprecated (RFC 7526)"),
    v4([192, 168, 0, 0], 16, Private, "private use (RFC 1918)"),
    v4([192, 175, 48, 0], 24, Reserved, "direct delegation AS112 service (RFC 7534)"),
    v4([198, 18, 0, 0], 15, Reserved, "benchmarking (RFC 2544)"),
    v4([198, 51, 100, 0], 24, Reserved, "documentation, TEST-NET-2 (RFC 5737)"),
    v4([203, 0, 113, 0], 24, Reserved, "documentation, TEST-NET-3 (RFC 5737)"),
    v4([224, 0, 0, 0], 4, Reserved, "multicast (RFC 5771)"),
    v4([240, 0, 0, 0], 4, Reserved, "reserved (RFC 1112)"),
    v4([255, 255, 255, 255], 32, Reserved, "limited broadcast (RFC 919)"),
    // IPv6
    v6([0, 0, 0, 0, 0, 0, 0, 0], 8, Reserved, "reserved by IETF; IPv4-compatible and IPv4-translated (RFC 4291)"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, Reserved, "unspecified (RFC 4291)"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, Reserved, "loopback (RFC 4291)"),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, Reserved, "IPv4-mapped (RFC 4291)"),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, Reserved, "IPv4-IPv6 translation (RFC 6052)"),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Reserved, "IPv4-IPv6 translation, local use (RFC 8215)"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, Reserved, "discard only (RFC 6666)"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, Reserved, "dummy prefix (RFC 9780)"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Reserved, "IETF protocol assignments (RFC 2928), Teredo among them"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Reserved, "documentation (RFC 3849)"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Reserved, "6to4 (RFC 3056)"),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48, Reserved, "direct delegation AS112 service (RFC 7534)"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Reserved, "documentation (RFC 9637)"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, Reserved, "segment routing identifiers (RFC 9602)"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Private, "unique local (RFC 4193)"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Reserved, "link local (RFC 4291)"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Reserved, "site local, deprecated (RFC 3879)"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Reserved, "multicast (RFC 4291)"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(address: &str, class: Class) {
        assert_eq!(classify(address.parse().unwrap()), class, "{address}");
    }

    #[test]
    fn every_range_ends_where_it_ends() {
        let step = |address: IpAddr, up: bool| match address {
            IpAddr::V4(v4) => {
                let bits = if up { v4.to_bits().checked_add(1) } else { v4.to_bits().checked_sub(1) };
                bits.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
            }
            IpAddr::V6(v6) => {
                let bits = if up { v6.to_bits().checked_add(1) } else { v6.to_bits().checked_sub(1) };
                bits.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
            }
        };
        for range in RANGES {
            let (first, last) = (range.net.network(), range.net.broadcast());
            assert_eq!(range.net.addr(), first, "{} has bits below its prefix", range.net);
            for inside in [first, last] {
                assert_eq!(classify(inside), range.class, "{inside} of {}", range.net);
            }
            for outside in [step(first, false), step(last, true)].into_iter().flatten() {
                let others = RANGES.iter().filter(|other| other.net != range.net && other.net.contains(&outside));
                let expect =
                    others.max_by_key(|other| other.net.prefix_len()).map_or(Class::Public, |other| other.class);
                assert_eq!(classify(outside), expect, "{outside} beside {}", range.net);
            }
        }
    }

    #[test]
    fn no_range_is_there_twice_and_none_contradicts_what_holds_it() {
        for (i, range) in RANGES.iter().enumerate() {
            for other in &RANGES[..i] {
                assert_ne!(range.net, other.net);
                if range.net.contains(&other.net) || other.net.contains(&range.net) {
                    assert_eq!(range.class, other.class, "{} and {}", range.net, other.net);
                }
            }
        }
    }

    #[test]
    fn the_longest_prefix_decides_in_whatever_order_they_stand() {
        let mut ranges = [
            v4([10, 1, 0, 0], 16, Reserved, "the middle"),
            v4([10, 0, 0, 0], 8, Private, "the whole"),
            v4([10, 1, 1, 0], 24, Class::Public, "the inside"),
        ];
        for _ in 0..ranges.len() {
            ranges.rotate_left(1);
            let class = |address: [u8; 4]| classify_by(&ranges, address.into());
            assert_eq!(class([10, 0, 0, 1]), Private);
            assert_eq!(class([10, 1, 0, 1]), Reserved);
            assert_eq!(class([10, 1, 1, 1]), Class::Public);
        }
    }

    #[test]
    fn private_networks_pass() {
        for address in ["10.0.0.1", "172.16.0.0", "172.31.255.255", "192.168.255.255", "fc00::1", "fdff:ffff::1"] {
            check(address, Private);
        }
    }

    #[test]
    fn what_lies_beside_a_range_is_public() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::",
            "2001:db7:ffff::",
            "2001:db9::",
            "2003::",
            "2606:4700:4700::1111",
            "3fff:1000::",
            "fbff::",
        ] {
            check(address, Class::Public);
        }
    }

    #[test]
    fn what_the_registries_list_is_reserved() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "192.0.0.9",
            "192.0.0.170",
            "192.0.2.1",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.175.48.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "100:0:0:1::1",
            "ff::1",
            "2001::1",
            "2001:1::1",
            "2001:2::1",
            "2001:20::1",
            "2001:30::1",
            "2001:1ff:ffff::",
            "2001:db8::1",
            "2620:4f:8000::1",
            "3fff::1",
            "5f00::1",
        ] {
            check(address, Reserved);
        }
    }

    #[test]
    fn an_ipv4_address_inside_an_ipv6_address_is_reserved_whatever_it_is() {
        for inner in ["10.0.0.1", "1.1.1.1", "127.0.0.1", "169.254.169.254"] {
            let bits = inner.parse::<Ipv4Addr>().unwrap().to_bits();
            let (high, low) = (bits >> 16, bits & 0xffff);
            for outer in [
                format!("::ffff:{inner}"),
                format!("::{inner}"),
                format!("::ffff:0:{inner}"),
                format!("64:ff9b::{inner}"),
                format!("64:ff9b:1::{inner}"),
                format!("2002:{high:x}:{low:x}::1"),
                format!("2001:0:{high:x}:{low:x}::1"),
            ] {
                check(&outer, Reserved);
            }
        }
    }

    proptest! {
        /// What the standard library says of some classes, beside the table.
        #[test]
        fn the_standard_library_agrees(high: u32, low: u128) {
            let v4 = Ipv4Addr::from_bits(high);
            let reserved = v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast()
                || v4.is_documentation() || v4.is_unspecified();
            let class = classify(v4.into());
            prop_assert_eq!(v4.is_private(), class == Private, "{}", v4);
            prop_assert!(!reserved || class == Reserved, "{}", v4);
            let v6 = Ipv6Addr::from_bits(low);
            let class = classify(v6.into());
            prop_assert_eq!(v6.is_unique_local(), class == Private, "{}", v6);
            prop_assert!(!(v6.is_multicast() || v6.is_unicast_link_local()) || class == Reserved, "{}", v6);
        }
    }
}
