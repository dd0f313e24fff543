//! Waiting for a deployment to change.

use std::time::Duration;

use tidegate_aws::store::Store;
use tidegate_domain::{deployment::Deployment, id::TenantId};
use tokio::time::Instant;

/// The deployment when `done` holds of it, or as it is when the time is over. Where it cannot be read again, as it was last
/// seen: it exists, and no trouble of reading may say otherwise.
pub async fn until(
    store: &Store,
    tenant: &TenantId,
    mut deployment: Deployment,
    wait: Duration,
    done: impl Fn(&Deployment) -> bool,
) -> Deployment {
    let until = Instant::now() + wait;
    // Looked at more rarely the longer it takes: a wait of 20 s costs some 20 reads.
    let mut pause = Duration::from_millis(100);
    while !done(&deployment) && Instant::now() < until {
        tokio::time::sleep(pause.min(until - Instant::now())).await;
        pause = (pause * 3 / 2).min(Duration::from_secs(1));
        match store.deployment(tenant, deployment.id).await {
            Ok(found) => deployment = found.deployment,
            Err(error) => {
                tracing::warn!(deployment.id = %deployment.id, error = &error as &dyn std::error::Error, "not read again");
                break;
            }
        }
    }
    deployment
}
