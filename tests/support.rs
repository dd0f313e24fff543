//! A whole installation of a test's own: the stack on a free port, a private registry, and the local Docker engine.

mod answer;
pub(crate) mod binaries;
mod cleaning;
pub(crate) mod docker_tap;
pub(crate) mod fake_github;
pub(crate) mod fake_infisical;
pub(crate) mod fake_secrets_manager;
pub(crate) mod faults;
pub(crate) mod fleet;
pub(crate) mod own_worker;
mod registry;
pub(crate) mod relay;
mod roles;

use std::{
    fmt::Write as _,
    net::TcpListener,
    path::Path,
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use bollard::Docker;
use reqwest::Method;
use serde_json::{Value, json};
use tidegate_aws::{
    host_side::{HostConfig, HostSide},
    meter::Meter,
    random,
};
use tidegate_domain::{id::HostName, secret::Secret};
use tidegate_local::{
    demo_image::{self, DemoImage, Mode},
    embedded::{Detour, EmbeddedAws},
    provision,
    stack::{self, Options, Stack},
};

pub(crate) use answer::Answer;
pub(crate) use cleaning::{Cleaning, beside, containers};
pub(crate) use registry::PrivateRegistry;
use roles::Roles;

/// Longer than anything here takes on a slow machine; what takes longer has failed.
const BOUND: Duration = Duration::from_secs(90);

/// How an installation differs from the usual one.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub data: Option<&'a Path>,
    /// The test runs a worker itself.
    pub no_worker: bool,
    /// The test sweeps, and syncs, itself.
    pub no_sweeps: bool,
    pub meter: Option<Meter>,
    /// What the functions' calls of AWS go through.
    pub detour: Option<Detour>,
}

pub(crate) struct Installation {
    pub stack: Stack,
    // After the stack, which works with the containers, and before the registry, which removes their images.
    _cleaning: Cleaning,
    pub registry: PrivateRegistry,
    pub docker: Docker,
    pub http: reqwest::Client,
    /// Before the name of every container of this test.
    pub prefix: String,
    pub admin_token: String,
    _roles: Roles,
}

/// A registered application.
pub(crate) struct Application {
    pub id: u64,
    pub token: String,
    /// Of the machine.
    pub port: u16,
    /// As registered.
    pub image: String,
    pub container: String,
}

impl Installation {
    pub(crate) async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    pub(crate) async fn start_with(setup: Setup<'_>) -> Self {
        let prefix = format!("test-{}-", hex(&random::bytes::<6>()));
        let docker = demo_image::connect().await.unwrap();
        let password = hex(&random::bytes::<12>());
        let roles = Roles::default();
        let options = Options {
            data: setup.data.map(Path::to_owned),
            admin_password: Some(Secret::new(password.clone())),
            worker: !setup.no_worker,
            sweeps: !setup.no_sweeps,
            syncs: !setup.no_sweeps,
            container_prefix: prefix.clone(),
            meter: setup.meter,
            detour: setup.detour,
            permits: Some(roles.permits()),
            ..Options::throw_away()
        };
        let stack = Box::pin(Stack::start(options)).await.unwrap();
        let cleaning = Cleaning { prefix: prefix.clone() };
        let http = reqwest::Client::builder().timeout(BOUND).build().unwrap();
        let mut installation = Self {
            stack,
            registry: PrivateRegistry::start(),
            docker,
            http,
            prefix,
            admin_token: String::new(),
            _cleaning: cleaning,
            _roles: roles,
        };
        let body = json!({"username": "admin", "password": password});
        let signed_in = installation.call(Method::POST, "/api/v2/auth/login", None, &[], Some(&body)).await;
        signed_in.expect(200)["token"].as_str().unwrap().clone_into(&mut installation.admin_token);
        installation
    }

    /// For a test that asks for more than anybody may by default.
    pub(crate) async fn lift_limits(&self) {
        let unlimited = json!({"perUser": 0, "perIp": 0, "total": 0});
        let settings = json!({"limits": {"trusted": unlimited}, "queue": {"capacity": 1_000, "reserved": 0}});
        self.put("settings", &settings).await.expect(200);
    }

    /// Any request, as anybody.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.stack.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = bearer {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// As the administrator.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, &format!("/api/v2/{path}"), Some(&self.admin_token), &[], Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, &format!("/api/v2/{path}"), Some(&self.admin_token), &[], Some(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, &format!("/api/v2/{path}"), Some(&self.admin_token), &[], None).await
    }

    /// Registers a project, the registry with its right password, and an application; the application is checked on
    /// `/healthz`. `changes` go over the usual application.
    pub(crate) async fn register(&self, changes: Value) -> Application {
        self.register_with_password(self.registry.password(), changes).await
    }

    pub(crate) async fn register_with_password(&self, password: &str, changes: Value) -> Application {
        let name = format!("shop-{}", hex(&random::bytes::<3>()));
        let project = self.post("projects", &json!({"key": name, "name": "Shop"})).await.expect(201)["id"].clone();
        let registry = json!({"name": name, "server": self.registry.server(), "authType": "username-password",
            "username": self.registry.user(), "password": password});
        let registry = self.post("registries", &registry).await.expect(201)["id"].clone();
        let (port, image) = (free_port(), format!("{}/demo/{name}", self.registry.server()));
        let mut application = json!({
            "projectId": project, "name": name, "image": image, "registryId": registry,
            "ports": [{"host": port, "container": demo_image::PORT, "hostIp": "127.0.0.1"}],
            "hosts": {"names": ["local"]},
            "healthCheck": {"type": "http", "path": "/healthz", "port": demo_image::PORT, "intervalMs": 100,
                "startPeriodMs": 500, "retries": 2, "deadlineMs": 10_000},
        });
        for (field, value) in changes.as_object().unwrap() {
            application[field] = value.clone();
        }
        let created = self.post("applications", &application).await.expect(201);
        Application {
            id: created["id"].as_u64().unwrap(),
            token: created["webhookToken"].as_str().unwrap().to_owned(),
            port: created["ports"][0]["host"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(port),
            image,
            container: format!("{}{name}", self.prefix),
        }
    }

    /// Pushes a version of the application's image, as its CI would.
    pub(crate) async fn push(&self, application: &Application, version: &str, mode: Mode) {
        let repository = application.image.split_once('/').unwrap().1;
        let image = DemoImage { health_check: false, ..DemoImage::new(version, mode) };
        image.push(&self.docker, self.registry.addr(), repository, &self.registry.login()).await.unwrap();
    }

    /// `POST /webhook/deploy` with the application's token.
    pub(crate) async fn deploy(&self, application: &Application, version: &str) -> Answer {
        self.deploy_with(application, &json!({"version": version}), &[]).await
    }

    pub(crate) async fn deploy_with(
        &self,
        application: &Application,
        fields: &Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut body = json!({"applicationId": application.id, "token": application.token});
        for (field, value) in fields.as_object().unwrap() {
            body[field] = value.clone();
        }
        self.call(Method::POST, "/webhook/deploy", None, headers, Some(&body)).await
    }

    /// The deployment once it has ended, asked for as CI asks.
    pub(crate) async fn ended(&self, application: &Application, id: &str) -> Value {
        let path = format!("/webhook/deployments/{id}?wait=20");
        let waiting = async {
            loop {
                let shown = self.call(Method::GET, &path, Some(&application.token), &[], None).await.expect(200);
                if !matches!(shown["status"].as_str(), Some("queued" | "running")) {
                    return shown;
                }
            }
        };
        tokio::time::timeout(BOUND, waiting).await.expect("every deployment ends")
    }

    /// Pushes, deploys and waits for the end.
    pub(crate) async fn release(&self, application: &Application, version: &str, mode: Mode) -> Value {
        self.push(application, version, mode).await;
        let id = self.deploy(application, version).await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
        self.ended(application, &id).await
    }

    /// What the application answers to its users.
    pub(crate) async fn visit(&self, application: &Application, path: &str) -> Result<String, reqwest::Error> {
        self.http.get(format!("http://127.0.0.1:{}{path}", application.port)).send().await?.text().await
    }

    /// The embedded AWS.
    pub(crate) fn aws(&self) -> &EmbeddedAws {
        self.stack.aws().expect("no test has AWS_ENDPOINT_URL in its environment")
    }

    /// What a worker of this host can do.
    pub(crate) fn side_of(&self, host: &HostName) -> HostSide {
        let (tenant, queues) = (stack::tenant(), self.stack.queues());
        let config = HostConfig {
            table: provision::TABLE.to_owned(),
            queue_url: format!("{}{tenant}_{host}", queues.host_url_prefix),
            reports_queue_url: queues.reports_url.clone(),
            tenant,
            host: host.clone(),
        };
        HostSide::new(&self.aws().clients(), config)
    }

    /// Names and labels of this test's containers.
    pub(crate) async fn containers(&self) -> Vec<String> {
        containers(&self.docker, &self.prefix).await.unwrap().into_iter().map(|(_, name)| name).collect()
    }
}

/// Waits until `done` holds of what `look` sees, within the bound.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let waiting = async {
        loop {
            ticks.tick().await;
            if let Some(seen) = look().await {
                return seen;
            }
        }
    };
    tokio::time::timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("never saw: {what}"))
}

/// Calls from `127.0.0.<last>`: all of 127.0.0.0/8 is this machine.
pub(crate) fn client_from(last: u8) -> reqwest::Client {
    let address = std::net::Ipv4Addr::new(127, 0, 0, last);
    reqwest::Client::builder().timeout(BOUND).local_address(Some(address.into())).build().unwrap()
}

/// Below those that the system gives to outgoing connections: while an application is switched its port is free for a
/// moment, and somebody's connection would take it.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Nobody listens on it now, and nobody else of this process is given it.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(u16::from_be_bytes(random::bytes())));
    loop {
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}
