//! Which image a version stands for, while it is decided on.

use std::time::Instant;

use tidegate_domain::{
    image::{Digest, ImageName},
    job::Job,
};

use crate::{Gate, VALIDATION};

/// What a registry has said of the request's version of this image.
pub(crate) struct Known {
    image: ImageName,
    digest: Option<Digest>,
}

impl Gate {
    /// What the version stands for, asked once for all tries of a request, and within what is left of its time.
    pub(crate) async fn known_digest(&self, job: &Job, begun: Instant, known: &mut Option<Known>) -> Option<Digest> {
        if let Some(known) = known.as_ref().filter(|known| known.image == job.image) {
            return known.digest.clone();
        }
        let left = VALIDATION.saturating_sub(begun.elapsed());
        let digest = tokio::time::timeout(left, self.digest(job)).await.unwrap_or_default();
        *known = Some(Known { image: job.image.clone(), digest: digest.clone() });
        digest
    }

    /// What the version stands for now, so that a decision covers an image and not a name. Where the registry cannot be
    /// asked, the first host finds it out for all.
    pub(crate) async fn digest(&self, job: &Job) -> Option<Digest> {
        match self.registry.digest(&job.image, &job.version, job.credentials.as_ref()).await {
            Ok(digest) => Some(digest),
            Err(why) => {
                tracing::info!(deployment.id = %job.deployment_id, error = &why as &dyn std::error::Error,
                    "what is to be decided on has no digest yet");
                None
            }
        }
    }
}
