//! The key that V2's predecessor encrypted secrets with. It only opens: whatever is stored anew is sealed by the
//! installation.

use aes_gcm::{
    Aes256Gcm, AesGcm,
    aead::{Aead, KeyInit, Nonce, Payload, consts::U16},
    aes::Aes256,
};
use tidegate_domain::{
    import_v1::{Closed, Sealed, old_key},
    secret::Secret,
};

/// 32 bytes.
pub(super) struct OldKey(Secret<[u8; 32]>);

impl OldKey {
    pub(super) fn parse(text: &Secret<String>) -> Option<Self> {
        old_key(text.expose()).map(Self)
    }

    /// Node's `aes-256-gcm` takes an IV of any length, and `randomBytes(16)` is as usual as `randomBytes(12)`. GCM hashes
    /// one that has not 12 bytes (NIST SP 800-38D, 7.1), which aws-lc-rs does not offer.
    pub(super) fn open(&self, sealed: &Sealed) -> Result<Secret<String>, Closed> {
        let opened = match sealed.iv.len() {
            12 => decrypt::<Aes256Gcm>(self.0.expose(), sealed),
            16 => decrypt::<AesGcm<Aes256, U16>>(self.0.expose(), sealed),
            _ => None,
        };
        let bytes = opened.ok_or(Closed::WrongKey)?;
        String::from_utf8(bytes).map(Secret::new).map_err(|error| {
            // Wiped like any other.
            drop(Secret::new(error.into_bytes()));
            Closed::NotText
        })
    }
}

#[expect(deprecated, reason = "of the release of generic-array that the crate aes-gcm is built on")]
fn decrypt<C: Aead + KeyInit>(key: &[u8; 32], sealed: &Sealed) -> Option<Vec<u8>> {
    let cipher = C::new_from_slice(key).ok()?;
    let nonce = Nonce::<C>::from_exact_iter(sealed.iv.iter().copied())?;
    // Node keeps the tag apart; it follows the data here.
    let data = [sealed.data.as_slice(), &sealed.tag].concat();
    cipher.decrypt(&nonce, Payload { msg: &data, aad: &[] }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> OldKey {
        OldKey::parse(&Secret::new("0123456789abcdef".repeat(4))).unwrap()
    }

    /// Written by Node 20: `crypto.createCipheriv('aes-256-gcm', key, iv)`, with `key` as above and an `iv` of sevens.
    #[test]
    fn what_node_encrypted_is_opened_with_either_length_of_iv() {
        for text in [
            "070707070707070707070707:2a7de9336ace52eae672e2281e112365:156734536fae8423547e30e7f01c35ca6b10",
            "BwcHBwcHBwcHBwcH:Kn3pM2rOUurmcuIoHhEjZQ==:FWc0U2+uhCNUfjDn8Bw1ymsQ",
            "07070707070707070707070707070707:b4fabb38f4a476a19150e9b7ce928168:69a9b20ba090a05376e5e004e111d9f99146",
            "BwcHBwcHBwcHBwcHBwcHBw==:tPq7OPSkdqGRUOm3zpKBaA==:aamyC6CQoFN25eAE4RHZ+ZFG",
        ] {
            let sealed = Sealed::parse(text).unwrap();
            assert_eq!(key().open(&sealed).unwrap().expose(), "postgresql://db/ä", "{text}");
            let other = OldKey::parse(&Secret::new("00".repeat(32))).unwrap();
            assert_eq!(other.open(&sealed).err(), Some(Closed::WrongKey), "{text}");
            let mut changed = sealed;
            changed.data[0] ^= 1;
            assert_eq!(key().open(&changed).err(), Some(Closed::WrongKey), "{text}");
        }
        let no_text = Sealed::parse("070707070707070707070707:d368313bd0de82cffb3f2e4bab8d9c94:9af6").unwrap();
        assert_eq!(key().open(&no_text).err(), Some(Closed::NotText));
    }
}
