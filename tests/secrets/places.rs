//! A ciphertext opens in its own place only.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use tidegate_aws::{
    assignments::StoredAssignment,
    clients::Clients,
    clock,
    error::StoreError,
    host_side::HostSide,
    keys::{self, Key, Kind},
    random,
};
use tidegate_domain::{
    id::{ApplicationId, DeploymentId, Epoch, HostName},
    variable::{Scope, VariableKey},
};
use tidegate_local::{provision, stack};

use super::key;
use crate::support::{Installation, Setup};

/// A text inside an item: its key, and the way to it.
type Place = (Key, &'static [&'static str]);

fn text_at<'a>(item: &'a mut HashMap<String, AttributeValue>, path: &[&str]) -> &'a mut String {
    let (first, rest) = path.split_first().unwrap();
    let mut value = item.get_mut(*first).unwrap();
    for name in rest {
        let AttributeValue::M(fields) = value else { panic!("{path:?} is not that deep") };
        value = fields.get_mut(*name).unwrap();
    }
    let AttributeValue::S(text) = value else { panic!("{path:?} is not a text") };
    text
}

async fn item(clients: &Clients, at: &Key) -> HashMap<String, AttributeValue> {
    let got = clients.dynamodb.get_item().table_name(provision::TABLE).set_key(Some(key(at))).consistent_read(true);
    got.send().await.unwrap().item.unwrap()
}

async fn put(clients: &Clients, item: HashMap<String, AttributeValue>) {
    clients.dynamodb.put_item().table_name(provision::TABLE).set_item(Some(item)).send().await.unwrap();
}

/// The text that was there before.
async fn write(clients: &Clients, place: &Place, text: String) -> String {
    let mut found = item(clients, &place.0).await;
    let before = std::mem::replace(text_at(&mut found, place.1), text);
    put(clients, found).await;
    before
}

async fn swap(clients: &Clients, one: &Place, other: &Place) {
    let text = write(clients, one, String::new()).await;
    let text = write(clients, other, text).await;
    write(clients, one, text).await;
}

#[tokio::test]
async fn a_ciphertext_in_another_place_delivers_nothing() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let clients = installation.aws().clients();
    let application = installation.register(json!({})).await;
    let group = installation.post("secret-groups", &json!({"name": "db"})).await.expect(201)["id"].clone();
    for (name, key) in [("A", "V0"), ("B", "V1")] {
        let secret = json!({"groupId": group, "name": name, "value": format!("secret {name}")});
        let secret = installation.post("secrets", &secret).await.expect(201)["id"].clone();
        let reference = json!({"applicationId": application.id, "key": key, "value": format!("@secret:{secret}"),
            "valueType": "secret_ref"});
        installation.post("variables", &reference).await.expect(201);
    }
    for key in ["V2", "V3"] {
        let own = json!({"applicationId": application.id, "key": key, "value": format!("own {key}"), "isSecret": true});
        installation.post("variables", &own).await.expect(201);
    }
    let tenant = stack::tenant();
    let thing = |kind, id| keys::thing(&tenant, kind, id);
    let variable = |key| {
        keys::variable(&tenant, Scope::Application(ApplicationId(application.id)), &VariableKey::parse(key).unwrap())
    };
    let (a, b): (Place, Place) =
        ((thing(Kind::Secret, 1), &["body", "value"]), (thing(Kind::Secret, 2), &["body", "value"]));
    let (c, d): (Place, Place) = ((variable("V2"), &["value", "sealed"]), (variable("V3"), &["value", "sealed"]));
    let registry: Place = (thing(Kind::Registry, 1), &["body", "auth", "password"]);
    let refused = async |what: &str| {
        let answer = installation.deploy(&application, "v1").await;
        assert_eq!(answer.status.as_u16(), 500, "{what}: {}", answer.text);
        for word in ["secret", "own", "v2:"] {
            assert!(!answer.text.contains(word), "{what}: {}", answer.text);
        }
        assert_eq!(installation.get("deployments").await.expect(200)["data"], json!([]), "{what}");
        assert!(installation.side_of(&stack::host()).assignments().await.unwrap().is_empty(), "{what}");
    };
    for (what, one, other) in [
        ("two secrets", &a, &b),
        ("two variables", &c, &d),
        ("a secret and a variable", &a, &d),
        ("a secret and a registry's password", &b, &registry),
    ] {
        swap(&clients, one, other).await;
        refused(what).await;
        swap(&clients, one, other).await;
    }
    // An earlier value of the same secret, put back behind everybody's back.
    let first = write(&clients, &a, String::new()).await;
    write(&clients, &a, first.clone()).await;
    installation.put("secrets/1", &json!({"value": "secret A, changed"})).await.expect(200);
    let second = write(&clients, &a, first).await;
    refused("an earlier value").await;
    write(&clients, &a, second).await;

    installation.deploy(&application, "v1").await.expect(202);
    let side = installation.side_of(&stack::host());
    let job = side.open(&side.assignments().await.unwrap()[0]).await.unwrap();
    let got = job.variables.iter().map(|v| (v.key.as_str(), v.value.expose().as_str(), v.is_secret));
    let expect = [("V0", "secret A, changed"), ("V1", "secret B"), ("V2", "own V2"), ("V3", "own V3")];
    assert!(got.eq(expect.map(|(key, value)| (key, value, true))));
}

#[tokio::test]
async fn a_sealed_job_opens_for_its_own_host_deployment_and_epoch_only() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let clients = installation.aws().clients();
    let application = installation.register(json!({})).await;
    let own = json!({"applicationId": application.id, "key": "OWN", "value": "sealed value", "isSecret": true});
    installation.post("variables", &own).await.expect(201);
    installation.deploy(&application, "v1").await.expect(202);
    let (local, other) = (stack::host(), HostName::parse("other").unwrap());
    let (own_side, other_side) = (installation.side_of(&local), installation.side_of(&other));
    let assignment = own_side.assignments().await.unwrap().remove(0);
    let job = own_side.open(&assignment).await.unwrap();
    assert_eq!(job.variables[0].value.expose(), "sealed value");

    let refused = async |what: &str, assignment: &StoredAssignment, side: &HostSide| {
        let opened = side.open(assignment).await;
        assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "{what}");
    };
    // As if somebody who can write the table had given it to another host.
    let mut moved = item(&clients, &keys::assignment(&stack::tenant(), &local, assignment.deployment_id)).await;
    moved.extend(key(&keys::assignment(&stack::tenant(), &other, assignment.deployment_id)));
    put(&clients, moved).await;
    let moved = other_side.assignments().await.unwrap().remove(0);
    assert_eq!(moved, assignment);
    refused("another host", &moved, &other_side).await;
    let deployment_id = DeploymentId::new(clock::now(), random::bytes());
    refused("another deployment", &StoredAssignment { deployment_id, ..assignment.clone() }, &own_side).await;
    refused("another epoch", &StoredAssignment { sealed_epoch: Epoch(9), ..assignment.clone() }, &own_side).await;
    // Each part of the text is looked at.
    let parts = assignment.sealed_job.split(':').count();
    for part in 0..parts {
        let mut texts: Vec<_> = assignment.sealed_job.split(':').map(str::to_owned).collect();
        let middle = texts[part].len() / 2;
        let flipped = if &texts[part][middle..=middle] == "A" { "B" } else { "A" };
        texts[part].replace_range(middle..=middle, flipped);
        let changed = StoredAssignment { sealed_job: texts.join(":"), ..assignment.clone() };
        refused(&format!("part {part} changed"), &changed, &own_side).await;
    }
    own_side.open(&assignment).await.unwrap();
}
