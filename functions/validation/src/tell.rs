//! What an issue is told.

use jiff::SignedDuration;
use tidegate_domain::{
    deployment::{Deployment, Status},
    issue::comment::Comment,
};

use crate::{Trouble, Validation, github::Access};

/// GitHub's clock may be behind ours by so much.
pub(crate) const SKEW: SignedDuration = SignedDuration::from_mins(10);

impl Validation {
    /// How a deployment stands, on its issue. Nothing if it has none.
    pub(crate) async fn tell(&self, access: &Access, deployment: &Deployment) -> Result<(), Trouble> {
        let Some(issue) = &deployment.issue else { return Ok(()) };
        let since = deployment.created_at - SKEW;
        if let Some(approval) = &deployment.approval {
            let comment = if deployment.status == Status::AwaitingApproval {
                Comment::approval_request(deployment, approval, issue, &self.public_url)
            } else {
                // What asked for a decision asks for none any more.
                Comment::approval_closed(deployment, approval)
            };
            access.github.say(issue, &comment, since).await?;
        }
        if deployment.status != Status::AwaitingApproval {
            access.github.say(issue, &Comment::result(deployment), since).await?;
        }
        Ok(())
    }
}
