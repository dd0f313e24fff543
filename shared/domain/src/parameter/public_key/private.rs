//! Private keys that were pasted by mistake.
//!
//! Their owner has to hear more than "not a public key": the key pair is to be replaced. So everything that looks like one
//! counts, well-formed or not, and whatever was done to its blanks and line breaks on the way here.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// In PEM of every kind (PKCS#1, PKCS#8, SEC1, OpenSSH, PGP, SSH2), in `PuTTY`'s files, and in those of age and minisign.
const MARKS: &[&str] = &["PRIVATE KEY", "PUTTY-USER-KEY-FILE", "AGE-SECRET-KEY-", "SECRET KEY"];
/// The start of what OpenSSH puts into its PEM.
const OPENSSH: &[u8] = b"openssh-key-v1\0";
/// Bytes of an Ed25519 public key, which may begin with anything; no private key in DER is so short.
const ED25519_PUBLIC_BYTES: usize = 32;
/// Bytes of an Ed25519 secret as libsodium and `RustDesk` write it: the seed, then the public key.
const ED25519_SECRET_BYTES: usize = 64;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn is_private(text: &str) -> bool {
    if has_mark(text) || is_private_jwk(text) {
        return true;
    }
    let compact: String = text.replace("\\n", "").chars().filter_map(base64_char).collect();
    LENIENT.decode(compact).is_ok_and(|bytes| {
        bytes.len() == ED25519_SECRET_BYTES
            || bytes.starts_with(OPENSSH)
            || (bytes.len() != ED25519_PUBLIC_BYTES && is_private_der(&bytes))
            || has_mark(&String::from_utf8_lossy(&bytes))
    })
}

fn has_mark(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    MARKS.iter().any(|mark| upper.contains(mark))
}

/// A JSON Web Key with its private member (RFC 7517; RFC 7518, section 6).
fn is_private_jwk(text: &str) -> bool {
    let Ok(serde_json::Value::Object(key)) = serde_json::from_str(text) else { return false };
    key.contains_key("kty") && (key.contains_key("d") || key.contains_key("k"))
}

/// Either alphabet of base64 in the standard one's letters; blanks, line breaks and quotes are no part of it.
fn base64_char(c: char) -> Option<char> {
    match c {
        '-' => Some('+'),
        '_' => Some('/'),
        '"' | '\'' => None,
        c if c.is_whitespace() => None,
        c => Some(c),
    }
}

/// A sequence that begins with a version, as PKCS#1, PKCS#8 and SEC1 private keys do, or with an algorithm and then bytes,
/// as encrypted PKCS#8 does. A public key begins with a modulus, or with an algorithm and then bits.
fn is_private_der(bytes: &[u8]) -> bool {
    const INTEGER: u8 = 0x02;
    const OCTET_STRING: u8 = 0x04;
    const SEQUENCE: u8 = 0x30;
    let Some((SEQUENCE, _, content)) = header(bytes) else { return false };
    match header(content) {
        Some((INTEGER, 1, value)) => matches!(value.first(), Some(0 | 1)),
        Some((SEQUENCE, length, algorithm)) => {
            matches!(algorithm.get(length..).and_then(header), Some((OCTET_STRING, _, _)))
        }
        Some(_) | None => false,
    }
}

/// Tag, length and what follows the length; the key may be cut, so that this can be shorter.
fn header(bytes: &[u8]) -> Option<(u8, usize, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if first < 0x80 {
        return Some((tag, usize::from(first), rest));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(length, _)| length.len() <= 4)?;
    Some((tag, length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest))
}
