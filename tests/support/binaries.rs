//! The real binaries, as they are deployed.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use cargo_metadata::Message;

/// Path of a binary of the workspace. Builds all of them the first time, with the features that the tests have.
pub(crate) fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"))
            .args(["build", "--workspace", "--bins", "--message-format=json-render-diagnostics", "--quiet"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(cargo.stdout.take().unwrap());
        let artifacts = Message::parse_stream(output).filter_map(|message| match message.unwrap() {
            Message::CompilerArtifact(artifact) => {
                Some((artifact.target.name, artifact.executable?.into_std_path_buf()))
            }
            _ => None,
        });
        let artifacts = artifacts.collect();
        assert!(cargo.wait().unwrap().success(), "the binaries are built");
        artifacts
    });
    built.get(name).unwrap_or_else(|| panic!("{name} is not among {:?}", built.keys())).clone()
}

/// A process that ends with the test.
pub(crate) struct Process(pub Child);

impl Process {
    /// What a service manager does to stop it.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.0.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// `kill -9`, and the end of it.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
