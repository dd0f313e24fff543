//! One host with one worker, on which one deployment after the other is disturbed, and has to come out right.

use std::{
    convert::Infallible,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tidegate_local::demo_image::Mode;

use crate::{
    crash::gate::Gate,
    support::{Application, Installation, eventually, fleet::Member, relay::Fate},
};

/// A visitor waits so long. The first packets to a network interface that was just made may be lost.
const VISIT: Duration = Duration::from_millis(200);

/// What is deployed over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// A good version over a running one.
    Over,
    /// A version that never gets healthy over a running one.
    Back,
    /// A good version where nothing runs.
    First,
}

/// Where in the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// The n-th call that changes something in Docker.
    Docker(usize),
    /// The first write of this kind, see [`AwsCall::of_a_worker`](crate::support::faults::AwsCall::of_a_worker).
    Aws(&'static str),
    /// The report that follows the finish.
    LastReport,
    /// The new version answers, and is being checked; it does not get healthy before the kill, however late that is.
    Check,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    Amid,
    After,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Before => "before",
            Self::Amid => "amid",
            Self::After => "after",
        })
    }
}

/// What came of one kill.
#[derive(Debug)]
pub(crate) struct Row {
    pub step: String,
    pub moment: Moment,
    /// What the killed worker left, by name and state.
    pub left: String,
    /// What answered first: `old`, `new`, or another.
    pub ran: String,
    /// From the restart to that.
    pub recovered: Duration,
    pub status: String,
    /// What is not as it must be.
    pub wrong: Vec<String>,
}

pub(crate) struct Lane<'a> {
    installation: &'a Installation,
    pub(crate) member: Member,
    gate: Gate,
    application: Application,
    /// How the next version is checked.
    check: Value,
    versions: u32,
    running: String,
    /// What is being tried, for whoever reads of its failure.
    doing: String,
}

/// Of an application that is slow to get healthy. A good version has all the time that a busy machine may need; one that
/// never gets healthy is found so soon.
fn check(case: Case) -> Value {
    let start_period = if case == Case::Back { 900 } else { 30_000 };
    http("/healthz", start_period)
}

/// A file that a version does not have when it starts; see [`Lane::say_healthy`].
const HEALTHY: &str = "/healthy";

/// Not passed before the test has made the new version healthy, and not failed for as long as anybody looks.
fn held(case: Case) -> Value {
    // On the way back nobody makes it healthy, and the end of this time is waited for.
    let start_period = if case == Case::Back { 15_000 } else { 120_000 };
    http(&format!("/read{HEALTHY}"), start_period)
}

fn http(path: &str, start_period_ms: u64) -> Value {
    json!({"type": "http", "path": path, "port": 8080, "intervalMs": 100, "startPeriodMs": start_period_ms, "retries": 2,
        "deadlineMs": start_period_ms + 10_000})
}

impl<'a> Lane<'a> {
    /// With an application, of which nothing runs.
    pub(crate) async fn open(installation: &'a Installation, name: &str) -> Self {
        // So that images are removed too.
        let member = Member::join(installation, name, "keep_images = 1\n").await;
        let gate = Gate::before(installation.registry.addr()).await;
        let application = register(installation, &member, &gate).await;
        Self {
            installation,
            member,
            gate,
            application,
            check: check(Case::First),
            versions: 0,
            running: String::new(),
            doing: String::new(),
        }
    }

    /// Makes the state that the case begins with.
    pub(crate) async fn prepare(&mut self, case: Case) {
        match case {
            Case::Over | Case::Back if self.running.is_empty() => {
                self.calm();
                self.is_checked_by(check(Case::Over)).await;
                let (version, id) = self.deploy(Mode::Ok).await;
                let ended = self.installation.ended(&self.application, &id).await;
                assert_eq!(ended["status"], "succeeded", "{ended}\n{}", self.member.log());
                self.running = version;
            }
            Case::Over | Case::Back => {}
            Case::First => {
                self.application = register(self.installation, &self.member, &self.gate).await;
                self.check = check(case);
                self.running = String::new();
            }
        }
        self.is_checked_by(check(case)).await;
        self.calm();
    }

    /// From the next version on.
    async fn is_checked_by(&mut self, check: Value) {
        if self.check == check {
            return;
        }
        let path = format!("applications/{}", self.application.id);
        let mut registered = self.installation.get(&path).await.expect(200);
        registered["healthCheck"] = check.clone();
        self.installation.put(&path, &registered).await.expect(200);
        self.check = check;
    }

    /// Nothing goes wrong any more, and the worker works.
    fn calm(&self) {
        self.member.docker.let_all_pass();
        self.member.aws.let_all_pass();
        self.gate.open();
        if !self.member.lives() {
            self.member.start();
        }
    }

    /// The calls that change something in Docker, if nothing goes wrong.
    pub(crate) async fn rehearse(&mut self, case: Case) -> Vec<String> {
        self.prepare(case).await;
        let (version, id) = self.deploy(mode(case)).await;
        let ended = self.installation.ended(&self.application, &id).await;
        assert_eq!(ended["status"], if case == Case::Back { "rolled_back" } else { "succeeded" }, "{ended}");
        if case != Case::Back {
            self.running = version;
        }
        // The record may be a moment ahead of the clean-up.
        self.one_container().await;
        self.member.docker.seen()
    }

    /// A deployment that nobody dies in: `disturb` says what goes wrong beside it, `meanwhile` runs once it is accepted. How
    /// it ended, and what is not as it must be.
    pub(crate) async fn come_through(
        &mut self,
        case: Case,
        disturb: impl FnOnce(&Member),
        meanwhile: impl AsyncFnOnce(&Self, &str, &str),
    ) -> (Value, Vec<String>) {
        self.prepare(case).await;
        disturb(&self.member);
        let old = self.running.clone();
        let (new, id) = self.deploy(mode(case)).await;
        meanwhile(self, &id, &new).await;
        let ended = self.installation.ended(&self.application, &id).await;
        let mut wrong = Vec::new();
        self.check_end(&ended, old, new, &mut wrong).await;
        (ended, wrong)
    }

    async fn deploy(&mut self, mode: Mode) -> (String, String) {
        self.versions += 1;
        let version = format!("v{}", self.versions);
        // Pushed past the gate, under the name that the registry knows it by.
        let repository = self.application.image.split_once('/').unwrap().1;
        let image = format!("{}/{repository}", self.installation.registry.server());
        let pushed = Application { image, token: String::new(), container: String::new(), ..self.application };
        self.installation.push(&pushed, &version, mode).await;
        let accepted = self.installation.deploy(&self.application, &version).await.expect(202);
        (version, accepted["deploymentId"].as_str().unwrap().to_owned())
    }

    /// Kills the worker there, starts it again, and looks at what comes of it.
    pub(crate) async fn kill_at(&mut self, case: Case, point: Point, step: &str, moment: Moment) -> Row {
        self.prepare(case).await;
        self.doing = format!("killed {moment} {step}");
        if point == Point::Check {
            self.is_checked_by(held(case)).await;
        }
        self.arm(point, moment);
        let old = self.running.clone();
        let (new, id) = self.deploy(mode(case)).await;
        if point == Point::Check {
            self.soon("the check of the new version", async || self.is_checking(&id, &new).await.then_some(())).await;
            assert!(self.member.kill(), "{}: it was dead", self.doing);
        }
        self.soon("the end of the worker", async || (!self.member.lives()).then_some(())).await;
        let left = self.soon("the containers", async || self.listed().await).await;
        let mut row = Row {
            step: step.to_owned(),
            moment,
            left,
            ran: String::new(),
            recovered: Duration::ZERO,
            status: String::new(),
            wrong: Vec::new(),
        };
        let restarted = Instant::now();
        self.calm();
        let answered = self
            .soon("an answer of the application", async || {
                self.visit("/").await.filter(|text| text.starts_with("version "))
            })
            .await;
        row.recovered = restarted.elapsed();
        row.ran = match answered.trim().trim_start_matches("version ") {
            version if version == old => "old".to_owned(),
            version if version == new => "new".to_owned(),
            other => other.to_owned(),
        };
        let ended = tokio::select! {
            ended = self.installation.ended(&self.application, &id) => ended,
            never = self.say_healthy(), if point == Point::Check && case != Case::Back => match never {},
        };
        ended["status"].as_str().unwrap_or_default().clone_into(&mut row.status);
        self.check_end(&ended, old, new, &mut row.wrong).await;
        row
    }

    /// Whether the new version answers, and the worker has said that it checks it.
    async fn is_checking(&self, id: &str, new: &str) -> bool {
        let path = format!("deployments/{id}");
        let shown = self.installation.get(&path).await.expect(200);
        shown["targets"][0]["step"] == "check"
            && self.visit("/").await.is_some_and(|text| text == format!("version {new}\n"))
    }

    /// Of whichever container is checked, and of any that comes after it.
    async fn say_healthy(&self) -> Infallible {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let _ = self.visit(&format!("/write{HEALTHY}")).await;
        }
    }

    fn arm(&self, point: Point, moment: Moment) {
        let fate = move || match moment {
            Moment::Before => Fate::DieBefore,
            Moment::Amid => Fate::DieAmid,
            Moment::After => Fate::DieAfter,
        };
        let is_finished = Arc::new(AtomicBool::new(false));
        match point {
            Point::Check => {}
            Point::Docker(wanted) => {
                let gate = self.gate.closing();
                self.member.docker.judge_by(move |call| {
                    if call.nth != wanted {
                        return Fate::Pass;
                    }
                    if moment == Moment::Amid && call.name == "pull" {
                        gate.close();
                    }
                    fate()
                });
            }
            Point::Aws(wanted) => {
                self.member.aws.judge_by(move |call| {
                    let is_it = call.of_a_worker() == Some(wanted);
                    if is_it { fate() } else { Fate::Pass }
                });
            }
            Point::LastReport => {
                self.member.aws.judge_by(move |call| match call.of_a_worker() {
                    Some("finish") => {
                        is_finished.store(true, Ordering::SeqCst);
                        Fate::Pass
                    }
                    Some("report") if is_finished.load(Ordering::SeqCst) => fate(),
                    _ => Fate::Pass,
                });
            }
        }
    }

    async fn check_end(&mut self, ended: &Value, old: String, new: String, wrong: &mut Vec<String>) {
        let runs = match ended["status"].as_str() {
            Some("succeeded") => new,
            Some("rolled_back" | "failed") => old,
            other => panic!("{other:?} is no end: {ended}"),
        };
        self.running.clone_from(&runs);
        self.one_container().await;
        let answer = self.soon("an answer", async || self.visit("/").await).await;
        if answer != format!("version {runs}\n") {
            wrong.push(format!("{} runs, and the record says {runs}", answer.trim()));
        }
        let shown = self.installation.get(&format!("applications/{}", self.application.id)).await.expect(200);
        if shown["status"]["version"] != json!(runs) {
            wrong.push(format!("the application's record says {}, not {runs}", shown["status"]["version"]));
        }
        let events = ended["timeline"].as_array().unwrap().iter().filter(|e| e["event"] == ended["status"]).count();
        if events != 1 {
            wrong.push(format!("it ended {events} times"));
        }
    }

    /// What the functions say of it now.
    pub(crate) async fn status(&self, id: &str) -> String {
        let shown = self.installation.get(&format!("deployments/{id}")).await.expect(200);
        shown["status"].as_str().unwrap().to_owned()
    }

    /// The application answers as this version, and nothing else of it is left.
    pub(crate) async fn only(&self, version: &str) {
        eventually(&format!("only {version}"), async || {
            let alone = self.listed().await? == format!("{} running", self.application.container);
            (alone && self.visit("/").await? == format!("version {version}\n")).then_some(())
        })
        .await;
    }

    pub(crate) fn running(&self) -> &str {
        &self.running
    }

    async fn one_container(&self) {
        self.soon("one container of the application, under its name", async || {
            (self.listed().await? == format!("{} running", self.application.container)).then_some(())
        })
        .await;
    }

    /// As [`eventually`], and tells what the worker said, and of which step.
    async fn soon<T>(&self, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
        let seen = std::panic::AssertUnwindSafe(eventually(what, look)).catch_unwind().await;
        seen.unwrap_or_else(|_| {
            let (log, calls) = (self.member.log(), self.member.docker.seen());
            let last = log.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
            panic!("{}: never saw {what}; since the restart: {calls:?}\n{last}", self.doing);
        })
    }

    async fn visit(&self, path: &str) -> Option<String> {
        tokio::time::timeout(VISIT, self.installation.visit(&self.application, path)).await.ok()?.ok()
    }

    /// Names and states of the application's containers. Nothing if the engine would not say, as one does that is just
    /// removing a container.
    async fn listed(&self) -> Option<String> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let listed = self.installation.docker.list_containers(Some(options)).await.ok()?;
        let mut seen: Vec<String> = listed
            .into_iter()
            .filter_map(|container| {
                let name = container.names?.first()?.trim_start_matches('/').to_owned();
                let ours = name.strip_prefix(&self.application.container)?;
                let whole = ours.is_empty() || ours.starts_with(".tidegate-");
                whole.then(|| format!("{name} {}", container.state.map(|s| s.to_string()).unwrap_or_default()))
            })
            .collect();
        seen.sort();
        Some(seen.join(", "))
    }

    /// As in a table: without what all names have in common.
    pub(crate) fn short(&self, left: &str) -> String {
        left.replace(&self.application.container, "app")
    }
}

fn mode(case: Case) -> Mode {
    match case {
        Case::Over | Case::First => Mode::Ok,
        Case::Back => Mode::Unhealthy,
    }
}

async fn register(installation: &Installation, member: &Member, gate: &Gate) -> Application {
    let name = format!("gated-{}", crate::support::hex(&tidegate_aws::random::bytes::<3>()));
    let registry = json!({"name": name, "server": gate.server(), "authType": "username-password",
        "username": installation.registry.user(), "password": installation.registry.password()});
    let registry = installation.post("registries", &registry).await.expect(201)["id"].clone();
    let application = installation
        .register(json!({"image": format!("{}/demo/{name}", gate.server()), "registryId": registry,
            "hosts": {"names": [member.host.as_str()]}, "healthCheck": check(Case::First)}))
        .await;
    let slow =
        json!({"scope": "application", "applicationId": application.id, "key": "HEALTHY_AFTER_MS", "value": "300"});
    installation.post("variables", &slow).await.expect(201);
    let own = application.container.strip_prefix(&installation.prefix).unwrap();
    let (container, image) = (format!("{}{own}", member.prefix), format!("{}/demo/{name}", gate.server()));
    Application { image, container, ..application }
}
