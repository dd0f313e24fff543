//! What an issue is told.

use jiff::{SignedDuration, Timestamp};
use tidegate_aws::clock;
use tidegate_domain::{
    deployment::{Deployment, Status},
    issue::comment::Comment,
};

use tidegate_github::Github;

use crate::{Trouble, Validation};

/// GitHub's clock may be behind ours by so much.
pub(crate) const SKEW: SignedDuration = SignedDuration::from_mins(10);

/// Before anything that can still matter was said on an issue: nothing of one waits longer.
pub(crate) fn since_any() -> Timestamp {
    clock::now() - SignedDuration::from_hours(24 * 31) - SKEW
}

impl Validation {
    /// How a deployment stands, on its issue. Nothing if it has none.
    pub(crate) async fn tell(&self, github: &Github, deployment: &Deployment) -> Result<(), Trouble> {
        let Some(issue) = &deployment.issue else { return Ok(()) };
        let since = deployment.created_at - SKEW;
        if let Some(approval) = &deployment.approval {
            let comment = if deployment.status == Status::AwaitingApproval {
                Comment::approval_request(deployment, approval, issue, &self.public_url)
            } else {
                // What asked for a decision asks for none any more.
                Comment::approval_closed(deployment, approval)
            };
            github.say(issue, &comment, since).await?;
        }
        if deployment.status != Status::AwaitingApproval {
            github.say(issue, &Comment::result(deployment), since).await?;
        }
        Ok(())
    }
}
