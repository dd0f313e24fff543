//! RSA keys in each of their forms.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use der::{
    Decode as _,
    asn1::{AnyRef, ObjectIdentifier},
};
use pem_rfc7468::Decoder;
use pkcs1::RsaPublicKeyRef;
use spki::SubjectPublicKeyInfoRef;
use ssh_encoding::{Decode as _, Mpint, Reader as _};

use super::refused;
use crate::invalid::Invalid;

/// `rsaEncryption` (RFC 8017, appendix A.1)
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const MIN_BITS: usize = 2_048;
const MAX_BITS: usize = 8_192;
/// Exponents in use are 65537; libraries refuse those above 64 bits, which only make every use of the key slow.
const MAX_EXPONENT_BYTES: usize = 8;

/// One PEM block, `PUBLIC KEY` or `RSA PUBLIC KEY`, with at most a line break behind it.
pub(super) fn check_pem(text: &str) -> Result<(), Invalid> {
    let not_pem =
        || refused("is not a PEM block that can be read", "send the file as its program wrote it, and no other");
    let block = text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text);
    if !block.ends_with("-----") {
        return Err(not_pem());
    }
    let mut decoder = Decoder::new_detect_wrap(block.as_bytes()).map_err(|_| not_pem())?;
    let mut bytes = Vec::new();
    decoder.decode_to_end(&mut bytes).map_err(|_| not_pem())?;
    match decoder.type_label() {
        "PUBLIC KEY" => check_spki(&bytes),
        "RSA PUBLIC KEY" => check_pkcs1(&bytes),
        _ => Err(refused(
            "is a PEM block of something else than a public key",
            "send a PUBLIC KEY or RSA PUBLIC KEY block",
        )),
    }
}

/// SPKI or PKCS#1.
pub(super) fn check_der(bytes: &[u8]) -> Result<(), Invalid> {
    if SubjectPublicKeyInfoRef::try_from(bytes).is_ok() { check_spki(bytes) } else { check_pkcs1(bytes) }
}

/// What stands behind `ssh-rsa ` (RFC 4253, section 6.6): base64, and no comment.
pub(super) fn check_ssh(text: &str) -> Result<(), Invalid> {
    let read = |mut bytes: &[u8]| -> Option<(Mpint, Mpint)> {
        let bytes = &mut bytes;
        let name = String::decode(bytes).ok().filter(|name| name == "ssh-rsa")?;
        let (exponent, modulus) = (Mpint::decode(bytes).ok()?, Mpint::decode(bytes).ok()?);
        (bytes.is_finished() && !name.is_empty()).then_some((exponent, modulus))
    };
    let parts = STANDARD.decode(text).ok().and_then(|bytes| read(&bytes));
    let Some((exponent, modulus)) = parts else {
        return Err(refused("is not an ssh-rsa key", "send the first two words of its line, without the comment"));
    };
    match (modulus.as_positive_bytes(), exponent.as_positive_bytes()) {
        (Some(modulus), Some(exponent)) => check_numbers(modulus, exponent),
        (_, _) => Err(not_rsa()),
    }
}

/// Decoding refuses what stands behind the key, and every form but the shortest.
fn check_spki(bytes: &[u8]) -> Result<(), Invalid> {
    let info = SubjectPublicKeyInfoRef::try_from(bytes).map_err(|_| not_rsa())?;
    // RFC 3279, section 2.3.1: the parameters are there, and NULL.
    if info.algorithm.oid != RSA_ENCRYPTION || info.algorithm.parameters != Some(AnyRef::NULL) {
        return Err(not_rsa());
    }
    check_pkcs1(info.subject_public_key.as_bytes().ok_or_else(not_rsa)?)
}

fn check_pkcs1(bytes: &[u8]) -> Result<(), Invalid> {
    let key = RsaPublicKeyRef::from_der(bytes).map_err(|_| not_rsa())?;
    check_numbers(key.modulus.as_bytes(), key.public_exponent.as_bytes())
}

/// Both in big-endian order, without leading zeros.
fn check_numbers(modulus: &[u8], exponent: &[u8]) -> Result<(), Invalid> {
    let leading = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - leading;
    if !(MIN_BITS..=MAX_BITS).contains(&bits) {
        return Err(refused("is an RSA key of too few or too many bits", "use one of 2,048 to 8,192 bits"));
    }
    if !is_odd(modulus) {
        return Err(refused("is an RSA key whose modulus is even, which no key's is", "make a new key pair"));
    }
    let value = exponent.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    if exponent.len() > MAX_EXPONENT_BYTES || value < 65_537 || !is_odd(exponent) {
        let suggestion = "make a new key pair with the exponent 65537";
        return Err(refused("is an RSA key whose exponent is even, below 65537 or above 64 bits", suggestion));
    }
    Ok(())
}

fn is_odd(bytes: &[u8]) -> bool {
    bytes.last().is_some_and(|byte| byte % 2 == 1)
}

fn not_rsa() -> Invalid {
    let suggestion =
        "send an RSA key as SPKI or PKCS#1 and nothing behind it, or the 32 bytes of an Ed25519 key in base64";
    refused("is not an RSA public key", suggestion)
}
