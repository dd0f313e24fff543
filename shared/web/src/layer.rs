//! What lies around every router: request ids, the log line of a request, panics, and answers for unknown routes.

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use tracing::Instrument as _;

use crate::{
    problem::{Problem, name_request},
    request::RequestInfo,
};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes a router of routes into one that can be served: 404, 405 and panics are problem documents, every answer carries
/// `X-Request-Id`. To be applied once, last, after all routes were merged.
pub fn complete(routes: Router) -> Router {
    routes
        .fallback(|| async { Problem::no_route() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn(around))
}

async fn around(mut request: Request, next: Next) -> Response {
    let info = RequestInfo::of(request.extensions());
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let span =
        tracing::info_span!("request", request.id = %info.id, http.method = %request.method(), http.route = route);
    request.extensions_mut().insert(info.clone());
    let begun = Instant::now();
    async move {
        // Past a panic nothing of the request is used again, so no broken invariant can be seen. The release profile
        // aborts instead: the function's next call gets a new process, and the gateway answers 500.
        let caught = AssertUnwindSafe(next.run(request)).catch_unwind().await;
        let response = caught.unwrap_or_else(|_| {
            tracing::error!("a handler panicked");
            Problem::internal().into_response()
        });
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(http.status = response.status().as_u16(), duration_ms, "answered");
        finish(response, info.id.as_str())
    }
    .instrument(span)
    .await
}

fn finish(response: Response, request_id: &str) -> Response {
    let told = response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/plain"));
    // What axum itself refuses, such as a path that is not UTF-8, it refuses in plain text.
    let response =
        if told && response.status().is_client_error() { Problem::undecodable().into_response() } else { response };
    let mut response = name_request(response, request_id);
    let headers = response.headers_mut();
    headers.insert(
        X_REQUEST_ID,
        HeaderValue::from_str(request_id).expect("an id of visible ASCII characters is a header value"),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Method, StatusCode},
        routing::get,
    };
    use lambda_http::{aws_lambda_events::apigw::ApiGatewayV2httpRequestContext, request::RequestContext};
    use tower::ServiceExt as _;

    use super::*;

    fn app() -> Router {
        async fn who(info: RequestInfo) -> String {
            format!("{} {:?}", info.id, info.source_ip)
        }
        async fn panics() {
            panic!("a value that nobody may see")
        }
        complete(Router::new().route("/who", get(who)).route("/panics", get(panics)))
    }

    async fn answer(request: Request) -> (StatusCode, axum::http::HeaderMap, String) {
        let response = app().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    fn request(method: Method, path: &str) -> Request {
        Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn an_unknown_route_is_a_problem_with_the_id_of_its_request() {
        let (status, headers, body) = answer(request(Method::GET, "/nothing")).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(headers["x-request-id"], body["requestId"].as_str().unwrap());
        assert_eq!(body["type"], "https://tidegate.dev/problems/not-found");
    }

    #[tokio::test]
    async fn a_wrong_method_is_told_which_are_right() {
        let (status, headers, body) = answer(request(Method::DELETE, "/who")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(headers[header::ALLOW], "GET,HEAD");
        assert!(body.contains("requestId"), "{body}");
    }

    #[tokio::test]
    async fn a_panic_is_a_500_that_says_nothing_of_it() {
        let (status, _, body) = answer(request(Method::GET, "/panics")).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body.contains("nobody may see") && body.contains("requestId"), "{body}");
    }

    #[tokio::test]
    async fn id_and_address_come_from_the_gateway() {
        let mut context = ApiGatewayV2httpRequestContext::default();
        context.request_id = Some("gateway-1".to_owned());
        context.http.source_ip = Some("192.0.2.7".to_owned());
        let mut request = request(Method::GET, "/who");
        request.headers_mut().insert("x-forwarded-for", HeaderValue::from_static("198.51.100.1"));
        request.extensions_mut().insert(RequestContext::ApiGatewayV2(context));
        let (_, headers, body) = answer(request).await;
        assert_eq!(headers["x-request-id"], "gateway-1");
        assert_eq!(body, "gateway-1 Some(192.0.2.7)");
    }
}
