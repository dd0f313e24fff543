//! DynamoDB, SQS and KMS in this process, on loopback ports, behind the real SDK clients.
//!
//! With a data folder everything outlives the process, `kill -9` included: the table is a file of `SQLite`; the key is
//! on the disk before anything can be encrypted with it; queues are written once a second, and what is lost with the last
//! second is only hints, which the sweep and the workers' own look-ups replace.

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use awsim_core::{AppState, RequestDetailStore, ServiceHandler, gateway};
use axum::{Router, extract::DefaultBodyLimit};
use tidegate_aws::clients::Clients;

pub use crate::{data_folder::FolderError, key_guard::KeyError, provision::ProvisionError};
use crate::{
    data_folder::{DataFolder, DurableFile},
    engine::Engine,
    key_guard::{self, Plan},
    provision,
};

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "000000000000";
/// Key id and secret of every caller: who can reach a loopback port is trusted, nothing is checked.
const CREDENTIALS: (&str, &str) = ("test", "test");
/// Largest request that SQS or KMS take.
const MAX_BODY_BYTES: usize = 2 << 20;

/// Why the embedded AWS does not start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("cannot open the table's file {}", path.display())]
    Database {
        path: PathBuf,
        #[source]
        source: dynoxide::DynoxideError,
    },
    #[error(
        "the table's file {} is gone, though this folder was used before; bring it back from a backup, or choose an empty \
         folder with --data",
        path.display()
    )]
    TableLost { path: PathBuf },
    #[error("cannot listen on a port of 127.0.0.1")]
    Listen(#[source] io::Error),
    #[error("cannot read {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not what was written ({why}); bring it back from a backup{}", path.display(), if *expendable { ", or remove it: it holds only messages, which are sent again" } else { "" })]
    Snapshot { path: PathBuf, why: String, expendable: bool },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Provision(#[from] ProvisionError),
}

/// Written once the first start has made table and key.
const CANARY_FILE: &str = "kms.canary";

/// The embedded AWS; dropping it stops it, after what it holds has been written.
pub struct EmbeddedAws {
    dynamodb: Engine,
    sqs_kms: Engine,
    config: SdkConfig,
    /// Before `folder`: the last write must happen under the lock.
    snapshots: Option<Snapshots>,
    _folder: Option<DataFolder>,
}

impl fmt::Debug for EmbeddedAws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedAws")
            .field("dynamodb_url", &self.dynamodb_url())
            .field("sqs_kms_url", &self.sqs_kms_url())
            .finish_non_exhaustive()
    }
}

impl EmbeddedAws {
    /// With its table and its key, and without queues, which [`provision`] makes. `data: None` keeps everything in
    /// memory.
    ///
    /// # Errors
    /// When the folder cannot be used or another process uses it; when a file in it is not readable; and when the key
    /// is not the one that the stored data were encrypted with, in which case no other is ever made.
    pub async fn start(data: Option<&Path>) -> Result<Self, EmbeddedError> {
        let folder = data.map(DataFolder::open).transpose()?;
        let database = open_database(folder.as_ref())?;
        let state = app_state();
        let snapshots = match &folder {
            Some(folder) => Some(Snapshots::restore(folder, &state.services)?),
            None => None,
        };
        let dynamodb = Engine::start("dynamodb", move |listener| {
            let serving = dynoxide::server::serve_with_shutdown(listener, database.clone(), std::future::pending());
            async move { told("dynamodb", serving.await) }
        })
        .map_err(EmbeddedError::Listen)?;
        let sqs_kms = Engine::start("sqs-kms", move |listener| serve_sqs_kms(listener, state.clone()))
            .map_err(EmbeddedError::Listen)?;
        let config = sdk_config(Endpoints { dynamodb: dynamodb.url(), sqs_kms: sqs_kms.url() });
        let mut aws = Self { dynamodb, sqs_kms, config, snapshots, _folder: folder };
        aws.prepare().await?;
        if let Some(snapshots) = &mut aws.snapshots {
            snapshots.keep_writing();
        }
        Ok(aws)
    }

    /// The table, and the key that was always there, or a new one if nothing can have been encrypted yet.
    async fn prepare(&self) -> Result<(), EmbeddedError> {
        let clients = self.clients();
        provision::create_table(&clients).await?;
        let has_key = provision::key_exists(&clients).await?;
        let Some(snapshots) = &self.snapshots else {
            return Ok(provision::create_key(&clients).await?);
        };
        let canary = snapshots.canary.read().map_err(file_error(&snapshots.canary))?;
        let empty = provision::table_is_empty(&clients).await?;
        let plan = key_guard::plan(has_key, canary.is_some(), empty).map_err(|why| snapshots.lost(why, None))?;
        if plan == Plan::Create {
            provision::create_key(&clients).await?;
        }
        match plan {
            Plan::Create | Plan::WriteCanary => {
                // First the key, on the disk: a canary without its key would refuse every later start.
                snapshots.kms.write().map_err(|source| KeyError::NotKept { path: snapshots.kms.path(), source })?;
                key_guard::write_canary(&clients, provision::KEY_ALIAS, &snapshots.canary).await?;
            }
            Plan::Check => key_guard::check_canary(&clients, provision::KEY_ALIAS, canary.unwrap_or_default())
                .await
                .map_err(|source| snapshots.lost("it is not the one that the data were encrypted with", source))?,
        }
        Ok(())
    }

    /// Endpoint of DynamoDB: `http://127.0.0.1:<port>`.
    pub fn dynamodb_url(&self) -> String {
        self.dynamodb.url()
    }

    /// Endpoint of SQS and KMS.
    pub fn sqs_kms_url(&self) -> String {
        self.sqs_kms.url()
    }

    /// For clients that find each service at its own endpoint; `Clients::new(aws.sdk_config(), Some(meter))` counts.
    pub fn sdk_config(&self) -> &SdkConfig {
        &self.config
    }

    /// Where the services are.
    pub fn endpoints(&self) -> Endpoints {
        Endpoints { dynamodb: self.dynamodb_url(), sqs_kms: self.sqs_kms_url() }
    }

    /// As [`EmbeddedAws::sdk_config`], for clients that take the detour.
    pub fn sdk_config_through(&self, detour: Detour) -> SdkConfig {
        sdk_config((detour.0)(self.endpoints()))
    }

    /// The real SDK clients.
    pub fn clients(&self) -> Clients {
        Clients::new(&self.config, None)
    }

    /// What a process of its own (a function's, the worker's) needs in its environment to find it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL_DYNAMODB", self.dynamodb_url()),
            ("AWS_ENDPOINT_URL_SQS", self.sqs_kms_url()),
            ("AWS_ENDPOINT_URL_KMS", self.sqs_kms_url()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", CREDENTIALS.0.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", CREDENTIALS.1.to_owned()),
        ]
    }

    /// Takes DynamoDB away: connections are cut and refused. Its data stay.
    pub fn stop_dynamodb(&self) {
        self.dynamodb.stop();
    }

    /// Gives DynamoDB back, at the same endpoint.
    pub fn resume_dynamodb(&self) -> io::Result<()> {
        self.dynamodb.resume()
    }

    /// Takes SQS and KMS away.
    pub fn stop_sqs_kms(&self) {
        self.sqs_kms.stop();
    }

    /// Gives SQS and KMS back, with their messages and keys.
    pub fn resume_sqs_kms(&self) -> io::Result<()> {
        self.sqs_kms.resume()
    }
}

impl Drop for EmbeddedAws {
    fn drop(&mut self) {
        // First no more calls, then the last write.
        self.dynamodb.stop();
        self.sqs_kms.stop();
    }
}

type Services = HashMap<String, Arc<dyn ServiceHandler>>;

fn open_database(folder: Option<&DataFolder>) -> Result<dynoxide::Database, EmbeddedError> {
    let Some(folder) = folder else {
        return dynoxide::Database::memory()
            .map_err(|source| EmbeddedError::Database { path: PathBuf::from(":memory:"), source });
    };
    let path = folder.path().join("dynamodb.sqlite");
    let Some(text) = path.to_str() else {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "its name is not UTF-8");
        return Err(FolderError::Unusable { path: folder.path().to_owned(), source }.into());
    };
    let is_empty = std::fs::metadata(&path).map_or(true, |file| file.len() == 0);
    let canary = folder.file(CANARY_FILE);
    if is_empty && canary.read().map_err(file_error(&canary))?.is_some() {
        return Err(EmbeddedError::TableLost { path });
    }
    dynoxide::Database::new(text).map_err(|source| EmbeddedError::Database { path: path.clone(), source })
}

fn app_state() -> AppState {
    let mut state = AppState::new(REGION.to_owned(), ACCOUNT.to_owned());
    // In the URLs of queues, which are stored: ports change with every start, and no client goes by them.
    state.endpoint_override = Some("127.0.0.1".to_owned());
    // It would keep bodies, plaintexts of KMS among them, for an inspector that nobody has here.
    state.request_details = RequestDetailStore::new(1, 0);
    let services: [Arc<dyn ServiceHandler>; 2] =
        [Arc::new(awsim_sqs::SqsService::new()), Arc::new(awsim_kms::KmsService::new())];
    for service in services {
        let routes = service.routes();
        state.register(service, routes);
    }
    state
}

async fn serve_sqs_kms(listener: tokio::net::TcpListener, state: AppState) {
    gateway::spawn_tick_loop(state.clone(), Duration::from_secs(1));
    let router =
        Router::new().fallback(gateway::handle_request).with_state(state).layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    told("sqs-kms", axum::serve(listener, router).await.map_err(|error| error.to_string()));
}

fn told(engine: &'static str, ended: Result<(), String>) {
    if let Err(error) = ended {
        tracing::error!(engine, error, "an embedded service has ended");
    }
}

/// One endpoint for each service, in the form in which the SDK takes it from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// `http://127.0.0.1:<port>`
    pub dynamodb: String,
    pub sqs_kms: String,
}

/// Given where the services are, says where clients should look for them.
pub struct Detour(Box<dyn FnOnce(Endpoints) -> Endpoints + Send>);

impl Detour {
    pub fn new(lead: impl FnOnce(Endpoints) -> Endpoints + Send + 'static) -> Self {
        Self(Box::new(lead))
    }
}

impl fmt::Debug for Detour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Detour")
    }
}

impl LoadServiceConfig for Endpoints {
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        match (key.env(), key.service_id()) {
            ("AWS_ENDPOINT_URL", "DynamoDB") => Some(self.dynamodb.clone()),
            ("AWS_ENDPOINT_URL", "SQS" | "KMS") => Some(self.sqs_kms.clone()),
            _ => None,
        }
    }
}

fn sdk_config(endpoints: Endpoints) -> SdkConfig {
    let credentials = Credentials::new(CREDENTIALS.0, CREDENTIALS.1, None, None, "embedded");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        // As in `Clients::from_environment`.
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(4))
                .operation_timeout(Duration::from_secs(8))
                .build(),
        )
        .service_config(endpoints)
        .build()
}

/// The state of SQS and KMS on the disk.
struct Snapshots {
    kms: Arc<Snapshot>,
    sqs: Arc<Snapshot>,
    canary: DurableFile,
    writer: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Snapshots {
    /// Reads them back into the services, before these answer anybody.
    fn restore(folder: &DataFolder, services: &Services) -> Result<Self, EmbeddedError> {
        let snapshot = |name: &str, expendable| {
            let service = services.get(name).expect("both services are registered").clone();
            Snapshot::restore(service, folder.file(&format!("{name}.json")), expendable).map(Arc::new)
        };
        Ok(Self {
            kms: snapshot("kms", false)?,
            sqs: snapshot("sqs", true)?,
            canary: folder.file(CANARY_FILE),
            writer: None,
        })
    }

    fn lost(&self, why: &'static str, source: Option<key_guard::BoxError>) -> KeyError {
        KeyError::Lost { why, key_file: self.kms.path(), canary_file: self.canary.path().to_owned(), source }
    }

    /// Once a second, and once more in the end, on a thread of its own, because it waits for the disk.
    fn keep_writing(&mut self) {
        let (stop, stopped) = mpsc::channel();
        let snapshots = [self.kms.clone(), self.sqs.clone()];
        let writer = std::thread::spawn(move || {
            let mut failing = false;
            loop {
                let ended = stopped.recv_timeout(Duration::from_secs(1)) != Err(RecvTimeoutError::Timeout);
                let written = snapshots.iter().try_for_each(|snapshot| snapshot.write());
                match (&written, failing) {
                    (Err(error), false) => tracing::error!(%error, "cannot write queues and keys to the data folder"),
                    (Ok(()), true) => tracing::info!("queues and keys are written to the data folder again"),
                    (Ok(()), false) | (Err(_), true) => {}
                }
                failing = written.is_err();
                if ended {
                    return;
                }
            }
        });
        self.writer = Some((stop, writer));
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        if let Some((stop, writer)) = self.writer.take() {
            drop(stop);
            // A panic of the writer was told by the panic itself.
            let _ = writer.join();
        }
    }
}

/// One service's state and its file.
struct Snapshot {
    service: Arc<dyn ServiceHandler>,
    file: DurableFile,
    last: Mutex<Option<Vec<u8>>>,
}

impl Snapshot {
    fn restore(service: Arc<dyn ServiceHandler>, file: DurableFile, expendable: bool) -> Result<Self, EmbeddedError> {
        let last = file.read().map_err(file_error(&file))?;
        if let Some(content) = &last {
            let broken = |why| EmbeddedError::Snapshot { path: file.path().to_owned(), why, expendable };
            service.restore(content).map_err(broken)?;
            service.rehydrate().map_err(broken)?;
        }
        Ok(Self { service, file, last: Mutex::new(last) })
    }

    fn path(&self) -> PathBuf {
        self.file.path().to_owned()
    }

    /// On the disk once this returns; nothing is written if nothing has changed.
    fn write(&self) -> io::Result<()> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let content = self.service.snapshot().ok_or_else(|| io::Error::other("the service has no state to give"))?;
        if last.as_ref() != Some(&content) {
            self.file.write(&content)?;
            *last = Some(content);
        }
        Ok(())
    }
}

fn file_error(file: &DurableFile) -> impl FnOnce(io::Error) -> EmbeddedError {
    let path = file.path().to_owned();
    move |source| EmbeddedError::File { path, source }
}

#[cfg(test)]
mod tests;
