//! Clients of the AWS services, made once.

use std::time::Duration;

use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};

use crate::{call_log::CallLog, meter::Meter, permit::Permit};

/// DynamoDB, SQS and KMS as the SDK finds them: endpoint, region and credentials come from the environment.
#[derive(Debug, Clone)]
pub struct Clients {
    pub dynamodb: aws_sdk_dynamodb::Client,
    pub sqs: aws_sdk_sqs::Client,
    pub kms: aws_sdk_kms::Client,
}

impl Clients {
    pub async fn from_environment() -> Self {
        Self::new(&configuration(None).await, None)
    }

    /// In this region, if one is given. `log` is kept of every call.
    pub async fn for_worker(region: Option<String>, log: CallLog) -> Self {
        let config = configuration(region).await;
        Self {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(
                aws_sdk_dynamodb::config::Builder::from(&config).interceptor(log.clone()).build(),
            ),
            sqs: aws_sdk_sqs::Client::from_conf(
                aws_sdk_sqs::config::Builder::from(&config).interceptor(log.clone()).build(),
            ),
            kms: aws_sdk_kms::Client::from_conf(aws_sdk_kms::config::Builder::from(&config).interceptor(log).build()),
        }
    }

    /// `meter` counts every call.
    pub fn new(config: &SdkConfig, meter: Option<Meter>) -> Self {
        Self::with_permit(config, meter, None)
    }

    /// As [`Clients::new`]; `permit` judges every call.
    pub fn with_permit(config: &SdkConfig, meter: Option<Meter>, permit: Option<Permit>) -> Self {
        let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(config);
        let mut sqs = aws_sdk_sqs::config::Builder::from(config);
        let mut kms = aws_sdk_kms::config::Builder::from(config);
        if let Some(meter) = meter {
            dynamodb = dynamodb.interceptor(meter.clone());
            sqs = sqs.interceptor(meter.clone());
            kms = kms.interceptor(meter);
        }
        if let Some(permit) = permit {
            dynamodb = dynamodb.interceptor(permit.clone());
            sqs = sqs.interceptor(permit.clone());
            kms = kms.interceptor(permit);
        }
        Self {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            sqs: aws_sdk_sqs::Client::from_conf(sqs.build()),
            kms: aws_sdk_kms::Client::from_conf(kms.build()),
        }
    }
}

/// As the SDK finds it, in this region if one is given.
async fn configuration(region: Option<String>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(region) = region {
        loader = loader.region(aws_config::Region::new(region));
    }
    loader
        .retry_config(RetryConfig::standard().with_max_attempts(3))
        // A caller waits at most 29 seconds for a function: better three short tries than one long one.
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(Duration::from_secs(2))
                .operation_attempt_timeout(Duration::from_secs(4))
                .operation_timeout(Duration::from_secs(8))
                .build(),
        )
        .load()
        .await
}
