//! What the store says, as problem documents.

use tidegate_aws::error::StoreError;

use super::{
    Problem,
    invalid::{reference_missing, too_many_variables},
};

impl From<StoreError> for Problem {
    /// The log gets the cause here, once; the caller learns what to do.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away { service, source } => {
                tracing::error!(service, error = &*source as &dyn std::error::Error, "a service does not answer");
                Self::away(&format!("A service that this needs ({service})"))
            }
            // Who insists on a revision is told 412 where that is known; all others lost a race, and may try again.
            StoreError::Busy | StoreError::Conflict => Self::busy(),
            StoreError::Missing => Self::not_found("What this address names"),
            StoreError::ReferenceMissing { field } => Self::validation_failed(vec![reference_missing().at(field)]),
            StoreError::InUse { by } => Self::in_use(by),
            StoreError::NameTaken { field } => Self::name_taken(field),
            StoreError::TooManyVariables => Self::validation_failed(vec![too_many_variables().at("variables")]),
            StoreError::BadCursor => Self::bad_cursor(),
            StoreError::KeyDisabled { key } => {
                tracing::error!(key.alias = key, "the encryption key is disabled");
                Self::key_disabled(&key)
            }
            StoreError::IdempotencyKeyReused => Self::idempotency_key_reused(),
            StoreError::Corrupt { what, source } => {
                tracing::error!(what, error = &*source as &dyn std::error::Error, "a stored thing cannot be read");
                Self::internal()
            }
        }
    }
}
