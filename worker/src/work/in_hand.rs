//! What is being worked on, and what the desk and a job tell each other meanwhile.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{sync::Notify, task::Id};

#[derive(Debug)]
pub(super) struct InHand {
    pub(super) by: Id,
    /// To the job; none to one that brings back what was left, and takes no assignment's place: one that hangs must not
    /// keep the others waiting.
    pub(super) line: Option<Arc<Line>>,
}

impl InHand {
    /// How many of these others have to wait for.
    pub(super) fn places<'a>(all: impl Iterator<Item = &'a Self>) -> usize {
        all.filter(|job| job.takes_a_place()).count()
    }

    fn takes_a_place(&self) -> bool {
        self.line.as_ref().is_some_and(|line| !line.waits.load(Ordering::SeqCst))
    }

    /// Its assignment says something that the job may not know yet.
    pub(super) fn call(&self) {
        if let Some(line) = &self.line {
            line.called.notify_one();
        }
    }
}

/// Between the desk and one job.
#[derive(Debug)]
pub(crate) struct Line {
    /// The job waits for a registry, which may be as slow as it likes: others have its place meanwhile.
    waits: AtomicBool,
    freed: Arc<Notify>,
    called: Notify,
}

impl Line {
    pub(super) fn new(freed: &Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { waits: AtomicBool::new(false), freed: Arc::clone(freed), called: Notify::new() })
    }

    pub(crate) fn waits_for_a_registry(&self, now: bool) {
        if !self.waits.swap(now, Ordering::SeqCst) && now {
            self.freed.notify_one();
        }
    }

    /// Ends when the desk calls. A call while nobody waits is kept.
    pub(crate) async fn called(&self) {
        self.called.notified().await;
    }
}
