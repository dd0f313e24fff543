use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{invalid::Invalid, issue::Repository};

fn deployment(status: &Status) -> Deployment {
    let mut whole = json!({
        "id": "01936f5e-0000-7000-8000-000000000001", "applicationId": 7, "applicationName": "shop", "version": "v1.2.3",
        "digest": null, "sequence": 1, "trigger": {"kind": "issue", "source": null, "actor": "github:octocat"},
        "createdAt": "2026-11-22T10:00:00Z", "startedAt": null, "completedAt": null, "targets": [], "maxParallel": 1,
        "timeline": [],
    });
    whole["status"] = serde_json::to_value(status).unwrap();
    serde_json::from_value(whole).unwrap()
}

fn approval() -> Approval {
    serde_json::from_value(json!({
        "reasons": [{"field": "variables.API_SERVER", "code": "public-address", "message": "is a public address"}],
        "askedAt": "2026-11-22T10:00:00Z", "expiresAt": "2026-11-22T16:00:00Z", "hash": "0123456789abcdef".repeat(4),
        "decision": null,
    }))
    .unwrap()
}

#[test]
fn a_rejection_names_every_fault_with_a_hint() {
    let fault = |field: &str| Invalid::new("format-email", "is not an address", "write it as a@b.c").at(field);
    let comment = Comment::rejection("id-1", &[fault("variables.EMAIL"), fault("variables.`@evil` <b>")]);
    assert!(
        comment.body.contains(
            "- `variables.EMAIL` (`format-email`): is not an address. Hint: write it as a@\u{200b}b.\u{200b}c."
        )
    );
    assert!(comment.body.contains("`variables. @evil  <b>`"), "{}", comment.body);
    assert!(comment.body.ends_with("\n\n<!-- tidegate:result id-1 -->"));
    assert!(comment.is_in(&comment.body.replace('\n', "\r\n")));
    assert!(!Comment::rejection("id-2", &[]).is_in(&comment.body));
    assert!(comment.body.contains("in this issue or in a new one"), "{}", comment.body);
    assert!(is_marked(&comment.body) && is_marked(&comment.body.replace('\n', "\r\n")));
    for other in ["", "/approve 0123456789ab", "<!-- tidegate:result id-1 -->\n\n/approve 0123456789ab", "<!-- x -->"] {
        assert!(!is_marked(other), "{other}");
    }
    let many: Vec<_> = (0..150).map(|n| fault(&format!("variables.V{n}"))).collect();
    assert!(Comment::rejection("id", &many).body.contains("- and 50 more."));
    // Each character of these becomes three.
    let long = |n: usize| Invalid::new("format-email", "-".repeat(900), "#".repeat(900)).at(format!("variables.V{n}"));
    let body = Comment::rejection("id", &(0..100).map(long).collect::<Vec<_>>()).body;
    assert!(body.chars().count() <= 65_536 && body.contains(" more."), "{}", body.chars().count());
    assert!(is_marked(&body));
}

#[test]
fn an_approval_is_asked_of_the_owner_with_reasons_deadline_link_and_hash() {
    let issue = IssueRef { repository: Repository::parse("octo/shop").unwrap(), number: 12 };
    let deployment = deployment(&Status::AwaitingApproval);
    let comment = Comment::approval_request(&deployment, &approval(), &issue, "https://deploy.example.com");
    for part in [
        "@octo Deploying `v1.2.3` of `shop` needs your decision",
        "- `variables.API_SERVER`: is a public address",
        "https://deploy.example.com/approvals/01936f5e-0000-7000-8000-000000000001",
        "until 2026-11-22 16:00 UTC",
        "\n/approve 0123456789ab\n",
        "\n/reject <reason>\n",
        "edit history",
        "private repository",
    ] {
        assert!(comment.body.contains(part), "{part}: {}", comment.body);
    }
    // Nobody decides by quoting it.
    assert_eq!(super::super::command::Command::of(&comment.body), None);
}

#[test]
fn a_result_says_what_runs_and_is_one_comment_from_the_first_word_to_the_last() {
    let mut markers = Vec::new();
    for (status, head) in [
        (Status::AwaitingApproval, "**Waiting for approval:**"),
        (Status::Queued, "**Queued:**"),
        (Status::Running, "**Running:**"),
        (Status::Succeeded, "**Succeeded:** `v1.2.3` of `shop` runs on every host."),
        (Status::Failed { running: Running::Previous }, "What ran before runs again."),
        (Status::RolledBack, "**Rolled back:**"),
        (Status::Cancelled { running: Running::None }, "Nothing runs now."),
        (Status::Superseded { by: None }, "**Superseded:**"),
        (Status::Rejected { reason: "frozen".to_owned() }, "**Rejected** (`frozen`)"),
        (Status::Denied, "**Denied:**"),
        (Status::TimedOut, "**Timed out:**"),
    ] {
        let comment = Comment::result(&deployment(&status));
        assert!(comment.body.contains(head), "{head}: {}", comment.body);
        markers.push(comment.marker);
    }
    markers.dedup();
    assert_eq!(markers.len(), 1);
    let refused = Comment::refusal("01936f5e-0000-7000-8000-000000000001", "rate-limited", "Try later");
    assert_eq!(refused.marker, markers[0]);
}

#[test]
fn a_decision_is_shown_with_its_words_as_words() {
    let mut denied = deployment(&Status::Denied);
    let mut approval = approval();
    approval.decision = serde_json::from_value(json!({"verdict": "denied", "at": "2026-11-22T11:00:00Z",
        "by": "github:octo", "comment": "ask @octo/everyone\n# see #12 <img src=x> https://evil.example"}))
    .unwrap();
    denied.approval = Some(approval);
    let body = Comment::result(&denied).body;
    assert!(
        body.contains("Decision: denied by `github:octo` at 2026-11-22 11:00 UTC. ask @\u{200b}octo/everyone"),
        "{body}"
    );
    for markup in ["@octo", "#12", "<img", "://", "\n# "] {
        assert!(!body.contains(markup), "{markup}: {body}");
    }
}

#[test]
fn a_wrong_decision_is_told_the_hash_that_waits() {
    let hash = approval().hash;
    let body = Comment::undecided("octocat", Undecided::OtherHash(&hash)).body;
    assert!(body.contains("`/approve 0123456789ab`") && body.starts_with("`octocat`: "), "{body}");
    assert_eq!(super::super::command::Command::of(&body), None);
    assert!(body.ends_with("<!-- tidegate:answer octocat -->"));
}

proptest! {
    #[test]
    fn no_words_become_markup(text in "(@[a-z]{1,3}|#[0-9]|[0-9a-f]{1,12}|\\PC|<|>|`|\\[|\\]|\n|://|www\\.|[*_~|-]){0,30}") {
        let out = escaped(&text);
        let chars: Vec<char> = out.chars().collect();
        prop_assert!(!out.contains(['<', '\n', '\r']));
        for pair in chars.windows(2) {
            prop_assert!(!matches!(pair, ['@' | '#' | ':', next] if next.is_ascii_alphanumeric() || *next == '/'), "{}", out);
            prop_assert!(pair[0] == '\\' || !matches!(pair[1], '`' | '*' | '_' | '[' | ']' | '~' | '|'), "{}", out);
        }
        let mut run = 0;
        for c in &chars {
            run = if c.is_ascii_hexdigit() { run + 1 } else { 0 };
            prop_assert!(run < 7, "{}", out);
        }
        let spanned = code(&text);
        prop_assert_eq!(spanned.matches('`').count(), 2);
        prop_assert!(!spanned.contains('\n'));
    }
}
