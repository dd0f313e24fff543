//! `public_key`

mod private;
mod rsa;

#[cfg(test)]
mod tests;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use curve25519_dalek::edwards::CompressedEdwardsY;
use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::invalid::Invalid;

/// Twice what the largest key takes in its longest form; nothing above is looked at.
const MAX_BYTES: usize = 16 * 1024;

/// Which public keys a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// 2,048 to 8,192 bits, as SPKI or PKCS#1 in PEM or base64 DER, or as `ssh-rsa`.
    Rsa,
    /// 32 bytes in standard base64, the form `RustDesk` uses.
    Ed25519,
}

impl Algorithm {
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        match name {
            "rsa" => Ok(Self::Rsa),
            "ed25519" => Ok(Self::Ed25519),
            _ => Err(Invalid::new("unknown-value", "is not an algorithm of public keys", "use one of rsa, ed25519")),
        }
    }
}

pub(super) fn check(text: &str, allowed: Option<&[Algorithm]>) -> Result<Verdict, Invalid> {
    if text.len() > MAX_BYTES {
        return Err(refused("is longer than any public key", "send the public key alone"));
    }
    if private::is_private(text) {
        return Err(Invalid::new(
            "private-key",
            "is a private key",
            "send the public key instead, and replace this key pair: the private half has left its place",
        ));
    }
    let algorithm = read(text)?;
    if allowed.is_some_and(|allowed| !allowed.contains(&algorithm)) {
        let (is, other) = match algorithm {
            Algorithm::Rsa => ("is an RSA key, which the application does not take here", "send an Ed25519 key"),
            Algorithm::Ed25519 => ("is an Ed25519 key, which the application does not take here", "send an RSA key"),
        };
        return Err(refused(is, other));
    }
    Ok(Verdict::Plain)
}

fn read(text: &str) -> Result<Algorithm, Invalid> {
    if text.starts_with("-----BEGIN") {
        return rsa::check_pem(text).map(|()| Algorithm::Rsa);
    }
    if let Some(rest) = text.strip_prefix("ssh-rsa ") {
        return rsa::check_ssh(rest).map(|()| Algorithm::Rsa);
    }
    let Ok(bytes) = STANDARD.decode(text) else {
        return Err(refused(
            "is not a public key in a form that is known",
            "send RSA as PEM, base64 DER or ssh-rsa without a comment, or the 32 bytes of an Ed25519 key in base64, on one line",
        ));
    };
    match <[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(point) => check_ed25519(point).map(|()| Algorithm::Ed25519),
        Err(_) => rsa::check_der(&bytes).map(|()| Algorithm::Rsa),
    }
}

/// A point of the curve, written in the one canonical way, and not one of the eight of small order, for which signatures
/// can be made without a private key (RFC 8032, section 5.1.3; "Taming the many `EdDSAs`", section 2).
fn check_ed25519(bytes: [u8; 32]) -> Result<(), Invalid> {
    let encoded = CompressedEdwardsY(bytes);
    let point = encoded.decompress().filter(|point| point.compress() == encoded);
    match point {
        Some(point) if !point.is_small_order() => Ok(()),
        Some(_) => Err(refused("is a weak Ed25519 key", "make a new key pair")),
        None => Err(refused("is not an Ed25519 key", "send the public key as its program wrote it")),
    }
}

fn refused(why: &str, suggestion: &str) -> Invalid {
    Invalid::new("format-public-key", why, suggestion)
}
