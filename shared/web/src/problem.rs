//! The one place where errors become statuses: problem documents as RFC 9457 has them.
//!
//! What a caller may not know exists is the same 401 or 404 as what does not. No document repeats a refused value: it may
//! be a secret in the wrong field.

mod document;
mod invalid;
mod refusal;
mod store;

use std::{borrow::Cow, time::Duration};

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};
use tidegate_domain::invalid::FieldError;

pub(crate) use document::name_request;
pub use invalid::reference_missing;

/// Prefix of every `type`. It is an identifier and is never fetched; the rest, the slug, is stable and documented.
pub const TYPE_BASE: &str = "https://tidegate.dev/problems/";

/// A refused request, as its caller sees it.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    fn new(status: StatusCode, slug: &'static str, title: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            slug,
            title,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            headers: Vec::new(),
        }
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn retry_after(self, after: Duration) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)))
    }

    /// A further member of the document (RFC 9457, "Extension Members"). Never a secret value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The last part of `type`: `validation-failed`.
    pub fn slug(&self) -> &'static str {
        self.slug
    }

    /// What to log or record of it in words.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// 401 for every wrong, unknown, expired, revoked or missing credential: always the same bytes, so that nobody learns
    /// which applications, keys or users exist.
    pub fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "Unauthorized",
            "The credential is missing, wrong, expired or revoked.",
        )
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403 for a right credential without the permission.
    pub fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "Forbidden",
            "The credential is valid, but does not permit this. Ask an administrator for the role it needs.",
        )
    }

    /// 403 for an application whose webhook is switched off.
    pub fn webhook_disabled() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "webhook-disabled",
            "Webhook disabled",
            "The webhook of this application is switched off. Switch it on in the application's settings.",
        )
    }

    /// 404 for an unknown route.
    pub fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", "There is nothing at this address.")
    }

    /// 400 for an address or a header that cannot be decoded.
    pub fn undecodable() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "undecodable",
            "Undecodable",
            "The address or a header cannot be decoded; percent-encode UTF-8 in addresses.",
        )
    }

    /// 404 for a thing that does not exist, or that belongs to another tenant. `what` with its article: "The project".
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", format!("{what} does not exist."))
    }

    /// 405; the router adds `Allow`.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            "This address does not take that method; Allow lists those that it takes.",
        )
    }

    /// 410 for what an earlier version of the API had; `detail` says how to move.
    pub fn gone(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::GONE, "gone", "Gone", detail)
    }

    /// 409 for a thing that others refer to; `used_by` names them: `application 3 (myapp)`.
    pub fn in_use(used_by: Vec<String>) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "in-use",
            "In use",
            "It is still used; remove it from what usedBy lists, then try again.",
        )
        .with("usedBy", used_by)
    }

    /// 409 for a name that another thing of the same kind has.
    pub fn name_taken(field: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "name-taken", "Name taken", format!("Another one has the same {field}."))
            .with("field", field)
    }

    /// 404 for a project of which no environment is active, or that does not exist.
    pub fn no_active_environment() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-active-environment",
            "No active environment",
            "The project has no active environment. Activate one: POST /api/v2/environments/{envId}/activate.",
        )
    }

    /// 409 for the deletion of a project's active environment.
    pub fn environment_active(name: &str) -> Self {
        let detail = format!("{name} is its project's active environment. Activate another one, then delete it.");
        Self::new(StatusCode::CONFLICT, "environment-active", "Environment active", detail).with("name", name)
    }

    /// 409 for what needs an environment that was deleted.
    pub fn environment_gone(name: &str) -> Self {
        let detail = format!(
            "The release is of the environment {name}, which was deleted: its secrets have no value of now. \
             Restore it, or roll back to the release as it was, with secrets as released."
        );
        Self::new(StatusCode::CONFLICT, "environment-gone", "Environment gone", detail).with("name", name)
    }

    /// 409 for what would pass by a decision that `who` wants.
    pub fn approval_required(who: &str) -> Self {
        let detail = format!(
            "{who} wants somebody to decide on every deployment, and nobody has on the release with other \
             secrets. Roll back with those that it had, or deploy its version, which then waits for a decision."
        );
        Self::new(StatusCode::CONFLICT, "approval-required", "Approval required", detail)
    }

    /// 409 for a change that cannot be made as things stand.
    pub fn conflict(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "Conflict", detail)
    }

    /// 409 while the first request with the same `Idempotency-Key` still runs.
    pub fn idempotency_in_progress() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "idempotency-key-in-progress",
            "Still running",
            "The first request with this Idempotency-Key has not ended yet; repeat this one later.",
        )
        .retry_after(Duration::from_secs(1))
    }

    /// 422 for an `Idempotency-Key` that came before with another body.
    pub fn idempotency_key_reused() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "Idempotency key reused",
            "This Idempotency-Key came before with another request; use a new one for each new request.",
        )
    }

    /// 412 for an `If-Match` that names an older revision.
    pub fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "Precondition failed",
            "It has been changed since; read it again and repeat the change with its new revision in If-Match.",
        )
    }

    /// 413
    pub fn payload_too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload-too-large",
            "Payload too large",
            format!("A body may have at most {limit_bytes} bytes."),
        )
    }

    /// 415
    pub fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "Unsupported media type",
            "Send JSON, with Content-Type: application/json.",
        )
        .header(header::ACCEPT, HeaderValue::from_static("application/json"))
    }

    /// 400 for a body that is not JSON; `detail` says where, never what.
    pub fn malformed_json(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed-json", "Malformed JSON", detail)
    }

    /// 400 for a body that ended early or could not be read.
    pub fn unreadable_body() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "unreadable-body",
            "Unreadable body",
            "The body could not be read to its end.",
        )
    }

    /// 400 for a cursor that was changed, or that belongs to another list.
    pub fn bad_cursor() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-cursor",
            "Bad cursor",
            "The cursor is not one of this list; use nextCursor of an answer as it is, or begin again without it.",
        )
    }

    /// 422 with every fault of the request.
    pub fn validation_failed(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "One field is not valid.".to_owned(),
            count => format!("{count} fields are not valid."),
        };
        let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation-failed", "Validation failed", detail);
        problem.errors = errors;
        problem
    }

    /// 429
    pub fn rate_limited(retry_after: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate-limited",
            "Rate limited",
            "There were too many requests; repeat this one after the time in Retry-After.",
        )
        .retry_after(retry_after)
    }

    /// 503 when no more deployments can wait.
    pub fn queue_full(retry_after: Duration) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "queue-full",
            "Queue full",
            "As many deployments wait as may; repeat this request after the time in Retry-After.",
        )
        .retry_after(retry_after)
    }

    /// 503 for a request that could not be looked at in time. Nothing was done.
    pub fn validation_timeout() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "validation-timeout",
            "Validation timed out",
            "The request could not be checked in time, and nothing was done. Repeat it later.",
        )
        .retry_after(Duration::from_secs(5))
    }

    /// 403 for a decision that is somebody else's to take.
    pub fn not_yours_to_decide(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission-denied", "Permission denied", detail)
    }

    /// 403 for a decision on what somebody asked for who may not ask for it any more.
    pub fn asker_not_permitted() -> Self {
        let detail = "Whoever asked for this with an issue may not ask for it any more, or the application listens to the \
             issue's repository no more. It goes on waiting until its time is over.";
        Self::new(StatusCode::FORBIDDEN, "permission-denied", "Permission denied", detail)
    }

    /// 503 for a decision on what was asked for with an issue, while GitHub does not say who may ask.
    pub fn asker_unknown(retry_after: Duration) -> Self {
        let detail = "GitHub does not say whether whoever asked for this may still ask for it. It goes on waiting; decide \
             after the time in Retry-After.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable", detail).retry_after(retry_after)
    }

    /// 409 for a deployment that does not wait for a decision: `deploymentStatus` says what has become of it.
    pub fn not_waiting(status: &'static str) -> Self {
        let slug = if status == "timed_out" { "approval-timed-out" } else { "not-waiting" };
        let detail = "This deployment does not wait for a decision any more; nothing was changed.";
        Self::new(StatusCode::CONFLICT, slug, "Not waiting", detail).with("deploymentStatus", status)
    }

    /// 409 for a decision on something that would not do any more what was looked at.
    pub fn approval_stale(hash: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "approval-stale",
            "Approval stale",
            "What would run is not what was looked at: something of it was changed since. It goes on waiting until the same \
             time; look at it again, and decide on the new hash.",
        )
        .with("hash", hash)
    }

    /// 410 for a request that is not kept any more.
    pub fn request_gone() -> Self {
        Self::gone("What was asked for is not kept any more. Ask for it again.")
    }

    /// 409 for a deployment that cannot be called off any more.
    pub fn too_late() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "too-late",
            "Too late",
            "Every host has ended its part of this deployment, or is in the middle of its switch. Wait for its end;              a rollback returns to what ran before.",
        )
    }

    /// 409 for what needs a release that there is not.
    pub fn no_release(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "no-release", "No release", detail)
    }

    /// 409 for a log that cannot be shown as things stand.
    pub fn no_logs(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "no-logs", "No logs", detail)
    }

    /// 504 for a host that did not answer in time.
    pub fn host_offline(host: &str) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "host-offline",
            "Host offline",
            format!("The host {host} did not answer in time. See whether its worker runs; GET /hosts tells when it was last seen."),
        )
        .with("host", host)
    }

    /// 503 for something that many want to change at once; nothing was written.
    pub fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "Busy",
            "Others were changing the same thing at the same time. Nothing was changed; repeat the request.",
        )
        .retry_after(Duration::from_secs(1))
    }

    /// 503 for a part of the system that does not answer; nothing was half-written. `what` with its article.
    pub fn away(what: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Unavailable",
            format!(
                "{what} does not answer. Repeat the request later; with an Idempotency-Key it cannot happen twice, even if \
                 the answer to this one was lost."
            ),
        )
        .retry_after(Duration::from_secs(5))
    }

    /// 503 for a switched-off encryption key, which waiting alone does not mend.
    pub fn key_disabled(alias: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "key-disabled",
            "Key disabled",
            format!("The encryption key {alias} is disabled. Nothing was changed; enable the key, then repeat."),
        )
        .retry_after(Duration::from_mins(1))
    }

    /// 500; what happened is in the log under the request's id.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            "Something went wrong here. The log has it under the requestId.",
        )
    }

    /// Field and code of every fault, or the slug: what the history shows of a refusal. Never a value.
    pub fn summary(&self) -> String {
        let faults: Vec<_> = self.errors.iter().map(|e| format!("{}: {}", e.field, e.invalid.code)).collect();
        if faults.is_empty() { self.slug.to_owned() } else { faults.join(", ") }
    }
}
