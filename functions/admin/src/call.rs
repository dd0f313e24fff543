//! What handlers have in common: who calls, how a thing is created once, and how a change that lost a race is repeated.

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tidegate_aws::{
    audit::AuditEvent,
    catalogue::{Created, PageRequest, Replay, Stored},
    clock,
    contention::Contention,
    error::StoreError,
    idempotency::{FirstAnswer, IdempotencyKey as KeptKey},
};
use tidegate_domain::{
    deployment::{Trigger, TriggerKind},
    id::{Revision, TenantId},
    invalid::Invalid,
    permission::Role,
    secret::{self, Secret},
};
use tidegate_web::{
    Problem,
    auth::{Authorized, Needs, Write},
    body::JsonBody,
    conditional::{Conditions, etag},
    form::Form,
    idempotency::{self, IdempotencyKey},
    page::{Page, PageQuery},
    request::RequestInfo,
};

use crate::AdminState;

/// A request of somebody who may do `P`, and when it came.
pub(crate) struct Call<P> {
    authorized: Authorized<P>,
    info: RequestInfo,
    pub(crate) now: Timestamp,
}

impl<P> Call<P> {
    pub(crate) fn tenant(&self) -> &TenantId {
        self.authorized.tenant()
    }

    pub(crate) fn user(&self) -> &str {
        self.authorized.user()
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.authorized.principal().role == Some(Role::Admin)
    }

    pub(crate) fn info(&self) -> &RequestInfo {
        &self.info
    }

    /// As what a deployment that was asked for so is recorded.
    pub(crate) fn trigger(&self, kind: TriggerKind) -> Trigger {
        Trigger {
            kind,
            source: self.info.source_ip.map(|ip| ip.to_string()),
            actor: self.user().to_owned(),
            author: None,
        }
    }

    /// `action` as `project.created`, `subject` as `project/1`.
    pub(crate) fn event(&self, action: &str, subject: String) -> AuditEvent {
        AuditEvent {
            actor: self.user().to_owned(),
            action: action.to_owned(),
            subject,
            source_ip: self.info.source_ip.map(|ip| ip.to_string()),
            request_id: Some(self.info.id.to_string()),
        }
    }
}

impl<P: Needs> FromRequestParts<AdminState> for Call<P> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Problem> {
        let authorized = Authorized::from_request_parts(parts, state).await?;
        let Ok(info) = RequestInfo::from_request_parts(parts, state).await;
        Ok(Self { authorized, info, now: clock::now() })
    }
}

/// A call that creates something, once for each `Idempotency-Key`.
///
/// # Errors
/// Besides what [`Call`] and [`JsonBody`] refuse: a repeated call is answered here, with the first answer.
pub(crate) struct Creation {
    pub(crate) call: Call<Write>,
    pub(crate) body: JsonBody,
    key: Option<KeptKey>,
}

impl FromRequest<AdminState> for Creation {
    type Rejection = Response;

    async fn from_request(request: Request, state: &AdminState) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let refused = |problem: Problem| problem.into_response();
        let call = Call::from_request_parts(&mut parts, state).await.map_err(refused)?;
        let key = IdempotencyKey::from_request_parts(&mut parts, state).await.map_err(refused)?;
        let body = JsonBody::from_request(Request::from_parts(parts, body), state).await.map_err(refused)?;
        let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
        if let Some(key) = &key {
            let first = state.store.first_answer(call.tenant(), key, call.now).await;
            if let Some(first) = first.map_err(|error| refused(error.into()))? {
                return Err(idempotency::replay(&first));
            }
        }
        Ok(Self { call, body, key })
    }
}

impl Creation {
    /// What the store keeps for a repeated call, in the transaction that makes it true.
    pub(crate) fn replay<'a>(&'a self, answer: &'a FirstAnswer) -> Option<Replay<'a>> {
        self.key.as_ref().map(|key| Replay { key, answer })
    }
}

/// The 201 with its view, as it is sent and kept.
pub(crate) fn first_answer(view: &impl Serialize) -> FirstAnswer {
    let body = serde_json::to_string(view).expect("a view of texts and numbers can be written as JSON");
    FirstAnswer { status: StatusCode::CREATED.as_u16(), body: Secret::new(body) }
}

/// Says what became of a creation.
pub(crate) fn answer_creation(created: &Created, answer: &FirstAnswer) -> Response {
    match created {
        Created::Now => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            (StatusCode::CREATED, json, answer.body.expose().clone()).into_response()
        }
        Created::Before(first) => idempotency::replay(first),
    }
}

/// A changed thing with its new `ETag`.
pub(crate) fn answer_change(revision: Revision, view: impl Serialize) -> Response {
    (etag(revision), Json(view)).into_response()
}

/// Last write wins, unless the caller insists on a revision.
pub(crate) struct Race {
    contention: Contention,
    insist: bool,
}

impl Race {
    pub(crate) fn new(conditions: &Conditions) -> Self {
        Self { contention: Contention::begin(), insist: conditions.insist() }
    }

    /// Returns after a while if the change is to be made again on what is stored then.
    pub(crate) async fn lost(&mut self, error: StoreError) -> Result<(), Problem> {
        match error {
            StoreError::Conflict if self.insist => Err(Problem::precondition_failed()),
            StoreError::Conflict => Ok(self.contention.pause().await?),
            other => Err(other.into()),
        }
    }
}

/// What is on all views.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stamps {
    revision: Revision,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl<T> From<&Stored<T>> for Stamps {
    fn from(stored: &Stored<T>) -> Self {
        Self { revision: stored.revision, created_at: stored.created_at, updated_at: stored.updated_at }
    }
}

impl Stamps {
    pub(crate) fn new(revision: Revision, created_at: Timestamp, updated_at: Timestamp) -> Self {
        Self { revision, created_at, updated_at }
    }
}

/// Takes what answers carry beside a thing's own fields, so that an answer can be sent back changed.
pub(crate) fn take_stamps(form: &mut Form, id: u64) {
    form.fixed("id", &Value::from(id));
    form.read_only(&["revision", "createdAt", "updatedAt"]);
}

/// An integer id in a path; anything else names nothing.
pub(crate) fn path_id(text: &str, what: &str) -> Result<u64, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| Problem::not_found(what))
}

/// `StoreError::Missing` with the name of what is missing.
pub(crate) fn missing(what: &'static str) -> impl FnOnce(StoreError) -> Problem {
    move |error| match error {
        StoreError::Missing => Problem::not_found(what),
        other => other.into(),
    }
}

/// A list's query without filters of its own.
pub(crate) fn page_of(query: Option<&str>) -> Result<PageRequest, Problem> {
    let mut form = Form::of_query(query)?;
    let page = PageQuery::read(&mut form);
    form.finish(|| Some(request_of(page)))
}

pub(crate) fn request_of(page: PageQuery) -> PageRequest {
    PageRequest { limit: page.limit, cursor: page.cursor }
}

pub(crate) fn page<T, V>(found: tidegate_aws::catalogue::Listed<T>, view: impl FnMut(T) -> V) -> Json<Page<V>> {
    Json(Page { data: found.data.into_iter().map(view).collect(), next_cursor: found.next_cursor })
}

/// See [`secret::check_name`].
pub(crate) fn plain_name(text: String) -> Result<String, Invalid> {
    secret::check_name(&text).map(|()| text)
}
