//! A scope has no more variables than a deployment may have: that is told when they are written.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tidegate_aws::{
    clock, keys,
    variables::{StoredValue, StoredVariable},
};
use tidegate_domain::{
    id::{ProjectId, Revision},
    variable::{MAX_VARIABLES, Scope, ValueType, VariableKey},
};
use tidegate_local::provision::TABLE;

use tokio::{runtime::Handle, task::block_in_place};

use crate::{
    administration::admin::Admin,
    environments::{event, store_of, tenant},
    secrets::items,
    support::{
        Installation, Setup,
        faults::{AwsCall, FaultyAws},
        relay::Fate,
    },
};

const TOO_MANY: [(&str, &str); 1] = [("variables", "too-many-variables")];

async fn with_project() -> Admin {
    let admin = Admin::signed_in().await;
    admin.created("projects", json!({"name": "Shop"})).await;
    admin
}

fn file(range: std::ops::Range<usize>) -> String {
    range.map(|index| format!("KEY_{index:03}={index}")).collect::<Vec<_>>().join("\n")
}

async fn import(admin: &Admin, scope: &Value, range: std::ops::Range<usize>) -> crate::administration::admin::Answer {
    let mut body = scope.clone();
    body["dotenv"] = file(range).into();
    admin.post("variables/import", body).await
}

#[tokio::test]
async fn what_no_deployment_could_use_is_refused_in_every_scope() {
    let admin = Admin::signed_in().await;
    let application = admin.registered().await;
    for (scope, id) in [
        (json!({"scope": "global"}), "global".to_owned()),
        (json!({"projectId": 1}), "project-1".to_owned()),
        (json!({"applicationId": application["id"]}), format!("application-{}", application["id"])),
    ] {
        let create = async |key: &str, value: &str| {
            let mut body = scope.clone();
            (body["key"], body["value"]) = (key.into(), value.into());
            admin.post("variables", body).await
        };
        assert_eq!(import(&admin, &scope, 0..MAX_VARIABLES - 1).await.status, 200);
        assert_eq!(create("LAST", "1").await.status, 201);
        assert_eq!(create("BEYOND", "1").await.faults(), TOO_MANY, "{scope}");
        assert_eq!(import(&admin, &scope, 600..601).await.faults(), TOO_MANY, "{scope}");
        if id != "global" {
            let group = admin.post("secret-groups/1/import", scope.clone()).await;
            assert_eq!(group.faults(), TOO_MANY, "{scope}: {}", group.body);
        }
        // What is there can change and go, and then there is a place.
        assert_eq!(admin.put(&format!("variables/{id}.LAST"), json!({"value": "2"})).await.status, 200);
        assert_eq!(create("LAST", "1").await.status, 409);
        assert_eq!(admin.delete(&format!("variables/{id}.LAST")).await.status, 204);
        assert_eq!(create("BEYOND", "1").await.status, 201);
    }
}

#[tokio::test]
async fn large_values_are_counted_by_their_bytes() {
    let admin = with_project().await;
    let large = |bytes: usize| "x".repeat(bytes);
    let create = async |key: &str, bytes: usize| {
        admin.post("variables", json!({"projectId": 1, "key": key, "value": large(bytes)})).await
    };
    assert_eq!(create("A", 100_000).await.status, 201);
    assert_eq!(create("B", 40_000).await.faults(), TOO_MANY);
    assert_eq!(create("B", 20_000).await.status, 201);
    let put = async |key: &str, bytes: usize| {
        admin.put(&format!("variables/project-1.{key}"), json!({"value": large(bytes)})).await
    };
    assert_eq!(put("B", 40_000).await.faults(), TOO_MANY);
    assert_eq!(put("A", 10_000).await.status, 200);
    assert_eq!(put("B", 40_000).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_exactly_as_many_are_written_as_there_are_places() {
    const PLACES: usize = 3;
    let admin = with_project().await;
    let scope = json!({"projectId": 1});
    assert_eq!(import(&admin, &scope, 0..MAX_VARIABLES - PLACES).await.status, 200);
    let creations = (0..12)
        .map(|index| admin.post("variables", json!({"projectId": 1, "key": format!("NEW_{index}"), "value": "1"})));
    let statuses: Vec<u16> = join_all(creations).await.into_iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), PLACES, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 201 | 422)), "{statuses:?}");

    // Nor is anything refused that has a place, where all of them are the first.
    let creations = (0..12).map(|index| admin.post("variables", json!({"key": format!("NEW_{index}"), "value": "1"})));
    let statuses: Vec<u16> = join_all(creations).await.into_iter().map(|answer| answer.status.as_u16()).collect();
    assert_eq!(statuses, [201; 12]);
}

/// As an installation has them that did not count yet.
#[tokio::test]
async fn a_scope_that_has_too_many_keeps_them_and_does_not_grow() {
    let admin = with_project().await;
    let (clients, tenant, scope) = (admin.aws.clients(), tenant(), Scope::Project(ProjectId(1)));
    admin.created("variables", json!({"projectId": 1, "key": "FIRST", "value": "1"})).await;
    let first = keys::variable(&tenant, scope, &VariableKey::parse("FIRST").unwrap());
    let all = items(&clients).await;
    let text = |item: &HashMap<String, AttributeValue>, name: &str| item[name].as_s().unwrap().clone();
    let first = all.into_iter().find(|item| text(item, "pk") == first.pk && text(item, "sk") == first.sk).unwrap();
    for index in 0..=MAX_VARIABLES {
        let mut item = first.clone();
        let key = VariableKey::parse(&format!("OLD_{index}")).unwrap();
        item.insert("sk".to_owned(), AttributeValue::S(keys::variable(&tenant, scope, &key).sk));
        item.insert("key".to_owned(), AttributeValue::S(key.to_string()));
        clients.dynamodb.put_item().table_name(TABLE).set_item(Some(item)).send().await.unwrap();
    }
    let project = keys::thing(&tenant, keys::Kind::Project, 1);
    let uses = AttributeValue::N((MAX_VARIABLES + 2).to_string());
    let (at, totals) = (clients.dynamodb.update_item().table_name(TABLE), keys::variable_totals(&tenant, scope));
    let at = at.key("pk", AttributeValue::S(project.pk)).key("sk", AttributeValue::S(project.sk));
    at.update_expression("SET uses = :uses").expression_attribute_values(":uses", uses).send().await.unwrap();
    let gone = clients.dynamodb.delete_item().table_name(TABLE);
    let gone = gone.key("pk", AttributeValue::S(totals.pk)).key("sk", AttributeValue::S(totals.sk));
    gone.send().await.unwrap();

    let create = async || admin.post("variables", json!({"projectId": 1, "key": "NEW", "value": "1"})).await;
    let at = |index: usize| format!("variables/project-1.OLD_{index}");
    assert_eq!(create().await.faults(), TOO_MANY);
    assert_eq!(admin.put(&at(0), json!({"value": "2"})).await.status, 200);
    assert_eq!(admin.put(&at(0), json!({"value": "longer"})).await.status, 200);
    for index in 0..2 {
        assert_eq!(create().await.faults(), TOO_MANY);
        assert_eq!(admin.delete(&at(index)).await.status, 204);
    }
    assert_eq!(create().await.faults(), TOO_MANY);
    assert_eq!(admin.delete(&at(2)).await.status, 204);
    assert_eq!(create().await.status, 201);
}

/// Whoever finds that nothing was counted yet, and then that somebody else has begun to, is not one too many.
#[tokio::test(flavor = "multi_thread")]
async fn two_that_are_the_first_at_once_are_both_written() {
    let (faulty, detour) = FaultyAws::for_functions().await;
    let setup = Setup { no_worker: true, no_sweeps: true, detour: Some(detour), ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let store = store_of(&installation.aws().clients());
    let mut other = Some(StoredVariable {
        key: VariableKey::parse("OTHER").unwrap(),
        value_type: ValueType::String,
        value: StoredValue::Plain { text: "1".to_owned() },
        revision: Revision(1),
        created_at: clock::now(),
        updated_at: clock::now(),
    });
    faulty.judge_by(move |call: &AwsCall| {
        if call.is("GetItem")
            && call.body.to_string().contains("#TOTALS")
            && let Some(other) = other.take()
        {
            let created = async { store.create_variable(&tenant(), Scope::Global, &other, None, &event()).await };
            block_in_place(|| Handle::current().block_on(created)).unwrap();
        }
        Fate::Pass
    });
    installation.post("variables", &json!({"key": "ONE", "value": "1"})).await.expect(201);
    faulty.let_all_pass();
    let listed = installation.get("variables?scope=global").await.expect(200);
    let keys: Vec<_> = listed["data"].as_array().unwrap().iter().map(|variable| variable["key"].clone()).collect();
    assert_eq!(keys, ["ONE", "OTHER"]);
}
