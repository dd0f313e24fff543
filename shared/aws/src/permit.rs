//! Says of each AWS call, before it is sent, whether it may be: what IAM does on AWS, for stand-ins that do not.

use std::{fmt, sync::Arc};

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::BeforeTransmitInterceptorContextRef},
        orchestrator::Metadata,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;

/// A call that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `DynamoDB`, `SQS`, `KMS`.
    pub service: &'a str,
    /// `TransactWriteItems`
    pub operation: &'a str,
    /// JSON, in all three.
    pub body: &'a [u8],
}

type Judge = dyn Fn(&Asked<'_>) -> Result<(), String> + Send + Sync;

/// Judges the calls of the clients that it was given to. A call that it refuses, with its reason, fails unsent.
#[derive(Clone)]
pub struct Permit(Arc<Judge>);

impl Permit {
    pub fn new(judge: impl Fn(&Asked<'_>) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(judge))
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Permit {
    fn name(&self) -> &'static str {
        "Permit"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let called = config.load::<Metadata>();
        let (service, operation) = called.map_or(("", ""), |called| (called.service(), called.name()));
        let body = context.request().body().bytes().unwrap_or_default();
        (self.0)(&Asked { service, operation, body }).map_err(BoxError::from)
    }
}
