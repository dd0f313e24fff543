//! Cold start of the sync function.

#![recursion_limit = "256"]

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::Value;
use tidegate_aws::{
    clients::Clients,
    clock, env,
    store::{Store, StoreConfig},
};
use tidegate_providers::Syncer;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let filter = std::env::var(env::LOG).ok().and_then(|text| text.parse().ok());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new("info")))
        .init();
    let store = Store::new(&Clients::from_environment().await, StoreConfig::from_environment()?);
    let syncer = &Syncer::new(store, clock::now);
    // Any event is the time to look: what the scheduler says of itself is not needed.
    lambda_runtime::run(service_fn(async move |_: LambdaEvent<Value>| {
        Ok::<_, Error>(Box::pin(tidegate_sync::pass(syncer)).await?)
    }))
    .await
}
