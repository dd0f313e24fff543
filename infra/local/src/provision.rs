//! Creates what `infra/template.yaml` and `infra/host.yaml` would: table, key, queues. Everything can be done again.

use tidegate_aws::{clients::Clients, error::StoreError, table};
use tidegate_domain::id::{HostName, TenantId};

/// Name of the table.
pub const TABLE: &str = "tidegate";
/// Alias of the key.
pub const KEY_ALIAS: &str = "alias/tidegate";

const REPORTS_QUEUE: &str = "tidegate-reports";
const REPORTS_DEAD_LETTERS: &str = "tidegate-reports-dead";
const INTAKE_QUEUE: &str = "tidegate-intake";
const INTAKE_DEAD_LETTERS: &str = "tidegate-intake-dead";
const HOST_QUEUE_PREFIX: &str = "tidegate-host-";
/// A message that so often could not be handled is set aside.
const MAX_RECEIVES: u32 = 5;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why something could not be created.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error("cannot create the table {TABLE}")]
    Table(#[source] StoreError),
    #[error("cannot read the table {TABLE}")]
    TableUnreadable(#[source] Source),
    #[error("cannot create the key {KEY_ALIAS}")]
    Key(#[source] Source),
    #[error("cannot create the queue {name}")]
    Queue {
        name: String,
        #[source]
        source: Source,
    },
}

/// Where the queues are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues {
    pub reports_url: String,
    pub reports_dead_letters_url: String,
    /// See [`tidegate_aws::env::INTAKE_QUEUE_URL`].
    pub intake_url: String,
    pub intake_dead_letters_url: String,
    /// See [`tidegate_aws::env::HOST_QUEUE_PREFIX`].
    pub host_url_prefix: String,
}

/// The queues that are there once for all.
pub async fn queues(clients: &Clients) -> Result<Queues, ProvisionError> {
    let (reports_url, reports_dead_letters_url) =
        with_dead_letters(clients, REPORTS_QUEUE, REPORTS_DEAD_LETTERS).await?;
    let (intake_url, intake_dead_letters_url) = with_dead_letters(clients, INTAKE_QUEUE, INTAKE_DEAD_LETTERS).await?;
    let base = reports_url.strip_suffix(REPORTS_QUEUE).unwrap_or_default();
    let host_url_prefix = format!("{base}{HOST_QUEUE_PREFIX}");
    Ok(Queues { reports_url, reports_dead_letters_url, intake_url, intake_dead_letters_url, host_url_prefix })
}

/// A queue and that of its dead letters; their URLs.
async fn with_dead_letters(
    clients: &Clients,
    name: &str,
    dead_letters: &str,
) -> Result<(String, String), ProvisionError> {
    let dead_letters_url = queue(clients, dead_letters, &[]).await?;
    let failed = |source: Source| ProvisionError::Queue { name: dead_letters.to_owned(), source };
    let described = clients
        .sqs
        .get_queue_attributes()
        .queue_url(&dead_letters_url)
        .attribute_names("QueueArn".into())
        .send()
        .await
        .map_err(|error| failed(error.into()))?;
    let arn = described
        .attributes
        .and_then(|attributes| attributes.get(&"QueueArn".into()).cloned())
        .ok_or_else(|| failed("the queue has no ARN".into()))?;
    let redrive = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{MAX_RECEIVES}}}"#);
    Ok((queue(clients, name, &[("RedrivePolicy", redrive)]).await?, dead_letters_url))
}

/// A host's own queue; its URL.
pub async fn host_queue(clients: &Clients, tenant: &TenantId, host: &HostName) -> Result<String, ProvisionError> {
    queue(clients, &format!("{HOST_QUEUE_PREFIX}{tenant}_{host}"), &[]).await
}

async fn queue(clients: &Clients, name: &str, attributes: &[(&str, String)]) -> Result<String, ProvisionError> {
    let mut call = clients.sqs.create_queue().queue_name(name);
    for (attribute, value) in attributes {
        call = call.attributes((*attribute).into(), value);
    }
    let failed = |source: Source| ProvisionError::Queue { name: name.to_owned(), source };
    let created = call.send().await.map_err(|error| failed(error.into()))?;
    created.queue_url.ok_or_else(|| failed("the queue has no URL".into()))
}

/// The table.
pub async fn create_table(clients: &Clients) -> Result<(), ProvisionError> {
    table::create(&clients.dynamodb, TABLE).await.map_err(ProvisionError::Table)
}

/// Whether nothing was ever stored, or everything was deleted.
pub(crate) async fn table_is_empty(clients: &Clients) -> Result<bool, ProvisionError> {
    let first = clients.dynamodb.scan().table_name(TABLE).limit(1).send().await;
    first.map(|page| page.count == 0).map_err(|error| ProvisionError::TableUnreadable(error.into()))
}

/// Whether the key is there.
pub async fn key_exists(clients: &Clients) -> Result<bool, ProvisionError> {
    match clients.kms.describe_key().key_id(KEY_ALIAS).send().await {
        Ok(_) => Ok(true),
        // By its code, because only `shared/aws` may name the SDK's types.
        Err(error) if error.as_service_error().and_then(|error| error.meta().code()) == Some("NotFoundException") => {
            Ok(false)
        }
        Err(error) => Err(ProvisionError::Key(error.into())),
    }
}

/// Makes a new key and gives it the alias. A crash between the two leaves a key that nothing uses.
pub async fn create_key(clients: &Clients) -> Result<(), ProvisionError> {
    let created = clients.kms.create_key().description("Tidegate: data keys of secrets and jobs").send().await;
    let metadata = created.map_err(|error| ProvisionError::Key(error.into()))?.key_metadata;
    let id = metadata.map(|key| key.key_id).ok_or_else(|| ProvisionError::Key("the key has no id".into()))?;
    let named = clients.kms.create_alias().alias_name(KEY_ALIAS).target_key_id(id).send().await;
    named.map(|_| ()).map_err(|error| ProvisionError::Key(error.into()))
}
