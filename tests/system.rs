//! Tidegate from outside: one binary, a module per behaviour.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

mod administration;
mod cancelling;
mod chaos;
mod crash;
mod deploying;
mod failing;
mod footprint;
mod functions;
mod hosts;
mod house;
mod isolation;
mod kill_matrix;
mod operations;
mod options;
mod orders;
mod outages;
mod process;
mod refusals;
mod releases;
mod rollouts;
mod round_trips;
mod secrets;
mod support;
mod sweep;
mod tasks;
mod template;
