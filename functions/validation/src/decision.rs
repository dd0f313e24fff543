//! Somebody writes a decision on an issue.

use tidegate_aws::deployments::StoredDeployment;
use tidegate_domain::{
    approval::{ContentHash, Decider},
    deployment::{Deployment, Status},
    id::DeploymentId,
    issue::{
        IssueRef, RepositoryRole,
        command::Command,
        comment::{Comment, Undecided},
    },
    secret::Secret,
};
use tidegate_gate::{ApprovalOutcome, Deciding, asker::actor};
use tidegate_github::Github;

use crate::{Trouble, pass::Pass, tell::since_any};

impl Pass<'_> {
    pub(crate) async fn decision(
        &self,
        github: &Github,
        issue: &IssueRef,
        sender: &str,
        body: &Secret<String>,
    ) -> Result<(), Trouble> {
        let Some(command) = Command::of(body.expose()) else { return self.done().await };
        let (store, tenant) = (&self.validation.store, &self.message.tenant);
        if !self.intake.decides.is_empty() {
            // An earlier run had begun: what it has decided is not decided again.
            return self.resume(github, issue, sender, &command).await;
        }
        let mut waiting = store.pending_approvals(tenant, None).await?;
        waiting.retain(|stored| stored.deployment.issue.as_ref() == Some(issue));
        let role = github.role(&issue.repository, sender).await?;
        if waiting.is_empty() {
            // Strangers could have us say so for ever.
            if role >= RepositoryRole::Write {
                self.answer(github, issue, sender, Undecided::NothingWaits).await?;
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
                self.answer(github, issue, sender, Undecided::OtherHash(hash)).await?;
            }
            return self.done().await;
        }
        if !store.begin_decision(self.message, self.intake, &about).await? {
            return Ok(());
        }
        self.decide(github, issue, sender, role, &command, &about).await
    }

    async fn decide(
        &self,
        github: &Github,
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
                ApprovalOutcome::Taken(deployment) => self.validation.tell(github, &deployment).await?,
                ApprovalOutcome::NotWaiting(deployment) => {
                    self.validation.tell(github, &deployment).await?;
                    if deployment.status == Status::TimedOut {
                        self.answer(github, issue, sender, Undecided::TooLate).await?;
                    }
                }
                ApprovalOutcome::Forbidden(why) => {
                    self.answer(github, issue, sender, Undecided::NotPermitted(why)).await?;
                }
                ApprovalOutcome::Stale(deployment) => {
                    self.validation.tell(github, &deployment).await?;
                    if let Some(approval) = &deployment.approval {
                        self.answer(github, issue, sender, Undecided::OtherHash(&approval.hash)).await?;
                    }
                }
                ApprovalOutcome::Invalid(faults) => {
                    self.answer(github, issue, sender, Undecided::Invalid(&faults)).await?;
                }
                ApprovalOutcome::QueueFull { retry_after } => {
                    let after = retry_after.try_into().unwrap_or(jiff::SignedDuration::from_secs(30));
                    return Err(Trouble::Wait(after));
                }
                ApprovalOutcome::Gone => self.answer(github, issue, sender, Undecided::NothingWaits).await?,
                ApprovalOutcome::AskerNotPermitted => {
                    self.answer(github, issue, sender, Undecided::AskerNotPermitted).await?;
                }
                ApprovalOutcome::AskerUnknown(why) => return Err(why.into()),
            }
        }
        self.done().await
    }

    /// What still waits is decided; of what does not, the issue is told how it stands.
    async fn resume(&self, github: &Github, issue: &IssueRef, sender: &str, command: &Command) -> Result<(), Trouble> {
        let (store, tenant) = (&self.validation.store, &self.message.tenant);
        let mut left = Vec::new();
        for id in &self.intake.decides {
            let deployment = store.deployment(tenant, *id).await?.deployment;
            if deployment.status == Status::AwaitingApproval {
                left.push(*id);
            } else {
                self.validation.tell(github, &deployment).await?;
            }
        }
        if left.is_empty() {
            return self.done().await;
        }
        let role = github.role(&issue.repository, sender).await?;
        self.decide(github, issue, sender, role, command, &left).await
    }

    async fn answer(&self, github: &Github, issue: &IssueRef, sender: &str, why: Undecided<'_>) -> Result<(), Trouble> {
        // The same person's next mistake changes the same comment.
        Ok(github.say(issue, &Comment::undecided(sender, why), since_any()).await?)
    }
}

fn hash_of(stored: &StoredDeployment) -> Option<&ContentHash> {
    let Deployment { approval, .. } = &stored.deployment;
    approval.as_ref().map(|approval| &approval.hash)
}
