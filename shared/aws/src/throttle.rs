//! Wrong credentials: whoever sends too many is not listened to for a while, whatever comes next, or guessing would be free.
//!
//! By network (an IPv4 address, or the /64 of an IPv6 one), 20 in any 60 seconds: one after the other never more are looked
//! at. Calls that are under way at the same time may all be looked at before the first of them is counted; each is counted,
//! whatever the others do. Counts are kept by slots of ten seconds, so that a place may come back ten seconds late.

use std::net::IpAddr;

use jiff::Timestamp;
use tidegate_domain::limit::Network;

use crate::{
    error::Result,
    keys,
    store::Store,
    table::{Item, number},
    write::Expression,
};

/// Wrong credentials in [`THROTTLED_SECONDS`].
const MOST: u64 = 20;
const SLOT_SECONDS: i64 = 10;
/// This slot and the six before it hold at least the last sixty seconds, wherever in its slot the moment is.
const SLOTS_BEFORE: i64 = 6;
/// Slots share places in turn; one more than are looked at would do as well.
const PLACES: i64 = 8;
/// The longest time that it takes until a place is free again.
pub const THROTTLED_SECONDS: u64 = 70;
/// Of the item, for housekeeping alone.
const KEPT_SECONDS: i64 = 86_400;

impl Store {
    /// Whether this address has sent so many wrong credentials that none of it is looked at now.
    pub async fn is_throttled(&self, ip: IpAddr, now: Timestamp) -> Result<bool> {
        let found = self.table.get(&keys::wrong_credentials(Network::of(ip))).await?;
        Ok(found.is_some_and(|item| counted(&item, slot(now)) >= MOST))
    }

    /// Counts one wrong credential. To be called only where [`Store::is_throttled`] said no.
    pub async fn count_wrong_credential(&self, ip: IpAddr, now: Timestamp) -> Result<()> {
        let key = keys::wrong_credentials(Network::of(ip));
        let slot = slot(now);
        let (count, of_slot) = names(slot.rem_euclid(PLACES));
        let named = |text: &str| {
            let text = Expression::new(text).name("#count", &count).name("#slot", &of_slot).name("#ttl", "ttl");
            text.value(":one", number(1)).value(":ttl", number(now.as_second() + KEPT_SECONDS))
        };
        // A clock that is ahead has counted in a later slot: this counts there.
        let add = || (named("ADD #count :one SET #ttl = :ttl"), Expression::new("#slot >= :slot"));
        let begin = || {
            let begin = named("SET #count = :one, #slot = :slot, #ttl = :ttl");
            (begin, Expression::new("attribute_not_exists(#slot) OR #slot < :slot"))
        };
        // Who loses the race to begin a slot adds to what the winner began.
        for (change, condition) in [add(), begin(), add()] {
            let condition = condition.value(":slot", number(slot));
            if self.table.update(&key, change, condition).await? {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn slot(now: Timestamp) -> i64 {
    now.as_second().div_euclid(SLOT_SECONDS)
}

/// The attributes of a place: how many, and of which slot.
fn names(place: i64) -> (String, String) {
    (format!("count{place}"), format!("slot{place}"))
}

/// What counts at `now`; what clocks that are ahead have counted is included.
fn counted(item: &Item, now: i64) -> u64 {
    let number = |name: &str| item.get(name).and_then(|value| value.as_n().ok()).and_then(|n| n.parse::<i64>().ok());
    let places = (0..PLACES).filter_map(|place| {
        let (count, slot) = names(place);
        number(&slot).filter(|slot| *slot >= now - SLOTS_BEFORE)?;
        u64::try_from(number(&count)?).ok()
    });
    places.sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// What the three updates do to an item, one call after the other.
    fn count(item: &mut Item, slot: i64) {
        let (count, of_slot) = names(slot.rem_euclid(PLACES));
        let read = |item: &Item, name: &str| item.get(name).map(|n| n.as_n().unwrap().parse::<i64>().unwrap());
        let next = match read(item, &of_slot) {
            Some(there) if there >= slot => read(item, &count).unwrap_or(0) + 1,
            Some(_) | None => {
                item.insert(of_slot, number(slot));
                1
            }
        };
        item.insert(count, number(next));
    }

    proptest! {
        #[test]
        fn no_sixty_seconds_see_more_than_twenty_and_a_place_comes_back_in_time(
            steps in prop::collection::vec(prop_oneof![4 => 0..5_i64, 1 => 0..90_i64], 1..300)
        ) {
            let (mut item, mut now, mut wrong) = (HashMap::new(), 1_763_800_000_i64, Vec::new());
            for step in steps {
                now += step;
                let within = |seconds: i64| wrong.iter().filter(|at| **at > now - seconds).count() as u64;
                if counted(&item, now.div_euclid(SLOT_SECONDS)) >= MOST {
                    prop_assert!(within(70) >= MOST, "throttled for nothing at {}", now);
                } else {
                    prop_assert!(within(60) < MOST, "one too many at {}", now);
                    count(&mut item, now.div_euclid(SLOT_SECONDS));
                    wrong.push(now);
                }
            }
        }
    }
}
