//! The worker as a process of its host: its configuration, its signals, and what it shows of itself.

mod manager;

use std::{
    fs,
    os::unix::net::UnixListener,
    process::{Command, ExitStatus, Output},
    time::{Duration, Instant},
};

use manager::Manager;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate_domain::assignment::AssignmentState;
use tidegate_local::{
    demo_image::{self, Mode},
    stack,
};
use tokio::net::TcpListener;

use crate::{
    crash::gate::Gate,
    support::{
        Application, Installation, Setup,
        binaries::{Process, binary},
        eventually, free_port,
        own_worker::OwnWorker,
    },
};

async fn installation() -> Installation {
    Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await
}

fn worker_with(installation: &Installation, lines: &str) -> OwnWorker {
    OwnWorker::of_host(installation, &stack::host(), &installation.prefix, lines)
}

async fn end_of(mut process: Process) -> ExitStatus {
    eventually("the worker ends", async || process.0.try_wait().unwrap()).await
}

async fn queue(installation: &Installation, application: &Application, version: &str) -> String {
    let accepted = installation.deploy(application, version).await.expect(202);
    accepted["deploymentId"].as_str().unwrap().to_owned()
}

async fn reaches(installation: &Installation, application: &Application, id: &str, step: &str) {
    eventually(step, async || {
        let path = format!("/webhook/deployments/{id}");
        let shown = installation.call(Method::GET, &path, Some(&application.token), &[], None).await.expect(200);
        (shown["targets"][0]["step"] == step).then_some(())
    })
    .await;
}

/// Every line of a log, each of which must be JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

#[tokio::test]
async fn a_worker_that_stops_in_a_pull_hands_it_back_as_if_it_had_never_begun() {
    let installation = installation().await;
    let gate = Gate::before(installation.registry.addr()).await;
    let registry = json!({"name": "gated", "server": gate.server(), "authType": "username-password",
        "username": installation.registry.user(), "password": installation.registry.password()});
    let registry = installation.post("registries", &registry).await.expect(201)["id"].clone();
    let image = format!("{}/demo/handed", gate.server());
    let application = installation.register(json!({"image": image, "registryId": registry})).await;
    let pushed = Application { image: format!("{}/demo/handed", installation.registry.server()), ..application };
    installation.push(&pushed, "v1", Mode::Ok).await;
    let application = Application { image, ..pushed };
    gate.close();
    let worker = OwnWorker::of(&installation);
    let process = worker.start();
    let id = queue(&installation, &application, "v1").await;
    reaches(&installation, &application, &id, "pull").await;

    let told = Instant::now();
    process.terminate();
    process.terminate();
    let status = end_of(process).await;
    println!(
        "figure: told to stop in a pull, the worker had handed it back and ended after {} ms",
        told.elapsed().as_millis()
    );
    assert!(status.success(), "{status}\n{}", worker.log());
    let open = installation.side_of(&stack::host()).assignments().await.unwrap();
    assert_eq!((open.len(), &open[0].state, open[0].attempts), (1, &AssignmentState::Queued, 0), "{open:?}");
    assert_eq!(open[0].next_attempt_at, None);
    assert!(installation.containers().await.is_empty());

    gate.open();
    let _process = worker.start();
    let ended = installation.ended(&application, &id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
}

#[tokio::test]
async fn a_worker_that_stops_in_a_switch_ends_it_first() {
    let installation = installation().await;
    let worker = OwnWorker::of(&installation);
    let process = worker.start();
    let application = installation
        .register(
            json!({"healthCheck": {"type": "http", "path": "/healthz", "port": demo_image::PORT, "intervalMs": 100,
            "startPeriodMs": 4_000, "retries": 2, "deadlineMs": 10_000}}),
        )
        .await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
    installation.push(&application, "v2", Mode::Unhealthy).await;
    let id = queue(&installation, &application, "v2").await;
    reaches(&installation, &application, &id, "check").await;

    process.terminate();
    let status = end_of(process).await;
    assert!(status.success(), "{status}\n{}", worker.log());
    // Nobody else is there to bring it back.
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n", "{}", worker.log());
    assert_eq!(installation.containers().await, std::slice::from_ref(&application.container));
    let ended = installation.ended(&application, &id).await;
    assert_eq!(ended["status"], "rolled_back", "{ended}");
}

#[tokio::test]
async fn the_service_manager_is_told_when_it_is_ready_that_it_lives_and_that_it_stops() {
    let installation = installation().await;
    let mut worker = OwnWorker::of(&installation);
    let manager = Manager::of(&mut worker, Duration::from_millis(900));
    let process = worker.start();
    manager.hears("READY=1").await;
    for _ in 0..3 {
        manager.hears("WATCHDOG=1").await;
    }
    // It waits for work, and so says it more often than the watchdog wants.
    assert!(manager.hears_within("WATCHDOG=1", Duration::from_millis(900)).await, "{}", worker.log());
    process.terminate();
    manager.hears("STOPPING=1").await;
    assert!(end_of(process).await.success(), "{}", worker.log());
}

#[tokio::test]
async fn a_loop_that_hangs_is_not_said_to_live() {
    let installation = installation().await;
    let mut worker = OwnWorker::of(&installation);
    let manager = Manager::of(&mut worker, Duration::from_millis(300));
    // Takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    worker.set("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{}", silent.local_addr().unwrap()));
    let process = worker.start();
    let (_asked, _) = silent.accept().await.unwrap();
    manager.hears("WATCHDOG=1").await;
    // Its first look at the table lasts as long as a call may, which is several times the watchdog's patience.
    assert!(!manager.hears_within("WATCHDOG=1", Duration::from_secs(2)).await, "{}", worker.log());
    process.kill();
}

#[tokio::test]
async fn metrics_and_health_are_served_on_loopback() {
    let installation = installation().await;
    let port = free_port();
    let worker = worker_with(&installation, &format!("metrics_listen = \"127.0.0.1:{port}\"\n"));
    let process = worker.start();
    let get = async |path: &str| {
        let answer = installation.http.get(format!("http://127.0.0.1:{port}{path}")).send().await.ok()?;
        Some((answer.status(), answer.text().await.ok()?))
    };
    eventually("it is well", async || get("/healthz").await.filter(|(status, _)| *status == StatusCode::OK)).await;
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
    let ended = installation.release(&application, "v2", Mode::Unhealthy).await;
    assert_eq!(ended["status"], "rolled_back", "{ended}\n{}", worker.log());
    // The record may be a moment ahead of the worker's own look.
    let told = eventually("all is counted", async || {
        let (_, told) = get("/metrics").await?;
        let counted = [
            "tidegate_worker_jobs_total{result=\"succeeded\",code=\"\"} 1",
            "tidegate_worker_jobs_total{result=\"failed\",code=\"unhealthy\"} 1",
            "tidegate_worker_job_duration_seconds_count 2",
            "tidegate_worker_running_jobs 0",
            "tidegate_worker_docker_up 1",
        ];
        counted.iter().all(|line| told.lines().any(|told| told == *line)).then_some(told)
    })
    .await;
    let number = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {told}"));
        line.trim().parse::<f64>().unwrap()
    };
    assert!(number("tidegate_worker_heartbeat_age_seconds ") < 60.0, "{told}");
    assert!(number("tidegate_worker_last_look_age_seconds ") < 90.0, "{told}");
    assert!(number("tidegate_worker_clock_offset_seconds ").abs() <= 2.0, "{told}");
    for known in [application.token.as_str(), application.container.as_str(), &ended["deploymentId"].to_string()] {
        assert!(!told.contains(known), "{known} in {told}");
    }
    assert_eq!(get("/").await.unwrap().0, StatusCode::NOT_FOUND);
    let posted = installation.http.post(format!("http://127.0.0.1:{port}/metrics")).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);

    installation.aws().stop_dynamodb();
    eventually("the failed calls are counted", async || {
        let (_, told) = get("/metrics").await?;
        told.contains("tidegate_worker_aws_call_errors_total{operation=\"DynamoDB.").then_some(())
    })
    .await;
    drop(process);
}

#[tokio::test]
async fn a_worker_without_docker_says_so_and_waits() {
    let installation = installation().await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    // Left behind by an engine that has gone.
    drop(UnixListener::bind(&socket).unwrap());
    let port = free_port();
    let lines = format!("metrics_listen = \"127.0.0.1:{port}\"\ndocker_host = \"unix://{}\"\n", socket.display());
    let worker = worker_with(&installation, &lines);
    let _process = worker.start();
    let answer = eventually("health", async || {
        let answer = installation.http.get(format!("http://127.0.0.1:{port}/healthz")).send().await.ok()?;
        let status = answer.status();
        let text = answer.text().await.ok()?;
        // Before its loop has turned for the first time that is told, too.
        (text == "docker\n").then_some(status)
    })
    .await;
    assert_eq!(answer, StatusCode::SERVICE_UNAVAILABLE);
}

fn check(worker: &OwnWorker) -> (bool, String) {
    let Output { status, stdout, stderr } =
        worker.command().arg("check").stdout(std::process::Stdio::piped()).output().unwrap();
    assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    (status.success(), String::from_utf8(stdout).unwrap())
}

fn has(told: &str, verdict: &str, subject: &str, said: &str) -> bool {
    let begins = |line: &str| line.starts_with(verdict) && line[verdict.len()..].trim_start().starts_with(subject);
    told.lines().any(|line| begins(line) && line.contains(said))
}

#[tokio::test]
async fn check_tells_that_all_is_well_and_disturbs_nobody() {
    let installation = installation().await;
    let port = free_port();
    let worker = worker_with(&installation, &format!("metrics_listen = \"127.0.0.1:{port}\"\n"));
    let (well, told) = check(&worker);
    assert!(well, "{told}");
    for (verdict, subject, said) in [
        ("fine", "configuration", "host local of default"),
        ("fine", "folder", "will be made"),
        ("fine", "worker", "none runs"),
        ("fine", "docker", "API"),
        ("fine", "disk", "MiB free"),
        ("fine", "table", "open work orders of this host: 0"),
        ("fine", "queue", "answers"),
        ("note", "reports", "cannot be tried"),
        ("fine", "clock", ""),
        ("fine", "metrics", "is free"),
    ] {
        assert!(has(&told, verdict, subject, said), "{verdict} {subject} {said} in\n{told}");
    }
    assert!(!worker.folder().join("data").exists(), "it only looks");

    let process = worker.start();
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
    let (well, told) = check(&worker);
    assert!(well, "{told}");
    assert!(has(&told, "fine", "worker", &format!("as process {}", process.0.id())), "{told}");
    assert!(has(&told, "fine", "metrics", "served"), "{told}");
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
}

#[tokio::test]
async fn check_tells_all_that_is_wrong_at_once() {
    let installation = installation().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let mut worker = worker_with(&installation, "");
    for (key, value) in [
        ("METRICS_LISTEN", taken.local_addr().unwrap().to_string()),
        ("DOCKER_HOST", format!("unix://{}", folder.path().join("none.sock").display())),
        ("DATA", folder.path().join("file").display().to_string()),
        ("TABLE", "other".to_owned()),
        ("QUEUE_URL", format!("{}none", installation.stack.queues().host_url_prefix)),
    ] {
        worker.set(&format!("TIDEGATE_WORKER_{key}"), value);
    }
    let (well, told) = check(&worker);
    assert!(!well, "{told}");
    for subject in ["docker", "folder", "metrics", "table", "queue"] {
        assert!(has(&told, "WRONG", subject, ""), "{subject} in\n{told}");
    }
    assert!(told.ends_with("5 things are wrong.\n"), "{told}");
    assert_eq!(told.matches("-> ").count(), 5, "{told}");

    worker.set("TIDEGATE_WORKER_HOST", "Web 1");
    worker.set("TIDEGATE_WORKER_KEEP_IMAGE", "1");
    let (well, told) = check(&worker);
    assert!(!well, "{told}");
    assert!(has(&told, "WRONG", "configuration", "host (TIDEGATE_WORKER_HOST in the environment)"), "{told}");
    assert!(has(&told, "WRONG", "configuration", "keep_image (TIDEGATE_WORKER_KEEP_IMAGE"), "{told}");
}

#[tokio::test]
async fn a_wrong_configuration_is_told_line_by_line() {
    let installation = installation().await;
    let mut worker = worker_with(&installation, "keep_images = -1\n");
    worker.set("TIDEGATE_WORKER_METRICS_LISTEN", "0.0.0.0:9464");
    let (status, said) = worker.run_to_its_end().await;
    assert!(!status.success(), "{said}");
    let faults: Vec<_> = lines(&said).into_iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(faults.len(), 2, "{said}");
    assert!(faults.iter().any(|line| line["fault"].as_str().unwrap().starts_with("keep_images (")), "{said}");
}

#[tokio::test]
async fn every_line_of_a_job_has_its_deployment() {
    let installation = installation().await;
    let mut worker = OwnWorker::of(&installation);
    // The fields must not go with the lines that they came from.
    worker.set("TIDEGATE_LOG", "warn");
    let _process = worker.start();
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
    let ended = installation.release(&application, "v2", Mode::Unhealthy).await;
    assert_eq!(ended["status"], "rolled_back", "{ended}\n{}", worker.log());
    let log = lines(&worker.log());
    let failed: Vec<_> = log.iter().filter(|line| line["message"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{log:?}");
    assert!(failed[0]["reason"].as_str().unwrap().contains("health check"), "{failed:?}");
    let of_jobs = ["tidegate_worker::job", "tidegate_worker::perform", "tidegate_worker::trace"];
    for line in log.iter().filter(|line| of_jobs.iter().any(|target| line["target"] == *target)) {
        let id = [&line["span"]["deployment.id"], &line["deployment.id"]].into_iter().find(|id| id.is_string());
        assert!(id.is_some(), "{line}");
    }
    assert_eq!(failed[0]["span"]["deployment.id"], ended["deploymentId"], "{failed:?}");
}

#[tokio::test]
async fn install_puts_a_program_that_runs_below_a_root() {
    let root = tempfile::tempdir().unwrap();
    let install = |dry: &[&str]| {
        let mut command = Command::new(binary("tidegate-worker"));
        command.args(["install", "--root"]).arg(root.path()).args(dry).env_clear();
        command.output().unwrap()
    };
    assert!(install(&["--dry-run"]).status.success());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    for _ in 0..2 {
        let done = install(&[]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let program = root.path().join("usr/local/bin/tidegate-worker");
    assert!(Command::new(program).arg("--version").output().unwrap().status.success());
    // What is missing in the new file is told, and nothing else is wrong with it.
    let check = Command::new(binary("tidegate-worker"))
        .args(["check", "--config"])
        .arg(root.path().join("etc/tidegate/worker.toml"))
        .env_clear()
        .output()
        .unwrap();
    let told = String::from_utf8(check.stdout).unwrap();
    assert_eq!(told.lines().filter(|line| line.starts_with("WRONG  configuration")).count(), 5, "{told}");
    assert_eq!(told.matches(": missing").count(), 5, "{told}");
}
