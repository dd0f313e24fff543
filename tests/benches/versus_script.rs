//! Tidegate against Debian's `webhook` that runs a shell script, in one run: the time from the HTTP call to the new
//! version's first answer, and how long nobody was answered during the switch.
//!
//! Both sides run the same image from the same private registry, with an init, on ports of 127.0.0.1, and take turns. Every
//! version is new to the machine. It is measured twice: with another container on Docker's bridge, as on a host with more
//! than one application, and without. Alone, the bridge goes down with the old container and up with the new one, whose
//! first packets are then lost for about a second: all sides pay for that alike, so the claim is on the other condition.
//!
//! Beside them runs what no switch on a published port can do without: the engine's own start of a container that was
//! created before. The new process may not begin before the old one has ended and given its port up, and all that the
//! engine does in a start comes after that.

#[path = "versus_script/prober.rs"]
mod prober;
#[path = "versus_script/script.rs"]
mod script;
#[path = "versus_script/tidegate.rs"]
mod tidegate;

use std::{collections::HashMap, error::Error, process::ExitCode, time::Instant};

use bollard::{
    Docker,
    models::{ContainerCreateBody, HostConfig, PortBinding},
    query_parameters::{
        CreateContainerOptionsBuilder, ListImagesOptions, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
        StartContainerOptions, StopContainerOptionsBuilder,
    },
};
use prober::{Prober, Visits};
use script::Webhook;
use tidegate::Tidegate;
use tidegate_domain::secret::Secret;
use tidegate_local::{
    demo_image::{self, DemoImage, Login, Mode},
    registry::Registry,
};

/// Switches of each side, under each condition.
const SWITCHES: usize = 9;
/// Tidegate's time without an answer is at most so much of the script's. Half of it is about what the engine's own start
/// takes, so less cannot be promised.
const OF_THE_SCRIPTS: f64 = 0.85;
const USER: &str = "ci";
const PASSWORD: &str = "of-a-benchmark";
const OURS: &str = "versus-tidegate";
const THEIRS: &str = "versus-script";
const FLOOR: &str = "versus-floor";
const NEIGHBOUR: &str = "versus-neighbour";
const VERSION_1: &str = "v1";

#[tokio::main]
async fn main() -> ExitCode {
    if !script::is_there() {
        eprintln!("Debian's webhook is not installed; install it with: apt-get install webhook");
        return ExitCode::from(2);
    }
    match Box::pin(run()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("versus-script: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What one side took, in milliseconds, one entry a switch.
#[derive(Debug, Default)]
struct Taken {
    total: Vec<f64>,
    silent: Vec<f64>,
}

#[derive(Debug, Default)]
struct Measured {
    ours: Taken,
    theirs: Taken,
    floor: Taken,
}

struct Arena {
    docker: Docker,
    registry: Registry,
    password: Secret<String>,
    image: String,
    ours: (Tidegate, Prober),
    theirs: (Webhook, Prober),
    floor: (u16, Prober),
    /// Versions pushed so far.
    pushed: usize,
}

async fn run() -> Result<bool, Box<dyn Error>> {
    let docker = demo_image::connect().await?;
    remove_containers(&docker).await;
    let done = Box::pin(measure(&docker)).await;
    remove_containers(&docker).await;
    done
}

async fn measure(docker: &Docker) -> Result<bool, Box<dyn Error>> {
    let password = Secret::new(PASSWORD.to_owned());
    let registry = Registry::start(USER, &password)?;
    let image = format!("{}/demo/versus", registry.addr());
    let (port, their_port, floor_port) = (free_port()?, free_port()?, free_port()?);
    let target = tidegate::Target { image: &image, name: OURS, port, container_port: demo_image::PORT };
    let ours = Tidegate::start(&target, registry.addr(), USER, PASSWORD).await?;
    let target =
        script::Target { image: &image, container: THEIRS, port: their_port, container_port: demo_image::PORT };
    let theirs = Webhook::start(&target, registry.addr(), USER, PASSWORD).await?;
    let mut arena = Arena {
        docker: docker.clone(),
        registry,
        password,
        image,
        ours: (ours, Prober::new(port)?),
        theirs: (theirs, Prober::new(their_port)?),
        floor: (floor_port, Prober::new(floor_port)?),
        pushed: 0,
    };
    let holds = arena.compare(their_port).await;
    arena.ours.1.end();
    arena.theirs.1.end();
    arena.floor.1.end();
    remove_containers(docker).await;
    remove_images(docker, &arena.image).await?;
    holds
}

impl Arena {
    async fn compare(&mut self, their_port: u16) -> Result<bool, Box<dyn Error>> {
        self.push().await?;
        let id = self.ours.0.deploy(VERSION_1).await?;
        self.ours.0.ended(&id).await?;
        self.container(THEIRS, VERSION_1, Some(their_port)).await?;
        let alone = self.switches().await?;
        self.container(NEIGHBOUR, VERSION_1, None).await?;
        self.start(NEIGHBOUR).await?;
        let beside = self.switches().await?;
        Ok(verdict(&beside, &alone))
    }

    /// Only one of the applications runs at a time, so that no other is its neighbour.
    async fn switches(&mut self) -> Result<Measured, Box<dyn Error>> {
        let mut measured = Measured::default();
        for round in 1..=SWITCHES {
            let steps = self.switch_ours(&mut measured.ours).await?;
            self.switch_theirs(&mut measured.theirs).await?;
            self.start_alone(&mut measured.floor).await?;
            let Measured { ours, theirs, floor } = &measured;
            println!(
                "{round}: Tidegate {}; script {}; a start alone {}; Tidegate's steps: {steps}",
                ours.last(),
                theirs.last(),
                floor.total.last().map_or_else(String::new, |ms| format!("{ms:.0} ms"))
            );
        }
        Ok(measured)
    }

    async fn switch_ours(&mut self, taken: &mut Taken) -> Result<String, Box<dyn Error>> {
        let version = self.push().await?;
        self.start(OURS).await?;
        let visits = running(&self.ours.1).await?;
        let called = Instant::now();
        let id = self.ours.0.deploy(&version).await?;
        taken.add(called, visits, &version).await?;
        let steps = self.ours.0.ended(&id).await?;
        self.stop(OURS).await?;
        Ok(steps)
    }

    async fn switch_theirs(&mut self, taken: &mut Taken) -> Result<(), Box<dyn Error>> {
        let version = self.push().await?;
        self.start(THEIRS).await?;
        let visits = running(&self.theirs.1).await?;
        let called = Instant::now();
        self.theirs.0.deploy(&version).await?;
        taken.add(called, visits, &version).await?;
        self.stop(THEIRS).await
    }

    /// No pull, no decision, nothing created and nothing stopped.
    async fn start_alone(&mut self, taken: &mut Taken) -> Result<(), Box<dyn Error>> {
        self.container(FLOOR, VERSION_1, Some(self.floor.0)).await?;
        let visits = self.floor.1.begin();
        let called = Instant::now();
        self.start(FLOOR).await?;
        taken.add(called, visits, VERSION_1).await?;
        remove(&self.docker, FLOOR).await;
        Ok(())
    }

    /// A version that this machine has never had.
    async fn push(&mut self) -> Result<String, Box<dyn Error>> {
        self.pushed += 1;
        let version = format!("v{}", self.pushed);
        let image = DemoImage { health_check: false, ..DemoImage::new(&version, Mode::Ok) };
        let login = Login { user: USER, password: &self.password };
        image.push(&self.docker, self.registry.addr(), "demo/versus", &login).await?;
        Ok(version)
    }

    async fn container(&self, name: &str, version: &str, port: Option<u16>) -> Result<(), Box<dyn Error>> {
        let tagged = format!("{}:{version}", self.image);
        let login = Login { user: USER, password: &self.password };
        let options = bollard::query_parameters::CreateImageOptionsBuilder::default().from_image(&tagged).build();
        let pulled = self.docker.create_image(Some(options), None, Some(login.for_docker(self.registry.addr())));
        futures_util::TryStreamExt::try_collect::<Vec<_>>(pulled).await?;
        let binding =
            |port: u16| PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(port.to_string()) };
        let bindings =
            port.map(|port| HashMap::from([(format!("{}/tcp", demo_image::PORT), Some(vec![binding(port)]))]));
        let host_config = HostConfig { init: Some(true), port_bindings: bindings, ..HostConfig::default() };
        let body = ContainerCreateBody {
            image: Some(tagged),
            host_config: Some(host_config),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.docker.create_container(Some(options), body).await?;
        Ok(())
    }

    async fn start(&self, name: &str) -> Result<(), Box<dyn Error>> {
        Ok(self.docker.start_container(name, None::<StartContainerOptions>).await?)
    }

    async fn stop(&self, name: &str) -> Result<(), Box<dyn Error>> {
        Ok(self.docker.stop_container(name, Some(StopContainerOptionsBuilder::default().t(5).build())).await?)
    }
}

/// Visits to what runs now, which has answered.
async fn running(prober: &Prober) -> Result<Visits, Box<dyn Error>> {
    let mut visits = prober.begin();
    visits.any().await?;
    Ok(visits)
}

impl Taken {
    async fn add(&mut self, called: Instant, visits: Visits, version: &str) -> Result<(), Box<dyn Error>> {
        let seen = visits.until(&format!("version {version}\n")).await?;
        self.total.push(seen.new_at.duration_since(called).as_secs_f64() * 1_000.0);
        self.silent.push(seen.silent.as_secs_f64() * 1_000.0);
        Ok(())
    }

    fn last(&self) -> String {
        let last = |all: &[f64]| all.last().copied().unwrap_or_default();
        format!("{:.0} ms in all, {:.0} ms without answer", last(&self.total), last(&self.silent))
    }
}

/// Prints the figures. The claim: faster in all, and clearly less time without an answer.
fn verdict(beside: &Measured, alone: &Measured) -> bool {
    let mut holds = true;
    for (condition, measured, counts) in
        [("beside another container", beside, true), ("alone on Docker's bridge", alone, false)]
    {
        let Measured { ours, theirs, floor } = measured;
        let total = told(condition, "from the call to the new version's answer", &ours.total, &theirs.total);
        let silent = told(condition, "without an answer", &ours.silent, &theirs.silent);
        println!("figure: {condition}, the engine's start alone: {:.0} ms", median(&floor.total));
        holds &= !counts || (total < 1.0 && silent < OF_THE_SCRIPTS);
    }
    holds
}

/// The ratio of the medians, printed.
fn told(condition: &str, what: &str, ours: &[f64], theirs: &[f64]) -> f64 {
    let (ours, theirs) = (median(ours), median(theirs));
    let ratio = ours / theirs;
    println!("figure: {condition}, {what}: Tidegate {ours:.0} ms, script {theirs:.0} ms, ratio {ratio:.2}");
    ratio
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Of this and of a run that was killed.
async fn remove_containers(docker: &Docker) {
    for name in [OURS, THEIRS, FLOOR, NEIGHBOUR] {
        for suffix in ["", ".tidegate-next", ".tidegate-prev"] {
            remove(docker, &format!("{name}{suffix}")).await;
        }
    }
}

/// If it is there.
async fn remove(docker: &Docker, name: &str) {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    let _ = docker.remove_container(name, Some(options)).await;
}

async fn remove_images(docker: &Docker, image: &str) -> Result<(), Box<dyn Error>> {
    for listed in docker.list_images(None::<ListImagesOptions>).await? {
        for name in listed.repo_tags.iter().chain(&listed.repo_digests).filter(|name| name.starts_with(image)) {
            let options = RemoveImageOptionsBuilder::default().force(true).build();
            // Removing its last tag may have removed the digest as well.
            let _ = docker.remove_image(name, Some(options), None).await;
        }
    }
    Ok(())
}
