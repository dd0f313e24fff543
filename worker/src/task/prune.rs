//! Cleaning up after an application: containers that were left over, and images that nobody needs.

use std::time::Duration;

use tidegate_domain::{
    image::ImageName,
    task::{LONGEST, Pruned, Refusal, TaskOrder},
};
use tokio::time::timeout;

use super::refusal;
use crate::{
    docker::{Error, Removed},
    perform::Host,
    plan::{Goal, Observed, Step},
    settle::{self, Settling, Unsettled, Why},
};

/// What has gone counts, also where not all could be done. Never beside a deployment of the application.
pub(super) async fn prune(host: &Host, order: &TaskOrder, image: &ImageName) -> Pruned {
    let mut containers_removed = 0;
    let mut removed = Removed::default();
    let done = timeout(LONGEST, clean(host, order, image, &mut containers_removed, &mut removed)).await;
    let error = match done {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(refusal(&error, str::to_owned)),
        Err(_) => Some(Refusal::Late),
    };
    Pruned { images_removed: removed.images, bytes_reclaimed: removed.bytes, containers_removed, error }
}

async fn clean(
    host: &Host,
    order: &TaskOrder,
    image: &ImageName,
    containers_removed: &mut usize,
    removed: &mut Removed,
) -> Result<(), Error> {
    let settling = Settling {
        application: order.application_id,
        name: format!("{}{}", host.policy.container_prefix, order.name.as_str()),
        goal: Goal::Settle,
        adopts: false,
        grace: Duration::ZERO,
        known: Observed::default(),
    };
    match settle::clean_up(host, &settling).await {
        Ok(settled) => {
            let is_removal = |step: &&Step| matches!(step, Step::RemoveNext { .. } | Step::RemovePrevious { .. });
            *containers_removed = settled.done.iter().filter(is_removal).count();
        }
        Err(Unsettled { why: Why::Docker(error), .. }) => return Err(error),
        // Of what waits for its name nothing is to be removed.
        Err(Unsettled { why: Why::NameTaken(_), .. }) => {}
    }
    host.engine.remove_images(image, host.policy.keep_images, None, removed).await
}
