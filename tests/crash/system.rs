//! `tidegate up` as a process of its own, with its data in a folder.

use std::{
    fs::{self, OpenOptions},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use bollard::Docker;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_aws::random;
use tidegate_local::demo_image::{self, DemoImage, Mode};

use crate::support::{
    Answer, Application, Cleaning, PrivateRegistry,
    binaries::{Process, binary},
    containers, eventually, free_port, hex,
};

/// What the application finds in its variable `DB_URL`.
pub(super) const SECRET: &str = "postgres://shop:secret@db/shop";

pub(super) struct System {
    process: Option<Process>,
    folder: TempDir,
    port: u16,
    password: String,
    prefix: String,
    token: String,
    http: reqwest::Client,
    docker: Docker,
    // After the process, which works with the containers, and before the registry, which removes their images.
    _cleaning: Cleaning,
    registry: PrivateRegistry,
}

impl System {
    pub(super) async fn start() -> Self {
        let prefix = format!("test-{}-", hex(&random::bytes::<6>()));
        let mut system = Self {
            process: None,
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            password: hex(&random::bytes::<12>()),
            token: String::new(),
            http: reqwest::Client::builder().timeout(Duration::from_mins(1)).build().unwrap(),
            docker: demo_image::connect().await.unwrap(),
            registry: PrivateRegistry::start(),
            _cleaning: Cleaning { prefix: prefix.clone() },
            prefix,
        };
        system.start_again().await;
        system.sign_in().await;
        system
    }

    /// Returns once it answers.
    pub(super) async fn start_again(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let process = Command::new(binary("tidegate"))
            .arg("up")
            .arg("--data")
            .arg(self.folder.path().join("data"))
            .env("TIDEGATE_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("TIDEGATE_ADMIN_PASSWORD", &self.password)
            .env("TIDEGATE_CONTAINER_PREFIX", &self.prefix)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(Process(process));
        eventually("the system answers", async || {
            self.http.get(self.url("/healthz")).send().await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// The key that tokens are signed with does not outlive the process.
    pub(super) async fn sign_in(&mut self) {
        let body = json!({"username": "admin", "password": self.password});
        let answer = self.call(Method::POST, "/api/v2/auth/login", None, &[], Some(&body)).await.expect(200);
        answer["token"].as_str().unwrap().clone_into(&mut self.token);
    }

    /// An application with a secret in its variables.
    pub(super) async fn register(&self) -> Application {
        let name = "shop";
        let create = async |what: &str, body: Value| {
            let path = format!("/api/v2/{what}");
            self.call(Method::POST, &path, Some(&self.token), &[], Some(&body)).await.expect(201)
        };
        let project = create("projects", json!({"key": name, "name": "Shop"})).await["id"].clone();
        let registry = json!({"name": name, "server": self.registry.server(), "authType": "username-password",
            "username": self.registry.user(), "password": self.registry.password()});
        let registry = create("registries", registry).await["id"].clone();
        let group = create("secret-groups", json!({"name": "db"})).await["id"].clone();
        create("secrets", json!({"groupId": group, "name": "URL", "value": SECRET})).await;
        let (port, image) = (free_port(), format!("{}/demo/{name}", self.registry.server()));
        let application = json!({
            "projectId": project, "name": name, "image": image, "registryId": registry,
            "ports": [{"host": port, "container": demo_image::PORT, "hostIp": "127.0.0.1"}],
            "hosts": {"names": ["local"]},
            "healthCheck": {"type": "http", "path": "/healthz", "port": demo_image::PORT, "intervalMs": 100},
        });
        let created = create("applications", application).await;
        let (id, token) = (created["id"].as_u64().unwrap(), created["webhookToken"].as_str().unwrap().to_owned());
        let variable = json!({"scope": "application", "applicationId": id, "key": "DB_URL", "value": "@secret:db/URL",
            "valueType": "secret_ref"});
        create("variables", variable).await;
        Application { id, token, port, image, container: format!("{}{name}", self.prefix) }
    }

    pub(super) async fn push(&self, application: &Application, version: &str) {
        let repository = application.image.split_once('/').unwrap().1;
        let image = DemoImage { health_check: false, ..DemoImage::new(version, Mode::Ok) };
        image.push(&self.docker, self.registry.addr(), repository, &self.registry.login()).await.unwrap();
    }

    pub(super) async fn deploy(&self, application: &Application, version: &str, headers: &[(&str, &str)]) -> Answer {
        let body = json!({"applicationId": application.id, "version": version, "token": application.token});
        self.call(Method::POST, "/webhook/deploy", None, headers, Some(&body)).await
    }

    pub(super) async fn release(&self, application: &Application, version: &str) -> Value {
        self.push(application, version).await;
        let id = self.deploy(application, version, &[]).await.expect(202)["deploymentId"].clone();
        self.ended(application, id.as_str().unwrap()).await
    }

    pub(super) async fn ended(&self, application: &Application, id: &str) -> Value {
        let path = format!("/webhook/deployments/{id}?wait=20");
        eventually("the deployment ends", async || {
            let shown = self.call(Method::GET, &path, Some(&application.token), &[], None).await.expect(200);
            (!matches!(shown["status"].as_str(), Some("queued" | "running"))).then_some(shown)
        })
        .await
    }

    /// As the administrator.
    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, &format!("/api/v2/{path}"), Some(&self.token), &[], None).await
    }

    /// What the application answers, if it does.
    pub(super) async fn visit(&self, application: &Application, path: &str) -> Option<String> {
        let url = format!("http://127.0.0.1:{}{path}", application.port);
        self.http.get(url).timeout(Duration::from_secs(1)).send().await.ok()?.text().await.ok()
    }

    pub(super) async fn containers(&self) -> Vec<String> {
        containers(&self.docker, &self.prefix).await.unwrap().into_iter().map(|(_, name)| name).collect()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.http.request(method, self.url(path));
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

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("tidegate.log")
    }
}
