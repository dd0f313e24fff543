//! What hosts say of themselves, what is not as deployments left it, and hosts that are being drained. On real Docker.

use std::{collections::BTreeMap, time::Duration};

use bollard::{
    Docker,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, StartContainerOptions, StopContainerOptions,
    },
};
use serde_json::{Value, json};
use tidegate_aws::{clock, hosts::Heartbeat};
use tidegate_domain::id::{ApplicationId, HostName};
use tidegate_local::{
    demo_image::{DemoImage, Mode},
    stack,
};
use tokio::net::UnixListener;

use crate::support::{Application, Installation, Setup, eventually, own_worker::OwnWorker};

async fn host(installation: &Installation) -> Value {
    installation.get("hosts/local").await.expect(200)
}

/// How the application stands on the host that everything runs on.
async fn standing(installation: &Installation, application: &Application) -> Value {
    let shown = installation.get(&format!("applications/{}", application.id)).await.expect(200);
    let hosts = shown["status"]["hosts"].as_array().unwrap();
    hosts.iter().find(|status| status["host"] == "local").cloned().unwrap_or(Value::Null)
}

async fn running(installation: &Installation) -> Application {
    let application = installation.register(json!({})).await;
    released(installation, &application, "v1", Mode::Ok).await;
    application
}

async fn released(installation: &Installation, application: &Application, version: &str, mode: Mode) {
    let ended = installation.release(application, version, mode).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
}

/// A heartbeat from after now. It comes at once when some job has ended, and else within half a minute.
async fn told_again(installation: &Installation, poked: &Application, version: &str) {
    let now = clock::now();
    released(installation, poked, version, Mode::Ok).await;
    eventually("a heartbeat", async || {
        let at = host(installation).await["lastSeenAt"].as_str()?.parse::<jiff::Timestamp>().unwrap();
        (at > now).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_host_tells_of_itself_and_of_its_containers() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    // With a check of the engine's own.
    let repository = application.image.split_once('/').unwrap().1;
    let (registry, login) = (installation.registry.addr(), installation.registry.login());
    DemoImage::new("v1", Mode::Ok).push(&installation.docker, registry, repository, &login).await.unwrap();
    let id = installation.deploy(&application, "v1").await.expect(202)["deploymentId"].clone();
    let ended = installation.ended(&application, id.as_str().unwrap()).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    running(&installation).await;

    let said = eventually("both containers", async || {
        let said = host(&installation).await;
        (said["containers"].as_array().is_some_and(|containers| containers.len() == 2)).then_some(said)
    })
    .await;
    assert_eq!((&said["online"], &said["drain"], &said["openAssignments"]), (&json!(true), &json!(false), &json!(0)));
    assert_eq!((&said["orphans"], &said["drift"], &said["containersLeftOut"]), (&json!([]), &json!([]), &json!(0)));
    for field in ["workerVersion", "engineVersion", "engineApiVersion", "lastSeenAt"] {
        assert!(!said[field].as_str().unwrap().is_empty(), "{said}");
    }
    let facts = &said["facts"];
    for field in ["os", "kernel", "architecture"] {
        assert!(!facts[field].as_str().unwrap().is_empty(), "{facts}");
    }
    assert!(facts["cpus"].as_u64().unwrap() > 0 && facts["memoryBytes"].as_u64().unwrap() > 100_000_000, "{facts}");
    let (free, total) = (facts["diskFreeBytes"].as_u64().unwrap(), facts["diskTotalBytes"].as_u64().unwrap());
    assert!(0 < free && free <= total, "{facts}");

    let containers = said["containers"].as_array().unwrap();
    let told = containers.iter().find(|container| container["applicationId"] == application.id).unwrap();
    assert_eq!((&told["name"], &told["place"]), (&json!(application.container), &json!("current")), "{told}");
    assert_eq!((&told["deploymentId"], &told["digest"]), (&id, &ended["digest"]), "{told}");
    assert_eq!((&told["state"], &told["restarts"], &told["exitCode"]), (&json!("running"), &json!(0), &Value::Null));
    assert!(told["startedAt"].is_string(), "{told}");
    assert_eq!(told["health"], "healthy", "{told}");
    assert!(containers.iter().any(|container| container["health"].is_null()), "{containers:?}");

    let stands = standing(&installation, &application).await;
    let expected = json!({"host": "local", "state": "running", "version": "v1", "digest": ended["digest"],
        "health": "healthy", "drift": null, "restarts": 0, "online": true, "lastSeenAt": stands["lastSeenAt"]});
    assert_eq!(stands, expected);
    let listed = installation.get("applications").await.expect(200);
    assert!(listed["data"].as_array().unwrap().iter().all(|a| a["status"]["hosts"][0]["online"] == true), "{listed}");
    assert_eq!(installation.get("hosts").await.expect(200)["data"][0]["containers"].as_array().unwrap().len(), 2);
    // What was read can be sent back.
    installation.put("hosts/local", &said).await.expect(200);
}

#[tokio::test]
async fn what_is_changed_by_hand_shows_as_drift_until_it_is_deployed_again() {
    let installation = Installation::start().await;
    let docker = &installation.docker;
    let (crashing, poked) = (installation.register(json!({})).await, running(&installation).await);
    released(&installation, &crashing, "v1", Mode::CrashLater).await;
    let [left, vanished, stopped, renamed, paused, changed] = [(); 6].map(|()| running(&installation));
    let (left, vanished, stopped) = tokio::join!(left, vanished, stopped);
    let (renamed, paused, changed) = tokio::join!(renamed, paused, changed);
    let old = like(docker, &changed.container).await;
    released(&installation, &changed, "v2", Mode::Ok).await;

    remove(docker, &vanished.container).await;
    docker.stop_container(&stopped.container, None::<StopContainerOptions>).await.unwrap();
    let elsewhere = RenameContainerOptionsBuilder::default().name(&format!("{}-old", renamed.container)).build();
    docker.rename_container(&renamed.container, elsewhere).await.unwrap();
    docker.pause_container(&paused.container).await.unwrap();
    remove(docker, &changed.container).await;
    run(docker, &changed.container, old.clone()).await;
    // As another installation of the same table would have left it: its application does not exist.
    let mut stray = old;
    stray.labels.as_mut().unwrap().insert("tidegate.application".to_owned(), "999999".to_owned());
    let stray_name = format!("{}stray", installation.prefix);
    run(docker, &stray_name, stray).await;
    eventually("the third restart", async || {
        let inspected = docker.inspect_container(&crashing.container, None::<InspectContainerOptions>).await.unwrap();
        (inspected.restart_count >= Some(3)).then_some(())
    })
    .await;
    told_again(&installation, &poked, "v2").await;

    for (application, state, drift) in [
        (&left, "running", json!(null)),
        (&vanished, "vanished", json!("vanished")),
        (&stopped, "stopped", json!("stopped")),
        (&renamed, "running", json!("renamed")),
        (&paused, "paused", json!("paused")),
        (&changed, "running", json!("changed")),
    ] {
        let stands = standing(&installation, application).await;
        assert_eq!((&stands["state"], &stands["drift"]), (&json!(state), &drift), "{stands}");
    }
    let stands = standing(&installation, &crashing).await;
    assert_eq!(stands["drift"], "restarting", "{stands}");
    assert!(["running", "restarting"].contains(&stands["state"].as_str().unwrap()), "{stands}");
    assert!(stands["restarts"].as_u64().unwrap() >= 3, "{stands}");
    let said = host(&installation).await;
    assert_eq!(said["orphans"], json!([stray_name]));
    let drifting = said["drift"].as_array().unwrap().iter();
    let drifting: BTreeMap<_, _> =
        drifting.map(|d| (d["applicationId"].as_u64().unwrap(), d["drift"].as_str().unwrap())).collect();
    let expected = [
        (&vanished, "vanished"),
        (&stopped, "stopped"),
        (&renamed, "renamed"),
        (&paused, "paused"),
        (&changed, "changed"),
        (&crashing, "restarting"),
    ];
    assert_eq!(drifting, expected.map(|(application, drift)| (application.id, drift)).into());

    // The last heartbeat is from before the deployment, and says nothing of what it left.
    for application in [&vanished, &stopped] {
        released(&installation, application, "v2", Mode::Ok).await;
        let stands = standing(&installation, application).await;
        assert_eq!((&stands["state"], &stands["drift"]), (&json!("running"), &Value::Null), "{stands}");
    }
}

/// A container as this one was created, to be made again.
async fn like(docker: &Docker, name: &str) -> ContainerCreateBody {
    let inspected = docker.inspect_container(name, None::<InspectContainerOptions>).await.unwrap();
    let config = inspected.config.unwrap();
    ContainerCreateBody { image: inspected.image, labels: config.labels, env: config.env, ..Default::default() }
}

async fn run(docker: &Docker, name: &str, body: ContainerCreateBody) {
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    docker.create_container(Some(options), body).await.unwrap();
    docker.start_container(name, None::<StartContainerOptions>).await.unwrap();
}

async fn remove(docker: &Docker, name: &str) {
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(name, Some(options)).await.unwrap();
}

#[tokio::test]
async fn a_container_on_a_host_that_its_application_has_left_is_an_orphan() {
    let installation = Installation::start().await;
    let application = running(&installation).await;
    installation.put("hosts/other", &json!({})).await.expect(201);
    let path = format!("applications/{}", application.id);
    installation.put(&path, &json!({"hosts": {"names": ["other"]}})).await.expect(200);
    eventually("the orphan", async || {
        (host(&installation).await["orphans"] == json!([application.container])).then_some(())
    })
    .await;
    let stands = standing(&installation, &application).await;
    assert_eq!((&stands["state"], &stands["drift"]), (&json!("running"), &json!("orphan")), "{stands}");
    // Chosen again, by a label.
    installation.put("hosts/local", &json!({"labels": {"role": "web"}})).await.expect(200);
    installation.put(&path, &json!({"hosts": {"labels": {"role": "web"}}})).await.expect(200);
    assert_eq!(host(&installation).await["orphans"], json!([]));
    assert_eq!(standing(&installation, &application).await["drift"], Value::Null);
}

#[tokio::test]
async fn a_host_whose_worker_is_gone_is_offline_and_nothing_is_known_of_it() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let worker = OwnWorker::of(&installation);
    let process = worker.start();
    let application = running(&installation).await;
    let stands = eventually("the container", async || {
        Some(standing(&installation, &application).await).filter(|stands| stands["restarts"] == 0)
    })
    .await;
    assert_eq!((&stands["online"], &stands["state"]), (&json!(true), &json!("running")), "{stands}");

    process.kill();
    let (tenant, name) = (stack::tenant(), stack::host());
    let mut said = installation.stack.store().heartbeats(&tenant, std::slice::from_ref(&name)).await.unwrap();
    let last: Heartbeat = said.remove(&name).unwrap();
    let side = installation.side_of(&name);
    let said_ago = async |seconds: u64| {
        let at = clock::now() - Duration::from_secs(seconds);
        side.beat(&Heartbeat { at, ..last.clone() }).await.unwrap();
        (host(&installation).await, standing(&installation, &application).await)
    };
    let (shown, stands) = said_ago(80).await;
    assert_eq!((&shown["online"], &stands["online"]), (&json!(true), &json!(true)), "{shown}");
    let (shown, stands) = said_ago(91).await;
    assert_eq!((&shown["online"], &stands["online"]), (&json!(false), &json!(false)), "{shown}");
    assert_eq!((&stands["state"], &stands["drift"]), (&json!("unknown"), &Value::Null), "{stands}");
    assert_eq!(stands["lastSeenAt"], shown["lastSeenAt"]);
    assert_eq!(shown["containers"].as_array().unwrap().len(), 1, "what was last seen: {shown}");

    // What it saw before the deployment ended says nothing of what the deployment left.
    let state = installation.stack.store().application_state(&tenant, ApplicationId(application.id)).await.unwrap();
    let left_at = state.hosts[&name].at;
    for (at, state, drift) in
        [(left_at - Duration::from_nanos(1), "running", json!(null)), (left_at, "vanished", json!("vanished"))]
    {
        side.beat(&Heartbeat { at, containers: Some(Vec::new()), ..last.clone() }).await.unwrap();
        let stands = standing(&installation, &application).await;
        assert_eq!((&stands["state"], &stands["drift"]), (&json!(state), &drift), "{stands}");
    }

    let _again = worker.start();
    eventually("it is back", async || {
        let stands = standing(&installation, &application).await;
        (stands["online"] == true && stands["state"] == "running" && stands["restarts"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_host_without_docker_is_still_there() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let refusing = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let line = format!("docker_host = \"unix://{}\"\n", socket.display());
    let worker = OwnWorker::of_host(&installation, &stack::host(), &installation.prefix, &line);
    let _process = worker.start();
    let said =
        eventually("a heartbeat", async || Some(host(&installation).await).filter(|said| said["online"] == true)).await;
    for field in ["engineVersion", "engineApiVersion", "containers", "facts"] {
        assert_eq!(said[field], Value::Null, "{said}");
    }
    assert!(said["workerVersion"].is_string(), "{said}");
    refusing.abort();
}

#[tokio::test]
async fn one_hosts_heartbeat_that_cannot_be_read_hides_no_other() {
    let installation = Installation::start().await;
    let application = running(&installation).await;
    let path = format!("applications/{}", application.id);
    installation.put("hosts/other", &json!({})).await.expect(201);
    installation.put(&path, &json!({"hosts": {"names": ["local", "other"]}})).await.expect(200);
    let other = HostName::parse("other").unwrap();
    let key = tidegate_aws::keys::heartbeat(&stack::tenant(), &other);
    let dynamodb = installation.aws().clients().dynamodb;
    let text = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
    let put = dynamodb.put_item().table_name(tidegate_local::provision::TABLE);
    put.item("pk", text(&key.pk)).item("sk", text(&key.sk)).item("at", text("yesterday")).send().await.unwrap();

    let listed = installation.get("hosts").await.expect(200);
    let online =
        listed["data"].as_array().unwrap().iter().map(|host| (host["name"].as_str().unwrap(), &host["online"]));
    assert_eq!(online.collect::<Vec<_>>(), [("local", &json!(true)), ("other", &json!(false))]);
    assert_eq!(standing(&installation, &application).await["online"], true);
}

#[tokio::test]
async fn a_host_that_is_being_drained_keeps_what_runs_and_gets_nothing_new() {
    let installation = Installation::start().await;
    let application = running(&installation).await;
    installation.push(&application, "v2", Mode::Ok).await;
    let drained = installation.put("hosts/local", &json!({"labels": {"role": "web"}, "drain": true})).await.expect(200);
    assert_eq!((&drained["drain"], &drained["labels"]), (&json!(true), &json!({"role": "web"})));

    let refused = installation.deploy(&application, "v2").await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(refused.faults(), [("hosts".to_owned(), "no-host".to_owned())]);
    assert!(refused.text.contains("being drained: local"), "{}", refused.text);
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
    let stands = standing(&installation, &application).await;
    assert_eq!((&stands["state"], &stands["drift"]), (&json!("running"), &Value::Null), "{stands}");

    // What is left out keeps what it has.
    let kept = installation.put("hosts/local", &json!({"labels": {}})).await.expect(200);
    assert_eq!(kept["drain"], true);
    installation.put("hosts/local", &json!({"drain": false})).await.expect(200);
    released(&installation, &application, "v2", Mode::Ok).await;
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v2\n");
}

#[tokio::test]
async fn a_deployment_leaves_out_the_hosts_that_are_being_drained() {
    let installation = Installation::start().await;
    installation.put("hosts/other", &json!({"drain": true})).await.expect(201);
    let application = installation.register(json!({"hosts": {"names": ["other", "local"]}})).await;
    installation.push(&application, "v1", Mode::Ok).await;
    let id = installation.deploy(&application, "v1").await.expect(202)["deploymentId"].clone();
    let ended = installation.ended(&application, id.as_str().unwrap()).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let mut hosts = ended["targets"].as_array().unwrap().iter().filter(|target| target["status"] != "skipped");
    assert_eq!((hosts.next().map(|target| &target["host"]), hosts.next()), (Some(&json!("local")), None), "{ended}");
}
