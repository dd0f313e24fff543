//! Bringing an image to this host, and the digest that it is deployed by.

use std::{collections::HashMap, time::Duration};

use bollard::{auth::DockerCredentials, models::CreateImageInfo, query_parameters::CreateImageOptionsBuilder};
use futures_util::StreamExt as _;
use tidegate_domain::{
    application::HealthCheck,
    image::{DOCKER_HUB, Digest, Version},
    job::Job,
};

use super::{Engine, Error, Hold, QUICK, container::own_check, within};

/// For a registry's answer about one manifest, through the engine.
const REGISTRY_ANSWER: Duration = Duration::from_secs(30);
/// A pull that tells nothing for so long is given up. Unpacking a large layer is told of only now and then.
const SILENCE: Duration = Duration::from_mins(2);
/// So many ask their registries at once; the others wait, and hold up nothing but themselves.
pub(super) const AT_ONCE: usize = 4;
/// The Hub's address in credentials, which is older than its name.
const HUB_ADDRESS: &str = "https://index.docker.io/v1/";

/// How far a pull has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullProgress {
    /// Of fetching and unpacking all layers, 0 to 100; never goes back.
    pub percent: u8,
    /// Of the layers that this host has to fetch.
    pub bytes_done: u64,
    /// As far as the registry has told.
    pub bytes_total: u64,
}

/// An image that is on the host, and stays there as long as this is held.
#[derive(Debug)]
pub struct Pulled {
    pub digest: Digest,
    /// `name@sha256:…`: what a container is created from, whatever the tag says by then.
    pub reference: String,
    _hold: Hold,
}

impl Engine {
    /// Makes sure that the job's image is here. A digest that is here already needs no registry; a tag is always asked
    /// for there. Calls `progress` whenever it changes.
    ///
    /// # Errors
    /// What the engine or, through it, the registry says; [`super::failure::pull`] tells them apart.
    pub async fn pull(&self, job: &Job, mut progress: impl FnMut(PullProgress)) -> Result<Pulled, Error> {
        let pinned = pinned(job);
        let by_digest = async |digest: Digest| {
            let hold = self.in_hand.hold(&digest).await;
            let reference = job.image.at(&Version::Digest(digest.clone()));
            Pulled { digest, reference, _hold: hold }
        };
        if let Some(digest) = pinned.clone() {
            let pulled = by_digest(digest).await;
            if self.has_image(&pulled.reference).await? {
                progress(PullProgress { percent: 100, ..PullProgress::default() });
                return Ok(pulled);
            }
        }
        let _place = self.pulls.acquire().await.expect("nobody closes it");
        // Asked first even if the digest is known: only here does the engine pass on a registry's 401 and 404 as such.
        let version = pinned.clone().map_or_else(|| job.version.clone(), Version::Digest);
        let asked_for = job.image.at(&version);
        let asked = self.docker.inspect_registry_image(&asked_for, credentials(job));
        let told = within(REGISTRY_ANSWER, asked).await?.descriptor.digest;
        let digest = match pinned {
            Some(digest) => digest,
            None => told.as_deref().and_then(|digest| Digest::parse(digest).ok()).ok_or_else(|| Error::Refused {
                status: 502,
                message: "the registry told no sha256 digest for the image".to_owned(),
            })?,
        };
        let pulled = by_digest(digest).await;
        if !self.has_image(&pulled.reference).await? {
            self.fetch(&pulled.reference, credentials(job), &mut progress).await?;
        }
        progress(PullProgress { percent: 100, ..PullProgress::default() });
        Ok(pulled)
    }

    pub(super) async fn has_image(&self, reference: &str) -> Result<bool, Error> {
        match within(QUICK, self.docker.inspect_image(reference)).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The health check that an image brings with it.
    pub async fn image_check(&self, reference: &str) -> Result<Option<HealthCheck>, Error> {
        let config = within(QUICK, self.docker.inspect_image(reference)).await?.config.unwrap_or_default();
        Ok(config.healthcheck.and_then(|check| own_check(check, config.shell)))
    }

    /// `reference` names a digest: without it or a tag, the engine would pull every tag there is. A crash in here makes the
    /// engine cancel, and throw away even finished layers.
    async fn fetch(
        &self,
        reference: &str,
        credentials: Option<DockerCredentials>,
        progress: &mut impl FnMut(PullProgress),
    ) -> Result<(), Error> {
        let options = CreateImageOptionsBuilder::default().from_image(reference).build();
        let mut events = self.docker.create_image(Some(options), None, credentials);
        let mut layers = Layers::default();
        while let Some(event) = within(SILENCE, async { events.next().await.transpose() }).await? {
            if let Some(changed) = layers.fold(event) {
                progress(changed);
            }
        }
        Ok(())
    }
}

/// The digest that is to run, if it is known before the registry is asked.
pub(super) fn pinned(job: &Job) -> Option<Digest> {
    match (&job.digest, &job.version) {
        (Some(digest), _) | (None, Version::Digest(digest)) => Some(digest.clone()),
        (None, Version::Tag(_)) => None,
    }
}

/// Only for the server they were made for: an application that was moved to another registry must not show that one the
/// password of the first.
fn credentials(job: &Job) -> Option<DockerCredentials> {
    let own = job.credentials.as_ref().filter(|own| own.server == *job.image.server())?;
    let address = if own.server.as_str() == DOCKER_HUB { HUB_ADDRESS } else { own.server.as_str() };
    Some(DockerCredentials {
        username: Some(own.username.clone()),
        password: Some(own.password.expose().clone()),
        serveraddress: Some(address.to_owned()),
        ..DockerCredentials::default()
    })
}

#[derive(Debug, Default)]
struct Layers {
    layers: HashMap<String, Layer>,
    last: PullProgress,
}

#[derive(Debug, Default)]
struct Layer {
    /// 1 when downloaded, 2 when unpacked.
    stage: f64,
    done: u64,
    total: u64,
}

impl Layers {
    /// The progress, if this event changes it.
    fn fold(&mut self, event: CreateImageInfo) -> Option<PullProgress> {
        let (id, status) = (event.id?, event.status?);
        let detail = event.progress_detail.unwrap_or_default();
        let bytes = |count: Option<i64>| count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let (current, total) = (bytes(detail.current), bytes(detail.total));
        #[expect(clippy::cast_precision_loss, reason = "a share of the bytes, shown as whole percents")]
        let share = if total == 0 { 0.0 } else { (current as f64 / total as f64).min(1.0) };
        let stage = match status.as_str() {
            "Pulling fs layer" | "Waiting" => 0.0,
            "Downloading" => share,
            "Verifying Checksum" | "Download complete" => 1.0,
            "Extracting" => 1.0 + share,
            "Pull complete" => 2.0,
            // "Already exists" among them: it comes before the others are announced, and would count as all of it.
            _ => return None,
        };
        let layer = self.layers.entry(id).or_default();
        layer.stage = layer.stage.max(stage);
        if status == "Downloading" {
            layer.done = layer.done.max(current);
            // Of a small layer no total is told.
            layer.total = layer.total.max(total).max(current);
        }
        if layer.stage >= 1.0 {
            layer.done = layer.total;
        }
        let stages: f64 = self.layers.values().map(|layer| layer.stage).sum();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between 0 and 100, of a few hundred layers at most"
        )]
        let percent = (stages * 50.0 / self.layers.len() as f64) as u8;
        let now = PullProgress {
            percent: percent.max(self.last.percent),
            bytes_done: self.layers.values().map(|layer| layer.done).sum(),
            bytes_total: self.layers.values().map(|layer| layer.total).sum(),
        };
        let changed = now != self.last;
        self.last = now;
        changed.then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;
    use tidegate_domain::{image::RegistryServer, job::Credentials, secret::Secret};

    use super::*;
    use crate::samples;

    #[test]
    fn progress_counts_layers_and_never_goes_back() {
        let mut layers = Layers::default();
        let mut check = |id: &str, status: &str, bytes: Option<(i64, i64)>, expect: Option<(u8, u64, u64)>| {
            let detail = bytes.map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) });
            let event = CreateImageInfo {
                id: Some(id.to_owned()),
                status: Some(status.to_owned()),
                progress_detail: detail,
                ..CreateImageInfo::default()
            };
            let told = layers.fold(event).map(|p| (p.percent, p.bytes_done, p.bytes_total));
            assert_eq!(told, expect, "{id} {status}");
        };
        check("v2", "Pulling from shop/web", None, None);
        check("a", "Already exists", None, None);
        check("b", "Pulling fs layer", None, None);
        check("c", "Pulling fs layer", None, None);
        check("b", "Downloading", Some((50, 100)), Some((12, 50, 100)));
        check("b", "Downloading", Some((40, 100)), None);
        check("b", "Download complete", None, Some((25, 100, 100)));
        check("b", "Pull complete", None, Some((50, 100, 100)));
        check("d", "Pulling fs layer", None, None);
        check("c", "Downloading", Some((10, 10)), Some((50, 110, 110)));
        check("c", "Pull complete", None, Some((66, 110, 110)));
    }

    #[test]
    fn credentials_go_to_their_own_server_only() {
        let mut job = samples::job();
        let of = |server: &str| {
            let password = Secret::new("p".to_owned());
            Some(Credentials { server: RegistryServer::parse(server).unwrap(), username: "u".to_owned(), password })
        };
        job.credentials = of("registry.example.com:5000");
        assert_eq!(credentials(&job).unwrap().serveraddress.as_deref(), Some("registry.example.com:5000"));
        job.credentials = of("registry.example.com");
        assert!(credentials(&job).is_none());
        job.credentials = of("docker.io");
        job.image = tidegate_domain::image::ImageName::parse("shop/web").unwrap();
        assert_eq!(credentials(&job).unwrap().serveraddress.as_deref(), Some(HUB_ADDRESS));
    }
}
