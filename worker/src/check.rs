//! `tidegate-worker check`: all that is missing or wrong on this host, at once, in words for a person.
//!
//! It only looks: a worker that runs beside it, or is just starting, notices nothing. So the lock is not tried, no folder
//! is made, nothing is taken off the queue, and no report is sent.

use std::{error::Error, fmt, fs, io, net::SocketAddr, os::unix::fs::MetadataExt as _, path::Path, time::Duration};

use rustix::fs::Access;
use tidegate_aws::{call_log::CallLog, clients::Clients, host_side::HostSide};
use tidegate_domain::assignment::LEASE;
use tokio::{net::TcpStream, time::timeout};

use crate::{
    config::{Config, Faults},
    docker::Engine,
    logs::chain,
    work::LOCK,
};

/// Further apart than this, a clock is worth a word.
const SKEW_SECONDS: i64 = 5;
/// What listens on this machine answers sooner.
const CONNECT: Duration = Duration::from_secs(2);

/// What one look found.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Fine(String),
    /// Nothing has to be done about it, but somebody may want to know.
    Note(String),
    Wrong {
        what: String,
        mend: String,
    },
}

impl Finding {
    fn wrong(what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Wrong { what: what.into(), mend: mend.into() }
    }

    fn failed(error: &dyn Error, mend: impl Into<String>) -> Self {
        Self::wrong(chain(error), mend)
    }
}

/// What was looked at, and what was found there.
#[derive(Debug)]
pub struct Report(Vec<(&'static str, Finding)>);

impl Report {
    /// Whether the worker can run and work.
    pub fn is_well(&self) -> bool {
        self.wrong() == 0
    }

    fn wrong(&self) -> usize {
        self.0.iter().filter(|(_, finding)| matches!(finding, Finding::Wrong { .. })).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (subject, finding) in &self.0 {
            match finding {
                Finding::Fine(said) => writeln!(f, "fine   {subject:14} {said}")?,
                Finding::Note(said) => writeln!(f, "note   {subject:14} {said}")?,
                Finding::Wrong { what, mend } => {
                    writeln!(f, "WRONG  {subject:14} {what}\n{:22}-> {mend}", "")?;
                }
            }
        }
        match self.wrong() {
            0 => f.write_str("\nAll that can be tried from here is well."),
            1 => f.write_str("\nOne thing is wrong."),
            many => write!(f, "\n{many} things are wrong."),
        }
    }
}

/// Looks at everything. `read`: as [`Config::read`] has it.
pub async fn check(read: Result<Config, Faults>, file: &Path) -> Report {
    let mut report = Report(vec![("user", user())]);
    let config = match read {
        Ok(config) => config,
        Err(faults) => {
            let faults = faults.0.iter();
            report.0.extend(faults.map(|fault| ("configuration", Finding::wrong(fault.place(), &fault.mend))));
            report.0.push(("docker", docker(None).await));
            let said = "folder, disk, AWS and metrics are looked at once the configuration is right";
            report.0.push(("the rest", Finding::Note(said.to_owned())));
            return report;
        }
    };
    let from = if file.exists() { file.display().to_string() } else { "the environment alone".to_owned() };
    report.0.push(("configuration", Finding::Fine(format!("host {} of {}, from {from}", config.host, config.tenant))));
    let holder = lock_holder(&config.data);
    report.0.push(("folder", folder(&config.data)));
    report.0.push(("worker", Finding::Fine(running(holder))));
    let calls = CallLog::default();
    let clients = Clients::for_worker(config.region.clone(), calls.clone()).await;
    let side = HostSide::new(&clients, config.host_config());
    let (docker, disk, partition, queue, metrics) = tokio::join!(
        docker(config.docker_host.as_deref()),
        disk(&config),
        partition(&side, &config),
        queue(&side),
        metrics(config.metrics_listen, holder.is_some()),
    );
    report.0.push(("docker", docker));
    report.0.extend(disk.map(|disk| ("disk", disk)));
    report.0.push(("table", partition));
    report.0.push(("queue", queue));
    let untried =
        "sending reports and opening work orders cannot be tried without doing it: the first deployment shows both";
    report.0.push(("reports, key", Finding::Note(untried.to_owned())));
    report.0.push(("clock", clock(&calls)));
    report.0.push(("metrics", metrics));
    report
}

/// As whom all this was tried: what root may do says little of what the service may.
fn user() -> Finding {
    match fs::metadata("/proc/self").map(|process| process.uid()) {
        Ok(0) => Finding::Note(
            "root, who may do more than the service: `sudo -u tidegate tidegate-worker check` sees what that sees"
                .to_owned(),
        ),
        Ok(uid) => Finding::Fine(format!("uid {uid}")),
        Err(error) => Finding::Note(format!("not known: {error}")),
    }
}

fn folder(data: &Path) -> Finding {
    let shown = data.display();
    let may = |path: &Path, access| rustix::fs::access(path, access);
    let mend = "let `tidegate-worker install` prepare it, or chown it to the worker's user";
    match fs::metadata(data) {
        Ok(found) if !found.is_dir() => Finding::wrong(format!("{shown} is no folder"), "remove it, or set `data`"),
        Ok(_) => match may(data, Access::WRITE_OK | Access::EXEC_OK) {
            Ok(()) => {
                let lock = data.join(LOCK);
                match may(&lock, Access::WRITE_OK) {
                    Err(error) if error != rustix::io::Errno::NOENT => {
                        Finding::wrong(format!("{} cannot be written: {error}", lock.display()), mend)
                    }
                    Ok(()) | Err(_) => Finding::Fine(format!("{shown} can be written")),
                }
            }
            Err(error) => Finding::wrong(format!("{shown} cannot be written: {error}"), mend),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = data.ancestors().skip(1).find(|path| path.exists()).unwrap_or(Path::new("/"));
            match may(above, Access::WRITE_OK | Access::EXEC_OK) {
                Ok(()) => Finding::Fine(format!("{shown} will be made at the first start")),
                Err(_) => Finding::wrong(format!("{shown} is not there, and this user may not make it"), mend),
            }
        }
        Err(error) => Finding::wrong(format!("{shown}: {error}"), mend),
    }
}

/// The process that holds the lock, as the kernel lists it: to try the lock is to take it for a moment.
fn lock_holder(data: &Path) -> Option<u32> {
    let lock = fs::metadata(data.join(LOCK)).ok()?;
    holder(&fs::read_to_string("/proc/locks").ok()?, lock.ino())
}

/// In lines like `1: FLOCK  ADVISORY  WRITE 2311 08:01:1573 0 EOF` (`proc_locks(5)`). A process of another container is 0.
fn holder(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", process, file, ..] = fields.as_slice() else { return None };
        let found = file.rsplit(':').next()?.parse::<u64>().ok()?;
        (found == inode).then(|| process.parse().ok()).flatten()
    })
}

fn running(holder: Option<u32>) -> String {
    match holder {
        Some(0) => "one runs on this folder, in another container".to_owned(),
        Some(process) => format!("one runs on this folder, as process {process}"),
        None => "none runs on this folder".to_owned(),
    }
}

async fn docker(docker_host: Option<&str>) -> Finding {
    let mend = "start Docker; let the worker's user into the group docker (usermod -aG docker USER, then a new session); \
                or set docker_host";
    let engine = match Engine::connect(docker_host) {
        Ok(engine) => engine,
        Err(error) => return Finding::failed(&error, mend),
    };
    match engine.version().await {
        Ok(version) => {
            let api = version.api.map(|api| format!(", API {api}")).unwrap_or_default();
            Finding::Fine(format!("{} answers{api}", version.engine))
        }
        Err(error) => Finding::failed(&error, mend),
    }
}

/// None: without Docker, which is told already, nobody knows where to look.
async fn disk(config: &Config) -> Option<Finding> {
    let engine = Engine::connect(config.docker_host.as_deref()).ok()?;
    let wanted = config.policy.min_free_disk_bytes;
    Some(match engine.free_disk_bytes().await.ok()? {
        None => {
            Finding::Note("Docker's folder cannot be seen from here, so min_free_disk_bytes has no effect".to_owned())
        }
        Some(free) if free < wanted => Finding::wrong(
            format!("{} free where Docker keeps its data; deployments need {}", mib(free), mib(wanted)),
            "make room (docker system df shows what takes it), or lower min_free_disk_bytes",
        ),
        Some(free) => Finding::Fine(format!("{} free where Docker keeps its data", mib(free))),
    })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

async fn partition(side: &HostSide, config: &Config) -> Finding {
    match side.assignments().await {
        Ok(open) => Finding::Fine(format!("{} answers; open work orders of this host: {}", config.table, open.len())),
        Err(error) => Finding::failed(
            &error,
            format!(
                "check the network, region and table, and that this user has the identity that infra/host.yaml makes for \
                 tenant {} and host {}",
                config.tenant, config.host
            ),
        ),
    }
}

async fn queue(side: &HostSide) -> Finding {
    match side.check_queue().await {
        Ok(()) => Finding::Fine("answers".to_owned()),
        Err(error) => {
            Finding::failed(&error, "check queue_url against the output WorkerConfiguration of infra/host.yaml")
        }
    }
}

fn clock(calls: &CallLog) -> Finding {
    let Some(offset) = calls.clock_offset() else {
        return Finding::Note("AWS has not told the time".to_owned());
    };
    let seconds = offset.as_secs();
    let said = match seconds {
        0 => "as AWS's, to a second".to_owned(),
        behind if behind < 0 => format!("{} s behind AWS's", behind.unsigned_abs()),
        ahead => format!("{ahead} s ahead of AWS's"),
    };
    if seconds.saturating_abs() > LEASE.as_secs() {
        return Finding::wrong(said, "let chrony or systemd-timesyncd keep it: leases and signatures go by the clock");
    }
    if seconds.saturating_abs() > SKEW_SECONDS { Finding::Note(said) } else { Finding::Fine(said) }
}

async fn metrics(address: Option<SocketAddr>, worker_runs: bool) -> Finding {
    let Some(address) = address else {
        return Finding::Note("neither /metrics nor /healthz are served; metrics_listen turns them on".to_owned());
    };
    // Connected to, not listened on: a worker that starts right now wants the address.
    let answers = timeout(CONNECT, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok());
    match (answers, worker_runs) {
        (true, true) => Finding::Fine(format!("served on {address}")),
        (true, false) => Finding::wrong(
            format!("{address} is taken, and not by this worker"),
            "end what listens there (ss -ltnp shows it), or choose another metrics_listen",
        ),
        (false, false) => Finding::Fine(format!("{address} is free")),
        (false, true) => {
            Finding::Note(format!("nothing answers on {address}: the worker runs with another configuration"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, process};

    use super::*;

    #[test]
    fn the_kernel_tells_who_holds_the_lock() {
        let locks = "1: POSIX  ADVISORY  READ  1 08:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 4 fd:00:7 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:1f:77 0 EOF\n3: -> FLOCK  ADVISORY  WRITE 10 00:1f:78 0 EOF\n";
        assert_eq!((holder(locks, 77), holder(locks, 7), holder(locks, 78)), (Some(9), Some(4), None));

        let data = tempfile::tempdir().unwrap();
        assert_eq!(lock_holder(data.path()), None);
        let lock = File::create(data.path().join(LOCK)).unwrap();
        assert_eq!(lock_holder(data.path()), None);
        lock.try_lock().unwrap();
        assert_eq!(lock_holder(data.path()), Some(process::id()));
    }

    #[test]
    fn a_folder_is_looked_at_and_left_alone() {
        let above = tempfile::tempdir().unwrap();
        let data = above.path().join("a/b");
        assert!(matches!(folder(&data), Finding::Fine(said) if said.contains("will be made")));
        assert!(!above.path().join("a").exists());
        fs::write(above.path().join("a"), "").unwrap();
        assert!(matches!(folder(&above.path().join("a")), Finding::Wrong { what, .. } if what.contains("no folder")));
        assert!(matches!(folder(above.path()), Finding::Fine(said) if said.contains("can be written")));
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_report_counts_what_is_wrong() {
        let report =
            Report(vec![("clock", Finding::Note("a".to_owned())), ("disk", Finding::wrong("full", "make room"))]);
        assert!(!report.is_well());
        let told = report.to_string();
        assert!(told.contains("WRONG  disk           full\n") && told.contains("-> make room"), "{told}");
        assert!(told.ends_with("One thing is wrong."), "{told}");
        assert!(Report(vec![("disk", Finding::Fine("b".to_owned()))]).is_well());
    }
}
