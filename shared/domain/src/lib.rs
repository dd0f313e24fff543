//! Decisions of Tidegate: no async, no IO, no clock, no SDK. Time and randomness come in as arguments.

pub mod application;
pub mod assignment;
pub mod container;
pub mod deployment;
pub mod host;
pub mod id;
pub mod image;
pub mod invalid;
pub mod job;
pub mod parameter;
pub mod permission;
pub mod secret;
pub mod task;
pub mod token;
pub mod variable;
