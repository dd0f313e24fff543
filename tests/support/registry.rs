//! The private registry of a test: in process, or the one that the environment names.

use std::net::SocketAddr;

use tidegate_aws::random;
use tidegate_domain::secret::Secret;
use tidegate_local::{demo_image::Login, registry::Registry};

use super::{cleaning::remove_images, hex};

/// Address of a registry to use in place of the one in process: `127.0.0.1:5000`.
const ADDRESS: &str = "TIDEGATE_TEST_REGISTRY";
const USER: &str = "TIDEGATE_TEST_REGISTRY_USER";
const PASSWORD: &str = "TIDEGATE_TEST_REGISTRY_PASSWORD";

pub(crate) struct PrivateRegistry {
    in_process: Option<Registry>,
    addr: SocketAddr,
    user: String,
    password: Secret<String>,
}

impl PrivateRegistry {
    /// The reference implementation, if the environment names one.
    pub(crate) fn start() -> Self {
        let named = || Some((std::env::var(ADDRESS).ok()?, std::env::var(USER).ok()?, std::env::var(PASSWORD).ok()?));
        match named() {
            Some((addr, user, password)) => {
                let addr = addr.parse().expect("an address and a port");
                Self { in_process: None, addr, user, password: Secret::new(password) }
            }
            None => Self::in_process(),
        }
    }

    /// Its password has what base64 and URLs treat specially.
    pub(crate) fn in_process() -> Self {
        let password = Secret::new(format!("p?>~ä+/={}", hex(&random::bytes::<6>())));
        let user = "ci".to_owned();
        let registry = Registry::start(&user, &password).unwrap();
        Self { addr: registry.addr(), in_process: Some(registry), user, password }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn server(&self) -> String {
        self.addr.to_string()
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn password(&self) -> &str {
        self.password.expose()
    }

    pub(crate) fn login(&self) -> Login<'_> {
        Login { user: &self.user, password: &self.password }
    }

    /// The one in process, to take it away.
    pub(crate) fn stop(&self) {
        self.in_process.as_ref().expect("only the registry in process can be stopped").stop();
    }

    pub(crate) fn resume(&self) {
        self.in_process.as_ref().expect("only the registry in process can be stopped").resume().unwrap();
    }
}

impl Drop for PrivateRegistry {
    fn drop(&mut self) {
        // What came from a registry that others use as well is theirs to keep.
        if self.in_process.is_some() {
            remove_images(self.server());
        }
    }
}
