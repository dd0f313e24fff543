//! What went wrong with a source, by what there is to be done about it. No text repeats a credential, a value, or what the
//! source said.

use std::time::Duration;

/// Why a source could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The configuration is none. Never expected of one that was checked when it was written.
    #[error("its configuration cannot be used: {0}; write it again")]
    Misconfigured(&'static str),
    /// Never to be repeated with the same credentials: a source locks who is refused again and again.
    #[error(
        "the source refuses the credentials; check them in the provider's config. They are not tried again by schedule for \
         a day, as repeated refusals lock an identity"
    )]
    LoginRefused,
    /// It has no credentials that anybody could mend in the provider.
    #[error(
        "the installation's own role cannot be used with the source now; it is tried again later by itself. The role is that \
         of the functions sync and admin; or give the provider an access key"
    )]
    BadRole {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the credentials do not permit reading there; give them read access to the project, environment and folder"
    )]
    Denied,
    /// Some values are there and may not be seen.
    #[error(
        "the source hides the values of {count} secrets from these credentials; give them the permission to read values, not \
         only names"
    )]
    Hidden { count: usize },
    #[error("the source has no such project or environment for these credentials; check the provider's config")]
    NotFound,
    #[error(
        "there is no such source at the configured address, or something before it answers in its place; check it, and that \
         it is the address of the API"
    )]
    NoSuchApi,
    #[error("the source refuses the request (status {status}); check the provider's config")]
    Refused { status: u16 },
    #[error(
        "the configured address answers with a redirect, which is not followed; configure the address that it leads to"
    )]
    Redirected,
    #[error("the source wants no more requests for {} s; it is asked again later by itself", after.as_secs())]
    RateLimited { after: Duration },
    #[error("the folder holds more than can be read at once; split it")]
    TooLarge,
    #[error("the folder takes too long to be listed; split it, or find out why the source is slow")]
    TooSlow,
    #[error("the source does not answer as it should: {0}")]
    Malformed(&'static str),
    #[error("the source does not answer; it is asked again later by itself")]
    Away {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ProviderError {
    /// Stable and documented.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Misconfigured(_) => "misconfigured",
            Self::LoginRefused => "login-refused",
            Self::BadRole { .. } => "role-unusable",
            Self::Denied => "permission-denied",
            Self::Hidden { .. } => "value-hidden",
            Self::NotFound => "not-found",
            Self::NoSuchApi => "no-such-api",
            Self::Refused { .. } => "refused",
            Self::Redirected => "redirected",
            Self::RateLimited { .. } => "rate-limited",
            Self::TooLarge => "too-large",
            Self::TooSlow => "too-slow",
            Self::Malformed(_) => "malformed-answer",
            Self::Away { .. } => "unavailable",
        }
    }

    pub(crate) fn away(why: &'static str) -> Self {
        Self::Away { source: why.into() }
    }

    /// Without the address, which may hold what nobody else is to read.
    pub(crate) fn http(error: reqwest::Error) -> Self {
        Self::Away { source: Box::new(error.without_url()) }
    }
}
