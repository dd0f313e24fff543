//! The sweep: finds what a lost message, a crash or an outage left behind, and does it.
//!
//! Whatever is done here is done elsewhere first, and usually at once: reports are folded by `progress`, which also gives
//! the next deployment its assignments. But a report may be lost or end among the dead letters, and then nobody comes
//! back to the deployment. A pass looks at what is there, not at what was said. It can be run at any time, twice, and
//! beside all others; one that dies half-way leaves the rest to the next.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tidegate_domain::{
    assignment::{AssignmentState, ErrorCode, TargetError},
    deployment::{Deployment, Event, Target, TargetState},
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
    table::{Cancelled, patience, pause, sort_key},
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
    /// Hosts that stayed away for too long, whose part was ended without them.
    pub unreachable: usize,
    /// Deployments that had lost their place to a later one, which nobody had recorded.
    pub superseded: usize,
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
            if let Err(error) = Box::pin(self.repair(&tenant, id, now, &mut swept)).await {
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
        if deployment.is_unassigned() {
            return self.repair_place(tenant, &deployment, now, swept).await;
        }
        let open: Vec<_> = deployment.open_hosts().cloned().collect();
        let heartbeats = self.heartbeats(tenant, &open).await?;
        let mut all = Ok(());
        for target in deployment.targets.iter().filter(|target| target.state.is_open()) {
            let seen = heartbeats.get(&target.host).map(|heartbeat| heartbeat.at);
            // One host's trouble does not hold up the others; the first error is the one that is told.
            all = all.and(self.repair_target(tenant, &deployment, target, seen, now, swept).await);
        }
        all
    }

    /// Without assignments: it waits for its turn, or it has it and nobody has come to write them, or it has lost it.
    async fn repair_place(
        &self,
        tenant: &TenantId,
        deployment: &Deployment,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<()> {
        let application = deployment.application_id;
        let state = self.application_state(tenant, application).await?;
        if state.active != Some(deployment.id) {
            if !state.queued.contains(&deployment.id) && self.supersede_one(tenant, deployment.id, None, now).await? {
                swept.superseded += 1;
            }
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
        seen: Option<Timestamp>,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<()> {
        let host = &target.host;
        let assignment = match self.assignment(tenant, host, deployment.id).await {
            Ok(Some(assignment)) => assignment,
            Ok(None) | Err(StoreError::Corrupt { .. }) => {
                return self.repair_without_word(tenant, deployment.id, host, now, swept).await;
            }
            Err(other) => return Err(other),
        };
        let since = deployment.assigned_at(host).unwrap_or(deployment.created_at);
        if assignment.assignment().is_abandoned(since, seen, now) {
            if self.settle_unreachable(tenant, deployment.id, host, &assignment, seen, now).await? {
                swept.unreachable += 1;
            }
            return Ok(());
        }
        let unfolded = match &assignment.state {
            AssignmentState::Queued => {
                if wants_waking(deployment, host, &assignment, now) {
                    let wake_up = WakeUp { deployment_id: deployment.id, request_id: None };
                    self.wake(tenant, std::slice::from_ref(host), &wake_up).await;
                    swept.woken += 1;
                }
                false
            }
            // A way back is not told as begun.
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

    /// Of a host whose assignment is not there, or cannot be read: mostly it was folded since the deployment was read.
    async fn repair_without_word(
        &self,
        tenant: &TenantId,
        id: DeploymentId,
        host: &HostName,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<()> {
        let stored = self.deployment(tenant, id).await?;
        let is_open = stored.deployment.open_hosts().any(|open| open == host);
        let is_readable = match self.assignment(tenant, host, id).await {
            Ok(found) => found.is_some(),
            Err(StoreError::Corrupt { .. }) => false,
            Err(other) => return Err(other),
        };
        if !is_open || is_readable || !self.end_without_word(tenant, host, stored.clone(), now).await? {
            return Ok(());
        }
        swept.unreachable += 1;
        self.launch(tenant, stored.deployment.application_id, now).await.map(|_| ())
    }

    /// Ends a host's part without it; `false`: it has moved after all. Its assignment goes, so that whatever it still does with it counts no more: it shows as
    /// drift when the host is back.
    async fn settle_unreachable(
        &self,
        tenant: &TenantId,
        id: DeploymentId,
        host: &HostName,
        assignment: &StoredAssignment,
        seen: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool> {
        let event = Event::HostUnreachable {
            host: host.clone(),
            epoch: assignment.epoch.next(),
            error: unreachable(host, assignment, seen),
        };
        let until = patience();
        let mut attempt = 0;
        loop {
            let stored = self.deployment(tenant, id).await?;
            if self.end_of_host(tenant, host, stored, assignment, event.clone(), now).await? {
                break;
            }
            if self.assignment(tenant, host, id).await?.as_ref() != Some(assignment) {
                // It has moved after all.
                return Ok(false);
            }
            pause(&mut attempt, until).await?;
        }
        tracing::error!(deployment.id = %id, host.name = %host, alarm = "host-unreachable", "its part was ended without it");
        self.launch(tenant, assignment.application_id, now).await?;
        Ok(true)
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

fn unreachable(host: &HostName, assignment: &StoredAssignment, seen: Option<Timestamp>) -> TargetError {
    let heard = seen.map_or_else(|| "was never heard of".to_owned(), |at| format!("was last heard of at {at}"));
    let begun = match assignment.started_at {
        Some(at) => format!("began its part at {at} and has not ended it"),
        None => "has not begun its part".to_owned(),
    };
    TargetError::new(
        ErrorCode::Unreachable,
        format!("the host {host} {heard}, and {begun}; what runs there is not known"),
        "see whether the machine is up and its worker runs; what it runs shows in the application's status when it is back",
    )
}

/// Whether a wake-up may be what a waiting assignment lacks.
fn wants_waking(deployment: &Deployment, host: &HostName, assignment: &StoredAssignment, now: Timestamp) -> bool {
    // After a hand-back it waits on purpose.
    let since = deployment.assigned_at(host).max(assignment.next_attempt_at);
    since.is_some_and(|since| (WAKE_AFTER..WAKE_UNTIL).contains(&now.duration_since(since)))
}
