//! `tidegate demo`: the main job from end to end, through the public API only, told step by step.

use std::{
    collections::HashMap,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use bollard::{
    Docker,
    query_parameters::{
        ListContainersOptions, ListImagesOptions, RemoveContainerOptions, RemoveImageOptions, StopContainerOptions,
    },
};
use serde_json::{Value, json};
use tidegate_aws::random;
use tidegate_domain::secret::Secret;

use crate::{
    demo_client::{Client, ClientError},
    demo_image::{self, DemoImage, ImageError, Login, Mode},
    people::{ADMIN, random_password},
    registry::{Registry, RegistryError},
    stack::{self, HOST, Options, Stack, StackError},
};

const CI_USER: &str = "ci";
const REPOSITORY: &str = "demo/shop";
const VARIABLE: &str = "DATABASE_URL";
/// Each deployment must end within this time.
const PATIENCE: Duration = Duration::from_mins(2);

/// Why the demo did not go as told.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error(transparent)]
    Stack(#[from] StackError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write to standard output, or find a free port")]
    Io(#[from] io::Error),
    #[error("interrupted")]
    Interrupted,
    #[error("not as told: {what}")]
    NotAsTold { what: String },
}

/// What should happen to a version.
#[derive(Debug, Clone, Copy)]
struct Told {
    version: &'static str,
    mode: Mode,
    status: &'static str,
    /// The version that answers afterwards.
    answers: &'static str,
}

const STORY: [Told; 3] = [
    Told { version: "v1", mode: Mode::Ok, status: "succeeded", answers: "v1" },
    Told { version: "v2", mode: Mode::Ok, status: "succeeded", answers: "v2" },
    Told { version: "v3", mode: Mode::Unhealthy, status: "rolled_back", answers: "v2" },
];

/// Runs it on free ports, with nothing kept but what runs: with `keep` the container of v2 stays.
///
/// # Errors
/// When anything is not as told; containers and images are removed then too.
pub async fn run(out: &mut (impl Write + Send), keep: bool) -> Result<(), DemoError> {
    let docker = demo_image::connect().await?;
    let prefix = format!("tidegate-demo-{:08x}-", u32::from_be_bytes(random::bytes()));
    let ci_password = random_password();
    let registry = Registry::start(CI_USER, &ci_password)?;
    let login = Login { user: CI_USER, password: &ci_password };
    let told = tokio::select! {
        told = tell(out, &docker, &registry, &login, &prefix) => told,
        signal = stack::signalled() => Err(signal.map_or_else(DemoError::Io, |()| DemoError::Interrupted)),
    };
    if told.is_ok() && keep {
        writeln!(out, "\nThe container {prefix}shop stays: `docker rm --force {prefix}shop` removes it.")?;
    } else {
        remove_containers(&docker, &prefix).await;
    }
    remove_images(&docker, registry.addr()).await;
    told
}

async fn tell(
    out: &mut (impl Write + Send),
    docker: &Docker,
    registry: &Registry,
    login: &Login<'_>,
    prefix: &str,
) -> Result<(), DemoError> {
    let admin_password = random_password();
    let options = Options {
        admin_password: Some(admin_password.duplicate()),
        container_prefix: prefix.to_owned(),
        ..Options::throw_away()
    };
    let stack = Stack::start(options).await?;
    writeln!(out, "Tidegate runs at {}, a private registry at {}.", stack.url(), registry.addr())?;

    writeln!(out, "\nCI builds three versions and pushes them; v3 starts, but will never be healthy.")?;
    let mut image = String::new();
    for told in STORY {
        image = DemoImage { health_check: false, ..DemoImage::new(told.version, told.mode) }
            .push(docker, registry.addr(), REPOSITORY, login)
            .await?;
        writeln!(out, "  pushed {image}:{}", told.version)?;
    }

    let mut client = Client::new(stack.url());
    client.sign_in(ADMIN, &admin_password).await?;
    let port = free_port()?;
    let secret = random_password();
    writeln!(out, "\n`{ADMIN}` signs in and registers, through the API:")?;
    let application = register(out, &client, registry.addr(), login, &image, port, &secret).await?;

    for told in STORY {
        deploy(out, &client, &application, told).await?;
        check_answers(out, &client, port, told.answers, &secret).await?;
    }
    history(out, &client, &application).await?;
    stack.stop().await;
    Ok(())
}

/// A registered application.
struct Application {
    id: u64,
    token: Secret<String>,
}

async fn register(
    out: &mut (impl Write + Send),
    client: &Client,
    registry: SocketAddr,
    login: &Login<'_>,
    image: &str,
    port: u16,
    secret: &Secret<String>,
) -> Result<Application, DemoError> {
    let project = client.create("projects", &json!({ "key": "shop", "name": "Shop" })).await?;
    writeln!(out, "  project shop")?;
    let registry_id = client
        .create(
            "registries",
            &json!({ "name": "demo", "server": registry.to_string(), "authType": "username-password",
                     "username": login.user, "password": login.password.expose() }),
        )
        .await?;
    writeln!(out, "  registry {registry}, with user and password")?;
    let group = client.create("secret-groups", &json!({ "name": "production-db" })).await?;
    let body = json!({ "groupId": group.id, "name": VARIABLE, "value": secret.expose() });
    let secret_id = client.create("secrets", &body).await?.id;
    writeln!(out, "  secret @secret:{secret_id}, {VARIABLE}, encrypted before it is stored")?;
    let reference = format!("@secret:{secret_id}");
    let body = json!({ "scope": "project", "projectId": project.id, "key": VARIABLE, "value": reference,
                       "valueType": "secret_ref" });
    client.create("variables", &body).await?;
    let body = json!({ "scope": "global", "key": "LOG_LEVEL", "value": "info", "valueType": "string" });
    client.create("variables", &body).await?;
    writeln!(out, "  variables {VARIABLE} = {reference} (project) and LOG_LEVEL = info (global)")?;
    let body = json!({
        "projectId": project.id, "name": "shop", "image": image, "registryId": registry_id.id,
        "ports": [{ "host": port, "container": demo_image::PORT, "hostIp": "127.0.0.1" }],
        "hosts": { "names": [HOST] },
        "versionPattern": r"v\d+",
        "healthCheck": { "type": "http", "path": "/healthz", "port": demo_image::PORT, "intervalMs": 250,
                         "startPeriodMs": 1000, "deadlineMs": 20_000 },
    });
    let created = client.create("applications", &body).await?;
    writeln!(out, "  application shop: {image} on 127.0.0.1:{port}, healthy if GET /healthz says so")?;
    let token = created.body["webhookToken"].as_str().unwrap_or_default();
    Ok(Application { id: created.id, token: Secret::new(token.to_owned()) })
}

/// One webhook call, followed to its end.
async fn deploy(
    out: &mut (impl Write + Send),
    client: &Client,
    application: &Application,
    told: Told,
) -> Result<(), DemoError> {
    writeln!(out, "\nCI calls POST /webhook/deploy: application {}, version {}", application.id, told.version)?;
    let began = Instant::now();
    let id = client.deploy(application.id, told.version, &application.token).await?;
    let mut seen = String::new();
    let ended = loop {
        let deployment = client.deployment(&id, &application.token).await?;
        let now = stage(&deployment);
        if now != seen {
            writeln!(out, "  {:5.2} s  {now}", began.elapsed().as_secs_f64())?;
            seen = now;
        }
        if !deployment["completedAt"].is_null() {
            break deployment;
        }
        if began.elapsed() > PATIENCE {
            return Err(not_as_told(format!("{} has not ended after {PATIENCE:?}", told.version)));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    if let Some(message) = ended["error"]["message"].as_str() {
        writeln!(out, "           {message}")?;
    }
    if ended["status"] != told.status {
        return Err(not_as_told(format!("{} should be {}, and is {}", told.version, told.status, ended["status"])));
    }
    Ok(())
}

/// Where a deployment is, in a few words.
fn stage(deployment: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = text(&deployment["status"]);
    let target = &deployment["targets"][0];
    let step = text(&target["step"]);
    match (status.as_str(), step.as_str()) {
        ("running", "") => status,
        ("running", "pull") => format!("{HOST}: pull, {} %", target["progress"]),
        ("running", _) => format!("{HOST}: {step}"),
        (_, _) => status,
    }
}

async fn check_answers(
    out: &mut (impl Write + Send),
    client: &Client,
    port: u16,
    version: &str,
    secret: &Secret<String>,
) -> Result<(), DemoError> {
    let answer = client.text(&format!("http://127.0.0.1:{port}/")).await?;
    let answer = answer.trim();
    writeln!(out, "  GET http://127.0.0.1:{port}/ answers: {answer}")?;
    if answer != format!("version {version}") {
        return Err(not_as_told(format!("{version} should answer, and it says `{answer}`")));
    }
    let value = client.text(&format!("http://127.0.0.1:{port}/env/{VARIABLE}")).await?;
    if value != *secret.expose() {
        return Err(not_as_told(format!("the container does not see the secret in {VARIABLE}")));
    }
    writeln!(out, "  and its {VARIABLE} is the secret, decrypted")?;
    Ok(())
}

async fn history(out: &mut (impl Write + Send), client: &Client, application: &Application) -> Result<(), DemoError> {
    writeln!(out, "\nThe history, newest first:")?;
    let list = client.get(&format!("deployments?applicationId={}", application.id)).await?;
    let deployments = list["data"].as_array().cloned().unwrap_or_default();
    for deployment in &deployments {
        let text = |name: &str| deployment[name].as_str().unwrap_or("-").to_owned();
        let duration = deployment["durationMs"].as_u64().unwrap_or_default();
        writeln!(
            out,
            "  {}  {:3}  {:11}  {duration:5} ms  by {} from {}  {}",
            text("createdAt"),
            text("version"),
            text("status"),
            deployment["trigger"]["type"].as_str().unwrap_or("-"),
            deployment["trigger"]["source"].as_str().unwrap_or("-"),
            deployment["error"]["code"].as_str().unwrap_or_default(),
        )?;
    }
    let got: Vec<_> = deployments.iter().map(|d| (d["version"].as_str(), d["status"].as_str())).collect();
    let want: Vec<_> = STORY.iter().rev().map(|told| (Some(told.version), Some(told.status))).collect();
    if got != want {
        return Err(not_as_told(format!("the history is {got:?}")));
    }
    writeln!(out, "\nAs told: v2 runs, v3 was refused, and everything is on record.")?;
    Ok(())
}

fn not_as_told(what: String) -> DemoError {
    DemoError::NotAsTold { what }
}

/// Free now; another process may take it before Docker does, which the deployment would tell.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn filters(name: &str, value: String) -> HashMap<String, Vec<String>> {
    [(name.to_owned(), vec![value])].into()
}

/// Tries until nothing is left, or for so long: what the worker has just begun to remove is refused meanwhile, and an engine
/// that is busy with others' images may fail to list them.
const CLEANING: Duration = Duration::from_secs(10);

/// Those of this run. What cannot be removed is told and left: the demo's own result matters more.
async fn remove_containers(docker: &Docker, prefix: &str) {
    cleaned("containers", async || {
        let filters = Some(filters("name", prefix.to_owned()));
        let options = ListContainersOptions { all: true, filters, ..Default::default() };
        let found = docker.list_containers(Some(options)).await?;
        for container in &found {
            let id = container.id.as_deref().unwrap_or_default();
            let at_once = StopContainerOptions { t: Some(0), ..Default::default() };
            let _ = docker.stop_container(id, Some(at_once)).await;
            let forced = RemoveContainerOptions { force: true, v: true, ..Default::default() };
            let _ = docker.remove_container(id, Some(forced)).await;
        }
        Ok(found.is_empty())
    })
    .await;
}

/// Those of this run that no container uses.
async fn remove_images(docker: &Docker, registry: SocketAddr) {
    let of_run = format!("{registry}/{REPOSITORY}");
    cleaned("images", async || {
        let everything = ListContainersOptions { all: true, ..Default::default() };
        let containers = docker.list_containers(Some(everything)).await?;
        let options = ListImagesOptions { filters: Some(filters("reference", of_run.clone())), ..Default::default() };
        let mut found = docker.list_images(Some(options)).await?;
        found.retain(|image| !containers.iter().any(|container| container.image_id.as_ref() == Some(&image.id)));
        for image in &found {
            // Digests too: an image that was pulled by one has no tag.
            for name in image.repo_tags.iter().chain(&image.repo_digests).filter(|name| name.starts_with(&of_run)) {
                let _ = docker.remove_image(name, None::<RemoveImageOptions>, None).await;
            }
        }
        Ok(found.is_empty())
    })
    .await;
}

/// Calls `pass`, which removes what it finds, until it finds nothing.
async fn cleaned(what: &str, mut pass: impl AsyncFnMut() -> Result<bool, bollard::errors::Error>) {
    let began = Instant::now();
    loop {
        let error = match pass().await {
            Ok(true) => return,
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if began.elapsed() > CLEANING {
            let error = error.as_ref().map(|error| error as &dyn std::error::Error);
            tracing::warn!(error, "{what} of the demo are left on this machine");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_demo_goes_as_told_and_leaves_nothing_behind() {
        let mut out = Vec::new();
        let told = Box::pin(run(&mut out, false)).await;
        let text = String::from_utf8(out).unwrap();
        assert!(told.is_ok(), "{text}\n{told:?}");
        for part in ["v1   succeeded", "v2   succeeded", "v3   rolled_back", "unhealthy", "answers: version v2"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let registry = text.split("registry at ").nth(1).unwrap().split('.').take(4).collect::<Vec<_>>().join(".");
        let docker = demo_image::connect().await.unwrap();
        let all = ListContainersOptions { all: true, ..Default::default() };
        let containers = docker.list_containers(Some(all)).await.unwrap();
        assert!(!containers.iter().any(|c| c.image.as_ref().is_some_and(|image| image.starts_with(&registry))));
        let images = docker.list_images(None::<ListImagesOptions>).await.unwrap();
        let of_run =
            |image: &bollard::models::ImageSummary| image.repo_digests.iter().any(|n| n.starts_with(&registry));
        assert!(!images.iter().any(of_run));
    }
}
