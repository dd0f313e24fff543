//! Tidegate from outside: one binary, a module per behaviour.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as expected")]

mod administration;
mod approvals;
mod cancelling;
mod chaos;
mod corpora;
mod crash;
mod deploying;
mod digests;
mod encryption;
mod environments;
mod failing;
mod footprint;
mod functions;
mod fuzz;
mod hosts;
mod house;
mod import_v1;
mod isolation;
mod issues;
mod kill_matrix;
mod leaks;
mod limits;
mod operations;
mod options;
mod orders;
mod outages;
mod preview;
mod process;
mod providers;
mod redeploying;
mod refusals;
mod releases;
mod rollouts;
mod round_trips;
mod scale;
mod secret_values;
mod secrets;
mod settings;
mod support;
mod sweep;
mod tasks;
mod template;
mod variable_files;
