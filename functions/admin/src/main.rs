//! Cold start of the administration function.

use tidegate_admin::{AdminState, router};
use tidegate_aws::{
    clients::Clients,
    env,
    store::{Store, StoreConfig},
};
use tidegate_web::{
    auth::{Issuer, Verifier},
    layer, telemetry,
};

#[tokio::main]
async fn main() -> Result<(), lambda_http::Error> {
    telemetry::init();
    let store = StoreConfig::from_environment();
    let issuer = issuer_from_environment();
    let (store, issuer) = match (store, issuer) {
        (Ok(store), Ok(issuer)) => (store, issuer),
        (store, issuer) => {
            let faults = [store.err(), issuer.err()].into_iter().flatten();
            return Err(env::EnvError { missing: faults.flat_map(|fault| fault.missing).collect() }.into());
        }
    };
    let store = Store::new(&Clients::from_environment().await, store);
    lambda_http::run(layer::complete(router(AdminState::new(store, Verifier::new(issuer), None)))).await
}

fn issuer_from_environment() -> Result<Issuer, env::EnvError> {
    let mut reader = env::Reader::default();
    let issuer = Issuer {
        name: reader.required(env::ISSUER),
        jwks_url: reader.required(env::JWKS_URL),
        client_id: reader.required(env::CLIENT_ID),
    };
    reader.finish().map(|()| issuer)
}
