//! Tokens that we issue: `whk_` and `dw_`, 32 random bytes in base62 and a checksum.
//!
//! The checksum catches a typo without a look-up and lets secret scanners match `\b(whk|dw)_[0-9A-Za-z]{49}\b` with few
//! false alarms.

use crate::{invalid::Invalid, secret::Secret};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 > 2^256.
const BODY_LENGTH: usize = 43;
/// 62^6 > 2^32.
const CHECKSUM_LENGTH: usize = 6;

/// What a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Deploys one application.
    Webhook,
}

impl TokenKind {
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Webhook => "whk_",
        }
    }
}

/// A well-formed token: right prefix, length, alphabet and checksum. Whether it opens anything, the store knows.
#[derive(Debug)]
pub struct Token {
    text: Secret<String>,
}

impl Token {
    pub fn from_random(kind: TokenKind, random: &[u8; 32]) -> Self {
        let mut text = kind.prefix().to_owned();
        text.push_str(&base62(random, BODY_LENGTH));
        let checksum = crc32fast::hash(text.as_bytes());
        text.push_str(&base62(&checksum.to_be_bytes(), CHECKSUM_LENGTH));
        Self { text: Secret::new(text) }
    }

    /// # Errors
    /// One and the same for everything that is wrong with a token.
    pub fn parse(kind: TokenKind, text: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("format-token", "is not a token", "copy the whole token, as it was shown once");
        let body = text.strip_prefix(kind.prefix()).ok_or_else(refused)?;
        if body.len() != BODY_LENGTH + CHECKSUM_LENGTH || !body.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(refused());
        }
        let (signed, checksum) = text.split_at(text.len() - CHECKSUM_LENGTH);
        if base62(&crc32fast::hash(signed.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH) != checksum {
            return Err(refused());
        }
        Ok(Self { text: Secret::new(text.to_owned()) })
    }

    /// To be shown once, or hashed.
    pub fn expose(&self) -> &str {
        self.text.expose()
    }

    /// The first characters, enough to tell two tokens apart: `whk_3f`.
    pub fn hint(&self) -> String {
        self.text.expose().chars().take(6).collect::<String>() + "…"
    }
}

/// Big-endian bytes as a base62 number of fixed length.
fn base62(bytes: &[u8], length: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![ALPHABET[0]; length];
    for digit in digits.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("the quotient of a two-digit number by more than its first digit");
            remainder = value % 62;
        }
        *digit = ALPHABET[remainder as usize];
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_is_read_back_and_no_single_changed_character_is(random: [u8; 32], at in 4_usize..53, to in "[0-9A-Za-z]") {
            let token = Token::from_random(TokenKind::Webhook, &random);
            let text = token.expose().to_owned();
            prop_assert_eq!(text.len(), 53);
            prop_assert!(Token::parse(TokenKind::Webhook, &text).is_ok());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(Token::parse(TokenKind::Webhook, &changed).is_ok(), changed == text);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}") {
            let _ = Token::parse(TokenKind::Webhook, &text);
        }
    }
}
