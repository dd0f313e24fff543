//! Removes a test's containers, however the test ended.

use std::collections::HashMap;

use bollard::{
    Docker,
    errors::Error,
    query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder},
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
        // The test's own runtime may be shutting down.
        let removing = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(remove(&prefix))
        });
        match removing.join() {
            Ok(Ok(())) => {}
            other => eprintln!("containers of a test were left behind: {other:?}"),
        }
    }
}
