//! The sweep, each minute: does what a lost report, a crash or an outage left undone, ends approvals whose time is over, says
//! again what nobody has heeded, removes environments that were deleted long ago, and goes on with the rotation of data keys.
//!
//! Every pass is the whole of it: nothing is remembered from one to the next, and none needs the one before.

use std::time::Duration;

use serde::Serialize;
use tidegate_aws::{
    approvals::TimedOut, clock, environments::EnvironmentsSwept, error::StoreError, reencryption::Reencrypted,
    store::Store, sweep::Swept,
};

/// So long a pass goes on with a rotation of data keys; the function ends after 29 s.
const REENCRYPTION: Duration = Duration::from_secs(15);

/// Why a pass, or a part of it, did nothing. The next one is a minute away.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    #[error("the live deployments cannot be listed")]
    List(#[source] StoreError),
    /// Each one's reason is in the log.
    #[error("not one of {live} live deployments could be seen to")]
    All { live: usize },
    #[error("the approvals whose time is over cannot be listed")]
    Approvals(#[source] StoreError),
    #[error("what waits to be taken in cannot be listed")]
    Intake(#[source] StoreError),
    #[error("the environments that are due cannot be listed")]
    Environments(#[source] StoreError),
    #[error("the rotations of data keys cannot be listed")]
    Rotations(#[source] StoreError),
}

/// What a pass found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pass {
    #[serde(flatten)]
    pub swept: Swept,
    pub approvals: TimedOut,
    /// Messages that were sent again.
    pub sent_again: usize,
    pub environments: EnvironmentsSwept,
    pub reencryption: Reencrypted,
}

/// One pass. What it found and did is logged, and given back. No part keeps another from being done.
///
/// # Errors
/// If a part could not be done at all, so that the caller's alarms see it; one that got something done has not failed.
pub async fn sweep(store: &Store) -> Result<Pass, SweepError> {
    let now = clock::now();
    let (swept, approvals, sent_again, environments, reencryption) = tokio::join!(
        Box::pin(store.sweep(now)),
        Box::pin(store.time_out_approvals(now)),
        Box::pin(store.sweep_intake(now)),
        Box::pin(store.sweep_environments(now)),
        Box::pin(store.reencrypt(now, REENCRYPTION))
    );
    let swept = logged(swept.map_err(SweepError::List));
    let approvals = logged(approvals.map_err(SweepError::Approvals));
    let sent_again = logged(sent_again.map_err(SweepError::Intake));
    let environments = logged(environments.map_err(SweepError::Environments));
    let reencryption = logged(reencryption.map_err(SweepError::Rotations));
    let pass = Pass {
        swept: swept?,
        approvals: approvals?,
        sent_again: sent_again?,
        environments: environments?,
        reencryption: reencryption?,
    };
    let Swept { live, folded, launched, woken, unreachable, superseded, failed } = pass.swept;
    let TimedOut { timed_out, failed: undecided } = pass.approvals;
    let EnvironmentsSwept { purged, settled, failed: unsettled } = pass.environments;
    let Reencrypted { running: rotations, values: reencrypted, failed: not_reencrypted } = pass.reencryption;
    tracing::info!(
        live,
        folded,
        launched,
        woken,
        unreachable,
        superseded,
        failed,
        timed_out,
        undecided,
        pass.sent_again,
        purged,
        settled,
        unsettled,
        rotations,
        reencrypted,
        not_reencrypted,
        "swept"
    );
    if live > 0 && failed == live { Err(SweepError::All { live }) } else { Ok(pass) }
}

/// Of several parts that could not be done, the pass gives back the first one's error alone.
fn logged<T>(part: Result<T, SweepError>) -> Result<T, SweepError> {
    part.inspect_err(|error| {
        tracing::error!(error = error as &dyn std::error::Error, "a part of the sweep could not be done");
    })
}
