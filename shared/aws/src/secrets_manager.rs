//! Somebody's AWS Secrets Manager, to read secrets from. It is no part of the installation: its region and its credentials
//! are the caller's, and nothing of the environment is used unless that is asked for.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::{
    Client, Config,
    config::Credentials,
    error::{ProvideErrorMetadata, SdkError},
    types::{Filter, FilterNameStringType, SecretValueEntry},
};
use tidegate_domain::secret::Secret;

/// The API gives so many values at once.
const BATCH: usize = 20;
const PAGE: i32 = 100;

/// Where and as whom.
#[derive(Debug)]
pub struct Account<'a> {
    pub region: &'a str,
    /// None: AWS's own.
    pub endpoint_url: Option<&'a str>,
    /// Access key and its secret. None: the role that this process has.
    pub keys: Option<(&'a str, &'a Secret<String>)>,
}

/// One secret with its present value.
#[derive(Debug)]
pub struct Found {
    pub arn: String,
    pub name: String,
    pub version_id: String,
    /// None: it is not text, or nobody has given it a value yet.
    pub value: Option<Secret<String>>,
}

/// Some secrets, and where the next ones begin.
#[derive(Debug)]
pub struct FoundPage {
    pub found: Vec<Found>,
    pub next: Option<String>,
}

/// Why they could not be read, by what there is to be done about it.
#[derive(Debug, thiserror::Error)]
pub enum SecretsManagerError {
    #[error("the access key is unknown, or its secret is another")]
    BadCredentials,
    #[error("the credentials do not permit it")]
    Denied,
    #[error("it wants fewer requests")]
    Throttled,
    /// The place to go on from is not one of its own any more.
    #[error("the list has to be read from its beginning")]
    Restart,
    #[error("it does not answer")]
    Away(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A client of one account and region. Clones share its connections.
#[derive(Debug, Clone)]
pub struct SecretsManager {
    client: Client,
}

impl SecretsManager {
    /// Each call takes at most `patience`, with its retries.
    pub async fn new(account: Account<'_>, patience: Duration) -> Self {
        let Account { region, endpoint_url, keys } = account;
        let mut builder = match keys {
            // Not from the environment, whose endpoint and role are the installation's.
            Some((id, secret)) => Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .credentials_provider(Credentials::new(id, secret.expose(), None, None, "given")),
            None => (&aws_config::load_defaults(BehaviorVersion::latest()).await).into(),
        };
        builder = builder
            .region(Region::new(region.to_owned()))
            .retry_config(RetryConfig::standard().with_max_attempts(4))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(3))
                    .operation_attempt_timeout(patience.min(Duration::from_secs(5)))
                    .operation_timeout(patience)
                    .build(),
            );
        if let Some(url) = endpoint_url {
            builder = builder.endpoint_url(url);
        }
        Self { client: Client::from_conf(builder.build()) }
    }

    /// Those whose names begin with one of `prefixes`, if there are any; without those that are about to be deleted.
    pub async fn page(&self, prefixes: &[String], after: Option<&str>) -> Result<FoundPage, SecretsManagerError> {
        let filter = (!prefixes.is_empty())
            .then(|| Filter::builder().key(FilterNameStringType::Name).set_values(Some(prefixes.to_vec())).build());
        let listed = self
            .client
            .list_secrets()
            .set_filters(filter.map(|filter| vec![filter]))
            .max_results(PAGE)
            .set_next_token(after.map(str::to_owned))
            .send()
            .await
            .map_err(refusal)?;
        let next = listed.next_token;
        let arns: Vec<_> = listed.secret_list.unwrap_or_default().into_iter().filter_map(|entry| entry.arn).collect();
        let mut found = Vec::new();
        for batch in arns.chunks(BATCH) {
            found.extend(self.values(batch).await?);
        }
        Ok(FoundPage { found, next })
    }

    /// One that has gone since it was listed is left out.
    async fn values(&self, arns: &[String]) -> Result<Vec<Found>, SecretsManagerError> {
        let mut found = Vec::new();
        let mut wanted = arns.to_vec();
        // A batch whose values are too many bytes comes in parts.
        while !wanted.is_empty() {
            let answer = self
                .client
                .batch_get_secret_value()
                .set_secret_id_list(Some(wanted.clone()))
                .send()
                .await
                .map_err(refusal)?;
            let before = wanted.len();
            for error in answer.errors() {
                let of = error.secret_id().unwrap_or_default();
                match error.error_code().unwrap_or_default() {
                    "ResourceNotFoundException" | "InvalidRequestException" => wanted.retain(|arn| arn != of),
                    code => return Err(by_code(Some(code)).unwrap_or(SecretsManagerError::Denied)),
                }
            }
            for value in answer.secret_values.unwrap_or_default() {
                wanted.retain(|arn| Some(arn.as_str()) != value.arn());
                found.extend(read(value));
            }
            if wanted.len() == before {
                return Err(SecretsManagerError::Away("a batch came back without what was asked for".into()));
            }
        }
        Ok(found)
    }
}

fn read(entry: SecretValueEntry) -> Option<Found> {
    Some(Found {
        arn: entry.arn?,
        name: entry.name?,
        version_id: entry.version_id.unwrap_or_default(),
        value: entry.secret_string.map(Secret::new),
    })
}

fn refusal<E, R>(error: SdkError<E, R>) -> SecretsManagerError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    by_code(error.code()).unwrap_or_else(|| match &error {
        SdkError::ConstructionFailure(_) => SecretsManagerError::BadCredentials,
        // No credentials were found, or they could not be signed with.
        SdkError::DispatchFailure(failure) if failure.is_user() || failure.is_other() => {
            SecretsManagerError::BadCredentials
        }
        _ => SecretsManagerError::Away(error.into()),
    })
}

fn by_code(code: Option<&str>) -> Option<SecretsManagerError> {
    match code? {
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "ExpiredTokenException" => Some(SecretsManagerError::BadCredentials),
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "DecryptionFailure" | "OptInRequired" => {
            Some(SecretsManagerError::Denied)
        }
        "ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "TooManyRequestsException" => {
            Some(SecretsManagerError::Throttled)
        }
        "InvalidNextTokenException" => Some(SecretsManagerError::Restart),
        _ => None,
    }
}
