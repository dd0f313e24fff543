//! The store: what the functions read and write. Clones share clients and the cache of data keys.

use std::sync::Arc;

use tidegate_domain::id::{HostName, TenantId};

use crate::{
    clients::Clients,
    env,
    envelope::{Place, Purpose, Sealer},
    error::{Result, StoreError, away},
    material::Guesses,
    queues::{Queue, WakeUp},
    table::Table,
};

/// Names of the things in AWS.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    pub table: String,
    /// Id, ARN or alias of the KMS key.
    pub key: String,
    /// See [`env::HOST_QUEUE_PREFIX`].
    pub host_queue_prefix: String,
    /// See [`env::INTAKE_QUEUE_URL`].
    pub intake_queue_url: Option<String>,
}

impl StoreConfig {
    /// # Errors
    /// Names every missing variable.
    pub fn from_environment() -> Result<Self, env::EnvError> {
        let mut reader = env::Reader::default();
        let config = Self {
            table: reader.required(env::TABLE),
            key: reader.required(env::KEY),
            host_queue_prefix: reader.required(env::HOST_QUEUE_PREFIX),
            intake_queue_url: std::env::var(env::INTAKE_QUEUE_URL).ok().filter(|url| !url.is_empty()),
        };
        reader.finish().map(|()| config)
    }
}

#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) table: Table,
    pub(crate) sealer: Sealer,
    kms: aws_sdk_kms::Client,
    sqs: aws_sdk_sqs::Client,
    config: StoreConfig,
    /// Admissions that have lost a race to another: within a process they go on one after the other, as each would only
    /// lose again to the next.
    pub(crate) losers: Arc<tokio::sync::Mutex<()>>,
    pub(crate) guesses: Guesses,
}

impl Store {
    pub fn new(clients: &Clients, config: StoreConfig) -> Self {
        Self {
            table: Table::new(clients.dynamodb.clone(), config.table.clone()),
            sealer: Sealer::new(clients.kms.clone(), config.key.clone()),
            kms: clients.kms.clone(),
            sqs: clients.sqs.clone(),
            config,
            losers: Arc::default(),
            guesses: Guesses::default(),
        }
    }

    /// Forgets every unwrapped data key.
    pub fn forget_data_keys(&self) {
        self.sealer.forget();
    }

    pub fn host_queue(&self, tenant: &TenantId, host: &HostName) -> Queue {
        Queue::new(self.sqs.clone(), format!("{}{tenant}_{host}", self.config.host_queue_prefix))
    }

    pub(crate) fn sqs(&self) -> &aws_sdk_sqs::Client {
        &self.sqs
    }

    pub(crate) fn intake_queue_url(&self) -> Option<&str> {
        self.config.intake_queue_url.as_deref()
    }

    /// Wakes these hosts. A failure is logged and nothing more: each host looks at its assignments once a minute anyway.
    pub async fn wake(&self, tenant: &TenantId, hosts: &[HostName], wake_up: &WakeUp) {
        let sends = hosts.iter().map(|host| async move {
            if let Err(error) = self.host_queue(tenant, host).send(wake_up).await {
                tracing::warn!(host.name = %host, deployment.id = %wake_up.deployment_id, error = &error as &dyn std::error::Error,
                    "a host could not be woken; it will look by itself within a minute");
            }
        });
        futures_util::future::join_all(sends).await;
    }

    /// Whether the table and the key service answer. Queues are left out: without them the system is slower, not down.
    pub async fn check(&self) -> Result<()> {
        let table = async {
            let described = self.table.client.describe_table().table_name(&self.table.name).send().await;
            described.map(|_| ()).map_err(away("DynamoDB"))
        };
        let key = async {
            let described = self.kms.describe_key().key_id(&self.config.key).send().await.map_err(away("KMS"))?;
            if described.key_metadata.is_some_and(|m| m.enabled) {
                Ok(())
            } else {
                Err(StoreError::KeyDisabled { key: self.config.key.clone() })
            }
        };
        tokio::try_join!(table, key).map(|_| ())
    }

    pub(crate) async fn seal(
        &self,
        tenant: &TenantId,
        purpose: Purpose,
        place: Place<'_>,
        plain: &[u8],
    ) -> Result<String> {
        self.sealer.seal(&self.table, tenant, purpose, place, plain).await
    }
}
