//! What a host shows of a release, to somebody who has no work order in hand.

use tidegate_aws::clock;
use tidegate_domain::{
    id::{ApplicationId, DeploymentId},
    image::Digest,
};

use crate::{
    docker::{Error, label},
    perform::Host,
    plan::bakes,
};

/// How a release stands on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It was committed: the application's container is its.
    Committed {
        digest: Digest,
        runs: bool,
        /// In its bake time, which somebody has to watch to its end.
        bakes: bool,
    },
    /// It was not, and another version's container runs.
    OtherRuns,
    /// It was not, and nothing of the application runs.
    NothingRuns,
}

impl Host {
    /// # Errors
    /// The engine does not list its containers.
    pub async fn standing(&self, application: ApplicationId, release: DeploymentId) -> Result<Standing, Error> {
        let (host, application, release) = (self.label(), application.to_string(), release.to_string());
        let containers = self.engine.containers().await?;
        let mut standing = Standing::NothingRuns;
        for container in &containers {
            let labelled = |key, value: &String| container.labels.get(key) == Some(value);
            if !labelled(label::HOST, &host) || !labelled(label::APPLICATION, &application) {
                continue;
            }
            let digest = container.labels.get(label::DIGEST).and_then(|text| Digest::parse(text).ok());
            match digest {
                // Under the application's own name: that rename is the commit.
                Some(digest) if labelled(label::NAME, &container.name) && labelled(label::DEPLOYMENT, &release) => {
                    let bakes = bakes(container, clock::now());
                    return Ok(Standing::Committed { digest, runs: container.running, bakes });
                }
                Some(_) | None if container.running => standing = Standing::OtherRuns,
                Some(_) | None => {}
            }
        }
        Ok(standing)
    }
}
