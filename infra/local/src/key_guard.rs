//! The embedded KMS key must never be replaced: with it go all secrets that it encrypts. A canary, encrypted when the
//! key was made, tells on every start whether it is still the same.

use std::{error::Error, io, path::PathBuf};

use tidegate_aws::clients::Clients;

use crate::data_folder::DurableFile;

const CANARY: &[u8] = b"tidegate";

/// Why the key that the data were encrypted with cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "the encryption key of the stored secrets is lost ({why}): bring {} and {} back from a backup of the data \
         folder; to give up all data and begin anew, choose another folder with --data",
        key_file.display(),
        canary_file.display()
    )]
    Lost {
        why: &'static str,
        key_file: PathBuf,
        canary_file: PathBuf,
        #[source]
        source: Option<BoxError>,
    },
    #[error("cannot keep the encryption key in {}", path.display())]
    NotKept {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the embedded KMS does not answer")]
    Kms(#[source] BoxError),
}

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// What is to be done on a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// First start: make the key, keep it, then write the canary.
    Create,
    /// The process was stopped between the two: nothing can have been encrypted yet.
    WriteCanary,
    /// Decrypt the canary.
    Check,
}

/// Never answers [`Plan::Create`] when anything may have been encrypted under an earlier key.
pub(crate) fn plan(has_key: bool, has_canary: bool, table_is_empty: bool) -> Result<Plan, &'static str> {
    match (has_key, has_canary, table_is_empty) {
        (true, true, _) => Ok(Plan::Check),
        (true, false, true) => Ok(Plan::WriteCanary),
        (false, false, true) => Ok(Plan::Create),
        (true, false, false) => Err("the file that proves it is missing"),
        (false, true, _) => Err("its file is missing or empty"),
        (false, false, false) => Err("its files are missing, but the table holds data"),
    }
}

/// Encrypts a canary under the key and keeps it.
pub(crate) async fn write_canary(clients: &Clients, key: &str, file: &DurableFile) -> Result<(), KeyError> {
    let encrypted = clients
        .kms
        .encrypt()
        .key_id(key)
        .plaintext(CANARY.into())
        .encryption_context("purpose", "canary")
        .send()
        .await
        .map_err(|error| KeyError::Kms(error.into()))?;
    let ciphertext = encrypted.ciphertext_blob.as_ref().map_or(&[][..], AsRef::as_ref);
    file.write(ciphertext).map_err(|source| KeyError::NotKept { path: file.path().to_owned(), source })
}

/// Whether the key is the one that the canary was encrypted with.
pub(crate) async fn check_canary(clients: &Clients, key: &str, ciphertext: Vec<u8>) -> Result<(), Option<BoxError>> {
    let decrypted = clients
        .kms
        .decrypt()
        .key_id(key)
        .ciphertext_blob(ciphertext.into())
        .encryption_context("purpose", "canary")
        .send()
        .await
        .map_err(|error| Some(error.into()))?;
    if decrypted.plaintext.is_some_and(|text| text.as_ref() == CANARY) { Ok(()) } else { Err(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_only_when_nothing_was_ever_encrypted() {
        for has_key in [false, true] {
            for has_canary in [false, true] {
                for empty in [false, true] {
                    let made = plan(has_key, has_canary, empty) == Ok(Plan::Create);
                    assert_eq!(made, !has_key && !has_canary && empty, "{has_key} {has_canary} {empty}");
                }
            }
        }
        assert_eq!(plan(true, true, false), Ok(Plan::Check));
        assert_eq!(plan(true, false, true), Ok(Plan::WriteCanary));
        assert!(plan(true, false, false).is_err());
    }
}
