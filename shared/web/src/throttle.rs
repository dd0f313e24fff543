//! Wrong credentials are answered only for addresses that have not sent too many of them lately: see `tidegate_aws::throttle`.
//!
//! Tokens are too long to be guessed: a right one is let in from everywhere, so that nobody can lock others out who share an
//! address with them, as all callers behind one proxy do. Passwords can be guessed, so signing in is refused whole, see
//! [`unthrottled`]. A missing credential is no guess and is not counted, nor is one that was right once, and a call whose
//! address nobody knows is never throttled.

use std::{future::Future, net::IpAddr, time::Duration};

use tidegate_aws::{clock, store::Store, throttle::THROTTLED_SECONDS};

use crate::problem::Problem;

/// What became of a credential.
#[derive(Debug)]
pub enum Looked<T> {
    Right(T),
    /// Never right: a guess.
    Wrong,
    /// Not there, or right once: expired, for example.
    NotNow,
}

impl<T> From<Option<T>> for Looked<T> {
    fn from(found: Option<T>) -> Self {
        found.map_or(Self::Wrong, Self::Right)
    }
}

/// What `look` finds of a credential that cannot be guessed. Whether the address is throttled is asked at the same time.
///
/// # Errors
/// The uniform 401 for what is not right, 429 in its place for a throttled address, and what `look` fails with. Where nobody
/// can say whether it is throttled, or where a wrong credential cannot be counted, 503.
pub async fn guarded<T, E: Into<Problem>>(
    store: &Store,
    ip: Option<IpAddr>,
    look: impl Future<Output = Result<Looked<T>, E>>,
) -> Result<T, Problem> {
    let (unthrottled, looked) = tokio::join!(Box::pin(unthrottled(store, ip)), look);
    match looked.map_err(Into::into)? {
        Looked::Right(found) => Ok(found),
        Looked::NotNow => unthrottled.and(Err(Problem::unauthorized())),
        Looked::Wrong => {
            unthrottled?;
            Err(Box::pin(wrong(store, ip)).await)
        }
    }
}

/// For what can be guessed: before it is looked at.
///
/// # Errors
/// 429 for an address that has sent too many wrong credentials; 503 where nobody can say.
pub async fn unthrottled(store: &Store, ip: Option<IpAddr>) -> Result<(), Problem> {
    match ip {
        Some(ip) if store.is_throttled(ip, clock::now()).await? => Err(refusal()),
        Some(_) | None => Ok(()),
    }
}

/// Counts a credential that was found wrong, and gives the uniform 401; 503 where it cannot be counted.
pub async fn wrong(store: &Store, ip: Option<IpAddr>) -> Problem {
    let counted = match ip {
        Some(ip) => store.count_wrong_credential(ip, clock::now()).await,
        None => Ok(()),
    };
    counted.map_or_else(Problem::from, |()| Problem::unauthorized())
}

/// 429 until the last place is free again at the latest.
fn refusal() -> Problem {
    Problem::rate_limited(Duration::from_secs(THROTTLED_SECONDS))
}
