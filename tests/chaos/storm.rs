//! What goes wrong, and how often: decided by a seed, as far as what happens at once has an order at all.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::support::{
    docker_tap::DockerCall,
    faults::{AwsCall, FaultyAws},
    fleet::Member,
    relay::Fate,
};

#[derive(Clone)]
pub(super) struct Storm(Arc<Mutex<State>>);

struct State {
    random: u64,
    rages: bool,
    faults: BTreeMap<&'static str, usize>,
}

impl Storm {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { random: seed, rages: true, faults: BTreeMap::new() })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing goes wrong.
    pub(super) fn end(&self) {
        self.state().rages = false;
    }

    /// Below the limit.
    pub(super) fn roll(&self, limit: u64) -> u64 {
        let mut state = self.state();
        // splitmix64: https://prng.di.unimi.it/splitmix64.c
        state.random = state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// How often each kind of fault was met.
    pub(super) fn faults(&self) -> BTreeMap<&'static str, usize> {
        self.state().faults.clone()
    }

    /// The fault that the roll falls on, if it falls on any: each has a width, of a thousand.
    fn pick<T>(&self, faults: Vec<(u64, &'static str, T)>) -> Option<T> {
        let mut at = self.roll(1000);
        let mut state = self.state();
        if !state.rages {
            return None;
        }
        for (width, kind, fault) in faults {
            if at < width {
                *state.faults.entry(kind).or_default() += 1;
                return Some(fault);
            }
            at -= width;
        }
        None
    }

    pub(super) fn hits_functions(&self, aws: &FaultyAws) {
        let storm = self.clone();
        aws.judge_by(move |call| storm.aws(call));
    }

    pub(super) fn hits(&self, member: &Member) {
        let storm = self.clone();
        member.aws.judge_by(move |call| {
            let dies = match call.of_a_worker() {
                Some("claim" | "finish") => storm.pick(deaths(24)),
                Some(_) | None => None,
            };
            dies.unwrap_or_else(|| storm.aws(call))
        });
        let storm = self.clone();
        member.docker.judge_by(move |call: &DockerCall| {
            let often = if call.name == "remove image" { 0 } else { 36 };
            storm.pick(deaths(often)).unwrap_or(Fate::Pass)
        });
    }

    fn aws(&self, call: &AwsCall) -> Fate {
        let late = Duration::from_millis(100 + self.roll(2_000));
        let faults = match call.operation.as_str() {
            "TransactWriteItems" => vec![
                (60, "transaction conflict", call.conflict()),
                (20, "throttle", call.throttled()),
                (20, "lost answer", Fate::LoseAnswer),
                (10, "broken connection", Fate::Cut),
                (10, "internal error", call.failed_inside()),
            ],
            "SendMessage" => vec![
                (60, "message dropped", AwsCall::dropped()),
                (150, "message doubled", Fate::Twice),
                (150, "message late", AwsCall::delivered_late(late)),
                (20, "internal error", call.failed_inside()),
            ],
            "ReceiveMessage" => {
                vec![(30, "lost answer", Fate::LoseAnswer), (20, "internal error", call.failed_inside())]
            }
            "DeleteMessage" => vec![(100, "broken connection", Fate::Cut)],
            "Decrypt" | "GenerateDataKey" => {
                vec![(15, "internal error", call.failed_inside()), (15, "throttle", call.throttled())]
            }
            _ => vec![
                (10, "throttle", call.throttled()),
                (10, "too little throughput", AwsCall::over_throughput(call)),
                (10, "internal error", call.failed_inside()),
                (15, "lost answer", Fate::LoseAnswer),
                (10, "broken connection", Fate::Cut),
                (20, "delay", Fate::Wait(late / 4)),
            ],
        };
        self.pick(faults).unwrap_or(Fate::Pass)
    }
}

fn deaths(often: u64) -> Vec<(u64, &'static str, Fate)> {
    let kill = "kill -9";
    vec![(often / 3, kill, Fate::DieBefore), (often / 3, kill, Fate::DieAmid), (often / 3, kill, Fate::DieAfter)]
}
