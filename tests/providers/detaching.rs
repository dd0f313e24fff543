//! Secrets that are taken from their provider, and are then somebody's own.

use reqwest::Method;
use serde_json::{Value, json};

use super::Synced;
use crate::support::Answer;

/// With one synced secret, which a variable refers to.
async fn referenced() -> (Synced, Value) {
    let synced = Synced::start(json!({})).await;
    synced.source.set("/", "TOKEN", "from outside");
    synced.sync(json!({})).await;
    let secret = synced.secret("TOKEN").await;
    let reference = format!("@secret:{}", secret["id"]);
    let variable = json!({"scope": "global", "key": "TOKEN", "value": reference, "valueType": "secret_ref"});
    synced.installation.post("variables", &variable).await.expect(201);
    (synced, secret)
}

async fn put(synced: &Synced, secret: &Value, body: &Value) -> Answer {
    synced.installation.put(&format!("secrets/{}", secret["id"]), body).await
}

#[tokio::test]
async fn a_secret_that_is_taken_from_its_provider_keeps_its_id_value_and_uses() {
    let (synced, secret) = referenced().await;
    let refused = put(&synced, &secret, &json!({"value": "by hand"})).await;
    assert_eq!(refused.faults(), [("value".to_owned(), "synced".to_owned())]);
    assert!(refused.text.contains(r#"\"source\": \"manual\""#), "the way out is told: {}", refused.text);

    // As it was answered, but for this.
    let mut shown = secret.clone();
    shown["source"] = json!("manual");
    let own = put(&synced, &secret, &shown).await.expect(200);
    assert_eq!(
        [&own["source"], &own["providerId"], &own["providerReference"], &own["stale"], &own["valueVersion"]],
        [&json!("manual"), &Value::Null, &Value::Null, &json!(false), &secret["valueVersion"]]
    );
    assert_eq!(synced.value("TOKEN").await, "from outside");
    let changed = put(&synced, &secret, &json!({"value": "by hand", "name": "OWN"})).await.expect(200);
    assert_eq!((&changed["id"], &changed["name"]), (&secret["id"], &json!("OWN")));
    assert_eq!(synced.value("OWN").await, "by hand");
    let uses = synced.installation.get(&format!("secrets/{}/used-by", secret["id"])).await.expect(200);
    assert_eq!(uses["data"][0]["key"], "TOKEN");

    // The source's is another one from then on.
    assert_eq!(synced.sync(json!({})).await, [1, 0, 0, 0, 0]);
    assert_ne!(synced.secret("TOKEN").await["id"], secret["id"]);
}

#[tokio::test]
async fn a_provider_that_all_its_secrets_have_left_can_go() {
    let (synced, secret) = referenced().await;
    let provider = format!("/api/v2/secret-providers/{}", synced.provider);
    let group = format!("secret-groups/{}", synced.group);
    let delete = async || {
        let token = Some(synced.installation.admin_token.as_str());
        synced.installation.call(Method::DELETE, &provider, token, &[], None).await.status
    };
    synced.installation.put(&group, &json!({"providerId": null})).await.expect(200);
    assert_eq!(delete().await, 409, "the secret is still its own");
    let both = json!({"source": "manual", "providerId": null, "value": "by hand"});
    put(&synced, &secret, &both).await.expect(200);
    assert_eq!(delete().await, 204);
    assert_eq!(synced.value("TOKEN").await, "by hand");
}

#[tokio::test]
async fn where_a_secret_comes_from_is_written_in_no_other_way() {
    let (synced, secret) = referenced().await;
    let own = json!({"groupId": synced.group, "name": "OWN", "value": "v"});
    let own = synced.installation.post("secrets", &own).await.expect(201);
    let fault = |field: &str| [(field.to_owned(), "read-only".to_owned())];
    assert_eq!(put(&synced, &own, &json!({"source": "synced"})).await.faults(), fault("source"));
    assert_eq!(put(&synced, &own, &json!({"providerId": synced.provider})).await.faults(), fault("providerId"));
    assert_eq!(put(&synced, &secret, &json!({"providerId": null})).await.faults(), fault("providerId"));
    assert_eq!(put(&synced, &secret, &json!({"source": "synced"})).await.status, 200);
    let created = json!({"groupId": synced.group, "name": "NEW", "value": "v", "source": "synced"});
    assert_eq!(synced.installation.post("secrets", &created).await.faults(), fault("source"));
}
