//! Who asks, as the gateway says it: the request's id and the caller's address.

use std::{convert::Infallible, fmt, net::IpAddr};

use axum::{extract::FromRequestParts, http::request::Parts};
use lambda_http::request::RequestContext;
use tidegate_aws::{clock, random};

/// Ties an answer to its log lines; `X-Request-Id` of every answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// `UUIDv7`, for a request that came without API Gateway.
    fn fresh() -> Self {
        let millis = u64::try_from(clock::now().as_millisecond()).unwrap_or_default();
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &random::bytes::<10>()).into_uuid();
        Self(id.hyphenated().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the gateway knows of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestInfo {
    pub id: RequestId,
    /// As the gateway saw it: never taken from a header that a caller can write.
    pub source_ip: Option<IpAddr>,
}

impl RequestInfo {
    /// From the context that `lambda_http` decodes, or that the local stack adds.
    pub(crate) fn of(extensions: &axum::http::Extensions) -> Self {
        if let Some(known) = extensions.get::<Self>() {
            return known.clone();
        }
        let mut info = Self { id: RequestId(String::new()), source_ip: None };
        if let Some(RequestContext::ApiGatewayV2(context)) = extensions.get::<RequestContext>() {
            info.source_ip = context.http.source_ip.as_deref().and_then(|ip| ip.parse().ok());
            info.id.0 = context.request_id.clone().filter(|id| is_plain(id)).unwrap_or_default();
        }
        if info.id.0.is_empty() {
            info.id = RequestId::fresh();
        }
        info
    }
}

/// Fit for a header and a log line.
fn is_plain(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
}

impl<S: Sync> FromRequestParts<S> for RequestInfo {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}
