//! The administration alone, without a worker, and the three people who use it.

use std::sync::Arc;

use axum::middleware;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate_admin::{AdminState, issuer::LocalIssuer, router, sign_in};
use tidegate_aws::store::{Store, StoreConfig};
use tidegate_domain::{permission::Role, secret::Secret};
use tidegate_local::{
    embedded::EmbeddedAws,
    gateway::fake_gateway,
    provision::{self, KEY_ALIAS, TABLE},
};
use tidegate_web::{
    auth::{Issuer, Verifier},
    layer,
};

use super::application;

pub(crate) struct Admin {
    pub base: String,
    pub http: reqwest::Client,
    token: Option<String>,
    pub aws: EmbeddedAws,
}

pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub(crate) fn faults(&self) -> Vec<(&str, &str)> {
        let errors = self.body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().map(|e| (e["field"].as_str().unwrap(), e["code"].as_str().unwrap())).collect()
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    Answer { status, headers, body }
}

impl Admin {
    /// With the users `admin`, `operator` and `viewer`, whose passwords are their names; nobody signed in.
    pub(crate) async fn start() -> Self {
        let aws = EmbeddedAws::start(None).await.unwrap();
        let clients = aws.clients();
        let queues = provision::queues(&clients).await.unwrap();
        let config = StoreConfig {
            table: TABLE.to_owned(),
            key: KEY_ALIAS.to_owned(),
            host_queue_prefix: queues.host_url_prefix,
            intake_queue_url: None,
        };
        let store = Store::new(&clients, config);
        for (name, role) in [("admin", Role::Admin), ("operator", Role::Operator), ("viewer", Role::Viewer)] {
            sign_in::put_user(&store, name, &Secret::new(name.to_owned()), role).await.unwrap();
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Issuer {
            name: base.clone(),
            jwks_url: format!("{base}/.well-known/jwks.json"),
            client_id: "tidegate".to_owned(),
        };
        let local = Arc::new(LocalIssuer::generate(&issuer).unwrap());
        let app = layer::complete(router(AdminState::new(store, Verifier::new(issuer), Some(local))));
        let app = app.layer(middleware::from_fn(fake_gateway));
        tokio::spawn(async move {
            let service = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
            axum::serve(listener, service).await
        });
        Self { base, http: reqwest::Client::new(), token: None, aws }
    }

    pub(crate) async fn signed_in() -> Self {
        let mut admin = Self::start().await;
        admin.sign_in("admin").await;
        admin
    }

    pub(crate) async fn sign_in(&mut self, user: &str) {
        let answer = self.post("auth/login", json!({"username": user, "password": user})).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        self.token = Some(answer.body["token"].as_str().unwrap().to_owned());
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let mut request = self.http.request(method, format!("{}/api/v2/{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        answer(request).await
    }

    /// With a body that is sent as it is written.
    pub(crate) async fn raw(&self, method: Method, path: &str, body: String) -> Answer {
        let request = self.http.request(method, format!("{}/api/v2/{path}", self.base));
        let request = request.bearer_auth(self.token.as_deref().unwrap_or_default());
        answer(request.header("content-type", "application/json").body(body)).await
    }

    /// An answer that is no JSON.
    pub(crate) async fn text(&self, path: &str) -> reqwest::Response {
        let request = self.http.get(format!("{}/api/v2/{path}", self.base));
        request.bearer_auth(self.token.as_deref().unwrap_or_default()).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, &[], Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, &[], None).await
    }

    pub(crate) async fn created(&self, path: &str, body: Value) -> Value {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{path}: {}", answer.body);
        answer.body
    }

    /// A project, a registry, a secret and an application; the application's answer.
    pub(crate) async fn registered(&self) -> Value {
        self.created("projects", json!({"key": "shop", "name": "Shop"})).await;
        let registry = json!({"name": "hub", "server": "registry.example.com:5000", "authType": "username-password",
            "username": "ci", "password": "registry-pa55"});
        self.created("registries", registry).await;
        self.created("secret-groups", json!({"name": "db"})).await;
        self.created("secrets", json!({"groupId": 1, "name": "URL", "value": "marked-secret"})).await;
        self.created("applications", application()).await
    }
}
