//! Credentials are looked up only for those who have not sent too many wrong ones lately: see `tidegate_aws::throttle`.
//!
//! An address that has is answered 429 whatever it sends, the right credential too: an answer that told right from wrong
//! would make guessing free. A missing credential is no guess and is not counted, nor is one that was right once, and a call
//! whose address nobody knows is never throttled.

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

/// What `look` finds, unless the address is throttled. Both are asked at the same time; what `look` does must therefore be
/// nothing but looking.
///
/// # Errors
/// 429 for a throttled address, the uniform 401 for what is not right, and what `look` fails with. Where nobody can say
/// whether it is throttled, or where a wrong credential cannot be counted, 503.
pub async fn guarded<T, E: Into<Problem>>(
    store: &Store,
    ip: Option<IpAddr>,
    look: impl Future<Output = Result<Looked<T>, E>>,
) -> Result<T, Problem> {
    let now = clock::now();
    let throttled = Box::pin(async {
        match ip {
            Some(ip) => store.is_throttled(ip, now).await,
            None => Ok(false),
        }
    });
    let (throttled, looked) = tokio::join!(throttled, look);
    if throttled? {
        return Err(refusal());
    }
    match looked.map_err(Into::into)? {
        Looked::Right(found) => Ok(found),
        Looked::NotNow => Err(Problem::unauthorized()),
        Looked::Wrong => Err(Box::pin(wrong(store, ip)).await),
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
