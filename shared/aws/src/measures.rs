//! What is measured of requests and deployments, counted by tenant and hour.
//!
//! Counts, never a value of a request. They are kept eight days, beside what they are about and not with it: a request that
//! was answered may be missing here after a crash.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use tidegate_domain::{deployment::TriggerKind, id::TenantId, limit::Network};

use crate::{
    error::Result,
    keys,
    store::Store,
    table::{Item, number, sort_key, text},
    write::{Expression, Write, update},
};

/// Longest time that a summary is about.
pub const MAX_HOURS: u32 = 168;
const KEPT_SECONDS: i64 = 8 * 86_400;
/// So many callers and sources of an hour are counted by name; what comes later is counted together, so that nobody can
/// make the item grow without bound.
const MOST_NAMES: u64 = 200;
/// Of a name, in characters.
const LONGEST_NAME: usize = 64;
/// Stands for the names past [`MOST_NAMES`].
const OTHERS: &str = "(others)";
/// Stands for an address that nobody knows.
const NOWHERE: &str = "(none)";
/// Callers and sources of a summary.
const SHOWN: usize = 20;
/// Buckets by which durations are counted: each reaches 2^(1/4), some 19 %, further than the one before, from 1 ms to 16 s.
const BUCKETS: u8 = 57;

/// How a request ended, as far as validation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Admitted,
    AwaitingApproval,
    /// The answer to a request that came before.
    Repeated,
    /// A dry run without a fault.
    Valid,
    /// By format or permission.
    Rejected,
    RateLimited,
    QueueFull,
    /// It could not be decided: something that it needs is away, or took too long.
    Undecided,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Admitted,
        Self::AwaitingApproval,
        Self::Repeated,
        Self::Valid,
        Self::Rejected,
        Self::RateLimited,
        Self::QueueFull,
        Self::Undecided,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::AwaitingApproval => "awaiting-approval",
            Self::Repeated => "repeated",
            Self::Valid => "valid",
            Self::Rejected => "rejected",
            Self::RateLimited => "rate-limited",
            Self::QueueFull => "queue-full",
            Self::Undecided => "undecided",
        }
    }

    /// Whether validation said yes or no; none of what it said nothing new about, dry runs included, which are told and not
    /// counted.
    pub fn passed(self) -> Option<bool> {
        match self {
            Self::Admitted | Self::AwaitingApproval => Some(true),
            Self::Rejected | Self::RateLimited | Self::QueueFull => Some(false),
            Self::Repeated | Self::Valid | Self::Undecided => None,
        }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Of its validation.
    pub duration: Duration,
    pub outcome: Outcome,
    /// Of what was wrong with it, each once or more.
    pub codes: Vec<&'static str>,
    pub trigger: TriggerKind,
    /// A name of the application, the key, the person or the login: never a credential.
    pub caller: String,
    pub source: Option<IpAddr>,
}

/// Requests of one caller, or from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    pub name: String,
    pub requests: u64,
    pub rejections: u64,
}

/// What was measured in some hours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Beginning of the first hour.
    pub from: Timestamp,
    pub to: Timestamp,
    pub requests: u64,
    /// Of the requests that validation said yes or no to, those that passed, 0 to 1; none without any.
    pub pass_rate: Option<f64>,
    /// Requests by [`Outcome`].
    pub outcomes: BTreeMap<String, u64>,
    /// Requests by trigger.
    pub triggers: BTreeMap<String, u64>,
    /// Faults by code, the most frequent first.
    pub codes: Vec<(String, u64)>,
    /// The twenty with the most requests.
    pub callers: Vec<Tally>,
    pub sources: Vec<Tally>,
    /// Upper bound of the bucket that half of the durations reach at most: up to 19 % more than the exact one. At least
    /// 1 ms; none without any.
    pub p50_ms: Option<f64>,
    /// As `p50_ms`, of 95 in 100.
    pub p95_ms: Option<f64>,
    /// Deployments that ended, by status.
    pub deployments: BTreeMap<String, u64>,
}

impl Store {
    /// Counts a request. Best effort: a failure is logged, and the request is none the worse for it.
    pub async fn measure(&self, tenant: &TenantId, measured: &Measured, now: Timestamp) {
        if let Err(error) = self.count(tenant, measured, now).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a request is missing from the measures");
        }
    }

    async fn count(&self, tenant: &TenantId, measured: &Measured, now: Timestamp) -> Result<()> {
        let key = keys::measures_of_requests(tenant, &hour(now));
        let source = measured.source.map_or_else(|| NOWHERE.to_owned(), |ip| Network::of(ip).to_string());
        let caller: String = measured.caller.chars().take(LONGEST_NAME).collect();
        let names = [format!("caller#{caller}"), format!("source#{source}")];
        let room = Expression::new(
            "attribute_not_exists(#names) OR size(#names) < :most OR (contains(#names, :caller) AND contains(#names, :source))",
        )
        .value(":most", number(MOST_NAMES))
        .value(":caller", text(&*names[0]))
        .value(":source", text(&*names[1]));
        let mut change = add(&counters(measured, &caller, &source), now).name("#names", "names");
        change.text = change.text.replacen("ADD ", "ADD #names :names, ", 1);
        let change = change.value(":names", AttributeValue::Ss(names.into()));
        if self.table.update(&key, change, room).await? {
            return Ok(());
        }
        self.table.update(&key, add(&counters(measured, OTHERS, OTHERS), now), Expression::default()).await.map(|_| ())
    }

    /// Counts the end of a deployment, in the transaction that is its end, so that it is counted exactly once.
    pub(crate) fn outcome_write<L>(&self, label: L, tenant: &TenantId, status: &str, now: Timestamp) -> Write<L> {
        let key = keys::measures_of_ends(tenant, &hour(now));
        update(label, &key, &self.table, add(&[(format!("deployment#{status}"), 1)], now), Expression::default())
    }

    /// What was measured in this hour and the `hours - 1` before it.
    pub async fn summary(&self, tenant: &TenantId, hours: u32, now: Timestamp) -> Result<Summary> {
        let second = now.as_second().div_euclid(3_600) * 3_600;
        let first = Timestamp::from_second(second).unwrap_or(now) - SignedDuration::from_hours(i64::from(hours) - 1);
        // After `<hour>#ENDS`, and before the hour after.
        let last = format!("{}$", hour(now));
        let items = self.table.range(&keys::measures(tenant), Some(&hour(first)), Some(&last)).await?;
        Ok(summarise(&items, first, now))
    }
}

/// `2026-11-22T10`
fn hour(at: Timestamp) -> String {
    at.to_string().get(..13).unwrap_or_default().to_owned()
}

/// Every attribute that a request adds to, and how much.
fn counters(measured: &Measured, caller: &str, source: &str) -> Vec<(String, u64)> {
    let mut counters = BTreeMap::new();
    let mut add = |name: String| *counters.entry(name).or_default() += 1;
    add(format!("outcome#{}", measured.outcome.as_str()));
    add(format!("trigger#{}", measured.trigger.as_str()));
    add(format!("duration#{}", bucket(measured.duration)));
    add(format!("caller#{caller}"));
    add(format!("source#{source}"));
    if measured.outcome.passed() == Some(false) {
        add(format!("rejected-caller#{caller}"));
        add(format!("rejected-source#{source}"));
    }
    for code in &measured.codes {
        add(format!("code#{code}"));
    }
    counters.into_iter().collect()
}

fn add(counters: &[(String, u64)], now: Timestamp) -> Expression {
    let parts: Vec<_> = (0..counters.len()).map(|i| format!("#n{i} :n{i}")).collect();
    let change = Expression::new(&format!("ADD {} SET #ttl = :ttl", parts.join(", ")))
        .name("#ttl", "ttl")
        .value(":ttl", number(now.as_second() + KEPT_SECONDS));
    counters.iter().enumerate().fold(change, |change, (i, (name, by))| {
        change.name(&format!("#n{i}"), name).value(&format!(":n{i}"), number(by))
    })
}

/// The first bucket that the duration fits into; the last takes what is longer than all.
fn bucket(duration: Duration) -> u8 {
    let ms = duration.as_secs_f64() * 1_000.0;
    (0..BUCKETS - 1).find(|bucket| ms <= bound_ms(*bucket)).unwrap_or(BUCKETS - 1)
}

/// Upper bound of a bucket, in milliseconds.
fn bound_ms(bucket: u8) -> f64 {
    2_f64.powf(f64::from(bucket) / 4.0)
}

/// The bound that `percent` of the counted durations do not pass.
fn percentile(buckets: &BTreeMap<u8, u64>, percent: u64) -> Option<f64> {
    let all: u64 = buckets.values().sum();
    // The nearest rank, from 1.
    let rank = (all * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let reached = buckets.iter().find(|(_, count)| {
        seen += **count;
        seen >= rank
    });
    reached.map(|(bucket, _)| (bound_ms(*bucket) * 10.0).round() / 10.0)
}

fn summarise(items: &[Item], from: Timestamp, to: Timestamp) -> Summary {
    let mut summary = Summary { from, to, ..Summary::default() };
    let mut buckets: BTreeMap<u8, u64> = BTreeMap::new();
    let mut codes: BTreeMap<String, u64> = BTreeMap::new();
    let mut callers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut sources: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let counted = items.iter().filter(|item| sort_key(item).is_some()).flatten();
    for (attribute, value) in counted {
        let Some((kind, name)) = attribute.split_once('#') else { continue };
        let count: u64 = value.as_n().ok().and_then(|n| n.parse().ok()).unwrap_or(0);
        let name = name.to_owned();
        match kind {
            "outcome" => *summary.outcomes.entry(name).or_default() += count,
            "trigger" => *summary.triggers.entry(name).or_default() += count,
            "deployment" => *summary.deployments.entry(name).or_default() += count,
            "code" => *codes.entry(name).or_default() += count,
            "caller" => callers.entry(name).or_default().0 += count,
            "rejected-caller" => callers.entry(name).or_default().1 += count,
            "source" => sources.entry(name).or_default().0 += count,
            "rejected-source" => sources.entry(name).or_default().1 += count,
            "duration" => *buckets.entry(name.parse().unwrap_or(BUCKETS - 1)).or_default() += count,
            _ => {}
        }
    }
    let of = |passed: bool| -> u64 {
        let outcomes = Outcome::ALL.into_iter().filter(|outcome| outcome.passed() == Some(passed));
        outcomes.filter_map(|outcome| summary.outcomes.get(outcome.as_str())).sum()
    };
    summary.pass_rate = rate(of(true), of(false));
    summary.requests = summary.outcomes.values().sum();
    summary.codes = codes.into_iter().collect();
    summary.codes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    summary.callers = most(callers);
    summary.sources = most(sources);
    summary.p50_ms = percentile(&buckets, 50);
    summary.p95_ms = percentile(&buckets, 95);
    summary
}

/// To four digits after the point.
#[expect(clippy::cast_precision_loss, reason = "nobody counts so far in eight days that a fraction's 53 bits matter")]
fn rate(passed: u64, failed: u64) -> Option<f64> {
    let all = passed + failed;
    (all > 0).then(|| (passed as f64 / all as f64 * 10_000.0).round() / 10_000.0)
}

fn most(counted: BTreeMap<String, (u64, u64)>) -> Vec<Tally> {
    let tallies = counted.into_iter().map(|(name, (requests, rejections))| Tally { name, requests, rejections });
    let mut tallies: Vec<_> = tallies.collect();
    tallies.sort_by_key(|tally| std::cmp::Reverse(tally.requests));
    tallies.truncate(SHOWN);
    tallies
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(hour: &str, counters: &[(String, u64)]) -> Item {
        let mut item: Item = counters.iter().map(|(name, count)| (name.clone(), number(count))).collect();
        item.insert("sk".to_owned(), text(hour));
        item.insert("ttl".to_owned(), number(1));
        item
    }

    fn measured(outcome: Outcome, ms: u64, codes: &[&'static str]) -> Measured {
        let duration = Duration::from_millis(ms);
        let codes = codes.to_vec();
        Measured { duration, outcome, codes, trigger: TriggerKind::Webhook, caller: "ci#1".to_owned(), source: None }
    }

    #[test]
    fn hours_are_summed_up() {
        let of = |outcome, ms, codes: &[&'static str], source| counters(&measured(outcome, ms, codes), "ci#1", source);
        let items = [
            item("2026-11-22T09", &of(Outcome::Admitted, 10, &[], "192.0.2.7")),
            item("2026-11-22T10", &of(Outcome::Rejected, 20, &["missing", "missing", "format-ip"], "192.0.2.7")),
            item("2026-11-22T11", &of(Outcome::Undecided, 900, &[], NOWHERE)),
            item("2026-11-22T11#ENDS", &[("deployment#failed".to_owned(), 2), ("deployment#succeeded".to_owned(), 5)]),
        ];
        let summary = summarise(&items, Timestamp::UNIX_EPOCH, Timestamp::MAX);
        assert_eq!((summary.requests, summary.pass_rate), (3, Some(0.5)));
        assert_eq!(summary.codes, [("missing".to_owned(), 2), ("format-ip".to_owned(), 1)]);
        let tally = |name: &str, requests, rejections| Tally { name: name.to_owned(), requests, rejections };
        assert_eq!(summary.callers, [tally("ci#1", 3, 1)]);
        assert_eq!(summary.sources, [tally("192.0.2.7", 2, 1), tally(NOWHERE, 1, 0)]);
        assert_eq!(summary.deployments.values().copied().collect::<Vec<_>>(), [2, 5]);
        assert_eq!(summarise(&[], Timestamp::UNIX_EPOCH, Timestamp::MAX).pass_rate, None);
    }

    #[test]
    fn a_told_duration_is_never_less_and_at_most_a_fifth_more() {
        for ms in [1.0, 1.5, 10.0, 99.0, 250.0, 1_234.0, 4_999.0, 16_000.0] {
            let told = bound_ms(bucket(Duration::from_secs_f64(ms / 1_000.0)));
            assert!(ms <= told && told <= ms * 1.2, "{ms} told as {told}");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::from_mins(15)), BUCKETS - 1);
        let durations = (1..=100).map(|ms| (bucket(Duration::from_millis(ms)), 1));
        let buckets = durations.fold(BTreeMap::new(), |mut all, (bucket, one)| {
            *all.entry(bucket).or_default() += one;
            all
        });
        let (p50, p95) = (percentile(&buckets, 50).unwrap(), percentile(&buckets, 95).unwrap());
        assert!((50.0..=60.0).contains(&p50) && (95.0..=114.0).contains(&p95), "{p50} {p95}");
        assert_eq!(percentile(&BTreeMap::new(), 50), None);
    }
}
