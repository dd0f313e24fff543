//! When a provider is synced, and by whom: one run at a time, begun when it is due, continued by whoever comes next.
//!
//! A run is held by a lease. Whoever finds the lease over takes it and goes on with the same run; the epoch, which rises with
//! each holder, keeps the one before from writing anything more. While a run is held its provider is due at the end of the
//! lease, so that a crash is found by looking at what is due, like everything else.
//!
//! Whoever changes what is synced, or how, takes the lease away: nothing more is written by the settings of before, and the
//! run is gone on with by those that are new.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::{Epoch, SecretGroupId};

/// So long a holder may be silent. Longer than one request to a source with all its retries.
pub const LEASE: SignedDuration = SignedDuration::from_secs(45);
/// Of what was listed and cannot be taken so much is told.
pub const PROBLEMS_TOLD: usize = 50;
/// Of groups that failed so many are told, each in so many characters: a run is one item of the table, which is of 400 KB.
pub const FAILURES_TOLD: usize = 20;
const FAILURE_CHARS: usize = 2_000;
/// Whether a source is away or refuses credentials, it is not asked at once again.
const AFTER_OUTAGE: SignedDuration = SignedDuration::from_mins(5);
/// By schedule alone: somebody who asks, or changes the provider, is not kept waiting.
const AFTER_REFUSAL: SignedDuration = SignedDuration::from_hours(24);

/// `UUIDv7`: in order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SyncId(Uuid);

impl SyncId {
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

impl fmt::Display for SyncId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Why a run was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncTrigger {
    Schedule,
    /// The source has said that something has changed.
    Webhook,
    /// Somebody has asked for it: all groups are synced, also those that are not by themselves.
    Manual,
}

/// What the next run is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    pub trigger: SyncTrigger,
    pub actor: Option<String>,
    /// Lifts the guard of deletions.
    pub force: bool,
}

impl Asked {
    fn schedule() -> Self {
        Self { trigger: SyncTrigger::Schedule, actor: None, force: false }
    }

    /// Two requests are met by one run, which is whose who has lifted the guard, else whose who came last.
    fn and(self, other: Self) -> Self {
        let trigger = self.trigger.max(other.trigger);
        let strongest = if (other.force, other.trigger) >= (self.force, self.trigger) { other } else { self };
        Self { trigger, ..strongest }
    }
}

/// What was listed and could not be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncProblem {
    pub group_id: SecretGroupId,
    pub reference: String,
    pub code: String,
    pub message: String,
    pub suggestion: String,
}

/// Why a run, or one group of it, failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncFailure {
    pub code: String,
    pub message: String,
}

/// A run that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncRun {
    pub id: SyncId,
    pub asked: Asked,
    pub started_at: Timestamp,
    #[serde(flatten)]
    pub found: Found,
    /// Groups that are through.
    pub done: Vec<SecretGroupId>,
}

/// What a run has found beside what it has written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Found {
    pub unchanged: u64,
    /// Deletions that were not made: the listing looks wrong, or something refers to the secret.
    pub held_back: u64,
    pub problems: Vec<SyncProblem>,
    /// How many more there were.
    pub more_problems: u64,
    pub failures: Vec<SyncFailure>,
    /// How many more there were.
    pub more_failures: u64,
}

impl Found {
    /// One group could not be synced.
    pub fn add_failure(&mut self, failure: SyncFailure) {
        if self.failures.len() < FAILURES_TOLD { self.failures.push(short(failure)) } else { self.more_failures += 1 }
    }

    /// Why the whole run ends, which is told first.
    pub fn fail(&mut self, failure: SyncFailure) {
        self.failures.insert(0, short(failure));
    }

    pub fn add_problem(&mut self, problem: SyncProblem) {
        if self.problems.len() < PROBLEMS_TOLD { self.problems.push(problem) } else { self.more_problems += 1 }
    }
}

fn short(SyncFailure { code, message }: SyncFailure) -> SyncFailure {
    let message = match message.char_indices().nth(FAILURE_CHARS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    };
    SyncFailure { code, message }
}

/// What a run has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Written {
    pub added: u64,
    pub updated: u64,
    pub renamed: u64,
    /// Deleted, or marked as stale.
    pub removed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncStatus {
    Running,
    Success,
    Failed,
}

impl SyncStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
        }
    }
}

/// What is known of a provider's syncs, beside the provider itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncState {
    /// Raised with every change but the holder's own counting.
    pub revision: u64,
    pub epoch: Epoch,
    /// None: nobody is at it.
    pub lease_until: Option<Timestamp>,
    /// When somebody should look; none: only when asked.
    pub due_at: Option<Timestamp>,
    /// The source wants to be left alone until then by everything but people and a new configuration.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    pub asked: Option<Asked>,
    pub run: Option<SyncRun>,
    /// By the run in hand, else by the last one.
    #[serde(flatten)]
    pub written: Written,
    pub last_sync_at: Option<Timestamp>,
    pub last_sync_status: Option<SyncStatus>,
    pub last_failure: Option<SyncFailure>,
}

/// How a run has ended, as far as the next one is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Or failed for a reason that lies in what the source holds.
    Done,
    /// The source was away, or wants to be left alone for so long.
    Away(Option<SignedDuration>),
    /// It does not take the credentials.
    Refused,
}

impl SyncState {
    /// Of a provider that was never synced, and is not due.
    pub fn never() -> Self {
        Self {
            revision: 0,
            epoch: Epoch(0),
            lease_until: None,
            due_at: None,
            not_before: None,
            asked: None,
            run: None,
            written: Written::default(),
            last_sync_at: None,
            last_sync_status: None,
            last_failure: None,
        }
    }

    fn next(&self) -> Self {
        Self { revision: self.revision + 1, ..self.clone() }
    }

    pub fn is_held(&self, now: Timestamp) -> bool {
        self.lease_until.is_some_and(|until| until > now)
    }

    /// `running`, or how the last run has ended; none before the first one.
    pub fn status(&self) -> Option<SyncStatus> {
        if self.run.is_some() { Some(SyncStatus::Running) } else { self.last_sync_status }
    }

    /// Somebody wants a run; it is due now, or when the source may be asked again. Who is at it goes on.
    #[must_use]
    pub fn ask(&self, asked: Asked, now: Timestamp) -> Self {
        let asked = match self.asked.clone() {
            Some(before) => before.and(asked),
            None => asked,
        };
        let due = self.earliest(&asked, now);
        let due_at = Some(self.due_at.map_or(due, |at| at.min(due)));
        Self { asked: Some(asked), due_at, ..self.next() }
    }

    /// A person need not wait for what a source has said of itself.
    fn earliest(&self, asked: &Asked, now: Timestamp) -> Timestamp {
        match asked.trigger {
            SyncTrigger::Manual => now,
            SyncTrigger::Schedule | SyncTrigger::Webhook => self.not_before.map_or(now, |at| at.max(now)),
        }
    }

    /// The provider was written, and has `interval` if it syncs by itself. It is tried at once; a run that is under way is
    /// gone on with as it is now, and met by another one for what it was through with. If it does not sync by itself, then
    /// only what people have asked for stays.
    #[must_use]
    pub fn schedule(&self, interval: Option<SignedDuration>, now: Timestamp) -> Self {
        let mut state = self.interrupt(now);
        state.not_before = None;
        state.asked = match (state.asked, interval) {
            (None, Some(_)) if state.run.is_some() => Some(Asked::schedule()),
            (Some(asked), None) if asked.trigger != SyncTrigger::Manual => None,
            (asked, _) => asked,
        };
        let is_due = state.run.is_some() || state.asked.is_some() || interval.is_some();
        Self { due_at: is_due.then_some(now), ..state }
    }

    /// What is synced has changed: whoever is at it writes nothing more, and whoever comes next reads what is new.
    #[must_use]
    pub fn interrupt(&self, now: Timestamp) -> Self {
        if self.run.is_none() {
            return self.next();
        }
        Self { epoch: self.epoch.next(), lease_until: None, due_at: Some(now), ..self.next() }
    }

    /// Takes the lease, for the run that was left or for a new one. None: somebody is at it, or nothing is due.
    pub fn begin(&self, now: Timestamp, random: [u8; 10]) -> Option<Self> {
        if self.is_held(now) {
            return None;
        }
        let mut state = Self { epoch: self.epoch.next(), ..self.next() };
        if state.run.is_none() {
            if state.due_at.is_none_or(|due| due > now) {
                return None;
            }
            let asked = state.asked.take().unwrap_or_else(Asked::schedule);
            let id = SyncId::new(now, random);
            state.run = Some(SyncRun { id, asked, started_at: now, found: Found::default(), done: Vec::new() });
            state.written = Written::default();
        }
        let until = now.saturating_add(LEASE).unwrap_or(now);
        state.lease_until = Some(until);
        state.due_at = Some(until);
        Some(state)
    }

    /// A group is through; the holder goes on.
    #[must_use]
    pub fn group_done(&self, run: SyncRun, now: Timestamp) -> Self {
        let until = now.saturating_add(LEASE).unwrap_or(now);
        Self { run: Some(run), lease_until: Some(until), ..self.next() }
    }

    /// The holder has no more time: whoever comes next goes on.
    #[must_use]
    pub fn pause(&self, run: SyncRun, now: Timestamp) -> Self {
        Self { run: Some(run), lease_until: None, due_at: Some(now), ..self.next() }
    }

    /// The run is over. `interval` as for [`SyncState::schedule`].
    #[must_use]
    pub fn finish(&self, run: &SyncRun, ending: Ending, interval: Option<SignedDuration>, now: Timestamp) -> Self {
        let usual = interval.unwrap_or_default();
        let (pause, is_left_alone) = match ending {
            Ending::Done => (usual, false),
            Ending::Away(after) => (after.unwrap_or(AFTER_OUTAGE).max(SignedDuration::from_mins(1)), true),
            Ending::Refused => (usual.max(AFTER_REFUSAL), true),
        };
        let next = now.saturating_add(pause).unwrap_or(now);
        let mut state = Self { not_before: is_left_alone.then_some(next), ..self.next() };
        state.due_at = match &state.asked {
            Some(asked) => Some(state.earliest(asked, now)),
            None => interval.map(|_| next),
        };
        let is_failed = !run.found.failures.is_empty();
        Self {
            run: None,
            lease_until: None,
            last_sync_at: Some(now),
            last_sync_status: Some(if is_failed { SyncStatus::Failed } else { SyncStatus::Success }),
            last_failure: run.found.failures.first().cloned(),
            ..state
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn asked(trigger: SyncTrigger, force: bool) -> Asked {
        Asked { trigger, actor: None, force }
    }

    const HOUR: Option<SignedDuration> = Some(SignedDuration::from_hours(1));

    #[test]
    fn what_is_due_is_begun_once() {
        let state = SyncState::never();
        assert_eq!(state.begin(at(10), [0; 10]), None);
        let state = state.schedule(HOUR, at(10));
        let held = state.begin(at(10), [0; 10]).unwrap();
        assert_eq!(held.begin(at(11), [0; 10]), None);
        assert_eq!(held.due_at, held.lease_until);
        // Nobody has come back: the same run goes on under another epoch.
        let later = held.due_at.unwrap();
        let taken = held.begin(later, [1; 10]).unwrap();
        assert_eq!(taken.run, held.run);
        assert!(taken.epoch > held.epoch);
    }

    #[test]
    fn a_request_during_a_run_is_met_by_another_one() {
        let held = SyncState::never().ask(asked(SyncTrigger::Webhook, false), at(10)).begin(at(10), [0; 10]).unwrap();
        let run = held.run.clone().unwrap();
        assert_eq!(run.asked.trigger, SyncTrigger::Webhook);
        let asked_again =
            held.ask(asked(SyncTrigger::Manual, true), at(11)).ask(asked(SyncTrigger::Webhook, false), at(12));
        assert_eq!(asked_again.asked, Some(asked(SyncTrigger::Manual, true)));
        let finished = asked_again.finish(&run, Ending::Done, None, at(13));
        assert_eq!((finished.due_at, finished.run.as_ref()), (Some(at(13)), None));
        assert!(finished.begin(at(13), [1; 10]).unwrap().run.unwrap().asked.force);
    }

    #[test]
    fn what_comes_next_depends_on_how_it_ended() {
        let check = |ending, interval, expect: Option<i64>| {
            let held = SyncState::never().ask(asked(SyncTrigger::Manual, false), at(0)).begin(at(0), [0; 10]).unwrap();
            let run = held.run.clone().unwrap();
            assert_eq!(held.finish(&run, ending, interval, at(0)).due_at, expect.map(at), "{ending:?}");
        };
        check(Ending::Done, HOUR, Some(3_600));
        check(Ending::Done, None, None);
        check(Ending::Away(None), HOUR, Some(300));
        check(Ending::Away(Some(SignedDuration::from_secs(7))), HOUR, Some(60));
        check(Ending::Away(Some(SignedDuration::from_secs(700))), HOUR, Some(700));
        // Three refusals within half a minute lock an identity.
        check(Ending::Refused, HOUR, Some(86_400));
        check(Ending::Refused, None, None);
    }

    fn refused(interval: Option<SignedDuration>) -> SyncState {
        let held = SyncState::never().ask(asked(SyncTrigger::Manual, false), at(0)).begin(at(0), [0; 10]).unwrap();
        held.finish(held.run.as_ref().unwrap(), Ending::Refused, interval, at(0))
    }

    #[test]
    fn the_sources_own_word_does_not_shorten_the_pause_that_it_wants() {
        let told = refused(HOUR).ask(asked(SyncTrigger::Webhook, false), at(10));
        assert_eq!((told.due_at, told.begin(at(10), [0; 10])), (Some(at(86_400)), None));
        assert_eq!(told.begin(at(86_400), [0; 10]).unwrap().run.unwrap().asked.trigger, SyncTrigger::Webhook);
        // It came while the run was refused.
        let held = SyncState::never().ask(asked(SyncTrigger::Manual, false), at(0)).begin(at(0), [0; 10]).unwrap();
        let told = held.ask(asked(SyncTrigger::Webhook, false), at(1));
        let run = held.run.as_ref().unwrap();
        let away = Ending::Away(Some(SignedDuration::from_secs(700)));
        assert_eq!(told.finish(run, away, HOUR, at(2)).due_at, Some(at(702)));
        assert_eq!(told.finish(run, Ending::Done, HOUR, at(2)).due_at, Some(at(2)));
        // People, and whoever writes the provider, are not kept waiting, and what comes after them is not either.
        let told = refused(HOUR).ask(asked(SyncTrigger::Webhook, false), at(10));
        assert_eq!(told.ask(asked(SyncTrigger::Manual, false), at(11)).due_at, Some(at(11)));
        assert_eq!(told.schedule(HOUR, at(12)).due_at, Some(at(12)));
        let new = refused(HOUR).schedule(HOUR, at(12)).begin(at(12), [0; 10]).unwrap();
        let done = new.finish(new.run.as_ref().unwrap(), Ending::Done, HOUR, at(13));
        assert_eq!(done.ask(asked(SyncTrigger::Webhook, false), at(14)).due_at, Some(at(14)));
    }

    #[test]
    fn a_changed_provider_takes_the_run_away_and_is_tried_at_once() {
        let scheduled = SyncState::never().schedule(HOUR, at(0));
        let held = scheduled.begin(at(0), [0; 10]).unwrap();
        let changed = held.schedule(HOUR, at(5));
        assert!(changed.epoch > held.epoch, "who was at it writes nothing more");
        assert_eq!((changed.due_at, changed.lease_until), (Some(at(5)), None));
        let next = changed.begin(at(5), [1; 10]).unwrap();
        assert_eq!(next.run, held.run, "the same run goes on");
        let ended = next.finish(next.run.as_ref().unwrap(), Ending::Done, HOUR, at(6));
        assert_eq!(ended.due_at, Some(at(6)), "and what it was through with is synced anew");
        // It does not sync by itself any more: nothing is left to be done but to end the run.
        let stopped = held.ask(asked(SyncTrigger::Webhook, false), at(4)).schedule(None, at(5));
        let next = stopped.begin(at(5), [1; 10]).unwrap();
        assert_eq!(next.finish(next.run.as_ref().unwrap(), Ending::Done, None, at(6)).due_at, None);
        let waiting = scheduled.ask(asked(SyncTrigger::Webhook, false), at(4)).schedule(None, at(5));
        assert_eq!((waiting.asked, waiting.due_at), (None, None));
        // What people have asked for stays.
        let waiting = scheduled.ask(asked(SyncTrigger::Manual, true), at(4)).schedule(None, at(5));
        assert!(waiting.begin(at(5), [1; 10]).unwrap().run.unwrap().asked.force);
        // A group's change leaves alone what is not under way.
        assert_eq!(scheduled.interrupt(at(5)).due_at, scheduled.due_at);
        assert!(held.interrupt(at(5)).begin(at(5), [1; 10]).unwrap().epoch > held.epoch);
    }

    #[test]
    fn a_run_is_whose_who_has_lifted_the_guard() {
        let by = |actor: &str, force| Asked { trigger: SyncTrigger::Manual, actor: Some(actor.to_owned()), force };
        let check = |first: Asked, second: Asked, expect: Asked| {
            let asked = SyncState::never().ask(first, at(0)).ask(second, at(1)).asked;
            assert_eq!(asked, Some(expect));
        };
        check(by("ada", true), by("bob", false), by("ada", true));
        check(by("ada", false), by("bob", true), by("bob", true));
        check(by("ada", true), by("bob", true), by("bob", true));
        check(by("ada", false), by("bob", false), by("bob", false));
        check(by("ada", false), asked(SyncTrigger::Webhook, false), by("ada", false));
    }

    #[test]
    fn what_is_told_of_a_run_is_bounded() {
        let mut found = Found::default();
        let failure = |code: &str| SyncFailure { code: code.to_owned(), message: "é".repeat(100_000) };
        for _ in 0..1_000 {
            found.add_failure(failure("name-conflict"));
        }
        found.fail(failure("unavailable"));
        assert_eq!((found.failures.len(), found.more_failures), (FAILURES_TOLD + 1, 1_000 - FAILURES_TOLD as u64));
        assert_eq!(found.failures[0].code, "unavailable", "what ended the run comes first");
        let bytes: usize = found.failures.iter().map(|failure| failure.message.len()).sum();
        assert!(bytes < 150_000, "{bytes}");
    }

    #[derive(Debug, Clone, Copy)]
    enum Happens {
        Ask,
        Tell,
        Schedule(bool),
        Begin,
        Interrupt,
        Pause,
        Finish(Ending),
        Wait,
    }

    fn happens() -> impl Strategy<Value = Vec<Happens>> {
        let one = prop_oneof![
            Just(Happens::Ask),
            Just(Happens::Tell),
            any::<bool>().prop_map(Happens::Schedule),
            Just(Happens::Begin),
            Just(Happens::Pause),
            Just(Happens::Finish(Ending::Done)),
            Just(Happens::Finish(Ending::Refused)),
            Just(Happens::Finish(Ending::Away(None))),
            Just(Happens::Interrupt),
            Just(Happens::Wait)
        ];
        prop::collection::vec(one, 0..40)
    }

    proptest! {
        #[test]
        fn whatever_happens_what_is_asked_for_or_left_is_due(events in happens()) {
            let (mut state, mut now) = (SyncState::never(), 0);
            for event in events {
                now += 1;
                let run = state.run.clone();
                let before = (state.revision, state.epoch);
                let new = match (event, run) {
                    (Happens::Ask, _) => state.ask(asked(SyncTrigger::Manual, false), at(now)),
                    (Happens::Tell, _) => state.ask(asked(SyncTrigger::Webhook, false), at(now)),
                    (Happens::Interrupt, _) => state.interrupt(at(now)),
                    (Happens::Schedule(by_itself), _) => state.schedule(HOUR.filter(|_| by_itself), at(now)),
                    (Happens::Begin, _) => match state.begin(at(now), [0; 10]) {
                        Some(begun) => begun,
                        None => continue,
                    },
                    (Happens::Pause, Some(run)) if state.lease_until.is_some() => state.pause(run, at(now)),
                    (Happens::Finish(ending), Some(run)) if state.lease_until.is_some() => {
                        state.finish(&run, ending, HOUR, at(now))
                    }
                    (Happens::Wait, _) => {
                        now += 60;
                        continue;
                    }
                    (Happens::Pause | Happens::Finish(_), _) => continue,
                };
                prop_assert!(new.revision == before.0 + 1 && new.epoch >= before.1);
                if new.run.is_some() || new.asked.is_some() {
                    prop_assert!(new.due_at.is_some(), "{new:?}");
                }
                prop_assert!(new.lease_until.is_none() || new.run.is_some());
                // Nothing but people, a new configuration and a run that has begun is earlier than the source wants.
                let is_asked = new.asked.as_ref().is_some_and(|asked| asked.trigger == SyncTrigger::Manual);
                if let (Some(not_before), None, false) = (new.not_before, &new.run, is_asked) {
                    prop_assert!(new.due_at.is_none_or(|due| due >= not_before), "{new:?}");
                }
                state = new;
            }
        }
    }
}
