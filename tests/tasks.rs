//! What a host is asked for while a caller waits: logs, and to clean up. On real Docker.

mod pruning;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use bollard::{
    Docker,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
        RenameContainerOptionsBuilder, StartContainerOptions,
    },
};
use serde_json::{Value, json};
use tidegate_aws::{
    clients::Clients,
    clock,
    host_side::{HostConfig, HostSide},
    keys,
    meter::Meter,
    random,
    tasks::StoredTask,
};
use tidegate_domain::{
    application::ContainerName,
    host::ContainerState,
    id::{ApplicationId, DeploymentId},
    image::ImageName,
    task::{LogLine, LogStream, Logs, TaskAnswer, TaskOrder, What},
};
use tidegate_local::{demo_image::Mode, provision, stack};

use crate::{
    secrets::{
        items,
        needles::{Needles, Searched, forms},
    },
    support::{Answer, Application, Installation, Setup, eventually, hex, own_worker::OwnWorker},
};

async fn running(installation: &Installation, changes: Value) -> Application {
    let application = installation.register(changes).await;
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    application
}

/// Has the application write so.
async fn print(installation: &Installation, application: &Application, stream: &str, text: &str) {
    let said = installation.visit(application, &format!("/{stream}/{}", hex(text.as_bytes()))).await.unwrap();
    assert_eq!(said, "printed\n");
}

async fn logs(installation: &Installation, application: &Application, query: &str) -> Answer {
    installation.get(&format!("applications/{}/logs{query}", application.id)).await
}

fn texts(logs: &Value) -> Vec<&str> {
    logs["lines"].as_array().unwrap().iter().map(|line| line["text"].as_str().unwrap()).collect()
}

/// The log once its last line is this one: what was written reaches the engine's log a moment later.
async fn logs_up_to(installation: &Installation, application: &Application, query: &str, last: &str) -> Value {
    eventually("the last line", async || {
        let shown = logs(installation, application, query).await.expect(200);
        (texts(&shown).last() == Some(&last)).then_some(shown)
    })
    .await
}

async fn tasks(installation: &Installation) -> Vec<StoredTask> {
    installation.side_of(&stack::host()).look().await.unwrap().tasks
}

#[tokio::test]
async fn the_end_of_a_log_is_shown_in_order_whether_the_application_runs_or_not() {
    let installation = Installation::start().await;
    let application = running(&installation, json!({})).await;
    for (stream, text) in [("stdout", "one\n"), ("stderr", "two\n"), ("stdout", "thr"), ("stdout", "ee ä\n")] {
        print(&installation, &application, stream, text).await;
    }
    let shown = logs_up_to(&installation, &application, "?tail=3", "three ä").await;
    assert_eq!(texts(&shown), ["one", "two", "three ä"]);
    let lines = shown["lines"].as_array().unwrap();
    let streams: Vec<_> = lines.iter().map(|line| line["stream"].as_str().unwrap()).collect();
    assert_eq!(streams, ["stdout", "stderr", "stdout"]);
    let times: Vec<jiff::Timestamp> = lines.iter().map(|line| line["at"].as_str().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted() && times[0] > clock::now() - Duration::from_mins(2), "{times:?}");
    let release = installation.get(&format!("applications/{}/releases", application.id)).await.expect(200);
    assert_eq!(shown["deploymentId"], release["data"][0]["deploymentId"]);
    let said = (&shown["host"], &shown["version"], &shown["containerState"], &shown["truncated"]);
    assert_eq!(said, (&json!("local"), &json!("v1"), &json!("running"), &json!(false)));
    let since = format!("?since={}&host=local", lines[1]["at"].as_str().unwrap());
    assert_eq!(texts(&logs(&installation, &application, &since).await.expect(200)), ["two", "three ä"]);

    // Several engine messages, far past what is shown of a line.
    let piece = "x".repeat(30_000);
    for text in [&piece, &piece, "\n", "last\n"] {
        print(&installation, &application, "stdout", text).await;
    }
    let shown = logs_up_to(&installation, &application, "", "last").await;
    let (long, lines) = (texts(&shown)[texts(&shown).len() - 2], texts(&shown).len());
    assert_eq!((&shown["truncated"], long.len(), lines), (&json!(true), 16 * 1024, 6), "{}", &long[..20]);
    assert!(long.bytes().all(|byte| byte == b'x'));

    let stopped = installation.post(&format!("applications/{}/stop", application.id), &json!({})).await.expect(202);
    installation.ended(&application, stopped["deploymentId"].as_str().unwrap()).await;
    let shown = logs(&installation, &application, "?tail=1").await.expect(200);
    assert_eq!((texts(&shown), &shown["containerState"]), (vec!["last"], &json!("exited")));
    assert!(tasks(&installation).await.is_empty(), "every caller removes its own");
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_told() {
    let installation = Installation::start().await;
    let nothing = installation.register(json!({})).await;
    let answer = logs(&installation, &nothing, "").await;
    assert!(answer.expect(409)["type"].as_str().unwrap().ends_with("/no-release"), "{}", answer.text);
    let application = running(&installation, json!({})).await;
    let faults = logs(&installation, &application, "?tail=0&since=yesterday&host=A&lines=5").await.faults();
    let field = |name: &str, code: &str| (name.to_owned(), code.to_owned());
    let expected = [
        field("tail", "out-of-range"),
        field("since", "format-time"),
        field("host", "format-name"),
        field("lines", "unknown-field"),
    ];
    assert_eq!(faults, expected);
    assert_eq!(logs(&installation, &application, "?tail=2001").await.faults(), [field("tail", "out-of-range")]);
    let other = logs(&installation, &application, "?host=other").await;
    assert_eq!(other.faults(), [field("host", "unknown-host")]);
    assert!(other.text.contains("name one of local"), "{}", other.text);
    let path = format!("applications/{}/prune", application.id);
    let faults = installation.post(&path, &json!({"hosts": ["other"]})).await.faults();
    assert_eq!(faults, [field("hosts[0]", "unknown-host")]);
    assert_eq!(installation.get("applications/999/logs").await.status, 404);
}

#[tokio::test]
async fn secrets_are_taken_out_in_every_form_and_stand_in_no_item() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let worker = OwnWorker::of(&installation);
    let process = worker.start();
    let secret = format!("s3\"é?>~/+={}\n{}", hex(&random::bytes::<8>()), hex(&random::bytes::<12>()));
    let application = installation.register(json!({})).await;
    let variable = json!({"scope": "application", "applicationId": application.id, "key": "TOKEN", "value": secret,
        "isSecret": true});
    installation.post("variables", &variable).await.expect(201);
    let ended = installation.release(&application, "v1", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    // As the container has it.
    assert_eq!(installation.visit(&application, "/env/TOKEN").await.unwrap(), secret);

    let hidden = ["plain", "JSON", "hex", "upper-case hex", "URL-encoded", "lower-case URL-encoded", "base64"];
    let mut said = 0;
    for (form, text) in forms(&secret) {
        if hidden.contains(&form) || form == "URL-safe base64" {
            print(&installation, &application, "stdout", &format!("{form} {text} end\n")).await;
            print(&installation, &application, "stderr", "in between\n").await;
            said += 1;
        }
    }
    // Through the place where the engine cuts a line into messages, and wrapped as `base64` does.
    let through = format!("{}{secret}\n", "x".repeat(16 * 1024 - 10));
    print(&installation, &application, "stdout", &through).await;
    let hexadecimal = hex(secret.as_bytes());
    let (first, second) = hexadecimal.split_at(20);
    print(&installation, &application, "stderr", &format!("{first}\n{second}\nlast\n")).await;
    let shown = logs_up_to(&installation, &application, "?tail=500", "last").await;
    let text = shown.to_string();
    let masked = texts(&shown).iter().filter(|line| line.contains("***")).count();
    assert!(said >= 10 && masked >= said + 4, "{said} said, {masked} masked: {text}");

    let needles = Needles::of(&[("the secret variable", &secret)]);
    let mut searched = Searched::default();
    needles.search("the answer", &text, &mut searched);
    let (word, _) = secret.split_once('\n').unwrap();
    assert!(!text.contains(&word[word.len() - 12..]), "{text}");
    assert_eq!(texts(&shown)[texts(&shown).len() - 3..], ["***", "***", "last"]);
    // While one waits for an answer: the order holds the secret.
    process.kill();
    let store = installation.stack.store().clone();
    let order = log_order(&application, DeploymentId::parse(shown["deploymentId"].as_str().unwrap()).unwrap(), &secret);
    let waiting = tokio::spawn(async move { store.ask(&stack::tenant(), &stack::host(), &order, clock::now()).await });
    eventually("the task", async || (tasks(&installation).await.len() == 1).then_some(())).await;
    waiting.abort();
    let side = installation.side_of(&stack::host());
    let task = tasks(&installation).await.remove(0);
    let search_items = async |searched: &mut Searched| {
        for item in items(&installation.aws().clients()).await {
            needles.search("an item", format!("{item:?}"), searched);
        }
    };
    search_items(&mut searched).await;
    side.claim_task(&task).await.unwrap().unwrap();
    let opened = side.open_task(&task).await.unwrap();
    assert!(matches!(opened.what, What::Logs { secrets, .. } if secrets[0].value.expose() == &secret));
    side.answer_task(&task, &lines(&secret)).await.unwrap().unwrap();
    search_items(&mut searched).await;
    needles.search("the worker's log", worker.log(), &mut searched);
    assert!(searched.hits.is_empty() && searched.places > 20, "{searched:?}");
}

fn log_order(application: &Application, release: DeploymentId, secret: &str) -> TaskOrder {
    let secrets = serde_json::from_value(json!([{"value": secret}])).unwrap();
    let name = ContainerName::parse("any").unwrap();
    let what = What::Logs { tail: 1, since: None, release, secrets };
    TaskOrder { application_id: ApplicationId(application.id), name, what }
}

fn lines(text: &str) -> TaskAnswer {
    let line = LogLine { at: None, stream: LogStream::Stdout, text: text.to_owned() };
    TaskAnswer::Logs(Logs { state: ContainerState::Running, truncated: false, lines: vec![line] })
}

#[tokio::test]
async fn many_callers_are_answered_at_once_and_beside_a_deployment() {
    let installation = Installation::start().await;
    let application = running(&installation, json!({})).await;
    print(&installation, &application, "stdout", "here\n").await;
    logs_up_to(&installation, &application, "?tail=1", "here").await;
    // In its check for as long as this test asks.
    installation.push(&application, "v2", Mode::Unhealthy).await;
    let deploying = installation.deploy(&application, "v2").await.expect(202)["deploymentId"].clone();
    let asked = (0..10).map(|_| logs(&installation, &application, "?tail=1"));
    for answer in futures_util::future::join_all(asked).await {
        let shown = answer.expect(200);
        assert_eq!(shown["lines"].as_array().unwrap().len(), 1, "{shown}");
    }
    let ended = installation.ended(&application, deploying.as_str().unwrap()).await;
    assert_eq!(ended["status"], "rolled_back", "{ended}");
    assert!(texts(&logs(&installation, &application, "").await.expect(200)).contains(&"here"));
    assert!(tasks(&installation).await.is_empty());
}

#[tokio::test]
async fn a_host_that_is_away_is_told_within_twenty_seconds_and_nothing_is_left() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let worker = OwnWorker::of(&installation);
    let process = worker.start();
    let application = running(&installation, json!({})).await;
    process.kill();
    let begun = Instant::now();
    let answer = logs(&installation, &application, "").await;
    let problem = answer.expect(504);
    assert!(problem["type"].as_str().unwrap().ends_with("/host-offline"), "{problem}");
    assert_eq!(problem["host"], "local");
    let took = begun.elapsed();
    assert!((Duration::from_secs(19)..Duration::from_secs(25)).contains(&took), "{took:?}");
    assert!(tasks(&installation).await.is_empty());
}

#[tokio::test]
async fn an_answer_opens_for_its_own_task_alone_and_what_was_left_is_removed() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let application = installation.register(json!({})).await;
    let side = installation.side_of(&stack::host());
    let release = DeploymentId::new(clock::now(), random::bytes());
    let ask_at = |at| {
        let (store, order) = (installation.stack.store().clone(), log_order(&application, release, "hunter2!"));
        tokio::spawn(async move { store.ask(&stack::tenant(), &stack::host(), &order, at).await })
    };
    let asked = async |but: &[StoredTask]| {
        eventually("the task", async || {
            let mut found = tasks(&installation).await.into_iter();
            found.rfind(|task| but.iter().all(|known| known.task_id != task.task_id))
        })
        .await
    };
    // Its caller dies, so that its answer stays.
    let first_call = ask_at(clock::now() - Duration::from_secs(70));
    let first = asked(&[]).await;
    first_call.abort();
    assert!(first_call.await.unwrap_err().is_cancelled());
    side.claim_task(&first).await.unwrap().unwrap();
    assert!(side.claim_task(&first).await.unwrap().is_err(), "claimed twice");
    side.answer_task(&first, &lines("of the first")).await.unwrap().unwrap();
    let answered = item(&installation, &first).await;
    assert!(!answered.contains_key("sealedOrder"), "the order goes with the answer");

    let second_call = ask_at(clock::now());
    // The next call has removed it.
    let second = asked(std::slice::from_ref(&first)).await;
    assert!(item(&installation, &first).await.is_empty());
    side.claim_task(&second).await.unwrap().unwrap();
    let mut forged = item(&installation, &second).await;
    forged.insert("status".to_owned(), AttributeValue::S("finished".to_owned()));
    forged.insert("sealedAnswer".to_owned(), answered["sealedAnswer"].clone());
    let dynamodb = installation.aws().clients().dynamodb;
    dynamodb.put_item().table_name(provision::TABLE).set_item(Some(forged)).send().await.unwrap();
    let refused = second_call.await.unwrap().unwrap_err();
    assert!(matches!(refused, tidegate_aws::error::StoreError::Corrupt { .. }), "{refused}");

    let third_call = ask_at(clock::now());
    let third = asked(&[]).await;
    side.claim_task(&third).await.unwrap().unwrap();
    side.answer_task(&third, &lines("of the third")).await.unwrap().unwrap();
    assert_eq!(third_call.await.unwrap().unwrap(), Some(lines("of the third")));
    assert!(tasks(&installation).await.is_empty());
}

async fn item(installation: &Installation, task: &StoredTask) -> HashMap<String, AttributeValue> {
    let key = crate::secrets::key(&keys::task(&stack::tenant(), &stack::host(), task.task_id));
    let get = installation.aws().clients().dynamodb.get_item().table_name(provision::TABLE).set_key(Some(key));
    get.consistent_read(true).send().await.unwrap().item.unwrap_or_default()
}

#[tokio::test]
async fn a_look_at_tasks_and_assignments_is_one_call() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    let application = installation.register(json!({})).await;
    installation.deploy(&application, "v1").await.expect(202);
    let image = ImageName::parse(&application.image).unwrap();
    let name = ContainerName::parse("any").unwrap();
    let order = TaskOrder { application_id: ApplicationId(application.id), name, what: What::Prune { image } };
    let store = installation.stack.store().clone();
    let waiting = tokio::spawn(async move { store.ask(&stack::tenant(), &stack::host(), &order, clock::now()).await });
    eventually("the task", async || (tasks(&installation).await.len() == 1).then_some(())).await;
    let meter = Meter::default();
    let (tenant, queues) = (stack::tenant(), installation.stack.queues());
    let config = HostConfig {
        table: provision::TABLE.to_owned(),
        queue_url: format!("{}{tenant}_{}", queues.host_url_prefix, stack::HOST),
        reports_queue_url: queues.reports_url.clone(),
        tenant,
        host: stack::host(),
    };
    let side = HostSide::new(&Clients::new(installation.aws().sdk_config(), Some(meter.clone())), config);
    let work = side.look().await.unwrap();
    assert_eq!((work.assignments.len(), work.tasks.len()), (1, 1));
    let calls = meter.take();
    assert_eq!(calls.len(), 1, "{calls:?}");
    waiting.abort();
}

/// Another container with the same image, labels and environment; `deployment` in place of the one it is labelled with.
async fn create_like(docker: &Docker, like: &str, name: &str, terminal: bool, deployment: Option<&str>) {
    let inspected = docker.inspect_container(like, None::<InspectContainerOptions>).await.unwrap();
    let config = inspected.config.unwrap();
    let mut labels = config.labels.unwrap();
    if let Some(deployment) = deployment {
        labels.insert("tidegate.deployment".to_owned(), deployment.to_owned());
    }
    let body = ContainerCreateBody {
        image: inspected.image,
        labels: Some(labels),
        env: config.env,
        tty: Some(terminal),
        ..Default::default()
    };
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    docker.create_container(Some(options), body).await.unwrap();
}

async fn replace(docker: &Docker, name: &str, terminal: bool, deployment: Option<&str>) {
    let new = format!("{name}-new");
    create_like(docker, name, &new, terminal, deployment).await;
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(name, Some(force)).await.unwrap();
    let rename = RenameContainerOptionsBuilder::default().name(name).build();
    docker.rename_container(&new, rename).await.unwrap();
    docker.start_container(name, None::<StartContainerOptions>).await.unwrap();
}

#[tokio::test]
async fn a_container_is_shown_only_with_its_own_releases_secrets() {
    let installation = Installation::start().await;
    let docker = &installation.docker;
    let (application, stranger) = (running(&installation, json!({})).await, running(&installation, json!({})).await);
    let first = logs(&installation, &application, "").await.expect(200)["deploymentId"].clone();
    let strange = logs(&installation, &stranger, "").await.expect(200)["deploymentId"].clone();
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    // Brought back by hand; with a terminal.
    replace(docker, &application.container, true, first.as_str()).await;
    let shown = eventually("its first line", async || {
        let shown = logs(&installation, &application, "").await.expect(200);
        (!texts(&shown).is_empty()).then_some(shown)
    })
    .await;
    assert_eq!((&shown["deploymentId"], &shown["version"]), (&first, &json!("v1")));
    assert_eq!(texts(&shown), ["demo: version=v2 mode=ok port=8080"]);
    assert_eq!((&shown["lines"][0]["at"], &shown["lines"][0]["stream"]), (&Value::Null, &json!("stdout")));
    // A host that names a release of something else learns nothing.
    for deployment in [strange.as_str().unwrap(), "01890a5d-ac96-774b-bcce-b302099a8057"] {
        replace(docker, &application.container, false, Some(deployment)).await;
        let refused = logs(&installation, &application, "").await.expect(409);
        assert!(refused["type"].as_str().unwrap().ends_with("/no-logs"), "{refused}");
    }
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&application.container, Some(force)).await.unwrap();
    assert_eq!(logs(&installation, &application, "").await.expect(409)["code"], "no-container");
}

#[tokio::test]
async fn a_log_that_nobody_keeps_is_told() {
    let installation = Installation::start().await;
    let application = running(&installation, json!({"container": {"log": {"driver": "none"}}})).await;
    let refused = logs(&installation, &application, "").await.expect(409);
    assert_eq!(refused["code"], "not-kept", "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("its log driver, none,"), "{refused}");
}
