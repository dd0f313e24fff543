//! What is unusual waits for its owner: who decides, on what exactly, and how long it waits.

mod race;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};
use tidegate_admin::sign_in;
use tidegate_aws::{clock, keys};
use tidegate_domain::{id::DeploymentId, permission::Role, secret::Secret};
use tidegate_local::{
    demo_image::{DemoImage, Mode},
    provision, stack,
};

use crate::support::{Answer, Application, Installation, Setup};

impl Installation {
    /// Signs somebody in who has this role.
    pub(crate) async fn person(&self, name: &str, role: Role) -> String {
        sign_in::put_user(self.stack.store(), name, &Secret::new(name.to_owned()), role).await.unwrap();
        let body = json!({"username": name, "password": name});
        let signed_in = self.call(Method::POST, "/api/v2/auth/login", None, &[], Some(&body)).await;
        signed_in.expect(200)["token"].as_str().unwrap().to_owned()
    }

    /// `POST /approvals/{id}/{verb}` as somebody, who approves what is asked for now unless the body says what.
    pub(crate) async fn decide(&self, token: &str, id: &str, verb: &str, body: &Value) -> Answer {
        let mut body = body.clone();
        if verb == "approve" && body.get("hash").is_none() {
            let seen = self.get(&format!("deployments/{id}")).await.json();
            body["hash"] = seen["approval"]["hash"].as_str().unwrap_or(&"0".repeat(64)).into();
        }
        let body = &body;
        self.call(Method::POST, &format!("/api/v2/approvals/{id}/{verb}"), Some(token), &[], Some(body)).await
    }

    async fn record(&self, id: &str) -> Value {
        self.get(&format!("deployments/{id}")).await.expect(200)
    }

    /// Ids of what waits.
    async fn waiting(&self) -> Vec<String> {
        let listed = self.get("approvals?status=pending").await.expect(200);
        listed["data"].as_array().unwrap().iter().map(|d| d["deploymentId"].as_str().unwrap().to_owned()).collect()
    }
}

async fn without_worker() -> Installation {
    Installation::start_with(Setup { no_worker: true, no_sweeps: true, ..Setup::default() }).await
}

fn careful() -> Value {
    json!({"approval": {"required": true}, "owner": "olga"})
}

/// Asks for a version that has to wait; its id.
async fn ask(installation: &Installation, application: &Application, version: &str) -> String {
    let asked = installation.deploy(application, version).await.expect(202);
    assert_eq!((&asked["status"], &asked["phase"]), (&json!("awaiting_approval"), &json!("pending")), "{asked}");
    asked["deploymentId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_public_address_waits_for_the_owner_and_then_runs_as_it_was_asked_for() {
    let installation = Installation::start().await;
    let parameters = json!([
        {"name": "SERVER", "type": "host", "approval": "public-address"},
        {"name": "PASSWORD", "type": "string", "sensitive": true}]);
    let application = installation.register(json!({"parameters": parameters.clone(), "owner": "olga"})).await;
    installation.push(&application, "v1", Mode::Ok).await;
    let body = |server: &str| json!({"version": "v1", "variables": {"SERVER": server, "PASSWORD": "hush-7f3a"}});

    let private = installation.deploy_with(&application, &body("10.1.2.3"), &[]).await.expect(202);
    assert_eq!(private["status"], "queued", "{private}");
    installation.ended(&application, private["deploymentId"].as_str().unwrap()).await;
    for (server, code) in [("8.8.8.8", "public-address"), ("shop.example.org", "domain-address")] {
        let asked = installation.deploy_with(&application, &body(server), &[]).await.expect(202);
        assert_eq!(asked["status"], "awaiting_approval", "{asked}");
        let reasons = asked["approval"]["reasons"].as_array().unwrap();
        assert_eq!(reasons.len(), 1, "{asked}");
        assert_eq!((&reasons[0]["field"], &reasons[0]["code"]), (&json!("variables.SERVER"), &json!(code)));
        assert!(!asked.to_string().contains(server), "{asked}");

        let id = asked["deploymentId"].as_str().unwrap();
        let olga = installation.person("olga", Role::Operator).await;
        let inbox = format!("/api/v2/approvals/{id}");
        let seen = installation.call(Method::GET, &inbox, Some(&olga), &[], None).await.expect(200);
        assert_eq!(
            (&seen["variables"]["SERVER"], &seen["variables"]["PASSWORD"]),
            (&json!(server), &json!("***************"))
        );
        // A declaration that is changed meanwhile shows nothing that was sensitive when it was asked for.
        let bare: Vec<_> =
            parameters.as_array().unwrap().iter().map(|p| json!({"name": p["name"], "type": p["type"]})).collect();
        let path = format!("applications/{}", application.id);
        installation.put(&path, &json!({"parameters": bare})).await.expect(200);
        let later = installation.call(Method::GET, &inbox, Some(&olga), &[], None).await.expect(200);
        assert_eq!(later["variables"]["PASSWORD"], "***************");
        installation.put(&path, &json!({"parameters": parameters})).await.expect(200);
        let approved = installation.decide(&olga, id, "approve", &json!({"hash": seen["approval"]["hash"]})).await;
        approved.expect(202);
        let ended = installation.ended(&application, id).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        assert_eq!(
            (&ended["approval"]["status"], &ended["approval"]["decidedBy"]),
            (&json!("approved"), &json!("olga"))
        );
        assert_eq!(installation.visit(&application, "/env/SERVER").await.unwrap(), server);
        assert_eq!(installation.visit(&application, "/env/PASSWORD").await.unwrap(), "hush-7f3a");
    }
}

#[tokio::test]
async fn the_owner_or_an_administrator_decides_and_nobody_else() {
    let installation = without_worker().await;
    let application = installation.register(careful()).await;
    let (olga, oskar, vera) = (
        installation.person("olga", Role::Operator).await,
        installation.person("oskar", Role::Operator).await,
        installation.person("vera", Role::Viewer).await,
    );
    let id = ask(&installation, &application, "v1").await;
    for verb in ["approve", "reject"] {
        for other in [&oskar, &vera] {
            installation.decide(other, &id, verb, &json!({})).await.expect(403);
        }
        installation.decide(&application.token, &id, verb, &json!({})).await.expect(401);
    }
    let inbox = format!("/api/v2/approvals/{id}");
    installation.call(Method::GET, &inbox, Some(&oskar), &[], None).await.expect(403);
    assert_eq!(installation.waiting().await, std::slice::from_ref(&id));
    let denied = installation.decide(&olga, &id, "reject", &json!({"comment": "not on a Friday"})).await.expect(200);
    assert_eq!((&denied["status"], &denied["phase"]), (&json!("denied"), &json!("failed")), "{denied}");
    assert_eq!(
        (&denied["approval"]["comment"], &denied["rejectReason"]),
        (&json!("not on a Friday"), &json!("approval-denied"))
    );
    assert_eq!(installation.waiting().await, Vec::<String>::new());
    for verb in ["approve", "reject"] {
        let late = installation.decide(&olga, &id, verb, &json!({})).await.expect(409);
        assert_eq!(late["status"], 409);
    }
    let never = DeploymentId::new(clock::now(), [7; 10]).to_string();
    for unknown in [never.as_str(), "nonsense"] {
        installation.decide(&olga, unknown, "approve", &json!({})).await.expect(404);
    }
}

#[tokio::test]
async fn who_asked_may_not_decide_where_somebody_else_has_to() {
    let installation = without_worker().await;
    let strict = json!({"approval": {"required": true, "requireOtherApprover": true}, "owner": "olga"});
    let application = installation.register(strict).await;
    let olga = installation.person("olga", Role::Operator).await;
    let path = format!("/api/v2/applications/{}/deployments", application.id);
    let asked = installation.call(Method::POST, &path, Some(&olga), &[], Some(&json!({"version": "v1"}))).await;
    let asked = asked.expect(202);
    assert_eq!((&asked["status"], &asked["trigger"]["actor"]), (&json!("awaiting_approval"), &json!("olga")));
    let id = asked["deploymentId"].as_str().unwrap();
    installation.decide(&olga, id, "approve", &json!({})).await.expect(403);
    installation.decide(&installation.admin_token, id, "approve", &json!({})).await.expect(202);

    // A token is anybody's who has it, the owner included.
    let id = ask(&installation, &application, "v2").await;
    installation.decide(&olga, &id, "approve", &json!({})).await.expect(403);
    installation.decide(&olga, &id, "reject", &json!({})).await.expect(403);
    installation.decide(&installation.admin_token, &id, "approve", &json!({})).await.expect(202);

    // Without that rule the owner may.
    let application = installation.register(careful()).await;
    let path = format!("/api/v2/applications/{}/deployments", application.id);
    let asked = installation.call(Method::POST, &path, Some(&olga), &[], Some(&json!({"version": "v1"}))).await;
    let id = asked.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    installation.decide(&olga, &id, "approve", &json!({})).await.expect(202);
}

#[tokio::test]
async fn what_waits_takes_no_place_no_turn_and_no_sequence() {
    let installation = without_worker().await;
    let parameters = json!([{"name": "MODE", "type": "string", "approval": "always"}]);
    let application = installation.register(json!({"parameters": parameters})).await;
    let unusual = json!({"version": "v1", "variables": {"MODE": "odd"}});
    let waits = installation.deploy_with(&application, &unusual, &[]).await.expect(202);
    let id = waits["deploymentId"].as_str().unwrap();
    assert_eq!(waits["status"], "awaiting_approval");
    assert_eq!(installation.get("queue").await.expect(200)["length"], 0);
    let other = installation.deploy(&application, "v2").await.expect(202);
    let other = installation.record(other["deploymentId"].as_str().unwrap()).await;
    assert_eq!((&other["sequence"], &other["queuePosition"]), (&json!(1), &Value::Null), "{other}");
    assert_eq!(installation.record(id).await["sequence"], Value::Null);
    let approved = installation.decide(&installation.admin_token, id, "approve", &json!({})).await.expect(202);
    assert_eq!((&approved["status"], &approved["sequence"]), (&json!("queued"), &json!(2)), "{approved}");
    assert_eq!(installation.get("queue").await.expect(200)["length"], 2);
}

#[tokio::test]
async fn an_approval_covers_what_was_looked_at_and_nothing_else() {
    let installation = without_worker().await;
    let application = installation.register(careful()).await;
    installation.push(&application, "v1", Mode::Ok).await;
    let id = ask(&installation, &application, "v1").await;
    let admin = installation.admin_token.clone();
    let hash = async || installation.record(&id).await["approval"]["hash"].as_str().unwrap().to_owned();
    let deadline = installation.record(&id).await["approval"]["expiresAt"].clone();
    let mut seen = vec![hash().await];

    let variable = json!({"scope": "application", "applicationId": application.id, "key": "LEVEL", "value": "1"});
    let variable = installation.post("variables", &variable).await.expect(201)["id"].clone();
    let change = async |what: &str| match what {
        "a new variable" => {}
        "its value" => {
            let path = format!("variables/{}", variable.as_str().unwrap());
            installation.put(&path, &json!({"value": "2", "isSecret": true})).await.expect(200);
        }
        "an option of its container" => {
            let path = format!("applications/{}", application.id);
            installation.put(&path, &json!({"container": {"init": false}})).await.expect(200);
        }
        "its image" => {
            let path = format!("applications/{}", application.id);
            let image = format!("{}-other", application.image);
            installation.put(&path, &json!({"image": image})).await.expect(200);
            assert!(installation.record(&id).await["digest"].is_string());
        }
        "how it is rolled out" => {
            let path = format!("applications/{}", application.id);
            installation.put(&path, &json!({"rollout": {"maxParallel": 7}})).await.expect(200);
        }
        other => panic!("{other}"),
    };
    for what in ["a new variable", "its value", "an option of its container", "how it is rolled out", "its image"] {
        change(what).await;
        let stale = installation.decide(&admin, &id, "approve", &json!({})).await.expect(409);
        assert!(stale["type"].as_str().unwrap().ends_with("/approval-stale"), "{what}: {stale}");
        let now = hash().await;
        assert!(!seen.contains(&now), "{what} changes the hash");
        assert_eq!(stale["hash"], json!(now));
        let record = installation.record(&id).await;
        assert_eq!((&record["status"], &record["approval"]["expiresAt"]), (&json!("awaiting_approval"), &deadline));
        // The one that was looked at before says no more than that.
        let before = json!({"hash": seen.last().unwrap()});
        installation.decide(&admin, &id, "approve", &before).await.expect(409);
        assert_eq!(hash().await, now);
        seen.push(now);
    }
    assert_eq!(installation.record(&id).await["digest"], Value::Null, "the digest is not that of another image");
    let path = format!("/api/v2/approvals/{id}/approve");
    let unseen = installation.call(Method::POST, &path, Some(&admin), &[], Some(&json!({}))).await;
    assert_eq!(unseen.faults(), [("hash".to_owned(), "missing".to_owned())]);
    let approved = installation.decide(&admin, &id, "approve", &json!({"hash": hash().await})).await.expect(202);
    assert_eq!(approved["status"], "queued");
}

#[tokio::test]
async fn a_tag_that_moves_while_it_waits_changes_nothing_of_what_runs() {
    let installation = Installation::start().await;
    let application = installation.register(careful()).await;
    installation.push(&application, "v1", Mode::Ok).await;
    let id = ask(&installation, &application, "v1").await;
    let digest = installation.record(&id).await["digest"].clone();
    assert!(digest.as_str().unwrap().starts_with("sha256:"), "{digest}");
    // Somebody pushes another image under the same name.
    let repository = application.image.split_once('/').unwrap().1;
    let changes = vec!["ENV VERSION=other".to_owned()];
    let other = DemoImage { health_check: false, changes, ..DemoImage::new("v1", Mode::Ok) };
    let (docker, registry) = (&installation.docker, &installation.registry);
    other.push(docker, registry.addr(), repository, &registry.login()).await.unwrap();
    installation.decide(&installation.admin_token, &id, "approve", &json!({})).await.expect(202);
    let ended = installation.ended(&application, &id).await;
    assert_eq!((&ended["status"], &ended["digest"]), (&json!("succeeded"), &digest), "{ended}");
    assert_eq!(installation.visit(&application, "/").await.unwrap(), "version v1\n");
}

/// Puts the deadline of one that waits into the past, as if so much time had gone by.
async fn overdue(installation: &Installation, id: &str) {
    let id = DeploymentId::parse(id).unwrap();
    let key = keys::deployment(&stack::tenant(), id);
    let past = clock::now() - SignedDuration::from_secs(1);
    let table = &installation.aws().clients().dynamodb;
    let change = table.update_item().table_name(provision::TABLE).key("pk", AttributeValue::S(key.pk));
    let change = change.key("sk", AttributeValue::S(key.sk)).update_expression("SET approval.expiresAt = :past");
    change.expression_attribute_values(":past", AttributeValue::S(past.to_string())).send().await.unwrap();
}

#[tokio::test]
async fn after_six_hours_it_is_too_late_whether_or_not_anybody_has_looked() {
    let installation = without_worker().await;
    let application = installation.register(careful()).await;
    let id = ask(&installation, &application, "v1").await;
    let record = installation.record(&id).await;
    let time = |field: &str| record["approval"][field].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert_eq!(time("expiresAt").duration_since(time("askedAt")), SignedDuration::from_hours(6));

    // The sweep looks, and it is not due yet; at its deadline it is.
    let store = installation.stack.store();
    let early = store.time_out_approvals(time("expiresAt") - SignedDuration::from_secs(1)).await.unwrap();
    assert_eq!((early.timed_out, early.failed), (0, 0));
    let due = store.time_out_approvals(time("expiresAt")).await.unwrap();
    assert_eq!((due.timed_out, due.failed), (1, 0));
    let ended = installation.record(&id).await;
    assert_eq!((&ended["status"], &ended["rejectReason"]), (&json!("timed_out"), &json!("approval-timed-out")));
    let again = store.time_out_approvals(time("expiresAt")).await.unwrap();
    assert_eq!((again.timed_out, again.failed), (0, 0));

    // Nobody has swept, and a decision comes too late all the same.
    let id = ask(&installation, &application, "v1").await;
    overdue(&installation, &id).await;
    installation.post(&format!("deployments/{id}/cancel"), &json!({})).await.expect(409);
    assert_eq!(installation.record(&id).await["status"], "timed_out");
    for verb in ["approve", "reject"] {
        let id = ask(&installation, &application, "v1").await;
        overdue(&installation, &id).await;
        let late = installation.decide(&installation.admin_token, &id, verb, &json!({})).await.expect(409);
        assert!(late["type"].as_str().unwrap().ends_with("/approval-timed-out"), "{late}");
        assert_eq!(installation.record(&id).await["status"], "timed_out");
    }
    assert_eq!(installation.waiting().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_full_queue_leaves_it_waiting() {
    let installation = without_worker().await;
    installation.put("settings", &json!({"queue": {"capacity": 1, "reserved": 0}})).await.expect(200);
    let application = installation.register(json!({})).await;
    let careful = installation.register(careful()).await;
    let id = ask(&installation, &careful, "v1").await;
    let first = installation.deploy(&application, "v1").await.expect(202)["deploymentId"].clone();
    let full = installation.decide(&installation.admin_token, &id, "approve", &json!({})).await;
    assert!(full.headers.contains_key("retry-after"));
    assert!(full.expect(503)["type"].as_str().unwrap().ends_with("/queue-full"));
    assert_eq!(installation.record(&id).await["status"], "awaiting_approval");
    installation.post(&format!("deployments/{}/cancel", first.as_str().unwrap()), &json!({})).await.expect(202);
    installation.decide(&installation.admin_token, &id, "approve", &json!({})).await.expect(202);
}

#[tokio::test]
async fn a_later_request_supersedes_what_waits_if_only_the_latest_is_wanted() {
    let installation = without_worker().await;
    let latest = json!({"approval": {"required": true}, "rollout": {"concurrency": "latest"}});
    let application = installation.register(latest).await;
    let first = ask(&installation, &application, "v1").await;
    let second = ask(&installation, &application, "v2").await;
    let superseded = installation.record(&first).await;
    assert_eq!((&superseded["status"], &superseded["supersededBy"]), (&json!("superseded"), &json!(second)));
    assert_eq!(superseded["approval"]["status"], "withdrawn");
    assert_eq!(installation.waiting().await, std::slice::from_ref(&second));

    // Without that rule each waits for itself.
    let application = installation.register(careful()).await;
    let third = ask(&installation, &application, "v1").await;
    let fourth = ask(&installation, &application, "v2").await;
    assert_eq!(installation.waiting().await, [second, third, fourth]);
}

#[tokio::test]
async fn what_waits_can_be_called_off_and_asked_for_again() {
    let installation = without_worker().await;
    let parameters = json!([{"name": "MODE", "type": "string", "approval": "always", "sensitive": true}]);
    let application = installation.register(json!({"parameters": parameters})).await;
    let asked = json!({"version": "v1", "variables": {"MODE": "odd"}});
    let id = installation.deploy_with(&application, &asked, &[]).await.expect(202)["deploymentId"].clone();
    let id = id.as_str().unwrap();
    let retry = format!("deployments/{id}/retry");
    installation.post(&retry, &json!({})).await.expect(409);
    installation.post(&format!("deployments/{id}/cancel"), &json!({})).await.expect(202);
    assert_eq!(installation.record(id).await["status"], "cancelled");
    assert_eq!(installation.waiting().await, Vec::<String>::new());

    let again = installation.post(&retry, &json!({})).await.expect(202);
    assert_eq!((&again["status"], &again["retryOf"]), (&json!("awaiting_approval"), &json!(id)), "{again}");
    assert_eq!(again["trigger"]["type"], "retry");
    // Validated again, as the application is now.
    let path = format!("applications/{}", application.id);
    installation.put(&path, &json!({"parameters": []})).await.expect(200);
    let refused = installation.post(&retry, &json!({})).await;
    assert_eq!(refused.faults(), [("variables.MODE".to_owned(), "undeclared".to_owned())]);
    let waiting = again["deploymentId"].as_str().unwrap();
    let invalid = installation.decide(&installation.admin_token, waiting, "approve", &json!({})).await;
    assert_eq!(invalid.faults(), [("variables.MODE".to_owned(), "undeclared".to_owned())]);
    assert_eq!(installation.record(waiting).await["status"], "awaiting_approval");
    installation
        .call(Method::DELETE, &format!("/api/v2/{path}"), Some(&installation.admin_token), &[], None)
        .await
        .expect(409);
}

#[tokio::test]
async fn a_dry_run_says_what_would_wait_and_changes_nothing() {
    let installation = without_worker().await;
    let parameters = json!([{"name": "SERVER", "type": "host", "approval": "public-address"}]);
    let application = installation.register(json!({ "parameters": parameters })).await;
    let check = async |server: &str| {
        let body = json!({"applicationId": application.id, "token": application.token, "version": "v1",
            "variables": {"SERVER": server}});
        installation.call(Method::POST, "/webhook/validate", None, &[], Some(&body)).await
    };
    let private = check("192.168.0.9").await.expect(200);
    assert_eq!((&private["validationPassed"], &private["approval"]["required"]), (&json!(true), &json!(false)));
    let public = check("8.8.8.8").await.expect(200);
    assert_eq!(public["approval"]["reasons"][0]["code"], "public-address", "{public}");
    let reserved = check("127.0.0.1").await;
    assert_eq!(reserved.faults(), [("variables.SERVER".to_owned(), "reserved-address".to_owned())]);
    assert_eq!(reserved.json()["validationPassed"], false);
    let listed = installation.get(&format!("deployments?applicationId={}", application.id)).await.expect(200);
    assert_eq!(listed["data"], json!([]));
    assert_eq!(installation.waiting().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_value_is_kept_as_it_was_written_whatever_json_makes_of_it() {
    let installation = without_worker().await;
    let parameters =
        json!([{"name": "RATE", "type": "number", "approval": "always"}, {"name": "MORE", "type": "json"}]);
    let application = installation.register(json!({ "parameters": parameters })).await;
    let (id, token) = (application.id, &application.token);
    let variables = r#"{"RATE": 1.50, "MORE": {"id": 12345678901234567890123, "rate": 1e2}}"#;
    let body = format!(r#"{{"applicationId": {id}, "token": "{token}", "version": "v1", "variables": {variables}}}"#);
    let url = format!("{}/webhook/deploy", installation.stack.url());
    let request = installation.http.post(url).header("content-type", "application/json").body(body);
    let asked = Answer::of(request.send().await.unwrap()).await.expect(202);
    let path = format!("approvals/{}", asked["deploymentId"].as_str().unwrap());
    let shown = installation.get(&path).await.expect(200)["variables"].clone();
    assert_eq!(shown, json!({"RATE": "1.50", "MORE": r#"{"id": 12345678901234567890123, "rate": 1e2}"#}));
}
