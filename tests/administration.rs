//! The administration API over HTTP, against the embedded services.

pub(crate) mod admin;
mod parameters;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use self::admin::Admin;

const MASK: &str = "***************";

pub(crate) fn application() -> Value {
    json!({"projectId": "shop", "name": "myapp", "image": "registry.example.com:5000/shop/myapp", "registryId": 1,
        "ports": [{"host": 8080, "container": 80}], "hosts": {"names": ["local"]}})
}

#[tokio::test]
async fn nothing_is_open_without_a_credential() {
    let mut admin = Admin::start().await;
    let resources =
        ["projects", "registries", "secret-groups", "secrets", "variables", "applications", "deployments", "hosts"];
    for path in resources {
        for path in [path.to_owned(), format!("{path}/1")] {
            for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
                let answer = admin.call(method.clone(), &path, &[], Some(json!({"no": "matter"}))).await;
                assert!(matches!(answer.status.as_u16(), 401 | 405), "{method} {path}: {}", answer.status);
            }
        }
    }
    for (username, password) in [("admin", "wrong"), ("nobody", "admin"), ("admin", "")] {
        let answer = admin.post("auth/login", json!({"username": username, "password": password})).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    admin.sign_in("viewer").await;
    assert_eq!(admin.get("projects").await.body, json!({"data": [], "nextCursor": null}));
    assert_eq!(admin.post("projects", json!({})).await.status, StatusCode::FORBIDDEN);
    admin.sign_in("operator").await;
    assert_eq!(admin.delete("projects/1").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_application_is_shown_with_its_defaults_and_its_token_once() {
    let admin = Admin::signed_in().await;
    let created = admin.registered().await;
    let token = created["webhookToken"].as_str().unwrap();
    assert!(token.starts_with("whk_"));
    let shown = admin.get("applications/1").await.body;
    let expect = json!({
        "id": 1, "projectId": 1, "name": "myapp", "owner": "admin", "image": "registry.example.com:5000/shop/myapp",
        "registryId": 1, "ports": [{"host": 8080, "container": 80, "protocol": "tcp", "hostIp": "0.0.0.0"}],
        "hosts": {"names": ["local"]}, "envId": null, "versionPattern": null, "parameters": [], "healthCheck": null,
        "container": {"restartPolicy": "unless-stopped", "restartMaxRetries": null, "command": null, "entrypoint": null,
            "user": null, "workingDir": null, "hostname": null, "memoryBytes": null, "cpus": null, "pidsLimit": null,
            "shmSizeBytes": null, "ulimits": [], "volumes": [], "tmpfs": [], "networks": [], "extraHosts": {},
            "labels": {}, "capAdd": [], "capDrop": [], "privileged": false, "init": true, "readOnlyRoot": false, "log": null, "stopTimeoutSeconds": 10},
        "rollout": {"strategy": "recreate", "maxParallel": 1, "rollbackOnFailure": true, "bakeSeconds": 0,
            "concurrency": "queue"}, "adopt": false, "limits": null,
        "approval": {"required": false, "requireOtherApprover": false}, "trustedRepositories": [], "issueTrigger": null,
        "webhook": {"enabled": true, "tokenHint": format!("{}…", &token[..6]), "lastUsedAt": null},
        "status": {"state": "not-deployed", "version": null, "digest": null, "lastDeployedAt": null,
            "needsRedeploy": null, "hosts": []},
        "revision": 1, "createdAt": created["createdAt"], "updatedAt": created["updatedAt"],
    });
    assert_eq!(shown, expect);
    let mut changed = shown;
    changed["healthCheck"] = json!({"type": "http", "port": 80});
    let changed = admin.put("applications/1", changed).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    assert_eq!(
        changed.body["healthCheck"],
        json!({"type": "http", "path": "/", "port": 80, "intervalMs": 500,
        "timeoutMs": 1000, "retries": 3, "startPeriodMs": 2000, "deadlineMs": 60000})
    );
    assert_eq!(changed.body["revision"], 2);
}

#[tokio::test]
async fn every_fault_of_an_application_is_told_at_once() {
    let admin = Admin::signed_in().await;
    let answer = admin.post("applications", json!({
        "projectId": "NOPE", "name": "my app", "image": "myapp:v1", "ports": [{"host": 0, "container": 80, "proto": "tcp"},
        {"host": 80, "container": 80}, {"host": 80, "container": 81}], "hosts": {"names": []}, "tenantId": "other",
        "versionPattern": "(", "parameters": [{"name": "1"}], "healthCheck": {"type": "http"}, "envId": "1",
        "container": {"volumes": [{"source": "/a/../b", "target": "data"}], "cpus": 0},
        "rollout": {"maxParallel": 21, "bakeSeconds": 3601},
    })).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let expect = [
        ("projectId", "format-key"),
        ("name", "format-name"),
        ("image", "format-image"),
        ("ports[0].host", "out-of-range"),
        ("ports[0].proto", "unknown-field"),
        ("ports[1].host", "duplicate"),
        ("hosts.names", "out-of-range"),
        ("versionPattern", "format-pattern"),
        ("parameters[0].name", "format-key"),
        ("healthCheck.port", "missing"),
        ("container.cpus", "out-of-range"),
        ("container.volumes[0].source", "format-path"),
        ("container.volumes[0].target", "format-path"),
        ("rollout.bakeSeconds", "out-of-range"),
        ("rollout.maxParallel", "out-of-range"),
        ("envId", "format-id"),
        ("tenantId", "unknown-field"),
    ];
    let mut faults = answer.faults();
    faults.sort_unstable();
    let mut expect = expect.to_vec();
    expect.sort_unstable();
    assert_eq!(faults, expect);
    assert_eq!(admin.get("applications").await.body["data"], json!([]));
}

#[tokio::test]
async fn an_images_credentials_are_its_own_servers() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    let mut other = application();
    other["name"] = "other".into();
    other["image"] = "elsewhere.example.com/shop/other".into();
    assert_eq!(admin.post("applications", other).await.faults(), [("registryId", "registry-mismatch")]);
    let moved = admin.put("registries/1", json!({"server": "elsewhere.example.com"})).await;
    assert_eq!(moved.faults(), [("password", "missing")]);
    let moved = admin.put("registries/1", json!({"server": "elsewhere.example.com", "password": MASK})).await;
    assert_eq!(moved.faults(), [("password", "mask")]);
    let moved = admin.put("registries/1", json!({"server": "elsewhere.example.com", "password": "new"})).await;
    assert_eq!((moved.status, &moved.body["usedBy"]), (StatusCode::CONFLICT, &json!(["application 1 (myapp)"])));
}

#[tokio::test]
async fn no_answer_shows_a_secret_and_a_round_trip_keeps_it() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    admin.created("variables", json!({"key": "TOKEN", "value": "marked-secret", "isSecret": true})).await;
    for path in ["registries/1", "secrets/1", "variables/global.TOKEN"] {
        let shown = admin.get(path).await.body;
        let again = admin.put(path, shown.clone()).await;
        assert_eq!(again.status, StatusCode::OK, "{path} {}", again.body);
        let text = format!("{shown}{}", again.body);
        assert!(!text.contains("marked-secret") && !text.contains("registry-pa55") && text.contains(MASK), "{text}");
    }
    assert_eq!(admin.get("secrets/1").await.body["valueVersion"], 1);
    assert_eq!(admin.put("secrets/1", json!({"value": "other"})).await.body["valueVersion"], 2);
    for (path, body) in [
        ("secrets", json!({"groupId": 1, "name": "B", "value": MASK})),
        ("variables", json!({"key": "B", "value": MASK})),
    ] {
        assert_eq!(admin.post(path, body).await.faults(), [("value", "mask")], "{path}");
    }
    let shown_by_accident = admin.put("variables/global.TOKEN", json!({"isSecret": false})).await;
    assert_eq!(shown_by_accident.faults(), [("value", "missing")]);
}

#[tokio::test]
async fn what_is_used_cannot_be_deleted_and_says_by_what() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    admin.created("variables", json!({"projectId": 1, "key": "URL", "value": "@secret:db/URL"})).await;
    let check = async |path: &str, users: Value| {
        let answer = admin.delete(path).await;
        assert_eq!((answer.status, &answer.body["usedBy"]), (StatusCode::CONFLICT, &users), "{path}");
    };
    check("projects/shop", json!(["application 1 (myapp)", "variable URL of this project"])).await;
    check("registries/1", json!(["application 1 (myapp)"])).await;
    check("secret-groups/1", json!(["secret 1 (URL)"])).await;
    check("secrets/1", json!(["variable URL (project 1)"])).await;
    for path in
        ["variables/project-1.URL", "applications/1", "secrets/1", "secret-groups/1", "registries/1", "projects/1"]
    {
        assert_eq!(admin.delete(path).await.status, StatusCode::NO_CONTENT, "{path}");
        assert_eq!(admin.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_variable_is_of_its_scope_and_type() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    let check = async |body: Value, expect: &[(&str, &str)]| {
        let answer = admin.post("variables", body.clone()).await;
        assert_eq!(answer.faults(), expect, "{body}");
        assert_eq!(answer.status == StatusCode::CREATED, expect.is_empty(), "{body} {}", answer.body);
    };
    check(json!({"scope": "project", "key": "A", "value": ""}), &[("projectId", "missing")]).await;
    check(json!({"scope": "global", "projectId": 1, "key": "A", "value": ""}), &[("projectId", "not-of-scope")]).await;
    check(json!({"projectId": 9, "key": "A", "value": ""}), &[("projectId", "unknown-reference")]).await;
    check(json!({"projectId": "gone", "key": "A", "value": ""}), &[("projectId", "unknown-reference")]).await;
    check(json!({"applicationId": 9, "key": "A", "value": ""}), &[("applicationId", "unknown-reference")]).await;
    check(json!({"key": "A", "value": "x", "valueType": "number"}), &[("value", "format-number")]).await;
    check(json!({"key": "A", "value": "@secret:9"}), &[("value", "unknown-reference")]).await;
    check(
        json!({"key": "A-B", "value": [], "valueType": "odd"}),
        &[("key", "format-key"), ("value", "wrong-type"), ("valueType", "unknown-value")],
    )
    .await;
    check(json!({"scope": "application", "applicationId": 1, "key": "N", "value": 30, "valueType": "number"}), &[])
        .await;
    check(json!({"scope": "global", "key": "N", "value": "@secret:1"}), &[]).await;
    let listed = admin.get("variables?scope=application&applicationId=1").await.body;
    assert_eq!((&listed["data"][0]["value"], &listed["data"][0]["id"]), (&json!("30"), &json!("application-1.N")));
    let reference = admin.get("variables/global.N").await.body;
    assert_eq!(
        (&reference["valueType"], &reference["value"], &reference["secretId"], &reference["isSecret"]),
        (&json!("secret_ref"), &json!("@secret:1"), &json!(1), &json!(true)),
    );
    let taken = admin.post("variables", json!({"key": "N", "value": ""})).await;
    assert_eq!((taken.status, &taken.body["field"]), (StatusCode::CONFLICT, &json!("key")));
}

#[tokio::test]
async fn a_repeated_creation_answers_as_the_first() {
    let admin = Admin::signed_in().await;
    admin.registered().await;
    let mut body = application();
    body["name"] = "twice".into();
    body["ports"] = json!([]);
    let key = [("Idempotency-Key", "once")];
    let first = admin.call(Method::POST, "applications", &key, Some(body.clone())).await;
    let again = admin.call(Method::POST, "applications", &key, Some(body.clone())).await;
    assert_eq!((again.status, &again.body), (StatusCode::CREATED, &first.body));
    assert!(first.body["webhookToken"].is_string() && !first.headers.contains_key("idempotent-replayed"));
    assert_eq!(again.headers["idempotent-replayed"], "true");
    body["name"] = "thrice".into();
    let other = admin.call(Method::POST, "applications", &key, Some(body)).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(other.body["type"].as_str().unwrap().ends_with("/idempotency-key-reused"));
    assert_eq!(admin.get("applications").await.body["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_change_can_insist_on_what_was_read() {
    let admin = Admin::signed_in().await;
    admin.created("projects", json!({"name": "one"})).await;
    let shown = admin.get("projects/1").await;
    assert_eq!((shown.headers["etag"].to_str().unwrap(), &shown.body["key"]), ("\"1\"", &json!("proj-001")));
    let same = admin.call(Method::GET, "projects/1", &[("If-None-Match", "\"1\"")], None).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
    let change = async |revision: &'static str| {
        let headers = [("If-Match", revision)];
        admin.call(Method::PUT, "projects/proj-001", &headers, Some(json!({"name": "two"}))).await.status
    };
    assert_eq!(change("\"1\"").await, StatusCode::OK);
    assert_eq!(change("\"1\"").await, StatusCode::PRECONDITION_FAILED);
    assert_eq!(admin.put("projects/1", json!({"id": 2})).await.faults(), [("id", "read-only")]);
}

#[tokio::test]
async fn what_changes_without_a_revision_is_sent_again() {
    let admin = Admin::signed_in().await;
    admin.created("projects", json!({"name": "one"})).await;
    admin.created("environments", json!({"projectId": 1, "name": "Production"})).await;
    admin.created("secret-groups", json!({"name": "db"})).await;
    admin.created("secrets", json!({"groupId": 1, "name": "PASSWORD", "value": "v"})).await;
    let ask = async |path: &str, tag: &str| {
        let answer = admin.call(Method::GET, path, &[("If-None-Match", tag)], None).await;
        (answer.status, answer.headers["etag"].to_str().unwrap().to_owned())
    };
    let seen = async |path: &str| {
        let (status, tag) = ask(path, "\"none\"").await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert_eq!(ask(path, &tag).await, (StatusCode::NOT_MODIFIED, tag.clone()), "{path}");
        tag
    };
    let (secret, environment) = (seen("secrets/1").await, seen("environments/env-1").await);
    let reference = json!({"scope": "global", "key": "P", "value": "@secret:1", "valueType": "secret_ref"});
    admin.created("variables", reference).await;
    assert_eq!(admin.call(Method::POST, "environments/env-1/activate", &[], None).await.status, StatusCode::OK);
    for (path, tag, field, now) in
        [("secrets/1", secret, "usedBy", json!(1)), ("environments/env-1", environment, "isActive", json!(true))]
    {
        let (status, other) = ask(path, &tag).await;
        assert_eq!((status, other == tag), (StatusCode::OK, false), "{path}");
        let shown = admin.get(path).await.body;
        assert_eq!((&shown[field], &shown["revision"]), (&now, &json!(1)), "{path}");
        // The revision is what a change insists on.
        let change = admin.call(Method::PUT, path, &[("If-Match", &tag)], Some(json!({"name": "OTHER"}))).await;
        assert_eq!(change.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn last_write_wins_without_losing_either() {
    let admin = Admin::signed_in().await;
    admin.created("projects", json!({"name": "one"})).await;
    let names: Vec<_> = (0..30).map(|i| format!("name {i}")).collect();
    let writes = names.iter().map(|name| admin.put("projects/1", json!({"name": name})));
    for answer in futures_util::future::join_all(writes).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    }
    assert_eq!(admin.get("projects/1").await.body["revision"], 31);
}

#[tokio::test]
async fn no_name_is_made_to_look_like_another() {
    let admin = Admin::signed_in().await;
    admin.created("projects", json!({"name": "one"})).await;
    admin.created("secret-groups", json!({"name": "db"})).await;
    for name in ["x\u{200b}", "\u{202e}x", "a\u{2066}b", "a\u{feff}"] {
        for (path, body) in [
            ("projects", json!({"name": name})),
            ("environments", json!({"projectId": 1, "name": name})),
            ("secret-groups", json!({"name": name})),
            ("secrets", json!({"groupId": 1, "name": name, "value": "v"})),
        ] {
            assert_eq!(admin.post(path, body).await.faults(), [("name", "format-text")], "{path} {name:?}");
        }
    }
    // What scripts are written with is no such thing.
    admin.created("secret-groups", json!({"name": "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}"})).await;
}

#[tokio::test]
async fn lists_come_in_pages_that_cannot_be_tampered_with() {
    let admin = Admin::signed_in().await;
    for group in ["a", "b"] {
        admin.created("secret-groups", json!({"name": group})).await;
    }
    for i in 0..6 {
        admin.created("secrets", json!({"groupId": 1 + i % 2, "name": format!("S{i}"), "value": "x"})).await;
    }
    let first = admin.get("secrets?groupId=2&limit=2").await.body;
    let ids = |page: &Value| page["data"].as_array().unwrap().iter().map(|s| s["id"].clone()).collect::<Vec<_>>();
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = admin.get(&format!("secrets?groupId=2&limit=2&cursor={cursor}")).await.body;
    assert_eq!((ids(&first), ids(&second)), (vec![json!(2), json!(4)], vec![json!(6)]));
    let changed = format!("{}{}", if cursor.starts_with('A') { "B" } else { "A" }, &cursor[1..]);
    assert_eq!(admin.get(&format!("secrets?cursor={changed}")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(admin.get(&format!("projects?cursor={cursor}")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(admin.get("secrets?limit=201").await.faults(), [("limit", "out-of-range")]);
    assert_eq!(admin.get("secrets?limt=2").await.faults(), [("limt", "unknown-field")]);
}

#[tokio::test]
async fn a_token_is_rotated_and_a_webhook_switched() {
    let admin = Admin::signed_in().await;
    let created = admin.registered().await;
    let rotated = admin.call(Method::POST, "applications/1/webhook-token", &[], None).await;
    assert_eq!((rotated.status, &rotated.body["previousValidUntil"]), (StatusCode::OK, &Value::Null));
    assert_ne!(rotated.body["webhookToken"], created["webhookToken"]);
    let overlapping = admin.post("applications/1/webhook-token", json!({"overlapSeconds": 60})).await;
    assert!(overlapping.body["previousValidUntil"].is_string(), "{}", overlapping.body);
    let off = admin.put("applications/1/webhook", json!({"enabled": false})).await;
    assert_eq!((off.status, &off.body["enabled"]), (StatusCode::OK, &json!(false)));
    assert_eq!(admin.get("applications/1").await.body["webhook"]["enabled"], false);
    assert_eq!(admin.post("applications/9/webhook-token", json!({})).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn hosts_are_registered_with_labels() {
    let admin = Admin::signed_in().await;
    let registered = admin.put("hosts/local", json!({"labels": {"role": "web"}})).await;
    assert_eq!(registered.status, StatusCode::CREATED, "{}", registered.body);
    let changed = admin.put("hosts/local", registered.body.clone()).await;
    assert_eq!((changed.status, &changed.body["revision"]), (StatusCode::OK, &json!(2)), "{}", changed.body);
    let listed = admin.get("hosts").await.body;
    assert_eq!((&listed["data"][0]["name"], &listed["data"][0]["online"]), (&json!("local"), &json!(false)));
    admin.registered().await;
    assert_eq!(admin.delete("hosts/local").await.body["usedBy"], json!(["application 1 (myapp)"]));
    assert_eq!(admin.put("hosts/Web", json!({})).await.faults(), [("name", "format-name")]);
}

#[tokio::test]
async fn services_that_are_away_are_told_and_nothing_is_half_written() {
    let admin = Admin::signed_in().await;
    admin.created("secret-groups", json!({"name": "db"})).await;
    let health = async || admin.http.get(format!("{}/healthz", admin.base)).send().await.unwrap().status();
    assert_eq!(health().await, StatusCode::OK);
    admin.aws.stop_sqs_kms();
    let refused = admin.post("secrets", json!({"groupId": 1, "name": "URL", "value": "x"})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(admin.get("secrets").await.body["data"], json!([]));
    admin.aws.resume_sqs_kms().unwrap();
    admin.created("secrets", json!({"groupId": 1, "name": "URL", "value": "x"})).await;
}

#[tokio::test]
async fn deployments_are_listed_by_what_is_asked() {
    let admin = Admin::signed_in().await;
    assert_eq!(admin.get("deployments?applicationId=1&status=queued&trigger=webhook").await.body["data"], json!([]));
    let wrong = admin.get("deployments?status=odd&trigger=odd&from=yesterday").await;
    assert_eq!(wrong.faults(), [("status", "unknown-value"), ("trigger", "unknown-value"), ("from", "format-time")]);
    assert_eq!(admin.get("deployments/no-id").await.status, StatusCode::NOT_FOUND);
}
