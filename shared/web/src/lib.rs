//! What all HTTP functions share.
//!
//! A function's router is made of routes, merged, and then [`layer::complete`]d, once and last. A handler's arguments come
//! in this order: [`auth::Authorized`] or another credential, then what the request's head says
//! ([`request::RequestInfo`], [`conditional::Conditions`], [`idempotency::IdempotencyKey`]), and the body last, so that
//! nobody without a credential learns what is wrong with a body.

pub mod auth;
pub mod body;
pub mod conditional;
pub mod deployment_view;
pub mod deployment_wait;
pub mod form;
pub mod idempotency;
mod jwks;
pub mod layer;
pub mod measures;
pub mod page;
pub mod problem;
pub mod request;
pub mod telemetry;
pub mod throttle;

pub use problem::Problem;
