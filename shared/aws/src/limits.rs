//! Limits of accepted requests: windows are read beside what else is decided on, charged by a pure decision, and written in
//! the admission's transaction.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    id::{ApplicationId, TenantId},
    limit::{Class, Limits, Network, Window},
};

use crate::{
    applications::sha256_hex,
    deployments::Part,
    error::Result,
    keys::{self, Key, LimitsOf},
    store::Store,
    table::{Item, item, record},
    write::{Expression, Write, put},
};

/// An item is of no use two hours after its newest hit. A day more, so that clocks need not agree with the table's; and
/// nothing rests on its being gone.
const KEPT_SECONDS: i64 = 26 * 3_600;

/// Whom a request is charged to.
#[derive(Debug, Clone, Copy)]
pub struct Charged<'a> {
    pub class: Class,
    /// Any text that tells the users of the class apart: the application, the key, the person, the login.
    pub user: &'a str,
    /// None where nobody knows it: such a request is not limited by address.
    pub ip: Option<IpAddr>,
    pub application: ApplicationId,
}

/// One of the three limits, and whose hits are held against it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    User { class: Class, sha256_hex: String },
    Network(Network),
    Total,
}

impl Subject {
    fn name(&self) -> &'static str {
        match self {
            Self::User { .. } => "per-user",
            Self::Network(_) => "per-ip",
            Self::Total => "total",
        }
    }

    fn limit(&self, limits: &Limits) -> u32 {
        match self {
            Self::User { .. } => limits.per_user,
            Self::Network(_) => limits.per_ip,
            Self::Total => limits.total,
        }
    }

    fn key(&self, tenant: &TenantId, of: LimitsOf) -> Key {
        match self {
            Self::User { class, sha256_hex } => keys::user_window(tenant, of, *class, sha256_hex),
            Self::Network(network) => keys::network_window(tenant, of, *network),
            Self::Total => keys::total_window(tenant, of),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    window: Window,
    /// Raised with every write. The first is the time in milliseconds, so that an item that was cleared away and made anew
    /// is not taken for the one before.
    revision: u64,
    ttl: i64,
}

/// A window as it was read.
#[derive(Debug, Clone)]
struct Seen {
    of: LimitsOf,
    subject: Subject,
    window: Window,
    /// None if there was no item.
    revision: Option<u64>,
}

/// Every window that a request may be held against: the tenant's and the application's own.
#[derive(Debug, Clone)]
pub struct Windows {
    class: Class,
    seen: Vec<Seen>,
}

/// An accepted request in each of its windows, to be written with what it is accepted for.
#[derive(Debug, Clone)]
pub struct Charge {
    /// With the windows after the charge.
    charged: Vec<Seen>,
}

/// Why a request is not accepted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// Those that have no place: `per-user`, `per-ip`, `total`.
    pub limits: Vec<&'static str>,
    /// When the last of them has one again, if nothing else is accepted meanwhile.
    pub free_at: Timestamp,
}

impl Windows {
    /// Charges one request to all windows that have a limit, or to none. `own`: `limits` are the application's own, which
    /// are counted apart from the tenant's and for both classes together.
    ///
    /// # Errors
    /// All limits that are full.
    pub fn charge(&self, limits: &Limits, own: bool, now: Timestamp) -> Result<Charge, Full> {
        let mut charged = Vec::new();
        let mut full: Option<Full> = None;
        for seen in self.seen.iter().filter(|seen| own == matches!(seen.of, LimitsOf::Application(_))) {
            let limit = seen.subject.limit(limits);
            if limit == 0 {
                continue;
            }
            match seen.window.charge(limit, now) {
                Ok(window) => charged.push(Seen { window, ..seen.clone() }),
                Err(free_at) => {
                    let full = full.get_or_insert(Full { limits: Vec::new(), free_at });
                    full.limits.push(seen.subject.name());
                    full.free_at = full.free_at.max(free_at);
                }
            }
        }
        full.map_or(Ok(Charge { charged }), Err)
    }

    /// Whose limits hold where the application has none of its own.
    pub fn class(&self) -> Class {
        self.class
    }
}

impl Store {
    /// The windows of a request, in one round trip.
    pub async fn windows(&self, tenant: &TenantId, charged: &Charged<'_>) -> Result<Windows> {
        let mut seen = subjects(charged);
        let keys: Vec<_> = seen.iter().map(|seen| seen.subject.key(tenant, seen.of)).collect();
        for found in self.table.batch_get(&keys).await? {
            let named = keys.iter().position(|key| is_at(&found, key));
            if let Some(seen) = named.and_then(|index| seen.get_mut(index)) {
                let record: Record = record(found, "window of requests")?;
                seen.window = record.window;
                seen.revision = Some(record.revision);
            }
        }
        Ok(Windows { class: charged.class, seen })
    }

    /// The writes of a charge, on condition that no window has changed since it was read. For the transaction of what is
    /// accepted: all of them are written, or none.
    pub(crate) fn charge_writes(&self, tenant: &TenantId, charge: &Charge) -> Result<Vec<Write<Part>>> {
        let write = |seen: &Seen| {
            let newest = seen.window.newest().unwrap_or_default();
            let record = Record {
                window: seen.window.clone(),
                revision: seen.revision.map_or_else(|| first_revision(newest), |was| was + 1),
                ttl: newest.as_second() + KEPT_SECONDS,
            };
            let condition = seen.revision.map_or_else(Expression::absent, Expression::revision);
            let item = item(&seen.subject.key(tenant, seen.of), &record)?;
            Ok(put(Part::Limit, item, &self.table, Some(condition)))
        };
        charge.charged.iter().map(write).collect()
    }
}

fn subjects(charged: &Charged<'_>) -> Vec<Seen> {
    let user = Subject::User { class: charged.class, sha256_hex: sha256_hex(charged.user.as_bytes()) };
    let network = charged.ip.map(|ip| Subject::Network(Network::of(ip)));
    let subjects: Vec<_> = [Some(user), network, Some(Subject::Total)].into_iter().flatten().collect();
    let of = [LimitsOf::Class(charged.class), LimitsOf::Application(charged.application)];
    let seen = |of, subject| Seen { of, subject, window: Window::default(), revision: None };
    of.into_iter().flat_map(|of| subjects.iter().cloned().map(move |subject| seen(of, subject))).collect()
}

fn first_revision(newest: Timestamp) -> u64 {
    u64::try_from(newest.as_millisecond()).unwrap_or(1)
}

fn is_at(item: &Item, key: &Key) -> bool {
    let is = |name: &str, text: &str| item.get(name).and_then(|value| value.as_s().ok()).is_some_and(|s| s == text);
    is("pk", &key.pk) && is("sk", &key.sk)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LIMITS: Limits = Limits { per_user: 1, per_ip: 2, total: 3 };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_763_800_000 + second).unwrap()
    }

    fn windows(charged: &Charged<'_>) -> Windows {
        Windows { class: charged.class, seen: subjects(charged) }
    }

    fn charged(user: &str) -> Charged<'_> {
        Charged { class: Class::Trusted, user, ip: "192.0.2.7".parse().ok(), application: ApplicationId(1) }
    }

    /// The windows after the charge was written.
    fn after(windows: &Windows, charge: &Charge) -> Windows {
        let mut windows = windows.clone();
        for seen in &mut windows.seen {
            if let Some(now) = charge.charged.iter().find(|c| c.of == seen.of && c.subject == seen.subject) {
                *seen = now.clone();
            }
        }
        windows
    }

    #[test]
    fn all_full_limits_are_told_with_the_time_when_the_last_has_a_place() {
        let empty = windows(&charged("a"));
        let one = after(&empty, &empty.charge(&LIMITS, false, at(0)).unwrap());
        let full = one.charge(&LIMITS, false, at(1)).unwrap_err();
        assert_eq!(full, Full { limits: vec!["per-user"], free_at: at(3_600) });
        let two = after(&one, &one.charge(&Limits { per_user: 0, ..LIMITS }, false, at(10)).unwrap());
        let full = two.charge(&Limits { per_user: 1, per_ip: 1, total: 9 }, false, at(11)).unwrap_err();
        assert_eq!(full, Full { limits: vec!["per-user", "per-ip"], free_at: at(3_610) });
    }

    #[test]
    fn an_applications_own_limits_are_counted_apart() {
        let empty = windows(&charged("a"));
        let one = after(&empty, &empty.charge(&LIMITS, false, at(0)).unwrap());
        assert!(one.charge(&LIMITS, false, at(1)).is_err());
        let own = one.charge(&LIMITS, true, at(1)).unwrap();
        let both = after(&one, &own);
        assert_eq!(both.charge(&LIMITS, true, at(2)).unwrap_err().limits, ["per-user"]);
        assert_eq!(own.charged.len(), 3);
    }

    #[test]
    fn what_has_no_limit_and_no_address_is_not_charged() {
        let nowhere = windows(&Charged { ip: None, ..charged("a") });
        assert_eq!(nowhere.charge(&LIMITS, false, at(0)).unwrap().charged.len(), 2);
        let none = Limits { per_user: 0, per_ip: 0, total: 0 };
        assert!(windows(&charged("a")).charge(&none, false, at(0)).unwrap().charged.is_empty());
    }

    #[test]
    fn no_two_subjects_share_an_item() {
        let tenant = TenantId::parse("acme").unwrap();
        let users = ["", "a", "a#b", "TOTAL", "#TOTAL", "USER#a", "192.0.2.7", "APPLICATION#1#TOTAL", "open", "ä"];
        let mut seen = BTreeSet::new();
        let mut expected = 0;
        for class in [Class::Open, Class::Trusted] {
            for user in users {
                let of = Charged { class, ..charged(user) };
                seen.extend(subjects(&of).iter().map(|seen| seen.subject.key(&tenant, seen.of).pk));
                // The user's, among the tenant's windows and among the application's.
                expected += 2;
            }
            // The tenant's address and total are of a class.
            expected += 2;
        }
        // The application's are not.
        assert_eq!(seen.len(), expected + 2, "{seen:?}");
    }
}
