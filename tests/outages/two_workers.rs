//! Two workers of one host: what a copied machine or a second data folder makes.

use std::sync::{Arc, Mutex};

use jiff::SignedDuration;
use serde_json::json;
use tidegate_aws::{clock, host_side::HostSide, queues::Report};
use tidegate_domain::{
    assignment::{Outcome, Progress},
    id::{DeploymentId, Epoch},
    image::Digest,
};
use tidegate_local::{demo_image::Mode, stack};

use crate::support::{Application, Installation, Setup, eventually, fleet::Member, own_worker::OwnWorker, relay::Fate};

/// Both have data folders of their own, and so no lock in common.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_with_another_data_folder_never_works_beside_the_first() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let members = [Member::join(&installation, "web-1", "").await];
    let [first] = &members;
    let second = OwnWorker::of_host(&installation, &first.host, &first.prefix, "");
    let application = installation.register(json!({"hosts": {"names": ["web-1"]}})).await;
    let container = application.container.replace(&installation.prefix, &first.prefix);
    let application = Application { container, ..application };
    first.start();
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");

    // It comes in the middle of the first one's switch, when "bringing back" the old version would do the most harm.
    let came = Arc::new(Mutex::new(None));
    let (coming, command) = (Arc::clone(&came), Mutex::new(second.command()));
    first.docker.judge_by(move |call| {
        if call.name == "stop" {
            let output = command.lock().unwrap().stderr(std::process::Stdio::piped()).output();
            *coming.lock().unwrap() = Some(output.unwrap());
        }
        Fate::Pass
    });
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", first.log());
    let came = came.lock().unwrap().take().expect("the second one came, and left again");
    let said = String::from_utf8_lossy(&came.stderr).into_owned();
    assert!(!came.status.success(), "{said}");
    assert!(said.contains("another worker runs for this host already, with another data folder"), "{said}");
    let seen = ["pull", "create", "rename to *-prev", "stop", "start", "rename to its name", "remove"];
    assert_eq!(first.docker.seen(), seen, "nobody came in between");

    // The first one's end, however sudden, makes place at once.
    first.kill();
    let _second = second.start();
    let ended = installation.release(&application, "v3", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}\n{}", second.log());
    eventually("v3", async || {
        let answer = installation.visit(&application, "/").await.ok()?;
        let alone = installation.containers().await == [application.container.clone()];
        (alone && answer == "version v3\n").then_some(())
    })
    .await;
}

async fn epoch(side: &HostSide, id: DeploymentId) -> Epoch {
    side.assignments().await.unwrap().into_iter().find(|a| a.deployment_id == id).unwrap().epoch
}

/// On two machines of the same name no lock can help: who claimed last counts, and what the other says is not heard.
#[tokio::test]
async fn of_two_claims_the_later_counts() {
    let setup = Setup { no_worker: true, no_sweeps: true, ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let application = installation.register(json!({})).await;
    let accepted = installation.deploy(&application, "v1").await.expect(202);
    let id = DeploymentId::parse(accepted["deploymentId"].as_str().unwrap()).unwrap();
    let [one, other] = [(); 2].map(|()| installation.side_of(&stack::host()));
    let seen = one.assignments().await.unwrap().remove(0);
    let (progress, now) = (Progress::default(), clock::now());
    let claim = async |side: &HostSide, seen, epoch| {
        side.claim(seen, Epoch(epoch), &progress, true, clock::now()).await.unwrap()
    };
    assert!(claim(&one, &seen, 2).await.is_ok());
    assert!(claim(&other, &seen, 2).await.is_err(), "it has seen less than is true");
    let seen = other.assignments().await.unwrap().remove(0);
    assert!(claim(&other, &seen, 3).await.is_ok());

    let digest = |digit: &str| Digest::parse(&format!("sha256:{}", digit.repeat(64))).unwrap();
    let outcome = |digit: &str| Outcome::Succeeded { digest: Some(digest(digit)) };
    let until = now + SignedDuration::from_mins(5);
    assert!(one.renew(id, Epoch(2), until, &progress).await.unwrap().is_err());
    assert!(one.hand_back(id, Epoch(2), None, 0).await.unwrap().is_err());
    assert!(one.finish(id, Epoch(2), &outcome("1"), &progress, now).await.unwrap().is_err());
    assert!(!one.holds(id, Epoch(2)).await.unwrap());
    assert_eq!(epoch(&one, id).await, Epoch(3));
    assert!(other.renew(id, Epoch(3), until, &progress).await.unwrap().is_ok());
    assert!(other.finish(id, Epoch(3), &outcome("3"), &progress, now).await.unwrap().is_ok());
    let report = Report { tenant: stack::tenant(), host: stack::host(), deployment_id: id };
    installation.stack.store().fold(&report, now).await.unwrap();
    let shown = installation.get(&format!("deployments/{id}")).await.expect(200);
    assert_eq!((&shown["status"], &shown["digest"]), (&json!("succeeded"), &json!(digest("3").to_string())), "{shown}");
}
