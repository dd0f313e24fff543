//! Work orders that are made from what was released before, not from what is registered now.

use tidegate_domain::{
    deployment::Deployment,
    id::{HostName, TenantId},
    job::{Action, Job, JobVariable},
};

use crate::{
    application_state::{ApplicationState, Release},
    catalogue::Stored,
    error::Result,
    registered::RegisteredApplication,
    store::Store,
};

impl Store {
    /// The work order of a rollback: the release's image and configuration, with the registry's credentials of today, which
    /// may have changed since and are needed only where the image is not kept.
    pub async fn rollback_job(
        &self,
        tenant: &TenantId,
        application: &Stored<RegisteredApplication>,
        deployment: &Deployment,
        release: &Release,
    ) -> Result<Job> {
        let released = self.open_snapshot(tenant, release.deployment_id).await?;
        let today = self.credentials_of(tenant, application, &released.image).await?;
        Ok(Job {
            deployment_id: deployment.id,
            release: deployment.id,
            action: Action::Deploy,
            digest: Some(release.digest.clone()),
            credentials: today.or(released.credentials),
            approved: None,
            ..released
        })
    }

    /// The work order for what is done with containers that are there: made from what `hosts` run, with all their secrets,
    /// so that none shows in a log. None if nothing runs there.
    pub async fn job_for_what_runs(
        &self,
        tenant: &TenantId,
        state: &ApplicationState,
        hosts: &[HostName],
        deployment: &Deployment,
    ) -> Result<Option<Job>> {
        let mut releases: Vec<_> = hosts.iter().filter_map(|host| state.release_on(host)).collect();
        releases.sort();
        releases.dedup();
        // The newest last: its health check is asked.
        let Some(newest) = releases.pop() else { return Ok(None) };
        let mut job = self.open_snapshot(tenant, newest).await?;
        for release in releases {
            let other = self.open_snapshot(tenant, release).await?;
            let secrets = other.variables.into_iter().filter(|variable| variable.is_secret);
            job.variables.extend(secrets.map(|variable| JobVariable { is_secret: true, ..variable }));
        }
        Ok(Some(acting(job, deployment)))
    }

    /// The same for one host, once the deployment's turn has come: what was recorded then as running there is what its
    /// order is about, whatever ran when it was asked for. None of a deployment that brings a version of its own, and where
    /// it is not known what is there.
    pub(crate) async fn job_for_what_is_there(
        &self,
        tenant: &TenantId,
        deployment: &Deployment,
        host: &HostName,
    ) -> Result<Option<Job>> {
        let target = deployment.targets.iter().find(|target| target.host == *host);
        let runs = target.and_then(|target| target.previous.as_ref()).filter(|_| deployment.action != Action::Deploy);
        let Some(runs) = runs else { return Ok(None) };
        let job = self.open_snapshot(tenant, runs.release).await?;
        let job = Job { digest: Some(runs.digest.clone()), ..acting(job, deployment) };
        Ok(Some(Job { sequence: deployment.sequence.unwrap_or(job.sequence), ..job }))
    }
}

/// A release's work order, turned into one that acts on its container and brings nothing.
fn acting(mut job: Job, deployment: &Deployment) -> Job {
    job.variables.retain(|variable| variable.is_secret);
    Job {
        deployment_id: deployment.id,
        action: deployment.action,
        credentials: None,
        bake_seconds: 0,
        adopt: false,
        approved: None,
        ..job
    }
}
