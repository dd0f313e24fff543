//! What was refused, or waits, leaves nothing of its values anywhere that can be read.

use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_aws::random;

use crate::{
    secrets::{
        items,
        logs::Log,
        needles::{Needles, Searched},
    },
    support::{Answer, Application, Installation, Setup, hex},
};

/// Of every type, where none but the first two are said to be sensitive: nobody knows what a caller writes into a field.
const PARAMETERS: &[(&str, &str)] = &[
    ("SECRET_TEXT", "string"),
    ("SECRET_KEY", "public_key"),
    ("TEXT", "string"),
    ("NUMBER", "number"),
    ("BOOLEAN", "boolean"),
    ("JSON", "json"),
    ("EMAIL", "email"),
    ("IPV4", "ipv4"),
    ("IP", "ip"),
    ("DOMAIN", "domain"),
    ("HOST", "host"),
    ("URL", "url"),
    ("KEY", "public_key"),
];

fn mark() -> String {
    format!("mark{}", hex(&random::bytes::<12>()))
}

/// A value of no type, with the mark in it.
fn wrong(name: &str, mark: &str) -> String {
    match name {
        "EMAIL" => format!("{mark}@@example.org"),
        "IPV4" | "IP" => format!("10.0.0.{mark}"),
        "DOMAIN" => format!("{mark}..example.org"),
        "HOST" => format!("{mark}.localhost:99999"),
        "URL" => format!("https://user:{mark}@example.org/#{mark}"),
        "KEY" | "SECRET_KEY" => format!("-----BEGIN PRIVATE KEY-----\n{mark}\n-----END PRIVATE KEY-----\n"),
        "JSON" => format!("{{\"{mark}\": "),
        _ => format!("{mark}\u{0}"),
    }
}

struct Asked {
    marks: Vec<String>,
    /// Of fields that nobody has declared: the caller is told which, and nobody else.
    names: Vec<String>,
    answers: Vec<String>,
    /// What everybody is shown later.
    shown: Vec<String>,
}

impl Asked {
    fn mark(&mut self) -> String {
        let mark = mark();
        self.marks.push(mark.clone());
        mark
    }

    fn name(&mut self) -> String {
        let name = mark();
        self.names.push(name.clone());
        name
    }

    fn keep(&mut self, answer: &Answer) {
        self.answers.push(format!("{:?} {}", answer.headers, answer.text));
    }
}

async fn post(installation: &Installation, path: &str, body: &Value) -> Answer {
    installation.call(Method::POST, path, None, &[], Some(body)).await
}

/// Every field wrong at once, and each by itself; by CI, as a dry run, and by a person.
async fn refused(installation: &Installation, application: &Application, asked: &mut Asked) {
    let ci = |fields: Value| {
        let mut body = json!({"applicationId": application.id, "token": application.token});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        body
    };
    let mut bodies = Vec::new();
    let all: serde_json::Map<_, _> =
        PARAMETERS.iter().map(|(name, _)| ((*name).to_owned(), json!(wrong(name, &asked.mark())))).collect();
    bodies.push(json!({"version": format!("not/a/tag/{}", asked.mark()), "variables": all}));
    for (name, _) in PARAMETERS {
        bodies.push(json!({"version": "v1", "variables": {*name: wrong(name, &asked.mark())}}));
    }
    bodies.push(json!({"version": "v1", "variables": {asked.name(): asked.mark()}}));
    bodies.push(json!({"version": asked.mark() + " ", "variables": asked.mark()}));
    bodies.push(json!({"version": {"of": asked.mark()}, asked.name(): asked.mark()}));
    let person = format!("/api/v2/applications/{}/deployments", application.id);
    for body in bodies {
        for path in ["/webhook/deploy", "/webhook/validate"] {
            let answer = post(installation, path, &ci(body.clone())).await;
            assert_eq!(answer.status, 422, "{}", answer.text);
            asked.keep(&answer);
        }
        let admin = Some(installation.admin_token.as_str());
        let answer = installation.call(Method::POST, &person, admin, &[], Some(&body)).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        asked.keep(&answer);
    }
    // Not even who asks is known.
    let stranger = json!({"applicationId": application.id, "token": format!("whk_{}", asked.mark()),
        "version": asked.mark(), "variables": {"TEXT": asked.mark()}});
    let answer = post(installation, "/webhook/deploy", &stranger).await;
    assert_eq!(answer.status, 401);
    asked.keep(&answer);
}

/// What is right, and waits, or was refused by a person: kept sealed, and shown to who decides only.
async fn waiting(installation: &Installation, application: &Application, asked: &mut Asked) {
    for verb in ["reject", ""] {
        let variables = json!({"TEXT": asked.mark(), "SECRET_TEXT": asked.mark(),
            "URL": format!("https://{}.example.org/", asked.mark())});
        let answer =
            installation.deploy_with(application, &json!({"version": "v1", "variables": variables}), &[]).await;
        let id = answer.expect(202)["deploymentId"].as_str().unwrap().to_owned();
        asked.keep(&answer);
        if verb.is_empty() {
            // Where it is shown, to be sure that it was there.
            let shown = installation.get(&format!("approvals/{id}")).await.expect(200);
            assert_eq!(shown["variables"]["TEXT"], variables["TEXT"]);
            assert_eq!(shown["variables"]["SECRET_TEXT"], "***************");
        } else {
            let answer = installation.post(&format!("approvals/{id}/{verb}"), &json!({})).await;
            answer.expect(200);
            asked.keep(&answer);
        }
    }
}

async fn read_all(installation: &Installation, application: &Application, asked: &mut Asked) {
    let listed = installation.get(&format!("deployments?applicationId={}&limit=200", application.id)).await;
    let ids: Vec<_> = listed.json()["data"].as_array().unwrap().iter().map(|d| d["deploymentId"].clone()).collect();
    assert!(ids.len() > PARAMETERS.len());
    asked.shown.push(listed.text);
    let others = ["approvals".to_owned(), "metrics/summary".to_owned(), format!("applications/{}", application.id)];
    for path in ids.iter().map(|id| format!("deployments/{}", id.as_str().unwrap())).chain(others) {
        let answer = installation.get(&path).await;
        answer.expect(200);
        asked.shown.push(answer.text);
    }
}

#[tokio::test]
async fn a_refused_or_waiting_request_leaves_no_value_of_it() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::of_this_process());
    let setup = Setup { data: Some(folder.path()), no_worker: true, ..Setup::default() };
    let installation = Installation::start_with(setup).await;
    let parameters: Vec<_> = PARAMETERS
        .iter()
        .map(|(name, kind)| json!({"name": name, "type": kind, "sensitive": name.starts_with("SECRET")}))
        .collect();
    let careful = json!({"parameters": parameters, "approval": {"required": true}, "versionPattern": r"v\d+"});
    let application = installation.register(careful).await;
    let mut asked = Asked { marks: Vec::new(), names: Vec::new(), answers: Vec::new(), shown: Vec::new() };
    refused(&installation, &application, &mut asked).await;
    waiting(&installation, &application, &mut asked).await;
    read_all(&installation, &application, &mut asked).await;

    let marks: Vec<_> = asked.marks.iter().map(|mark| ("a marked value", mark.as_str())).collect();
    let names: Vec<_> = asked.names.iter().map(|name| ("a caller's own name", name.as_str())).collect();
    let (told, needles) = (Needles::of(&marks), Needles::of(&[marks.clone(), names].concat()));
    let mut searched = Searched::default();
    let clients = installation.aws().clients();
    let held = items(&clients).await;
    for item in &held {
        needles.search("an item", format!("{item:?}"), &mut searched);
    }
    for answer in &asked.answers {
        told.search("an answer", answer, &mut searched);
    }
    for shown in &asked.shown {
        needles.search("what is shown later", shown, &mut searched);
    }
    installation.stack.stop().await;
    needles.search_folder(folder.path(), &mut searched);
    let log = log.text();
    needles.search("the log", &log, &mut searched);
    assert_eq!(searched.hits, Vec::<String>::new());
    look_where_it_is(&held, folder.path(), &log);
    println!(
        "figure: {} marked values of refused and waiting requests, looked for in {} items, files, answers and logs of {} KiB: \
         found 0 times",
        asked.marks.len(),
        searched.places,
        searched.bytes / 1024
    );
}

/// Who has looked at nothing has found nothing: the records and the log are there.
fn look_where_it_is(
    held: &[std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue>],
    folder: &Path,
    log: &[u8],
) {
    let has = |word: &str| held.iter().any(|item| format!("{item:?}").contains(word));
    assert!(has("private-key") && has("rejected") && has("PENDING") && has("REQUEST#"));
    assert!(String::from_utf8_lossy(log).contains("answered"));
    assert!(std::fs::read_dir(folder).unwrap().count() > 0);
}
