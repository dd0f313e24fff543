//! People decide by comments.

use serde_json::{Value, json};

use super::{PUBLIC, Shop, body};
use crate::support::{
    Answer, eventually,
    fake_github::{BOT, Fate, REPOSITORY},
};

/// An issue that waits for a decision; its deployment, and the hash to approve.
async fn waiting(shop: &Shop, version: &str) -> (u64, Value, String) {
    let number = shop.github.open("writer", &body(version, &[("api_server", PUBLIC)]), &["deploy"]).await;
    let said = shop.said(number).await;
    let hash =
        said.lines().find_map(|line| line.strip_prefix("/approve ")).unwrap_or_else(|| panic!("{said}")).to_owned();
    let deployment = shop.deployments().await.pop().unwrap();
    assert_eq!(deployment["status"], "awaiting_approval");
    (number, deployment, hash)
}

async fn status(shop: &Shop, deployment: &Value) -> String {
    let path = format!("deployments/{}", deployment["deploymentId"].as_str().unwrap());
    shop.installation.get(&path).await.expect(200)["status"].as_str().unwrap().to_owned()
}

/// Our answer to a decision of this person, once there is one that says this.
async fn answered(shop: &Shop, number: u64, login: &str, part: &str) -> String {
    let found = eventually(part, async || {
        shop.github
            .said(number)
            .into_iter()
            .find(|said| said.starts_with(&format!("`{login}`: ")) && said.contains(part))
    });
    found.await
}

#[tokio::test]
async fn the_owner_is_asked_and_approves_with_a_comment_that_names_the_request() {
    let shop = Shop::open().await;
    let (number, deployment, hash) = waiting(&shop, "v1").await;
    let asked = shop.said(number).await;
    for part in ["@Octo-Org ", "`variables.api_server`", "/approvals/", "edit history"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    assert!(!asked.contains("203.0.112.9"), "{asked}");

    // Whoever is not an administrator there is told so, once, however often they try.
    for login in ["writer", "maintainer", "reader", "writer"] {
        shop.github.comment(login, number, &format!("/approve {hash}")).await;
        answered(&shop, number, login, "Only the application").await;
    }
    assert_eq!(shop.github.said(number).iter().filter(|said| said.starts_with("`writer`")).count(), 1);
    // The right hash is told to who has a wrong one.
    shop.github.comment("owner", number, "/approve 000000000000").await;
    assert!(answered(&shop, number, "owner", "has changed meanwhile").await.contains(&format!("/approve {hash}")));
    // What was another comment first is none.
    let nice = shop.github.comment("owner", number, "Nice.").await;
    shop.github.edit_comment(nice, &format!("/approve {hash}")).await;
    shop.github.comment("owner", number, &format!("> /approve {hash}")).await;
    shop.quiet().await;
    assert_eq!(status(&shop, &deployment).await, "awaiting_approval");

    shop.github.comment("owner", number, &format!("All right.\r\n\r\n/approve {hash}")).await;
    eventually("it is queued", async || (status(&shop, &deployment).await == "queued").then_some(())).await;
    shop.quiet().await;
    let said = shop.github.said(number);
    assert!(said[0].contains("Decided: approved by `github:owner`") && !said[0].contains("/approve"), "{said:?}");
    assert_eq!(said.iter().filter(|said| said.contains("**Queued:** `v1`")).count(), 1, "{said:?}");
    // A second time there is nothing to decide.
    shop.github.comment("owner", number, &format!("/approve {hash}")).await;
    answered(&shop, number, "owner", "Nothing of this issue waits").await;
    let before = shop.github.said(number).len();
    shop.github.comment("stranger", number, &format!("/approve {hash}")).await;
    shop.quiet().await;
    assert_eq!(shop.github.said(number).len(), before, "strangers have us say nothing");
}

#[tokio::test]
async fn a_rejection_is_told_with_its_reason_as_words() {
    let shop = Shop::open().await;
    let (number, deployment, _) = waiting(&shop, "v1").await;
    shop.github.comment("writer", number, "/reject I say so").await;
    answered(&shop, number, "writer", "Only the application").await;
    assert_eq!(status(&shop, &deployment).await, "awaiting_approval");
    shop.github.comment("owner", number, "/reject not on a friday @everyone <b>").await;
    eventually("it is denied", async || (status(&shop, &deployment).await == "denied").then_some(())).await;
    shop.quiet().await;
    let said = shop.github.said(number);
    let denied: Vec<_> = said.iter().filter(|said| said.contains("**Denied:**")).collect();
    assert_eq!(denied.len(), 1, "{said:?}");
    assert!(denied[0].contains("not on a friday") && !denied[0].contains("@everyone") && !denied[0].contains("<b>"));
}

#[tokio::test]
async fn a_decision_in_the_console_is_told_on_the_issue() {
    let shop = Shop::open().await;
    let (number, deployment, _) = waiting(&shop, "v1").await;
    let id = deployment["deploymentId"].as_str().unwrap();
    shop.installation.post(&format!("approvals/{id}/reject"), &json!({"comment": "later"})).await.expect(200);
    let said = eventually("the end is told", async || {
        shop.github.said(number).into_iter().find(|said| said.contains("**Denied:**"))
    });
    assert!(said.await.contains("denied by `admin`"));
}

#[tokio::test]
async fn what_changed_since_it_was_asked_for_has_to_be_approved_anew() {
    let shop = Shop::open().await;
    let (number, deployment, hash) = waiting(&shop, "v1").await;
    let variable = json!({"scope": "application", "applicationId": shop.application.id, "key": "LEVEL", "value": "2"});
    shop.installation.post("variables", &variable).await.expect(201);
    shop.github.comment("owner", number, &format!("/approve {hash}")).await;
    let told = answered(&shop, number, "owner", "has changed meanwhile").await;
    let fresh = told.split("/approve ").nth(1).unwrap()[..12].to_owned();
    assert_ne!(fresh, hash);
    shop.quiet().await;
    assert!(
        shop.github.said(number)[0].contains(&format!("\n/approve {fresh}\n")),
        "the request is asked for under its new hash"
    );
    assert_eq!(status(&shop, &deployment).await, "awaiting_approval");
    shop.github.comment("owner", number, &format!("/approve {fresh}")).await;
    eventually("it is queued", async || (status(&shop, &deployment).await == "queued").then_some(())).await;
}

#[tokio::test]
async fn what_somebody_asked_for_who_may_not_ask_any_more_is_not_approved_by_a_comment() {
    let shop = Shop::open().await;
    let (number, deployment, hash) = waiting(&shop, "v1").await;
    let approve = format!("/approve {hash}");
    // The writer has left.
    shop.github.judge_by(|call| {
        let is_about_writer = call.path.ends_with("/collaborators/writer/permission");
        if is_about_writer { Fate::Answer(404, Vec::new(), "Not Found") } else { Fate::Pass }
    });
    shop.github.comment("owner", number, &approve).await;
    answered(&shop, number, "owner", "`permission-denied`").await;
    shop.quiet().await;
    assert_eq!(status(&shop, &deployment).await, "awaiting_approval");

    // The application listens no more, while another one still does.
    shop.github.judge_by(|_| Fate::Pass);
    let trigger = json!({"repository": REPOSITORY, "label": "other"});
    shop.installation.register(json!({ "issueTrigger": trigger })).await;
    let path = format!("applications/{}", shop.application.id);
    let listens = shop.installation.get(&path).await.expect(200)["issueTrigger"].clone();
    shop.installation.put(&path, &json!({ "issueTrigger": null })).await.expect(200);
    shop.github.comment("owner", number, &approve).await;
    shop.quiet().await;
    assert_eq!(status(&shop, &deployment).await, "awaiting_approval");

    shop.installation.put(&path, &json!({ "issueTrigger": listens })).await.expect(200);
    shop.github.comment("owner", number, &approve).await;
    eventually("it is queued", async || (status(&shop, &deployment).await == "queued").then_some(())).await;
}

#[tokio::test]
async fn nor_is_it_approved_in_the_console() {
    let shop = Shop::open().await;
    let (_, deployment, _) = waiting(&shop, "v1").await;
    let id = deployment["deploymentId"].as_str().unwrap();
    let approve = async || {
        let token = &shop.installation.admin_token;
        shop.installation.decide(token, id, "approve", &json!({})).await
    };
    let refused = |answer: &Answer| {
        let body = answer.expect(403);
        assert!(body["type"].as_str().unwrap().ends_with("/permission-denied"), "{body}");
        assert!(body["detail"].as_str().unwrap().contains("asked for"), "{body}");
    };
    let of_writer =
        |fate: fn() -> Fate| {
            shop.github.judge_by(move |call| {
                if call.path.ends_with("/collaborators/writer/permission") { fate() } else { Fate::Pass }
            });
        };
    // The writer has left.
    of_writer(|| Fate::Answer(404, Vec::new(), "Not Found"));
    refused(&approve().await);
    // Nobody can say whether they have.
    of_writer(|| Fate::Answer(502, Vec::new(), "Server Error"));
    let unknown = approve().await;
    unknown.expect(503);
    assert!(unknown.headers.contains_key("retry-after"));
    // The application listens no more.
    shop.github.judge_by(|_| Fate::Pass);
    let path = format!("applications/{}", shop.application.id);
    let listens = shop.installation.get(&path).await.expect(200)["issueTrigger"].clone();
    shop.installation.put(&path, &json!({ "issueTrigger": null })).await.expect(200);
    refused(&approve().await);
    assert_eq!(status(&shop, &deployment).await, "awaiting_approval");

    shop.installation.put(&path, &json!({ "issueTrigger": listens })).await.expect(200);
    assert_eq!(approve().await.expect(202)["status"], "queued");

    // While GitHub wants no more requests, it is asked once, and whoever decides hears when to come again.
    let (_, deployment, _) = waiting(&shop, "v2").await;
    let id = deployment["deploymentId"].as_str().unwrap();
    shop.github.judge_by(|_| Fate::Answer(429, vec![("retry-after", "77".to_owned())], "Too many requests"));
    let before = shop.github.calls().len();
    for _ in 0..3 {
        let token = &shop.installation.admin_token;
        let limited = shop.installation.decide(token, id, "approve", &json!({})).await;
        limited.expect(503);
        let after: u64 = limited.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=78).contains(&after), "{after}");
    }
    assert_eq!(shop.github.calls().len(), before + 1);
}

#[tokio::test]
async fn who_wrote_an_issue_that_somebody_else_labelled_has_asked_for_it_too() {
    let shop = Shop::open().await;
    let strict = json!({"approval": {"required": true, "requireOtherApprover": true}});
    shop.installation.put(&format!("applications/{}", shop.application.id), &strict).await.expect(200);
    let number = shop.github.open("owner", &body("v1", &[]), &[]).await;
    shop.github.label("writer", number, "deploy").await;
    let said = shop.said(number).await;
    let hash = said.lines().find_map(|line| line.strip_prefix("/approve ")).unwrap_or_else(|| panic!("{said}"));
    let deployment = shop.deployments().await.pop().unwrap();
    assert_eq!(deployment["trigger"]["actor"], "github:writer");
    shop.github.comment("owner", number, &format!("/approve {hash}")).await;
    answered(&shop, number, "owner", "somebody else to decide than who asked").await;
    assert_eq!(status(&shop, &deployment).await, "awaiting_approval");
}

#[tokio::test]
async fn the_person_whose_token_we_have_decides_like_anybody_else() {
    let shop = Shop::open().await;
    let (number, _, hash) = waiting(&shop, "v1").await;
    shop.github.comment(BOT, number, &format!("/approve {hash}")).await;
    answered(&shop, number, BOT, "Only the application").await;
    // What carries our marker is ours, whatever else it says.
    let ours = format!("/approve 000000000000\n\n<!-- tidegate:answer {BOT} -->");
    shop.github.comment(BOT, number, &ours).await;
    shop.quiet().await;
    let answers = shop.github.said(number);
    assert!(!answers.iter().any(|said| said.contains("has changed meanwhile")), "{answers:?}");
}
