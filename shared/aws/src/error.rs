//! What can go wrong with the store, as its callers need to tell it apart.

use aws_sdk_dynamodb::error::SdkError;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the store did not do it. Nothing is half-written in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A service does not answer, or not as it should. Trying later may help.
    #[error("{service} does not answer")]
    Away {
        service: &'static str,
        #[source]
        source: Source,
    },
    /// Others wrote the same things again and again for five seconds.
    #[error("too many writers at once")]
    Busy,
    /// The thing has changed since it was read: `If-Match` does not match.
    #[error("it has changed meanwhile")]
    Conflict,
    /// There is no such thing (or not in this tenant, which is the same).
    #[error("there is no such thing")]
    Missing,
    /// What a field refers to does not exist.
    #[error("{field} refers to something that does not exist")]
    ReferenceMissing { field: &'static str },
    /// Others refer to it; their names.
    #[error("it is in use")]
    InUse { by: Vec<String> },
    /// Another one has the name already.
    #[error("{field} is taken")]
    NameTaken { field: &'static str },
    /// A scope would have more variables, or larger ones, than a deployment may have.
    #[error("too many variables, or too large")]
    TooManyVariables,
    /// The cursor was changed, or belongs to another list.
    #[error("not a cursor of this list")]
    BadCursor,
    /// The key is disabled or about to be deleted.
    #[error("the key {key} cannot be used")]
    KeyDisabled { key: String },
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used with another body")]
    IdempotencyKeyReused,
    /// A stored thing cannot be read. Never expected; told apart so that it is not taken for "missing".
    #[error("a stored {what} cannot be read")]
    Corrupt {
        what: &'static str,
        #[source]
        source: Source,
    },
}

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

impl StoreError {
    pub(crate) fn corrupt(what: &'static str) -> impl FnOnce(serde_dynamo::Error) -> Self {
        move |source| Self::Corrupt { what, source: source.into() }
    }

    /// Of JSON that was sealed: the error's own words could repeat what it holds.
    pub(crate) fn corrupt_json(what: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        move |e| Self::Corrupt { what, source: format!("{:?} at byte {}", e.classify(), e.column()).into() }
    }

    pub(crate) fn unreadable(what: &'static str, why: &'static str) -> Self {
        Self::Corrupt { what, source: why.into() }
    }
}

/// For errors that need no telling apart.
pub(crate) fn away<E, R>(service: &'static str) -> impl FnOnce(SdkError<E, R>) -> StoreError
where
    E: std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    move |source| StoreError::Away { service, source: source.into() }
}
