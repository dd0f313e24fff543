//! Several hosts: waves, what happens when one of them fails or stays away, and draining.

use std::path::Path;

use jiff::SignedDuration;
use serde_json::{Value, json};
use tidegate_aws::clock;
use tidegate_local::demo_image::Mode;

use crate::support::{Application, Installation, Setup, containers, eventually, fleet::Member};

fn swept_by_hand() -> Setup<'static> {
    Setup { no_worker: true, no_sweeps: true, ..Setup::default() }
}

/// Without published ports: the hosts share one machine.
async fn register(installation: &Installation, hosts: &[&str], changes: Value) -> Application {
    let mut all = json!({"ports": [], "hosts": {"names": hosts}});
    all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    installation.register(all).await
}

async fn change_hosts(installation: &Installation, application: &Application, hosts: Value) {
    let path = format!("applications/{}", application.id);
    let mut registered = installation.get(&path).await.expect(200);
    registered["hosts"] = hosts;
    installation.put(&path, &registered).await.expect(200);
}

/// What lets a host mount the folder, and an application that wants to: one that only some hosts run.
fn mount(folder: &Path) -> (String, Value) {
    let source = folder.to_str().unwrap();
    let container = json!({"volumes": [{"source": source, "target": "/data"}]});
    (format!("allowed_bind_mounts = [\"{source}\"]\n"), json!({"container": container}))
}

/// Event and host of the timeline.
fn timeline(deployment: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = deployment["timeline"].as_array().unwrap();
    entries.iter().map(|entry| (text(&entry["event"]), text(&entry["detail"]["host"]))).collect()
}

fn statuses(deployment: &Value) -> Vec<(&str, &str)> {
    let targets = deployment["targets"].as_array().unwrap();
    targets.iter().map(|t| (t["host"].as_str().unwrap(), t["status"].as_str().unwrap())).collect()
}

/// The version that a host's container is of, by its image's digest.
async fn digest_on(installation: &Installation, member: &Member, application: &Application) -> Option<String> {
    let name = application.container.strip_prefix(&installation.prefix).unwrap();
    let found = installation.docker.inspect_container(&format!("{}{name}", member.prefix), None).await.ok()?;
    found.config?.labels?.get("tidegate.digest").cloned()
}

#[tokio::test]
async fn hosts_that_carry_the_labels_are_switched_in_waves() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let mut members = Vec::new();
    for name in ["web-1", "web-2", "web-3"] {
        let member = Member::join(&installation, name, "").await;
        installation.put(&format!("hosts/{name}"), &json!({"labels": {"role": "web"}})).await.expect(200);
        member.start();
        members.push(member);
    }
    let application =
        register(&installation, &[], json!({"hosts": {"labels": {"role": "web"}}, "rollout": {"maxParallel": 2}}))
            .await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let events = timeline(&ended);
    let when = |event: &str, host: &str| events.iter().position(|(e, h)| e == event && h == host).unwrap();
    // The first finds out what the tag means; the others go together.
    let first = when("host-succeeded", "web-1");
    assert!(first < when("assigned", "web-2") && first < when("assigned", "web-3"), "{events:?}");
    let together = when("assigned", "web-2").max(when("assigned", "web-3"));
    assert!(together < when("host-succeeded", "web-2") && together < when("host-succeeded", "web-3"), "{events:?}");
    for member in &members {
        assert_eq!(digest_on(&installation, member, &application).await.as_deref(), ended["digest"].as_str());
    }
}

#[tokio::test]
async fn hosts_that_were_switched_go_back_when_a_later_one_fails() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let (allowed, mounted) = mount(folder.path());
    let first = Member::join(&installation, "web-1", &allowed).await;
    let second = Member::join(&installation, "web-2", "").await;
    first.start();
    second.start();
    let application = register(&installation, &["web-1"], mounted).await;
    let v1 = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(v1["status"], "succeeded", "{v1}");
    change_hosts(&installation, &application, json!({"names": ["web-1", "web-2"]})).await;
    let v2 = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!((&v2["status"], &v2["error"]["code"]), (&json!("rolled_back"), &json!("forbidden")), "{v2}");
    assert_eq!(statuses(&v2), [("web-1", "rolled_back"), ("web-2", "failed")]);
    assert_eq!(digest_on(&installation, &first, &application).await.as_deref(), v1["digest"].as_str());
    let hosts =
        installation.get(&format!("applications/{}", application.id)).await.expect(200)["status"]["hosts"].clone();
    assert_eq!((&hosts[0]["host"], &hosts[0]["version"]), (&json!("web-1"), &json!("v1")), "{hosts}");

    // Where the application does not want that, they stay, and the record says so.
    let path = format!("applications/{}", application.id);
    let mut registered = installation.get(&path).await.expect(200);
    registered["rollout"]["rollbackOnFailure"] = json!(false);
    installation.put(&path, &registered).await.expect(200);
    let id = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    let again = installation.ended(&application, &id).await;
    assert_eq!((&again["status"], &again["running"]), (&json!("failed"), &json!("mixed")), "{again}");
    assert_eq!(statuses(&again), [("web-1", "succeeded"), ("web-2", "failed")]);
    assert_eq!(digest_on(&installation, &first, &application).await.as_deref(), again["digest"].as_str());
    // What a host goes back to need not be a release.
    registered["rollout"]["rollbackOnFailure"] = json!(true);
    registered["hosts"] = json!({"names": ["web-1", "web-2"]});
    registered.as_object_mut().unwrap().remove("revision");
    installation.put(&path, &registered).await.expect(200);
    let v3 = installation.release(&application, "v3", Mode::Ok).await;
    assert_eq!(
        (&v3["status"], statuses(&v3)),
        (&json!("rolled_back"), vec![("web-1", "rolled_back"), ("web-2", "failed")]),
        "{v3}"
    );
    assert_eq!(digest_on(&installation, &first, &application).await.as_deref(), again["digest"].as_str());
    // A rollback returns to what succeeded everywhere; the other host has nothing, and says why again.
    change_hosts(&installation, &application, json!({"names": ["web-1"]})).await;
    let back = installation.operate(&application, "rollback", &json!({})).await;
    assert_eq!((&back["status"], &back["version"]), (&json!("succeeded"), &json!("v1")), "{back}");
}

#[tokio::test]
async fn what_a_person_had_stopped_is_stopped_after_the_way_back() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let (allowed, mounted) = mount(folder.path());
    let first = Member::join(&installation, "web-1", &allowed).await;
    let second = Member::join(&installation, "web-2", "").await;
    first.start();
    second.start();
    let application = register(&installation, &["web-1"], mounted).await;
    let v1 = installation.release(&application, "v1", Mode::Ok).await;
    let stopped = installation.operate(&application, "stop", &json!({})).await;
    assert_eq!(stopped["status"], "succeeded", "{stopped}");
    change_hosts(&installation, &application, json!({"names": ["web-1", "web-2"]})).await;
    let v2 = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!((&v2["status"], statuses(&v2)[0]), (&json!("rolled_back"), ("web-1", "rolled_back")), "{v2}");
    assert_eq!(digest_on(&installation, &first, &application).await.as_deref(), v1["digest"].as_str());
    let name = application.container.strip_prefix(&installation.prefix).unwrap();
    let name = format!("{}{name}", first.prefix);
    let state = installation.docker.inspect_container(&name, None).await.unwrap().state.unwrap();
    assert_eq!((state.running, state.started_at.as_deref()), (Some(false), Some("0001-01-01T00:00:00Z")));
    let shown = installation.status_of(&application).await;
    assert_eq!(shown["state"], "stopped", "{shown}");
    // Nothing of the release is lost: it can be started.
    let started = installation.operate(&application, "start", &json!({})).await;
    assert_eq!(started["status"], "succeeded", "{started}");
}

#[tokio::test]
async fn a_first_rollout_that_fails_leaves_nothing_where_nothing_was() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let (allowed, mounted) = mount(folder.path());
    let first = Member::join(&installation, "web-1", &allowed).await;
    let second = Member::join(&installation, "web-2", "").await;
    first.start();
    second.start();
    let application = register(&installation, &["web-1", "web-2"], mounted).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(statuses(&ended), [("web-1", "rolled_back"), ("web-2", "failed")], "{ended}");
    assert_eq!(containers(&installation.docker, &installation.prefix).await.unwrap(), []);
}

#[tokio::test]
async fn a_host_that_stays_away_ends_as_unreachable_and_the_others_go_back() {
    let installation = Installation::start_with(swept_by_hand()).await;
    let first = Member::join(&installation, "web-1", "").await;
    first.start();
    let away = Member::join(&installation, "web-2", "").await;
    let application = register(&installation, &["web-1"], json!({})).await;
    let v1 = installation.release(&application, "v1", Mode::Ok).await;
    change_hosts(&installation, &application, json!({"names": ["web-1", "web-2"]})).await;
    installation.push(&application, "v2", Mode::Ok).await;
    let id = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    let waits = async || {
        let shown = installation.get(&format!("deployments/{id}")).await.expect(200);
        (statuses(&shown) == [("web-1", "succeeded"), ("web-2", "queued")]).then_some(())
    };
    eventually("the first host is done, and the second has its assignment", waits).await;
    let store = installation.stack.store();
    assert_eq!(store.sweep(clock::now() + SignedDuration::from_mins(4)).await.unwrap().unreachable, 0);
    assert_eq!(store.sweep(clock::now() + SignedDuration::from_mins(6)).await.unwrap().unreachable, 1);
    let ended = installation.ended(&application, &id).await;
    assert_eq!(statuses(&ended), [("web-1", "rolled_back"), ("web-2", "unreachable")], "{ended}");
    assert_eq!(ended["error"]["code"], "unreachable");
    assert!(ended["error"]["message"].as_str().unwrap().contains("web-2 was never heard of"), "{ended}");
    assert_eq!(digest_on(&installation, &first, &application).await.as_deref(), v1["digest"].as_str());
    // Back again, it finds nothing to do; the next deployment reaches it.
    away.start();
    let online =
        async || installation.get("hosts/web-2").await.expect(200)["online"].as_bool().filter(|online| *online);
    eventually("the second host is back", online).await;
    assert_eq!(digest_on(&installation, &away, &application).await, None);
    let id = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    assert_eq!(installation.ended(&application, &id).await["status"], "succeeded");
}

#[tokio::test]
async fn a_host_that_is_drained_gets_no_deployments_and_keeps_what_it_runs() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let first = Member::join(&installation, "web-1", "").await;
    let second = Member::join(&installation, "web-2", "").await;
    first.start();
    second.start();
    let application = register(&installation, &["web-1", "web-2"], json!({})).await;
    let v1 = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(v1["status"], "succeeded", "{v1}");
    installation.put("hosts/web-2", &json!({"drain": true})).await.expect(200);
    let v2 = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!((&v2["status"], statuses(&v2)), (&json!("succeeded"), vec![("web-1", "succeeded")]), "{v2}");
    assert!(timeline(&v2).contains(&("host-drained".to_owned(), "web-2".to_owned())), "{v2}");
    assert_eq!(digest_on(&installation, &second, &application).await.as_deref(), v1["digest"].as_str());
    // What a person asks for there by itself is done.
    let stopped = installation.operate(&application, "stop", &json!({"hosts": ["web-2"]})).await;
    assert_eq!(stopped["status"], "succeeded", "{stopped}");
    installation.put("hosts/web-1", &json!({"drain": true})).await.expect(200);
    let refused = installation.deploy(&application, "v2").await;
    assert_eq!(refused.faults(), [("hosts".to_owned(), "no-host".to_owned())], "{}", refused.text);
    assert_eq!(installation.post(&format!("applications/{}/rollback", application.id), &json!({})).await.status, 409);
}
