//! Signing in at the local issuer, and its users.

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tidegate_aws::{clock, error::StoreError, store::Store, users::StoredUser};
use tidegate_domain::{id::TenantId, permission::Role, secret::Secret};
use tidegate_web::{
    Problem,
    auth::DEFAULT_TENANT,
    body::JsonBody,
    form::{Form, line},
    request::RequestInfo,
    throttle,
};

use crate::AdminState;

/// Of bcrypt: some 50 ms each. How many guesses anybody has, the throttle says.
const COST: u32 = 10;
/// What bcrypt looks at; more would be ignored silently.
const MAX_PASSWORD_BYTES: usize = 71;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignedIn {
    token: String,
    expires_at: Timestamp,
}

pub(crate) async fn key_set(State(state): State<AdminState>) -> Result<Json<Value>, Problem> {
    let issuer = state.issuer.as_ref().ok_or_else(Problem::no_route)?;
    Ok(Json(issuer.key_set().clone()))
}

/// # Errors
/// The uniform 401, in the same time, whether the user or the password is wrong; 429 after too many of them.
pub(crate) async fn login(
    State(state): State<AdminState>,
    info: RequestInfo,
    body: JsonBody,
) -> Result<Json<SignedIn>, Problem> {
    let issuer = state.issuer.clone().ok_or_else(Problem::no_route)?;
    let mut form = Form::of_body(body.value)?;
    let username = form.required("username", None, line(1, 128));
    let password = form.required("password", None, Ok);
    let (username, password): (String, Secret<String>) = form.finish(|| Some((username?, password?)))?;
    let tenant = default_tenant();
    // Who is throttled is told so before the hash is computed, which costs more than everything else here.
    Box::pin(throttle::unthrottled(&state.store, info.source_ip)).await?;
    let user = state.store.user(&tenant, &username).await?;
    let hash = user.as_ref().map_or_else(|| issuer.nobodys_hash.clone(), |user| user.password_bcrypt.clone());
    // Away from the threads that serve others: it is all computation.
    let verified = tokio::task::spawn_blocking(move || {
        let fits = password.expose().len() <= MAX_PASSWORD_BYTES;
        bcrypt::verify(password.expose(), &hash).is_ok_and(|right| right) && fits
    });
    let right = verified.await.map_err(|_| Problem::internal())?;
    let Some(user) = user.filter(|_| right) else {
        return Err(Box::pin(throttle::wrong(&state.store, info.source_ip)).await);
    };
    let role = Role::of_group(&user.role).ok_or_else(Problem::unauthorized)?;
    let (token, expires_at) = issuer.token(&tenant, &user.name, role, clock::now());
    tracing::info!(user.name = user.name, "signed in");
    Ok(Json(SignedIn { token, expires_at }))
}

fn default_tenant() -> TenantId {
    TenantId::parse(DEFAULT_TENANT).expect("a lower-case word is a tenant")
}

/// Why a user could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("a password has 1 to {MAX_PASSWORD_BYTES} bytes")]
    PasswordLength,
    #[error("the password cannot be hashed")]
    Hash(#[from] bcrypt::BcryptError),
    #[error("the user cannot be stored")]
    Store(#[from] StoreError),
}

/// Creates a user of the local issuer, or gives an existing one this password and role.
pub async fn put_user(store: &Store, name: &str, password: &Secret<String>, role: Role) -> Result<(), UserError> {
    if !(1..=MAX_PASSWORD_BYTES).contains(&password.expose().len()) {
        return Err(UserError::PasswordLength);
    }
    let user =
        StoredUser { name: name.to_owned(), password_bcrypt: hash(password.expose())?, role: role.name().to_owned() };
    store.put_user(&default_tenant(), &user).await?;
    Ok(())
}

pub(crate) fn hash(password: &str) -> Result<String, bcrypt::BcryptError> {
    bcrypt::hash(password, COST)
}
