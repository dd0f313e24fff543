//! Tidegate, with one application.

use std::{error::Error, net::SocketAddr, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_domain::secret::Secret;
use tidegate_local::stack::{Options, Stack};

/// The stack with its worker, on threads of its own, and what is registered there.
pub(crate) struct Tidegate {
    http: reqwest::Client,
    url: String,
    application: u64,
    token: String,
    // Last: what is used above lives there.
    _stack: Stack,
}

/// What is registered.
pub(crate) struct Target<'a> {
    pub(crate) image: &'a str,
    pub(crate) name: &'a str,
    /// On 127.0.0.1.
    pub(crate) port: u16,
    pub(crate) container_port: u16,
}

impl Tidegate {
    pub(crate) async fn start(
        target: &Target<'_>,
        registry: SocketAddr,
        user: &str,
        password: &str,
    ) -> Result<Self, Box<dyn Error>> {
        let options = Options { admin_password: Some(Secret::new(password.to_owned())), ..Options::throw_away() };
        let stack = Stack::start(options).await?;
        let (http, url) = (reqwest::Client::new(), stack.url());
        let signed_in = json!({"username": "admin", "password": password});
        let signed_in = call(http.post(format!("{url}/api/v2/auth/login")).json(&signed_in)).await?;
        let person = signed_in["token"].as_str().ok_or("no token")?.to_owned();
        let create = async |what: &str, body: &Value| {
            let request = http.request(Method::POST, format!("{url}/api/v2/{what}")).bearer_auth(&person);
            call(request.json(body)).await
        };
        let project = create("projects", &json!({"key": "shop", "name": "Shop"})).await?["id"].clone();
        let registry = json!({"name": "private", "server": registry.to_string(), "authType": "username-password",
            "username": user, "password": password});
        let registry = create("registries", &registry).await?["id"].clone();
        let application = json!({
            "projectId": project, "name": target.name, "image": target.image, "registryId": registry,
            "ports": [{"host": target.port, "container": target.container_port, "hostIp": "127.0.0.1"}],
            "hosts": {"names": ["local"]},
            "healthCheck": {"type": "http", "path": "/healthz", "port": target.container_port},
        });
        let created = create("applications", &application).await?;
        Ok(Self {
            application: created["id"].as_u64().ok_or("no id")?,
            token: created["webhookToken"].as_str().ok_or("no token")?.to_owned(),
            http,
            url,
            _stack: stack,
        })
    }

    /// The deployment's id, once the call is answered.
    pub(crate) async fn deploy(&self, version: &str) -> Result<String, Box<dyn Error>> {
        let body = json!({"applicationId": self.application, "version": version, "token": self.token});
        let accepted = call(self.http.post(format!("{}/webhook/deploy", self.url)).json(&body)).await?;
        Ok(accepted["deploymentId"].as_str().ok_or("no deployment")?.to_owned())
    }

    /// Returns once the deployment has ended well, with what its steps took.
    pub(crate) async fn ended(&self, id: &str) -> Result<String, Box<dyn Error>> {
        let url = format!("{}/webhook/deployments/{id}?wait=20", self.url);
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let shown = call(self.http.get(&url).bearer_auth(&self.token)).await?;
            match shown["status"].as_str() {
                Some("queued" | "running") => {}
                Some("succeeded") => return Ok(steps(&shown)),
                _ => return Err(format!("the deployment ended badly: {shown}").into()),
            }
        }
    }
}

fn steps(shown: &Value) -> String {
    let steps = shown["targets"][0]["steps"].as_array().cloned().unwrap_or_default();
    let told =
        steps.iter().map(|step| format!("{} {} ms", step["step"].as_str().unwrap_or_default(), step["durationMs"]));
    told.collect::<Vec<_>>().join(", ")
}

async fn call(request: reqwest::RequestBuilder) -> Result<Value, Box<dyn Error>> {
    let answer = request.timeout(Duration::from_secs(30)).send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        return Err(format!("{status}: {text}").into());
    }
    Ok(serde_json::from_str(&text)?)
}
