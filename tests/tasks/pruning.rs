//! Cleaning up on request.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use bollard::query_parameters::ListImagesOptions;
use serde_json::{Value, json};
use tidegate_local::{demo_image::Mode, stack};

use super::{create_like, logs, running};
use crate::{
    secrets::items,
    support::{Application, Installation, Setup, own_worker::OwnWorker},
};

#[tokio::test]
async fn cleaning_up_keeps_what_runs_and_the_newest_and_what_the_way_back_needs() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let mut worker = OwnWorker::of_host(&installation, &stack::host(), &installation.prefix, "keep_images = 10\n");
    let process = worker.start();
    let application = running(&installation, json!({})).await;
    for version in ["v2", "v3", "v4", "v5"] {
        let ended = installation.release(&application, version, Mode::Ok).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
    }
    assert_eq!(images(&installation, &application).await, 5);
    process.kill();
    worker.set("TIDEGATE_WORKER_KEEP_IMAGES", "1");
    let _process = worker.start();
    // As a crash leaves it, once the worker has recovered: its first answer comes after that.
    logs(&installation, &application, "?tail=1").await.expect(200);
    let next = format!("{}.tidegate-next", application.container);
    create_like(&installation.docker, &application.container, &next, false, None).await;

    installation.put("hosts/other", &json!({})).await.expect(201);
    let path = format!("applications/{}/prune", application.id);
    let begun = Instant::now();
    let pruned = installation.post(&path, &json!({"hosts": ["other", "local"]})).await.expect(200);
    assert!(begun.elapsed() < Duration::from_secs(25));
    let [other, local] = [0, 1].map(|index| &pruned["hosts"][index]);
    assert_eq!((&other["host"], &other["error"]["code"]), (&json!("other"), &json!("host-offline")), "{pruned}");
    assert_eq!((&other["imagesRemoved"], &local["error"]), (&Value::Null, &Value::Null), "{pruned}");
    // v5 runs, and v4 is what it came from.
    let said = (&local["host"], &local["imagesRemoved"], &local["containersRemoved"]);
    assert_eq!(said, (&json!("local"), &json!(3), &json!(1)), "{pruned}");
    assert!(local["bytesReclaimed"].as_u64().unwrap() > 3_000_000, "{pruned}");
    assert_eq!(images(&installation, &application).await, 2);
    assert_eq!(installation.containers().await, std::slice::from_ref(&application.container));
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v5\n");

    // Once more there is nothing to do; without names it is asked of every host that it is on.
    let pruned = installation.post(&path, &json!({})).await.expect(200);
    let nothing = json!([{"host": "local", "imagesRemoved": 0, "bytesReclaimed": 0, "containersRemoved": 0,
        "error": null}]);
    assert_eq!(pruned["hosts"], nothing);
    let audits = items(&installation.aws().clients()).await.into_iter();
    let is_prune = |item: &HashMap<String, AttributeValue>| {
        item.get("action") == Some(&AttributeValue::S("application.pruned".to_owned()))
    };
    assert_eq!(audits.filter(is_prune).count(), 2);
}

#[tokio::test]
async fn a_deployment_that_is_refused_for_lack_of_room_leaves_what_a_rollback_needs() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let mut worker = OwnWorker::of_host(&installation, &stack::host(), &installation.prefix, "keep_images = 3\n");
    let process = worker.start();
    let application = running(&installation, json!({})).await;
    for version in ["v2", "v3"] {
        let ended = installation.release(&application, version, Mode::Ok).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
    }
    process.kill();
    worker.set("TIDEGATE_WORKER_MIN_FREE_DISK_BYTES", i64::MAX.to_string());
    let _process = worker.start();
    let refused = installation.release(&application, "v4", Mode::Ok).await;
    assert_eq!((&refused["status"], &refused["error"]["code"]), (&json!("failed"), &json!("disk-full")), "{refused}");
    assert_eq!(images(&installation, &application).await, 3);
}

async fn images(installation: &Installation, application: &Application) -> usize {
    let listed = installation.docker.list_images(None::<ListImagesOptions>).await.unwrap();
    let of = |digest: &String| digest.starts_with(&format!("{}@", application.image));
    listed.iter().filter(|image| image.repo_digests.iter().any(of)).count()
}
