//! The way over from V1, with the command that people use and the API that it uses.

mod faults;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use http_body_util::BodyExt as _;
use hyper::{Request, body::Incoming};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_domain::{permission::Role, secret::Secret};
use tidegate_local::{
    demo_image::{self, Mode},
    import_v1::{self, Credential, ImportError, Options, Outcome},
    stack::{self, Stack},
};

use crate::{
    orders::{by_hand, inspect},
    support::{
        Application, Installation, Setup,
        binaries::binary,
        free_port,
        relay::{Body, Broken, Fate, Place, Relay, Victim, carry_out},
    },
};

/// Of the value below, as Node 20 encrypted it with an IV of 16 bytes.
const OLD_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const ENCRYPTED: &str =
    "07070707070707070707070707070707:b4fabb38f4a476a19150e9b7ce928168:69a9b20ba090a05376e5e004e111d9f99146";
const DECRYPTED: &str = "postgresql://db/ä";

/// What must not be told by anybody.
const HIDDEN: [&str; 6] = ["plain-one", "plain-two", "hidden-three", "shared-four", "69a9b20ba090", "postgresql://db"];

/// A folder with the files of a run.
struct Files(TempDir);

impl Files {
    fn new(dump: &Value, decisions: &Value) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::write(files.path("v1.json"), dump.to_string()).unwrap();
        fs::write(files.path("decisions.json"), decisions.to_string()).unwrap();
        fs::write(files.path("old.key"), format!("{OLD_KEY}\n")).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self, url: &str, token: &str) -> Options {
        Options {
            file: self.path("v1.json"),
            decisions: Some(self.path("decisions.json")),
            old_key_file: Some(self.path("old.key")),
            tokens_file: Some(self.path("tokens")),
            dry_run: false,
            url: url.to_owned(),
            credential: Credential::Token(Secret::new(token.to_owned())),
        }
    }

    /// Application, id and token of each line.
    fn tokens(&self) -> Vec<(String, u64, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let read = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            (text(&line["application"]), line["applicationId"].as_u64().unwrap(), text(&line["webhookToken"]))
        };
        fs::read_to_string(self.path("tokens")).unwrap().lines().map(read).collect()
    }
}

async fn run(options: Options) -> (Result<Outcome, ImportError>, String) {
    let mut out = Vec::new();
    let outcome = import_v1::run(&mut out, options).await;
    (outcome, String::from_utf8(out).unwrap())
}

async fn quiet() -> Installation {
    Installation::start_with(Setup { no_worker: true, no_sweeps: true, ..Setup::default() }).await
}

/// Of the kinds that there are, one thing each at least.
fn dump(image: &str, server: &str, port: u16) -> Value {
    json!({
        "repositories": [{"id": 1, "name": "own", "registry": server, "authType": "username-password", "username": "ci",
            "password": "hidden-three"}],
        "secrets": [{"id": 1, "name": "prod-db", "provider": "infisical", "reference": "/prod/db"},
            {"id": 2, "name": "DATABASE_URL", "value": ENCRYPTED}],
        "applications": [{"id": 1, "name": "shop", "image": image, "version": "v1", "port": port,
            "containerPort": demo_image::PORT, "env": {"API_KEY": "plain-one"}}],
        "environment_variables": [{"scope": "global", "key": "MODE", "value": "plain-two"},
            {"scope": "project", "project_id": 1, "key": "DATABASE_URL", "value": "@secret:2", "value_type": "secret_ref"}],
        "webhookSecret": "shared-four",
    })
}

/// All that an import can create.
async fn everything(installation: &Installation) -> Value {
    let mut all = json!({});
    let kinds = ["projects", "registries", "secret-groups", "secrets", "applications", "variables?scope=global"];
    let mut paths: Vec<_> = kinds.map(str::to_owned).into();
    let applications = installation.get("applications").await.expect(200);
    for application in applications["data"].as_array().unwrap() {
        paths.push(format!("variables?scope=application&applicationId={}", application["id"]));
    }
    for path in paths {
        all[&path] = installation.get(&path).await.expect(200)["data"].clone();
    }
    all
}

/// Names and keys of all of it, without ids.
fn names(all: &Value) -> Vec<String> {
    let text = |thing: &Value| thing["key"].as_str().or(thing["name"].as_str()).unwrap().to_owned();
    let lists = all.as_object().unwrap().values();
    lists.flat_map(|list| list.as_array().unwrap().iter().map(text)).collect()
}

#[track_caller]
fn tells_nothing_hidden(told: &str) {
    for hidden in HIDDEN {
        assert!(!told.contains(hidden), "{hidden} is in {told}");
    }
}

#[tokio::test]
async fn a_dry_run_tells_what_is_to_be_done_and_changes_nothing() {
    let installation = quiet().await;
    let files = Files::new(&dump("registry.example.com/shop", "registry.example.com", 8080), &json!({}));
    let before = everything(&installation).await;
    let options = Options { dry_run: true, ..files.options(&installation.stack.url(), &installation.admin_token) };
    let (outcome, told) = run(options).await;
    assert_eq!(outcome.unwrap(), Outcome::DecisionsNeeded);
    assert_eq!(everything(&installation).await, before);
    assert!(!files.path("tokens").exists());
    for line in [
        "+ project v1",
        "+ registry own",
        "+ secret group v1",
        "+ secret v1/DATABASE_URL",
        "+ application shop: registry.example.com/shop, 8080->",
        "+ variable application/shop.API_KEY: as a secret",
        "+ variable global.MODE",
        "+ variable application/shop.DATABASE_URL",
        "? secret prod-db [no-value]",
        "- the shared webhook secret",
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
    tells_nothing_hidden(&told);
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_a_difference_is_asked_about() {
    let installation = quiet().await;
    let skip = json!({"secrets": {"prod-db": "skip"}});
    let files = Files::new(&dump("registry.example.com/shop", "registry.example.com", 8080), &skip);
    let options = || files.options(&installation.stack.url(), &installation.admin_token);
    let (outcome, told) = run(options()).await;
    assert_eq!(outcome.unwrap(), Outcome::Done, "{told}");
    tells_nothing_hidden(&told);
    let (made, tokens) = (everything(&installation).await, files.tokens());
    tells_nothing_hidden(&made.to_string().replace("plain-two", ""));
    assert_eq!(fs::metadata(files.path("tokens")).unwrap().permissions().mode() & 0o777, 0o600);

    let (outcome, told) = run(options()).await;
    assert_eq!(outcome.unwrap(), Outcome::Done, "{told}");
    assert!(told.contains("Nothing is to be created."), "{told}");
    assert_eq!(everything(&installation).await, made);
    assert_eq!(files.tokens(), tokens);

    installation.put("variables/global.MODE", &json!({"value": "by hand"})).await.expect(200);
    let by_hand = everything(&installation).await;
    let (outcome, told) = run(options()).await;
    assert_eq!(outcome.unwrap(), Outcome::DecisionsNeeded, "{told}");
    assert!(told.contains("? variable global.MODE [differs]"), "{told}");
    assert_eq!(everything(&installation).await, by_hand);
}

#[tokio::test]
async fn what_v1_ran_gives_way_to_the_first_deployment() {
    let installation = Installation::start().await;
    let other = installation.register(json!({})).await;
    assert_eq!(installation.release(&other, "v1", Mode::Ok).await["status"], "succeeded");
    let image = inspect(&installation, &other.container).await.image.unwrap();
    let server = installation.registry.server();
    let mut application = Application {
        id: 0,
        token: String::new(),
        port: free_port(),
        image: format!("{server}/demo/shop"),
        container: format!("{}shop", installation.prefix),
    };
    let v1 = by_hand(&installation, &application, &image).await;

    let mut dump = dump(&application.image, &server, application.port);
    dump["repositories"][0]["password"] = installation.registry.password().into();
    dump["repositories"][0]["username"] = installation.registry.user().into();
    let files = Files::new(&dump, &json!({"secrets": {"prod-db": "skip"}}));
    let (outcome, told) = run(files.options(&installation.stack.url(), &installation.admin_token)).await;
    assert_eq!(outcome.unwrap(), Outcome::Done, "{told}");
    assert_eq!(inspect(&installation, &application.container).await.id.as_ref(), Some(&v1), "nothing was deployed yet");

    (_, application.id, application.token) = files.tokens().into_iter().next().unwrap();
    let ended = installation.release(&application, "v2", Mode::Ok).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v2\n");
    let runs = inspect(&installation, &application.container).await;
    assert_ne!(runs.id, Some(v1));
    let variables = runs.config.unwrap().env.unwrap();
    for expected in ["API_KEY=plain-one", "MODE=plain-two", &format!("DATABASE_URL={DECRYPTED}")] {
        assert!(variables.iter().any(|variable| variable == expected), "{expected} is not there");
    }
}

/// Loses the answers to creations with keys that are new, once each and all in a run.
struct Losing {
    relay: Relay,
    keys: Arc<Mutex<(BTreeSet<String>, BTreeSet<String>)>>,
}

impl Losing {
    async fn before(address: SocketAddr) -> Self {
        let keys: Arc<Mutex<(BTreeSet<String>, BTreeSet<String>)>> = Arc::default();
        let own = Arc::clone(&keys);
        let handle = move |request: Request<Incoming>| {
            let own = Arc::clone(&own);
            let answering = async move {
                let key = request.headers().get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
                let fate = match key {
                    Some(key) => {
                        let mut keys = own.lock().unwrap();
                        if keys.0.contains(&key) {
                            Fate::Pass
                        } else {
                            keys.1.insert(key);
                            Fate::LoseAnswer
                        }
                    }
                    None => Fate::Pass,
                };
                let request: Request<Body> = request.map(|body| body.map_err(Broken::from).boxed());
                carry_out(fate, request, &Place::Tcp(address), &Victim::default()).await
            };
            Box::pin(answering) as _
        };
        let place = Place::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        Self { relay: Relay::listen(place, Arc::new(handle)).await, keys }
    }

    /// What was lost until now passes from now on.
    fn forgive(&self) {
        let mut keys = self.keys.lock().unwrap();
        let lost = std::mem::take(&mut keys.1);
        keys.0.extend(lost);
    }
}

#[tokio::test]
async fn runs_that_break_off_after_every_creation_end_as_one_that_does_not() {
    let (installation, straight) = (quiet().await, quiet().await);
    let mut dump = dump("registry.example.com/shop", "registry.example.com", 8080);
    let mail = json!({"id": 2, "name": "mail", "image": "registry.example.com/mail", "version": "v1"});
    dump["applications"].as_array_mut().unwrap().push(mail);
    let skip = json!({"secrets": {"prod-db": "skip"}});
    let whole = Files::new(&dump, &skip);
    run(whole.options(&straight.stack.url(), &straight.admin_token)).await.0.unwrap();
    let expected = names(&everything(&straight).await);

    let files = Files::new(&dump, &skip);
    let losing = Losing::before(installation.stack.address()).await;
    let mut broken_off = 0;
    loop {
        let (outcome, told) = run(files.options(&losing.relay.url(), &installation.admin_token)).await;
        tells_nothing_hidden(&told);
        match outcome {
            Ok(outcome) => break assert_eq!(outcome, Outcome::Done, "{told}"),
            Err(ImportError::Api(_)) => broken_off += 1,
            Err(error) => panic!("{error}: {told}"),
        }
        assert!(broken_off <= expected.len(), "each run gets on by one: {told}");
        losing.forgive();
    }
    assert_eq!(broken_off, expected.len(), "after each creation");
    assert_eq!(names(&everything(&installation).await), expected);

    assert!(!files.path("tokens.unfinished").exists());
    let tokens = files.tokens();
    assert_eq!(tokens.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["shop", "mail"]);
    for (_, id, token) in tokens {
        let body = json!({"applicationId": id, "version": "v1", "token": token});
        installation.call(reqwest::Method::POST, "/webhook/deploy", None, &[], Some(&body)).await.expect(202);
    }
}

/// Its status, and all that it said.
fn command(installation: &Installation, files: &Files, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(binary("tidegate"));
    command.args(["import-v1", "--url", &installation.stack.url()]).arg(files.path("v1.json")).args(arguments);
    command.env("TIDEGATE_TOKEN", &installation.admin_token).env("PROD_DB", "hidden-three").current_dir(files.0.path());
    let output = command.output().unwrap();
    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), told)
}

fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_goes_from_faults_over_decisions_to_the_end() {
    let installation = quiet().await;
    let good = dump("registry.example.com/shop", "registry.example.com", 8080);
    let mut bad = good.clone();
    bad["applications"][0]["contanerPort"] = "plain-one".into();
    bad["secrets"][0]["name"] = "hidden-three/x".into();
    bad["nonsense"] = json!(["plain-two"]);
    let files = Files::new(&bad, &json!({}));
    let before = everything(&installation).await;
    let (status, told) = command(&installation, &files, &[]);
    assert_eq!(status, 1, "{told}");
    for path in
        ["applications[0].contanerPort [unknown-field]", "secrets[0].name [format-name]", "nonsense [unknown-table]"]
    {
        assert!(told.contains(path), "{path} is not in {told}");
    }
    tells_nothing_hidden(&told);
    write(&files.path("v1.json"), "{\"applications\": plain-one");
    let (status, told) = command(&installation, &files, &[]);
    assert_eq!(status, 1, "{told}");
    tells_nothing_hidden(&told);
    assert_eq!(everything(&installation).await, before);

    write(&files.path("v1.json"), &good.to_string());
    let (status, told) = command(&installation, &files, &["--tokens-file", "tokens"]);
    assert_eq!(status, 3, "{told}");
    for question in ["? secret prod-db [no-value]", "? secret DATABASE_URL [encrypted]", "[waits]"] {
        assert!(told.contains(question), "{question} is not in {told}");
    }
    tells_nothing_hidden(&told);
    write(&files.path("wrong.key"), &"00".repeat(32));
    let (status, told) = command(&installation, &files, &["--old-key-file", "wrong.key"]);
    assert_eq!(status, 3, "{told}");
    assert!(told.contains("? secret DATABASE_URL [wrong-key]"), "{told}");
    write(&files.path("decisions.toml"), "[secrets]\nprod-db = { valueFromEnv = \"PROD_DB\" }\n");
    let (status, told) =
        command(&installation, &files, &["--old-key-file", "old.key", "--decisions", "decisions.toml"]);
    assert_eq!(status, 0, "{told}");
    tells_nothing_hidden(&told);
    let secrets = installation.get("secrets").await.expect(200);
    let names: Vec<_> = secrets["data"].as_array().unwrap().iter().map(|secret| secret["name"].clone()).collect();
    assert_eq!(names, ["prod-db", "DATABASE_URL"], "in the order of the file");
    assert_eq!(files.tokens().len(), 1);
}

#[tokio::test]
async fn somebody_signs_in_and_sees_each_token_once() {
    let password = || Secret::new("a password of this test".to_owned());
    let options = stack::Options {
        admin_password: Some(password()),
        worker: false,
        sweeps: false,
        ..stack::Options::throw_away()
    };
    let stack = Box::pin(Stack::start(options)).await.unwrap();
    let files = Files::new(&dump("registry.example.com/shop", "registry.example.com", 8080), &json!({}));
    let options = |password| Options {
        tokens_file: None,
        credential: Credential::Person { user: "admin".to_owned(), password },
        ..files.options(&stack.url(), "")
    };
    let (refused, told) = run(options(Secret::new("another".to_owned()))).await;
    assert!(matches!(refused, Err(ImportError::Api(_))), "{told}");
    let (outcome, told) = run(Options { decisions: None, ..options(password()) }).await;
    assert_eq!(outcome.unwrap(), Outcome::DecisionsNeeded, "{told}");
    assert_eq!(told.matches("whk_").count(), 1, "{told}");
    let (_, again) = run(options(password())).await;
    assert!(!again.contains("whk_"), "{again}");
    stack.stop().await;
}

#[tokio::test]
async fn a_token_that_nobody_was_shown_is_not_passed_over() {
    let installation = quiet().await;
    let files = Files::new(
        &dump("registry.example.com/shop", "registry.example.com", 8080),
        &json!({"secrets": {"prod-db": "skip"}}),
    );
    let losing = Losing::before(installation.stack.address()).await;
    let url = losing.relay.url();
    // Until the answer with the token is lost; then somebody else goes on.
    while !files.path("tokens.unfinished").exists() {
        let (outcome, told) = run(files.options(&url, &installation.admin_token)).await;
        assert!(matches!(outcome, Err(ImportError::Api(_))), "{told}");
        losing.forgive();
    }
    let anna = installation.person("anna", Role::Admin).await;
    for _ in 0..2 {
        let (outcome, told) = run(files.options(&url, &anna)).await;
        let lost = outcome.unwrap_err();
        let of_shop = matches!(&lost, ImportError::TokenLost { application, id: 1, .. } if application == "shop");
        assert!(of_shop && lost.to_string().contains("/applications/1/webhook-token"), "{lost}: {told}");
        assert!(files.path("tokens.unfinished").exists());
    }
    // It is still the first one's to hear, and then nothing is lost.
    while let (Err(error), told) = run(files.options(&url, &installation.admin_token)).await {
        assert!(matches!(error, ImportError::Api(_)), "{error}: {told}");
        losing.forgive();
    }
    assert_eq!(files.tokens().len(), 1);
    let attempt = json!({"url": url, "key": "import-v1-again", "body": {"name": "shop", "projectId": 1, "image": "x"}});
    fs::write(files.path("tokens.unfinished"), attempt.to_string()).unwrap();
    while let (Err(error), told) = run(files.options(&url, &anna)).await {
        assert!(matches!(error, ImportError::Api(_)), "its token is in the file: {error}: {told}");
        losing.forgive();
    }
    assert!(!files.path("tokens.unfinished").exists());
}

#[tokio::test]
async fn numbers_come_over_as_they_are_written() {
    let installation = quiet().await;
    let files = Files::new(&json!({}), &json!({}));
    let rows = r#"{"environment_variables": [{"id": 12345678901234567890123, "key": "RATE", "value": 1.50},
        {"key": "MANY", "value": 1e6, "value_type": "number"},
        {"key": "LIST", "value": {"a": [1.50, 1]}, "value_type": "json"}]}"#;
    write(&files.path("v1.json"), rows);
    let (outcome, told) = run(files.options(&installation.stack.url(), &installation.admin_token)).await;
    assert_eq!(outcome.unwrap(), Outcome::Done, "{told}");
    let all = installation.get("variables?scope=global").await.expect(200);
    let value = |key: &str| all["data"].as_array().unwrap().iter().find(|v| v["key"] == key).unwrap()["value"].clone();
    assert_eq!((value("RATE"), value("MANY")), (json!("1.50"), json!("1e6")));
    assert_eq!(value("LIST"), r#"{"a": [1.50, 1]}"#);
}
