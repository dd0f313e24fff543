//! What contributors run: `cargo xtask check` before a commit, `cargo xtask prove NAME` to see a claim of the README hold.

mod check;
mod command;
mod prove;
mod worker;

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
    /// Builds the worker as one static binary
    WorkerBinary {
        /// Of another machine than this one
        #[arg(long)]
        target: Option<String>,
    },
    /// Builds an image of that binary and nothing else, and sees that it runs
    WorkerImage {
        #[arg(long, default_value = "tidegate-worker")]
        tag: String,
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
        Task::WorkerBinary { target } => worker::binary(target).is_some(),
        Task::WorkerImage { tag } => worker::image(&tag),
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
