//! `ipv4`

use super::{Verdict, ip};
use crate::invalid::Invalid;

pub(super) fn check(text: &str) -> Result<Verdict, Invalid> {
    match ip::parse(text) {
        Ok(address) if address.is_ipv4() => ip::judged(address),
        Ok(_) | Err(_) => {
            let suggestion = "write four numbers from 0 to 255 with dots between them and without leading zeros";
            Err(Invalid::new("format-ip", "is not an IPv4 address", suggestion))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_four_decimal_numbers_are_an_ipv4_address() {
        let check = |text: &str, expect: Result<Verdict, &str>| {
            assert_eq!(check(text).map_err(|e| e.code), expect, "{text:?}");
        };
        check("10.0.0.1", Ok(Verdict::PrivateAddress));
        check("1.1.1.1", Ok(Verdict::PublicAddress));
        check("169.254.169.254", Err("reserved-address"));
        for text in ["", "fd00::1", "::1", "::ffff:10.0.0.1", "10.0.0.01", "10.0.0", "0xa.0.0.1", "10.0.0.1 "] {
            check(text, Err("format-ip"));
        }
    }
}
