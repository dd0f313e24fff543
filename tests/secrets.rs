//! A secret reaches its container, and stands nowhere else in a form that can be read.

pub(crate) mod logs;
pub(crate) mod needles;
mod places;
mod tap;

use std::{collections::HashMap, path::Path, process::Command};

use aws_sdk_dynamodb::types::AttributeValue;
use reqwest::Method;
use serde_json::json;
use tidegate_aws::{clients::Clients, keys::Key, random};
use tidegate_local::{demo_image::Mode, provision, stack};

use self::{
    logs::{Log, Logged},
    needles::{Needles, Searched},
    tap::Tap,
};
use crate::support::{Answer, Application, Installation, Setup, binaries::binary, eventually, free_port, hex};

/// An item's key as the SDK takes it.
pub(crate) fn key(key: &Key) -> HashMap<String, AttributeValue> {
    let text = |value: &String| AttributeValue::S(value.clone());
    HashMap::from([("pk".to_owned(), text(&key.pk)), ("sk".to_owned(), text(&key.sk))])
}

/// With what JSON, URLs, base64 and logs treat specially; no two have the same words.
fn marked() -> String {
    format!("s\"é?>~/+={}\n{}", hex(&random::bytes::<8>()), hex(&random::bytes::<12>()))
}

/// The secrets of an application, and one value that is none: where that is not found, nobody has looked.
struct Marked {
    of_group: String,
    variable: String,
    parameter: String,
    plain: String,
    admin_password: String,
}

impl Marked {
    fn new() -> Self {
        let admin_password = hex(&random::bytes::<16>());
        Self { of_group: marked(), variable: marked(), parameter: marked(), plain: marked(), admin_password }
    }

    fn secrets(&self, registry_password: &str, tokens: &[&str]) -> Needles {
        let mut values = vec![
            ("the secret of a group", self.of_group.as_str()),
            ("the secret variable", &self.variable),
            ("the request's sensitive parameter", &self.parameter),
            ("the administrator's password", &self.admin_password),
            ("the registry's password", registry_password),
        ];
        values.extend(tokens.iter().map(|token| ("a webhook token", *token)));
        Needles::of(&values)
    }

    fn plain(&self) -> Needles {
        Needles::of(&[("the plain variable", &self.plain)])
    }
}

/// Registers an application with all of them; the answers to that.
async fn configure(installation: &Installation, marked: &Marked) -> (Application, Vec<String>) {
    let mut answers = Vec::new();
    let group = installation.post("secret-groups", &json!({"name": "db"})).await;
    let group_id = group.expect(201)["id"].clone();
    let secret = json!({"groupId": group_id, "name": "URL", "value": marked.of_group});
    let secret = installation.post("secrets", &secret).await;
    let secret_id = secret.expect(201)["id"].clone();
    answers.extend([group.text, secret.text]);
    let parameters = json!([{"name": "PARAMETER", "type": "string", "sensitive": true, "multiline": true}]);
    let application = installation.register(json!({ "parameters": parameters })).await;
    for variable in [
        json!({"key": "OF_GROUP", "value": format!("@secret:{secret_id}"), "valueType": "secret_ref"}),
        json!({"key": "OWN", "value": marked.variable, "isSecret": true}),
        json!({"key": "PLAIN", "value": marked.plain}),
        // What the broken version prints before it ends.
        json!({"key": "LEAK", "value": "OF_GROUP"}),
    ] {
        let mut variable = variable;
        variable["applicationId"] = application.id.into();
        let created = installation.post("variables", &variable).await;
        created.expect(201);
        answers.push(created.text);
    }
    (application, answers)
}

/// All that the API shows of the installation.
async fn read_all(http: &reqwest::Client, url: &str, admin: &str, application: &Application) -> Vec<String> {
    let id = application.id;
    let lists = ["projects", "registries", "secret-groups", "secrets", "applications", "deployments", "hosts"];
    let mut paths: Vec<_> = lists.into_iter().map(|list| format!("{list}?limit=200")).collect();
    paths.extend(["registries/1", "secrets/1"].map(str::to_owned));
    paths.extend([format!("applications/{id}"), format!("variables?scope=application&applicationId={id}")]);
    paths.extend(["OF_GROUP", "OWN", "PLAIN"].map(|key| format!("variables/application-{id}.{key}")));
    let mut answers = Vec::new();
    let mut asked = 0;
    while let Some(path) = paths.get(asked).cloned() {
        asked += 1;
        let sent = http.get(format!("{url}/api/v2/{path}")).bearer_auth(admin).send().await.unwrap();
        let answer = Answer::of(sent).await;
        let body = answer.expect(200);
        if path.starts_with("deployments?") {
            let ids = body["data"].as_array().unwrap().iter().map(|shown| shown["deploymentId"].as_str().unwrap());
            paths.extend(ids.map(|id| format!("deployments/{id}")));
        }
        answers.push(format!("{:?} {}", answer.headers, answer.text));
    }
    answers
}

/// Every item of the table, as the SDK shows it.
pub(crate) async fn items(clients: &Clients) -> Vec<HashMap<String, AttributeValue>> {
    let (mut items, mut after) = (Vec::new(), None);
    loop {
        let scan = clients.dynamodb.scan().table_name(provision::TABLE).set_exclusive_start_key(after);
        let page = scan.send().await.unwrap();
        items.extend(page.items.unwrap_or_default());
        after = page.last_evaluated_key;
        if after.is_none() {
            return items;
        }
    }
}

/// What waits in a queue now.
async fn messages(clients: &Clients, url: &str) -> Vec<String> {
    let receive = clients.sqs.receive_message().queue_url(url).max_number_of_messages(10);
    // Left where they are.
    let received = receive.visibility_timeout(0).send().await.unwrap();
    received.messages.unwrap_or_default().into_iter().filter_map(|message| message.body).collect()
}

async fn search_at_rest(clients: &Clients, folder: &Path, needles: &Needles, searched: &mut Searched) {
    for item in items(clients).await {
        needles.search("an item of the table", format!("{item:?}"), searched);
    }
    needles.search_folder(folder, searched);
}

/// The real worker of this installation, which speaks with AWS through taps.
async fn start_worker(installation: &Installation, folder: &Path) -> (Logged, [Tap; 2]) {
    let (aws, queues) = (installation.aws(), installation.stack.queues());
    let taps = [Tap::before(&aws.dynamodb_url()).await, Tap::before(&aws.sqs_kms_url()).await];
    let config = json!({"tenant": "default", "host": "local", "table": provision::TABLE,
        "queue_url": format!("{}default_local", queues.host_url_prefix), "reports_queue_url": queues.reports_url,
        "data": folder.join("worker"), "stable_seconds": 1, "container_prefix": installation.prefix});
    let lines = config.as_object().unwrap().iter().map(|(name, value)| format!("{name} = {value}\n"));
    let file = folder.join("worker.toml");
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    let mut command = Command::new(binary("tidegate-worker"));
    command.arg("--config").arg(file).envs(aws.environment()).env("TIDEGATE_LOG", logs::FILTER);
    command.env("AWS_ENDPOINT_URL_DYNAMODB", &taps[0].url);
    command.env("AWS_ENDPOINT_URL_SQS", &taps[1].url).env("AWS_ENDPOINT_URL_KMS", &taps[1].url);
    (Logged::start(&mut command), taps)
}

/// All that Docker shows of a container but its environment, which is where the secrets belong.
async fn shown_by_docker(installation: &Installation, application: &Application) -> String {
    let inspected = installation.docker.inspect_container(&application.container, None).await;
    let mut shown = serde_json::to_value(inspected.unwrap()).unwrap();
    let environment = shown["Config"]["Env"].take();
    assert!(environment.as_array().is_some_and(|variables| variables.len() > 4), "{shown}");
    assert!(shown["Config"]["Labels"]["tidegate.application"].is_string(), "{shown}");
    shown.to_string()
}

#[tokio::test]
async fn a_secret_reaches_its_container_and_can_be_read_nowhere_else() {
    let (marked, folder, log) = (Marked::new(), tempfile::tempdir().unwrap(), Log::of_this_process());
    let setup = Setup { data: Some(folder.path()), no_worker: true, ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let clients = installation.aws().clients();
    let (application, mut answers) = configure(&installation, &marked).await;
    let repeated = token_of_a_repeated_creation(&installation, &application).await;
    let secrets = marked.secrets(installation.registry.password(), &[&application.token, &repeated]);
    let mut searched = Searched::default();

    // Admitted and sealed for its host, which does not work yet.
    installation.push(&application, "v1", Mode::Ok).await;
    let fields = json!({"version": "v1", "variables": {"PARAMETER": marked.parameter}});
    let accepted = installation.deploy_with(&application, &fields, &[("Idempotency-Key", "once")]).await;
    let first = accepted.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    answers.push(accepted.text);
    assert_eq!(installation.side_of(&stack::host()).assignments().await.unwrap().len(), 1);
    search_at_rest(&clients, folder.path(), &secrets, &mut searched).await;

    // Done by the real worker.
    let elsewhere = tempfile::tempdir().unwrap();
    let (worker, taps) = start_worker(&installation, elsewhere.path()).await;
    let ended = installation.ended(&application, &first).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    let given = [("OF_GROUP", &marked.of_group), ("OWN", &marked.variable), ("PARAMETER", &marked.parameter)];
    for (name, value) in given.into_iter().chain([("PLAIN", &marked.plain)]) {
        assert_eq!(&installation.visit(&application, &format!("/env/{name}")).await.unwrap(), value, "{name}");
    }
    secrets.search("Docker", shown_by_docker(&installation, &application).await, &mut searched);

    // A version that prints a secret and ends.
    let broken = installation.release(&application, "v2", Mode::Broken).await;
    assert_eq!(broken["status"], "rolled_back", "{broken}");
    let tail = broken["error"]["logTail"].as_array().or(broken["targets"][0]["error"]["logTail"].as_array());
    let last_words = tail.unwrap().iter().map(|line| line.as_str().unwrap()).collect::<String>();
    assert!(last_words.contains("connecting with ***"), "{last_words}");
    answers.extend([ended.to_string(), broken.to_string()]);
    answers
        .extend(read_all(&installation.http, &installation.stack.url(), &installation.admin_token, &application).await);
    search_at_rest(&clients, folder.path(), &secrets, &mut searched).await;
    let held = items(&clients).await;
    let queues = installation.stack.queues();
    let host_queue = format!("{}default_local", queues.host_url_prefix);
    for url in [&host_queue, &queues.reports_url, &queues.reports_dead_letters_url] {
        for message in messages(&clients, url).await {
            secrets.search("a message", message, &mut searched);
        }
    }
    let passed: Vec<_> = taps.iter().flat_map(Tap::seen).collect();
    for body in &passed {
        secrets.search("between the worker and AWS", body, &mut searched);
    }
    let worker_log = worker.end();
    secrets.search("the worker's log", &worker_log, &mut searched);
    secrets.search_folder(elsewhere.path(), &mut searched);
    installation.stack.stop().await;

    // All of it in one process, started again on the same folder.
    let (restarted_log, more) = restarted(&installation.http, folder.path(), &marked, &application).await;
    secrets.search("the log of `tidegate`", &restarted_log, &mut searched);
    answers.extend(more);
    secrets.search_folder(folder.path(), &mut searched);
    let own_log = log.text();
    secrets.search("the log of the stack in this process", &own_log, &mut searched);
    for answer in &answers {
        secrets.search("an answer", answer, &mut searched);
    }

    assert_eq!(searched.hits, Vec::<String>::new());
    check_that_all_was_looked_at(&marked, &held, folder.path(), &answers, &passed, &first);
    let plain = marked.plain();
    let logs = [
        ("worker", worker_log, first.as_str()),
        ("tidegate", restarted_log, "answered"),
        ("stack", own_log, "answered"),
    ];
    for (what, log, tells) in logs {
        assert!(String::from_utf8_lossy(&log).contains(tells), "nobody has kept the log of {what}");
        let mut searched = Searched::default();
        plain.search(what, log, &mut searched);
        assert_eq!(searched.hits, Vec::<String>::new(), "logs never hold a value");
    }
    println!(
        "figure: 7 secrets in {} forms, looked for in {} files, items, messages, logs and answers of {} KiB: found 0 times",
        secrets.patterns(),
        searched.places,
        searched.bytes / 1024
    );
}

/// The sealed answer to an idempotency key holds a token; both answers show it.
async fn token_of_a_repeated_creation(installation: &Installation, like: &Application) -> String {
    let shown = installation.get(&format!("applications/{}", like.id)).await.expect(200);
    let body = json!({"projectId": shown["projectId"], "name": format!("{}-b", shown["name"].as_str().unwrap()),
        "image": shown["image"], "registryId": shown["registryId"], "hosts": {"names": ["local"]}});
    let create = async || {
        let headers = [("Idempotency-Key", "created-once")];
        let admin = Some(installation.admin_token.as_str());
        installation.call(Method::POST, "/api/v2/applications", admin, &headers, Some(&body)).await.expect(201)
    };
    let (first, again) = (create().await, create().await);
    assert_eq!(first["webhookToken"], again["webhookToken"]);
    first["webhookToken"].as_str().unwrap().to_owned()
}

/// Starts `tidegate` on the folder, reads all, deploys once more, and kills it; its output and its answers.
async fn restarted(
    http: &reqwest::Client,
    folder: &Path,
    marked: &Marked,
    application: &Application,
) -> (Vec<u8>, Vec<String>) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(binary("tidegate"));
    command.arg("--data").arg(folder).args(["--listen", &address]).env("TIDEGATE_LOG", logs::FILTER);
    command.env("TIDEGATE_ADMIN_PASSWORD", &marked.admin_password);
    // Without an engine: the containers of others on this machine are not its own.
    command.env("DOCKER_HOST", format!("unix://{}", folder.join("no-docker.sock").display()));
    let tidegate = Logged::start(&mut command);
    let says = |word: &str| String::from_utf8_lossy(&tidegate.log().text()).contains(word);
    eventually("that it answers", async || says("Tidegate answers on").then_some(())).await;
    let url = format!("http://{address}");
    let sign_in = json!({"username": "admin", "password": marked.admin_password});
    let signed_in =
        Answer::of(http.post(format!("{url}/api/v2/auth/login")).json(&sign_in).send().await.unwrap()).await;
    let admin = signed_in.expect(200)["token"].as_str().unwrap().to_owned();
    let mut answers = read_all(http, &url, &admin, application).await;
    let deploy = json!({"applicationId": application.id, "token": application.token, "version": "v1",
        "variables": {"PARAMETER": marked.parameter}});
    let accepted = Answer::of(http.post(format!("{url}/webhook/deploy")).json(&deploy).send().await.unwrap()).await;
    accepted.expect(202);
    answers.extend([signed_in.text, accepted.text]);
    (tidegate.end(), answers)
}

/// The plain value is found where values are kept, and the deployment where it was told of.
fn check_that_all_was_looked_at(
    marked: &Marked,
    held: &[HashMap<String, AttributeValue>],
    folder: &Path,
    answers: &[String],
    passed: &[axum::body::Bytes],
    deployment: &str,
) {
    let plain = marked.plain();
    let found = |contents: &mut dyn Iterator<Item = Vec<u8>>| {
        let mut searched = Searched::default();
        contents.for_each(|content| plain.search("", content, &mut searched));
        !searched.hits.is_empty()
    };
    assert!(found(&mut held.iter().map(|item| format!("{item:?}").into())), "in the table");
    let files = needles::files(folder);
    assert!(found(&mut files.iter().map(|file| std::fs::read(file).unwrap())), "in a file: {files:?}");
    assert!(found(&mut answers.iter().map(|answer| answer.clone().into())), "in an answer");
    let tells = |word: &str| passed.iter().any(|body| String::from_utf8_lossy(body).contains(word));
    assert!(tells(deployment) && tells("sealedJob") && tells("MessageBody") && tells("leaseUntil"));
    for name in ["dynamodb.sqlite", "sqs.json", "kms.json"] {
        assert!(files.iter().any(|file| file.ends_with(name)), "{files:?}");
    }
    for kind in ["snapshot", "data_key", "idempotency"] {
        let is_kind = |item: &HashMap<_, _>| format!("{item:?}").to_lowercase().contains(kind);
        assert!(held.iter().any(is_kind), "no item of {kind}");
    }
}
