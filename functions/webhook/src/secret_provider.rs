//! `POST /webhook/secret-providers/{id}`: a source says that something has changed.
//!
//! That is all that is taken from it: the provider is due, and the next pass reads the source itself. As with GitHub's
//! deliveries there is no throttle for wrong signatures: many senders share the addresses of one source.

use aws_lc_rs::hmac;
use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;
use tidegate_aws::{catalogue::Stored, clock, error::StoreError, providers::SecretProvider, store::Store};
use tidegate_domain::{
    id::{SecretProviderId, TenantId},
    secret::Secret,
    sync_run::{Asked, SyncTrigger},
};
use tidegate_providers::field;
use tidegate_web::{Problem, body};

use crate::{WebhookState, github::hex_digest};

/// Names and times, no values.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// How far a signature's time may lie from ours.
const WINDOW: SignedDuration = SignedDuration::from_mins(5);
/// As good as any that is nobody's: a delivery for an unknown provider must take as long as one with a wrong signature.
const DECOY: &str = "decoy";
/// What is sent when somebody tries the webhook at the source.
const TEST: &str = "test";

/// What is read of a delivery, once its signature is right.
#[derive(Deserialize)]
struct Delivery {
    #[serde(default)]
    event: String,
    /// In milliseconds. It is signed, and the header's is not.
    timestamp: i64,
}

/// `t=<milliseconds>;<64 hexadecimal digits>`
struct Signature {
    at: i64,
    digest: [u8; 32],
}

pub(crate) async fn deliver(
    State(state): State<WebhookState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let body = body::read_up_to(request, MAX_BODY_BYTES).await?;
    let signature = Signature::of(&headers).ok_or_else(Problem::unauthorized)?;
    // What is no number is nobody's.
    let id = SecretProviderId(id.parse().unwrap_or(0));
    let (tenant, provider, secret) = look_up(&state.store, id).await?;
    let key = secret.as_ref().map_or(DECOY, |secret| secret.expose().as_str());
    let is_right = hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), &body, &signature.digest).is_ok();
    let (Some(provider), true, true) = (provider, is_right, secret.is_some()) else {
        return Err(Problem::unauthorized());
    };
    let delivery: Delivery = serde_json::from_slice(&body).map_err(|_| Problem::unauthorized())?;
    let now = clock::now();
    if delivery.timestamp != signature.at || !is_recent(delivery.timestamp, now) {
        return Err(Problem::unauthorized());
    }
    if delivery.event == TEST {
        return Ok(answer(StatusCode::OK, "The signature is right", true));
    }
    if !provider.body.auto_sync {
        return Ok(answer(StatusCode::ACCEPTED, "The provider does not sync by itself", true));
    }
    let asked = Asked { trigger: SyncTrigger::Webhook, actor: None, force: false };
    match state.store.ask_for_sync(&tenant, id, &asked, now, None).await {
        Ok(()) => {}
        // Deleted since it was read.
        Err(StoreError::Missing) => return Err(Problem::unauthorized()),
        Err(other) => return Err(other.into()),
    }
    tracing::info!(provider.id = %id, %tenant, "its source says that something has changed");
    Ok(answer(StatusCode::ACCEPTED, "The source is read again next", false))
}

/// Whose it is, and the secret that its source signs with; of nobody's the same is looked for.
async fn look_up(
    store: &Store,
    id: SecretProviderId,
) -> Result<(TenantId, Option<Stored<SecretProvider>>, Option<Secret<String>>), Problem> {
    let owner = store.owner_of_provider(id).await?;
    let tenant = owner.map_or_else(|| TenantId::parse(DECOY), Ok).map_err(|_| Problem::internal())?;
    let provider = match store.find::<SecretProvider>(&tenant, id.0).await {
        Ok(provider) => provider,
        Err(StoreError::Missing) => return Ok((tenant, None, None)),
        Err(other) => return Err(other.into()),
    };
    let name = field::webhook_secret(provider.body.kind);
    let credential = name.and_then(|name| Some((name, provider.body.credentials.get(name)?)));
    let secret = match credential {
        Some((name, credential)) => Some(store.open_credential(&tenant, id.0, name, credential).await?),
        None => None,
    };
    Ok((tenant, Some(provider), secret))
}

fn is_recent(millisecond: i64, now: Timestamp) -> bool {
    Timestamp::from_millisecond(millisecond).is_ok_and(|at| now.duration_since(at).abs() <= WINDOW)
}

impl Signature {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get("x-infisical-signature")?.to_str().ok()?;
        let (at, digest) = text.strip_prefix("t=")?.split_once(';')?;
        Some(Self { at: at.parse().ok()?, digest: hex_digest(digest)? })
    }
}

fn answer(status: StatusCode, message: &str, ignored: bool) -> Response {
    (status, Json(json!({"success": true, "message": message, "ignored": ignored}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_has_a_time_and_a_digest() {
        let check = |text: &str, expect: Option<i64>| {
            let mut headers = HeaderMap::new();
            headers.insert("x-infisical-signature", text.parse().unwrap());
            let signature = Signature::of(&headers);
            assert_eq!(signature.as_ref().map(|signature| signature.at), expect, "{text}");
        };
        let digits = "0f".repeat(32);
        check(&format!("t=1795341600000;{digits}"), Some(1_795_341_600_000));
        check(&format!("t=;{digits}"), None);
        check(&format!("t=1;{}", &digits[1..]), None);
        check(&format!("1;{digits}"), None);
        check(&digits, None);
        check("t=1", None);
    }

    #[test]
    fn a_delivery_is_of_now() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let check = |millisecond, expect| assert_eq!(is_recent(millisecond, now), expect, "{millisecond}");
        check(1_000_000_000, true);
        check(1_000_000_000 - 300_000, true);
        check(1_000_000_000 + 300_000, true);
        check(1_000_000_000 - 300_001, false);
        check(1_000_000_000 + 300_001, false);
        // Seconds where milliseconds are meant.
        check(1_000_000, false);
        check(i64::MAX, false);
    }
}
