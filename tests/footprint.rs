//! What a worker that has nothing to do costs its host, and how soon it begins what it is given.

use std::{fs, path::Path, process::Stdio};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::{Installation, Setup, binaries::Process, eventually, own_worker::OwnWorker};

/// Path of the worker to be measured, as it is handed on; usually the one that the tests are built with.
const WORKER: &str = "TIDEGATE_FOOTPRINT_WORKER";
/// Of the release binary: what the nearest peer takes is half as much again.
const MOST_KB: u64 = 10 * 1024;
/// From the call to the claim, where the claim is proven: a worker that only looks once a minute is far beyond. An ordinary
/// test asserts no time.
const MOST_MS: (i64, i64) = (1_000, 5_000);

/// `VmRSS` of `/proc/PID/status`: all pages in memory, those of the binary itself among them.
fn resident_kb(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// From the call's arrival to the claim, for a version that no registry has: it ends right after.
async fn claim_ms(installation: &Installation, application: &crate::support::Application) -> i64 {
    let id = installation.deploy(application, "v404").await.expect(202)["deploymentId"].as_str().unwrap().to_owned();
    let ended = installation.ended(application, &id).await;
    let at = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    let waited = at(&ended["targets"][0]["startedAt"]).duration_since(at(&ended["createdAt"]));
    i64::try_from(waited.as_millis()).unwrap()
}

#[tokio::test]
async fn an_idle_worker_is_small_and_begins_at_once() {
    let installation = Installation::start_with(Setup { no_worker: true, ..Setup::default() }).await;
    installation.lift_limits().await;
    let worker = OwnWorker::of(&installation);
    let measured = std::env::var_os(WORKER);
    let process = match &measured {
        Some(path) => {
            let mut command = worker.command();
            let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            let environment: Vec<_> = command.get_envs().map(|(k, v)| (k.to_owned(), v.unwrap().to_owned())).collect();
            command = std::process::Command::new(Path::new(path));
            command.args(arguments).envs(environment).stdout(Stdio::null()).stderr(Stdio::null());
            Process(command.spawn().unwrap())
        }
        None => worker.start(),
    };
    let online =
        async || installation.get("hosts/local").await.expect(200)["online"].as_bool().filter(|online| *online);
    eventually("the worker is there", online).await;
    let idle = resident_kb(&process);

    let application = installation.register(json!({})).await;
    let count = if measured.is_some() { 200 } else { 10 };
    let mut waited = Vec::new();
    for _ in 0..count {
        waited.push(claim_ms(&installation, &application).await);
    }
    waited.sort_unstable();
    let (median, late) = (waited[count / 2], waited[count * 99 / 100]);
    let after = resident_kb(&process);
    let build = if measured.is_some() { "as it is handed on" } else { "as the tests are built" };
    println!("figure: a worker {build} has {idle} kB resident when idle, and {after} kB after {count} orders");
    println!("figure: from the call to the claim, of {count}: median {median} ms, p99 {late} ms");
    assert!(measured.is_none() || idle <= MOST_KB, "{idle} kB");
    let begins_at_once = median < MOST_MS.0 && late < MOST_MS.1;
    assert!(measured.is_none() || begins_at_once, "median {median} ms, p99 {late} ms");
}
