//! Small images of `demo/app.rs`, made without a network and pushed to a registry as a CI would.

use std::{fmt, net::SocketAddr};

use bollard::{
    Docker,
    auth::DockerCredentials,
    query_parameters::{CreateImageOptions, PushImageOptions, RemoveImageOptions},
};
use futures_util::{Stream, TryStreamExt as _};
use tidegate_domain::secret::Secret;

/// Where the application listens in its container.
pub const PORT: u16 = 8080;

const APP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo-app"));

/// How the application behaves; `demo/app.rs` says it in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Ok,
    /// Logs why and exits 3 on start.
    Broken,
    /// Runs, but `/healthz` answers 503.
    Unhealthy,
    /// Ignores SIGTERM.
    SlowStop,
    /// Exits 4 after two seconds.
    CrashLater,
    /// Takes memory, 512 MiB at most, until it is killed.
    Hungry,
}

impl Mode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Broken => "broken",
            Self::Unhealthy => "unhealthy",
            Self::SlowStop => "slow-stop",
            Self::CrashLater => "crash-later",
            Self::Hungry => "hungry",
        }
    }
}

/// A version to make an image of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoImage {
    /// The image's tag, and what the application answers.
    pub version: String,
    pub mode: Mode,
    /// Whether the image brings a health check of its own, each half second.
    pub health_check: bool,
    /// More instructions of a Dockerfile: `VOLUME /data`.
    pub changes: Vec<String>,
}

/// Why an image could not be made or pushed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("Docker does not answer; is it installed and running, and may this user use it?")]
    NoDocker(#[source] bollard::errors::Error),
    #[error("cannot make the image {name}")]
    Make {
        name: String,
        #[source]
        source: bollard::errors::Error,
    },
    #[error("cannot push the image {name}")]
    Push {
        name: String,
        #[source]
        source: bollard::errors::Error,
    },
}

/// Who pushes.
#[derive(Debug)]
pub struct Login<'a> {
    pub user: &'a str,
    pub password: &'a Secret<String>,
}

impl Login<'_> {
    pub fn for_docker(&self, registry: impl fmt::Display) -> DockerCredentials {
        DockerCredentials {
            username: Some(self.user.to_owned()),
            password: Some(self.password.expose().clone()),
            serveraddress: Some(registry.to_string()),
            ..DockerCredentials::default()
        }
    }
}

/// A client of the engine that `DOCKER_HOST` names, or else of the machine's own, that is known to answer.
pub async fn connect() -> Result<Docker, ImageError> {
    let docker = match std::env::var("DOCKER_HOST") {
        Ok(host) => Docker::connect_with_host(&host),
        Err(_) => Docker::connect_with_local_defaults(),
    };
    let docker = docker.map_err(ImageError::NoDocker)?;
    // bollard encodes credentials in the standard alphabet, the engine decodes the URL-safe one: a password with an
    // unlucky `?`, `>` or `~` would be dropped without a word.
    let docker = docker.with_request_modifier(|mut request| {
        for header in request.headers_mut().iter_mut().filter(|(name, _)| name.as_str() == "x-registry-auth") {
            let safe = header.1.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
            if let Ok(value) = safe.parse() {
                *header.1 = value;
            }
        }
        request
    });
    docker.ping().await.map_err(ImageError::NoDocker)?;
    Ok(docker)
}

impl DemoImage {
    /// Well-behaved, with a health check.
    pub fn new(version: &str, mode: Mode) -> Self {
        Self { version: version.to_owned(), mode, health_check: true, changes: Vec::new() }
    }

    /// Makes the image, pushes it to `<registry>/<repository>:<version>`, and removes it from the engine again, so that
    /// whoever wants it has to pull it. The name without the version is answered.
    ///
    /// The registry's port is part of every name, so runs side by side do not meet. A process killed here leaves a tag
    /// of 1.4 MB on the engine.
    pub async fn push(
        &self,
        docker: &Docker,
        registry: SocketAddr,
        repository: &str,
        login: &Login<'_>,
    ) -> Result<String, ImageError> {
        let name = format!("{registry}/{repository}");
        let tagged = format!("{name}:{}", self.version);
        self.make(docker, &name).await.map_err(|source| ImageError::Make { name: tagged.clone(), source })?;
        let options = PushImageOptions { tag: Some(self.version.clone()), ..PushImageOptions::default() };
        let pushed = ended(docker.push_image(&name, Some(options), Some(login.for_docker(registry)))).await;
        let removed = docker.remove_image(&tagged, None::<RemoveImageOptions>, None).await;
        pushed.map_err(|source| ImageError::Push { name: tagged.clone(), source })?;
        removed.map_err(|source| ImageError::Make { name: tagged, source })?;
        Ok(name)
    }

    async fn make(&self, docker: &Docker, name: &str) -> Result<(), bollard::errors::Error> {
        let mut changes = vec![
            r#"ENTRYPOINT ["/app"]"#.to_owned(),
            format!("ENV VERSION={} MODE={}", self.version, self.mode.as_str()),
            format!("EXPOSE {PORT}"),
        ];
        if self.health_check {
            changes.push(r#"HEALTHCHECK --interval=500ms --timeout=2s --retries=3 CMD ["/app", "probe"]"#.to_owned());
        }
        changes.extend(self.changes.iter().cloned());
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(name.to_owned()),
            tag: Some(self.version.clone()),
            changes,
            ..CreateImageOptions::default()
        };
        let root = bollard::body_full(packed()?.into());
        ended(docker.create_image(Some(options), Some(root), None)).await
    }
}

/// Waits for the last message of a stream, or its first error.
async fn ended<T, E>(stream: impl Stream<Item = Result<T, E>>) -> Result<(), E> {
    stream.try_for_each(|_| std::future::ready(Ok(()))).await
}

/// A root file system of one file.
fn packed() -> Result<Vec<u8>, std::io::Error> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(APP.len() as u64);
    header.set_mode(0o755);
    archive.append_data(&mut header, "app", APP)?;
    archive.into_inner()
}

#[cfg(test)]
mod tests;
