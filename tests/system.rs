//! Tidegate from outside: one binary, a module per behaviour.

mod deploying;
mod failing;
mod house;
mod support;
mod template;
