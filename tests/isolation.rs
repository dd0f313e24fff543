//! What a stolen host can reach of the others: nothing. Tried at the key service and with sealed jobs, and with the policy of
//! `infra/host.yaml`.

use std::collections::HashMap;

use aws_sdk_kms::primitives::Blob;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tidegate_aws::{
    assignments::StoredAssignment,
    error::StoreError,
    host_side::{HostConfig, HostSide},
    keys,
};
use tidegate_domain::{
    assignment::{AssignmentState, ErrorCode, Outcome},
    id::{DeploymentId, Epoch, HostName, TenantId},
};
use tidegate_local::{provision, stack};

use crate::{
    secrets::key,
    support::{Application, Installation, Setup, eventually, fleet::Member},
    template,
};

const THIEF: &str = "web-b";

/// Two hosts, each with an assignment that nobody has begun; the first one's holds a secret.
struct Two {
    installation: Installation,
    thief: Member,
    own: StoredAssignment,
    others: StoredAssignment,
}

async fn assigned(installation: &Installation, host: &HostName, application: &Application) -> StoredAssignment {
    installation.deploy(application, "v1").await.expect(202);
    let assignments = installation.side_of(host).assignments().await.unwrap();
    assert_eq!(assignments.len(), 1);
    assignments.into_iter().next().unwrap()
}

async fn two() -> Two {
    let installation = Installation::start_with(Setup { no_worker: true, no_sweeps: true, ..Setup::default() }).await;
    let thief = Member::join(&installation, THIEF, "").await;
    let owners = installation.register(json!({})).await;
    let secret = json!({"scope": "application", "applicationId": owners.id, "key": "PASSWORD", "value": "of the owner",
        "isSecret": true});
    installation.post("variables", &secret).await.expect(201);
    let thiefs = installation.register(json!({"hosts": {"names": [THIEF]}})).await;
    let others = assigned(&installation, &stack::host(), &owners).await;
    let own = assigned(&installation, &thief.host, &thiefs).await;
    Two { installation, thief, own, others }
}

/// What KMS and the cipher make of it.
fn is_refused(opened: Result<tidegate_domain::job::Job, StoreError>) -> bool {
    match opened {
        Ok(_) => false,
        Err(StoreError::Corrupt { .. }) => true,
        Err(other) => panic!("refused for another reason: {other:?}"),
    }
}

/// `j1:<wrapped data key>:<salt>:…`
fn parts(sealed: &str) -> Vec<&str> {
    sealed.split(':').collect()
}

#[tokio::test]
async fn a_hosts_job_opens_for_that_host_and_as_it_was_sealed_and_in_no_other_way() {
    let Two { installation, thief, own, others } = two().await;
    let (owner, side) = (installation.side_of(&stack::host()), installation.side_of(&thief.host));
    let job = owner.open(&others).await.unwrap();
    assert!(job.secrets().any(|secret| secret == "of the owner"), "it is worth stealing");
    side.open(&own).await.unwrap();

    let with_key_of = |key: &str, rest: &str| {
        let (key, mut parts) = (parts(key)[1].to_owned(), parts(rest));
        parts[1] = &key;
        parts.join(":")
    };
    let changed = |change: fn(&mut StoredAssignment, &StoredAssignment)| {
        let mut changed = others.clone();
        change(&mut changed, &own);
        changed
    };
    let pasted = StoredAssignment { sealed_job: others.sealed_job.clone(), ..own.clone() };
    let own_key = StoredAssignment { sealed_job: with_key_of(&own.sealed_job, &others.sealed_job), ..others.clone() };
    let both = StoredAssignment { sealed_job: own_key.sealed_job.clone(), ..own.clone() };
    let later = changed(|assignment, _| assignment.sealed_epoch = Epoch(assignment.sealed_epoch.0 + 1));
    let renamed = changed(|assignment, own| assignment.deployment_id = own.deployment_id);
    let elsewhere = |tenant: &str, host: &HostName| {
        let config = HostConfig {
            tenant: TenantId::parse(tenant).unwrap(),
            host: host.clone(),
            table: provision::TABLE.to_owned(),
            queue_url: String::new(),
            reports_queue_url: String::new(),
        };
        HostSide::new(&installation.aws().clients(), config)
    };
    let owners_name = elsewhere("other", &stack::host());
    let tries: [(&str, &HostSide, &StoredAssignment); 11] = [
        ("the thief opens it as it is", &side, &others),
        ("the thief puts it into a work order of his own", &side, &pasted),
        ("the thief puts his own data key before it", &side, &own_key),
        ("the thief puts both together", &side, &both),
        ("the thief says it is of a later epoch", &side, &later),
        ("the thief says it is of his deployment", &side, &renamed),
        ("a host of that name in another tenant opens it", &owners_name, &others),
        ("the owner opens the thief's", &owner, &own),
        ("the owner opens it with the thief's key", &owner, &own_key),
        ("the owner opens it as another epoch's", &owner, &later),
        ("the owner opens it as another deployment's", &owner, &renamed),
    ];
    for (what, side, assignment) in &tries {
        assert!(is_refused(side.open(assignment).await), "{what}");
    }
    // Nor does a key that was opened before, and is still known, open it in another place.
    assert!(is_refused(side.open(&pasted).await));
    println!(
        "figure: sealed jobs: {0} ways tried to open one that is not one's own or was moved, {0} refused",
        tries.len()
    );
}

#[tokio::test]
async fn the_key_service_unwraps_a_jobs_key_in_its_own_context_alone() {
    let Two { installation, others, .. } = two().await;
    let wrapped = URL_SAFE_NO_PAD.decode(parts(&others.sealed_job)[1]).unwrap();
    let own = [("app", "tidegate"), ("purpose", "job"), ("tenant", "default"), ("host", stack::HOST)];
    let kms = installation.aws().clients().kms;
    let unwrap = async |context: &[(&str, &str)]| {
        let context: HashMap<_, _> = context.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let call = kms.decrypt().ciphertext_blob(Blob::new(wrapped.clone())).set_encryption_context(Some(context));
        match call.send().await {
            Ok(_) => true,
            Err(error) => {
                let code = error.as_service_error().and_then(|error| error.meta().code()).map(str::to_owned);
                assert_eq!(code.as_deref(), Some("InvalidCiphertextException"), "{error:?}");
                false
            }
        }
    };
    assert!(unwrap(&own).await);
    let mut contexts = vec![Vec::new()];
    for (name, other) in
        [("app", "other"), ("purpose", "secret"), ("purpose", "snapshot"), ("tenant", "other"), ("host", THIEF)]
    {
        contexts.push(own.into_iter().map(|(n, value)| (n, if n == name { other } else { value })).collect());
        contexts.push(own.into_iter().filter(|(n, _)| *n != name).collect());
    }
    contexts.push(own.into_iter().chain([("more", "x")]).collect());
    for context in &contexts {
        assert!(!unwrap(context).await, "{context:?}");
    }
    println!("figure: key service: {0} other encryption contexts tried, {0} refused", contexts.len());
}

/// What somebody copies into a host's partition is no work order for it: the real worker finds it, and does nothing.
#[tokio::test]
async fn an_assignment_that_was_copied_to_another_host_is_not_carried_out() {
    let Two { installation, thief, own, others } = two().await;
    let table = installation.aws().clients().dynamodb;
    let from = key(&keys::assignment(&stack::tenant(), &stack::host(), others.deployment_id));
    let found = table.get_item().table_name(provision::TABLE).set_key(Some(from)).send().await.unwrap();
    let mut item = found.item.unwrap();
    item.extend(key(&keys::assignment(&stack::tenant(), &thief.host, others.deployment_id)));
    table.put_item().table_name(provision::TABLE).set_item(Some(item)).send().await.unwrap();
    // Without work of its own, so that all that it does is for the stolen one.
    let own = key(&keys::assignment(&stack::tenant(), &thief.host, own.deployment_id));
    table.delete_item().table_name(provision::TABLE).set_key(Some(own)).send().await.unwrap();

    thief.start();
    let side = installation.side_of(&thief.host);
    let ended = eventually("an end of the stolen assignment", async || {
        let found = side.assignments().await.unwrap().into_iter().find(|a| a.deployment_id == others.deployment_id)?;
        matches!(found.state, AssignmentState::Finished { .. }).then_some(found.state)
    })
    .await;
    let AssignmentState::Finished { outcome: Outcome::Failed { error, switched, .. } } = ended else {
        panic!("{ended:?}\n{}", thief.log());
    };
    assert_eq!((error.code, switched), (ErrorCode::BadAssignment, false), "{}", error.message);
    assert_eq!(thief.docker.seen(), Vec::<String>::new(), "it has changed nothing");
    assert!(!thief.log().contains("of the owner"));
    // The owner's is as it was, and of the owner's deployment nothing was told in his name.
    let owner = installation.side_of(&stack::host());
    let kept = owner.assignments().await.unwrap();
    assert_eq!(kept.iter().map(|a| a.deployment_id).collect::<Vec<_>>(), [others.deployment_id]);
    assert_eq!(kept[0].state, AssignmentState::Queued);
    assert_eq!(status(&installation, others.deployment_id).await, "queued");
}

async fn status(installation: &Installation, id: DeploymentId) -> String {
    installation.get(&format!("deployments/{id}")).await.expect(200)["status"].as_str().unwrap().to_owned()
}

#[test]
fn the_policy_of_a_host_refuses_every_call_on_what_is_anothers() {
    let worker = template::worker();
    let own = template::partition("acme", "web-1");
    let foreign = [
        template::partition("acme", "web-2"),
        template::partition("acme", "web-11"),
        template::partition("acme", "web"),
        template::partition("other", "web-1"),
        "LIVE".to_owned(),
        "TENANT#acme#DEPLOYMENTS".to_owned(),
        "TENANT#acme#SECRET".to_owned(),
        "TENANT#acme#HOSTS".to_owned(),
    ];
    let mut calls: Vec<(String, bool)> = Vec::new();
    let mut allowed = 0;
    for action in ["GetItem", "Query", "UpdateItem", "PutItem", "DeleteItem", "BatchGetItem", "BatchWriteItem", "Scan"]
    {
        let action = format!("dynamodb:{action}");
        for partition in &foreign {
            for keys in [vec![partition.as_str()], vec![own.as_str(), partition.as_str()]] {
                let may = worker.may(&action, template::TABLE, &template::leading(&keys));
                calls.push((format!("{action} {keys:?}"), may));
            }
        }
        calls.push((format!("{action} without a key"), worker.may(&action, template::TABLE, &[])));
        allowed += usize::from(worker.may(&action, template::TABLE, &template::leading(&[&own])));
    }
    let context = [("app", "tidegate"), ("purpose", "job"), ("tenant", "acme"), ("host", "web-1")];
    for action in ["Decrypt", "GenerateDataKey", "Encrypt", "ReEncryptFrom", "ReEncryptTo", "CreateGrant"] {
        let action = format!("kms:{action}");
        for (name, other) in [("host", "web-2"), ("host", "web-11"), ("tenant", "other"), ("purpose", "secret")] {
            let context = context.map(|(n, value)| (n, if n == name { other } else { value }));
            calls.push((format!("{action} {context:?}"), worker.may_with_key(&action, template::KEY, &context)));
        }
        allowed += usize::from(worker.may_with_key(&action, template::KEY, &context));
    }
    let queue = |name: &str| format!("arn:aws:sqs:eu-test-1:111122223333:{name}");
    for action in ["ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes", "SendMessage"] {
        let action = format!("sqs:{action}");
        for name in ["tidegate-host-acme-web-2", "tidegate-host-acme_web-2", "tidegate-host-other_web-1"] {
            calls.push((format!("{action} {name}"), worker.may(&action, &queue(name), &[])));
        }
        allowed += usize::from(worker.may(&action, "arn:Queue", &[]) || worker.may(&action, template::REPORTS, &[]));
    }
    let granted: Vec<_> = calls.iter().filter(|(_, may)| *may).map(|(call, _)| call).collect();
    assert!(granted.is_empty(), "{granted:#?}");
    assert_eq!(allowed, 3 + 1 + 5, "what a worker needs it may do");
    println!(
        "figure: policy: {0} calls on what is another's tried with a host's role, {0} refused; its own {allowed} allowed",
        calls.len()
    );
}
