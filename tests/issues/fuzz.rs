//! Whatever is written into an issue or a comment, it is handled to its end: nothing fails for ever, and nothing is left.

use proptest::prelude::*;
use serde_json::json;

use super::{PUBLIC, Shop, delivery, form};
use crate::{
    fuzz::{samples, text},
    support::fake_github::REPOSITORY,
};

/// Every so many of the samples: each of these is handled by a whole system.
const EVERY: usize = 5;

fn written() -> impl Strategy<Value = String> {
    let parts = prop_oneof![
        text(),
        prop::sample::select(vec!["tag", "email", "super_password", "API server", "Tag"])
            .prop_map(|field| format!("\n\n### {field}\n\n")),
        Just("v1".to_owned()),
        Just(PUBLIC.to_owned()),
        Just("```\n".to_owned()),
        Just("<!-- ".to_owned()),
    ];
    prop::collection::vec(parts, 0..8).prop_map(|parts| parts.concat())
}

#[tokio::test]
async fn whatever_an_issue_says_is_handled_to_its_end() {
    let shop = Shop::open().await;
    let trigger = json!({"repository": REPOSITORY, "label": "deploy", "allow": "anyone"});
    let path = format!("applications/{}", shop.application.id);
    shop.installation.put(&path, &json!({ "issueTrigger": trigger })).await.expect(200);
    let mut issues = Vec::new();
    for (n, body) in samples(written()).into_iter().step_by(EVERY).enumerate() {
        // Each by somebody else: who is refused too often is not listened to.
        let login = format!("person-{n}");
        let issue = shop.github.open_quietly(&login, &format!("### tag\n\nv{n}\n\n{body}"), &["deploy"]);
        let event = shop.github.issue_event(&issue, "opened", &login);
        delivery::deliver(&shop, &event, &delivery::Signed::by(&shop)).await.expect(202);
        issues.push(issue.number);
    }
    shop.quiet().await;
    for (number, comment) in issues.iter().zip(samples(text())) {
        let said = shop.github.said(*number);
        assert_eq!(said.len(), 1, "{number}: {said:?}");
        assert!(said[0].chars().count() <= 65_536);
        assert!(form::is_sanitised(&shop.github.issue(*number).body), "{number}");
        for command in ["/approve ", "/reject "] {
            shop.github.comment("owner", *number, &format!("{command}{comment}")).await;
        }
    }
    shop.quiet().await;
    println!("figure: {} issues and {} comments were handled to their end", issues.len(), 2 * issues.len());
}
