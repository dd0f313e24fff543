//! Cleaning up images that no deployment needs any more.

use bollard::query_parameters::{ListImagesOptions, RemoveImageOptionsBuilder};
use tidegate_domain::image::ImageName;

use super::{Engine, Error, QUICK, SLOW, within};

impl Engine {
    /// Removes the application's images beyond its newest `keep`, except those that any container uses. Ours are known by
    /// having a digest and no tag, as they are pulled by digest: what someone tagged on this host is theirs.
    ///
    /// # Errors
    /// The first that the engine tells; the others have been tried.
    pub async fn prune_images(&self, image: &ImageName, keep: usize) -> Result<(), Error> {
        let mut images = within(QUICK, self.docker.list_images(None::<ListImagesOptions>)).await?;
        images.retain(|listed| own_digests(&listed.repo_digests, image).next().is_some());
        if images.len() <= keep {
            return Ok(());
        }
        let used: Vec<String> = self.containers().await?.into_iter().map(|container| container.image_id).collect();
        images.sort_by_key(|listed| std::cmp::Reverse(listed.created));
        let mut first_error = Ok(());
        for old in images.iter().skip(keep) {
            let tagged = old.repo_tags.iter().any(|tag| tag != "<none>:<none>");
            if tagged || used.contains(&old.id) {
                continue;
            }
            for reference in own_digests(&old.repo_digests, image) {
                let options = RemoveImageOptionsBuilder::default().build();
                match within(SLOW, self.docker.remove_image(reference, Some(options), None)).await {
                    Ok(_) => {}
                    // Another pass was first, or a container was made of it meanwhile.
                    Err(error) if matches!(error.status(), Some(404 | 409)) => {}
                    Err(error) => first_error = first_error.and(Err(error)),
                }
            }
        }
        first_error
    }
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
}
