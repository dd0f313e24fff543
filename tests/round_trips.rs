//! What an accepted deployment costs in calls of AWS.

use std::time::Instant;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tidegate_aws::meter::{Call, Meter};

use crate::support::{Application, Installation, Setup};

/// Most round trips of an accepted deployment, one after the other.
const MOST_SEQUENTIAL: usize = 5;

/// Half of the variables refer to secrets, half are secret themselves: a project's, for two applications, and as many again
/// in its active environment, which some of the project's refer to.
async fn configured(installation: &Installation, variables: usize) -> [Application; 2] {
    let first = installation.register(json!({})).await;
    let shown = installation.get(&format!("applications/{}", first.id)).await.expect(200);
    let (project, registry) = (&shown["projectId"], &shown["registryId"]);
    let again = json!({"projectId": project, "registryId": registry});
    let second = installation.register(again).await;
    let group = installation.post("secret-groups", &json!({"name": format!("group-{variables}")})).await;
    let group = group.expect(201)["id"].clone();
    let create = async |index: usize| {
        let mut variable = json!({"scope": "project", "projectId": project, "key": format!("V{index}"),
            "value": format!("value-{index}"), "isSecret": true});
        if index.is_multiple_of(2) {
            let secret = json!({"groupId": group, "name": format!("S{index}"), "value": format!("secret-{index}")});
            let secret = installation.post("secrets", &secret).await.expect(201)["id"].clone();
            variable["value"] = format!("@secret:{secret}").into();
            variable["valueType"] = "secret_ref".into();
            variable.as_object_mut().unwrap().remove("isSecret");
        }
        installation.post("variables", &variable).await.expect(201);
    };
    stream::iter(0..variables).map(create).buffer_unordered(4).collect::<Vec<()>>().await;
    let in_environment: serde_json::Map<_, _> =
        (0..variables).map(|index| (format!("E{index}"), format!("value-{index} {{{{V{index}}}}}").into())).collect();
    let environment = json!({"projectId": project, "name": "Production", "variables": in_environment});
    let environment = installation.post("environments", &environment).await.expect(201);
    let id = environment["envId"].as_str().unwrap();
    installation.post(&format!("environments/{id}/activate"), &json!({})).await.expect(200);
    [first, second]
}

/// The calls of one deployment, by name, with their number.
async fn calls_of(installation: &Installation, meter: &Meter, application: &Application) -> Vec<Call> {
    meter.take();
    let accepted = installation.deploy(application, "v1").await.expect(202);
    let calls = meter.take();
    // Active at once, with an assignment and a wake-up: the dearest case.
    assert_eq!(accepted["status"], "queued");
    let shown =
        installation.get(&format!("deployments/{}", accepted["deploymentId"].as_str().unwrap())).await.expect(200);
    assert_eq!(shown["environment"]["name"], "Production", "{shown}");
    assert!(calls.iter().any(|call| call.operation.ends_with("SendMessage")), "{calls:?}");
    calls
}

fn kms(calls: &[Call]) -> usize {
    calls.iter().filter(|call| call.operation.starts_with("KMS")).count()
}

fn figure(what: &str, variables: usize, calls: &[Call], begun: Instant) -> Value {
    let (all, sequential, kms) = (calls.len(), Meter::sequential(calls), kms(calls));
    println!(
        "figure: {variables} variables, {what} data keys: {all} AWS calls, {sequential} one after the other, {kms} of KMS \
         ({} ms in a debug build)",
        begun.elapsed().as_millis()
    );
    json!([all, sequential, kms])
}

#[tokio::test]
async fn an_accepted_deployment_takes_five_round_trips_however_much_it_configures() {
    let meter = Meter::default();
    let setup = Setup { no_worker: true, meter: Some(meter.clone()), ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let mut figures = Vec::new();
    for variables in [10, 200] {
        let [first, second] = configured(&installation, variables).await;
        installation.stack.forget_data_keys();
        let begun = Instant::now();
        let cold = calls_of(&installation, &meter, &first).await;
        let cold_figure = figure("cold", variables, &cold, begun);
        let begun = Instant::now();
        let warm = calls_of(&installation, &meter, &second).await;
        let warm_figure = figure("cached", variables, &warm, begun);

        assert!(Meter::sequential(&warm) <= MOST_SEQUENTIAL, "{warm:?}");
        assert_eq!(kms(&warm), 0, "{warm:?}");
        assert!(kms(&cold) > 0, "a meter that sees no call of KMS proves nothing: {cold:?}");
        figures.push((cold_figure, warm_figure));
    }
    // Two batches hold 101 keys; nothing else may grow.
    let more = figures[1].1[0].as_u64().unwrap() - figures[0].1[0].as_u64().unwrap();
    assert!(more <= 1, "{figures:?}");
    assert_eq!(figures[0].1[1], figures[1].1[1], "{figures:?}");
    assert_eq!(figures[0].0[2], figures[1].0[2], "{figures:?}");
}
