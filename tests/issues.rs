//! GitHub issues ask for deployments, and hear of them.

mod decisions;
mod delivery;
mod fuzz;
mod trouble;

use std::fmt::Write as _;

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tidegate_aws::random;
use tidegate_domain::issue::form;
use tidegate_local::demo_image::Mode;

use crate::{
    secrets::{
        items,
        logs::Log,
        needles::{Needles, Searched},
    },
    support::{
        Application, Installation, Setup, eventually,
        fake_github::{BOT, FakeGithub, REPOSITORY},
        hex,
    },
};

/// A private address asks nobody, a public one the owner.
const PRIVATE: &str = "http://10.1.2.3:21114";
const PUBLIC: &str = "https://203.0.112.9";

/// An installation whose application listens to a repository.
struct Shop {
    github: FakeGithub,
    installation: Installation,
    application: Application,
    secret: String,
}

impl Shop {
    /// Without a worker: what is queued stays queued.
    async fn open() -> Self {
        Self::open_with(Setup { no_worker: true, no_sweeps: true, ..Setup::default() }).await
    }

    async fn open_with(setup: Setup<'_>) -> Self {
        let (github, installation) = (FakeGithub::start().await, Installation::start_with(setup).await);
        let secret = hex(&random::bytes::<16>());
        let parameters = json!([
            {"name": "email", "type": "email"},
            {"name": "super_password", "type": "string", "sensitive": true},
            {"name": "api_server", "type": "url", "approval": "public-address"},
        ]);
        let trigger = json!({"repository": REPOSITORY.to_lowercase(), "label": "Deploy"});
        let application = installation.register(json!({"parameters": parameters, "issueTrigger": trigger})).await;
        let shop = Self { github, installation, application, secret };
        shop.settle(json!({"token": shop.github.token()})).await;
        shop.github.tells(shop.hook_url(), &shop.secret);
        shop
    }

    /// No limits: they are other tests' business.
    async fn settle(&self, auth: Value) {
        let mut github = json!({"apiUrl": self.github.url(), "webhookSecret": self.secret});
        for (field, value) in auth.as_object().unwrap() {
            github[field] = value.clone();
        }
        let none = json!({"perUser": 0, "perIp": 0, "total": 0});
        self.installation.put("settings", &json!({"limits": {"open": none}, "github": github})).await.expect(200);
    }

    fn hook_url(&self) -> String {
        format!("{}/webhook/github", self.installation.stack.url())
    }

    /// Its deployments, the oldest first.
    async fn deployments(&self) -> Vec<Value> {
        let path = format!("deployments?applicationId={}&limit=200", self.application.id);
        let mut listed = self.installation.get(&path).await.expect(200)["data"].as_array().unwrap().clone();
        listed.reverse();
        listed
    }

    /// Until nothing waits any more: neither a delivery nor a notice.
    async fn quiet(&self) {
        let clients = self.installation.aws().clients();
        eventually("nothing waits any more", async || {
            let waits = items(&clients).await.into_iter().any(|item| item["pk"].as_s().unwrap() == "INTAKE");
            (!waits).then_some(())
        })
        .await;
    }

    /// The only thing that we said on an issue, once nothing waits any more.
    async fn said(&self, number: u64) -> String {
        self.quiet().await;
        let said = self.github.said(number);
        assert_eq!(said.len(), 1, "one comment: {said:?}");
        said.into_iter().next().unwrap()
    }
}

fn body(version: &str, fields: &[(&str, &str)]) -> String {
    let mut body = format!("### Tag\n\n{version}\n");
    for (label, value) in fields {
        let _ = write!(body, "\n### {label}\n\n{value}\n");
    }
    body
}

#[tokio::test]
async fn an_issue_is_deployed_and_holds_no_values_afterwards() {
    let log = Log::of_this_process();
    let shop = Shop::open_with(Setup { no_sweeps: true, ..Setup::default() }).await;
    shop.installation.push(&shop.application, "v1", Mode::Ok).await;
    let (email, password) = (format!("{}@mail.example.com", hex(&random::bytes::<8>())), hex(&random::bytes::<16>()));
    let fields = [("email", email.as_str()), ("Super Password", &password), ("API server", PRIVATE)];
    let number = shop.github.open("writer", &body("v1", &fields), &["deploy"]).await;

    let deployment = eventually("the issue's deployment", async || shop.deployments().await.pop()).await;
    let id = deployment["deploymentId"].as_str().unwrap().to_owned();
    let ended = shop.installation.ended(&shop.application, &id).await;
    assert_eq!(ended["status"], "succeeded", "{ended}");
    assert_eq!((&ended["trigger"]["type"], &ended["trigger"]["actor"]), (&json!("issue"), &json!("github:writer")));
    for (name, value) in [("email", email.as_str()), ("super_password", &password), ("api_server", PRIVATE)] {
        assert_eq!(shop.installation.visit(&shop.application, &format!("/env/{name}")).await.unwrap(), value, "{name}");
    }
    let said = shop.said(number).await;
    assert!(said.contains("**Succeeded:** `v1`") && said.contains(&id), "{said}");
    assert_eq!(shop.deployments().await.len(), 1);

    let issue = shop.github.issue(number);
    assert!(form::is_sanitised(&issue.body) && issue.body.contains("### tag\n\nv1\n"), "{}", issue.body);
    assert_eq!(issue.labels, ["deploy", "sanitized"]);
    // Nowhere in what can be read: not in the table, not in what GitHub was sent, not in the log.
    let needles = Needles::of(&[("the address", &email), ("the password", &password)]);
    let mut searched = Searched::default();
    for item in items(&shop.installation.aws().clients()).await {
        needles.search(&format!("{:?}", item["pk"]), format!("{item:?}"), &mut searched);
    }
    for call in shop.github.calls() {
        needles.search(&call.path, call.body.to_string(), &mut searched);
    }
    needles.search("the log", log.text(), &mut searched);
    assert!(searched.hits.is_empty() && searched.places > 20, "{searched:?}");
}

#[tokio::test]
async fn every_fault_of_an_issue_is_told_in_one_comment_and_no_value_is_repeated() {
    let shop = Shop::open().await;
    let fields = [
        ("email", "marked-1 <img src=x> @everyone"),
        ("api_server", "http://marked-2:127.1"),
        ("super_password", "marked-3"),
        ("Super Password", "marked-4"),
        ("Something else", "marked-5"),
    ];
    let number = shop.github.open("writer", &body("a/marked-6", &fields), &["deploy"]).await;
    let said = shop.said(number).await;
    for part in [
        "**Rejected.**",
        "`version` (`format-version`)",
        "`variables.email` (`format-email`)",
        "`variables.api_server`",
        "`issue.super_password` (`duplicate`)",
        "Hint: ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("marked") && !said.contains("@everyone") && !said.contains("<img"), "{said}");
    let issue = shop.github.issue(number);
    assert!(form::is_sanitised(&issue.body) && !issue.body.contains("marked"), "{}", issue.body);
    let listed = shop.deployments().await;
    assert_eq!((listed.len(), &listed[0]["status"]), (1, &json!("rejected")), "{listed:?}");
    assert!(!format!("{listed:?}").contains("marked"));

    // Mended in the same issue: another request, and another answer.
    shop.github.edit("writer", number, &body("v2", &[("email", "a@example.com")])).await;
    eventually("the second request", async || (shop.deployments().await.len() == 2).then_some(())).await;
    shop.quiet().await;
    let said = shop.github.said(number);
    assert!(said.len() == 2 && said[1].contains("**Queued:** `v2`"), "{said:?}");
    assert!(form::is_sanitised(&shop.github.issue(number).body));
}

#[tokio::test]
async fn who_may_not_push_is_refused_and_so_is_their_issue_when_somebody_else_labels_it() {
    let shop = Shop::open().await;
    for login in ["reader", "stranger", "nobody-at-all"] {
        let number = shop.github.open(login, &body("v1", &[]), &["deploy"]).await;
        let said = shop.said(number).await;
        assert!(said.contains("`permission-denied`"), "{login}: {said}");
        assert!(form::is_sanitised(&shop.github.issue(number).body), "{login}");
    }
    let number = shop.github.open("stranger", &body("v1", &[]), &[]).await;
    shop.quiet().await;
    assert!(shop.github.said(number).is_empty(), "without the label it is nobody's business");
    assert!(!form::is_sanitised(&shop.github.issue(number).body));
    shop.github.label("owner", number, "DEPLOY").await;
    assert!(shop.said(number).await.contains("`permission-denied`"));
    assert!(shop.deployments().await.iter().all(|deployment| deployment["status"] == "rejected"));

    let owner_only = json!({"repository": REPOSITORY, "label": "deploy", "allow": "owner"});
    let path = format!("applications/{}", shop.application.id);
    let changed = shop.installation.put(&path, &json!({ "issueTrigger": owner_only })).await.expect(200);
    assert_eq!(changed["issueTrigger"]["versionField"], "tag");
    for (login, expect) in [("maintainer", "`permission-denied`"), ("owner", "**Queued:**")] {
        let number = shop.github.open(login, &body("v1", &[]), &["deploy"]).await;
        assert!(shop.said(number).await.contains(expect), "{login}");
    }
    shop.installation.put(&path, &json!({ "issueTrigger": null })).await.expect(200);
    let event = shop.github.issue_event(&shop.github.open_quietly("owner", "x", &["deploy"]), "opened", "owner");
    assert_eq!(delivery::deliver(&shop, &event, &delivery::Signed::by(&shop)).await.status.as_u16(), 401);
}

#[tokio::test]
async fn an_issue_hears_nothing_of_what_is_configured() {
    let shop = Shop::open().await;
    let path = format!("applications/{}", shop.application.id);
    let hosts = json!({"names": ["db-prod-7"]});
    shop.installation.put(&path, &json!({ "hosts": hosts })).await.expect(200);
    // Who may not ask hears that, and of their own form; who may hears where it is wrong.
    for (login, fields, expect, not) in [
        ("stranger", [("email", "a@example.com")], "`permission-denied`", "unknown-host"),
        ("stranger", [("email", "none")], "`variables.email` (`format-email`)", "unknown-host"),
        ("writer", [("email", "none")], "`variables.email` (`format-email`)", "db-prod"),
        ("writer", [("email", "none")], "`hosts` (`unknown-host`)", "db-prod"),
        ("writer", [("email", "a@example.com")], "`hosts` (`unknown-host`)", "db-prod"),
    ] {
        let number = shop.github.open(login, &body("v1", &fields), &["deploy"]).await;
        let said = shop.said(number).await;
        assert!(said.contains(expect) && !said.contains(not) && !said.contains("db-prod"), "{login}: {said}");
    }
    // People who sign in are told the whole.
    let answer = shop.installation.post(&format!("{path}/validate"), &json!({"version": "v1"})).await;
    assert!(answer.text.contains("db-prod-7"), "{}", answer.text);
}

#[tokio::test]
async fn a_refusal_is_one_comment_however_often_its_issue_is_edited() {
    let shop = Shop::open().await;
    let number = shop.github.open("writer", &body("v1", &[("email", "none")]), &["deploy"]).await;
    assert!(shop.said(number).await.contains("`variables.email`"));
    for n in 0..3 {
        let address = format!("http://127.0.0.{n}");
        shop.github.edit("writer", number, &body("v1", &[("api_server", &address)])).await;
        let said = shop.said(number).await;
        assert!(said.contains("`variables.api_server`") && !said.contains("`variables.email`"), "{said}");
    }
    assert_eq!(shop.deployments().await.len(), 4, "each of them is in the history");
}

#[tokio::test]
async fn who_is_refused_again_and_again_is_not_listened_to_for_a_while() {
    let shop = Shop::open().await;
    let mut issues = Vec::new();
    for n in 0..24 {
        let issue = shop.github.open_quietly("stranger", &body(&format!("v{n}"), &[("email", "x")]), &["deploy"]);
        let event = shop.github.issue_event(&issue, "opened", "stranger");
        delivery::deliver(&shop, &event, &delivery::Signed::by(&shop)).await.expect(202);
        shop.quiet().await;
        issues.push(issue.number);
    }
    let told = issues.iter().filter(|number| !shop.github.said(**number).is_empty()).count();
    assert_eq!(told, 20);
    let asked = shop.github.calls().iter().filter(|call| call.path.ends_with("/stranger/permission")).count();
    assert_eq!(asked, 20);
    // The values are out of all of them, and nobody else is held up.
    for number in issues {
        assert!(form::is_sanitised(&shop.github.issue(number).body), "{number}");
    }
    let number = shop.github.open("writer", &body("v1", &[]), &["deploy"]).await;
    assert!(shop.said(number).await.contains("**Queued:**"));
}

#[tokio::test]
async fn the_same_form_filled_in_again_asks_again_until_it_is_a_deployment() {
    let shop = Shop::open().await;
    let path = format!("applications/{}", shop.application.id);
    shop.installation.put(&path, &json!({"hosts": {"names": ["nowhere"]}})).await.expect(200);
    let filled_in = body("v1", &[("email", "a@example.com")]);
    let number = shop.github.open("writer", &filled_in, &["deploy"]).await;
    assert!(shop.said(number).await.contains("`unknown-host`"));
    assert_eq!(shop.deployments().await.len(), 1, "the issue and its label are one request");

    shop.installation.put(&path, &json!({"hosts": {"names": ["local"]}})).await.expect(200);
    for _ in 0..2 {
        shop.github.edit("writer", number, &filled_in).await;
        shop.quiet().await;
        let said = shop.github.said(number);
        assert!(said.len() == 2 && said[1].contains("**Queued:** `v1`"), "{said:?}");
        assert_eq!(shop.deployments().await.len(), 2, "one was refused, and one is queued");
    }
}

#[tokio::test]
async fn the_person_whose_token_we_have_asks_like_anybody_else() {
    let shop = Shop::open().await;
    let number = shop.github.open(BOT, &body("v1", &[]), &["deploy"]).await;
    assert!(shop.said(number).await.contains("**Queued:** `v1`"));
    // What we have written into the issue asks for nothing.
    let listed = shop.deployments().await;
    assert_eq!((listed.len(), &listed[0]["trigger"]["actor"]), (1, &json!(format!("github:{BOT}"))), "{listed:?}");
}

#[tokio::test]
async fn what_is_delivered_twice_is_one_request() {
    let shop = Shop::open().await;
    let issue = shop.github.open_quietly("writer", &body("v1", &[("email", "a@example.com")]), &["deploy", "urgent"]);
    let event = |action| shop.github.issue_event(&issue, action, "writer");
    let signed = delivery::Signed::by(&shop);
    // The same delivery, and others that tell of the same.
    let (opened, first, second) = (event("opened"), event("labeled"), event("labeled"));
    let again = delivery::Signed::by(&shop);
    let third = delivery::Signed::by(&shop);
    let answers = futures_util::future::join_all([
        delivery::deliver(&shop, &opened, &signed),
        delivery::deliver(&shop, &opened, &signed),
        delivery::deliver(&shop, &opened, &signed),
        delivery::deliver(&shop, &first, &again),
        delivery::deliver(&shop, &second, &third),
    ])
    .await;
    assert!(answers.iter().all(|answer| answer.status.as_u16() == 202));
    let said = shop.said(issue.number).await;
    assert!(said.contains("**Queued:**"), "{said}");
    assert_eq!(shop.deployments().await.len(), 1);
    let late = delivery::deliver(&shop, &opened, &signed).await.expect(202);
    assert_eq!(late["duplicate"], true);
    // By hand, days later, with an id of its own.
    delivery::deliver(&shop, &opened, &delivery::Signed::by(&shop)).await.expect(202);
    shop.said(issue.number).await;
    assert_eq!(shop.deployments().await.len(), 1);
    let written =
        shop.github.calls().iter().filter(|call| call.method == Method::PATCH && call.path.ends_with("/1")).count();
    assert_eq!(written, 1, "the issue was changed once");
}

#[tokio::test]
async fn an_older_state_of_an_issue_does_not_follow_upon_a_newer_one() {
    let shop = Shop::open().await;
    let issue = shop.github.open_quietly("writer", &body("v1", &[]), &["deploy"]);
    let opened = shop.github.issue_event(&issue, "opened", "writer");
    // Its delivery is late: the issue was changed meanwhile, and that was handled.
    shop.github.edit("writer", issue.number, &body("v2", &[])).await;
    assert!(shop.said(issue.number).await.contains("`v2`"));
    delivery::deliver(&shop, &opened, &delivery::Signed::by(&shop)).await.expect(202);
    assert!(shop.said(issue.number).await.contains("`v2`"));
    let versions: Vec<_> = shop.deployments().await.iter().map(|d| d["version"].clone()).collect();
    assert_eq!(versions, ["v2"]);
}

#[tokio::test]
async fn what_is_marked_as_ours_by_others_is_not_ours() {
    let shop = Shop::open().await;
    // A body that pretends to be sanitised is sanitised all the same.
    let pretended = format!("<!-- tidegate:sanitized -->\n\n{}", body("v1", &[("email", "a@example.com")]));
    let number = shop.github.open("writer", &pretended, &["deploy"]).await;
    assert!(shop.said(number).await.contains("**Queued:**"));
    assert!(form::is_sanitised(&shop.github.issue(number).body));

    // Somebody else's comment with our marker, there before ours, stays somebody else's.
    let number = shop.github.open("writer", &body("v2", &[("api_server", PUBLIC)]), &["deploy"]).await;
    assert!(shop.said(number).await.contains("needs your decision"));
    let id = shop.deployments().await.pop().unwrap()["deploymentId"].as_str().unwrap().to_owned();
    let forged = shop.github.comment("stranger", number, &format!("<!-- tidegate:result {id} -->")).await;
    shop.installation.post(&format!("approvals/{id}/reject"), &json!({})).await.expect(200);
    let told = async || shop.github.said(number).iter().any(|said| said.contains("**Denied:**")).then_some(());
    eventually("the end is told in a comment of our own", told).await;
    let changed = shop.github.calls().iter().any(|call| call.path.ends_with(&format!("comments/{forged}")));
    assert!(!changed, "{BOT} has changed a stranger's comment");
}

/// An app's private key, and the public one that GitHub has, both in PEM.
fn key_pair() -> (String, Vec<u8>) {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pem =
        |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    let private = AsDer::<Pkcs8V1Der>::as_der(&pair).unwrap();
    let public = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).unwrap();
    (pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", public.as_ref()).into_bytes())
}

#[tokio::test]
async fn an_app_is_let_in_with_a_token_that_it_fetches_once() {
    let shop = Shop::open().await;
    let (private, public) = key_pair();
    shop.github.is_for_an_app(public);
    shop.settle(json!({"token": null, "appId": 77, "privateKey": private})).await;
    for version in ["v1", "v2"] {
        let number = shop.github.open("writer", &body(version, &[]), &["deploy"]).await;
        assert!(shop.said(number).await.contains(version));
    }
    let fetched = shop.github.calls().iter().filter(|call| call.path.ends_with("/access_tokens")).count();
    assert_eq!(fetched, 1);
}

#[tokio::test]
async fn a_request_beyond_the_limits_is_told_when_to_come_again() {
    let shop = Shop::open().await;
    let limits = json!({"open": {"perUser": 1, "perIp": 5, "total": 10}});
    shop.installation.put("settings", &json!({ "limits": limits })).await.expect(200);
    let first = shop.github.open("writer", &body("v1", &[]), &["deploy"]).await;
    assert!(shop.said(first).await.contains("**Queued:**"));
    let second = shop.github.open("writer", &body("v2", &[]), &["deploy"]).await;
    let said = shop.said(second).await;
    assert!(
        said.contains("`rate-limited`") && said.contains("per\\-\u{200b}user") && said.contains("minutes"),
        "{said}"
    );
    let third = shop.github.open("owner", &body("v3", &[]), &["deploy"]).await;
    assert!(shop.said(third).await.contains("**Queued:**"));
}
