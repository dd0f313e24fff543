//! How a container is made: every option reaches Docker, what the host does not allow is refused before anything is
//! pulled, and what cannot work is told before the old version stops.

mod health;
mod host_policy;
mod scratch;

use std::{collections::HashMap, time::Duration};

use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
use serde_json::{Value, json};
use tidegate_local::{
    demo_image::{DemoImage, Mode},
    stack,
};

use self::scratch::{Network, Volumes};
use crate::support::{Application, Installation, Setup, eventually, own_worker::OwnWorker};

/// What Docker tells of the application's container.
async fn inspect(installation: &Installation, application: &Application) -> ContainerInspectResponse {
    installation.docker.inspect_container(&application.container, None).await.unwrap()
}

/// As a person would with an answer of the API: whole, and changed.
async fn change(installation: &Installation, application: &Application, changes: &Value) {
    let path = format!("applications/{}", application.id);
    let mut registered = installation.get(&path).await.expect(200);
    for (field, value) in changes.as_object().unwrap() {
        registered[field] = value.clone();
    }
    installation.put(&path, &registered).await.expect(200);
}

/// Pushes an image with more instructions, deploys it, and waits for the end.
async fn release_with(
    installation: &Installation,
    application: &Application,
    version: &str,
    mode: Mode,
    changes: &[&str],
) -> Value {
    push_with(installation, application, version, mode, changes).await;
    let id = installation.deploy(application, version).await.expect(202)["deploymentId"].clone();
    installation.ended(application, id.as_str().unwrap()).await
}

async fn push_with(
    installation: &Installation,
    application: &Application,
    version: &str,
    mode: Mode,
    changes: &[&str],
) {
    let changes = changes.iter().map(|line| (*line).to_owned()).collect();
    let image = DemoImage { health_check: false, changes, ..DemoImage::new(version, mode) };
    let repository = application.image.split_once('/').unwrap().1;
    let (registry, login) = (installation.registry.addr(), installation.registry.login());
    image.push(&installation.docker, registry, repository, &login).await.unwrap();
}

/// A variable that new containers of the application find in their environment.
async fn set(installation: &Installation, application: &Application, key: &str, value: &str) {
    let variable = json!({"scope": "application", "applicationId": application.id, "key": key, "value": value});
    installation.post("variables", &variable).await.expect(201);
}

#[tokio::test]
async fn every_option_reaches_the_container() {
    let shared = tempfile::tempdir().unwrap();
    std::fs::write(shared.path().join("given"), "by the host").unwrap();
    let network = Network::create().await;
    let volumes = Volumes::named(&["data"]);
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let lines = format!(
        "allowed_bind_mounts = [\"{}\"]\nallowed_capabilities = [\"NET_ADMIN\"]\n",
        shared.path().to_str().unwrap()
    );
    let worker = OwnWorker::of_host(&installation, &stack::host(), &installation.prefix, &lines);
    let _process = worker.start();
    let container = json!({
        "restartPolicy": "on-failure", "restartMaxRetries": 4, "command": ["serve"], "entrypoint": ["/app"],
        "user": "1000:1000", "workingDir": "/work", "hostname": "web-1", "memoryBytes": 64 << 20, "cpus": 0.5,
        "pidsLimit": 50, "shmSizeBytes": 1 << 20, "ulimits": [{"name": "nofile", "soft": 1024, "hard": 2048}],
        "volumes": [{"source": volumes.name("data"), "target": "/data"},
            {"source": shared.path(), "target": "/shared", "readOnly": true}],
        "tmpfs": [{"target": "/scratch", "sizeBytes": 1 << 20}],
        "networks": [network.name(), "bridge"], "extraHosts": {"db.internal": "10.9.8.7", "me": "host-gateway"},
        "labels": {"team": "web", "empty": ""}, "capAdd": ["NET_ADMIN", "CHOWN"], "capDrop": ["ALL"],
        "init": false, "readOnlyRoot": true, "log": {"driver": "json-file", "options": {"max-size": "1m"}},
        "stopTimeoutSeconds": 7,
    });
    let application = installation.register(json!({ "container": container })).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());

    let seen = inspect(&installation, &application).await;
    let config = seen.config.unwrap();
    assert_eq!((config.entrypoint.unwrap(), config.cmd.unwrap()), (vec!["/app".to_owned()], vec!["serve".to_owned()]));
    assert_eq!((config.user.as_deref(), config.working_dir.as_deref()), (Some("1000:1000"), Some("/work")));
    assert_eq!((config.hostname.as_deref(), config.stop_timeout), (Some("web-1"), Some(7)));
    let labels = config.labels.unwrap();
    assert_eq!((labels["team"].as_str(), labels["empty"].as_str()), ("web", ""));
    assert_eq!(labels["tidegate.application"], application.id.to_string());
    let host = seen.host_config.unwrap();
    let restart = host.restart_policy.unwrap();
    assert_eq!((restart.name, restart.maximum_retry_count), (Some(RestartPolicyNameEnum::ON_FAILURE), Some(4)));
    assert_eq!((host.memory, host.nano_cpus, host.pids_limit), (Some(64 << 20), Some(500_000_000), Some(50)));
    assert_eq!((host.shm_size, host.init, host.readonly_rootfs), (Some(1 << 20), Some(false), Some(true)));
    let limit = host.ulimits.unwrap().remove(0);
    assert_eq!((limit.name.as_deref(), limit.soft, limit.hard), (Some("nofile"), Some(1024), Some(2048)));
    assert_eq!(
        (host.cap_add.unwrap(), host.cap_drop.unwrap()),
        (vec!["NET_ADMIN".to_owned(), "CHOWN".to_owned()], vec!["ALL".to_owned()])
    );
    let log = host.log_config.unwrap();
    let options = HashMap::from([("max-size", "1m"), ("max-file", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())));
    assert_eq!((log.typ.as_deref(), log.config), (Some("json-file"), Some(options)));
    let networks = seen.network_settings.unwrap().networks.unwrap();
    assert_eq!(networks.len(), 2, "{networks:?}");
    assert!(networks[network.name()].aliases.as_ref().unwrap().contains(&application.container), "{networks:?}");

    // What Docker does with them is seen from inside.
    let ask = async |path: &str| installation.visit(&application, path).await.unwrap();
    assert_eq!(ask("/read/etc/hostname").await, "web-1\n");
    assert!(ask("/read/etc/hosts").await.contains("10.9.8.7\tdb.internal"));
    assert_eq!(ask("/read/shared/given").await, "by the host");
    assert!(ask("/write/shared/x").await.contains("Read-only"));
    assert!(ask("/write/x").await.contains("Read-only"));
    assert_eq!(ask("/write/scratch/x").await, "written\n");
    assert_eq!(ask("/read/scratch/x").await, "v1");
    let limits = ask("/read/proc/self/limits").await;
    let files: Vec<_> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3..5], ["1024", "2048"]);
}

#[tokio::test]
async fn a_version_that_eats_too_much_is_killed_at_its_limit_and_the_old_one_goes_on() {
    let installation = Installation::start().await;
    let application = installation
        .register(json!({
            "container": {"memoryBytes": 32 << 20},
            "healthCheck": {"type": "http", "path": "/healthz", "port": 8080, "intervalMs": 100, "startPeriodMs": 8_000},
        }))
        .await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    // Else it would be found healthy before it has eaten enough.
    set(&installation, &application, "HEALTHY_AFTER_MS", "60000").await;
    let ended = installation.release(&application, "v2", Mode::Hungry).await;
    let error = &ended["targets"][0]["error"];
    assert_eq!((&ended["status"], &error["code"]), (&json!("rolled_back"), &json!("exited")), "{ended}");
    assert_eq!(error["oomKilled"], true, "{error}");
    assert!(error["message"].as_str().unwrap().contains("memory limit of 32 MiB"), "{error}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
}

#[tokio::test]
async fn what_an_application_has_written_outlives_its_container() {
    let volumes = Volumes::named(&["data"]);
    let mut unnamed = Volumes::named(&[]);
    let installation = Installation::start().await;
    let volume = json!({"source": volumes.name("data"), "target": "/named"});
    let application = installation.register(json!({"container": {"volumes": [volume]}})).await;
    let image = ["VOLUME /unnamed"];
    let ended = release_with(&installation, &application, "v1", Mode::Ok, &image).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    for path in ["/write/named/x", "/write/unnamed/x"] {
        assert_eq!(installation.visit(&application, path).await.unwrap(), "written\n");
    }
    let old = unnamed.take_over(&inspect(&installation, &application).await);
    let ended = release_with(&installation, &application, "v2", Mode::Ok, &image).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let new = unnamed.take_over(&inspect(&installation, &application).await);
    assert_eq!(installation.visit(&application, "/read/named/x").await.unwrap(), "v1");
    // A new container has a new unnamed volume; the old one is nobody's any more, but it is there.
    assert_ne!(old, new);
    eventually("the old container is gone", async || {
        (installation.containers().await == [application.container.clone()]).then_some(())
    })
    .await;
    installation.docker.inspect_volume(&old).await.unwrap();

    // One that never worked leaves no volume behind.
    let target = format!("/{}", application.container);
    let mounted = scratch::next_mount(&installation.docker, &target);
    let ended = release_with(&installation, &application, "v3", Mode::Broken, &[&format!("VOLUME {target}")]).await;
    assert_eq!(ended["status"], "rolled_back", "{ended}");
    let volume = tokio::time::timeout(Duration::from_secs(20), mounted).await.expect("it was started").unwrap();
    let left = installation.docker.inspect_volume(&volume).await;
    assert!(left.is_err(), "{left:?}");
}

#[tokio::test]
async fn what_docker_does_not_have_is_told_before_the_old_version_stops() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let before = inspect(&installation, &application).await;
    installation.push(&application, "v2", Mode::Ok).await;
    for (container, names) in [
        (json!({"networks": ["bridge", "not-there"]}), "network not-there not found"),
        (json!({"log": {"driver": "journald", "options": {"not-there": "1"}}}), "not-there"),
        (json!({"cpus": 1_000}), "CPU"),
    ] {
        change(&installation, &application, &json!({ "container": container })).await;
        let id = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].clone();
        let ended = installation.ended(&application, id.as_str().unwrap()).await;
        let error = &ended["error"];
        assert_eq!((&ended["status"], &error["code"]), (&json!("failed"), &json!("start-failed")), "{ended}");
        assert!(error["message"].as_str().unwrap().contains(names), "{error}");
        let after = inspect(&installation, &application).await;
        let started = |seen: &ContainerInspectResponse| seen.state.clone().unwrap().started_at;
        assert_eq!((after.id.as_ref(), started(&after)), (before.id.as_ref(), started(&before)), "{ended}");
    }
}

#[tokio::test]
async fn every_fault_of_a_container_is_told_at_once() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let application = installation.register(json!({})).await;
    let path = format!("applications/{}", application.id);
    let shown = installation.get(&path).await.expect(200);
    let refused = async |changes: Value, expect: &[(&str, &str)]| {
        let mut body = shown.clone();
        for (field, value) in changes.as_object().unwrap() {
            body[field] = value.clone();
        }
        let answer = installation.put(&path, &body).await;
        let mut faults = answer.faults();
        faults.sort();
        let mut expect: Vec<_> = expect.iter().map(|(f, c)| ((*f).to_owned(), (*c).to_owned())).collect();
        expect.sort();
        assert_eq!(faults, expect, "{}", answer.text);
    };
    let container = json!({
        "restartMaxRetries": 3, "hostname": "-web", "memoryBytes": 1_000, "shmSizeBytes": 0,
        "ulimits": [{"name": "files", "soft": 1}, {"name": "nofile", "soft": 5, "hard": 4}, {"name": "core", "soft": -2}],
        "volumes": [{"source": "data", "target": "/data"}, {"source": "x", "target": "/"}],
        "tmpfs": [{"target": "/data/"}, {"target": "/proc/x", "sizeBytes": 1}],
        "networks": ["container:db", "shop", "shop", "host"], "extraHosts": {"a b": "10.0.0.1", "db": "nowhere"},
        "labels": {"tidegate.epoch": "1"}, "capAdd": ["NET_ADMINISTRATOR", "CHOWN"], "capDrop": ["CAP_CHOWN"],
        "privileged": "yes", "devices": [],
        "log": {"driver": "json-file", "options": {"max-size": "big", "max-file": "1", "compress": "true"}},
    });
    refused(
        json!({"container": container, "healthCheck": {"type": "none", "startPeriodMs": 90_000, "deadlineMs": 60_000}}),
        &[
            ("container.restartMaxRetries", "either-or"),
            ("container.hostname", "format-name"),
            ("container.memoryBytes", "out-of-range"),
            ("container.shmSizeBytes", "out-of-range"),
            ("container.ulimits[0].name", "unknown-value"),
            ("container.ulimits[1].soft", "out-of-range"),
            ("container.ulimits[2].soft", "out-of-range"),
            ("container.volumes[1].source", "format-name"),
            ("container.volumes[1].target", "format-path"),
            ("container.tmpfs[0].target", "duplicate"),
            ("container.tmpfs[1].target", "format-path"),
            ("container.tmpfs[1].sizeBytes", "out-of-range"),
            ("container.networks[0]", "format-name"),
            ("container.networks[1]", "duplicate"),
            ("container.networks[2]", "either-or"),
            ("container.extraHosts.a b", "format-name"),
            ("container.extraHosts.db", "format-ip"),
            ("container.labels", "reserved"),
            ("container.capAdd[0]", "unknown-value"),
            ("container.capAdd[0]", "either-or"),
            ("container.privileged", "wrong-type"),
            ("container.devices", "unknown-field"),
            ("container.log.options.max-size", "format-size"),
            ("container.log.options.max-file", "either-or"),
            ("healthCheck.deadlineMs", "either-or"),
            // The host network that is named has no ports to publish.
            ("ports", "either-or"),
        ],
    )
    .await;
    // Alone what each of them is.
    let http = json!({"type": "http", "port": 80});
    let on = |network: &str| json!({"container": {"networks": [network]}, "healthCheck": http});
    refused(on("host"), &[("ports", "either-or")]).await;
    refused(on("none"), &[("ports", "either-or"), ("healthCheck.type", "either-or")]).await;
    let caps = json!({"privileged": true, "capAdd": ["SYS_TIME"], "capDrop": ["ALL"]});
    let both = [("container.capAdd[0]", "either-or"), ("container.capDrop[0]", "either-or")];
    refused(json!({ "container": caps }), &both).await;
    let shm = json!({"shmSizeBytes": 1 << 20, "tmpfs": [{"target": "/dev/shm"}]});
    refused(json!({ "container": shm }), &[("container.shmSizeBytes", "either-or")]).await;
    let token = json!({"log": {"driver": "splunk", "options": {"splunk-token": "marked"}}});
    refused(json!({ "container": token }), &[("container.log.options.splunk-token", "plaintext-secret")]).await;
    assert_eq!(installation.get(&path).await.expect(200), shown);
}
