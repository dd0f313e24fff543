//! Cleaning up images that no deployment needs any more.

use bollard::{
    models::ImageSummary,
    query_parameters::{ListImagesOptions, RemoveImageOptionsBuilder},
};
use tidegate_domain::{
    id::ApplicationId,
    image::{Digest, ImageName, Version},
    job::Job,
};

use super::{Container, Engine, Error, QUICK, SLOW, label, pull::pinned, within};

/// What has gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub images: usize,
    /// As the engine lists an image's size: layers that another image shares count too.
    pub bytes: u64,
}

impl Engine {
    /// Removes an image's versions beyond the newest `keep`, by the time they were built, except those that any container
    /// uses or a job has in hand, and the former version of every container, whoever's application it is, so that the way
    /// back to it needs no registry. Where room has to be made, the former version `of_no_use` to this application may go.
    /// Ours are known by having a digest and no tag, as they are pulled by digest: what someone tagged on this host is theirs.
    ///
    /// # Errors
    /// The first that the engine tells; the others have been tried.
    pub async fn prune_images(
        &self,
        image: &ImageName,
        keep: usize,
        of_no_use: Option<ApplicationId>,
    ) -> Result<(), Error> {
        self.remove_images(image, keep, of_no_use, &mut Removed::default()).await
    }

    /// The same; `removed` tells at any moment what has gone, also where this is not waited for.
    pub async fn remove_images(
        &self,
        image: &ImageName,
        keep: usize,
        of_no_use: Option<ApplicationId>,
        removed: &mut Removed,
    ) -> Result<(), Error> {
        let mut first_error = Ok(());
        for old in self.removable(image, keep, of_no_use).await? {
            for reference in own_digests(&old.repo_digests, image) {
                let options = RemoveImageOptionsBuilder::default().build();
                let remove = async || within(SLOW, self.docker.remove_image(reference, Some(options), None)).await;
                let Some(answer) = self.in_hand.unless_held(&old.repo_digests, remove).await else { break };
                match answer {
                    // Without this it has lost one of its names, and goes with the last of them.
                    Ok(steps) if steps.iter().any(|step| step.deleted.as_ref() == Some(&old.id)) => {
                        removed.images += 1;
                        removed.bytes += u64::try_from(old.size).unwrap_or(0);
                    }
                    Ok(_) => {}
                    // Another pass was first, or a container was made of it meanwhile.
                    Err(error) if matches!(error.status(), Some(404 | 409)) => {}
                    Err(error) => first_error = first_error.and(Err(error)),
                }
            }
        }
        first_error
    }

    /// How much [`Engine::prune_images`] could make free at most.
    pub async fn removable_bytes(
        &self,
        image: &ImageName,
        keep: usize,
        of_no_use: Option<ApplicationId>,
    ) -> Result<u64, Error> {
        let images = self.removable(image, keep, of_no_use).await?;
        Ok(images.iter().map(|old| u64::try_from(old.size).unwrap_or(0)).sum())
    }

    async fn removable(
        &self,
        image: &ImageName,
        keep: usize,
        of_no_use: Option<ApplicationId>,
    ) -> Result<Vec<ImageSummary>, Error> {
        let mut images = within(QUICK, self.docker.list_images(None::<ListImagesOptions>)).await?;
        images.retain(|listed| own_digests(&listed.repo_digests, image).next().is_some());
        if images.len() <= keep {
            return Ok(Vec::new());
        }
        let containers = self.containers().await?;
        let used: Vec<&str> = containers.iter().map(|container| container.image_id.as_str()).collect();
        let formers: Vec<Digest> = formers(&containers, of_no_use).collect();
        images.sort_by_key(|listed| std::cmp::Reverse(listed.created));
        images.drain(..keep);
        images.retain(|old| {
            let tagged = old.repo_tags.iter().any(|tag| tag != "<none>:<none>");
            let is_former = formers.iter().any(|former| has_digest(&old.repo_digests, image, former));
            !tagged && !is_former && !used.contains(&old.id.as_str())
        });
        Ok(images)
    }

    /// Whether the job's image is on the host, so that nothing has to be pulled. Of a tag only the registry knows.
    pub async fn has_image_of(&self, job: &Job) -> Result<bool, Error> {
        match pinned(job) {
            Some(digest) => self.has_image(&job.image.at(&Version::Digest(digest))).await,
            None => Ok(false),
        }
    }

    /// Whether a container uses any version of the image: another application deploys the same one, say.
    pub async fn is_image_used(&self, image: &ImageName) -> Result<bool, Error> {
        let images = within(QUICK, self.docker.list_images(None::<ListImagesOptions>)).await?;
        let containers = self.containers().await?;
        let uses = |id: &str| containers.iter().any(|Container { image_id, .. }| image_id == id);
        Ok(images.iter().any(|listed| own_digests(&listed.repo_digests, image).next().is_some() && uses(&listed.id)))
    }
}

/// What a way back from any container needs. Another application may deploy the same image.
fn formers(containers: &[Container], of_no_use: Option<ApplicationId>) -> impl Iterator<Item = Digest> {
    let of_no_use = of_no_use.map(|application| application.to_string());
    let label_of = |container: &Container, key| container.labels.get(key).cloned();
    containers
        .iter()
        .filter(move |container| of_no_use.is_none() || label_of(container, label::APPLICATION) != of_no_use)
        .filter_map(move |container| Digest::parse(&label_of(container, label::FORMER_DIGEST)?).ok())
}

fn has_digest(digests: &[String], image: &ImageName, wanted: &Digest) -> bool {
    let wanted = wanted.to_string();
    own_digests(digests, image).any(|reference| reference.ends_with(&format!("@{wanted}")))
}

/// Docker writes the Hub's images in their short form, so names are compared by what they mean.
fn own_digests<'a>(digests: &'a [String], image: &'a ImageName) -> impl Iterator<Item = &'a str> {
    digests.iter().map(String::as_str).filter(move |reference| {
        let named = reference.split_once('@').and_then(|(name, _)| ImageName::parse(name).ok());
        named.is_some_and(|named| named.server() == image.server() && named.repository() == image.repository())
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_image_is_known_by_what_its_name_means() {
        let check = |digest: &str, image: &str, own: bool| {
            let digests = [digest.to_owned()];
            assert_eq!(own_digests(&digests, &ImageName::parse(image).unwrap()).count() == 1, own, "{digest} {image}");
        };
        check("nginx@sha256:00", "docker.io/library/nginx", true);
        check("nginx@sha256:00", "docker.io/nginx/nginx", false);
        check("registry.example.com/a@sha256:00", "registry.example.com/a", true);
        check("registry.example.com:5000/a@sha256:00", "registry.example.com/a", false);
        check("<none>@<none>", "registry.example.com/a", false);
    }

    #[test]
    fn the_former_version_is_known_by_its_digest() {
        let image = ImageName::parse("registry.example.com/a").unwrap();
        let digest = |c: &str| Digest::parse(&format!("sha256:{}", c.repeat(64))).unwrap();
        let listed = [format!("registry.example.com/a@{}", digest("0")), format!("nginx@{}", digest("1"))];
        assert!(has_digest(&listed, &image, &digest("0")));
        assert!(!has_digest(&listed, &image, &digest("1")), "of another image");
    }

    #[test]
    fn the_former_version_of_every_application_is_known() {
        let digest = |c: &str| Digest::parse(&format!("sha256:{}", c.repeat(64))).unwrap();
        let container = |application: u64, former: &str| Container {
            id: String::new(),
            name: String::new(),
            labels: BTreeMap::from([
                (label::APPLICATION.to_owned(), ApplicationId(application).to_string()),
                (label::FORMER_DIGEST.to_owned(), former.to_owned()),
            ]),
            running: false,
            image_id: String::new(),
            published: Vec::new(),
        };
        let mut containers =
            vec![container(1, digest("0").as_str()), container(2, digest("1").as_str()), container(3, "not a digest")];
        let found = |containers: &[Container], of_no_use| formers(containers, of_no_use).collect::<Vec<_>>();
        assert_eq!(found(&containers, None), [digest("0"), digest("1")]);
        assert_eq!(found(&containers, Some(ApplicationId(1))), [digest("1")]);
        containers[2].labels.clear();
        assert_eq!(found(&containers, Some(ApplicationId(2))), [digest("0")]);
    }
}
