//! Removes a test's containers, however the test ended.

use std::collections::HashMap;

use bollard::{
    Docker,
    errors::Error,
    query_parameters::{
        ListContainersOptionsBuilder, ListImagesOptions, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    },
};

/// Every container whose name begins with the prefix and that carries our label is removed when this is dropped.
pub(crate) struct Cleaning {
    pub prefix: String,
}

/// Ids and names.
pub(crate) async fn containers(docker: &Docker, prefix: &str) -> Result<Vec<(String, String)>, Error> {
    let filters = HashMap::from([("label", vec!["tidegate.application".to_owned()])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let mut found = Vec::new();
    for container in docker.list_containers(Some(options)).await? {
        let names = container.names.unwrap_or_default();
        let name = names.first().map(|name| name.trim_start_matches('/').to_owned()).unwrap_or_default();
        if name.starts_with(prefix) {
            found.push((container.id.unwrap_or_default(), name));
        }
    }
    Ok(found)
}

async fn remove(prefix: &str) -> Result<(), Error> {
    let docker = Docker::connect_with_local_defaults()?;
    for (id, _) in containers(&docker, prefix).await? {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        // One that the worker has just removed itself is gone as well.
        let _ = docker.remove_container(&id, Some(options)).await;
    }
    Ok(())
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        let prefix = self.prefix.clone();
        beside("containers", async move || remove(&prefix).await);
    }
}

/// Images that were pulled from a test's own registry; every registry has a port of its own.
pub(crate) fn remove_images(server: String) {
    beside("images", async move || {
        let docker = Docker::connect_with_local_defaults()?;
        let of_server = |name: &String| name.starts_with(&format!("{server}/"));
        for image in docker.list_images(None::<ListImagesOptions>).await? {
            if image.repo_tags.iter().chain(&image.repo_digests).any(of_server) {
                let options = RemoveImageOptionsBuilder::default().force(true).build();
                // Another test may have the same layers under names of its own.
                let _ = docker.remove_image(&image.id, Some(options), None).await;
            }
        }
        Ok(())
    });
}

/// Cleans up outside of the test's own runtime, which may be shutting down.
pub(crate) fn beside<F: AsyncFnOnce() -> Result<(), Error> + Send + 'static>(what: &str, clean: F) {
    let cleaning = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(clean())
    });
    match cleaning.join() {
        Ok(Ok(())) => {}
        other => eprintln!("{what} of a test were left behind: {other:?}"),
    }
}
