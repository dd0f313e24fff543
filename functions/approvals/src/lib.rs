//! The sweep, each minute: does what a lost report, a crash or an outage left undone.
//!
//! Every pass is the whole of it: nothing is remembered from one to the next, and none needs the one before.

use tidegate_aws::{clock, error::StoreError, store::Store, sweep::Swept};

/// Why a pass did nothing. The next one is a minute away.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("the live deployments cannot be listed")]
    List(#[source] StoreError),
    /// Each one's reason is in the log.
    #[error("not one of {live} live deployments could be seen to")]
    All { live: usize },
}

/// One pass. What it found and did is logged, and given back; an error is the caller's to log.
///
/// # Errors
/// If nothing could be done at all, so that the caller's alarms see it; a pass that got something done has not failed.
pub async fn sweep(store: &Store) -> Result<Swept, SweepError> {
    let swept = store.sweep(clock::now()).await.map_err(SweepError::List)?;
    let Swept { live, folded, launched, woken, unreachable, superseded, failed } = swept;
    tracing::info!(live, folded, launched, woken, unreachable, superseded, failed, "swept");
    if live > 0 && failed == live { Err(SweepError::All { live }) } else { Ok(swept) }
}
