//! The sweep: finds what a lost message, a crash or an outage left behind, and does it.
//!
//! Whatever is done here is done elsewhere first, and usually at once: reports are folded by `progress`, which also gives
//! the next deployment its assignments. But a report may be lost or end among the dead letters, and then nobody comes
//! back to the deployment. A pass looks at what is there, not at what was said. It can be run at any time, twice, and
//! beside all others; one that dies half-way leaves the rest to the next.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tidegate_domain::{
    assignment::AssignmentState,
    deployment::{Deployment, Target, TargetState},
    id::{DeploymentId, HostName, Revision, TenantId},
};

use crate::{
    assignments::StoredAssignment,
    deployments::StoredDeployment,
    error::{Result, StoreError},
    keys,
    queues::{Report, WakeUp},
    random,
    store::Store,
    table::{Cancelled, sort_key},
    write::{Expression, check, delete},
};

/// An assignment that nobody has begun for so long may have lost its wake-up.
const WAKE_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// Past that a wake-up is not what is missing: a host that is there has looked by itself ten times. More of them would
/// only fill its queue until it comes back.
const WAKE_UNTIL: SignedDuration = SignedDuration::from_mins(10);

/// What a pass found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Swept {
    /// Live deployments of all tenants.
    pub live: usize,
    /// Hosts' words that no report had brought.
    pub folded: usize,
    /// Active deployments that had no assignments, and have them now. Those that follow upon a fold are not counted.
    pub launched: usize,
    /// Hosts that were woken again.
    pub woken: usize,
    /// Live deployments at which something could not be done; the next pass tries again.
    pub failed: usize,
}

impl Store {
    /// One pass over every live deployment of every tenant. An error with one is logged, and the pass goes on.
    ///
    /// # Errors
    /// If the live deployments cannot be listed.
    pub async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        let mut live = self.table.all(&keys::live_deployments(), "").await?;
        let mut swept = Swept { live: live.len(), ..Swept::default() };
        if !live.is_empty() {
            // From another one each time: a pass that is cut short must not always leave out the same ones.
            let first = usize::from(u16::from_be_bytes(random::bytes())) % live.len();
            live.rotate_left(first);
        }
        for item in &live {
            let Some((tenant, id)) = sort_key(item).and_then(keys::parse_live) else {
                tracing::error!(key = sort_key(item), "what is listed as live is no deployment's key");
                swept.failed += 1;
                continue;
            };
            if let Err(error) = self.repair(&tenant, id, now, &mut swept).await {
                tracing::warn!(deployment.id = %id, tenant = %tenant, error = &error as &dyn std::error::Error,
                    "the sweep could not do all for a deployment; the next pass tries again");
                swept.failed += 1;
            }
        }
        Ok(swept)
    }

    async fn repair(&self, tenant: &TenantId, id: DeploymentId, now: Timestamp, swept: &mut Swept) -> Result<()> {
        let deployment = match self.deployment(tenant, id).await {
            Ok(StoredDeployment { deployment, revision }) if deployment.status.is_final() => {
                return self.not_live(tenant, id, Some(revision)).await;
            }
            Ok(stored) => stored.deployment,
            Err(StoreError::Missing) => return self.not_live(tenant, id, None).await,
            Err(other) => return Err(other),
        };
        if deployment.targets.iter().all(|target| target.state == TargetState::Waiting) {
            return self.launch_if_active(tenant, &deployment, now, swept).await;
        }
        let mut all = Ok(());
        for target in &deployment.targets {
            if matches!(target.state, TargetState::Assigned | TargetState::Running) {
                // One host's trouble does not hold up the others; the first error is the one that is told.
                all = all.and(self.repair_target(tenant, &deployment, target, now, swept).await);
            }
        }
        all
    }

    /// Without assignments: either it waits for its turn, or it has it and nobody has come to write them.
    async fn launch_if_active(
        &self,
        tenant: &TenantId,
        deployment: &Deployment,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<()> {
        let application = deployment.application_id;
        if self.application_state(tenant, application).await?.active != Some(deployment.id) {
            return Ok(());
        }
        if self.launch(tenant, application, now).await? {
            tracing::info!(deployment.id = %deployment.id, "its turn had come, and it had no assignments");
            swept.launched += 1;
        }
        Ok(())
    }

    async fn repair_target(
        &self,
        tenant: &TenantId,
        deployment: &Deployment,
        target: &Target,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<()> {
        let host = &target.host;
        // None: folded since the deployment was read.
        let Some(assignment) = self.assignment(tenant, host, deployment.id).await? else { return Ok(()) };
        let unfolded = match &assignment.state {
            AssignmentState::Queued => {
                if wants_waking(deployment, host, &assignment, now) {
                    let wake_up = WakeUp { deployment_id: deployment.id, request_id: None };
                    self.wake(tenant, std::slice::from_ref(host), &wake_up).await;
                    swept.woken += 1;
                }
                false
            }
            AssignmentState::Running { .. } => target.state == TargetState::Assigned,
            AssignmentState::Finished { .. } => true,
        };
        if unfolded {
            let report = Report { tenant: tenant.clone(), host: host.clone(), deployment_id: deployment.id };
            self.fold(&report, now).await?;
            tracing::info!(deployment.id = %deployment.id, host.name = %host, "no report had brought what the host says");
            swept.folded += 1;
        }
        Ok(())
    }

    /// Takes it off the list, if it is still as it was read: ended with this revision, or not there.
    ///
    /// Nothing that we write leaves such an entry behind; one that got there by hand would be looked at for ever.
    async fn not_live(&self, tenant: &TenantId, id: DeploymentId, ended: Option<Revision>) -> Result<()> {
        let as_read = ended.map_or_else(Expression::absent, |revision| Expression::revision(revision.0));
        let writes = vec![
            check((), &keys::deployment(tenant, id), &self.table, as_read),
            delete((), &keys::live(tenant, id), &self.table, None),
        ];
        match self.table.transact(writes).await {
            Ok(()) => {
                tracing::warn!(deployment.id = %id, tenant = %tenant, "was listed as live, and is not");
                Ok(())
            }
            Err(Cancelled::Conditions(_)) => Err(StoreError::Conflict),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }
}

/// Whether a wake-up may be what a waiting assignment lacks.
fn wants_waking(deployment: &Deployment, host: &HostName, assignment: &StoredAssignment, now: Timestamp) -> bool {
    // After a hand-back it waits on purpose.
    let since = deployment.assigned_at(host).max(assignment.next_attempt_at);
    since.is_some_and(|since| (WAKE_AFTER..WAKE_UNTIL).contains(&now.duration_since(since)))
}
