//! The one place where the time is read. Decisions take it as an argument.

use jiff::Timestamp;

/// Now, to the millisecond: what the table and the answers hold.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
