//! The way over from V1 (seed "V1 vs V2"): what its tables hold, what an installation has already, and what is to be done
//! about the difference.
//!
//! [`Decisions`] and [`Dump`] are read from JSON, each with all its faults at once. [`plan`] then says which things are to
//! be created and what only a person can decide; it never changes or deletes what is there. Nothing here prints a value.

mod credential;
mod decisions;
mod doubled;
mod dump;
mod existing;
mod plan;
mod row;
mod sealed;
mod written;

pub use decisions::Decisions;
pub use dump::{Dump, LeftOut};
pub use existing::{
    Existing, ExistingApplication, ExistingHost, ExistingProject, ExistingRegistry, ExistingSecret, ExistingVariable,
};
pub use plan::{Closed, Outside, Plan, PlannedAuth, PlannedScope, PlannedValue, Step, plan};
pub use sealed::{Sealed, old_key};
pub use written::{Document, read_json};

#[cfg(test)]
mod tests;
