//! Why a tag has no digest.

use std::error::Error;

/// What is the matter, by what there is to be done about it.
#[derive(Debug, thiserror::Error)]
pub enum Unresolved {
    /// The registry does not know the tag, or the whole image. Pushing it is what helps.
    #[error("the registry has no such version of the image")]
    NotFound,
    /// The registry does not show the image. Many say so as well of one that does not exist.
    #[error("the registry does not show the image {}", if *.with_credentials { "to these credentials" } else { "without credentials" })]
    Denied { with_credentials: bool },
    /// The registry or its token server does not answer, or has too much to do. Trying later may help.
    #[error("the registry does not answer")]
    Away {
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The registry or its token server answers something else than the specification has, which may be on purpose.
    #[error("the registry's answer cannot be used: {0}")]
    Malformed(&'static str),
}

impl Unresolved {
    pub(crate) fn away(why: &'static str) -> Self {
        Self::Away { source: why.into() }
    }

    /// A URL may be of the registry's choosing.
    pub(crate) fn http(error: reqwest::Error) -> Self {
        Self::Away { source: Box::new(error.without_url()) }
    }

    /// Of an answer that is not the one hoped for.
    pub(crate) fn status(status: u16, with_credentials: bool) -> Self {
        match status {
            401 | 403 => Self::Denied { with_credentials },
            404 => Self::NotFound,
            300..=399 => Self::Malformed("it points elsewhere, which is not followed"),
            408 | 425 | 429 => Self::away("it has too much to do"),
            500..=599 => Self::away("it fails inside"),
            _ => Self::Malformed("its status is not one of the specification"),
        }
    }
}
