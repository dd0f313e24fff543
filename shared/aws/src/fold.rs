//! Folding: what a host says of its assignment becomes part of the deployment, and what follows from it happens in the
//! same transaction. Every pass reads anew and can be run any number of times.

use jiff::Timestamp;
use tidegate_domain::{
    assignment::AssignmentState,
    deployment::{Deployment, Effect, Event, Status, TargetState, needs_an_alarm},
    id::{ApplicationId, HostName, TenantId},
};

use crate::{
    applications::{ApplicationState, HostRelease, Release},
    assignments::StoredAssignment,
    audit::{self, AuditEvent},
    deployments::{Part, StoredDeployment, assigned},
    error::{Result, StoreError},
    keys,
    queues::{Report, WakeUp},
    store::Store,
    table::{Cancelled, patience, pause},
    write::{Write, delete},
};

impl Store {
    /// Takes over what the host has written into its assignment, then makes sure that the application's active deployment
    /// has its assignments.
    ///
    /// A crash anywhere leaves the report in its queue, which brings it here again.
    pub async fn fold(&self, report: &Report, now: Timestamp) -> Result<()> {
        let until = patience();
        let mut attempt = 0;
        let application = loop {
            let stored = match self.deployment(&report.tenant, report.deployment_id).await {
                Ok(stored) => stored,
                Err(StoreError::Missing) => {
                    tracing::warn!(deployment.id = %report.deployment_id, host.name = %report.host, "a report about no deployment");
                    return Ok(());
                }
                Err(other) => return Err(other),
            };
            let application = stored.deployment.application_id;
            let assignment = self.assignment(&report.tenant, &report.host, report.deployment_id).await?;
            let Some(assignment) = assignment else { break application };
            if self.fold_once(report, stored, &assignment, now).await? {
                break application;
            }
            pause(&mut attempt, until).await?;
        };
        self.launch(&report.tenant, application, now).await.map(|_| ())
    }

    /// `false`: something changed meanwhile; read again.
    async fn fold_once(
        &self,
        report: &Report,
        stored: StoredDeployment,
        assignment: &StoredAssignment,
        now: Timestamp,
    ) -> Result<bool> {
        let tenant = &report.tenant;
        let Some(event) = event_of(report.host.clone(), assignment) else { return Ok(true) };
        let finished = matches!(event, Event::HostFinished { .. });
        let (deployment, effects) = stored
            .deployment
            .clone()
            .step(event, now)
            .map_err(|e| StoreError::Corrupt { what: "deployment", source: e.into() })?;
        if deployment == stored.deployment && !finished {
            return Ok(true);
        }
        let mut writes = vec![self.deployment_write(Part::Deployment, tenant, &deployment, Some(stored.revision))?];
        if finished {
            writes.push(self.assignment_removal(Part::Deployment, tenant, &report.host, assignment));
            writes.extend(self.state_after(tenant, &report.host, &deployment, &effects, now).await?);
        }
        let hosts = assigned(&effects);
        if !hosts.is_empty() {
            writes.extend(self.wave_writes(tenant, &deployment, &hosts).await?);
        }
        match self.table.transact(writes).await {
            Ok(()) => {}
            Err(Cancelled::Conditions(_)) => return Ok(false),
            Err(Cancelled::Store(error)) => return Err(error),
        }
        if let AssignmentState::Finished { outcome } = &assignment.state
            && needs_an_alarm(outcome)
        {
            tracing::error!(deployment.id = %deployment.id, host.name = %report.host, alarm = "restore-failed",
                "an old version could not be brought back");
        }
        self.wake(tenant, &hosts, &WakeUp { deployment_id: deployment.id, request_id: None }).await;
        Ok(true)
    }

    /// What a host's end means for the application: what runs there, and at the deployment's end, whose turn it is.
    async fn state_after(
        &self,
        tenant: &TenantId,
        host: &HostName,
        deployment: &Deployment,
        effects: &[Effect],
        now: Timestamp,
    ) -> Result<Vec<Write<Part>>> {
        let application = deployment.application_id;
        let state = self.application_state(tenant, application).await?;
        let was = state.revision;
        let mut next = state.advanced();
        remember_host(&mut next, host, deployment);
        let mut writes = Vec::new();
        for effect in effects {
            match effect {
                Effect::Assign { .. } => {}
                Effect::Release { version, digest } => {
                    next.release = Some(Release {
                        deployment_id: deployment.id,
                        version: version.clone(),
                        digest: digest.clone(),
                        at: now,
                    });
                }
                Effect::Finish => {
                    if next.active == Some(deployment.id) {
                        next.active = if next.queued.is_empty() { None } else { Some(next.queued.remove(0)) };
                    }
                    writes.push(self.free_slot_write(Part::Other, tenant, deployment.id));
                    writes.push(delete(Part::Other, &keys::live(tenant, deployment.id), &self.table, None));
                    if deployment.status != Status::Succeeded {
                        // Only what succeeded can be returned to; secrets that nothing needs are not kept.
                        writes.push(delete(Part::Other, &keys::snapshot(tenant, deployment.id), &self.table, None));
                    }
                    let event = AuditEvent {
                        actor: format!("host {host}"),
                        action: format!("deployment.{}", deployment.status.name()),
                        subject: format!("deployment/{}", deployment.id),
                        source_ip: None,
                        request_id: None,
                    };
                    writes.push(audit::write(Part::Other, tenant, &event, now, &self.table)?);
                }
            }
        }
        writes.push(self.state_write(Part::State, tenant, application, was, &next)?);
        Ok(writes)
    }

    /// Gives the application's active deployment its first assignments, if it has none. Level-triggered: run after every
    /// report and by the sweep, it also heals a crash between "made active" and "assignments written". `true`: it wrote them.
    pub async fn launch(&self, tenant: &TenantId, application: ApplicationId, now: Timestamp) -> Result<bool> {
        let until = patience();
        let mut attempt = 0;
        loop {
            let state = match self.application_state(tenant, application).await {
                Ok(state) => state,
                Err(StoreError::Missing) => return Ok(false),
                Err(other) => return Err(other),
            };
            let Some(active) = state.active else { return Ok(false) };
            let stored = self.deployment(tenant, active).await?;
            let (deployment, effects) = stored
                .deployment
                .step(Event::Activated, now)
                .map_err(|e| StoreError::Corrupt { what: "deployment", source: e.into() })?;
            let hosts = assigned(&effects);
            if hosts.is_empty() {
                return Ok(false);
            }
            let mut writes =
                vec![self.deployment_write(Part::Deployment, tenant, &deployment, Some(stored.revision))?];
            writes.extend(self.wave_writes(tenant, &deployment, &hosts).await?);
            match self.table.transact(writes).await {
                Ok(()) => {
                    self.wake(tenant, &hosts, &WakeUp { deployment_id: deployment.id, request_id: None }).await;
                    return Ok(true);
                }
                Err(Cancelled::Store(error)) => return Err(error),
                Err(Cancelled::Conditions(_)) => pause(&mut attempt, until).await?,
            }
        }
    }

    async fn wave_writes(
        &self,
        tenant: &TenantId,
        deployment: &Deployment,
        hosts: &[HostName],
    ) -> Result<Vec<Write<Part>>> {
        let mut job = self.open_snapshot(tenant, deployment.id).await?;
        job.digest.clone_from(&deployment.digest);
        let mut writes = Vec::new();
        for host in hosts {
            writes.push(self.assignment_write(Part::Other, tenant, host, &job).await?);
        }
        Ok(writes)
    }
}

fn event_of(host: HostName, assignment: &StoredAssignment) -> Option<Event> {
    match &assignment.state {
        AssignmentState::Queued => None,
        AssignmentState::Running { .. } => assignment.started_at.map(|at| Event::HostStarted { host, at }),
        AssignmentState::Finished { outcome } => Some(Event::HostFinished {
            host,
            started_at: assignment.started_at,
            completed_at: assignment.completed_at.or(assignment.started_at)?,
            progress: assignment.progress.clone(),
            outcome: outcome.clone(),
        }),
    }
}

fn remember_host(state: &mut ApplicationState, host: &HostName, deployment: &Deployment) {
    use tidegate_domain::assignment::Running;
    let Some(target) = deployment.targets.iter().find(|t| t.host == *host) else { return };
    match &target.state {
        TargetState::Succeeded => {
            if let (Some(version), Some(digest)) = (&deployment.version, &deployment.digest) {
                let release = HostRelease { version: version.clone(), digest: digest.clone() };
                state.hosts.insert(host.clone(), release);
            }
        }
        TargetState::Failed { running: Running::None, .. } => {
            state.hosts.remove(host);
        }
        TargetState::Failed { .. }
        | TargetState::RolledBack { .. }
        | TargetState::Waiting
        | TargetState::Assigned
        | TargetState::Running
        | TargetState::Skipped => {}
    }
}
