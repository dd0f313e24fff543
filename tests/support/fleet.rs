//! Real workers on hosts of their own, on one engine: each can be killed at any of its calls, and cut off from anything.

use tidegate_domain::id::HostName;
use tidegate_local::{provision, stack};

use super::{Installation, docker_tap::DockerTap, faults::FaultyAws, own_worker::OwnWorker, relay::Victim};

pub(crate) struct Member {
    pub host: HostName,
    /// Of its containers' names.
    pub prefix: String,
    pub docker: DockerTap,
    pub aws: FaultyAws,
    worker: OwnWorker,
    victim: Victim,
}

impl Member {
    /// Registers the host; the worker is still to be started. `lines` are more of its configuration file.
    pub(crate) async fn join(installation: &Installation, name: &str, lines: &str) -> Self {
        let host = HostName::parse(name).unwrap();
        let registered = installation.put(&format!("hosts/{name}"), &serde_json::json!({})).await;
        assert!(registered.status.is_success(), "{}", registered.text);
        provision::host_queue(&installation.aws().clients(), &stack::tenant(), &host).await.unwrap();
        Self::again(installation, &host, lines).await
    }

    /// Another worker of a host that is registered.
    pub(crate) async fn again(installation: &Installation, host: &HostName, lines: &str) -> Self {
        let victim = Victim::default();
        let docker = DockerTap::start(&victim).await;
        let aws = FaultyAws::before(installation.aws(), &victim).await;
        let prefix = format!("{}{host}-", installation.prefix);
        let lines = format!("docker_host = \"{}\"\n{lines}", docker.url());
        let mut worker = OwnWorker::of_host(installation, host, &prefix, &lines);
        aws.is_used_by(&mut worker);
        Self { host: host.clone(), prefix, docker, aws, worker, victim }
    }

    pub(crate) fn start(&self) {
        self.victim.is(self.worker.start());
    }

    /// `false`: it was dead.
    pub(crate) fn kill(&self) -> bool {
        self.victim.kill()
    }

    /// As a service manager tells it to stop.
    pub(crate) fn terminate(&self) {
        self.victim.terminate();
    }

    pub(crate) fn lives(&self) -> bool {
        self.victim.lives()
    }

    /// Of all processes so far.
    pub(crate) fn log(&self) -> String {
        self.worker.log()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Before its containers are removed, which it would otherwise miss.
        self.victim.kill();
    }
}
