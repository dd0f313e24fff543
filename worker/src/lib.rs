//! The process on each Docker host: takes work orders, and makes what they say run.

pub mod config;
pub mod docker;
pub mod health;
pub mod job;
pub mod perform;
pub mod plan;
pub mod policy;
mod ports;
pub mod redact;
#[cfg(test)]
mod samples;
pub mod settle;
pub mod standing;
mod trace;
pub mod work;
