//! Who asks with an issue, and whether they may.

use tidegate_domain::{
    application::Application,
    deployment::{Deployment, Trigger, TriggerKind},
    id::TenantId,
    issue::{Allow, Repository},
};
use tidegate_github::{Github, GithubError};

use crate::{Gate, VALIDATION, github::Unreachable};

const GITHUB: &str = "github:";

/// Somebody on GitHub, as triggers, limits and the audit name them.
pub fn actor(login: &str) -> String {
    format!("{GITHUB}{}", login.to_ascii_lowercase())
}

/// Whether all of those who asked may: a label that somebody with the right to it puts on a stranger's issue does not make
/// the stranger's words theirs.
///
/// # Errors
/// GitHub does not say.
pub async fn may_ask(
    github: &Github,
    repository: &Repository,
    trigger: &Trigger,
    allow: Allow,
) -> Result<bool, GithubError> {
    if allow == Allow::Anyone {
        return Ok(true);
    }
    for requester in trigger.requesters() {
        // Who is nobody's login there has no role.
        let login = requester.strip_prefix(GITHUB).unwrap_or_default();
        if !allow.admits(github.role(repository, login).await?) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Gate {
    /// Whether who asked may still ask, as the application and GitHub are now. What was asked for in another way is decided
    /// on by people who see who asked.
    pub(crate) async fn may_still_ask(
        &self,
        tenant: &TenantId,
        application: &Application,
        deployment: &Deployment,
    ) -> Result<bool, Unreachable> {
        let Deployment { trigger, issue, .. } = deployment;
        if trigger.kind != TriggerKind::Issue {
            return Ok(true);
        }
        let listens = application.issue_trigger.as_ref();
        let Some((issue, listens)) = issue.as_ref().zip(listens).filter(|(issue, l)| l.repository == issue.repository)
        else {
            return Ok(false);
        };
        if listens.allow == Allow::Anyone {
            return Ok(true);
        }
        let asking = async {
            let github = self.github(tenant).await?;
            Ok(may_ask(&github, &issue.repository, trigger, listens.allow).await?)
        };
        let late = |_| Err(GithubError::Away { source: "it takes too long".into() }.into());
        tokio::time::timeout(VALIDATION, asking).await.unwrap_or_else(late)
    }
}
