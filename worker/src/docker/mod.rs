//! The Docker engine of this host. bollard is named only in here: outside there are our own types and errors.
//!
//! Every call has a deadline of its own, because the client's covers no more than an answer's headers, and every stream
//! a limit on silence.

mod container;
mod create;
mod end;
mod facts;
pub mod failure;
mod image;
mod in_hand;
mod log;
mod pull;
mod stop;

use std::{error::Error as StdError, future::Future, sync::Arc, time::Duration};

use bollard::Docker;
use tokio::sync::Semaphore;

pub(crate) use container::LONGEST_GRACE;
pub use container::{Container, Inspected, Network, Published, UnnamedVolumes, label};
pub use create::NewContainer;
pub use end::End;
pub use facts::{Detail, Machine, Ours, Version};
pub use image::Removed;
pub use in_hand::Hold;
pub use log::{Tail, Written, WrittenLine};
pub use pull::{PullProgress, Pulled};
pub use stop::Stopped;

use in_hand::InHand;

/// For a call that does nothing but look up or rename.
const QUICK: Duration = Duration::from_secs(20);
/// For a call that makes or ends a container: the engine may be busy with others.
const SLOW: Duration = Duration::from_mins(1);
/// The client's own limit, out of the way of ours.
const CLIENT_TIMEOUT: Duration = Duration::from_hours(24);

/// Why the engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke in the middle.
    #[error("the Docker engine cannot be reached")]
    Away(#[source] Box<dyn StdError + Send + Sync>),
    /// What it did meanwhile is unknown.
    #[error("the Docker engine did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// An error of its own, or one that it passes on from a registry.
    #[error("Docker answers {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("Docker's answer cannot be read")]
    Unreadable(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Away(_) | Self::Late(_) | Self::Unreadable(_) => None,
        }
    }

    /// The engine is being restarted or overloaded, and the same call may work in a moment.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Away(_) | Self::Late(_) => true,
            Self::Refused { .. } | Self::Unreadable(_) => false,
        }
    }
}

impl From<bollard::errors::Error> for Error {
    fn from(error: bollard::errors::Error) -> Self {
        use bollard::errors::Error as B;
        match error {
            B::DockerResponseServerError { status_code, message } => Self::Refused { status: status_code, message },
            B::DockerStreamError { error } => Self::Refused { status: 500, message: error },
            B::HyperLegacyError { .. }
            | B::HyperResponseError { .. }
            | B::IOError { .. }
            | B::RequestTimeoutError
            | B::SocketNotFoundError(_) => Self::Away(Box::new(error)),
            other => Self::Unreadable(Box::new(other)),
        }
    }
}

/// A connection to the engine; a cheap copy shares it.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    is_local: bool,
    in_hand: InHand,
    pulls: Arc<Semaphore>,
}

impl Engine {
    /// `docker_host` as in `DOCKER_HOST` (`unix://…` or `tcp://…`); none for the machine's own engine. Nothing is sent yet.
    ///
    /// # Errors
    /// No socket there, or an address of a kind that is not supported.
    pub fn connect(docker_host: Option<&str>) -> Result<Self, Error> {
        let docker = match docker_host {
            Some(host) => Docker::connect_with_host(host)?,
            None => Docker::connect_with_local_defaults()?,
        };
        // The engine reads X-Registry-Auth as URL-safe base64; bollard writes the standard alphabet, and credentials with
        // a `?`, `>` or `~` at an unlucky place would silently be dropped.
        let docker = docker.with_timeout(CLIENT_TIMEOUT).with_request_modifier(|mut request| {
            let header = request.headers().get("X-Registry-Auth").and_then(|value| value.to_str().ok());
            if let Some(Ok(url_safe)) = header.map(|text| text.replace('+', "-").replace('/', "_").parse()) {
                request.headers_mut().insert("X-Registry-Auth", url_safe);
            }
            request
        });
        let in_hand = InHand::default();
        let pulls = Arc::new(Semaphore::new(pull::AT_ONCE));
        Ok(Self { docker, in_hand, pulls, is_local: docker_host.is_none_or(|host| host.starts_with("unix://")) })
    }

    /// Whether the engine answers.
    pub async fn ping(&self) -> Result<(), Error> {
        within(QUICK, self.docker.ping()).await.map(|_| ())
    }

    /// Whether the engine's ports and directories are this machine's.
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Free bytes where Docker keeps images and containers; none if that cannot be seen from here.
    pub async fn free_disk_bytes(&self) -> Result<Option<u64>, Error> {
        if !self.is_local {
            return Ok(None);
        }
        let root = within(QUICK, self.docker.info()).await?.docker_root_dir;
        let stat = root.and_then(|root| rustix::fs::statvfs(root).ok());
        Ok(stat.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => answer.map_err(Error::from),
        Err(_) => Err(Error::Late(deadline)),
    }
}
