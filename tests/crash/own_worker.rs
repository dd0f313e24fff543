//! The worker's own binary, which can be killed and started again.

use std::{
    fs::{self, OpenOptions},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use tempfile::TempDir;
use tidegate_local::{provision, stack};

use crate::support::{
    Installation,
    binaries::{Process, binary},
    eventually,
};

pub(super) struct OwnWorker {
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl OwnWorker {
    /// For the installation's only host.
    pub(super) fn of(installation: &Installation) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (tenant, host, queues) = (stack::tenant(), stack::host(), installation.stack.queues());
        let config = format!(
            "tenant = \"{tenant}\"\nhost = \"{host}\"\ntable = \"{}\"\nqueue_url = \"{}{tenant}_{host}\"\n\
             reports_queue_url = \"{}\"\ndata = \"{}\"\ncontainer_prefix = \"{}\"\n",
            provision::TABLE,
            queues.host_url_prefix,
            queues.reports_url,
            folder.path().join("data").display(),
            installation.prefix,
        );
        fs::write(folder.path().join("worker.toml"), config).unwrap();
        Self { folder, environment: installation.aws().environment() }
    }

    pub(super) fn start(&self) -> Process {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        Process(self.command().stderr(log).spawn().unwrap())
    }

    /// For one that does not run for long: how it ended, and what it said.
    pub(super) async fn run_to_its_end(&self) -> (ExitStatus, String) {
        let path = self.folder.path().join("second.log");
        let mut process = Process(self.command().stderr(fs::File::create(&path).unwrap()).spawn().unwrap());
        let status = eventually("the worker ends", async || process.0.try_wait().unwrap()).await;
        (status, fs::read_to_string(path).unwrap())
    }

    /// Of all processes so far.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary("tidegate-worker"));
        command.arg("--config").arg(self.folder.path().join("worker.toml"));
        command.envs(self.environment.iter().cloned()).stdout(Stdio::null());
        command
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("worker.log")
    }
}
