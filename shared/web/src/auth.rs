//! People's tokens: who they are, and proof of what they may do.
//!
//! Cognito's tokens and those of the local issuer are verified the same way: RS256 by a key of the issuer's key set, then
//! `iss`, `exp`, `token_use` with `client_id` (access) or `aud` (id), `cognito:groups`, `custom:tenant`.

use std::{marker::PhantomData, sync::Arc};

use axum::{
    extract::{FromRef, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::Deserialize;
use tidegate_aws::{clock, store::Store};
use tidegate_domain::{
    id::TenantId,
    permission::{Permission, Role, permits},
};

use crate::{
    jwks::KeySet,
    problem::Problem,
    request::RequestInfo,
    throttle::{Looked, guarded},
};

/// Of whom a token's claims do not say another: an installation's only tenant.
pub const DEFAULT_TENANT: &str = "default";

/// Whose tokens are believed.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The `iss` claim, exactly.
    pub name: String,
    /// Where its public keys are.
    pub jwks_url: String,
    /// Our client there: `client_id` of access tokens, `aud` of id tokens.
    pub client_id: String,
}

/// A person, as the token says. A person without a role has signed in and may do nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub user: String,
    pub tenant: TenantId,
    pub role: Option<Role>,
}

/// Verifies tokens; one a process, shared.
#[derive(Clone)]
pub struct Verifier(Arc<Inner>);

struct Inner {
    issuer: Issuer,
    validation: Validation,
    keys: KeySet,
}

#[derive(Deserialize)]
struct Claims {
    exp: i64,
    token_use: String,
    client_id: Option<String>,
    aud: Option<String>,
    sub: String,
    username: Option<String>,
    #[serde(rename = "cognito:username")]
    cognito_username: Option<String>,
    #[serde(rename = "cognito:groups", default)]
    groups: Vec<String>,
    #[serde(rename = "custom:tenant")]
    tenant: Option<String>,
}

impl Verifier {
    /// Nothing is fetched before the first token comes.
    pub fn new(issuer: Issuer) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[&issuer.name]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        // By ourselves: `exp` with our clock and without leeway, `aud` only where `token_use` says that there is one.
        validation.validate_exp = false;
        validation.validate_aud = false;
        let keys = KeySet::new(issuer.jwks_url.clone());
        Self(Arc::new(Inner { issuer, validation, keys }))
    }

    /// # Errors
    /// 503 if the issuer's keys are needed and cannot be had.
    pub async fn verify(&self, headers: &HeaderMap) -> Result<Looked<Principal>, Problem> {
        let Some(token) = bearer(headers) else { return Ok(Looked::NotNow) };
        let Ok(Header { alg: Algorithm::RS256, kid: Some(kid), .. }) = jsonwebtoken::decode_header(token) else {
            return Ok(Looked::Wrong);
        };
        // Perhaps signed before the issuer changed its keys; a signature cannot be guessed.
        let Some(key) = self.0.keys.find(&kid).await? else { return Ok(Looked::NotNow) };
        let Ok(decoded) = jsonwebtoken::decode::<Claims>(token, &key, &self.0.validation) else {
            return Ok(Looked::Wrong);
        };
        // Signed by the issuer: whatever else is wrong with it, nobody has guessed it.
        Ok(self.judge(decoded.claims).map_or(Looked::NotNow, Looked::Right))
    }

    fn judge(&self, claims: Claims) -> Option<Principal> {
        let client = match claims.token_use.as_str() {
            "access" => claims.client_id,
            "id" => claims.aud,
            _ => None,
        };
        if client? != self.0.issuer.client_id || claims.exp <= clock::now().as_second() {
            return None;
        }
        Some(Principal {
            user: claims.username.or(claims.cognito_username).unwrap_or(claims.sub),
            tenant: TenantId::parse(claims.tenant.as_deref().unwrap_or(DEFAULT_TENANT)).ok()?,
            role: claims.groups.iter().filter_map(|group| Role::of_group(group)).max(),
        })
    }
}

/// The credential of `Authorization: Bearer …` (RFC 6750, section 2.1), if there is exactly one such header.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = values.next()?.to_str().ok()?.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    (values.next().is_none() && scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A permission as a type, for [`Authorized`].
pub trait Needs: Send + Sync {
    const PERMISSION: Permission;
}

macro_rules! needs {
    ($($name:ident),+) => {$(
        #[doc = concat!("[`Permission::", stringify!($name), "`]")]
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl Needs for $name {
            const PERMISSION: Permission = Permission::$name;
        }
    )+};
}

needs!(Read, Deploy, Write, Reveal, Administer);

/// Proof that a person has signed in and may do `P`. Only the verification of a request makes one.
#[derive(Debug, Clone)]
pub struct Authorized<P> {
    principal: Principal,
    permission: PhantomData<P>,
}

impl<P> Authorized<P> {
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub fn tenant(&self) -> &TenantId {
        &self.principal.tenant
    }

    pub fn user(&self) -> &str {
        &self.principal.user
    }
}

impl<S, P> FromRequestParts<S> for Authorized<P>
where
    S: Send + Sync,
    P: Needs,
    Verifier: FromRef<S>,
    Store: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(RequestInfo { source_ip, .. }) = RequestInfo::from_request_parts(parts, state).await;
        let verifier = Verifier::from_ref(state);
        let principal = guarded(&Store::from_ref(state), source_ip, verifier.verify(&parts.headers)).await?;
        match principal.role {
            Some(role) if permits(role, P::PERMISSION) => Ok(Self { principal, permission: PhantomData }),
            Some(_) | None => Err(Problem::forbidden()),
        }
    }
}
