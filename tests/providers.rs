//! Secrets that come from outside, through the public API: added, followed, kept, and never lost silently.

mod changes;
mod crash;
mod detaching;
mod slow;
mod sources;
mod told;

use reqwest::Method;
use serde_json::{Value, json};
use tidegate_aws::meter::Meter;
use tidegate_domain::secret::MASK;

use crate::support::{
    Answer, Installation, Setup,
    fake_infisical::{FakeInfisical, Fate},
    fake_secrets_manager::FakeSecretsManager,
};

/// An installation with a provider and one group that it fills; the test syncs.
struct Synced {
    installation: Installation,
    source: FakeInfisical,
    provider: u64,
    group: u64,
    meter: Meter,
}

impl Synced {
    async fn start(changes: Value) -> Self {
        let meter = Meter::default();
        let setup = Setup { no_worker: true, no_sweeps: true, meter: Some(meter.clone()), ..Setup::default() };
        let (installation, source) = (Installation::start_with(setup).await, FakeInfisical::start().await);
        let mut provider = json!({"name": "infisical-prod", "type": "infisical", "config": source.config()});
        for (field, value) in changes.as_object().unwrap() {
            provider[field] = value.clone();
        }
        let provider = installation.post("secret-providers", &provider).await.expect(201)["id"].as_u64().unwrap();
        let group = json!({"name": "production", "providerId": provider, "autoSync": true});
        let group = installation.post("secret-groups", &group).await.expect(201)["id"].as_u64().unwrap();
        Self { installation, source, provider, group, meter }
    }

    async fn ask(&self, body: Value) -> Answer {
        self.installation.post(&format!("secret-providers/{}/sync", self.provider), &body).await
    }

    /// Added, updated, renamed, removed, unchanged.
    async fn sync(&self, body: Value) -> [u64; 5] {
        let run = self.ask(body).await.expect(200);
        assert_eq!((&run["status"], &run["error"]), (&json!("success"), &Value::Null), "{run}");
        ["added", "updated", "renamed", "removed", "unchanged"].map(|count| run[count].as_u64().unwrap())
    }

    async fn secrets(&self) -> Vec<Value> {
        let path = format!("secrets?groupId={}&limit=200", self.group);
        self.installation.get(&path).await.expect(200)["data"].as_array().unwrap().clone()
    }

    async fn secret(&self, name: &str) -> Value {
        self.secrets().await.into_iter().find(|secret| secret["name"] == name).unwrap_or_default()
    }

    async fn value(&self, name: &str) -> Value {
        let id = self.secret(name).await["id"].clone();
        let path = format!("secrets/{id}/reveal");
        self.installation.post(&path, &json!({})).await.expect(200)["value"].clone()
    }

    async fn names(&self) -> Vec<String> {
        self.secrets().await.iter().map(|secret| secret["name"].as_str().unwrap().to_owned()).collect()
    }

    async fn change_provider(&self, changes: Value) -> Value {
        let path = format!("secret-providers/{}", self.provider);
        self.installation.put(&path, &changes).await.expect(200)
    }

    async fn change_group(&self, changes: Value) -> Value {
        self.installation.put(&format!("secret-groups/{}", self.group), &changes).await.expect(200)
    }

    async fn provider(&self) -> Value {
        self.installation.get(&format!("secret-providers/{}", self.provider)).await.expect(200)
    }
}

#[tokio::test]
async fn a_group_is_filled_and_follows_its_source() {
    let synced = Synced::start(json!({"autoSync": true})).await;
    let Synced { installation, source, .. } = &synced;
    source.set("/", "DATABASE_URL", "postgres://one");
    source.set("/", "API_KEY", "key-1");
    source.set("/other", "ELSEWHERE", "x");
    assert_eq!(synced.sync(json!({})).await, [2, 0, 0, 0, 0]);
    let first = synced.secret("DATABASE_URL").await;
    assert_eq!((&first["source"], &first["providerId"]), (&json!("synced"), &json!(synced.provider)));
    assert_eq!((&first["providerReference"], &first["value"]), (&json!("/DATABASE_URL"), &json!(MASK)));
    assert_eq!(synced.value("DATABASE_URL").await, "postgres://one");
    let shown = synced.provider().await;
    assert_eq!(shown["lastSyncStatus"], "success");
    assert!(shown["lastSyncAt"].is_string());

    // Referred to by its id, it keeps it under another name.
    let variable = json!({"scope": "global", "key": "DATABASE_URL", "value": format!("@secret:{}", first["id"]),
        "valueType": "secret_ref"});
    installation.post("variables", &variable).await.expect(201);
    source.rename("/", "DATABASE_URL", "DB_URL");
    source.set("/", "API_KEY", "key-2");
    source.set("/", "NEW", "n");
    assert_eq!(synced.sync(json!({})).await, [1, 1, 1, 0, 0]);
    assert_eq!(synced.secret("DB_URL").await["id"], first["id"]);
    assert_eq!(synced.secret("API_KEY").await["valueVersion"], 2);
    assert_eq!(synced.value("API_KEY").await, "key-2");

    // Two that swap their names keep their values and ids.
    let ids = [synced.secret("DB_URL").await["id"].clone(), synced.secret("NEW").await["id"].clone()];
    source.rename("/", "NEW", "TEMPORARY");
    source.rename("/", "DB_URL", "NEW");
    source.rename("/", "TEMPORARY", "DB_URL");
    assert_eq!(synced.sync(json!({})).await, [0, 0, 2, 0, 1]);
    assert_eq!([synced.secret("NEW").await["id"].clone(), synced.secret("DB_URL").await["id"].clone()], ids);
    assert_eq!(synced.value("DB_URL").await, "n");

    // What is gone stays, and is marked; what comes back is the same.
    source.remove("/", "API_KEY");
    assert_eq!(synced.sync(json!({})).await, [0, 0, 0, 1, 2]);
    assert_eq!(synced.secret("API_KEY").await["stale"], true);
    source.set("/", "API_KEY", "key-2");
    synced.sync(json!({})).await;
    let back = synced.secret("API_KEY").await;
    assert_eq!((&back["stale"], &back["valueVersion"]), (&json!(false), &json!(2)));

    let runs = installation.get(&format!("secret-providers/{}/syncs?limit=2", synced.provider)).await.expect(200);
    assert_eq!(runs["data"].as_array().unwrap().len(), 2);
    assert_eq!((&runs["data"][0]["trigger"], &runs["data"][0]["actor"]), (&json!("manual"), &json!("admin")));
    assert!(runs["nextCursor"].is_string());
}

#[tokio::test]
async fn what_is_unchanged_is_not_written() {
    let synced = Synced::start(json!({})).await;
    for index in 0..30 {
        synced.source.set("/", &format!("S{index}"), &format!("value {index}"));
    }
    assert_eq!(synced.sync(json!({})).await, [30, 0, 0, 0, 0]);
    let before = synced.secrets().await;
    synced.meter.take();
    assert_eq!(synced.sync(json!({})).await, [0, 0, 0, 0, 30]);
    let calls = synced.meter.take();
    let count = |name: &str| calls.iter().filter(|call| call.operation.ends_with(name)).count();
    // Asked for, begun, ended.
    assert_eq!((count("TransactWriteItems"), count("PutItem")), (3, 0), "{calls:?}");
    assert_eq!(count("GenerateDataKey") + count("Decrypt"), 0, "no key is asked for twice");
    assert_eq!(synced.secrets().await, before);
}

#[tokio::test]
async fn what_people_wrote_is_kept_until_they_say_otherwise() {
    let synced = Synced::start(json!({})).await;
    let own = json!({"groupId": synced.group, "name": "TOKEN", "value": "by hand"});
    let own = synced.installation.post("secrets", &own).await.expect(201);
    synced.source.set("/", "TOKEN", "from outside");
    synced.source.set("/", "OTHER", "o");
    let planned = synced.ask(json!({"dryRun": true})).await.expect(200);
    assert_eq!(planned["groups"][0]["error"]["code"], "name-conflict", "{planned}");
    let run = synced.ask(json!({})).await.expect(200);
    assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!("name-conflict")), "{run}");
    assert!(!run.to_string().contains("from outside"));
    assert_eq!(synced.names().await, ["TOKEN"], "nothing of the group is synced");
    assert_eq!(synced.value("TOKEN").await, "by hand");
    assert_eq!(synced.provider().await["lastSyncStatus"], "failed");

    let path = format!("secret-providers/{}", synced.provider);
    synced.installation.put(&path, &json!({"onConflict": "adopt"})).await.expect(200);
    let planned = synced.ask(json!({"dryRun": true})).await.expect(200);
    let actions: Vec<_> = planned["groups"][0]["steps"].as_array().unwrap().iter().map(|s| &s["action"]).collect();
    assert_eq!(actions, ["adopt", "add"]);
    assert_eq!(synced.sync(json!({})).await, [1, 1, 0, 0, 0]);
    let adopted = synced.secret("TOKEN").await;
    assert_eq!(
        (&adopted["id"], &adopted["source"], &adopted["valueVersion"]),
        (&own["id"], &json!("synced"), &json!(2))
    );
    assert_eq!(synced.value("TOKEN").await, "from outside");
}

#[tokio::test]
async fn deletions_are_guarded() {
    let synced = Synced::start(json!({"onRemoved": "delete"})).await;
    for name in ["A", "B", "C", "D"] {
        synced.source.set("/", name, "v");
    }
    synced.sync(json!({})).await;
    let used = synced.secret("B").await["id"].clone();
    let variable =
        json!({"scope": "global", "key": "B", "value": format!("@secret:{used}"), "valueType": "secret_ref"});
    synced.installation.post("variables", &variable).await.expect(201);
    synced.source.remove("/", "A");
    synced.source.remove("/", "B");
    assert_eq!(synced.sync(json!({})).await, [0, 0, 0, 2, 2]);
    assert_eq!(synced.names().await, ["B", "C", "D"], "what is used stays");
    assert_eq!(synced.secret("B").await["stale"], true);

    // Nothing comes back: a wrong folder looks like that.
    synced.source.change("/", Vec::clear);
    let run = synced.ask(json!({})).await.expect(200);
    assert_eq!((&run["removed"], &run["heldBack"]), (&json!(2), &json!(3)), "{run}");
    assert_eq!(synced.names().await, ["B", "C", "D"]);
    assert_eq!(synced.sync(json!({})).await, [0, 0, 0, 0, 0], "nor later by itself");
    assert_eq!(synced.names().await, ["B", "C", "D"]);
    assert_eq!(synced.sync(json!({"force": true})).await, [0, 0, 0, 2, 0]);
    assert_eq!(synced.names().await, ["B"]);
}

#[tokio::test]
async fn what_cannot_be_a_secret_is_told() {
    let synced = Synced::start(json!({})).await;
    synced.source.set("/", "a/b", "hidden-canary");
    synced.source.set("/", "GOOD", "g");
    let run = synced.ask(json!({})).await.expect(200);
    assert_eq!((&run["status"], &run["added"]), (&json!("success"), &json!(1)));
    let problem = &run["problems"][0];
    assert_eq!((&problem["reference"], &problem["code"]), (&json!("/a/b"), &json!("format-name")), "{run}");
    assert!(!run.to_string().contains("canary"));
}

#[tokio::test]
async fn a_refused_login_is_not_repeated_by_schedule() {
    let synced = Synced::start(json!({"autoSync": true, "syncIntervalMinutes": 1})).await;
    let path = format!("secret-providers/{}", synced.provider);
    let wrong = json!({"config": {"clientSecret": "wrong"}});
    synced.installation.put(&path, &wrong).await.expect(200);
    let tested = synced.installation.post(&format!("{path}/test"), &json!({})).await.expect(200);
    assert_eq!((&tested["success"], &tested["error"]["code"]), (&json!(false), &json!("login-refused")));
    let run = synced.ask(json!({})).await.expect(200);
    assert_eq!(run["error"]["code"], "login-refused", "{run}");
    assert_eq!(synced.source.refused_logins(), 2, "one each");
    let passed = synced.pass().await;
    assert_eq!((passed.due, synced.source.refused_logins()), (0, 2));
    // A new one is tried at once.
    synced.source.set("/", "A", "a");
    let right = json!({"config": {"clientSecret": synced.source.client_secret()}});
    synced.installation.put(&path, &right).await.expect(200);
    assert_eq!(synced.pass().await.succeeded, 1);
    assert_eq!(synced.names().await, ["A"]);
    let tested = synced.installation.post(&format!("{path}/test"), &json!({})).await.expect(200);
    assert_eq!(tested, json!({"success": true, "error": null}));
}

#[tokio::test]
async fn an_outage_changes_nothing_and_heals_by_itself() {
    let synced = Synced::start(json!({"autoSync": true})).await;
    synced.source.set("/", "A", "a");
    synced.sync(json!({})).await;
    synced.source.judge_by(|call| match call.line.as_str() {
        "GET /api/v4/secrets" => Fate::Answer(429, vec![("retry-after", "3000".to_owned())], json!({})),
        _ => Fate::Pass,
    });
    let run = synced.ask(json!({})).await.expect(200);
    assert_eq!((&run["status"], &run["error"]["code"]), (&json!("failed"), &json!("rate-limited")), "{run}");
    assert_eq!(synced.secret("A").await["stale"], false);
    let next: jiff::Timestamp = synced.provider().await["nextSyncAt"].as_str().unwrap().parse().unwrap();
    let wait = next.duration_since(tidegate_aws::clock::now()).as_secs();
    assert!((2_900..=3_000).contains(&wait), "not before the source says: {wait}");
    synced.source.judge_by(|_| Fate::Pass);
    assert_eq!(synced.sync(json!({})).await, [0, 0, 0, 0, 1]);
}

#[tokio::test]
async fn every_fault_of_a_provider_is_told_at_once_and_a_form_round_trip_keeps_its_secrets() {
    let synced = Synced::start(json!({})).await;
    let installation = &synced.installation;
    let bad = json!({"type": "infisical", "config": {"siteUrl": "http://secrets.example.com", "clientId": "", "path": "x",
        "clientSecret": MASK, "extra": 1}, "syncIntervalMinutes": 0, "onRemoved": "destroy", "nmae": "x"});
    let mut faults = installation.post("secret-providers", &bad).await.faults();
    faults.sort();
    let told: Vec<_> = faults.iter().map(|(field, code)| (field.as_str(), code.as_str())).collect();
    let expect = [
        ("config.clientId", "format-text"),
        ("config.clientSecret", "mask"),
        ("config.extra", "unknown-field"),
        ("config.path", "format-path"),
        ("config.projectId", "missing"),
        ("config.siteUrl", "format-url"),
        ("nmae", "unknown-field"),
        ("onRemoved", "unknown-value"),
        ("syncIntervalMinutes", "out-of-range"),
    ];
    assert_eq!(told, expect);
    let half = json!({"type": "aws-secrets-manager", "config": {"region": "eu-central-1", "accessKeyId": "a"}});
    let faults = installation.post("secret-providers", &half).await.faults();
    assert_eq!(faults, [("config.secretAccessKey".to_owned(), "missing".to_owned())]);
    assert_eq!(installation.post("secret-providers", &json!({"type": "vault"})).await.faults()[0].1, "unknown-value");

    // The seed's own example: no name, no address, no environment.
    let seed = json!({"type": "infisical", "config": {"clientId": "xxx", "clientSecret": "yyy", "projectId": "zzz"},
        "autoSync": true});
    let created = installation.post("secret-providers", &seed).await.expect(201);
    assert_eq!((&created["name"], &created["config"]["environment"]), (&json!("infisical"), &json!("prod")));
    assert_eq!((&created["config"]["clientSecret"], &created["lastSyncAt"]), (&json!(MASK), &Value::Null));
    assert_eq!(created["syncIntervalMinutes"], 15);

    let path = format!("secret-providers/{}", synced.provider);
    let mut shown = synced.provider().await;
    assert_eq!(shown["config"]["webhookSecret"], Value::Null);
    shown["config"]["webhookSecret"] = "hook-secret".into();
    let changed = installation.put(&path, &shown).await.expect(200);
    assert_eq!(changed["config"]["webhookSecret"], MASK);
    installation.put(&path, &changed).await.expect(200);
    synced.source.set("/", "A", "a");
    assert_eq!(synced.sync(json!({})).await, [1, 0, 0, 0, 0], "the client secret is still the right one");
    // Credentials do not follow to another address.
    let moved = json!({"config": {"siteUrl": "https://secrets.example.com"}});
    let faults = installation.put(&path, &moved).await.faults();
    assert_eq!(faults, [("config.clientSecret".to_owned(), "missing".to_owned())]);
    let other_kind = installation.put(&path, &json!({"type": "aws-secrets-manager"})).await;
    assert_eq!(other_kind.faults(), [("type".to_owned(), "read-only".to_owned())]);
}

#[tokio::test]
async fn a_provider_in_use_stays_and_a_group_needs_one_that_exists() {
    let synced = Synced::start(json!({})).await;
    let installation = &synced.installation;
    synced.source.set("/", "A", "a");
    synced.sync(json!({})).await;
    let delete = async || {
        let path = format!("/api/v2/secret-providers/{}", synced.provider);
        installation.call(Method::DELETE, &path, Some(&installation.admin_token), &[], None).await
    };
    let refused = delete().await.expect(409);
    let by: Vec<_> = refused["usedBy"].as_array().unwrap().iter().map(|by| by.as_str().unwrap()).collect();
    assert!(by[0].starts_with("secret group ") && by[1].starts_with("secret "), "{by:?}");
    let group = format!("secret-groups/{}", synced.group);
    let faults = installation.put(&group, &json!({"providerId": 999_999})).await;
    assert_eq!(faults.status.as_u16(), 422, "{}", faults.text);
    assert_eq!(installation.put(&group, &json!({"remotePath": "x"})).await.faults()[0].1, "format-path");
    let loose = json!({"name": "loose", "autoSync": true});
    assert_eq!(installation.post("secret-groups", &loose).await.faults()[0].0, "autoSync");
    let freed = installation.put(&group, &json!({"providerId": null})).await.expect(200);
    assert_eq!(freed["autoSync"], false);
    assert!(delete().await.expect(409)["usedBy"][0].as_str().unwrap().starts_with("secret "));
    let id = synced.secret("A").await["id"].clone();
    let path = format!("/api/v2/secrets/{id}");
    let gone = installation.call(Method::DELETE, &path, Some(&installation.admin_token), &[], None).await;
    assert_eq!(gone.status.as_u16(), 204, "{}", gone.text);
    assert_eq!(delete().await.status.as_u16(), 204);
    assert_eq!(synced.pass().await.due, 0);
}

#[tokio::test]
async fn aws_secrets_manager_fills_a_group() {
    let synced = Synced::start(json!({})).await;
    let (installation, source) = (&synced.installation, FakeSecretsManager::start().await);
    for index in 0..25 {
        source.set(&format!("prod/S{index:02}"), Some(&format!("value {index}")));
    }
    source.set("prod/shop/DEEPER", Some("x"));
    source.set("production/OTHER", Some("x"));
    source.set("prod/JSON", Some(r#"{"user":"ada"}"#));
    source.set("prod/BYTES", None);
    let provider = json!({"name": "aws", "type": "aws-secrets-manager", "config": source.config()});
    let provider = installation.post("secret-providers", &provider).await.expect(201);
    assert_eq!(provider["config"]["secretAccessKey"], MASK);
    let group = json!({"name": "from-aws", "providerId": provider["id"]});
    let group = installation.post("secret-groups", &group).await.expect(201)["id"].as_u64().unwrap();
    let sync = format!("secret-providers/{}/sync", provider["id"]);
    let run = installation.post(&sync, &json!({})).await.expect(200);
    assert_eq!((&run["status"], &run["added"]), (&json!("success"), &json!(26)), "{run}");
    assert_eq!(run["problems"][0]["code"], "not-text");
    let of_group = Synced { group, ..synced };
    assert_eq!(of_group.value("JSON").await, r#"{"user":"ada"}"#, "the whole text");
    assert_eq!(of_group.secret("S07").await["providerReference"], "/prod/S07");
}
