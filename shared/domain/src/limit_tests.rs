use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_763_800_000_000 + ms).unwrap()
}

fn filled(limit: u32, times: impl IntoIterator<Item = i64>) -> Window {
    times.into_iter().fold(Window::default(), |window, ms| window.charge(limit, at(ms)).unwrap())
}

#[test]
fn a_hit_stops_counting_exactly_one_hour_after_it() {
    let full = filled(3, [0, 10, 10]);
    let check = |now: i64, expect: Result<(), i64>| {
        assert_eq!(full.charge(3, at(now)).map(|_| ()), expect.map_err(at), "{now}");
    };
    check(11, Err(HOUR_MS));
    check(HOUR_MS - 1, Err(HOUR_MS));
    check(HOUR_MS, Ok(()));
    let later = full.charge(3, at(HOUR_MS)).unwrap();
    assert_eq!(later.charge(3, at(HOUR_MS + 9)), Err(at(HOUR_MS + 10)));
    assert!(later.charge(3, at(HOUR_MS + 10)).unwrap().charge(3, at(HOUR_MS + 10)).is_ok());
}

#[test]
fn a_time_between_two_milliseconds_never_makes_a_place_early() {
    let half = SignedDuration::from_micros(500);
    let full = Window::default().charge(1, at(0) + half).unwrap();
    assert!(full.charge(1, at(HOUR_MS) + SignedDuration::from_micros(499)).is_err());
    assert!(full.charge(1, at(HOUR_MS) + half).is_err());
    assert!(full.charge(1, at(HOUR_MS + 1)).is_ok());
}

#[test]
fn a_clock_that_is_behind_counts_as_the_newest_hits() {
    let full = filled(2, [0, 5_000]);
    assert_eq!(full.charge(2, at(-HOUR_MS)), Err(at(HOUR_MS)));
    let charged = filled(3, [0, 5_000]).charge(3, at(-HOUR_MS)).unwrap();
    assert_eq!(charged, filled(3, [0, 5_000, 5_000]));
}

#[test]
fn a_changed_limit_is_held_against_what_is_there() {
    let three = filled(3, [0, 1_000, 2_000]);
    assert!(three.charge(4, at(3_000)).is_ok());
    // Two of the three must be gone before one more is the only other one.
    assert_eq!(three.charge(2, at(3_000)), Err(at(1_000 + HOUR_MS)));
    assert!(three.charge(2, at(1_000 + HOUR_MS)).is_ok());
    assert_eq!(three.charge(0, at(3_000)), Ok(three.clone()));
    let many = filled(200, (0..150).map(|i| i * 10));
    assert!(many.charge(100, at(2_000)).is_err());
    assert!(many.charge(151, at(2_000)).unwrap().charge(151, at(2_001)).is_err());
}

#[test]
fn a_busy_hour_stays_small() {
    let busy = filled(1_000_000, (0..36_000).map(|i| i * 100));
    assert_eq!(busy.entries.iter().map(|hits| hits.count).sum::<u32>(), 36_000);
    assert!(busy.entries.len() <= 61, "{}", busy.entries.len());
    assert!(String::from(busy).len() < 1_000);
    let exact = filled(EXACT, (0..100).map(|i| i * 30_000));
    assert!(String::from(exact).len() < 1_000);
}

#[test]
fn a_window_is_read_back_and_nothing_else_is_a_window() {
    for window in [Window::default(), filled(3, [0, 0, 7]), filled(200, (0..150).map(|i| i * 700))] {
        assert_eq!(Window::try_from(String::from(window.clone())), Ok(window));
    }
    assert_eq!(String::from(filled(200, [0, 15, 70_000])), "1763800000015x2,69985");
    for wrong in [",", "1,", "a", "1x0", "1x-1", "5,-1", "1,2x", "1x5000000000", "9223372036854775807", "1;2"] {
        assert!(Window::try_from(wrong.to_owned()).is_err(), "{wrong}");
    }
}

#[test]
fn an_address_stands_for_what_its_owner_has() {
    let check = |ip: &str, expect: &str| assert_eq!(Network::of(ip.parse().unwrap()).to_string(), expect);
    check("192.0.2.7", "192.0.2.7");
    check("::ffff:192.0.2.7", "192.0.2.7");
    check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64");
    check("2001:db8:1:2::", "2001:db8:1:2::/64");
    check("::1", "::/64");
    check("fe80::1", "fe80::/64");
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let of = |class| serde_json::to_value(Limits::default_of(class)).unwrap();
    assert_eq!(of(Class::Open), serde_json::json!({"perUser": 3, "perIp": 5, "total": 10}));
    assert_eq!(of(Class::Trusted), serde_json::json!({"perUser": 60, "perIp": 120, "total": 600}));
}

/// Every hit with its own time, kept for ever.
#[derive(Default)]
struct Naive {
    hits: Vec<i64>,
}

impl Naive {
    fn now(&self, ms: i64) -> i64 {
        self.hits.iter().copied().fold(ms, i64::max)
    }

    /// In (end − length, end].
    fn count(&self, end: i64, length: i64) -> usize {
        self.hits.iter().filter(|hit| **hit <= end && **hit > end - length).count()
    }
}

/// Steps of up to two minutes, mostly small, sometimes an hour, and sometimes back; each with the limit of its time.
fn calls(limits: impl Strategy<Value = u32>) -> impl Strategy<Value = Vec<(i64, u32)>> {
    let step = prop_oneof![
        6 => 0..200_i64,
        3 => 0..120_000_i64,
        1 => (HOUR_MS - 100)..(HOUR_MS + 100),
        2 => -120_000..0_i64,
    ];
    prop::collection::vec((step, limits), 1..400)
}

proptest! {
    #[test]
    fn small_limits_are_exact(calls in calls(prop_oneof![1 => 1..=5_u32, 1 => 1..=EXACT])) {
        let (mut window, mut naive, mut clock) = (Window::default(), Naive::default(), 0);
        for (step, limit) in calls {
            clock += step;
            let now = naive.now(clock);
            let place = naive.count(now, HOUR_MS) < limit as usize;
            match window.charge(limit, at(clock)) {
                Ok(next) => {
                    prop_assert!(place, "one too many at {}", clock);
                    naive.hits.push(now);
                    window = Window::try_from(String::from(next)).unwrap();
                }
                Err(free_at) => {
                    prop_assert!(!place, "a place was free at {}", clock);
                    prop_assert!(free_at > at(now));
                    prop_assert!(window.charge(limit, free_at).is_ok());
                    prop_assert!(window.charge(limit, free_at - SignedDuration::from_millis(1)).is_err());
                }
            }
        }
    }

    #[test]
    fn no_limit_is_ever_passed_and_large_ones_are_at_most_a_minute_too_strict(
        calls in calls(prop_oneof![2 => 101..=130_u32, 1 => 90..=101_u32])
    ) {
        let (mut window, mut naive, mut clock) = (Window::default(), Naive::default(), 0);
        for (step, limit) in calls {
            clock += step;
            let now = naive.now(clock);
            match window.charge(limit, at(clock)) {
                Ok(next) => {
                    prop_assert!(naive.count(now, HOUR_MS) < limit as usize, "one too many at {}", clock);
                    naive.hits.push(now);
                    window = Window::try_from(String::from(next)).unwrap();
                    prop_assert!(window.entries.len() <= 162);
                }
                Err(free_at) => {
                    prop_assert!(naive.count(now, HOUR_MS + MINUTE_MS) >= limit as usize, "refused at {}", clock);
                    prop_assert!(window.charge(limit, free_at).is_ok());
                }
            }
        }
    }

    #[test]
    fn no_text_makes_the_reading_panic(text in "[0-9x,-]{0,40}", now in 0..HOUR_MS) {
        if let Ok(window) = Window::try_from(text) {
            let _ = window.charge(5, at(now));
        }
    }
}
