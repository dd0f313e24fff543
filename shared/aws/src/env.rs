//! Every environment variable that the functions and the worker read, beside the AWS SDK's own.

use std::fmt;

/// Name of the table. Functions and worker.
pub const TABLE: &str = "TIDEGATE_TABLE";
/// Id, ARN or alias of the KMS key. Functions: what they encrypt with. The worker needs none: a ciphertext names its key.
pub const KEY: &str = "TIDEGATE_KEY";
/// A host's queue URL is this, the tenant, `_`, and the host's name: neither can hold a `_`. Functions.
pub const HOST_QUEUE_PREFIX: &str = "TIDEGATE_HOST_QUEUE_PREFIX";
/// URL of the intake queue. Functions that take in what is handled later, or that end deployments.
pub const INTAKE_QUEUE_URL: &str = "TIDEGATE_INTAKE_QUEUE_URL";
/// Whose tokens people bring: the `iss` claim. Functions with people.
pub const ISSUER: &str = "TIDEGATE_ISSUER";
/// Where the issuer's public keys are. Functions with people.
pub const JWKS_URL: &str = "TIDEGATE_JWKS_URL";
/// The audience: the issuer's client for Tidegate. Functions with people.
pub const CLIENT_ID: &str = "TIDEGATE_CLIENT_ID";
/// What callers reach the API under, for links in answers: `https://deploy.example.com`. Functions.
pub const PUBLIC_URL: &str = "TIDEGATE_PUBLIC_URL";
/// Path of the configuration file, which then must be there. Default `/etc/tidegate/worker.toml`, which may be absent. Worker.
pub const WORKER_CONFIG: &str = "TIDEGATE_WORKER_CONFIG";
/// What a variable begins with that takes the place of a key of that file: this, and the key in capitals. Lists are
/// separated by commas; an empty text is none. Worker:
///
/// - `TIDEGATE_WORKER_TENANT`, `TIDEGATE_WORKER_HOST`, `TIDEGATE_WORKER_TABLE`, `TIDEGATE_WORKER_QUEUE_URL`,
///   `TIDEGATE_WORKER_REPORTS_QUEUE_URL`: required, here or in the file
/// - `TIDEGATE_WORKER_REGION`, `TIDEGATE_WORKER_DOCKER_HOST`, `TIDEGATE_WORKER_DATA`, `TIDEGATE_WORKER_METRICS_LISTEN`,
///   `TIDEGATE_WORKER_MAX_CONCURRENT_JOBS`, `TIDEGATE_WORKER_SHUTDOWN_SECONDS`: the process
/// - `TIDEGATE_WORKER_MIN_FREE_DISK_BYTES`, `TIDEGATE_WORKER_KEEP_IMAGES`, `TIDEGATE_WORKER_STABLE_SECONDS`,
///   `TIDEGATE_WORKER_CONTAINER_PREFIX`: how it deploys
/// - `TIDEGATE_WORKER_ALLOWED_BIND_MOUNTS`, `TIDEGATE_WORKER_ALLOW_PRIVILEGED`, `TIDEGATE_WORKER_ALLOW_HOST_NETWORK`,
///   `TIDEGATE_WORKER_ALLOW_DOCKER_SOCKET`, `TIDEGATE_WORKER_ALLOWED_CAPABILITIES`,
///   `TIDEGATE_WORKER_ALLOWED_LOG_DRIVERS`: what containers may have
pub const WORKER: &str = "TIDEGATE_WORKER_";
/// An API key, or a person's token. Commands that call an installation: `tidegate import-v1`.
pub const TOKEN: &str = "TIDEGATE_TOKEN";
/// `tracing` filter, for example `info,tidegate=debug`. Default `info`. All. Whatever it says, the worker and the local
/// stack keep `bollard`, `hyper`, `h2`, `rustls` and `aws_*` at `info`: below that they would log what requests hold.
pub const LOG: &str = "TIDEGATE_LOG";

/// All that is missing or wrong in the environment, told at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct EnvError {
    pub missing: Vec<&'static str>,
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "set these environment variables: {}", self.missing.join(", "))
    }
}

/// Reads several variables and remembers what is missing.
#[derive(Debug, Default)]
pub struct Reader {
    missing: Vec<&'static str>,
}

impl Reader {
    /// The value, or an empty text if it is missing, which [`Reader::finish`] then tells.
    pub fn required(&mut self, name: &'static str) -> String {
        match std::env::var(name) {
            Ok(value) if !value.is_empty() => value,
            _ => {
                self.missing.push(name);
                String::new()
            }
        }
    }

    pub fn finish(self) -> Result<(), EnvError> {
        if self.missing.is_empty() { Ok(()) } else { Err(EnvError { missing: self.missing }) }
    }
}
