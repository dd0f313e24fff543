//! Somebody's AWS Secrets Manager, to read secrets from. It is no part of the installation: its region and its credentials
//! are the caller's, and nothing of the environment is used unless that is asked for.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_secretsmanager::{
    Client, Config,
    config::{Credentials, http::HttpResponse},
    error::{ProvideErrorMetadata, SdkError},
    types::{Filter, FilterNameStringType, SecretListEntry, SecretValueEntry},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tidegate_domain::secret::Secret;

/// The API gives so many values at once.
const BATCH: usize = 20;
const BATCHES_AT_ONCE: usize = 5;
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

/// One secret, without its value.
#[derive(Debug)]
pub struct Named {
    pub arn: String,
    pub name: String,
}

/// Some names, and where the next ones begin.
#[derive(Debug)]
pub struct NamesPage {
    pub named: Vec<Named>,
    pub next: Option<String>,
}

/// Why they could not be read, by what there is to be done about it.
#[derive(Debug, thiserror::Error)]
pub enum SecretsManagerError {
    #[error("the access key is unknown, or its secret is another")]
    BadCredentials,
    /// It gets other credentials by itself, sooner or later.
    #[error("this process has no role, or AWS does not take it now")]
    BadRole(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the credentials do not permit it")]
    Denied,
    #[error("it wants fewer requests")]
    Throttled,
    /// The place to go on from is not one of its own any more.
    #[error("the list has to be read from its beginning")]
    Restart,
    #[error("it refuses the request with status {status}")]
    Refused { status: u16 },
    #[error("it does not answer")]
    Away(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A client of one account and region. Clones share its connections.
#[derive(Debug, Clone)]
pub struct SecretsManager {
    client: Client,
    /// With the role that this process has.
    is_ambient: bool,
}

impl SecretsManager {
    /// Each call takes at most `patience`, with its retries.
    pub async fn new(account: Account<'_>, patience: Duration) -> Self {
        let Account { region, endpoint_url, keys } = account;
        let is_ambient = keys.is_none();
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
        Self { client: Client::from_conf(builder.build()), is_ambient }
    }

    /// Those whose names begin with one of `prefixes`, if there are any; without those that are about to be deleted.
    pub async fn names(&self, prefixes: &[String], after: Option<&str>) -> Result<NamesPage, SecretsManagerError> {
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
            .map_err(|error| self.refusal(error))?;
        let named = |entry: SecretListEntry| Some(Named { arn: entry.arn?, name: entry.name? });
        let named = listed.secret_list.unwrap_or_default().into_iter().filter_map(named).collect();
        Ok(NamesPage { named, next: listed.next_token })
    }

    /// Their present values, some batches at a time. One that has gone since it was listed is left out.
    pub async fn values(&self, arns: &[String]) -> Result<Vec<Found>, SecretsManagerError> {
        let batches: Vec<_> = arns.chunks(BATCH).map(<[String]>::to_vec).collect();
        stream::iter(batches).map(|batch| self.batch(batch)).buffered(BATCHES_AT_ONCE).try_concat().await
    }

    async fn batch(&self, mut wanted: Vec<String>) -> Result<Vec<Found>, SecretsManagerError> {
        let mut found = Vec::new();
        // A batch whose values are too many bytes comes in parts.
        while !wanted.is_empty() {
            let answer = self
                .client
                .batch_get_secret_value()
                .set_secret_id_list(Some(wanted.clone()))
                .send()
                .await
                .map_err(|error| self.refusal(error))?;
            let before = wanted.len();
            for error in answer.errors() {
                let of = error.secret_id().unwrap_or_default();
                match error.error_code().unwrap_or_default() {
                    "ResourceNotFoundException" | "InvalidRequestException" => wanted.retain(|arn| arn != of),
                    "InternalServiceError" | "InternalServiceErrorException" => {
                        return Err(SecretsManagerError::Away("it fails with an error of its own".into()));
                    }
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

    fn refusal<E>(&self, error: SdkError<E, HttpResponse>) -> SecretsManagerError
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        judge(error, self.is_ambient)
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

/// Given keys are wrong only where AWS says so. The process's own role is renewed by others, so that whatever is wrong with
/// it passes.
fn judge<E>(error: SdkError<E, HttpResponse>, is_ambient: bool) -> SecretsManagerError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
    match by_code(error.code()) {
        Some(SecretsManagerError::BadCredentials) if is_ambient => SecretsManagerError::BadRole(bare(error)),
        Some(known) => known,
        None if has_source::<CredentialsError>(&error) => SecretsManagerError::BadRole(bare(error)),
        None if matches!(error, SdkError::ServiceError(_)) && (400..500).contains(&status) => {
            SecretsManagerError::Refused { status }
        }
        None => SecretsManagerError::Away(bare(error)),
    }
}

/// Without the answer, which may hold values.
fn bare<E>(error: SdkError<E, HttpResponse>) -> Box<dyn std::error::Error + Send + Sync>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(refused) => format!("it answers with status {}", refused.raw().status()).into(),
        SdkError::ResponseError(_) => "its answer cannot be read".into(),
        other => match other.into_source() {
            Ok(source) => source,
            Err(other) => other.to_string().into(),
        },
    }
}

fn has_source<S: std::error::Error + 'static>(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<S>() || error.source().is_some_and(has_source::<S>)
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
        "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "SlowDown"
        | "TooManyRequestsException" => Some(SecretsManagerError::Throttled),
        "RequestTimeout" | "RequestTimeoutException" | "RequestExpired" => {
            Some(SecretsManagerError::Away("it says that the request came too late".into()))
        }
        "InvalidNextTokenException" => Some(SecretsManagerError::Restart),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_secretsmanager::{
        error::{ConnectorError, ErrorMetadata},
        operation::list_secrets::ListSecretsError,
    };
    use aws_smithy_types::{body::SdkBody, retry::ErrorKind};

    use super::*;

    fn told(error: &SecretsManagerError) -> String {
        match error {
            SecretsManagerError::Refused { status } => format!("refused {status}"),
            SecretsManagerError::BadCredentials => "credentials".to_owned(),
            SecretsManagerError::BadRole(_) => "role".to_owned(),
            SecretsManagerError::Denied => "denied".to_owned(),
            SecretsManagerError::Throttled => "throttled".to_owned(),
            SecretsManagerError::Restart => "restart".to_owned(),
            SecretsManagerError::Away(_) => "away".to_owned(),
        }
    }

    #[test]
    fn what_passes_by_itself_is_not_taken_for_wrong_credentials() {
        let check = |connector: fn() -> ConnectorError, expect: &str| {
            for is_ambient in [false, true] {
                let error = SdkError::<ListSecretsError, HttpResponse>::dispatch_failure(connector());
                assert_eq!(told(&judge(error, is_ambient)), expect);
            }
        };
        // As the SDK has a connection that ends before the answer has come, and what it knows nothing of.
        check(|| ConnectorError::other("incomplete message".into(), Some(ErrorKind::TransientError)), "away");
        check(|| ConnectorError::other("unrecognised".into(), None), "away");
        check(|| ConnectorError::io("reset".into()), "away");
        check(|| ConnectorError::timeout("late".into()), "away");
        // The role's own, from wherever it comes.
        let late = || CredentialsError::provider_timed_out(Duration::from_secs(1));
        assert!(has_source::<CredentialsError>(&late()));
        check(|| ConnectorError::other(CredentialsError::provider_error("503").into(), None), "role");
        check(|| ConnectorError::other(CredentialsError::not_loaded_no_source().into(), None), "role");
        let error = SdkError::<ListSecretsError, HttpResponse>::timeout_error("late");
        assert_eq!(told(&judge(error, false)), "away");
        let error = SdkError::<ListSecretsError, HttpResponse>::construction_failure("no region");
        assert_eq!(told(&judge(error, false)), "away");
    }

    #[test]
    fn what_aws_says_is_taken_by_its_code_and_its_status() {
        let check = |status: u16, code: &str, of_keys: &str, of_role: &str| {
            for (is_ambient, expect) in [(false, of_keys), (true, of_role)] {
                let raw = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
                let meta = ErrorMetadata::builder().code(code).build();
                let error = SdkError::service_error(ListSecretsError::generic(meta), raw);
                assert_eq!(told(&judge(error, is_ambient)), expect, "{code}");
            }
        };
        check(400, "UnrecognizedClientException", "credentials", "role");
        check(400, "ExpiredTokenException", "credentials", "role");
        check(400, "AccessDeniedException", "denied", "denied");
        check(400, "ThrottlingException", "throttled", "throttled");
        check(400, "InvalidNextTokenException", "restart", "restart");
        check(400, "ValidationException", "refused 400", "refused 400");
        check(404, "UnknownOperationException", "refused 404", "refused 404");
        check(400, "RequestTimeoutException", "away", "away");
        check(500, "InternalServiceError", "away", "away");
        check(503, "ServiceUnavailable", "away", "away");
    }
}
