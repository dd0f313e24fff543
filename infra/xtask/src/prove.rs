//! `cargo xtask prove`: every claim of the README as a command. It exits 0 only if the claim holds, and prints its figures
//! last: the lines that a test or benchmark began with `figure: `.

use std::{net::TcpListener, process::ExitCode};

use crate::command::{cargo, exit_code, exit_code_and_lines};

struct Claim {
    name: &'static str,
    /// One sentence, as in the README.
    says: &'static str,
    proof: Proof,
}

enum Proof {
    Demo,
    /// The tests of the binary `system` whose names begin with one of these.
    Tests(&'static [&'static str]),
    /// As [`Proof::Tests`], with the unit tests of a package.
    WithUnits(&'static str, &'static [&'static str]),
    /// Tests that are run more often than usually: variable, how often, and the beginnings of their names. The variables are
    /// `TIDEGATE_CHAOS_DEPLOYMENTS`, `TIDEGATE_APPROVAL_ROUNDS`, `TIDEGATE_FUZZ_CASES` and `TIDEGATE_SYNC_SECRETS`.
    Scaled(&'static str, &'static str, &'static [&'static str]),
    Benchmark(&'static str),
    /// As [`Proof::Scaled`], and then as [`Proof::Benchmark`].
    ScaledThenBenchmark(&'static str, &'static str, &'static [&'static str], &'static str),
    /// A test, with the worker's release binary, in `TIDEGATE_FOOTPRINT_WORKER`, in place of the one that tests are built with.
    Footprint,
}

const CLAIMS: &[Claim] = &[
    Claim {
        name: "demo",
        says: "One command deploys v1, then v2, refuses a broken v3, and v2 still answers.",
        proof: Proof::Demo,
    },
    Claim {
        name: "crash",
        says: "Killed with `kill -9` in the middle of a deployment and started again, the worker finishes or restores it, and the application answers.",
        proof: Proof::Tests(&["crash::"]),
    },
    Claim {
        name: "kill-matrix",
        says: "Killed with `kill -9` before, amid or after any change of Docker, its claim, its proof, its end or its reports, in any of its orders, the worker leaves the old or the new version running, or what else was ordered, within 10 s of its restart, and the record says which.",
        proof: Proof::Tests(&["kill_matrix::"]),
    },
    Claim {
        name: "chaos",
        says: "Of 200 deployments over 4 workers that are killed at random, with AWS failing and messages lost and doubled, none is lost, none done twice, none out of order.",
        proof: Proof::Scaled("TIDEGATE_CHAOS_DEPLOYMENTS", "200", &["chaos::"]),
    },
    Claim {
        name: "host-isolation",
        says: "With the credentials of one host nobody can read, open or take over what was sealed for another.",
        proof: Proof::Tests(&["isolation::", "template::a_worker_"]),
    },
    Claim {
        name: "worker-footprint",
        says: "The worker as it is handed on takes at most 10 MB of memory when idle, and begins an order at once.",
        proof: Proof::Footprint,
    },
    Claim {
        name: "secrets",
        says: "A secret reaches the container decrypted and stands nowhere else in plaintext: not in table, queue, log or answer, in no encoding.",
        proof: Proof::Tests(&["secrets::"]),
    },
    Claim {
        name: "encryption",
        says: "A stored value with any bit changed, in any other's place or in any wrong context does not open; and a rotation that is killed at random ends with all values under one data key.",
        proof: Proof::WithUnits("tidegate-aws", &["envelope::", "encryption::"]),
    },
    Claim {
        name: "corpora",
        says: "Names, URLs and keys are judged as the test vectors of Unicode, the Web Platform Tests, the Public Suffix List and the crates for keys ask, or more strictly for a stated reason.",
        proof: Proof::Tests(&["corpora::"]),
    },
    Claim {
        name: "limits",
        says: "Of 50 callers at once exactly as many are accepted as the limits allow, in every window of 60 minutes: never one too many, and nothing is refused that has a place.",
        proof: Proof::Tests(&["limits::"]),
    },
    Claim {
        name: "approval-race",
        says: "In 1,000 races of an approval, a refusal and the clock exactly one wins, and every counter says the same.",
        proof: Proof::Scaled("TIDEGATE_APPROVAL_ROUNDS", "1000", &["approvals::"]),
    },
    Claim {
        name: "fuzz",
        says: "Whatever bytes, tokens, versions, values, issues and comments are sent, no answer is a fault of ours; and what judges them takes time in proportion to their length.",
        proof: Proof::ScaledThenBenchmark("TIDEGATE_FUZZ_CASES", "2000", &["fuzz::"], "linear_time"),
    },
    Claim {
        name: "leaks",
        says: "Of a request that was refused or waits no value stands in a log, an item, a comment or an answer.",
        proof: Proof::Tests(&["leaks::", "issues::an_issue_is_deployed", "issues::every_fault_of_an_issue"]),
    },
    Claim {
        name: "seed-examples",
        says: "Every request of the seeds on environments and on secrets is taken as it is written there, and answered with at least its fields, names, types and values.",
        proof: Proof::Tests(&["environments::seed::", "workflows::"]),
    },
    Claim {
        name: "activation",
        says: "Of 50 concurrent activations over several environments no reader ever sees none or two active, nor while environments come and go.",
        proof: Proof::Tests(&["environments::activation::"]),
    },
    Claim {
        name: "sync-crash",
        says: "A sync of 1,000 secrets that is killed at random points and run again comes to the same end, with none twice and none lost; what is unchanged is not written.",
        proof: Proof::Scaled("TIDEGATE_SYNC_SECRETS", "1000", &["providers::crash::"]),
    },
    Claim {
        name: "round-trips",
        says: "An accepted deployment costs the webhook at most 5 sequential AWS calls, and no KMS call once data keys are cached.",
        proof: Proof::Tests(&["round_trips::"]),
    },
    Claim {
        name: "scale-variables",
        says: "With 10,000 variables, 500 in each of 20 projects, and 5,000 secrets in a tenant, pages, previews and deployments cost the same AWS calls as with ten; a deployment costs at most one KMS call a data key, and none once they are cached.",
        proof: Proof::Tests(&["scale::", "round_trips::"]),
    },
    Claim {
        name: "validation-speed",
        says: "Validating a request through the whole gate takes a stated part of what Debian's webhook takes to check an HMAC and run /bin/true.",
        proof: Proof::Benchmark("validation_speed"),
    },
    Claim {
        name: "versus-script",
        says: "A deployment is faster than a webhook that runs a shell script, with clearly less time without an answer.",
        proof: Proof::Benchmark("versus_script"),
    },
];

const FIGURE: &str = "figure: ";

/// Prints every claim.
pub(crate) fn list() {
    for claim in CLAIMS {
        println!("{:<14} {}", claim.name, claim.says);
    }
    println!("\ncargo xtask prove NAME runs one, cargo xtask prove all runs all. All but corpora need Docker.");
}

/// Runs a claim, or all of them. The exit code is the claim's own; for all of them 1 if any does not hold.
pub(crate) fn run(name: &str) -> ExitCode {
    if name == "all" {
        return all();
    }
    let Some(claim) = CLAIMS.iter().find(|claim| claim.name == name) else {
        eprintln!("There is no claim `{name}`. These are:\n");
        list();
        return ExitCode::from(2);
    };
    ExitCode::from(prove(claim))
}

fn all() -> ExitCode {
    let results: Vec<_> = CLAIMS.iter().map(|claim| (claim, prove(claim))).collect();
    println!();
    for (claim, code) in &results {
        println!("{:<14} {}", claim.name, if *code == 0 { "holds" } else { "DOES NOT HOLD" });
    }
    if results.iter().all(|(_, code)| *code == 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn prove(claim: &Claim) -> u8 {
    println!("== {}: {}", claim.name, claim.says);
    let (code, figures) = match claim.proof {
        Proof::Demo => (demo(), Vec::new()),
        Proof::Tests(filters) => tests(filters, &[]),
        Proof::WithUnits(package, filters) => {
            // Both at once, so that both are built with the same features.
            run_tests(
                &["test", "--package", package, "--package", "tidegate-tests", "--lib", "--test", "system"],
                filters,
                &[],
            )
        }
        Proof::Scaled(variable, times, filters) => tests(filters, &[(variable, times)]),
        Proof::Footprint => match crate::worker::binary(None) {
            Some(binary) => {
                let binary = binary.to_string_lossy().into_owned();
                tests(&["footprint::"], &[("TIDEGATE_FOOTPRINT_WORKER", &binary)])
            }
            None => (1, Vec::new()),
        },
        Proof::ScaledThenBenchmark(variable, times, filters, name) => {
            let (code, mut figures) = tests(filters, &[(variable, times)]);
            let (of_benchmark, more) = benchmark(name);
            figures.extend(more);
            (code.max(of_benchmark), figures)
        }
        Proof::Benchmark(name) => benchmark(name),
    };
    println!("== {} {}", claim.name, if code == 0 { "holds" } else { "DOES NOT HOLD" });
    for figure in figures {
        println!("   {figure}");
    }
    code
}

/// In an empty folder and on a port of its own, so that it neither finds nor disturbs an installation.
fn demo() -> u8 {
    let folder = match tempfile::Builder::new().prefix("tidegate-demo-").tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("there is no place for the demo's data: {error}");
            return 1;
        }
    };
    let address = match TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()) {
        Ok(address) => address,
        Err(error) => {
            eprintln!("there is no free port on 127.0.0.1: {error}");
            return 1;
        }
    };
    let mut demo = cargo(&["run", "--quiet", "--package", "tidegate-local", "--bin", "tidegate", "--", "demo"]);
    exit_code(demo.env("TIDEGATE_DATA", folder.path()).env("TIDEGATE_LISTEN", address.to_string()))
}

/// As the tests are built: a release build takes many minutes, and what is compared waits for Docker, or is both ours.
fn benchmark(name: &str) -> (u8, Vec<String>) {
    let arguments = ["bench", "--quiet", "--profile", "dev", "--package", "tidegate-tests", "--bench", name];
    let (code, lines) = exit_code_and_lines(&mut cargo(&arguments));
    (code, figures(&lines))
}

fn tests(filters: &[&str], environment: &[(&str, &str)]) -> (u8, Vec<String>) {
    run_tests(&["test", "--package", "tidegate-tests", "--test", "system"], filters, environment)
}

fn run_tests(command: &[&str], filters: &[&str], environment: &[(&str, &str)]) -> (u8, Vec<String>) {
    let mut tests = cargo(command);
    let (code, lines) =
        exit_code_and_lines(tests.args(["--", "--nocapture"]).args(filters).envs(environment.iter().copied()));
    // A filter that matches nothing passes, and proves nothing.
    let is_idle = |filter: &&&str| !lines.iter().any(|line| line.starts_with(&format!("test {filter}")));
    if let Some(idle) = filters.iter().find(is_idle).filter(|_| code == 0) {
        eprintln!("no test was run whose name begins with {idle}");
        return (1, Vec::new());
    }
    (code, figures(&lines))
}

fn figures(lines: &[String]) -> Vec<String> {
    // A test's own output may follow `test name ... ` on one line.
    lines.iter().filter_map(|line| line.split_once(FIGURE)).map(|(_, figure)| figure.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn figures_are_found_wherever_a_line_has_them() {
        let output = "test round_trips::few ... figure: 4 calls\nfigure: 0 KMS calls\nother";
        assert_eq!(figures(&lines(output)), ["4 calls", "0 KMS calls"]);
    }

    #[test]
    fn every_claim_has_a_name_of_its_own() {
        for (index, claim) in CLAIMS.iter().enumerate() {
            assert!(CLAIMS[..index].iter().all(|other| other.name != claim.name), "{}", claim.name);
            assert_ne!(claim.name, "all");
        }
    }
}
