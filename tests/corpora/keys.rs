//! Keys: those that crates for them are tested with, public and private, as PEM, as DER and as a PEM block's body.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tidegate_domain::parameter::ParameterType;

use super::{Tally, sources, verdict};

const PACKAGES: [&str; 6] = ["jsonwebtoken", "pem-rfc7468", "pkcs1", "pkcs8", "rsa", "spki"];

/// What a file holds, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
}

fn kind(path: &Path) -> Option<Kind> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let is_text = path.extension().is_some_and(|extension| extension == "pem");
    match () {
        () if !is_text && !path.extension().is_some_and(|e| e == "der" || e == "pk8" || e == "bin") => None,
        () if name.contains("priv") || name.contains("id_") || name.contains("enc") => Some(Kind::Private),
        () if name.contains("pkcs8") && !name.contains("public") || name.contains("ssh_rsa_pem") => Some(Kind::Private),
        () if name.contains("pub") => Some(Kind::Public),
        () => None,
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Every way in which somebody may paste the file.
fn texts(path: &Path) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    let Ok(text) = String::from_utf8(bytes.clone()) else { return vec![STANDARD.encode(bytes)] };
    let body: String = text.lines().filter(|line| !line.contains(['-', ':'])).collect();
    vec![text.replace('\n', "\r\n"), text, body]
}

#[test]
fn public_keys_pass_and_private_keys_are_known() {
    let mut public = Tally::of("public keys");
    let mut private = Tally::of("private keys");
    let folders = PACKAGES.iter().flat_map(|package| sources(package));
    for path in folders.flat_map(|folder| files(&folder.join("tests"))) {
        let Some(kind) = kind(&path) else { continue };
        for text in texts(&path) {
            let ours = verdict(ParameterType::PublicKey, &text);
            let shown = path.display().to_string();
            match kind {
                Kind::Private => private.count(&shown, true, ours == Err("private-key"), || {
                    let is_body = shown.contains("password") && !text.contains("PRIVATE KEY");
                    is_body.then_some("without its headers, what a password protects is random bytes")
                }),
                Kind::Public => {
                    assert_ne!(ours, Err("private-key"), "{shown}");
                    let reason = || {
                        let others = ["p256", "ecdsa", "ed25519", "ed448", "x25519"];
                        let is_other = others.iter().any(|other| shown.contains(other));
                        is_other.then_some("neither RSA, nor Ed25519 in RustDesk's form")
                    };
                    public.count(&shown, true, ours.is_ok(), reason);
                }
            }
        }
    }
    public.close(40);
    private.close(60);
}

/// The last 32 bytes of an Ed25519 key's SPKI are the key itself.
#[test]
fn an_ed25519_key_passes_in_rustdesks_form() {
    let mut tally = Tally::of("Ed25519 keys");
    let folders = PACKAGES.iter().flat_map(|package| sources(package));
    for path in folders.flat_map(|folder| files(&folder.join("tests"))) {
        let bytes = fs::read(&path).unwrap();
        let is_der =
            bytes.len() == 44 && path.to_string_lossy().contains("ed25519") && kind(&path) == Some(Kind::Public);
        if is_der {
            let text = STANDARD.encode(&bytes[12..]);
            tally.count(&path.display().to_string(), true, verdict(ParameterType::PublicKey, &text).is_ok(), || None);
        }
    }
    tally.close(2);
}
