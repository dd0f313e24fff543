//! How many requests are accepted in an hour: exactly, over a window that slides.

use std::{fmt, net::IpAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
/// Up to this limit every hit is kept with its own time.
const EXACT: u32 = 100;

/// Who asks, as far as limits are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Anybody may ask: issues.
    Open,
    /// Who holds a credential: an application's token, a key, a person, CI by its identity.
    Trusted,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Trusted => "trusted",
        }
    }
}

/// Accepted requests in any 60 minutes; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    pub per_user: u32,
    /// By [`Network`]. Requests without an address are not counted by it.
    pub per_ip: u32,
    pub total: u32,
}

impl Limits {
    /// What holds until somebody says otherwise.
    pub fn default_of(class: Class) -> Self {
        match class {
            Class::Open => Self { per_user: 3, per_ip: 5, total: 10 },
            Class::Trusted => Self { per_user: 60, per_ip: 120, total: 600 },
        }
    }
}

/// What one caller has for itself of the address space: an IPv4 address, or the /64 of an IPv6 address, because whoever has
/// one address of it has them all. An IPv4 address that is written as IPv6 is the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl Network {
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(IpAddr::V4(ip)),
            IpAddr::V6(ip) => Self(IpAddr::V6((ip.to_bits() >> 64 << 64).into())),
        }
    }
}

/// `192.0.2.7`, `2001:db8:0:1::/64`: two networks never have the same text.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => ip.fmt(f),
            IpAddr::V6(ip) => write!(f, "{ip}/64"),
        }
    }
}

/// The accepted requests of the last hour, to a millisecond.
///
/// In no window (t − 60 min, t] does [`Window::charge`] accept more than the limit: a hit stops counting exactly one hour
/// after it. Up to a limit of 100 every hit is kept; above, hits of the same minute share one entry that counts from its
/// newest, so that a window never has more than some 160 entries, and is at most a minute too strict.
///
/// Its serialised form is a text: the first entry's time in Unix milliseconds, then the distances from one entry to the
/// next, and after an `x` how many hits an entry stands for, if more than one: `1763800000000,15,200x3`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// In order of time.
    entries: Vec<Hits>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hits {
    /// Of the newest, in Unix milliseconds.
    at_ms: i64,
    /// At least one.
    count: u32,
}

impl Window {
    /// The window with one more hit at `now`, if the limit has a place for it; with a limit of 0 the window as it is, because
    /// where nothing is limited nothing is counted.
    ///
    /// Clocks need not agree: a `now` before the newest hit counts as that hit's time. The limit may be another than it was:
    /// it is held against what is there.
    ///
    /// # Errors
    /// When a place gets free, if nothing else is accepted meanwhile.
    pub fn charge(&self, limit: u32, now: Timestamp) -> Result<Self, Timestamp> {
        if limit == 0 {
            return Ok(self.clone());
        }
        let newest = self.entries.last().map_or(i64::MIN, |hits| hits.at_ms);
        // A time between two milliseconds is looked at from the earlier one and recorded at the later one, so that no hit
        // stops counting before its hour is over.
        let earlier = now.as_millisecond();
        let later = earlier + i64::from(now.subsec_nanosecond() % 1_000_000 > 0);
        let begin = earlier.max(newest) - HOUR_MS;
        let mut entries: Vec<_> = self.entries.iter().copied().filter(|hits| hits.at_ms > begin).collect();
        let mut count: u64 = entries.iter().map(|hits| u64::from(hits.count)).sum();
        for hits in &entries {
            if count < u64::from(limit) {
                break;
            }
            count -= u64::from(hits.count);
            if count < u64::from(limit) {
                return Err(time(hits.at_ms + HOUR_MS));
            }
        }
        let at_ms = later.max(newest);
        match entries.last_mut() {
            Some(last) if limit > EXACT && minute(last.at_ms) == minute(at_ms) => {
                last.at_ms = at_ms;
                last.count += 1;
            }
            Some(_) | None => entries.push(Hits { at_ms, count: 1 }),
        }
        Ok(Self { entries })
    }

    /// When the newest hit was; none of an empty window.
    pub fn newest(&self) -> Option<Timestamp> {
        self.entries.last().map(|hits| time(hits.at_ms))
    }
}

fn minute(at_ms: i64) -> i64 {
    at_ms.div_euclid(MINUTE_MS)
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        let mut before = 0;
        let entries = window.entries.iter().map(|Hits { at_ms, count }| {
            let distance = at_ms - std::mem::replace(&mut before, *at_ms);
            if *count == 1 { distance.to_string() } else { format!("{distance}x{count}") }
        });
        entries.collect::<Vec<_>>().join(",")
    }
}

impl TryFrom<String> for Window {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        let refused = || Invalid::new("format-window", "is not a window of hits", "remove the item");
        let mut entries: Vec<Hits> = Vec::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (distance, count) = part.split_once('x').unwrap_or((part, "1"));
            let distance: i64 = distance.parse().map_err(|_| refused())?;
            let count = count.parse().ok().filter(|count| *count > 0).ok_or_else(refused)?;
            let at_ms = match entries.last() {
                Some(before) if distance >= 0 => before.at_ms.checked_add(distance).ok_or_else(refused)?,
                None => distance,
                Some(_) => return Err(refused()),
            };
            // Of a time that jiff knows, so that no sum below can overflow.
            Timestamp::from_millisecond(at_ms).map_err(|_| refused())?;
            entries.push(Hits { at_ms, count });
        }
        Ok(Self { entries })
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
