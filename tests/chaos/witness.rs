//! What Docker did, in its own order: the engine's events tell of every container that was made or renamed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use bollard::{Docker, query_parameters::EventsOptionsBuilder};
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

/// One event.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub is_commit: bool,
    pub application: u64,
    pub host: String,
    pub deployment: String,
    pub sequence: u64,
}

pub(super) struct Witness {
    seen: Arc<Mutex<Vec<Seen>>>,
    listening: JoinHandle<()>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Witness {
    /// Of containers whose names begin so.
    pub(super) fn of(docker: &Docker, prefix: &str) -> Self {
        let filter = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let filters = HashMap::from([("type", filter(&["container"])), ("event", filter(&["create", "rename"]))]);
        // From now, not from when the engine hears of it.
        let since = tidegate_aws::clock::now().as_second().to_string();
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        let mut events = docker.events(Some(options));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (kept, prefix) = (Arc::clone(&seen), prefix.to_owned());
        let listening = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let event = event.expect("the engine tells its events to the end");
                let labels = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
                let is_ours = labels.get("name").is_some_and(|name| name.trim_start_matches('/').starts_with(&prefix));
                if let Some(seen) = is_ours.then(|| read(event.action.as_deref(), &labels)).flatten() {
                    kept.lock().unwrap().push(seen);
                }
            }
        });
        Self { seen, listening }
    }

    /// What is wrong with what was seen, and how many containers were made and committed.
    pub(super) fn testify(&self) -> (Vec<String>, usize, usize) {
        let seen = self.seen.lock().unwrap().clone();
        let mut wrong = Vec::new();
        let mut last: BTreeMap<(u64, &str), u64> = BTreeMap::new();
        let mut commits: BTreeMap<(&str, &str, u64), usize> = BTreeMap::new();
        for event in &seen {
            let last = last.entry((event.application, &event.host)).or_default();
            if event.sequence < *last {
                wrong.push(format!("after sequence {last} came {event:?}"));
            }
            *last = event.sequence.max(*last);
            // Whichever process did it: one that takes over has another epoch. A way back to the same release has another
            // sequence, that of the deployment which it takes back.
            if event.is_commit {
                *commits.entry((&event.deployment, &event.host, event.sequence)).or_default() += 1;
            }
        }
        for (switched, times) in commits.iter().filter(|(_, times)| **times > 1) {
            wrong.push(format!("{switched:?} was switched {times} times"));
        }
        assert!(!self.listening.is_finished(), "it has listened to the end");
        let commits = commits.values().sum();
        (wrong, seen.len() - commits, commits)
    }
}

/// None for a rename that brings no new version into its place.
fn read(action: Option<&str>, labels: &HashMap<String, String>) -> Option<Seen> {
    let is_next = |name: &str| labels.get(name).is_some_and(|name| name.ends_with(".tidegate-next"));
    let is_commit = match action? {
        "create" => false,
        "rename" if is_next("oldName") => true,
        _ => return None,
    };
    let number = |label: &str| labels.get(label)?.parse().ok();
    Some(Seen {
        is_commit,
        application: number("tidegate.application")?,
        host: labels.get("tidegate.host")?.clone(),
        deployment: labels.get("tidegate.deployment")?.clone(),
        sequence: number("tidegate.sequence")?,
    })
}
