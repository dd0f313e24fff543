//! Queues: hosts are woken through one each, and report through one for all. Messages hold ids only.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_sdk_sqs::Client;
use serde::{Deserialize, Serialize};
use tidegate_domain::id::{DeploymentId, HostName, TenantId};

use crate::error::{Result, StoreError, away};

const SERVICE: &str = "SQS";

/// "Look at your assignments." Losing one costs a minute, doubling one nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WakeUp {
    pub deployment_id: DeploymentId,
    pub request_id: Option<String>,
}

/// "Look at this assignment." Sent again until it is folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub tenant: TenantId,
    pub host: HostName,
    pub deployment_id: DeploymentId,
}

/// A received message, to be deleted by its receipt.
#[derive(Debug, Clone)]
pub struct Received {
    pub body: String,
    pub receipt: String,
}

#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    pub fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }

    pub async fn send<T: Serialize + Sync>(&self, message: &T) -> Result<()> {
        self.send_after(message, 0).await
    }

    /// To be delivered once so many seconds have passed, at most 900.
    pub async fn send_after<T: Serialize + Sync>(&self, message: &T, seconds: u16) -> Result<()> {
        let body =
            serde_json::to_string(message).map_err(|e| StoreError::Corrupt { what: "message", source: e.into() })?;
        let send = self.client.send_message().queue_url(&self.url).message_body(body);
        let delay = (seconds > 0).then(|| i32::from(seconds.min(900)));
        send.set_delay_seconds(delay).send().await.map_err(away(SERVICE))?;
        Ok(())
    }

    /// Up to ten messages; waits up to `wait` (at most 20 s) for the first.
    pub async fn receive(&self, wait: Duration) -> Result<Vec<Received>> {
        let seconds = i32::try_from(wait.as_secs().min(20)).unwrap_or(20);
        // The client's own limits are for short calls; this one is meant to last.
        let patience = TimeoutConfig::builder()
            .operation_attempt_timeout(wait + Duration::from_secs(10))
            .operation_timeout(wait + Duration::from_secs(20))
            .build();
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(10)
            .wait_time_seconds(seconds)
            .customize()
            .config_override(aws_sdk_sqs::config::Builder::new().timeout_config(patience))
            .send()
            .await
            .map_err(away(SERVICE))?;
        let received = |m: aws_sdk_sqs::types::Message| Some(Received { body: m.body?, receipt: m.receipt_handle? });
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(received).collect())
    }

    pub async fn delete(&self, message: &Received) -> Result<()> {
        self.client
            .delete_message()
            .queue_url(&self.url)
            .receipt_handle(&message.receipt)
            .send()
            .await
            .map_err(away(SERVICE))?;
        Ok(())
    }

    /// Whether the queue answers.
    pub async fn check(&self) -> Result<()> {
        self.client.get_queue_attributes().queue_url(&self.url).send().await.map_err(away(SERVICE))?;
        Ok(())
    }
}
