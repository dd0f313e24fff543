//! The local issuer: tokens for people where there is no Cognito, with the same claims, so that the same verifier runs.

use aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde::Serialize;
use serde_json::{Value, json};
use tidegate_aws::applications::sha256_hex;
use tidegate_domain::{id::TenantId, permission::Role};
use tidegate_web::auth;
use zeroize::Zeroizing;

/// How long a token is good for.
const LIFE: SignedDuration = SignedDuration::from_mins(15);

/// Signs with a key that is made at start and lives in memory only: a restart asks everybody to sign in again, and
/// nothing in the data folder can make tokens.
pub struct LocalIssuer {
    name: String,
    client_id: String,
    key: EncodingKey,
    key_id: String,
    key_set: Value,
    /// Verified in place of an unknown user's hash, so that the answer takes the same time.
    pub(crate) nobodys_hash: String,
}

/// The issuer's key could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the sign-in key cannot be made: {0}")]
pub struct KeyError(String);

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    username: &'a str,
    token_use: &'static str,
    client_id: &'a str,
    iat: i64,
    exp: i64,
    #[serde(rename = "cognito:groups")]
    groups: [&'static str; 1],
    #[serde(rename = "custom:tenant")]
    tenant: &'a str,
}

impl LocalIssuer {
    /// Takes some hundred milliseconds: RSA keys are found by trying.
    pub fn generate(issuer: &auth::Issuer) -> Result<Self, KeyError> {
        let failed = |what: &str| KeyError(what.to_owned());
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| failed("no key pair"))?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| failed("no serialised form"))?;
        // The signer wants the PKCS #1 form, which it finds in the PKCS #8 one when that comes as PEM.
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let pem = Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *body));
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|e| KeyError(e.to_string()))?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).map_err(|e| KeyError(e.to_string()))?;
        let public = serde_json::to_vec(&jwk).map_err(|e| KeyError(e.to_string()))?;
        let key_id = sha256_hex(&public)[..16].to_owned();
        jwk.common.key_id = Some(key_id.clone());
        let nobodys_hash = crate::sign_in::hash("of nobody").map_err(|e| KeyError(e.to_string()))?;
        Ok(Self {
            name: issuer.name.clone(),
            client_id: issuer.client_id.clone(),
            key,
            key_id,
            key_set: json!({ "keys": [jwk] }),
            nobodys_hash,
        })
    }

    /// What `GET /.well-known/jwks.json` answers.
    pub(crate) fn key_set(&self) -> &Value {
        &self.key_set
    }

    /// A token and the time until which it is good.
    pub(crate) fn token(&self, tenant: &TenantId, user: &str, role: Role, now: Timestamp) -> (String, Timestamp) {
        let expires_at = now + LIFE;
        let claims = Claims {
            iss: &self.name,
            sub: user,
            username: user,
            token_use: "access",
            client_id: &self.client_id,
            iat: now.as_second(),
            exp: expires_at.as_second(),
            groups: [role.name()],
            tenant: tenant.as_str(),
        };
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::RS256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.key)
            .expect("an RSA key that was read signs whatever it is given");
        (token, expires_at)
    }
}
