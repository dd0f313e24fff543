//! Tidegate from outside: one binary, a module per behaviour.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

mod administration;
mod crash;
mod deploying;
mod failing;
mod functions;
mod house;
mod refusals;
mod round_trips;
mod secrets;
mod support;
mod sweep;
mod template;
