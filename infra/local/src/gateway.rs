//! What the API Gateway adds to a request before a function sees it.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Json,
    extract::{ConnectInfo, Request},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use lambda_http::{Context, aws_lambda_events::apigw::ApiGatewayV2httpRequestContext, request::RequestContext};
use serde_json::json;
use tidegate_aws::{clock, random};

/// How long a function may take, as in `infra/template.yaml`.
const TIME_OUT_MS: u64 = 29_000;
/// How long the API Gateway waits for a function:
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html>
const PATIENCE: Duration = Duration::from_secs(30);

/// For `axum::middleware::from_fn`. Handlers find source address and request id where they find them on Lambda:
/// `RequestExt::request_context_ref` and `lambda_context_ref`.
///
/// The source address is that of the connection, so the router must be served with
/// `into_make_service_with_connect_info::<SocketAddr>()`; no header can change it.
///
/// What takes longer than the gateway waits is answered as it does then: also a body of which only half is sent.
pub async fn fake_gateway(request: Request, next: Next) -> Response {
    patiently(PATIENCE, request, next).await
}

async fn patiently(patience: Duration, mut request: Request, next: Next) -> Response {
    let now_ms = clock::now().as_millisecond();
    let id = random_id();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip().to_canonical());
    let headers = request.headers();
    let user_agent = headers.get("user-agent").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let host = headers.get("host").and_then(|value| value.to_str().ok()).map(str::to_owned);

    let mut gateway = ApiGatewayV2httpRequestContext::default();
    gateway.stage = Some("$default".to_owned());
    gateway.request_id = Some(id.clone());
    gateway.domain_name = host;
    gateway.time_epoch = now_ms;
    gateway.http.method = request.method().clone();
    gateway.http.path = Some(request.uri().path().to_owned());
    gateway.http.protocol = Some("HTTP/1.1".to_owned());
    gateway.http.source_ip = peer.map(|address| address.to_string());
    gateway.http.user_agent = user_agent;

    let mut lambda = Context::default();
    lambda.request_id = id;
    lambda.deadline = u64::try_from(now_ms).unwrap_or_default() + TIME_OUT_MS;

    let extensions = request.extensions_mut();
    extensions.insert(RequestContext::ApiGatewayV2(gateway));
    extensions.insert(lambda);
    tokio::time::timeout(patience, next.run(request)).await.unwrap_or_else(|_| {
        // The rest of the body, if it ever comes, is not waited for.
        let close = [(header::CONNECTION, "close")];
        (StatusCode::SERVICE_UNAVAILABLE, close, Json(json!({"message": "Service Unavailable"}))).into_response()
    })
}

/// 32 hexadecimal digits.
fn random_id() -> String {
    format!("{:032x}", u128::from_be_bytes(random::bytes()))
}

#[cfg(test)]
mod tests {
    use axum::{
        Router, middleware,
        routing::{get, post},
    };
    use lambda_http::RequestExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn handlers_see_what_they_see_on_lambda() {
        let seen = get(|request: Request| async move {
            let Some(RequestContext::ApiGatewayV2(gateway)) = request.request_context_ref() else { panic!() };
            let lambda = request.lambda_context_ref().unwrap();
            assert_eq!(gateway.request_id.as_ref(), Some(&lambda.request_id));
            assert!(lambda.deadline > 1_700_000_000_000);
            format!("{} {} {}", gateway.http.source_ip.as_deref().unwrap(), gateway.http.method, lambda.request_id)
        });
        let router = Router::new().route("/seen", seen).layer(middleware::from_fn(fake_gateway));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/seen", listener.local_addr().unwrap());
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move { axum::serve(listener, service).await });
        let ask = || async {
            let request = reqwest::Client::new().get(&url).header("x-forwarded-for", "203.0.113.9");
            request.send().await.unwrap().text().await.unwrap()
        };
        let (first, second) = (ask().await, ask().await);
        assert!(first.starts_with("127.0.0.1 GET "), "{first}");
        assert_ne!(first, second, "every request has an id of its own");
        server.abort();
    }

    #[tokio::test]
    async fn half_a_body_is_not_waited_for_longer_than_the_gateway_does() {
        let read = post(|body: axum::body::Bytes| async move { body.len().to_string() });
        let impatient = |request, next| patiently(Duration::from_millis(300), request, next);
        let router = Router::new().route("/", read).layer(middleware::from_fn(impatient));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{").await.unwrap();
        // To the end: the connection is closed, too.
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        server.abort();
    }
}
