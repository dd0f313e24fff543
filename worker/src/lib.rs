//! The process on each Docker host: takes work orders, and makes what they say run.

mod alone;
pub mod check;
pub mod config;
mod deadline;
pub mod docker;
pub mod health;
mod heartbeat;
pub mod install;
pub mod job;
mod log_lines;
pub mod logs;
mod metrics;
pub mod perform;
pub mod plan;
pub mod policy;
mod ports;
pub mod redact;
#[cfg(test)]
mod samples;
pub mod settle;
pub mod standing;
pub mod status_page;
pub mod systemd;
mod task;
mod trace;
pub mod vitals;
pub mod work;
