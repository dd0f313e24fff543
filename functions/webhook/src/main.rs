//! Cold start of the webhook function.

use tidegate_aws::{
    clients::Clients,
    env,
    store::{Store, StoreConfig},
};
use tidegate_web::{layer, telemetry};
use tidegate_webhook::{WebhookState, routes};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let mut reader = env::Reader::default();
    let public_url = reader.required(env::PUBLIC_URL);
    // Both are reported if both are wrong.
    let config = match (StoreConfig::from_environment(), reader.finish()) {
        (Ok(config), Ok(())) => config,
        (Err(mut one), Err(other)) => {
            one.missing.extend(other.missing);
            return Err(one.into());
        }
        (Err(error), Ok(())) | (Ok(_), Err(error)) => return Err(error.into()),
    };
    let store = Store::new(&Clients::from_environment().await, config);
    lambda_http::run(layer::complete(routes(WebhookState::new(store, &public_url)))).await
}
