//! Debian's `webhook`, running the usual script.

use std::{
    error::Error,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use tempfile::TempDir;

/// What the script replaces, and where it gets it.
pub(crate) struct Target<'a> {
    pub(crate) image: &'a str,
    pub(crate) container: &'a str,
    /// On 127.0.0.1.
    pub(crate) port: u16,
    pub(crate) container_port: u16,
}

/// The running program, with its hook.
pub(crate) struct Webhook {
    process: Child,
    url: String,
    http: reqwest::Client,
    _folder: TempDir,
}

/// Whether it is installed.
pub(crate) fn is_there() -> bool {
    let asked = Command::new("webhook").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

impl Webhook {
    pub(crate) async fn start(
        target: &Target<'_>,
        registry: SocketAddr,
        user: &str,
        password: &str,
    ) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let login = folder.path().join("docker");
        log_in(&login, registry, user, password)?;
        let script = folder.path().join("deploy.sh");
        fs::write(&script, text(target, &login))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let hooks = folder.path().join("hooks.json");
        let hook = json!([{
            "id": "deploy",
            "execute-command": script,
            "pass-arguments-to-command": [{"source": "payload", "name": "version"}],
        }]);
        fs::write(&hooks, hook.to_string())?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let process = Command::new("webhook")
            .arg("-hooks")
            .arg(&hooks)
            .args(["-ip", "127.0.0.1", "-port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let url = format!("http://127.0.0.1:{port}");
        let webhook = Self { process, url, http: reqwest::Client::new(), _folder: folder };
        webhook.wait_for_it().await?;
        Ok(webhook)
    }

    async fn wait_for_it(&self) -> Result<(), Box<dyn Error>> {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..200 {
            ticks.tick().await;
            if self.http.get(&self.url).send().await.is_ok() {
                return Ok(());
            }
        }
        Err("webhook does not answer".into())
    }

    /// Returns as soon as the call is answered, which is before the script has ended.
    pub(crate) async fn deploy(&self, version: &str) -> Result<(), Box<dyn Error>> {
        let call = self.http.post(format!("{}/hooks/deploy", self.url)).json(&json!({"version": version}));
        call.send().await?.error_for_status()?;
        Ok(())
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Once, as an operator would; the script then finds the credentials.
fn log_in(folder: &Path, registry: SocketAddr, user: &str, password: &str) -> Result<(), Box<dyn Error>> {
    use std::io::Write as _;
    let mut docker = Command::new("docker")
        .arg("--config")
        .arg(folder)
        .args(["login", "--username", user, "--password-stdin", &registry.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    docker.stdin.take().ok_or("docker login takes no input")?.write_all(password.as_bytes())?;
    if docker.wait()?.success() { Ok(()) } else { Err("docker login failed".into()) }
}

fn text(target: &Target<'_>, login: &Path) -> String {
    let Target { image, container, port, container_port } = target;
    format!(
        "#!/bin/sh\n\
         set -e\n\
         export DOCKER_CONFIG='{}'\n\
         docker pull '{image}':\"$1\"\n\
         docker stop '{container}'\n\
         docker rm '{container}'\n\
         docker run -d --init --restart unless-stopped --name '{container}' -p 127.0.0.1:{port}:{container_port} \
         '{image}':\"$1\"\n",
        login.display()
    )
}
