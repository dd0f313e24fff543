//! Cold start of the validation function.

#![recursion_limit = "256"]

use aws_lambda_events::event::sqs::SqsEvent;
use lambda_runtime::{Error, LambdaEvent, service_fn};
use tidegate_aws::{
    clients::Clients,
    env,
    store::{Store, StoreConfig},
};
use tidegate_validation::Validation;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let filter = std::env::var(env::LOG).ok().and_then(|text| text.parse().ok());
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new("info")))
        .init();
    let mut reader = env::Reader::default();
    let public_url = reader.required(env::PUBLIC_URL);
    // All are reported if several are missing.
    let config = match (StoreConfig::from_environment(), reader.finish()) {
        (Ok(config), Ok(())) => config,
        (Err(mut one), Err(other)) => {
            one.missing.extend(other.missing);
            return Err(one.into());
        }
        (Err(error), Ok(())) | (Ok(_), Err(error)) => return Err(error.into()),
    };
    let store = Store::new(&Clients::from_environment().await, config);
    let validation = &Validation::new(store, &public_url);
    lambda_runtime::run(service_fn(async move |event: LambdaEvent<SqsEvent>| {
        Ok::<_, Error>(tidegate_validation::handle(validation, event.payload).await)
    }))
    .await
}
