//! What Prometheus is told. Names, numbers and fixed words: nothing of what is deployed, and no secret.

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use tidegate_aws::call_log::CallLog;

/// From a second, which the smallest image takes, to half an hour.
const DURATIONS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobEnd {
    result: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: String,
}

/// How an attempt at a work order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Succeeded,
    /// For good, by its code.
    Failed(&'static str),
    /// By its code, and tried again later.
    Retried(&'static str),
    /// Given up before the switch, as the process stops.
    HandedBack,
}

impl End {
    fn labels(self) -> JobEnd {
        let (result, code) = match self {
            Self::Succeeded => ("succeeded", ""),
            Self::Failed(code) => ("failed", code),
            Self::Retried(code) => ("retried", code),
            Self::HandedBack => ("handed-back", ""),
        };
        JobEnd { result, code }
    }
}

/// What is known only by looking, at the moment of the question. Ages are none before the first time.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) loop_age: Option<Duration>,
    pub(crate) look_age: Option<Duration>,
    pub(crate) heartbeat_age: Option<Duration>,
    pub(crate) docker_up: bool,
}

#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    jobs: Family<JobEnd, Counter>,
    durations: Histogram,
    pub(crate) running: Gauge,
    pub(crate) open: Gauge,
    docker_up: Gauge,
    loop_age: Seconds,
    look_age: Seconds,
    heartbeat_age: Seconds,
    clock_offset: Seconds,
    memory: Gauge,
    call_errors: Family<Operation, Counter>,
    calls: CallLog,
}

impl Metrics {
    pub(crate) fn new(calls: CallLog) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tidegate_worker"),
            jobs: Family::default(),
            durations: Histogram::new(DURATIONS),
            running: Gauge::default(),
            open: Gauge::default(),
            docker_up: Gauge::default(),
            loop_age: Seconds::default(),
            look_age: Seconds::default(),
            heartbeat_age: Seconds::default(),
            clock_offset: Seconds::default(),
            memory: Gauge::default(),
            call_errors: Family::default(),
            calls,
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("build", "The worker", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        registry.register(
            "jobs",
            "Attempts at work orders that have ended, by result and error code",
            self.jobs.clone(),
        );
        registry.register_with_unit(
            "job_duration",
            "From claim to end of an attempt",
            Unit::Seconds,
            self.durations.clone(),
        );
        registry.register("running_jobs", "Applications that are worked on now", self.running.clone());
        registry.register("open_assignments", "Work orders of this host at the last look", self.open.clone());
        registry.register("docker_up", "Whether Docker answered when it was last asked", self.docker_up.clone());
        let age = Unit::Seconds;
        registry.register_with_unit("loop_age", "Since the loop last turned", age.clone(), self.loop_age.clone());
        registry.register_with_unit(
            "last_look_age",
            "Since the assignments were last read",
            age.clone(),
            self.look_age.clone(),
        );
        registry.register_with_unit(
            "heartbeat_age",
            "Since a heartbeat was last written",
            age.clone(),
            self.heartbeat_age.clone(),
        );
        let help = "How much this machine's clock is ahead of AWS's, to a second";
        registry.register_with_unit("clock_offset", help, age, self.clock_offset.clone());
        registry.register_with_unit("memory", "Resident memory of the process", Unit::Bytes, self.memory.clone());
        let help = "Calls of AWS that failed after all their tries, by operation";
        registry.register("aws_call_errors", help, self.call_errors.clone());
    }

    pub(crate) fn ended(&self, end: End, took: Duration) {
        self.jobs.get_or_create(&end.labels()).inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// In the text format of `OpenMetrics`, which Prometheus reads.
    pub(crate) fn render(&self, reading: &Reading) -> Result<String, std::fmt::Error> {
        // What has never happened is infinitely long ago.
        let age = |age: Option<Duration>| age.map_or(f64::INFINITY, |age| age.as_secs_f64());
        self.loop_age.set(age(reading.loop_age));
        self.look_age.set(age(reading.look_age));
        self.heartbeat_age.set(age(reading.heartbeat_age));
        self.docker_up.set(i64::from(reading.docker_up));
        self.clock_offset.set(self.calls.clock_offset().map_or(f64::NAN, |offset| offset.as_secs_f64()));
        self.memory.set(resident_bytes().unwrap_or_default());
        for (operation, count) in self.calls.errors() {
            self.call_errors.get_or_create(&Operation { operation }).inner().store(count, Ordering::Relaxed);
        }
        let mut rendered = String::new();
        text::encode(&mut rendered, &self.registry)?;
        Ok(rendered)
    }
}

/// As the kernel counts it; none where there is no `/proc`.
fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_ages_are_told() {
        let metrics = Metrics::new(CallLog::default());
        metrics.ended(End::Succeeded, Duration::from_secs(3));
        metrics.ended(End::Failed("unhealthy"), Duration::from_secs(40));
        metrics.ended(End::Failed("unhealthy"), Duration::from_secs(40));
        let reading = Reading { look_age: Some(Duration::from_millis(1_500)), docker_up: true, ..Reading::default() };
        let told = metrics.render(&reading).unwrap();
        for line in [
            "tidegate_worker_jobs_total{result=\"succeeded\",code=\"\"} 1",
            "tidegate_worker_jobs_total{result=\"failed\",code=\"unhealthy\"} 2",
            "tidegate_worker_job_duration_seconds_bucket{le=\"5.0\"} 1",
            "tidegate_worker_job_duration_seconds_count 3",
            "tidegate_worker_docker_up 1",
            "tidegate_worker_last_look_age_seconds 1.5",
            "tidegate_worker_heartbeat_age_seconds inf",
            "# EOF",
        ] {
            assert!(told.lines().any(|told| told == line), "{line} in {told}");
        }
        let memory = told.lines().find_map(|line| line.strip_prefix("tidegate_worker_memory_bytes ")).unwrap();
        assert!(memory.parse::<u64>().unwrap() > 100_000, "{memory}");
    }
}
