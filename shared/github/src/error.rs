//! What went wrong with GitHub, by what there is to be done about it.

use jiff::Timestamp;

/// Why GitHub did not do it.
#[derive(Debug, thiserror::Error)]
pub enum GithubError {
    /// Too many requests, of whichever kind. Nothing is to be asked before this time.
    #[error("GitHub wants no more requests until {until}")]
    RateLimited { until: Timestamp },
    /// It does not answer, or not as it should. Trying later may help. What was asked for may have happened.
    #[error("GitHub does not answer")]
    Away {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The issue was deleted. It does not come back.
    #[error("what was asked for is not there any more")]
    Gone,
    /// It is not there, or not for these credentials: GitHub does not tell which.
    #[error("what was asked for is not there, or not for these credentials")]
    NotFound,
    /// The credentials are wrong, or lack a permission.
    #[error("GitHub refuses the credentials (status {status})")]
    Denied { status: u16 },
    /// It understood, and will not: the request itself is at fault.
    #[error("GitHub refuses the request (status {status})")]
    Refused { status: u16 },
    /// The app's private key is none.
    #[error("the private key of the GitHub app cannot be used")]
    BadKey,
    /// The API's address is not an `https` address.
    #[error("the address of the GitHub API cannot be used")]
    BadAddress,
}

impl GithubError {
    pub(crate) fn malformed(why: &'static str) -> Self {
        Self::Away { source: why.into() }
    }
}
