//! Folding: what a host says of its assignment becomes part of the deployment, and what follows from it happens in the
//! same transaction. Every pass reads anew and can be run any number of times.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tidegate_domain::{
    assignment::{AssignmentState, ErrorCode, TargetError},
    deployment::{Deployment, Event, TargetState},
    id::{ApplicationId, HostName, TenantId},
};

use crate::{
    application_state::ApplicationState,
    assignments::StoredAssignment,
    deployments::{Part, StoredDeployment},
    error::{Result, StoreError},
    keys,
    queues::Report,
    store::Store,
    table::{patience, pause},
    transition::{About, Transition},
    write::delete,
};

impl Store {
    /// Takes over what a host says of its assignment, and makes sure that the application's active deployment
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
            let assignment = match self.assignment(&report.tenant, &report.host, report.deployment_id).await {
                Ok(Some(assignment)) => assignment,
                Ok(None) => break application,
                Err(StoreError::Corrupt { .. }) => {
                    if self.end_without_word(&report.tenant, &report.host, stored, now).await? {
                        break application;
                    }
                    pause(&mut attempt, until).await?;
                    continue;
                }
                Err(other) => return Err(other),
            };
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
        let (tenant, host) = (&report.tenant, &report.host);
        let Some(event) = event_of(host.clone(), assignment, now) else { return Ok(true) };
        let AssignmentState::Finished { outcome } = &assignment.state else {
            let about = About { state: None, host: None, actor: "" };
            let begun = stored.deployment.clone();
            let transition = self.transition(tenant, &stored, event, about, now).await?;
            return Ok(transition.deployment == begun || self.commit(tenant, transition).await?.is_some());
        };
        // Asked before: afterwards nothing tells that it was on its way back.
        let alarming = stored.deployment.needs_an_alarm(host, outcome);
        let folded = self.end_of_host(tenant, host, stored, assignment, event, now).await?;
        if folded && alarming {
            tracing::error!(deployment.id = %report.deployment_id, host.name = %host, alarm = "restore-failed",
                "an old version could not be brought back");
        }
        Ok(folded)
    }

    /// Removes the assignment, and takes the end of the host's part over. `false`: something changed meanwhile.
    pub(crate) async fn end_of_host(
        &self,
        tenant: &TenantId,
        host: &HostName,
        stored: StoredDeployment,
        assignment: &StoredAssignment,
        event: Event,
        now: Timestamp,
    ) -> Result<bool> {
        let mut transition = self.host_transition(tenant, host, stored, event, now).await?;
        transition.writes.push(self.assignment_removal(Part::Assignment, tenant, host, assignment));
        Ok(self.commit(tenant, transition).await?.is_some())
    }

    /// Ends the part of a host whose assignment is not there any more, or cannot be read: only the host itself, or a later
    /// version of this, writes such a thing, and it must not hold up the others for ever. `false`: something changed
    /// meanwhile.
    pub(crate) async fn end_without_word(
        &self,
        tenant: &TenantId,
        host: &HostName,
        stored: StoredDeployment,
        now: Timestamp,
    ) -> Result<bool> {
        let id = stored.deployment.id;
        let Some(target) = stored.deployment.targets.iter().find(|t| t.host == *host && t.state.is_open()) else {
            return Ok(true);
        };
        tracing::error!(deployment.id = %id, host.name = %host, alarm = "bad-assignment", "a host's work order is gone, or cannot be read");
        let error = TargetError::new(
            ErrorCode::BadAssignment,
            "the host's record of its work order is gone, or cannot be read",
            "see that the worker is not newer than the functions; what the host runs shows in the application's status",
        );
        let event = Event::HostUnreachable { host: host.clone(), epoch: target.epoch.next(), error };
        let mut transition = self.host_transition(tenant, host, stored, event, now).await?;
        transition.writes.push(delete(Part::Assignment, &keys::assignment(tenant, host, id), &self.table, None));
        Ok(self.commit(tenant, transition).await?.is_some())
    }

    async fn host_transition(
        &self,
        tenant: &TenantId,
        host: &HostName,
        mut stored: StoredDeployment,
        event: Event,
        now: Timestamp,
    ) -> Result<Transition> {
        let state = self.application_state(tenant, stored.deployment.application_id).await?;
        if stored.deployment.targets.iter().any(|t| t.state == TargetState::Waiting) {
            stored.deployment.skip_drained(&self.drained(tenant).await?, now);
        }
        let actor = format!("host {host}");
        let about = About { state: Some(&state), host: Some(host), actor: &actor };
        self.transition(tenant, &stored, event, about, now).await
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
            let mut stored = self.deployment(tenant, active).await?;
            if !stored.deployment.is_unassigned() || stored.deployment.status.is_final() {
                return Ok(false);
            }
            stored.deployment.skip_drained(&self.drained(tenant).await?, now);
            state.tell_what_runs(&mut stored.deployment);
            match self.launch_once(tenant, &state, &stored, now).await? {
                // All its hosts are being drained, and it is the next one's turn.
                Some(launched) if launched.status.is_final() => {}
                Some(_) => return Ok(true),
                None => pause(&mut attempt, until).await?,
            }
        }
    }

    async fn launch_once(
        &self,
        tenant: &TenantId,
        state: &ApplicationState,
        stored: &StoredDeployment,
        now: Timestamp,
    ) -> Result<Option<Deployment>> {
        let about = About { state: Some(state), host: None, actor: "tidegate" };
        let transition = self.transition(tenant, stored, Event::Activated, about, now).await?;
        self.commit(tenant, transition).await
    }
}

impl Store {
    async fn drained(&self, tenant: &TenantId) -> Result<BTreeSet<HostName>> {
        Ok(self.hosts(tenant).await?.into_iter().filter(|host| host.settings.drain).map(|host| host.name).collect())
    }
}

fn event_of(host: HostName, assignment: &StoredAssignment, now: Timestamp) -> Option<Event> {
    match &assignment.state {
        AssignmentState::Queued => None,
        AssignmentState::Running { .. } => assignment.started_at.map(|at| Event::HostStarted { host, at }),
        AssignmentState::Finished { outcome } => Some(Event::HostFinished {
            host,
            epoch: assignment.epoch,
            started_at: assignment.started_at,
            // Without a time of the host's own it has ended all the same.
            completed_at: assignment.completed_at.or(assignment.started_at).unwrap_or(now),
            progress: assignment.progress.clone().bounded(),
            outcome: outcome.clone().bounded(),
        }),
    }
}
