//! Networks and volumes of a test's own. They have to be declared before the installation, so that they go after its
//! containers.

use std::collections::HashMap;

use bollard::{
    Docker,
    models::{ContainerInspectResponse, NetworkCreateRequest},
    query_parameters::{EventsOptionsBuilder, RemoveVolumeOptionsBuilder},
};
use futures_util::StreamExt as _;
use tidegate_aws::{clock, random};
use tokio::task::JoinHandle;

use crate::support::{beside, hex};

fn unique() -> String {
    format!("test-{}", hex(&random::bytes::<6>()))
}

pub(super) struct Network {
    name: String,
}

impl Network {
    pub(super) async fn create() -> Self {
        let network = Self { name: unique() };
        let request = NetworkCreateRequest { name: network.name.clone(), ..NetworkCreateRequest::default() };
        Docker::connect_with_local_defaults().unwrap().create_network(request).await.unwrap();
        network
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let name = self.name.clone();
        beside("networks", async move || Docker::connect_with_local_defaults()?.remove_network(&name).await);
    }
}

/// Volumes that are removed at the end; Docker makes them when a container wants them.
pub(super) struct Volumes {
    prefix: String,
    names: Vec<String>,
}

impl Volumes {
    pub(super) fn named(names: &[&str]) -> Self {
        let prefix = unique();
        Self { names: names.iter().map(|name| format!("{prefix}-{name}")).collect(), prefix }
    }

    pub(super) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// The container's only volume without a name of its own, which is removed at the end as well.
    pub(super) fn take_over(&mut self, container: &ContainerInspectResponse) -> String {
        let volumes = container.mounts.iter().flatten().filter(|mount| mount.typ.as_deref() == Some("volume"));
        let mut names = volumes.filter_map(|mount| mount.name.clone()).filter(|name| name.len() == 64);
        let name = names.next().expect("an image with VOLUME has one");
        assert_eq!(names.next(), None);
        self.names.push(name.clone());
        name
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        beside("volumes", async move || {
            let docker = Docker::connect_with_local_defaults()?;
            for name in names {
                let forced = RemoveVolumeOptionsBuilder::default().force(true).build();
                // Those that no container has ever wanted do not exist.
                let _ = docker.remove_volume(&name, Some(forced)).await;
            }
            Ok(())
        });
    }
}

/// The next volume that any container has on a target, which is to be nobody else's. Watched from now on, as the engine
/// forgets its events soon.
pub(super) fn next_mount(docker: &Docker, target: &str) -> JoinHandle<String> {
    let filters = HashMap::from([("type", vec!["volume"]), ("event", vec!["mount"])]);
    let since = clock::now().as_second().to_string();
    let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
    let (mut events, target) = (docker.events(Some(options)).boxed(), target.to_owned());
    tokio::spawn(async move {
        loop {
            let event = events.next().await.expect("Docker goes on telling").unwrap();
            let Some(actor) = event.actor else { continue };
            if actor.attributes.unwrap_or_default().get("destination") == Some(&target) {
                return actor.id.unwrap_or_default();
            }
        }
    })
}
