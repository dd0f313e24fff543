//! Who begins a sync: the schedule, the source's own word, and only one at a time.

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_aws::clock;
use tidegate_domain::id::SecretProviderId;
use tidegate_local::stack;
use tidegate_providers::{
    Syncer,
    sync::{Passed, Ran},
};
use tokio::time::{Duration, Instant};

use super::Synced;
use crate::{
    functions::{environment, runtime_api::Function},
    support::{
        eventually,
        fake_infisical::{Fate, delivery, now_in_milliseconds},
        fake_secrets_manager::FakeSecretsManager,
    },
};

const SECRET: &str = "hook-secret";

impl Synced {
    pub(super) fn syncer(&self) -> Syncer {
        Syncer::new(self.installation.stack.store().clone(), clock::now)
    }

    /// What the function does each minute.
    pub(super) async fn pass(&self) -> Passed {
        self.syncer().pass(Instant::now() + Duration::from_mins(1)).await.unwrap()
    }

    /// How long after the end of the last run the next one is, in seconds.
    async fn pause(&self) -> i64 {
        let shown = self.provider().await;
        let at = |field: &str| shown[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        at("nextSyncAt").duration_since(at("lastSyncAt")).as_secs()
    }

    async fn told(&self, id: u64, body: &str, signature: &str) -> (u16, Value) {
        let url = format!("{}/webhook/secret-providers/{id}", self.installation.stack.url());
        let mut request = self.installation.http.request(Method::POST, url).body(body.to_owned());
        if !signature.is_empty() {
            request = request.header("x-infisical-signature", signature);
        }
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test]
async fn the_source_says_that_something_has_changed() {
    let synced = Synced::start(json!({"autoSync": true})).await;
    assert_eq!(synced.pass().await.succeeded, 1);
    let now = now_in_milliseconds();
    let (body, signature) = delivery(SECRET, "secrets.modified", now);
    let (status, nobodys) = synced.told(synced.provider, &body, &signature).await;
    assert_eq!(status, 401, "no secret is set");
    let path = format!("secret-providers/{}", synced.provider);
    let config = json!({"config": {"webhookSecret": SECRET}});
    synced.installation.put(&path, &config).await.expect(200);
    assert_eq!(synced.pass().await.succeeded, 1, "a new configuration is tried at once");

    synced.source.set("/", "A", "a");
    assert_eq!(synced.pass().await.due, 0);
    let (status, answer) = synced.told(synced.provider, &body, &signature).await;
    assert_eq!((status, &answer["ignored"]), (202, &json!(false)), "{answer}");
    let passed = synced.pass().await;
    assert_eq!((passed.due, passed.succeeded), (1, 1));
    assert_eq!(synced.value("A").await, "a");
    let runs = synced.installation.get(&format!("{path}/syncs")).await.expect(200);
    assert_eq!(runs["data"][0]["trigger"], "webhook");

    let (tested, of_test) = delivery(SECRET, "test", now);
    assert_eq!(synced.told(synced.provider, &tested, &of_test).await.0, 200);
    assert_eq!(synced.pass().await.due, 0, "a test is no change");
    // Wrong in whatever way, and for whomever: the same answer.
    let same = |answer: &Value| {
        let mut answer = answer.clone();
        answer["requestId"].take();
        answer
    };
    let late = delivery(SECRET, "secrets.modified", now - 600_000);
    let other = delivery("other", "secrets.modified", now);
    let moved = (body.clone(), signature.replace(&now.to_string(), &(now + 1).to_string()));
    let changed = (body.replace("prod", "dev"), signature.clone());
    let unsigned = (body.clone(), String::new());
    for (body, signature) in [late, other, moved, changed, unsigned] {
        let (status, answer) = synced.told(synced.provider, &body, &signature).await;
        assert_eq!((status, same(&answer)), (401, same(&nobodys)), "{signature}");
    }
    let (status, answer) = synced.told(999_999, &body, &signature).await;
    assert_eq!((status, same(&answer)), (401, same(&nobodys)));
    assert_eq!(synced.pass().await.due, 0);
}

#[tokio::test]
async fn the_sources_own_word_repeats_no_refused_login_and_no_call_too_many() {
    let synced = Synced::start(json!({"autoSync": true, "syncIntervalMinutes": 1})).await;
    synced.source.set("/", "A", "a");
    let told = async || {
        let (body, signature) = delivery(SECRET, "secrets.modified", now_in_milliseconds());
        let (status, answer) = synced.told(synced.provider, &body, &signature).await;
        assert_eq!((status, &answer["ignored"]), (202, &json!(false)), "{answer}");
    };
    synced.change_provider(json!({"config": {"clientSecret": "wrong", "webhookSecret": SECRET}})).await;
    assert_eq!((synced.pass().await.failed, synced.source.refused_logins()), (1, 1));
    told().await;
    assert_eq!((synced.pass().await.due, synced.source.refused_logins()), (0, 1));
    assert_eq!(synced.pause().await, 24 * 3_600);
    // Whoever writes the provider, and whoever asks, is not kept waiting.
    synced.change_provider(json!({"config": {"clientSecret": synced.source.client_secret()}})).await;
    assert_eq!(synced.pass().await.succeeded, 1);

    synced.source.judge_by(|call| match call.line.as_str() {
        "GET /api/v4/secrets" => Fate::Answer(429, vec![("retry-after", "3000".to_owned())], json!({})),
        _ => Fate::Pass,
    });
    told().await;
    assert_eq!(synced.pass().await.failed, 1);
    synced.source.judge_by(|_| Fate::Pass);
    synced.source.calls();
    told().await;
    assert_eq!((synced.pass().await.due, synced.source.calls().len()), (0, 0));
    assert_eq!(synced.pause().await, 3_000);
    assert_eq!(synced.sync(json!({})).await, [0, 0, 0, 0, 1]);
    told().await;
    assert_eq!(synced.pass().await.succeeded, 1, "it takes requests again");
}

#[tokio::test]
async fn the_schedule_needs_both_flags_and_a_person_needs_none() {
    let synced = Synced::start(json!({"autoSync": true})).await;
    let group = format!("secret-groups/{}", synced.group);
    synced.installation.put(&group, &json!({"autoSync": false})).await.expect(200);
    synced.source.set("/", "A", "a");
    assert_eq!(synced.pass().await.succeeded, 1);
    assert_eq!(synced.names().await, Vec::<String>::new(), "the group is not synced by itself");
    assert_eq!(synced.pass().await.due, 0, "not before the interval is over");
    assert_eq!(synced.sync(json!({})).await, [1, 0, 0, 0, 0]);
    let path = format!("secret-providers/{}", synced.provider);
    synced.installation.put(&path, &json!({"autoSync": false})).await.expect(200);
    assert_eq!(synced.provider().await["nextSyncAt"], Value::Null);
    assert_eq!(synced.pass().await.due, 0);
}

#[tokio::test]
async fn two_runs_of_one_provider_never_overlap() {
    let synced = Synced::start(json!({})).await;
    for index in 0..20 {
        synced.source.set("/", &format!("S{index}"), "v");
    }
    // The first one hangs at its source until the second one has come.
    let (open, opened) = tokio::sync::watch::channel(false);
    let (seen, mut was_seen) = tokio::sync::watch::channel(false);
    synced.source.judge_by(move |call| {
        if call.line.contains("secrets") && !*opened.borrow() {
            seen.send_replace(true);
            return Fate::Late(Duration::from_secs(2));
        }
        Fate::Pass
    });
    let first = synced.ask(json!({}));
    let second = async {
        was_seen.wait_for(|seen| *seen).await.unwrap();
        let tenant = stack::tenant();
        let until = Instant::now() + Duration::from_mins(1);
        let ran = synced.syncer().run(&tenant, SecretProviderId(synced.provider), until).await.unwrap();
        assert!(matches!(ran, Ran::Nothing), "{ran:?}");
        let waiting = synced.ask(json!({})).await;
        open.send_replace(true);
        waiting
    };
    let (first, second) = tokio::join!(first, second);
    let first = first.expect(200);
    assert_eq!(first["added"], 20);
    let second = second.expect(202);
    assert_eq!((&second["id"], &second["status"]), (&first["id"], &json!("running")));
    // What was asked for meanwhile is met by a run of its own.
    assert_eq!(synced.pass().await.succeeded, 1);
    let runs = synced.installation.get(&format!("secret-providers/{}/syncs", synced.provider)).await.expect(200);
    assert_eq!(runs["data"].as_array().unwrap().len(), 2);
    assert_eq!(runs["data"][0]["unchanged"], 20);
}

#[tokio::test]
async fn the_sync_function_does_what_is_due_when_the_scheduler_says_so() {
    let synced = Synced::start(json!({"autoSync": true})).await;
    synced.source.set("/", "A", "a");
    let function = Function::start("tidegate-sync", &environment(&synced.installation)).await;
    let passed = function.invoke(json!({"version": "0", "detail-type": "Scheduled Event"})).await.unwrap();
    assert_eq!((&passed["due"], &passed["succeeded"]), (&json!(1), &json!(1)), "{passed}");
    assert_eq!(synced.value("A").await, "a");
    let again = function.invoke(json!({})).await.unwrap();
    assert_eq!(again["due"], 0);
}

#[tokio::test]
async fn the_installations_own_role_is_tried_again_soon() {
    let synced = Synced::start(json!({})).await;
    let source = FakeSecretsManager::start().await;
    // The role that the function has is none that this one knows.
    let config = json!({"region": "eu-central-1", "endpointUrl": source.config()["endpointUrl"], "path": "/prod"});
    let provider = json!({"name": "own", "type": "aws-secrets-manager", "autoSync": true, "config": config});
    let provider = synced.installation.post("secret-providers", &provider).await.expect(201)["id"].as_u64().unwrap();
    let group = json!({"name": "own", "providerId": provider, "autoSync": true});
    synced.installation.post("secret-groups", &group).await.expect(201);
    let function = Function::start("tidegate-sync", &environment(&synced.installation)).await;
    let passed = function.invoke(json!({})).await.unwrap();
    assert_eq!((&passed["due"], &passed["failed"]), (&json!(1), &json!(1)), "{passed}");
    let own = Synced { provider, ..synced };
    assert_eq!(own.provider().await["lastSyncError"]["code"], "role-unusable");
    assert_eq!(own.pause().await, 5 * 60);
}

#[tokio::test]
async fn a_run_that_is_out_of_time_is_finished_by_the_next_pass() {
    let synced = Synced::start(json!({})).await;
    for index in 0..40 {
        synced.source.set("/", &format!("S{index}"), "v");
    }
    let (tenant, id) = (stack::tenant(), SecretProviderId(synced.provider));
    let asked = tidegate_domain::sync_run::Asked {
        trigger: tidegate_domain::sync_run::SyncTrigger::Manual,
        actor: None,
        force: false,
    };
    synced.installation.stack.store().ask_for_sync(&tenant, id, &asked, clock::now(), None).await.unwrap();
    let pass = synced.syncer();
    let mut passes = 0;
    let ended = eventually("the end of the run", async || {
        passes += 1;
        let until = Instant::now() + Duration::from_millis(60);
        match pass.run(&tenant, id, until).await.unwrap() {
            Ran::Finished(run) => Some(run),
            Ran::Continues | Ran::Nothing => None,
        }
    })
    .await;
    assert_eq!((ended.written.added, ended.found.unchanged), (40, 0), "counted over {passes} passes");
    assert!(passes > 1, "it was cut short");
    assert_eq!(synced.names().await.len(), 40);
}
