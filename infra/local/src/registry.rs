//! A private image registry with a password, in this process.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc};

use container_registry::{ContainerRegistry, auth::AuthProvider};
use tidegate_domain::secret::Secret;

use crate::engine::Engine;

/// Why the registry does not start.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot make a folder for the registry's images")]
    Folder(#[source] io::Error),
    #[error("cannot open the registry's folder")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot listen on a port of 127.0.0.1")]
    Listen(#[source] io::Error),
}

/// A registry on a loopback port, which Docker takes without TLS. Repositories have two parts: `demo/shop`. Dropping it
/// ends it and removes its images.
pub struct Registry {
    engine: Engine,
    _images: tempfile::TempDir,
}

impl Registry {
    /// One user may read and write everything; nobody else anything.
    pub fn start(user: &str, password: &Secret<String>) -> Result<Self, RegistryError> {
        let images = tempfile::tempdir().map_err(RegistryError::Folder)?;
        let users: Arc<dyn AuthProvider> =
            Arc::new(HashMap::from([(user.to_owned(), sec::Secret::new(password.expose().clone()))]));
        let registry = ContainerRegistry::builder()
            .storage(images.path())
            .auth_provider(users)
            .build()
            .map_err(|error| RegistryError::Storage(Box::new(error)))?;
        let router = registry.make_router();
        let engine = Engine::start("registry", move |listener| {
            // The registry's router is of an older axum; both speak `tower::Service`.
            let router = axum::Router::new().fallback_service(router.clone());
            async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::error!(%error, "the registry has ended");
                }
            }
        })
        .map_err(RegistryError::Listen)?;
        Ok(Self { engine, _images: images })
    }

    /// `127.0.0.1:<port>`; also the server's part of an image's name.
    pub fn addr(&self) -> SocketAddr {
        self.engine.address()
    }

    /// From now on connections are refused, and running pulls are cut.
    pub fn stop(&self) {
        self.engine.stop();
    }

    /// Answers again, at the same address and with the same images.
    pub fn resume(&self) -> io::Result<()> {
        self.engine.resume()
    }
}
