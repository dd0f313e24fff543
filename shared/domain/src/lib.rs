//! Decisions of Tidegate: no async, no IO, no clock, no SDK. Time and randomness come in as arguments.

pub mod application;
pub mod approval;
pub mod assignment;
pub mod code;
pub mod container;
pub mod deployment;
pub mod host;
pub mod id;
pub mod image;
pub mod import_v1;
pub mod invalid;
pub mod issue;
pub mod job;
pub mod limit;
pub mod parameter;
pub mod pattern;
pub mod permission;
pub mod refusal;
pub mod secret;
pub mod settings;
pub mod task;
pub mod token;
pub mod variable;
