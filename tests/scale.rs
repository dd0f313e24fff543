//! What pages and deployments cost in a tenant that has many variables and secrets.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tidegate_aws::{clients::Clients, keys, keys::Kind, meter::Meter, registered::secrets_of};
use tidegate_domain::{
    id::{ProjectId, SecretGroupId},
    variable::{MAX_VARIABLES, Scope, VariableKey},
};
use tidegate_local::{demo_image::Mode, provision, stack};

use crate::{
    secrets::items,
    support::{Application, Installation, Setup, eventually},
};

/// Of the tenant, at first.
const FEW: usize = 10;
const VARIABLES: usize = 10_000;
/// As many scopes as that takes: none has more than a deployment may have.
const PROJECTS: usize = VARIABLES / MAX_VARIABLES;
const SECRETS: usize = 5_000;
const DATA_KEYS: usize = 4;
const PER_BATCH: usize = 25;

type Item = HashMap<String, AttributeValue>;

/// Two applications for each measurement, in a project with ten variables, each a reference to a secret. The secrets are
/// sealed under several data keys.
struct Tenant {
    installation: Installation,
    meter: Meter,
    project: Value,
    /// With an application that was never deployed, and the first of those that are filled.
    other: u64,
    group: u64,
    registry: Value,
}

async fn tenant() -> Tenant {
    let meter = Meter::default();
    let setup = Setup { no_worker: true, meter: Some(meter.clone()), ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let first = installation.register(json!({})).await;
    let shown = installation.get(&format!("applications/{}", first.id)).await.expect(200);
    let (project, registry) = (shown["projectId"].clone(), shown["registryId"].clone());
    let other = installation.post("projects", &json!({"key": "other", "name": "Other"})).await.expect(201);
    let group = installation.post("secret-groups", &json!({"name": "many"})).await.expect(201)["id"].as_u64().unwrap();
    for index in 0..FEW {
        if index % (FEW / DATA_KEYS) == 0 {
            installation.stack.forget_data_keys();
        }
        let secret = json!({"groupId": group, "name": format!("S{index}"), "value": format!("secret-{index}")});
        let secret = installation.post("secrets", &secret).await.expect(201)["id"].clone();
        let variable = json!({"projectId": project, "key": format!("V{index}"), "value": format!("@secret:{secret}")});
        installation.post("variables", &variable).await.expect(201);
    }
    let environment = json!({"projectId": project, "name": "Production", "variables": {"E": "{{V0}}"}});
    let environment = installation.post("environments", &environment).await.expect(201)["envId"].clone();
    let activate = format!("environments/{}/activate", environment.as_str().unwrap());
    installation.post(&activate, &json!({})).await.expect(200);
    let other = other["id"].as_u64().unwrap();
    installation.register(json!({"projectId": other, "registryId": registry})).await;
    for index in 0..FEW {
        let key = format!("TEMPLATE_{index}");
        let variable = json!({"projectId": other, "key": key, "value": "a value of some length, as they are"});
        installation.post("variables", &variable).await.expect(201);
    }
    Tenant { installation, meter, project, other, group, registry }
}

impl Tenant {
    async fn application(&self) -> Application {
        self.installation.register(json!({"projectId": self.project, "registryId": self.registry})).await
    }

    /// The calls of what `act` does, by operation, in no order.
    async fn calls(&self, act: impl Future<Output = ()>) -> Vec<String> {
        self.meter.take();
        act.await;
        let mut calls: Vec<_> = self.meter.take().into_iter().map(|call| call.operation).collect();
        calls.sort();
        calls
    }

    async fn page(&self, path: &str) -> Vec<String> {
        let get = async || {
            let page = self.installation.get(path).await.expect(200);
            assert!(page["data"].as_array().is_some_and(|data| !data.is_empty()), "{path}: {page}");
        };
        // Data keys of cursors, once.
        get().await;
        self.calls(get()).await
    }

    async fn deployment(&self, application: &Application) -> Vec<String> {
        self.calls(async {
            let accepted = self.installation.deploy(application, "v1").await.expect(202);
            assert_eq!(accepted["status"], "queued", "{accepted}");
        })
        .await
    }

    /// Of each thing that is measured.
    async fn measure(&self) -> Vec<(String, Vec<String>)> {
        let (cold, warm) = (self.application().await, self.application().await);
        self.installation.stack.forget_data_keys();
        let cold_calls = self.deployment(&cold).await;
        let warm_calls = self.deployment(&warm).await;
        assert_eq!(kms(&warm_calls), 0, "{warm_calls:?}");
        let mut measured = vec![
            ("a deployment, data keys cold".to_owned(), cold_calls),
            ("a deployment, cached".to_owned(), warm_calls),
        ];
        for (what, path) in [
            ("a page of variables", format!("variables?projectId={}&limit=5", self.other)),
            ("a page of secrets", "secrets?limit=5".to_owned()),
            ("a page of a group's secrets", format!("secrets?groupId={}&limit=5", self.group)),
        ] {
            measured.push((what.to_owned(), self.page(&path).await));
        }
        let preview = format!("applications/{}/variables/preview", warm.id);
        let shown = self.calls(async {
            let shown = self.installation.post(&preview, &json!({})).await.expect(200);
            assert_eq!((shown["data"].as_array().unwrap().len(), &shown["errors"]), (FEW + 1, &json!([])), "{shown}");
        });
        measured.push(("a preview".to_owned(), shown.await));
        measured
    }

    /// Copies of what is there, under other names and ids: nobody opens their values.
    async fn fill(&self) {
        let (clients, tenant) = (self.installation.aws().clients(), stack::tenant());
        let all = items(&clients).await;
        let find = |pk: &str, sk: &str| {
            all.iter().find(|item| of(item, "pk") == pk && (sk.is_empty() || of(item, "sk") == sk)).unwrap()
        };
        let mut projects = vec![self.other];
        while projects.len() < PROJECTS {
            let project = json!({"key": format!("filled-{}", projects.len()), "name": "Filled"});
            projects.push(self.installation.post("projects", &project).await.expect(201)["id"].as_u64().unwrap());
        }
        let variable = find(&keys::variables(&tenant, Scope::Project(ProjectId(self.other))), "");
        let places = projects.iter().flat_map(|id| {
            let present = if *id == self.other { FEW } else { 0 };
            (present..MAX_VARIABLES).map(|index| (Scope::Project(ProjectId(*id)), index))
        });
        let variables = places.map(|(scope, index)| {
            let name = VariableKey::parse(&format!("MANY_{index}")).unwrap();
            at(variable, &keys::variable(&tenant, scope, &name), &[("key", AttributeValue::S(name.to_string()))])
        });
        let names = keys::unique_names(&tenant, &secrets_of(SecretGroupId(self.group)));
        let (secret, name) = (find(&keys::catalogue(&tenant, Kind::Secret), ""), find(&names, "S0"));
        let secrets = (0..SECRETS).flat_map(|index| {
            let (id, text) = (1_000_000 + index as u64, format!("MANY_{index}"));
            let number = || AttributeValue::N(id.to_string());
            let mut body = secret["body"].as_m().unwrap().clone();
            body.insert("name".to_owned(), AttributeValue::S(text.clone()));
            let thing = keys::thing(&tenant, Kind::Secret, id);
            let name_key = keys::unique_name(&tenant, &secrets_of(SecretGroupId(self.group)), &text);
            [
                at(secret, &thing, &[("id", number()), ("body", AttributeValue::M(body))]),
                at(name, &name_key, &[("id", number())]),
            ]
        });
        let writes: Vec<WriteRequest> = variables.chain(secrets).map(as_write).collect();
        let batches: Vec<Vec<WriteRequest>> = writes.chunks(PER_BATCH).map(<[_]>::to_vec).collect();
        stream::iter(batches).map(|batch| write(&clients, batch)).buffer_unordered(4).collect::<Vec<()>>().await;
    }
}

async fn write(clients: &Clients, batch: Vec<WriteRequest>) {
    let mut left = batch;
    while !left.is_empty() {
        let sent = clients.dynamodb.batch_write_item().request_items(provision::TABLE, left).send().await.unwrap();
        left = sent.unprocessed_items.unwrap_or_default().remove(provision::TABLE).unwrap_or_default();
    }
}

fn of<'a>(item: &'a Item, field: &str) -> &'a str {
    item[field].as_s().unwrap()
}

fn at(item: &Item, key: &keys::Key, changes: &[(&str, AttributeValue)]) -> Item {
    let mut item = item.clone();
    item.insert("pk".to_owned(), AttributeValue::S(key.pk.clone()));
    item.insert("sk".to_owned(), AttributeValue::S(key.sk.clone()));
    item.extend(changes.iter().map(|(field, value)| ((*field).to_owned(), value.clone())));
    item
}

fn as_write(item: Item) -> WriteRequest {
    WriteRequest::builder().put_request(PutRequest::builder().set_item(Some(item)).build().unwrap()).build()
}

fn kms(calls: &[String]) -> usize {
    calls.iter().filter(|call| call.starts_with("KMS")).count()
}

#[tokio::test]
async fn pages_and_deployments_cost_the_same_however_much_a_tenant_has() {
    let tenant = tenant().await;
    tenant.installation.lift_limits().await;
    let few = tenant.measure().await;
    tenant.fill().await;
    let many = tenant.measure().await;
    let all = items(&tenant.installation.aws().clients()).await;
    let count = |part: &str| all.iter().filter(|item| of(item, "pk").contains(part)).count();
    let (variables, secrets) = (count("#VARIABLES#"), count("#SECRET") - count("#SECRET_GROUP"));
    assert!(variables > VARIABLES && secrets > SECRETS, "{variables} variables, {secrets} secrets");

    for ((what, few), (_, many)) in few.iter().zip(&many) {
        println!(
            "figure: {what}: {} AWS calls with {FEW} variables, {} with {variables} and {secrets} items of secrets",
            few.len(),
            many.len()
        );
        assert_eq!(few, many, "{what}");
    }
    // One more belongs to the host, whose key is never stored by itself.
    let data_keys = count("#DATA_KEY#") + 1;
    let (cold, warm) = (kms(&many[0].1), kms(&many[1].1));
    println!(
        "figure: a deployment: {cold} KMS calls of {data_keys} data keys when nothing is cached, {warm} when they are"
    );
    assert!(cold >= DATA_KEYS && cold <= data_keys, "{cold} KMS calls, {data_keys} data keys");
}

/// Applications say whether they need a redeployment, which is read from every scope that they have variables of.
#[tokio::test]
async fn lists_cost_the_same_whether_scopes_have_a_few_variables_or_all_that_they_may() {
    let meter = Meter::default();
    let setup = Setup { no_sweeps: true, meter: Some(meter.clone()), ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let mut scopes = vec![json!({"scope": "global"})];
    for _ in 0..2 {
        let application = installation.register(json!({})).await;
        let shown = installation.get(&format!("applications/{}", application.id)).await.expect(200);
        let project = shown["projectId"].clone();
        let environment = json!({"projectId": project, "name": "Production"});
        let environment = installation.post("environments", &environment).await.expect(201)["envId"].clone();
        let activate = format!("environments/{}/activate", environment.as_str().unwrap());
        installation.post(&activate, &json!({})).await.expect(200);
        scopes.extend([json!({"projectId": project}), json!({"envId": environment})]);
        scopes.push(json!({"applicationId": application.id}));
        assert_eq!(installation.release(&application, "v1", Mode::Ok).await["status"], "succeeded");
    }
    let fill = async |range: std::ops::Range<usize>| {
        for scope in &scopes {
            let mut body = scope.clone();
            let lines: Vec<_> = range.clone().map(|index| format!("MANY_{index}=a value")).collect();
            body["dotenv"] = lines.join("\n").into();
            installation.post("variables/import", &body).await.expect(200);
        }
    };
    let calls = async |path: &str| {
        let mut before = Vec::new();
        eventually("the same calls twice", async || {
            meter.take();
            installation.get(path).await.expect(200);
            let mut calls: Vec<_> = meter.take().into_iter().map(|call| call.operation).collect();
            calls.sort();
            let same = (calls == before).then(|| calls.clone());
            before = calls;
            same
        })
        .await
    };
    let mut measured = Vec::new();
    fill(0..FEW).await;
    for many in [false, true] {
        if many {
            fill(FEW..MAX_VARIABLES).await;
        }
        let applications = installation.get("applications").await.expect(200);
        let needs: Vec<_> =
            applications["data"].as_array().unwrap().iter().map(|a| &a["status"]["needsRedeploy"]).collect();
        assert_eq!(needs, [true, true], "{applications}");
        measured.push([calls("applications").await, calls("environments").await]);
    }
    assert_eq!(measured[0], measured[1]);
    println!(
        "figure: a page of two applications {} and one of two environments {} AWS calls, with {FEW} variables in each of {} scopes \
         and with {MAX_VARIABLES}",
        measured[1][0].len(),
        measured[1][1].len(),
        scopes.len()
    );
}
