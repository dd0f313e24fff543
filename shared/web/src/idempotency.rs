//! `Idempotency-Key`: the same key with the same request gives the first answer again.

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use tidegate_aws::{applications::sha256_hex, idempotency};
use tidegate_domain::invalid::Invalid;

use crate::problem::Problem;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The header's value, 1 to 255 visible ASCII characters; none if there is no header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let text = value.to_str().unwrap_or_default();
        let valid = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if !valid || values.next().is_some() {
            let wanted = "1 to 255 visible ASCII characters";
            let invalid = Invalid::new("format-idempotency-key", format!("must be {wanted}"), "use a new UUID, once");
            return Err(Problem::validation_failed(vec![invalid.at("Idempotency-Key")]));
        }
        Ok(Self(Some(text.to_owned())))
    }
}

impl IdempotencyKey {
    /// As the store keeps it. `caller` names the credential (`token:…`, `user:…`), so that the keys of two callers never
    /// meet; `fingerprint` is the body's.
    pub fn of(&self, caller: &str, fingerprint: &str) -> Option<idempotency::IdempotencyKey> {
        self.0.as_ref().map(|key| idempotency::IdempotencyKey {
            caller: caller.to_owned(),
            key_sha256: sha256_hex(key.as_bytes()),
            request_sha256: fingerprint.to_owned(),
        })
    }
}

/// A kept answer, said again.
pub fn replay(first: &idempotency::FirstAnswer) -> Response {
    let status = StatusCode::from_u16(first.status).unwrap_or(StatusCode::OK);
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    replayed((status, json, first.body.expose().clone()).into_response())
}

/// Says of an answer that it is the first one again.
#[must_use]
pub fn replayed(mut response: Response) -> Response {
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    response
}
