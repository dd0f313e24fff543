//! A problem as it is sent.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Problem, TYPE_BASE};

/// The answer's body. It travels in the response's extensions as well, until the outermost layer knows the request's id.
#[derive(Debug, Clone, Serialize)]
struct Document {
    #[serde(rename = "type")]
    problem_type: String,
    title: &'static str,
    status: u16,
    detail: Cow<'static, str>,
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<DocumentError>,
    #[serde(flatten)]
    members: Map<String, Value>,
}

#[derive(Debug, Clone, Serialize)]
struct DocumentError {
    field: String,
    code: &'static str,
    message: String,
    suggestion: String,
}

impl Document {
    fn to_body(&self) -> Body {
        Body::from(serde_json::to_vec(self).expect("a document of texts and JSON values can be written as JSON"))
    }
}

/// Adds the request's id to a problem document; other answers stay as they are.
pub(crate) fn name_request(response: Response, request_id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    match parts.extensions.remove::<Document>() {
        Some(mut document) => {
            document.request_id = Some(request_id.to_owned());
            Response::from_parts(parts, document.to_body())
        }
        None => Response::from_parts(parts, body),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = self.document();
        let mut response = Response::new(document.to_body());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response.extensions_mut().insert(document);
        response
    }
}

impl Problem {
    fn document(&self) -> Document {
        Document {
            problem_type: format!("{TYPE_BASE}{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            request_id: None,
            errors: self
                .errors
                .iter()
                .map(|error| DocumentError {
                    field: error.field.clone(),
                    code: error.invalid.code,
                    message: error.invalid.message.clone(),
                    suggestion: error.invalid.suggestion.clone(),
                })
                .collect(),
            members: self.members.clone(),
        }
    }
}
