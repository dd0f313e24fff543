//! What GitHub tells, signed.

use aws_lc_rs::hmac;
use reqwest::StatusCode;
use serde_json::Value;
use tidegate_aws::random;

use crate::support::hex;

#[derive(Clone)]
pub(super) struct Hook {
    pub(super) url: String,
    pub(super) secret: String,
}

impl Hook {
    pub(super) async fn deliver(&self, name: &str, payload: &Value) -> StatusCode {
        let delivery = hex(&random::bytes::<16>());
        let body = payload.to_string();
        let request = reqwest::Client::new()
            .post(&self.url)
            .header("content-type", "application/json")
            .header("user-agent", "GitHub-Hookshot/044aadd")
            .header("x-github-event", name)
            .header("x-github-delivery", delivery)
            .header("x-github-hook-id", "292430182")
            .header("x-hub-signature-256", signed(&self.secret, body.as_bytes()));
        request.body(body).send().await.unwrap().status()
    }
}

/// `X-Hub-Signature-256`
pub(crate) fn signed(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex(hmac::sign(&key, body).as_ref()))
}
