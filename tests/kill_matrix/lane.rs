//! One host with one worker, on which one deployment after the other is disturbed, and has to come out right.

use std::{convert::Infallible, time::Duration};

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_local::demo_image::Mode;

use super::case::{Case, HEALTHY, check};
use crate::{
    crash::gate::Gate,
    orders,
    support::{Application, Installation, eventually, fleet::Member},
};

/// A visitor waits so long. The first packets to a network interface that was just made may be lost.
const VISIT: Duration = Duration::from_millis(200);

/// What there is of the application, as far as all that was done to it has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Now {
    Nothing,
    Runs,
    Stopped,
}

pub(crate) struct Lane<'a> {
    pub(super) installation: &'a Installation,
    pub(crate) member: Member,
    /// A host that runs nothing of what the lane's own may.
    refusing: Option<Member>,
    /// What the lane's own host may mount.
    mountable: TempDir,
    pub(super) gate: Gate,
    application: Application,
    /// How it was registered last.
    registered: Value,
    /// For what is started by hand: an image that is on the host, and the version in it.
    image: Option<(String, String)>,
    versions: u32,
    now: Now,
    /// The version that runs, or is stopped.
    running: String,
    /// What is being tried, for whoever reads of its failure.
    pub(super) doing: String,
}

impl<'a> Lane<'a> {
    /// With an application, of which nothing runs.
    pub(crate) async fn open(installation: &'a Installation, name: &str) -> Self {
        let mountable = tempfile::tempdir().unwrap();
        // So that images are removed too.
        let lines = format!("keep_images = 1\nallowed_bind_mounts = [\"{}\"]\n", mountable.path().display());
        let member = Member::join(installation, name, &lines).await;
        let gate = Gate::before(installation.registry.addr()).await;
        let application = register(installation, &member, &gate).await;
        Self {
            installation,
            member,
            refusing: None,
            mountable,
            gate,
            application,
            registered: json!({}),
            image: None,
            versions: 0,
            now: Now::Nothing,
            running: String::new(),
            doing: String::new(),
        }
    }

    /// Makes the state that the case begins with.
    pub(crate) async fn prepare(&mut self, case: Case) {
        self.calm();
        match case {
            Case::Over | Case::Back | Case::Bake | Case::Restart | Case::Stop | Case::Remove => self.run().await,
            Case::Return => {
                self.run().await;
                if self.refusing.is_none() {
                    let name = format!("{}-refuses", self.member.host);
                    let refusing = Member::join(self.installation, &name, "").await;
                    refusing.start();
                    self.refusing = Some(refusing);
                }
            }
            Case::Start => {
                self.run().await;
                self.operate("stop").await;
                self.now = Now::Stopped;
            }
            Case::First => self.begin_anew().await,
            Case::Adopt => {
                if self.image.is_none() {
                    self.run().await;
                    let runs = orders::inspect(self.installation, &self.application.container).await;
                    self.image = Some((runs.image.unwrap(), self.running.clone()));
                }
                self.begin_anew().await;
                let (image, version) = self.image.clone().unwrap();
                orders::by_hand(self.installation, &self.application, &image).await;
                self.running = version;
            }
        }
        self.is_registered_with(&self.registration(case)).await;
        self.calm();
    }

    /// A version runs, and none is being watched any more.
    async fn run(&mut self) {
        match self.now {
            Now::Runs => {}
            Now::Stopped => self.operate("start").await,
            Now::Nothing => {
                self.is_registered_with(&self.registration(Case::Over)).await;
                let (version, id) = self.deploy(Mode::Ok).await;
                let ended = self.installation.ended(&self.application, &id).await;
                assert_eq!(ended["status"], "succeeded", "{ended}\n{}", self.member.log());
                self.running = version;
            }
        }
        self.now = Now::Runs;
    }

    async fn operate(&self, verb: &str) {
        let ended = self.installation.operate(&self.application, verb, &json!({})).await;
        assert_eq!(ended["status"], "succeeded", "{ended}\n{}", self.member.log());
    }

    /// With another application, of which nothing runs.
    async fn begin_anew(&mut self) {
        self.application = register(self.installation, &self.member, &self.gate).await;
        self.registered = json!({});
        self.now = Now::Nothing;
        self.running = String::new();
    }

    /// What the case asks of the application.
    fn registration(&self, case: Case) -> Value {
        let mut hosts = vec![self.member.host.as_str()];
        let mut volumes = Vec::new();
        if let Some(refusing) = self.refusing.as_ref().filter(|_| case == Case::Return) {
            hosts.push(refusing.host.as_str());
            volumes.push(json!({"source": self.mountable.path(), "target": "/data"}));
        }
        json!({"healthCheck": check(case), "hosts": {"names": hosts}, "container": {"volumes": volumes},
            "adopt": case == Case::Adopt, "rollout": {"bakeSeconds": if case == Case::Bake { 4 } else { 0 }}})
    }

    /// As in the case, and checked so.
    pub(super) async fn is_checked_by(&mut self, case: Case, check: Value) {
        let mut registration = self.registration(case);
        registration["healthCheck"] = check;
        self.is_registered_with(&registration).await;
    }

    /// From the next version on.
    async fn is_registered_with(&mut self, changes: &Value) {
        if self.registered == *changes {
            return;
        }
        let path = format!("applications/{}", self.application.id);
        let mut registered = self.installation.get(&path).await.expect(200);
        registered.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.installation.put(&path, &registered).await.expect(200);
        self.registered = changes.clone();
    }

    /// Nothing goes wrong any more, and the worker works.
    pub(super) fn calm(&self) {
        self.member.docker.let_all_pass();
        self.member.aws.let_all_pass();
        self.gate.open();
        if !self.member.lives() {
            self.member.start();
        }
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
        let (new, id) = self.begin(case).await;
        meanwhile(self, &id, &new).await;
        let ended = self.end(&id).await;
        let mut wrong = Vec::new();
        self.check_end(case, &ended, old, new, &mut wrong).await;
        (ended, wrong)
    }

    /// The version that is then to run, if all is well, and the deployment's id.
    pub(super) async fn begin(&mut self, case: Case) -> (String, String) {
        let Some(verb) = case.verb() else { return self.deploy(case.mode()).await };
        let path = format!("applications/{}/{verb}", self.application.id);
        let accepted = self.installation.post(&path, &json!({})).await.expect(202);
        (self.running.clone(), accepted["deploymentId"].as_str().unwrap().to_owned())
    }

    pub(super) async fn end(&self, id: &str) -> Value {
        self.installation.ended(&self.application, id).await
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

    /// That the record, Docker and the application say the same.
    pub(super) async fn check_end(
        &mut self,
        case: Case,
        ended: &Value,
        old: String,
        new: String,
        wrong: &mut Vec<String>,
    ) {
        self.running = match ended["status"].as_str() {
            Some("succeeded") => new,
            Some("rolled_back" | "failed") => old,
            other => panic!("{other:?} is no end: {ended}"),
        };
        self.now = match case {
            Case::Stop => Now::Stopped,
            Case::Remove => Now::Nothing,
            _ => Now::Runs,
        };
        self.rests(case).await;
        let runs = &self.running;
        if self.now == Now::Runs {
            let answer = self.soon("an answer", async || self.visit("/").await).await;
            if answer != format!("version {runs}\n") {
                wrong.push(format!("{} runs, and the record says {runs}", answer.trim()));
            }
        }
        let shown = self.installation.get(&format!("applications/{}", self.application.id)).await.expect(200);
        let state = match self.now {
            Now::Runs => "running",
            Now::Stopped => "stopped",
            Now::Nothing => "removed",
        };
        if shown["status"]["state"] != state {
            wrong.push(format!("the application's record says {}, not {state}", shown["status"]["state"]));
        }
        if self.now != Now::Nothing && shown["status"]["version"] != json!(runs) {
            wrong.push(format!("the application's record says {}, not {runs}", shown["status"]["version"]));
        }
        let events = ended["timeline"].as_array().unwrap().iter().filter(|e| e["event"] == ended["status"]).count();
        if events != 1 {
            wrong.push(format!("it ended {events} times"));
        }
    }

    /// Nothing but what the case leaves, under its name. The record may be a moment ahead of the clean-up.
    pub(super) async fn rests(&self, case: Case) {
        let name = &self.application.container;
        let left = match case {
            Case::Stop => format!("{name} exited"),
            Case::Remove => String::new(),
            _ => format!("{name} running"),
        };
        self.soon(&format!("only {left}"), async || (self.listed().await? == left).then_some(())).await;
    }

    /// The first that a visitor or the engine shows of what the case comes to.
    pub(super) async fn shows(&self, case: Case) -> Option<String> {
        let word = match case {
            Case::Stop => "stopped",
            Case::Remove => "none",
            _ => return self.visit("/").await.filter(|text| text.starts_with("version ")),
        };
        let listed = self.listed().await?;
        let name = &self.application.container;
        (listed == if case == Case::Stop { format!("{name} exited") } else { String::new() }).then(|| word.to_owned())
    }

    /// The step that the functions say the host is at.
    pub(super) async fn is_at(&self, id: &str, step: &str) -> bool {
        let shown = self.installation.get(&format!("deployments/{id}")).await.expect(200);
        shown["targets"][0]["step"] == step
    }

    /// Whether the new version answers, and the worker has said that it checks it.
    pub(super) async fn is_checking(&self, id: &str, new: &str) -> bool {
        self.is_at(id, "check").await && self.visit("/").await.is_some_and(|text| text == format!("version {new}\n"))
    }

    /// Of whichever container is checked, and of any that comes after it.
    pub(super) async fn say_healthy(&self) -> Infallible {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let _ = self.visit(&format!("/write{HEALTHY}")).await;
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

    /// As [`eventually`], and tells what the worker said, and of which step.
    pub(super) async fn soon<T>(&self, what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
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
    pub(super) async fn listed(&self) -> Option<String> {
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

async fn register(installation: &Installation, member: &Member, gate: &Gate) -> Application {
    let name = format!("gated-{}", crate::support::hex(&tidegate_aws::random::bytes::<3>()));
    let registry = json!({"name": name, "server": gate.server(), "authType": "username-password",
        "username": installation.registry.user(), "password": installation.registry.password()});
    let registry = installation.post("registries", &registry).await.expect(201)["id"].clone();
    let application = installation
        .register(json!({"image": format!("{}/demo/{name}", gate.server()), "registryId": registry,
            "hosts": {"names": [member.host.as_str()]}}))
        .await;
    let slow =
        json!({"scope": "application", "applicationId": application.id, "key": "HEALTHY_AFTER_MS", "value": "300"});
    installation.post("variables", &slow).await.expect(201);
    let own = application.container.strip_prefix(&installation.prefix).unwrap();
    let (container, image) = (format!("{}{own}", member.prefix), format!("{}/demo/{name}", gate.server()));
    Application { image, container, ..application }
}
