//! The seed's form of an encrypted value, `iv:tag:encrypted_data`: AES-256-GCM as Node's `crypto` writes it.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::secret::Secret;

/// An encrypted value, taken apart. Who has the old key opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// 12 or 16 bytes: `randomBytes(12)` is what GCM asks for, `randomBytes(16)` what CBC taught.
    pub iv: Vec<u8>,
    pub tag: [u8; 16],
    pub data: Vec<u8>,
}

impl Sealed {
    /// `None` for any other text, which then is a value as it stands. Hexadecimal is tried first: it is what such code
    /// usually writes, and hexadecimal digits are base64 as well.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (iv, tag, data) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let decoded = |decode: fn(&str) -> Option<Vec<u8>>| {
            let (iv, tag, data) = (decode(iv)?, decode(tag)?, decode(data)?);
            matches!(iv.len(), 12 | 16).then_some(())?;
            Some(Self { iv, tag: tag.try_into().ok()?, data })
        };
        decoded(hex).or_else(|| decoded(base64))
    }
}

/// What it hides is a secret, and how long it is, too.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(***)")
    }
}

/// Pairs of hexadecimal digits.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<_> = text.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

/// Either alphabet, with padding or without.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(bare).ok()
}

/// The old key: 32 bytes, as hexadecimal digits or in base64.
pub fn old_key(text: &str) -> Option<Secret<[u8; 32]>> {
    let text = text.trim();
    let fitting = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).ok().map(Secret::new);
    hex(text).and_then(fitting).or_else(|| base64(text).and_then(fitting))
}
