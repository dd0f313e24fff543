//! Secret providers, each minute: whatever is due is read from its source and written as far as the time goes.
//!
//! Nothing is remembered from one pass to the next but tokens and unwrapped keys; whatever a pass leaves stays due.

use std::time::Duration;

use tidegate_aws::error::StoreError;
use tidegate_providers::{Syncer, sync::Passed};
use tokio::time::Instant;

/// Of the function's 60 s; what a pass has listed by then is written for some seconds more, and its last write has time to end.
pub const BUDGET: Duration = Duration::from_secs(40);

/// Why a pass did nothing. The next one is a minute away.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("the providers that are due cannot be listed")]
    List(#[source] StoreError),
    /// Each one's reason is in the log.
    #[error("not one of {due} providers could be seen to")]
    All { due: usize },
}

/// One pass. What it found and did is logged, and given back; an error is the caller's to log. A source that fails is no
/// error: its run says so.
///
/// # Errors
/// If nothing could be done at all, so that the caller's alarms see it.
pub async fn pass(syncer: &Syncer) -> Result<Passed, SyncError> {
    let passed = Box::pin(syncer.pass(Instant::now() + BUDGET)).await.map_err(SyncError::List)?;
    let Passed { due, succeeded, failed, continued, broken } = passed;
    tracing::info!(due, succeeded, failed, continued, broken, "synced what was due");
    if due > 0 && broken == due { Err(SyncError::All { due }) } else { Ok(passed) }
}
