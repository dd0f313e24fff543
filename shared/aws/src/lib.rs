//! The only crate that names `aws_sdk_*`: the table, the queues, the key service.

pub mod applications;
pub mod assignments;
pub mod audit;
pub mod catalogue;
pub mod clients;
pub mod clock;
mod cursor;
pub mod deployments;
pub mod env;
pub mod envelope;
pub mod error;
mod fold;
pub mod host_side;
pub mod hosts;
pub mod idempotency;
pub mod keys;
pub mod material;
pub mod meter;
pub mod queues;
pub mod random;
pub mod registered;
pub mod store;
pub mod sweep;
pub mod table;
pub mod users;
pub mod variables;
mod write;
