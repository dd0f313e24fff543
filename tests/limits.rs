//! Limits of accepted requests, through the API: never one too many, and nothing refused that has a place.

mod callers;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tidegate_aws::{
    clock,
    store::{Store, StoreConfig},
};
use tidegate_domain::limit::{Limits, Network};
use tidegate_local::provision;
use tidegate_web::layer;
use tidegate_webhook::WebhookState;

use self::callers::{Callers, Round, Told, windows};
use crate::support::{Answer, Installation, Setup};

const LIMITS: Limits = Limits { per_user: 3, per_ip: 5, total: 10 };
/// Callers at a time.
const CALLERS: usize = 50;
/// Of each kind, in one test.
const ROUNDS: usize = 7;

async fn without_worker() -> Installation {
    Installation::start_with(Setup { no_worker: true, no_sweeps: true, ..Setup::default() }).await
}

async fn limited() -> Callers {
    let installation = without_worker().await;
    let limits = json!({"trusted": LIMITS});
    let settings = json!({"limits": limits, "queue": {"capacity": 1_000, "reserved": 0}});
    installation.put("settings", &settings).await.expect(200);
    Callers::new(installation, 10, 10).await
}

#[tokio::test]
async fn fifty_callers_at_once_get_exactly_what_the_limits_allow() {
    let callers = limited().await;
    let mut all = 0;
    for (applications, addresses, expected) in [(1, 1, 3), (1, 10, 3), (10, 1, 5), (10, 10, 10)] {
        for _ in 0..ROUNDS {
            windows(&callers.installation).await.clear().await;
            let round = Round::of(callers.all_at_once(CALLERS, applications, addresses).await);
            assert_eq!(round.accepted(), expected, "{applications} applications from {addresses} addresses");
            round.expect_within(&LIMITS);
            all += round.told.len();
        }
    }
    println!(
        "figure: {all} requests by {CALLERS} callers at a time: 0 accepted beyond a limit, 0 refused that had a place"
    );
}

#[tokio::test]
async fn across_the_edge_of_the_hour_places_get_free_as_they_were_taken() {
    let callers = limited().await;
    let mut all = 0;
    for _ in 0..ROUNDS {
        let stored = windows(&callers.installation).await;
        stored.clear().await;
        let before = Round::of(callers.all_at_once(CALLERS, 10, 10).await);
        assert_eq!(before.accepted(), 10);
        // As if the first of them had been accepted an hour ago but for a second.
        let hits = stored.move_back_until(clock::now().as_millisecond() + 1_000).await;
        let freed = hits.iter().map(|hit| hit + 3_600_000).collect::<Vec<_>>();
        let edge = freed[freed.len() - 1];
        let mut told: Vec<Told> = Vec::new();
        while told.iter().filter(|told| told.accepted()).count() < 10 || told.iter().all(|told| told.begun < edge) {
            assert!(clock::now().as_millisecond() < edge + 60_000, "a place that got free is never given");
            told.extend(callers.all_at_once(CALLERS, 10, 10).await);
        }
        // Once more, when it is certain that all are taken again.
        told.extend(callers.all_at_once(CALLERS, 10, 10).await);
        all += told.len();
        told.sort_by_key(|told| told.ended);
        for (so_far, accepted) in told.iter().filter(|told| told.accepted()).enumerate() {
            let free = freed.iter().filter(|at| **at <= accepted.ended).count();
            assert!(so_far < free, "accepted before a place was free: {accepted:?}, {freed:?}");
        }
        // What was sent before the edge was refused for what was there before.
        let (sent_before, sent_after): (Vec<_>, Vec<_>) = told.into_iter().partition(|told| told.begun < edge);
        assert!(sent_before.iter().all(|told| told.accepted() || told.status == 429), "{sent_before:?}");
        let accepted_early = sent_before.into_iter().filter(Told::accepted);
        let round = Round::of(accepted_early.chain(sent_after).collect());
        assert_eq!(round.accepted(), 10);
        round.expect_within(&LIMITS);
    }
    println!(
        "figure: {all} requests across the edge of {ROUNDS} hours: each place is given again once, and not before its hour is over"
    );
}

#[tokio::test]
async fn what_is_not_accepted_costs_nothing() {
    let callers = limited().await;
    let (installation, application) = (&callers.installation, &callers.applications[0]);
    for _ in 0..4 {
        let invalid = installation.deploy_with(application, &json!({"version": "no/tag"}), &[]).await;
        invalid.expect(422);
        let key = [("Idempotency-Key", "once")];
        installation.deploy_with(application, &json!({"version": "v1"}), &key).await.expect(202);
        let body = json!({"applicationId": application.id, "token": application.token, "version": "v1"});
        installation.call(Method::POST, "/webhook/validate", None, &[], Some(&body)).await.expect(200);
    }
    for _ in 0..2 {
        installation.deploy(application, "v1").await.expect(202);
    }
    let full = installation.deploy(application, "v1").await;
    let body = full.expect(429);
    assert_eq!(body["limits"], json!(["per-user"]));
    assert_eq!((&body["validationPassed"], &body["rejectReason"]), (&json!(false), &json!("rate-limited")));
    let after: u64 = full.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_500..=3_601).contains(&after), "{after}");
    let queue = installation.get("queue").await.expect(200);
    assert_eq!(queue, json!({"length": 3, "capacity": 1_000, "reserved": 0}));
}

#[tokio::test]
async fn an_application_with_limits_of_its_own_has_places_of_its_own() {
    let callers = limited().await;
    let (installation, application) = (&callers.installation, &callers.applications[0]);
    let path = format!("applications/{}", application.id);
    let own = json!({"limits": {"perUser": 4, "perIp": 0, "total": 0}});
    assert_eq!(installation.put(&path, &own).await.expect(200)["limits"], own["limits"]);
    for _ in 0..4 {
        installation.deploy(application, "v1").await.expect(202);
    }
    assert_eq!(installation.deploy(application, "v1").await.expect(429)["limits"], json!(["per-user"]));
    // Nothing of that was counted for the tenant, and what is lifted gives places at once.
    installation.put(&path, &json!({"limits": null})).await.expect(200);
    for _ in 0..3 {
        installation.deploy(application, "v1").await.expect(202);
    }
    assert_eq!(installation.deploy(application, "v1").await.expect(429)["limits"], json!(["per-user"]));
    installation.put(&path, &json!({"limits": {"perUser": 0, "perIp": 0, "total": 0}})).await.expect(200);
    installation.deploy(application, "v1").await.expect(202);
}

#[tokio::test]
async fn what_is_accepted_and_refused_is_measured() {
    let callers = limited().await;
    let (installation, application) = (&callers.installation, &callers.applications[0]);
    for _ in 0..4 {
        installation.deploy(application, "v1").await;
    }
    installation.deploy_with(application, &json!({"version": "no/tag", "odd": 1}), &[]).await.expect(422);
    let summary = installation.get("metrics/summary?hours=2").await.expect(200);
    assert_eq!((&summary["requests"], &summary["passRate"]), (&json!(5), &json!(0.6)), "{summary}");
    assert_eq!(summary["outcomes"], json!({"admitted": 3, "rate-limited": 1, "rejected": 1}));
    assert_eq!(summary["triggers"], json!({"webhook": 5}));
    let source = Network::of([127, 0, 0, 1].into()).to_string();
    assert_eq!(summary["sources"], json!([{"name": source, "requests": 5, "rejections": 2}]));
    let caller = summary["callers"][0]["name"].as_str().unwrap();
    assert!(caller.ends_with(&application.id.to_string()), "{summary}");
    let codes: Vec<_> = summary["failures"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"rate-limited") && codes.contains(&"unknown-field"), "{summary}");
    let (p50, p95) = (summary["durationMs"]["p50"].as_f64().unwrap(), summary["durationMs"]["p95"].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p95, "{summary}");
    for wrong in ["0", "169", "x"] {
        let wrong = installation.get(&format!("metrics/summary?hours={wrong}")).await;
        wrong.expect(422);
        assert_eq!(wrong.faults()[0].0, "hours");
    }
    let told = installation.call(Method::GET, "/metrics", None, &[], None).await;
    assert_eq!(told.status.as_u16(), 200);
    let text = &told.text;
    // The counters are the process's, which other tests count in too.
    assert!(
        text.contains("tidegate_validations_total{outcome=\"rate-limited\"}") && text.ends_with("# EOF\n"),
        "{text}"
    );
    assert_eq!(summary["deployments"], Value::Object(serde_json::Map::new()));
}

#[tokio::test]
async fn a_request_beyond_the_limits_asks_no_registry() {
    let installation = without_worker().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let registry = axum::Router::new().fallback(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(axum::http::StatusCode::NOT_FOUND)
    });
    let serving = tokio::spawn(async move { axum::serve(listener, registry).await.unwrap() });
    let changes = json!({"image": format!("{server}/demo/shop"), "registryId": null, "approval": {"required": true}});
    let application = installation.register(changes).await;
    installation.put("settings", &json!({"limits": {"trusted": {"perUser": 1}}})).await.expect(200);
    assert_eq!(installation.deploy(&application, "v1").await.expect(202)["status"], "awaiting_approval");
    let before = asked.load(Ordering::Relaxed);
    assert!(before > 0, "what waits for a decision has its digest asked for");
    installation.deploy(&application, "v1").await.expect(429);
    assert_eq!(asked.load(Ordering::Relaxed), before);
    serving.abort();
}

/// Instances of the webhook function, which share nothing but the table.
async fn instances(installation: &Installation, count: usize) -> Vec<(String, tokio::task::JoinHandle<()>)> {
    let queues = installation.stack.queues();
    let clients = installation.aws().clients();
    let mut instances = Vec::new();
    for _ in 0..count {
        let config = StoreConfig {
            table: provision::TABLE.to_owned(),
            key: provision::KEY_ALIAS.to_owned(),
            host_queue_prefix: queues.host_url_prefix.clone(),
            intake_queue_url: None,
        };
        let state = WebhookState::new(Store::new(&clients, config), "http://127.0.0.1");
        let router = layer::complete(tidegate_webhook::routes(state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhook/deploy", listener.local_addr().unwrap());
        instances.push((url, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })));
    }
    instances
}

#[tokio::test]
async fn instances_that_share_only_the_table_accept_exactly_what_the_limits_allow() {
    let callers = limited().await;
    let installation = &callers.installation;
    let instances = instances(installation, 10).await;
    let mut all = 0;
    for (applications, expected) in [(1, 3), (10, 10)] {
        for _ in 0..ROUNDS {
            windows(installation).await.clear().await;
            let asked = (0..CALLERS).map(async |i| {
                let application = &callers.applications[i % applications];
                let body = json!({"applicationId": application.id, "token": application.token, "version": "v1"});
                let (url, _) = &instances[(i / applications + i) % instances.len()];
                Answer::of(installation.http.post(url).json(&body).send().await.unwrap()).await.status.as_u16()
            });
            let told = join_all(asked).await;
            let count = |status| told.iter().filter(|told| **told == status).count();
            assert_eq!(
                (count(202), count(429)),
                (expected, CALLERS - expected),
                "{applications} applications: {told:?}"
            );
            all += told.len();
        }
    }
    println!(
        "figure: {all} requests to {} instances with {CALLERS} callers at a time: 0 beyond a limit, 0 refused that had a place, 0 left undecided",
        instances.len()
    );
    for (_, serving) in &instances {
        serving.abort();
    }
}
