//! Steps of a deployment as writes of one transaction: the deployment itself, the assignments it gives, and at its end
//! everything that goes with it.

use jiff::Timestamp;
use tidegate_domain::{
    deployment::{Deployment, Effect, Event, Return, Status},
    id::{Epoch, HostName, TenantId},
    job::{Action, Job},
};

use crate::{
    application_state::ApplicationState,
    audit::{self, AuditEvent},
    deployments::{Part, StoredDeployment},
    error::{Result, StoreError},
    keys,
    queues::WakeUp,
    store::Store,
    table::Cancelled,
    write::{Write, delete},
};

/// A step that was decided on and is not written yet.
#[derive(Debug)]
pub(crate) struct Transition {
    pub(crate) deployment: Deployment,
    pub(crate) writes: Vec<Write<Part>>,
    /// To be woken once it is written.
    pub(crate) hosts: Vec<HostName>,
}

/// What a step is about, beside the deployment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// As it was read; none where it does not change: at a host's start, and of a deployment that has lost its place already.
    pub(crate) state: Option<&'a ApplicationState>,
    /// Whose end it is.
    pub(crate) host: Option<&'a HostName>,
    /// For the audit, should it be the deployment's end.
    pub(crate) actor: &'a str,
}

/// New assignments, and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    pub(crate) writes: Vec<Write<Part>>,
    pub(crate) hosts: Vec<HostName>,
}

impl Store {
    /// Decides the step and what it writes. Nothing is written yet.
    pub(crate) async fn transition(
        &self,
        tenant: &TenantId,
        stored: &StoredDeployment,
        event: Event,
        about: About<'_>,
        now: Timestamp,
    ) -> Result<Transition> {
        let (deployment, effects) = stored
            .deployment
            .clone()
            .step(event, now)
            .map_err(|e| StoreError::Corrupt { what: "deployment", source: e.into() })?;
        let mut writes = vec![self.deployment_write(Part::Deployment, tenant, &deployment, Some(stored.revision))?];
        let ends = effects.contains(&Effect::Finish);
        if ends {
            writes.push(self.end_event(tenant, &deployment, about.actor, now)?);
            writes.push(self.outcome_write(Part::Other, tenant, deployment.status.name(), now));
            writes.extend(self.notice_write(Part::Other, tenant, &deployment, now)?);
        }
        if stored.deployment.status == Status::AwaitingApproval {
            writes.extend(self.pending_removal(tenant, &deployment));
        } else if ends {
            writes.push(self.free_slot_write(Part::Other, tenant, deployment.id));
            writes.push(delete(Part::Other, &keys::live(tenant, deployment.id), &self.table, None));
        }
        // Secrets that nothing can return to are not kept.
        let unneeded = match about.state {
            Some(state) if ends || about.host.is_some() => {
                let (next, unneeded) = state.after(about.host, &deployment, &effects, now);
                writes.push(self.state_write(Part::State, tenant, deployment.application_id, state.revision, &next)?);
                unneeded
            }
            None if ends => vec![deployment.id],
            Some(_) | None => Vec::new(),
        };
        writes.extend(unneeded.into_iter().map(|id| self.snapshot_removal(Part::Other, tenant, id)));
        let assigned = Box::pin(self.assignment_writes(tenant, &deployment, &effects, None)).await?;
        writes.extend(assigned.writes);
        Ok(Transition { deployment, writes, hosts: assigned.hosts })
    }

    /// Writes the step, and wakes whom it gives something to do. `None`: something has changed meanwhile; read again.
    pub(crate) async fn commit(&self, tenant: &TenantId, transition: Transition) -> Result<Option<Deployment>> {
        let Transition { deployment, writes, hosts, .. } = transition;
        match self.table.transact(writes).await {
            Ok(()) => {
                self.wake(tenant, &hosts, &WakeUp { deployment_id: deployment.id, request_id: None }).await;
                if deployment.status.is_final() {
                    self.send_notice(tenant, &deployment).await;
                }
                Ok(Some(deployment))
            }
            Err(Cancelled::Conditions(_)) => Ok(None),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }

    /// The assignments that a step gives. `job` is the deployment's own, where it is at hand; else its snapshot is opened.
    pub(crate) async fn assignment_writes(
        &self,
        tenant: &TenantId,
        deployment: &Deployment,
        effects: &[Effect],
        job: Option<&Job>,
    ) -> Result<Assigned> {
        let mut assigned = Assigned::default();
        for effect in effects {
            match effect {
                Effect::Assign { hosts } => {
                    let mut opened = None;
                    for host in hosts {
                        let there = self.job_for_what_is_there(tenant, deployment, host).await?;
                        if there.is_none() && job.is_none() && opened.is_none() {
                            opened = Some(self.own_job(tenant, deployment).await?);
                        }
                        let Some(job) = there.as_ref().or(job).or(opened.as_ref()) else { continue };
                        assigned.add(host, self.assignment_write(Part::Assignment, tenant, host, job, Epoch(1)).await?);
                    }
                }
                Effect::Return { hosts } => {
                    for back in hosts {
                        let job = self.job_back(tenant, deployment, back).await?;
                        let write =
                            self.assignment_write(Part::Assignment, tenant, &back.host, &job, back.epoch).await?;
                        assigned.add(&back.host, write);
                    }
                }
                Effect::Finish | Effect::Release { .. } => {}
            }
        }
        Ok(assigned)
    }

    async fn own_job(&self, tenant: &TenantId, deployment: &Deployment) -> Result<Job> {
        let mut job = self.open_snapshot(tenant, deployment.id).await?;
        if deployment.digest.is_some() {
            job.digest.clone_from(&deployment.digest);
        }
        Ok(job)
    }

    /// To what the host ran before, stopped if a person had stopped it; if that was nothing, its container is removed.
    async fn job_back(&self, tenant: &TenantId, deployment: &Deployment, back: &Return) -> Result<Job> {
        let mut job = match &back.to {
            Some(runs) => {
                let released = self.open_snapshot(tenant, runs.release).await?;
                Job { digest: Some(runs.digest.clone()), ..released }
            }
            None => Job { action: Action::Remove, ..self.own_job(tenant, deployment).await? },
        };
        job.stopped = deployment.targets.iter().any(|target| target.host == back.host && target.stopped);
        job.deployment_id = deployment.id;
        job.sequence = deployment.sequence.unwrap_or(job.sequence);
        // It has proven itself, and what was decided on was another deployment.
        job.bake_seconds = 0;
        job.approved = None;
        Ok(job)
    }

    fn end_event(
        &self,
        tenant: &TenantId,
        deployment: &Deployment,
        actor: &str,
        now: Timestamp,
    ) -> Result<Write<Part>> {
        let event = AuditEvent {
            actor: actor.to_owned(),
            action: format!("deployment.{}", deployment.status.name()),
            subject: format!("deployment/{}", deployment.id),
            source_ip: None,
            request_id: None,
        };
        audit::write(Part::Other, tenant, &event, now, &self.table)
    }
}

impl Assigned {
    fn add(&mut self, host: &HostName, write: Write<Part>) {
        self.writes.push(write);
        self.hosts.push(host.clone());
    }
}
