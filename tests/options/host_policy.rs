//! What the host's own file allows.

use bollard::query_parameters::InspectNetworkOptions;
use reqwest::Method;
use serde_json::{Value, json};
use tidegate_local::{
    demo_image::{self, Mode},
    stack,
};

use super::{change, inspect, set};
use crate::support::{Application, Installation, Setup, free_port, own_worker::OwnWorker};

/// All that a host refuses unless its owner says otherwise.
fn dangerous() -> Value {
    json!({
        "capAdd": ["CHOWN", "SYS_PTRACE", "NET_ADMIN"],
        "networks": ["host"],
        "volumes": [{"source": "/var/run/docker.sock", "target": "/docker.sock"}, {"source": "/etc", "target": "/host"}],
    })
}

#[tokio::test]
async fn what_the_host_does_not_allow_is_refused_before_anything_is_pulled() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let changes = json!({"container": dangerous(), "ports": [], "healthCheck": {"type": "none"}});
    change(&installation, &application, &changes).await;
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    let error = &ended["error"];
    assert_eq!((&ended["status"], &error["code"]), (&json!("failed"), &json!("forbidden")), "{ended}");
    let (message, suggestion) = (error["message"].as_str().unwrap(), error["suggestion"].as_str().unwrap());
    for (field, key) in [
        ("container.capAdd[1]", "allowed_capabilities = [\"SYS_PTRACE\"]"),
        ("container.capAdd[2]", "allowed_capabilities = [\"NET_ADMIN\"]"),
        ("container.networks[0]", "allow_host_network = true"),
        ("container.volumes[0].source", "allow_docker_socket = true"),
        ("container.volumes[1].source", "allowed_bind_mounts = [\"/etc\"]"),
    ] {
        assert!(message.contains(field) && suggestion.contains(key), "{field}, {key}: {error}");
    }
    assert!(!message.contains("capAdd[0]"), "Docker gives that one to everybody: {error}");
    let image = installation.docker.inspect_image(&format!("{}:v2", application.image)).await;
    assert!(image.is_err(), "it was pulled: {image:?}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");

    change(&installation, &application, &json!({"container": {"privileged": true}})).await;
    let ended = installation.release(&application, "v3", Mode::Ok).await;
    assert_eq!(ended["error"]["code"], "forbidden", "{ended}");
    assert!(ended["error"]["suggestion"].as_str().unwrap().contains("allow_privileged = true"), "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
}

#[tokio::test]
async fn what_the_host_allows_is_done() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let lines = "allow_privileged = true\nallow_host_network = true\nallow_docker_socket = true\n\
        allowed_capabilities = [\"SYS_PTRACE\", \"CAP_NET_ADMIN\"]\nallowed_bind_mounts = [\"/etc\"]\n";
    let worker = OwnWorker::of_host(&installation, &stack::host(), &installation.prefix, lines);
    let _process = worker.start();
    let port = free_port();
    let check = json!({"type": "http", "path": "/healthz", "port": port, "intervalMs": 100});
    let application = installation.register(json!({"container": dangerous(), "ports": [], "healthCheck": check})).await;
    // It listens on the host's own port.
    set(&installation, &application, "PORT", &port.to_string()).await;
    let application = Application { port, ..application };
    for version in ["v1", "v2"] {
        let ended = installation.release(&application, version, Mode::Ok).await;
        assert_eq!(ended["status"], "succeeded", "{ended}\n{}", worker.log());
        assert_eq!(installation.visit(&application, "/").await.unwrap(), format!("version {version}\n"));
    }
    let seen = inspect(&installation, &application).await;
    let host = seen.host_config.unwrap();
    assert_eq!((host.network_mode.as_deref(), host.privileged), (Some("host"), Some(false)));
    assert_eq!(host.cap_add.unwrap(), ["CHOWN", "SYS_PTRACE", "NET_ADMIN"]);
    let mut mounts: Vec<_> = seen.mounts.unwrap().into_iter().map(|mount| mount.destination.unwrap()).collect();
    mounts.sort();
    assert_eq!(mounts, ["/docker.sock", "/host"]);

    // The old version gives the port up, and comes back.
    let ended = installation.release(&application, "v3", Mode::Unhealthy).await;
    assert_eq!(ended["status"], "rolled_back", "{ended}\n{}", worker.log());
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v2\n");

    change(&installation, &application, &json!({"container": {"privileged": true, "networks": ["host"]}})).await;
    let ended = installation.release(&application, "v4", Mode::Ok).await;
    if ended["status"] == "succeeded" {
        let host = inspect(&installation, &application).await.host_config.unwrap();
        assert_eq!(host.privileged, Some(true));
    } else {
        // An engine that does not have every capability itself cannot give them; the host did not refuse.
        let error = &ended["error"];
        assert!(error["message"].as_str().unwrap().contains("unable to apply caps"), "{ended}\n{}", worker.log());
        assert!(error["suggestion"].as_str().unwrap().contains("capAdd"), "{error}");
        assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v2\n");
    }
}

#[tokio::test]
async fn on_the_hosts_network_a_taken_port_is_told_before_it_is_taken_for_the_application() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let lines = "allow_host_network = true\n";
    let worker = OwnWorker::of_host(&installation, &stack::host(), &installation.prefix, lines);
    let _process = worker.start();
    // Another program that would pass for the application: Tidegate itself.
    let port: u16 = installation.stack.url().rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    let healthy = installation.call(Method::GET, "/healthz", None, &[], None).await;
    assert!(healthy.status.is_success());
    let check = json!({"type": "http", "path": "/healthz", "port": port});
    let container = json!({"networks": ["host"]});
    let application = installation.register(json!({"container": container, "ports": [], "healthCheck": check})).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("port-taken")), "{ended}");
    assert_eq!(installation.containers().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_hosts_network_is_known_by_its_id_before_anything_is_pulled() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    assert_eq!(installation.release(&application, "v1", Mode::Ok).await["status"], "succeeded");
    let since = inspect(&installation, &application).await.state.unwrap().started_at;
    let id = installation.docker.inspect_network("host", None::<InspectNetworkOptions>).await.unwrap().id.unwrap();
    for id in [&id[..12], &id] {
        change(&installation, &application, &json!({"container": {"networks": [id]}})).await;
        let ended = installation.release(&application, "v2", Mode::Ok).await;
        assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("forbidden")), "{ended}");
        assert!(ended["error"]["message"].as_str().unwrap().contains(id), "{ended}");
    }
    let now = inspect(&installation, &application).await.state.unwrap().started_at;
    assert_eq!(now, since, "what runs was not touched");
}

#[tokio::test]
async fn an_address_that_the_host_does_not_have_is_told_while_the_old_version_serves() {
    let installation = Installation::start().await;
    let application = installation.register(json!({})).await;
    assert_eq!(installation.release(&application, "v1", Mode::Ok).await["status"], "succeeded");
    let since = inspect(&installation, &application).await.state.unwrap().started_at;
    // Kept for documents (RFC 5737), so that no machine has it.
    let ports = json!([{"host": free_port(), "container": demo_image::PORT, "hostIp": "203.0.113.9"}]);
    change(&installation, &application, &json!({"ports": ports})).await;
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("failed"), &json!("start-failed")), "{ended}");
    assert!(ended["error"]["message"].as_str().unwrap().contains("no address 203.0.113.9"), "{ended}");
    let now = inspect(&installation, &application).await.state.unwrap().started_at;
    assert_eq!(now, since, "what runs was not touched");
}
