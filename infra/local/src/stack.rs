//! Everything together, in one process: the functions' routers behind one address, the embedded AWS, and a worker on
//! the local Docker engine.

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    http::header,
    middleware,
    response::{IntoResponse as _, Response},
    routing::get,
};
use tidegate_admin::{
    AdminState,
    issuer::{self, LocalIssuer},
};
use tidegate_aws::{
    clients::Clients,
    clock,
    error::StoreError,
    meter::Meter,
    permit::Permit,
    store::{Store, StoreConfig},
};
use tidegate_domain::{
    id::{HostName, TenantId},
    secret::Secret,
};
use tidegate_providers::Syncer;
use tidegate_web::{
    Problem,
    auth::{DEFAULT_TENANT, Issuer, Verifier},
    layer, measures,
};
use tidegate_webhook::WebhookState;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

use crate::{
    embedded::{Detour, EmbeddedAws, EmbeddedError, ProvisionError},
    events,
    gateway::fake_gateway,
    people::{self, AdminPassword, PeopleError},
    provision::{self, Queues},
    schedules, server,
    worker::{self, WorkerError},
};

/// The only host of a machine that runs everything by itself.
pub const HOST: &str = "local";
/// How long what still runs may take to end once the process is to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// What people's tokens are made for.
const CLIENT_ID: &str = "tidegate";

/// The functions, each of which has a role of its own on AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Function {
    Webhook,
    Admin,
    Validation,
    Progress,
    Approvals,
    Sync,
}

/// What each function's calls of AWS are judged by.
pub struct Permits(Box<dyn Fn(Function) -> Permit + Send>);

impl Permits {
    pub fn new(of: impl Fn(Function) -> Permit + Send + 'static) -> Self {
        Self(Box::new(of))
    }
}

impl fmt::Debug for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permits")
    }
}

/// How to start.
#[derive(Debug)]
pub struct Options {
    /// Only loopback addresses.
    pub listen: SocketAddr,
    /// None: nothing outlives the process.
    pub data: Option<PathBuf>,
    /// Of the user `admin`. None: as it was, or a new one if there is no such user yet.
    pub admin_password: Option<Secret<String>>,
    /// Whether the worker runs in this process too; else it is the caller's to run one.
    pub worker: bool,
    /// Whether the sweep runs; else it is the caller's to sweep.
    pub sweeps: bool,
    /// Whether providers are synced by schedule; else it is the caller's to do it.
    pub syncs: bool,
    /// Put before every container's name, so that several can share one engine.
    pub container_prefix: String,
    /// Counts the functions' calls of AWS.
    pub meter: Option<Meter>,
    /// What the functions' calls of AWS go through, for tests that make them fail.
    pub detour: Option<Detour>,
    /// What the functions' roles allow, for tests that hold them to that; the stand-ins allow everything.
    pub permits: Option<Permits>,
    /// What callers reach the API under, where that is not its own address: `https://deploy.example.com`.
    pub public_url: Option<String>,
}

impl Options {
    /// On a free port, in memory, with a worker.
    pub fn throw_away() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: None,
            admin_password: None,
            worker: true,
            sweeps: true,
            syncs: true,
            container_prefix: String::new(),
            meter: None,
            detour: None,
            permits: None,
            public_url: None,
        }
    }
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    #[error(
        "{address} can be reached from other machines, and passwords would travel in plain text; listen on 127.0.0.1 or \
         [::1], behind a proxy that speaks TLS"
    )]
    NotLoopback { address: SocketAddr },
    #[error("cannot listen on {address}; choose another with --listen or TIDEGATE_LISTEN")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Aws(#[from] EmbeddedError),
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error("cannot make the key that people's tokens are signed with")]
    Issuer(#[source] issuer::KeyError),
    #[error(transparent)]
    People(#[from] PeopleError),
    #[error("cannot register the host {HOST}")]
    Host(#[source] StoreError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// What runs. To be ended with [`Stack::stop`]; a process that dies without it loses nothing either.
#[derive(Debug)]
pub struct Stack {
    address: SocketAddr,
    store: Store,
    /// Those of the functions.
    stores: Vec<Store>,
    queues: Queues,
    admin_password: AdminPassword,
    stop: watch::Sender<bool>,
    running: JoinSet<()>,
    /// Last, because the others need it to the end. None if `AWS_ENDPOINT_URL` names another stand-in.
    aws: Option<EmbeddedAws>,
}

impl Stack {
    /// Starts AWS's stand-in, makes what is missing in it, and serves the API.
    ///
    /// With `AWS_ENDPOINT_URL` in the environment that one is used, and nothing is embedded.
    pub async fn start(options: Options) -> Result<Self, StackError> {
        if !options.listen.ip().is_loopback() {
            return Err(StackError::NotLoopback { address: options.listen });
        }
        let failed = |source| StackError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let aws = match std::env::var_os("AWS_ENDPOINT_URL") {
            Some(_) => None,
            None => Some(EmbeddedAws::start(options.data.as_deref()).await?),
        };
        let clients = match &aws {
            Some(aws) => aws.clients(),
            None => Clients::from_environment().await,
        };
        if aws.is_none() {
            provision::create_table(&clients).await?;
            if !provision::key_exists(&clients).await? {
                provision::create_key(&clients).await?;
            }
        }
        let queues = provision::queues(&clients).await?;
        let config = match (&aws, options.detour) {
            (Some(aws), Some(detour)) => Some(aws.sdk_config_through(detour)),
            (Some(aws), None) => Some(aws.sdk_config().clone()),
            (None, _) => None,
        };
        let through = |meter, permit| {
            config.as_ref().map_or_else(|| clients.clone(), |config| Clients::with_permit(config, meter, permit))
        };
        let unmetered = through(None, None);
        // Of its own for each function, as on AWS: what one of them remembers the others do not know.
        let mut stores = Vec::new();
        let mut store_of = |function, meter| {
            let permit = options.permits.as_ref().map(|permits| (permits.0)(function));
            let store = Store::new(&through(meter, permit), store_config(&queues));
            stores.push(store.clone());
            store
        };
        let mut metered = |function| store_of(function, options.meter.clone());
        let store = Store::new(&through(options.meter.clone(), None), store_config(&queues));
        let (tenant, host) = (tenant(), host());
        let admin_password = people::admin(&store, options.admin_password).await?;
        worker::register(&store, &tenant, &host).await.map_err(StackError::Host)?;
        let host_queue = provision::host_queue(&clients, &tenant, &host).await?;

        let (stop, stopped) = watch::channel(false);
        let mut running = JoinSet::new();
        let public_url = options.public_url.unwrap_or_else(|| format!("http://{address}"));
        let router = router(address, &public_url, metered(Function::Admin), metered(Function::Webhook))?;
        running.spawn(server::serve(listener, router, server::Bounds::default(), stopped.clone()));
        let progress = metered(Function::Progress);
        running.spawn(fold_reports(unmetered.clone(), progress, queues.reports_url.clone(), stopped.clone()));
        running.spawn(handle_intake(
            unmetered.clone(),
            metered(Function::Validation),
            queues.intake_url.clone(),
            public_url,
            stopped.clone(),
        ));
        if options.sweeps {
            // What the sweep calls is no caller's doing, and is not counted.
            running.spawn(sweep(store_of(Function::Approvals, None), stopped.clone()));
        }
        if options.syncs {
            let syncer = Syncer::new(store_of(Function::Sync, None), clock::now);
            running.spawn(sync(syncer, stopped.clone()));
        }
        if options.worker {
            let settings = worker::Settings {
                tenant,
                host,
                queue_url: host_queue,
                reports_queue_url: queues.reports_url.clone(),
                data: options.data,
                container_prefix: options.container_prefix,
            };
            running.spawn(worker::start(&clients, settings, stopped)?);
        }
        Ok(Self { address, store, stores, queues, admin_password, stop, running, aws })
    }

    /// Where the API answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://<address>`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The embedded services behind it, for tests that look into them or take them away.
    pub fn aws(&self) -> Option<&EmbeddedAws> {
        self.aws.as_ref()
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// As if all functions had just started.
    pub fn forget_data_keys(&self) {
        self.stores.iter().chain([&self.store]).for_each(Store::forget_data_keys);
    }

    /// Where the queues are.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// Where the password of `admin` came from.
    pub fn admin_password(&self) -> &AdminPassword {
        &self.admin_password
    }

    /// Lets running requests and deployments end, then stops all else. What takes longer than ten seconds goes on after
    /// the next start.
    pub async fn stop(mut self) {
        // Nobody listens any more if all have ended by themselves.
        let _ = self.stop.send(true);
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            tracing::warn!("stopped in the middle of something; the next start goes on with it");
        }
    }
}

/// The only tenant of a machine that runs everything by itself.
pub fn tenant() -> TenantId {
    TenantId::parse(DEFAULT_TENANT).expect("a lower-case word is a tenant")
}

/// See [`HOST`].
pub fn host() -> HostName {
    HostName::parse(HOST).expect("a lower-case word is a host's name")
}

fn store_config(queues: &Queues) -> StoreConfig {
    StoreConfig {
        table: provision::TABLE.to_owned(),
        key: provision::KEY_ALIAS.to_owned(),
        host_queue_prefix: queues.host_url_prefix.clone(),
        intake_queue_url: Some(queues.intake_url.clone()),
    }
}

/// All functions' routes behind one address, as the API Gateway puts them.
fn router(address: SocketAddr, public_url: &str, admin: Store, webhook: Store) -> Result<Router, StackError> {
    let url = format!("http://{address}");
    let issuer = Issuer {
        jwks_url: format!("{url}/.well-known/jwks.json"),
        client_id: CLIENT_ID.to_owned(),
        // A name, not an address: it need not change with the port.
        name: "tidegate-local".to_owned(),
    };
    let local_issuer = LocalIssuer::generate(&issuer).map_err(StackError::Issuer)?;
    let admin = AdminState::new(admin, Verifier::new(issuer), Some(Arc::new(local_issuer)));
    let routes = tidegate_admin::router(admin).merge(tidegate_webhook::routes(WebhookState::new(webhook, public_url)));
    let routes = routes.route("/metrics", get(tell_measures));
    Ok(layer::complete(routes).layer(middleware::from_fn(fake_gateway)))
}

/// What Prometheus reads here; functions on Lambda tell `CloudWatch` the same.
async fn tell_measures() -> Response {
    match measures::render() {
        Ok(told) => ([(header::CONTENT_TYPE, measures::OPEN_METRICS)], told).into_response(),
        Err(_) => Problem::internal().into_response(),
    }
}

async fn fold_reports(clients: Clients, store: Store, queue_url: String, stopped: watch::Receiver<bool>) {
    let function = move |event| {
        let store = store.clone();
        async move { tidegate_progress::handle(&store, event).await }
    };
    events::deliver(&clients, &queue_url, function, stopped).await;
}

async fn handle_intake(
    clients: Clients,
    store: Store,
    queue_url: String,
    public_url: String,
    stopped: watch::Receiver<bool>,
) {
    let validation = tidegate_validation::Validation::new(store, &public_url);
    let function = move |event| {
        let validation = validation.clone();
        async move { tidegate_validation::handle(&validation, event).await }
    };
    events::deliver(&clients, &queue_url, function, stopped).await;
}

async fn sweep(store: Store, stopped: watch::Receiver<bool>) {
    let function = move || {
        let store = store.clone();
        async move {
            if let Err(error) = Box::pin(tidegate_approvals::sweep(&store)).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "nothing was swept; in a minute it is tried again"
                );
            }
        }
    };
    schedules::each_minute(function, stopped).await;
}

async fn sync(syncer: Syncer, stopped: watch::Receiver<bool>) {
    let function = move || {
        let syncer = syncer.clone();
        async move {
            if let Err(error) = Box::pin(tidegate_sync::pass(&syncer)).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "nothing was synced; in a minute it is tried again"
                );
            }
        }
    };
    schedules::each_minute(function, stopped).await;
}

/// Returns at the first SIGINT or SIGTERM.
pub async fn signalled() -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
