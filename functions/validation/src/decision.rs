//! Somebody writes a decision on an issue.

use tidegate_aws::{
    catalogue::Stored, clock, deployments::StoredDeployment, error::StoreError, registered::RegisteredApplication,
};
use tidegate_domain::{
    approval::{ContentHash, Decider},
    deployment::{Deployment, Status, TriggerKind},
    id::DeploymentId,
    issue::{
        IssueRef, RepositoryRole,
        command::Command,
        comment::{Comment, Undecided},
    },
    secret::Secret,
};
use tidegate_gate::{ApprovalOutcome, Deciding};

use crate::{
    Trouble,
    github::Access,
    pass::{Pass, actor, may_ask},
    tell::SKEW,
};

impl Pass<'_> {
    pub(crate) async fn decision(
        &self,
        access: &Access,
        issue: &IssueRef,
        sender: &str,
        body: &Secret<String>,
    ) -> Result<(), Trouble> {
        let Some(command) = Command::of(body.expose()) else { return self.done().await };
        let (store, tenant) = (&self.validation.store, &self.message.tenant);
        if !self.intake.decides.is_empty() {
            // An earlier run had begun: what it has decided is not decided again.
            return self.resume(access, issue, sender, &command).await;
        }
        let mut waiting = store.pending_approvals(tenant, None).await?;
        waiting.retain(|stored| stored.deployment.issue.as_ref() == Some(issue));
        let role = access.github.role(&issue.repository, sender).await?;
        if waiting.is_empty() {
            // Strangers could have us say so for ever.
            if role >= RepositoryRole::Write {
                self.answer(access, issue, sender, Undecided::NothingWaits).await?;
            }
            return self.done().await;
        }
        let about: Vec<DeploymentId> = match &command {
            Command::Approve { hash } => {
                let named = waiting.iter().filter(|stored| hash_of(stored).is_some_and(|h| h.is_named_by(hash)));
                named.map(|stored| stored.deployment.id).collect()
            }
            // A reason names no request: all of the issue's that wait.
            Command::Reject { .. } => waiting.iter().map(|stored| stored.deployment.id).collect(),
        };
        if about.is_empty() {
            if let Some(hash) = waiting.iter().find_map(hash_of) {
                self.answer(access, issue, sender, Undecided::OtherHash(hash)).await?;
            }
            return self.done().await;
        }
        if !store.begin_decision(self.message, self.intake, &about).await? {
            return Ok(());
        }
        self.decide(access, issue, sender, role, &command, &about).await
    }

    async fn decide(
        &self,
        access: &Access,
        issue: &IssueRef,
        sender: &str,
        role: RepositoryRole,
        command: &Command,
        about: &[DeploymentId],
    ) -> Result<(), Trouble> {
        let (gate, tenant) = (&self.validation.gate, &self.message.tenant);
        let name = actor(sender);
        let decider = Decider { name: &name, is_admin: role >= RepositoryRole::Admin };
        for id in about {
            if matches!(command, Command::Approve { .. }) && !self.may_still_ask(access, *id).await? {
                self.answer(access, issue, sender, Undecided::AskerNotPermitted).await?;
                continue;
            }
            let deciding = Deciding {
                tenant,
                deployment: *id,
                decider,
                hash: match command {
                    Command::Approve { hash } => Some(hash),
                    Command::Reject { .. } => None,
                },
                comment: match command {
                    Command::Approve { .. } => None,
                    Command::Reject { reason } => Some(reason),
                },
                source_ip: None,
                request_id: None,
            };
            let outcome = match command {
                Command::Approve { .. } => Box::pin(gate.approve(&deciding)).await?,
                Command::Reject { .. } => gate.reject(&deciding).await?,
            };
            match outcome {
                ApprovalOutcome::Taken(deployment) => self.validation.tell(access, &deployment).await?,
                ApprovalOutcome::NotWaiting(deployment) => {
                    self.validation.tell(access, &deployment).await?;
                    if deployment.status == Status::TimedOut {
                        self.answer(access, issue, sender, Undecided::TooLate).await?;
                    }
                }
                ApprovalOutcome::Forbidden(why) => {
                    self.answer(access, issue, sender, Undecided::NotPermitted(why)).await?;
                }
                ApprovalOutcome::Stale(deployment) => {
                    self.validation.tell(access, &deployment).await?;
                    if let Some(approval) = &deployment.approval {
                        self.answer(access, issue, sender, Undecided::OtherHash(&approval.hash)).await?;
                    }
                }
                ApprovalOutcome::Invalid(faults) => {
                    self.answer(access, issue, sender, Undecided::Invalid(&faults)).await?;
                }
                ApprovalOutcome::QueueFull { retry_after } => {
                    let after = retry_after.try_into().unwrap_or(jiff::SignedDuration::from_secs(30));
                    return Err(Trouble::Wait(after));
                }
                ApprovalOutcome::Gone => self.answer(access, issue, sender, Undecided::NothingWaits).await?,
            }
        }
        self.done().await
    }

    /// Whether who asked may ask as the application is today. What was asked for in another way, or waits no more, is the
    /// gate's to judge.
    async fn may_still_ask(&self, access: &Access, id: DeploymentId) -> Result<bool, Trouble> {
        let (store, tenant) = (&self.validation.store, &self.message.tenant);
        let Deployment { status, trigger, issue, application_id, .. } = store.deployment(tenant, id).await?.deployment;
        let Some(issue) = issue else { return Ok(true) };
        if status != Status::AwaitingApproval || trigger.kind != TriggerKind::Issue {
            return Ok(true);
        }
        let application: Stored<RegisteredApplication> = match store.find(tenant, application_id.0).await {
            Err(StoreError::Missing) => return Ok(false),
            found => found?,
        };
        let listens = application.body.application.issue_trigger;
        let Some(listens) = listens.filter(|listens| listens.repository == issue.repository) else {
            return Ok(false);
        };
        may_ask(access, &issue.repository, &trigger, listens.allow).await
    }

    /// What still waits is decided; of what does not, the issue is told how it stands.
    async fn resume(&self, access: &Access, issue: &IssueRef, sender: &str, command: &Command) -> Result<(), Trouble> {
        let (store, tenant) = (&self.validation.store, &self.message.tenant);
        let mut left = Vec::new();
        for id in &self.intake.decides {
            let deployment = store.deployment(tenant, *id).await?.deployment;
            if deployment.status == Status::AwaitingApproval {
                left.push(*id);
            } else {
                self.validation.tell(access, &deployment).await?;
            }
        }
        if left.is_empty() {
            return self.done().await;
        }
        let role = access.github.role(&issue.repository, sender).await?;
        self.decide(access, issue, sender, role, command, &left).await
    }

    async fn answer(&self, access: &Access, issue: &IssueRef, sender: &str, why: Undecided<'_>) -> Result<(), Trouble> {
        // As long as anything of the issue can wait: the same person's next mistake changes the same comment.
        let since = clock::now() - jiff::SignedDuration::from_hours(24 * 31) - SKEW;
        Ok(access.github.say(issue, &Comment::undecided(sender, why), since).await?)
    }
}

fn hash_of(stored: &StoredDeployment) -> Option<&ContentHash> {
    let Deployment { approval, .. } = &stored.deployment;
    approval.as_ref().map(|approval| &approval.hash)
}
