//! The worker's own binary, which can be killed and started again.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use tempfile::TempDir;
use tidegate_domain::id::HostName;
use tidegate_local::{provision, stack};

use super::{
    Installation,
    binaries::{Process, binary},
    eventually,
};

pub(crate) struct OwnWorker {
    folder: TempDir,
    environment: Vec<(String, String)>,
}

impl OwnWorker {
    /// For the installation's only host.
    pub(crate) fn of(installation: &Installation) -> Self {
        Self::of_host(installation, &stack::host(), &installation.prefix, "")
    }

    /// For any host of the installation's tenant. `container_prefix` has to begin with the installation's, so that what is
    /// left is cleaned up. `lines` are more of the configuration file.
    pub(crate) fn of_host(installation: &Installation, host: &HostName, container_prefix: &str, lines: &str) -> Self {
        assert!(container_prefix.starts_with(&installation.prefix), "{container_prefix} would not be cleaned up");
        let folder = tempfile::tempdir().unwrap();
        let (tenant, queues) = (stack::tenant(), installation.stack.queues());
        let config = format!(
            "tenant = \"{tenant}\"\nhost = \"{host}\"\ntable = \"{}\"\nqueue_url = \"{}{tenant}_{host}\"\n\
             reports_queue_url = \"{}\"\ndata = \"{}\"\ncontainer_prefix = \"{container_prefix}\"\n{lines}",
            provision::TABLE,
            queues.host_url_prefix,
            queues.reports_url,
            folder.path().join("data").display(),
        );
        fs::write(folder.path().join("worker.toml"), config).unwrap();
        let environment = installation.aws().environment();
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { folder, environment }
    }

    /// One more variable in the environment of every process to come, or another value of one that is there.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    pub(crate) fn start(&self) -> Process {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        Process(self.command().stderr(log).spawn().unwrap())
    }

    /// For one that does not run for long: how it ended, and what it said.
    pub(crate) async fn run_to_its_end(&self) -> (ExitStatus, String) {
        let path = self.folder.path().join("second.log");
        let mut process = Process(self.command().stderr(fs::File::create(&path).unwrap()).spawn().unwrap());
        let status = eventually("the worker ends", async || process.0.try_wait().unwrap()).await;
        (status, fs::read_to_string(path).unwrap())
    }

    /// Of all processes so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The binary with its configuration file and environment, to which arguments can be added.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(binary("tidegate-worker"));
        command.arg("--config").arg(self.folder.path().join("worker.toml"));
        command.envs(self.environment.iter().cloned()).stdout(Stdio::null());
        command
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("worker.log")
    }
}
