//! `cargo xtask check`: everything that needs no Docker, one after the other, and at the end all that failed.

use std::process::Command;

use crate::command::{cargo, command, exists, exit_code, shown};

/// A tool that a contributor may not have.
struct Tool {
    program: &'static str,
    version: &'static [&'static str],
    install: &'static str,
}

const SAM: Tool = Tool { program: "sam", version: &["--version"], install: "pip install aws-sam-cli" };
const CFN_LINT: Tool = Tool { program: "cfn-lint", version: &["--version"], install: "pip install cfn-lint" };
const DENY: Tool =
    Tool { program: "cargo-deny", version: &["--version"], install: "cargo install --locked cargo-deny" };

struct Check {
    command: Command,
    needs: Option<Tool>,
}

impl Check {
    fn new(command: Command) -> Self {
        Self { command, needs: None }
    }

    fn with(command: Command, tool: Tool) -> Self {
        Self { command, needs: Some(tool) }
    }
}

fn checks() -> Vec<Check> {
    let mut sam = command("sam", ["validate", "--lint"]);
    // It would tell its maker of every call.
    sam.env("SAM_CLI_TELEMETRY", "0");
    vec![
        Check::new(cargo(&["fmt", "--all", "--check"])),
        Check::new(cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        Check::new(cargo(&[
            "test",
            "--quiet",
            "--package",
            "tidegate-tests",
            "--test",
            "system",
            "--",
            "house::",
            "template::",
        ])),
        Check::with(sam, SAM),
        Check::with(command("cfn-lint", ["infra/template.yaml", "infra/host.yaml"]), CFN_LINT),
        // Advisories change without a change of ours, so they are no part of this.
        Check::with(cargo(&["deny", "--log-level", "error", "check", "bans", "licenses", "sources"]), DENY),
    ]
}

/// Runs all checks, tells what failed and what could not be run. Whether none failed.
pub(crate) fn run() -> bool {
    let mut failed = Vec::new();
    let mut skipped = Vec::new();
    for Check { mut command, needs } in checks() {
        let name = shown(&command);
        if let Some(tool) = needs.filter(|tool| !exists(tool.program, tool.version)) {
            skipped.push(format!("{name}   ({})", tool.install));
            continue;
        }
        println!("== {name}");
        if exit_code(&mut command) != 0 {
            failed.push(name);
        }
    }
    tell("Not run, because the tool is not installed:", &skipped);
    tell("Failed:", &failed);
    if failed.is_empty() {
        println!("\nAll checks that were run have passed.");
    }
    failed.is_empty()
}

fn tell(title: &str, names: &[String]) {
    if !names.is_empty() {
        println!("\n{title}\n  {}", names.join("\n  "));
    }
}
