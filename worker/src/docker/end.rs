//! How a container's process ended that Docker has started again meanwhile: what it shows of the container is the new
//! process then, but its events are kept for a while.

use std::{collections::HashMap, time::Duration};

use bollard::{models::EventMessage, query_parameters::EventsOptionsBuilder};
use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use tidegate_aws::clock;

use super::{Engine, Error, QUICK, within};

/// What an end leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    pub exit_code: Option<i64>,
    /// A process of the container was killed at its memory limit.
    pub oom_killed: bool,
}

impl Engine {
    /// The last end of the container's process within that time. The engine keeps its last 256 events, of whatever kind;
    /// past them nothing is known.
    pub async fn last_end(&self, id: &str, within_last: Duration) -> Result<End, Error> {
        let until = clock::now();
        let since = until - SignedDuration::try_from(within_last).unwrap_or(SignedDuration::from_hours(1));
        let filters = HashMap::from([("container", vec![id]), ("event", vec!["die", "oom"])]);
        // Events up to now: the stream ends after them.
        let options = EventsOptionsBuilder::default().since(&seconds(since)).until(&seconds(until)).filters(&filters);
        let events = self.docker.events(Some(options.build())).try_collect::<Vec<_>>();
        Ok(end(&within(QUICK, events).await?))
    }
}

fn seconds(at: Timestamp) -> String {
    format!("{}.{:09}", at.as_second(), at.subsec_nanosecond())
}

/// Of events in the order they happened.
fn end(events: &[EventMessage]) -> End {
    let mut end = End::default();
    for event in events {
        match event.action.as_deref() {
            Some("oom") => end.oom_killed = true,
            Some("die") => {
                let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
                end.exit_code = attributes.and_then(|a| a.get("exitCode")?.parse().ok());
            }
            Some(_) | None => {}
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    #[test]
    fn the_last_end_counts_and_any_kill_at_the_limit() {
        let event = |action: &str, exit_code: Option<&str>| EventMessage {
            action: Some(action.to_owned()),
            actor: exit_code.map(|code| EventActor {
                attributes: Some(HashMap::from([("exitCode".to_owned(), code.to_owned())])),
                ..EventActor::default()
            }),
            ..EventMessage::default()
        };
        let check = |events: &[EventMessage], exit_code, oom_killed| {
            assert_eq!(end(events), End { exit_code, oom_killed }, "{events:?}");
        };
        check(&[], None, false);
        check(&[event("die", Some("3")), event("die", Some("4"))], Some(4), false);
        check(&[event("oom", None), event("die", Some("137"))], Some(137), true);
        // The engine hears of the two on different ways.
        check(&[event("die", Some("137")), event("oom", None)], Some(137), true);
    }

    #[test]
    fn times_have_their_fraction() {
        assert_eq!(seconds(Timestamp::new(1_700_000_000, 5_000_000).unwrap()), "1700000000.005000000");
    }
}
