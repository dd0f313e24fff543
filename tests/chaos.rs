//! Many deployments over several workers, all of which are killed again and again, with AWS failing in every way it has: in
//! the end nothing is lost, nothing was done twice, nothing out of order, and what runs is what the record says.

mod storm;
mod witness;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use storm::Storm;
use tidegate_aws::random;
use tidegate_local::demo_image::{DemoImage, Mode};
use tokio::time::MissedTickBehavior;
use witness::Witness;

use crate::support::{Answer, Application, Installation, Setup, eventually, faults::FaultyAws, fleet::Member};

/// How many deployments; set by `cargo xtask prove chaos`.
const DEPLOYMENTS: &str = "TIDEGATE_CHAOS_DEPLOYMENTS";
const USUALLY: usize = 40;
/// Of the usual run; a longer one takes another each time, and prints it.
const SEED: u64 = 2026;
/// Of an application, at once. All together stay below what a tenant may have live.
const OUTSTANDING: usize = 3;
/// After the last fault everything has ended within this time: a host looks once a minute, and so does the sweep.
const CALM: Duration = Duration::from_mins(4);

const HOSTS: [&str; 4] = ["web-0", "web-1", "web-2", "web-3"];
/// Hosts of each application, and how many at a time.
const APPLICATIONS: [(&[usize], u32); 10] = [
    (&[0], 1),
    (&[1], 1),
    (&[2], 1),
    (&[3], 1),
    (&[0, 1], 1),
    (&[2, 3], 2),
    (&[1, 3], 1),
    (&[0, 1, 2], 1),
    (&[1, 2, 3], 3),
    (&[0, 1, 2, 3], 2),
];
const GOOD: [&str; 4] = ["v1", "v2", "v3", "v4"];

struct Chaos {
    installation: Installation,
    members: Vec<Member>,
    storm: Storm,
}

impl Chaos {
    /// As the administrator, until the functions are able to answer.
    async fn get(&self, path: &str) -> Value {
        eventually(path, async || {
            let answer = self.installation.get(path).await;
            answer.status.is_success().then(|| answer.json())
        })
        .await
    }

    /// Its id. Repeated with its key until it is accepted, as a caller should; now and then two at once.
    async fn deploy(&self, application: &Application, version: &str, key: &str) -> String {
        let (body, headers) = (json!({"version": version}), [("Idempotency-Key", key)]);
        let id = |answer: &Answer| match answer.status.as_u16() {
            202 => Some(answer.json()["deploymentId"].as_str().unwrap().to_owned()),
            409 | 429 | 500..=504 => None,
            _ => panic!("{key}: {} {}", answer.status, answer.text),
        };
        let ids = eventually(&format!("that {key} is accepted"), async || {
            let calls = 1 + usize::from(self.storm.roll(5) == 0);
            let calls = (0..calls).map(|_| self.installation.deploy_with(application, &body, &headers));
            let ids: BTreeSet<_> = join_all(calls).await.iter().filter_map(id).collect();
            (!ids.is_empty()).then_some(ids)
        })
        .await;
        assert_eq!(ids.len(), 1, "{key} was accepted as {ids:?}");
        ids.into_iter().next().unwrap()
    }

    async fn has_ended(&self, id: &str) -> bool {
        let answer = self.installation.get(&format!("deployments/{id}")).await;
        answer.status.is_success() && !matches!(answer.json()["status"].as_str(), Some("queued" | "running"))
    }

    /// One application's CI: as many deployments, one call after the other.
    async fn drive(&self, application: &Application, count: usize, name: usize) -> Vec<String> {
        let mut accepted: Vec<String> = Vec::new();
        for n in 0..count {
            if n >= OUTSTANDING {
                let oldest = accepted[n - OUTSTANDING].clone();
                self.bounded(&format!("the end of {oldest}"), async || self.has_ended(&oldest).await).await;
            }
            let version = match self.storm.roll(10) {
                0 => "unhealthy",
                1 => "broken",
                _ => GOOD[usize::try_from(self.storm.roll(4)).unwrap()],
            };
            accepted.push(self.deploy(application, version, &format!("run-{name}-{n}")).await);
        }
        accepted
    }

    /// Longer than [`eventually`]: a lost message costs a minute.
    async fn bounded(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        let waiting = async {
            loop {
                ticks.tick().await;
                if is_so().await {
                    return;
                }
            }
        };
        let logs = || self.members.iter().map(Member::log).collect::<Vec<_>>().join("\n\n");
        tokio::time::timeout(CALM, waiting).await.unwrap_or_else(|_| panic!("never saw: {what}\n{}", logs()));
    }

    /// What systemd does, and the scheduler, more often than in life. Never ends.
    async fn keep_up(&self) {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for tick in 0_u64.. {
            ticks.tick().await;
            self.members.iter().filter(|member| !member.lives()).for_each(Member::start);
            if tick % 30 == 0 {
                // One that fails is made up for by the next.
                let _ = tidegate_approvals::sweep(self.installation.stack.store()).await;
            }
        }
    }

    async fn register(&self, index: usize, image: &str, registry: &Value) -> Application {
        let (hosts, max_parallel) = APPLICATIONS[index];
        let names: Vec<_> = hosts.iter().map(|host| HOSTS[*host]).collect();
        let changes = json!({
            "image": image, "registryId": registry, "hosts": {"names": names}, "ports": [],
            "rollout": {"strategy": "recreate", "maxParallel": max_parallel},
            "healthCheck": {"type": "http", "path": "/healthz", "port": 8080, "intervalMs": 100, "startPeriodMs": 500,
                "retries": 2, "deadlineMs": 10_000},
        });
        self.installation.register(changes).await
    }
}

async fn begin(seed: u64) -> (Chaos, std::sync::Arc<FaultyAws>, Vec<Application>) {
    let (functions, detour) = FaultyAws::for_functions().await;
    let setup = Setup { no_worker: true, no_sweeps: true, detour: Some(detour), ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    installation.lift_limits().await;
    // Images of one engine are pruned by every worker on it, which no other host's worker would do.
    let joining = HOSTS.iter().map(|host| Member::join(&installation, host, "keep_images = 20\n"));
    let members = join_all(joining).await;
    let registry = json!({"name": "chaos", "server": installation.registry.server(), "authType": "username-password",
        "username": installation.registry.user(), "password": installation.registry.password()});
    let registry = installation.post("registries", &registry).await.expect(201)["id"].clone();
    let (server, repository) = (installation.registry.addr(), "demo/chaos");
    let versions = GOOD.map(|version| (version, Mode::Ok));
    for (version, mode) in versions.into_iter().chain([("unhealthy", Mode::Unhealthy), ("broken", Mode::Broken)]) {
        let image = DemoImage { health_check: false, ..DemoImage::new(version, mode) };
        image.push(&installation.docker, server, repository, &installation.registry.login()).await.unwrap();
    }
    let chaos = Chaos { installation, members, storm: Storm::new(seed) };
    let mut applications = Vec::new();
    for index in 0..APPLICATIONS.len() {
        applications.push(chaos.register(index, &format!("{server}/{repository}"), &registry).await);
    }
    (chaos, functions, applications)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_and_fails_nothing_is_lost_doubled_or_out_of_order() {
    let wanted = std::env::var(DEPLOYMENTS).ok();
    let count = wanted.as_ref().map_or(USUALLY, |text| text.parse().expect("a number of deployments"));
    let seed = wanted.map_or(SEED, |_| u64::from_be_bytes(random::bytes()));
    println!("figure: {count} deployments, seed {seed}");
    let (chaos, functions, applications) = begin(seed).await;
    let witness = Witness::of(&chaos.installation.docker, &chaos.installation.prefix);
    chaos.storm.hits_functions(&functions);
    chaos.members.iter().for_each(|member| chaos.storm.hits(member));

    let each = count.div_ceil(applications.len());
    let began = Instant::now();
    let work = async {
        let driving = applications.iter().enumerate().map(|(name, application)| chaos.drive(application, each, name));
        let accepted = join_all(driving).await;
        chaos.storm.end();
        println!("figure: all accepted after {} s; now nothing fails any more", began.elapsed().as_secs());
        for id in accepted.iter().flatten() {
            chaos.bounded(&format!("the end of {id}"), async || chaos.has_ended(id).await).await;
        }
        accepted
    };
    let accepted = tokio::select! {
        accepted = work => accepted,
        () = chaos.keep_up() => unreachable!("it never ends"),
    };
    let took = began.elapsed();
    // Who died with the last fault is started once more, and cleans up.
    chaos.members.iter().filter(|member| !member.lives()).for_each(Member::start);

    let mut tally = Tally::default();
    for (application, accepted) in applications.iter().zip(&accepted) {
        check_application(&chaos, application, accepted, &mut tally).await;
    }
    let (out_of_order, made, committed) = witness.testify();
    tally.wrong.extend(out_of_order);
    tally.tell(&chaos, took, made, committed);
    assert!(tally.wrong.is_empty(), "{:#?}", tally.wrong);
    assert_eq!(tally.accepted, each * applications.len());
    assert!(tally.by_end["succeeded"] * 2 > tally.accepted, "most versions are good: {:?}", tally.by_end);
}

#[derive(Default)]
struct Tally {
    accepted: usize,
    by_end: BTreeMap<String, usize>,
    longest: SignedDuration,
    wrong: Vec<String>,
}

impl Tally {
    fn tell(&self, chaos: &Chaos, took: Duration, made: usize, committed: usize) {
        let faults = chaos.storm.faults();
        println!("figure: {} accepted in all, {:?}, longest {} s", self.accepted, self.by_end, self.longest.as_secs());
        println!("figure: {made} containers made, {committed} switched to, none twice, over {} s", took.as_secs());
        println!("figure: {} faults: {faults:?}", faults.values().sum::<usize>());
        println!("figure: {} lost, doubled or out of order", self.wrong.len());
        assert!(faults.get("kill -9").is_some_and(|kills| *kills > 0), "{faults:?}");
    }
}

/// Nothing lost, nothing doubled, in order; and what runs on its hosts is what the record says.
async fn check_application(chaos: &Chaos, application: &Application, accepted: &[String], tally: &mut Tally) {
    let path = format!("deployments?applicationId={}&limit=100", application.id);
    let mut listed = chaos.get(&path).await["data"].as_array().unwrap().clone();
    listed.sort_by_key(|deployment| deployment["sequence"].as_u64());
    let mut wrong = |text: String| tally.wrong.push(format!("application {}: {text}", application.id));
    let ids: Vec<_> = listed.iter().map(|deployment| deployment["deploymentId"].as_str().unwrap()).collect();
    if ids != *accepted {
        wrong(format!("accepted were {accepted:?}, recorded in order are {ids:?}"));
    }
    let mut runs: BTreeMap<String, String> = BTreeMap::new();
    let mut ended_before: Option<Timestamp> = None;
    for (index, deployment) in listed.iter().enumerate() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let end = text(&deployment["status"]);
        let why = text(&deployment["error"]["code"]);
        *tally.by_end.entry(if why.is_empty() { end.clone() } else { format!("{end}: {why}") }).or_default() += 1;
        tally.accepted += 1;
        let time = |field: &str| deployment[field].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        if let (Some(created), Some(completed)) = (time("createdAt"), time("completedAt")) {
            tally.longest = tally.longest.max(completed.duration_since(created));
        }
        if deployment["sequence"] != json!(index + 1) {
            wrong(format!("{} comes as number {}", deployment["sequence"], index + 1));
        }
        let once = deployment["timeline"].as_array().unwrap().iter().filter(|event| event["event"] == *end).count();
        if once != 1 {
            wrong(format!("{} ended {once} times", ids[index]));
        }
        if time("startedAt").is_some_and(|at| Some(at) < ended_before) {
            wrong(format!("{} began before the one before it had ended: {deployment}", ids[index]));
        }
        ended_before = time("completedAt");
        for target in deployment["targets"].as_array().unwrap() {
            if target["status"] == "succeeded" {
                runs.insert(text(&target["host"]), text(&deployment["version"]));
            }
        }
    }
    let name = application.container.strip_prefix(&chaos.installation.prefix).unwrap();
    for member in &chaos.members {
        let expected = runs.get(member.host.as_str());
        if let Err(seen) = only(chaos, member, name, expected).await {
            wrong(format!("on {} runs {seen}, and the record says {expected:?}", member.host));
        }
    }
}

/// One container of the application on this host, under its name, running this version; or none at all.
async fn only(chaos: &Chaos, member: &Member, name: &str, expected: Option<&String>) -> Result<(), String> {
    let own = format!("{}{name}", member.prefix);
    let mut last = String::new();
    // A worker that was just started has first to clean up.
    for _ in 0..40 {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let listed = chaos.installation.docker.list_containers(Some(options)).await.unwrap();
        let mut seen = Vec::new();
        for container in listed {
            let shown = container.names.iter().flatten().next().map(|name| name.trim_start_matches('/').to_owned());
            let Some(shown) = shown.filter(|shown| shown == &own || shown.starts_with(&format!("{own}."))) else {
                continue;
            };
            let networks = container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
            let address = networks.into_values().find_map(|network| network.ip_address).unwrap_or_default();
            let answer = async {
                let url = format!("http://{address}:8080/");
                let request = chaos.installation.http.request(Method::GET, url).timeout(Duration::from_secs(2));
                request.send().await?.text().await
            };
            let answer = answer.await.unwrap_or_else(|_| "nothing".to_owned());
            seen.push((shown, answer.trim().to_owned()));
        }
        let wanted: Vec<_> = expected.iter().map(|version| (own.clone(), format!("version {version}"))).collect();
        if seen == wanted {
            return Ok(());
        }
        last = format!("{seen:?}");
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.tick().await;
        tick.tick().await;
    }
    Err(last)
}
