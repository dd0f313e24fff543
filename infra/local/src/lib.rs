//! The whole system in one process on one machine: what surrounds the functions and the worker there.
//!
//! Each module stands in for one thing that a real installation has, behind the same interface, so that functions and
//! worker run unchanged:
//!
//! | module | stands in for |
//! | --- | --- |
//! | [`embedded`] | DynamoDB, SQS and KMS, behind the real SDK clients |
//! | [`provision`] | what `infra/template.yaml` and `infra/host.yaml` create |
//! | [`gateway`] | the API Gateway |
//! | [`events`] | the event source mapping of the reports queue |
//! | [`schedules`] | the schedule of the sweep: once a minute, and at once after the start |
//! | [`registry`], [`demo_image`] | somebody's private registry, and the images that a CI pushes there |
//!
//! [`import_v1`] stands in for nothing: it brings over what V1 had, to this machine's installation or to any other.
//!
//! [`stack`] puts them and the functions together, with the worker of the local Docker engine.
//!
//! No other crate depends on this one but the tests: nothing in a deployed binary knows of stand-ins.

pub mod demo;
pub mod demo_image;
pub mod embedded;
pub mod events;
pub mod gateway;
pub mod import_v1;
pub mod people;
pub mod provision;
pub mod registry;
pub mod schedules;
pub mod stack;

mod data_folder;
mod demo_client;
mod engine;
mod key_guard;
mod server;
mod worker;
