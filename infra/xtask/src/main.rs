//! What contributors run: `cargo xtask check` before a commit, `cargo xtask prove NAME` to see a claim of the README hold.

mod check;
mod command;
mod prove;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What contributors of Tidegate run")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, lints, rules of the house, templates, dependencies: all of them, then what failed
    Check,
    /// Shows that a claim holds; without a name, lists the claims
    Prove {
        /// A claim of the list, or `all`
        name: Option<String>,
    },
}

fn main() -> ExitCode {
    let holds = match Arguments::parse().task {
        Task::Check => check::run(),
        Task::Prove { name: None } => {
            prove::list();
            true
        }
        Task::Prove { name: Some(name) } => return prove::run(&name),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
