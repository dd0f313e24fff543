//! The worker of the local Docker engine, in this process.

use std::{
    fmt::Write as _,
    future::Future,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tidegate_aws::{
    audit::AuditEvent,
    clients::Clients,
    clock,
    error::StoreError,
    host_side::{HostConfig, HostSide},
    hosts::HostSettings,
    random,
    store::Store,
};
use tidegate_domain::id::{HostName, TenantId};
use tidegate_worker::{docker::Engine, perform::Host, policy::HostPolicy, vitals::Vitals, work};
use tokio::sync::watch;

use crate::{data_folder::DurableFile, provision};

/// Between looks for a Docker engine that was not there.
const LOOK: Duration = Duration::from_secs(5);

/// Why the worker cannot be started at all.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("cannot make a folder for the worker")]
    Folder(#[source] io::Error),
}

/// Whose work, and where.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) tenant: TenantId,
    pub(crate) host: HostName,
    pub(crate) queue_url: String,
    pub(crate) reports_queue_url: String,
    /// None: a temporary folder.
    pub(crate) data: Option<PathBuf>,
    pub(crate) container_prefix: String,
}

/// Registers the host if it is not. Two processes that do it at once are both right.
pub(crate) async fn register(store: &Store, tenant: &TenantId, host: &HostName) -> Result<(), StoreError> {
    match store.host(tenant, host).await {
        Ok(_) => return Ok(()),
        Err(StoreError::Missing) => {}
        Err(other) => return Err(other),
    }
    let event = AuditEvent {
        actor: "local stack".to_owned(),
        action: "host.registered".to_owned(),
        subject: format!("host/{host}"),
        source_ip: None,
        request_id: None,
    };
    match store.put_host(tenant, None, host, HostSettings::default(), clock::now(), &event).await {
        Ok(_) | Err(StoreError::Conflict) => Ok(()),
        Err(other) => Err(other),
    }
}

/// Works until `stopped` turns true, as soon as Docker answers: without it all else runs, and this waits.
pub(crate) fn start(
    clients: &Clients,
    settings: Settings,
    mut stopped: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + Send + use<>, WorkerError> {
    let temporary = match settings.data {
        Some(_) => None,
        None => Some(tempfile::tempdir().map_err(WorkerError::Folder)?),
    };
    let data = match (&temporary, settings.data) {
        (Some(folder), _) => folder.path().to_owned(),
        (None, data) => data.unwrap_or_default().join("worker"),
    };
    let installation = installation(&data).map_err(WorkerError::Folder)?;
    let side = HostSide::new(
        clients,
        HostConfig {
            tenant: settings.tenant.clone(),
            host: settings.host.clone(),
            table: provision::TABLE.to_owned(),
            queue_url: settings.queue_url,
            reports_queue_url: settings.reports_queue_url,
        },
    );
    let policy = HostPolicy { container_prefix: settings.container_prefix, ..HostPolicy::default() };
    Ok(async move {
        // Until the worker has ended.
        let _temporary = temporary;
        let engine = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return,
            engine = engine() => engine,
        };
        let host = Host { engine, installation, tenant: settings.tenant, name: settings.host, policy };
        let settings = work::Settings { max_concurrent_jobs: 4, shutdown: Duration::from_secs(8), data };
        if let Err(error) = work::run(host, side, settings, Vitals::default(), stopped).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the worker has ended");
        }
    })
}

/// A name that no other data folder has, kept in this one: the table has the same name in all of them.
fn installation(data: &Path) -> io::Result<String> {
    std::fs::create_dir_all(data)?;
    let file = DurableFile::at(data.join("installation"));
    if let Some(kept) = file.read()? {
        return Ok(String::from_utf8_lossy(&kept).into_owned());
    }
    let mut name = String::new();
    for byte in random::bytes::<8>() {
        write!(name, "{byte:02x}").expect("writing to a string does not fail");
    }
    file.write(name.as_bytes())?;
    Ok(name)
}

/// The engine, once it answers. That it does not is said once.
async fn engine() -> Engine {
    let mut told = false;
    loop {
        if let Ok(engine) = Engine::connect(std::env::var("DOCKER_HOST").ok().as_deref())
            && engine.ping().await.is_ok()
        {
            return engine;
        }
        if !told {
            tracing::warn!("Docker does not answer: nothing can be deployed on this machine until it does");
            told = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}
