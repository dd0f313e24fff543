//! Revisions over HTTP: `ETag`, `If-Match`, `If-None-Match` (RFC 9110, section 13).

use std::convert::Infallible;

use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tidegate_aws::applications::sha256_hex;
use tidegate_domain::id::Revision;

use crate::problem::Problem;

/// What a request says of the revision it expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

/// Between a revision and what tells apart the views of it.
const BESIDE: char = '.';
/// Enough of a hash to tell two views of one revision apart.
const HASH_DIGITS: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    /// Without the quotes; what is not one of our tags equals none.
    These(Vec<String>),
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName, weak_counts: bool) -> Option<Self> {
        let mut tags = Vec::new();
        let mut present = false;
        for value in headers.get_all(name) {
            present = true;
            for tag in value.to_str().unwrap_or_default().split(',').map(str::trim) {
                if tag == "*" {
                    return Some(Self::Any);
                }
                let tag = if weak_counts { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
                tags.extend(tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).map(str::to_owned));
            }
        }
        present.then_some(Self::These(tags))
    }

    fn name(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|own| own == tag),
        }
    }

    /// Whether one of them is of this revision, whatever else it says.
    fn name_revision(&self, revision: Revision) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => {
                let revision = revision.to_string();
                tags.iter().any(|tag| tag.split_once(BESIDE).map_or(tag.as_str(), |(own, _)| own) == revision)
            }
        }
    }
}

impl Conditions {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            if_match: Tags::of(headers, &header::IF_MATCH, false),
            if_none_match: Tags::of(headers, &header::IF_NONE_MATCH, true),
        }
    }

    /// Whether a change may go on from the revision that was read.
    ///
    /// # Errors
    /// 412 if the caller expects another.
    pub fn allow_change(&self, current: Revision) -> Result<(), Problem> {
        match &self.if_match {
            Some(tags) if !tags.name_revision(current) => Err(Problem::precondition_failed()),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the caller insists on a revision. Without, a change that lost a race is made again on what won.
    pub fn insist(&self) -> bool {
        self.if_match.is_some()
    }

    /// 304 if the caller has this revision already, else the thing with its `ETag`.
    pub fn answer(&self, revision: Revision, view: impl Serialize) -> Response {
        match &self.if_none_match {
            Some(tags) if tags.name(&revision.to_string()) => {
                (StatusCode::NOT_MODIFIED, etag(revision)).into_response()
            }
            Some(_) | None => (etag(revision), Json(view)).into_response(),
        }
    }

    /// As [`Conditions::answer`], of a view that shows also what the revision does not count: a status, a number of uses.
    /// Its tag is the revision with a hash of the view, and only the revision in it counts for `If-Match`.
    ///
    /// # Errors
    /// 500 for a view that cannot be written as JSON.
    pub fn answer_live(&self, revision: Revision, view: impl Serialize) -> Result<Response, Problem> {
        let body = serde_json::to_vec(&view).map_err(|_| Problem::internal())?;
        let hash = sha256_hex(&body);
        let tag = format!("{revision}{BESIDE}{}", hash.get(..HASH_DIGITS).unwrap_or_default());
        let header = quoted(&tag);
        Ok(match &self.if_none_match {
            Some(tags) if tags.name(&tag) => (StatusCode::NOT_MODIFIED, header).into_response(),
            Some(_) | None => (header, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        })
    }
}

/// `ETag: "<revision>"`
pub fn etag(revision: Revision) -> [(HeaderName, HeaderValue); 1] {
    quoted(&revision.to_string())
}

fn quoted(tag: &str) -> [(HeaderName, HeaderValue); 1] {
    let tag = HeaderValue::from_str(&format!("\"{tag}\"")).expect("digits in quotes are a header value");
    [(header::ETAG, tag)]
}

impl<S: Sync> FromRequestParts<S> for Conditions {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_goes_on_only_from_the_expected_revision() {
        let check = |if_match: Option<&'static str>, allowed: bool| {
            let mut headers = HeaderMap::new();
            headers.extend(if_match.map(|value| (header::IF_MATCH, HeaderValue::from_static(value))));
            assert_eq!(Conditions::of(&headers).allow_change(Revision(3)).is_ok(), allowed, "{if_match:?}");
        };
        check(None, true);
        check(Some("\"3\""), true);
        check(Some("\"2\", \"3\""), true);
        check(Some("*"), true);
        check(Some("\"3.0123456789abcdef\""), true);
        check(Some("\"2\""), false);
        check(Some("\"2.3\""), false);
        check(Some("\"33\""), false);
        check(Some("3"), false);
        check(Some("W/\"3\""), false);
        check(Some(""), false);
    }

    #[test]
    fn what_the_caller_has_is_not_sent_again() {
        let check = |if_none_match: &'static str, expect: StatusCode| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(if_none_match));
            let response = Conditions::of(&headers).answer(Revision(3), "view");
            assert_eq!(response.status(), expect, "{if_none_match}");
            assert_eq!(response.headers()[header::ETAG], "\"3\"");
        };
        check("\"3\"", StatusCode::NOT_MODIFIED);
        check("W/\"3\"", StatusCode::NOT_MODIFIED);
        check("\"2\"", StatusCode::OK);
    }

    #[test]
    fn a_view_that_changes_by_itself_is_sent_again() {
        let ask = |if_none_match: Option<&HeaderValue>, view: &str| {
            let mut headers = HeaderMap::new();
            headers.extend(if_none_match.map(|value| (header::IF_NONE_MATCH, value.clone())));
            let response = Conditions::of(&headers).answer_live(Revision(3), view).unwrap();
            (response.status(), response.headers()[header::ETAG].clone())
        };
        let (status, tag) = ask(None, "unused");
        assert_eq!(status, StatusCode::OK);
        assert_eq!(ask(Some(&tag), "unused"), (StatusCode::NOT_MODIFIED, tag.clone()));
        let (status, other) = ask(Some(&tag), "used");
        assert_eq!((status, other != tag), (StatusCode::OK, true));
        assert_eq!(ask(Some(&HeaderValue::from_static("\"3\"")), "unused").0, StatusCode::OK);
    }
}
