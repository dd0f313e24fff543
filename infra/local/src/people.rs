//! The first user.

use tidegate_admin::sign_in::{UserError, put_user};
use tidegate_aws::{error::StoreError, random, store::Store};
use tidegate_domain::{permission::Role, secret::Secret};

use crate::stack;

/// The first user's name.
pub const ADMIN: &str = "admin";

/// Where the password of `admin` came from.
#[derive(Debug)]
pub enum AdminPassword {
    /// From whoever started the process.
    Given,
    /// The user is as it was.
    Unchanged,
    /// Made now; to be shown once. A crash before that loses it; `TIDEGATE_ADMIN_PASSWORD` sets another.
    Generated(Secret<String>),
}

/// Why there is no first user.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    #[error("cannot read the user {ADMIN}")]
    Unreadable(#[source] StoreError),
    #[error("cannot store the user {ADMIN}")]
    NotStored(#[source] UserError),
}

/// Gives `admin` this password, or a new one if there is no such user.
pub(crate) async fn admin(store: &Store, given: Option<Secret<String>>) -> Result<AdminPassword, PeopleError> {
    if let Some(password) = given {
        put_user(store, ADMIN, &password, Role::Admin).await.map_err(PeopleError::NotStored)?;
        return Ok(AdminPassword::Given);
    }
    if store.user(&stack::tenant(), ADMIN).await.map_err(PeopleError::Unreadable)?.is_some() {
        return Ok(AdminPassword::Unchanged);
    }
    let password = random_password();
    put_user(store, ADMIN, &password, Role::Admin).await.map_err(PeopleError::NotStored)?;
    Ok(AdminPassword::Generated(password))
}

/// 24 letters and digits without those that look alike: 120 bits.
pub(crate) fn random_password() -> Secret<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let text = random::bytes::<24>().iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
    Secret::new(text)
}
