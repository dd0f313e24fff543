//! `POST /webhook/github`: from signed bytes to something that is kept and handled later.
//!
//! GitHub waits ten seconds for an answer and does not try again, so all that happens here is to see whose delivery it is
//! and to keep what of it is needed, sealed. Past that nothing is lost.
//!
//! This route has no throttle for wrong signatures: everybody's deliveries come from the same few addresses, and anybody
//! can have GitHub send us theirs.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tidegate_aws::{
    clock,
    intake::{DeliveryId, IntakeId, IntakeMessage, TakenIn, repositories::Listener},
};
use tidegate_domain::{id::TenantId, secret::Secret};
use tidegate_github::event::{self, Event};
use tidegate_web::{Problem, body};

use crate::WebhookState;

/// GitHub sends up to 25 MB. An issue of the longest body with a hundred labels is far below this.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// One repository belongs to so many tenants at most; more are looked at for nobody.
const MAX_TENANTS: usize = 16;
/// As good as any that is nobody's: a delivery of an unknown repository must take as long as one with a wrong signature.
const DECOY: &str = "decoy";

pub(crate) async fn deliver(State(state): State<WebhookState>, request: Request) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    body::require_json(&headers)?;
    let body = body::read_up_to(request, MAX_BODY_BYTES).await?;
    let listeners = authenticate(&state, &headers, &body).await?;
    let name = header(&headers, "x-github-event").unwrap_or_default();
    if name == "ping" {
        return Ok(answer(StatusCode::OK, json!({"message": "The signature is right"})));
    }
    let Some(event) = Event::read(name, &body) else { return Ok(ignored()) };
    let delivery = header(&headers, "x-github-delivery").unwrap_or_default();
    let delivery =
        DeliveryId::parse(delivery).map_err(|why| Problem::validation_failed(vec![why.at("X-GitHub-Delivery")]))?;
    let mut taken = Vec::new();
    for (tenant, listeners) in &listeners {
        if is_about(&event, listeners) {
            taken.push(take_in(&state, tenant, delivery, &event).await?);
        }
    }
    if taken.is_empty() {
        return Ok(ignored());
    }
    let is_new = taken.contains(&TakenIn::New);
    tracing::info!(issue = %event.issue(), delivery = %delivery, is_new, "kept");
    let mut body = json!({"message": "Kept, and handled next"});
    if taken.iter().all(|taken| *taken == TakenIn::Done) {
        body = json!({"message": "Handled already", "duplicate": true});
    }
    Ok(answer(StatusCode::ACCEPTED, body))
}

/// Whose delivery it is: of those tenants that have an application of this repository, the ones whose secret has signed it.
///
/// # Errors
/// The 401 of every wrong credential, for a wrong signature and for a repository that is nobody's.
async fn authenticate(
    state: &WebhookState,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<BTreeMap<TenantId, Vec<Listener>>, Problem> {
    let signature = header(headers, "x-hub-signature-256").and_then(signature).ok_or_else(Problem::unauthorized)?;
    let repository = event::repository(body).ok_or_else(Problem::unauthorized)?;
    let mut candidates: BTreeMap<TenantId, Vec<Listener>> = BTreeMap::new();
    for listener in state.store.listeners(&repository).await? {
        candidates.entry(listener.tenant.clone()).or_default().push(listener);
    }
    let mut signed = BTreeMap::new();
    if candidates.is_empty()
        && let Ok(decoy) = TenantId::parse(DECOY)
    {
        candidates.insert(decoy, Vec::new());
    }
    for (tenant, listeners) in candidates.into_iter().take(MAX_TENANTS) {
        let secret = state.store.github(&tenant).await?.map(|credentials| credentials.webhook_secret);
        // Nobody's signature is right under no secret; computing it takes as long as any.
        let key = secret.as_ref().map_or(DECOY, |secret| secret.expose().as_str());
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let is_right = hmac::verify(&key, body, &signature).is_ok();
        if is_right && secret.is_some_and(|secret| !secret.expose().is_empty()) && !listeners.is_empty() {
            signed.insert(tenant, listeners);
        }
    }
    if signed.is_empty() { Err(Problem::unauthorized()) } else { Ok(signed) }
}

/// `sha256=` and 64 hexadecimal digits.
fn signature(text: &str) -> Option<[u8; 32]> {
    hex_digest(text.strip_prefix("sha256=")?)
}

/// 64 hexadecimal digits.
pub(crate) fn hex_digest(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Whether one of the applications looks at it. A comment may be about anything that its issue has asked for.
fn is_about(event: &Event, listeners: &[Listener]) -> bool {
    event
        .labels()
        .is_none_or(|labels| listeners.iter().any(|listener| labels.iter().any(|label| listener.label.is_named(label))))
}

/// A crash right after it was kept leaves it to the sweep.
async fn take_in(
    state: &WebhookState,
    tenant: &TenantId,
    delivery: DeliveryId,
    event: &Event,
) -> Result<TakenIn, Problem> {
    let payload = serde_json::to_vec(event).map(Secret::new).map_err(|_| Problem::internal())?;
    let taken = state.store.take_in(tenant, delivery, &payload, clock::now()).await?;
    match taken {
        TakenIn::New | TakenIn::Again => {
            let message = IntakeMessage { tenant: tenant.clone(), id: IntakeId::Delivery(delivery) };
            state.store.send_intake(&message).await;
        }
        TakenIn::Done => {}
    }
    Ok(taken)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn ignored() -> Response {
    answer(StatusCode::ACCEPTED, json!({"message": "Nothing is to be done about it", "ignored": true}))
}

fn answer(status: StatusCode, mut body: Value) -> Response {
    body["success"] = true.into();
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_sha256_and_64_digits() {
        let digits = "0f".repeat(32);
        assert_eq!(signature(&format!("sha256={digits}")), Some([15; 32]));
        assert_eq!(signature(&format!("sha256={}", digits.to_uppercase())), Some([15; 32]));
        let short = &digits[1..];
        for wrong in [
            digits.clone(),
            format!("sha1={digits}"),
            format!("sha256={short}"),
            format!("sha256=+{short}"),
            String::new(),
        ] {
            assert_eq!(signature(&wrong), None, "{wrong}");
        }
    }
}
