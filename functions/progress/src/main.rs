//! Cold start of the progress function.

#![recursion_limit = "256"]

use aws_lambda_events::event::sqs::SqsEvent;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use tidegate_aws::{
    clients::Clients,
    env,
    store::{Store, StoreConfig},
};
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
    let store = &store;
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<SqsEvent>| {
        Ok::<_, Error>(Box::pin(tidegate_progress::handle(store, event.payload)).await)
    }))
    .await
}
