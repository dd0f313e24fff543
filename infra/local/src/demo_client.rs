//! The calls that a person and a CI make in the demo.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tidegate_domain::secret::Secret;

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no answer to {call}")]
    NoAnswer {
        call: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{call} is answered with {status}: {body}")]
    Refused { call: String, status: StatusCode, body: String },
}

/// A caller, who may have signed in.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    person: Option<Secret<String>>,
}

/// What a creation answered.
pub(crate) struct Created {
    /// 0 where ids are not numbers.
    pub(crate) id: u64,
    pub(crate) body: Value,
}

impl Client {
    pub(crate) fn new(url: String) -> Self {
        Self { http: reqwest::Client::new(), url, person: None }
    }

    /// Calls of the administration API are this user's from now on.
    pub(crate) async fn sign_in(&mut self, user: &str, password: &Secret<String>) -> Result<(), ClientError> {
        let body = json!({ "username": user, "password": password.expose() });
        let answer = self.api(Method::POST, "auth/login", Some(&body)).await?;
        self.person = Some(Secret::new(answer["token"].as_str().unwrap_or_default().to_owned()));
        Ok(())
    }

    pub(crate) async fn create(&self, resource: &str, body: &Value) -> Result<Created, ClientError> {
        let body = self.api(Method::POST, resource, Some(body)).await?;
        Ok(Created { id: body["id"].as_u64().unwrap_or_default(), body })
    }

    pub(crate) async fn get(&self, resource: &str) -> Result<Value, ClientError> {
        self.api(Method::GET, resource, None).await
    }

    async fn api(&self, method: Method, resource: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let call = format!("{method} /api/v2/{resource}");
        let mut request = self.http.request(method, format!("{}/api/v2/{resource}", self.url));
        if let Some(token) = &self.person {
            request = request.bearer_auth(token.expose());
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        json_answer(call, request).await
    }

    /// The new deployment's id.
    pub(crate) async fn deploy(
        &self,
        application: u64,
        version: &str,
        token: &Secret<String>,
    ) -> Result<String, ClientError> {
        let body = json!({ "applicationId": application, "version": version, "token": token.expose() });
        let request = self.http.post(format!("{}/webhook/deploy", self.url)).json(&body);
        let answer = json_answer("POST /webhook/deploy".to_owned(), request).await?;
        Ok(answer["deploymentId"].as_str().unwrap_or_default().to_owned())
    }

    /// As CI sees it, with the application's token.
    pub(crate) async fn deployment(&self, id: &str, token: &Secret<String>) -> Result<Value, ClientError> {
        let request = self.http.get(format!("{}/webhook/deployments/{id}", self.url)).bearer_auth(token.expose());
        json_answer(format!("GET /webhook/deployments/{id}"), request).await
    }

    /// The body of a page, whatever its status.
    pub(crate) async fn text(&self, url: &str) -> Result<String, ClientError> {
        let no_answer = |source| ClientError::NoAnswer { call: format!("GET {url}"), source };
        // A new connection each time: one that was kept open may lead to a container that is gone.
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().map_err(no_answer)?;
        client.get(url).send().await.map_err(no_answer)?.text().await.map_err(no_answer)
    }
}

async fn json_answer(call: String, request: RequestBuilder) -> Result<Value, ClientError> {
    let no_answer = |source| ClientError::NoAnswer { call: call.clone(), source };
    let response = request.timeout(Duration::from_secs(30)).send().await.map_err(no_answer)?;
    let status = response.status();
    if !status.is_success() {
        let body = response.text().await.map_err(no_answer)?;
        return Err(ClientError::Refused { call, status, body });
    }
    response.json().await.map_err(no_answer)
}
