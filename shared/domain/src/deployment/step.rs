//! From state to state: what may happen to a deployment, and what is to be done because of it.

use jiff::Timestamp;

use super::{ASSIGNED, CancelRequest, Deployment, Runs, Status, Target, TargetState};
use crate::{
    approval::{Decision, Verdict},
    assignment::{ErrorCode, Outcome, Progress, Running, TargetError},
    id::{DeploymentId, Epoch, HostName},
    image::{Digest, Version},
    job::Action,
};

/// So many hosts go back at a time at most: their work orders are written in one transaction, and may each be as large as
/// the largest that was ever admitted.
const RETURN_WIDTH: usize = 4;

/// What happened to a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It became its application's active deployment.
    Activated,
    /// A host claimed its assignment.
    HostStarted { host: HostName, at: Timestamp },
    /// A host ended its assignment.
    HostFinished {
        host: HostName,
        epoch: Epoch,
        started_at: Option<Timestamp>,
        completed_at: Timestamp,
        progress: Progress,
        outcome: Outcome,
    },
    /// A host stayed away for longer than anybody waits. Its assignment is gone, and whatever it has done or will do with
    /// it counts no more.
    HostUnreachable { host: HostName, epoch: Epoch, error: TargetError },
    /// A person called it off. `unclaimed` are hosts whose assignments were taken back, as nobody held them.
    Cancelled { request: CancelRequest, unclaimed: Vec<HostName> },
    /// It has lost its place in the queue to a later one, or waited for a decision that nobody needs any more.
    Superseded { by: Option<DeploymentId> },
    /// Somebody decided on it, or nobody did in time.
    Decided(Decision),
}

/// What is to be done because of it, in the same transaction as the new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write these hosts' assignments, and wake the hosts.
    Assign { hosts: Vec<HostName> },
    /// Write assignments that bring these hosts back, and wake them.
    Return { hosts: Vec<Return> },
    /// Free the queue slot and make the next queued deployment of the application active.
    Finish,
    /// Record what the application runs from now on.
    Release { version: Version, digest: Digest },
}

/// One host's way back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    pub host: HostName,
    /// Higher than that of the assignment by which the host was switched.
    pub epoch: Epoch,
    /// What runs there afterwards; none: nothing ran there for certain, and the container is removed.
    pub to: Option<Runs>,
}

/// An event that the deployment's state does not allow. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event} does not fit a deployment that is {status}")]
pub struct Illegal {
    pub status: &'static str,
    pub event: &'static str,
}

impl Deployment {
    /// The one way from state to state. The same event a second time changes nothing: reports come more than once.
    pub fn step(mut self, event: Event, now: Timestamp) -> Result<(Self, Vec<Effect>), Illegal> {
        let mut effects = Vec::new();
        if let Status::Rejected { .. } = self.status {
            return Err(self.illegal(&event));
        }
        match event {
            Event::Activated => {
                if self.status == Status::AwaitingApproval {
                    return Err(self.illegal(&event));
                }
                if !self.status.is_final() && !self.targets.iter().any(|t| t.state.is_open()) {
                    self.go_on(now, &mut effects);
                }
            }
            Event::HostStarted { ref host, at } => {
                let host = host.clone();
                self.start(&host, at, now).ok_or_else(|| self.illegal(&event))?;
            }
            Event::HostFinished { host, epoch, started_at, completed_at, progress, outcome } => {
                let target = self.target_mut(&host, "a host's end")?;
                // An older epoch is an assignment that was folded already.
                if !target.state.is_open() || epoch <= target.epoch {
                    return Ok((self, effects));
                }
                target.started_at = target.started_at.or(started_at);
                target.completed_at = Some(completed_at);
                target.progress = progress;
                let pinned = target.end(epoch, outcome);
                let event = ended(&target.state);
                if let Some(digest) = pinned {
                    self.digest.get_or_insert(digest);
                }
                self.begun(started_at.unwrap_or(completed_at));
                self.note(completed_at, event, Some(host));
                self.go_on(now, &mut effects);
            }
            Event::HostUnreachable { host, epoch, error } => {
                let target = self.target_mut(&host, "a host's absence")?;
                if !target.state.is_open() {
                    return Ok((self, effects));
                }
                target.completed_at = Some(now);
                target.epoch = epoch;
                target.state = TargetState::Failed { error, running: Running::Mixed };
                self.note(now, "host-unreachable", Some(host));
                self.go_on(now, &mut effects);
            }
            Event::Cancelled { ref request, ref unclaimed } => {
                if self.status.is_final() {
                    return Err(self.illegal(&event));
                }
                for target in &mut self.targets {
                    let asked = matches!(target.state, TargetState::Assigned | TargetState::Running);
                    if asked && unclaimed.contains(&target.host) {
                        target.state = TargetState::Cancelled;
                        target.completed_at = Some(now);
                    }
                }
                if self.cancel_requested.is_none() {
                    self.cancel_requested = Some(request.clone());
                    self.note(now, "cancel-requested", None);
                }
                self.go_on(now, &mut effects);
            }
            Event::Superseded { by } => {
                if !self.is_unassigned() || !matches!(self.status, Status::AwaitingApproval | Status::Queued) {
                    return Err(self.illegal(&event));
                }
                self.skip_the_rest();
                self.finish(Status::Superseded { by }, now, &mut effects);
            }
            Event::Decided(ref decision) => {
                let Some(approval) = self.approval.as_mut().filter(|_| self.status == Status::AwaitingApproval) else {
                    return Err(self.illegal(&event));
                };
                let is_late = decision.at >= approval.expires_at;
                if is_late != (decision.verdict == Verdict::TimedOut) {
                    return Err(self.illegal(&event));
                }
                approval.decision = Some(decision.clone());
                match decision.verdict {
                    Verdict::Approved => {
                        self.status = Status::Queued;
                        self.note(now, Verdict::Approved.as_str(), None);
                    }
                    Verdict::Denied => self.refuse(Status::Denied, now, &mut effects),
                    Verdict::TimedOut => self.refuse(Status::TimedOut, now, &mut effects),
                }
            }
        }
        Ok((self, effects))
    }

    fn illegal(&self, event: &Event) -> Illegal {
        Illegal { status: self.status.name(), event: event.name() }
    }

    fn start(&mut self, host: &HostName, at: Timestamp, now: Timestamp) -> Option<()> {
        let target = self.targets.iter_mut().find(|t| t.host == *host && t.state != TargetState::Waiting)?;
        if target.state == TargetState::Assigned {
            target.state = TargetState::Running;
            target.started_at = Some(at);
            self.begun(at);
            self.note(at.min(now), "host-started", Some(host.clone()));
        }
        Some(())
    }

    fn begun(&mut self, at: Timestamp) {
        self.started_at.get_or_insert(at);
        if self.status == Status::Queued {
            self.status = Status::Running;
        }
    }

    fn target_mut(&mut self, host: &HostName, event: &'static str) -> Result<&mut Target, Illegal> {
        let illegal = Illegal { status: self.status.name(), event };
        let target = self.targets.iter_mut().find(|t| t.host == *host).ok_or(illegal.clone())?;
        if target.state == TargetState::Waiting { Err(illegal) } else { Ok(target) }
    }

    /// What comes next, once no host is in the middle of something: more hosts, hosts that go back, or the end.
    fn go_on(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let stopped = self.cancel_requested.is_some() || self.targets.iter().any(|t| t.state.error().is_some());
        if stopped {
            self.skip_the_rest();
        }
        if self.targets.iter().any(|t| t.state.is_open()) {
            return;
        }
        if stopped && self.goes_back() {
            self.send_back(now, effects);
        } else if self.targets.iter().any(|t| t.state == TargetState::Waiting) {
            self.assign_next_wave(now, effects);
        } else {
            let end = self.end();
            self.finish(end, now, effects);
        }
    }

    fn skip_the_rest(&mut self) {
        for target in self.targets.iter_mut().filter(|t| t.state == TargetState::Waiting) {
            target.state = TargetState::Skipped;
        }
    }

    fn width(&self) -> usize {
        usize::try_from(self.max_parallel).unwrap_or(1).max(1)
    }

    fn assign_next_wave(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        // The first host finds out which image a tag means, for all of them: it may mean another one a moment later.
        let finds_out = self.action == Action::Deploy && self.digest.is_none();
        let width = if finds_out { 1 } else { self.width() };
        let mut hosts = Vec::new();
        for target in self.targets.iter_mut().filter(|t| t.state == TargetState::Waiting).take(width) {
            target.state = TargetState::Assigned;
            hosts.push(target.host.clone());
        }
        for host in &hosts {
            self.note(now, ASSIGNED, Some(host.clone()));
        }
        effects.push(Effect::Assign { hosts });
    }

    /// Whether hosts that were switched are to run again what they ran before.
    fn goes_back(&self) -> bool {
        self.action == Action::Deploy && self.rollback_on_failure && self.targets.iter().any(|t| self.can_return(t))
    }

    /// It was switched, and it is known what was there before. Where that is not known, or may have been a container that
    /// is not ours, a removal would leave nothing running: the new version stays.
    fn can_return(&self, target: &Target) -> bool {
        target.state == TargetState::Succeeded && (target.previous.is_some() || !target.unclear && !self.adopts)
    }

    fn send_back(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let width = self.width().min(RETURN_WIDTH);
        let mut hosts = Vec::new();
        let returning: Vec<_> =
            self.targets.iter().enumerate().filter(|(_, t)| self.can_return(t)).map(|(n, _)| n).take(width).collect();
        for n in returning {
            let target = &mut self.targets[n];
            target.state = TargetState::Returning;
            hosts.push(Return { host: target.host.clone(), epoch: target.epoch.next(), to: target.previous.clone() });
        }
        for back in &hosts {
            self.note(now, ASSIGNED, Some(back.host.clone()));
        }
        effects.push(Effect::Return { hosts });
    }

    fn finish(&mut self, end: Status, now: Timestamp, effects: &mut Vec<Effect>) {
        self.status = end;
        self.completed_at = Some(now);
        self.note(now, self.status.name(), None);
        if let (Status::Succeeded, Action::Deploy, Some(version), Some(digest)) =
            (&self.status, self.action, &self.version, &self.digest)
        {
            effects.push(Effect::Release { version: version.clone(), digest: digest.clone() });
        }
        effects.push(Effect::Finish);
    }

    fn refuse(&mut self, end: Status, now: Timestamp, effects: &mut Vec<Effect>) {
        self.skip_the_rest();
        self.finish(end, now, effects);
    }

    fn end(&self) -> Status {
        let touched = || self.targets.iter().filter(|t| !is_untouched(&t.state));
        if self.cancel_requested.is_some() {
            return if touched().next().is_some() && touched().all(|t| t.state == TargetState::Succeeded) {
                // It was too late for every host that had it. Those left out are what was called off.
                if self.targets.iter().all(|t| t.state == TargetState::Succeeded) {
                    Status::Succeeded
                } else {
                    Status::Cancelled { running: Running::Mixed }
                }
            } else {
                Status::Cancelled { running: self.what_runs() }
            };
        }
        if touched().next().is_none() {
            // Every host is being drained.
            return Status::Cancelled { running: self.what_runs() };
        }
        if touched().all(|t| t.state == TargetState::Succeeded) {
            return Status::Succeeded;
        }
        let back = |t: &Target| {
            matches!(t.state, TargetState::RolledBack { .. } | TargetState::Returned { running: Running::Previous })
        };
        // It was not switched, or it runs nothing again, as before.
        let unswitched = |t: &Target| match &t.state {
            TargetState::Failed { running, .. } => *running == Running::Previous || *running == before(t),
            TargetState::Returned { running } => *running == before(t),
            TargetState::Waiting
            | TargetState::Assigned
            | TargetState::Running
            | TargetState::Succeeded
            | TargetState::RolledBack { .. }
            | TargetState::Returning
            | TargetState::Skipped
            | TargetState::Cancelled => false,
        };
        if touched().any(back) && touched().all(|t| back(t) || unswitched(t)) {
            return Status::RolledBack;
        }
        Status::Failed { running: self.what_runs() }
    }

    /// On all hosts that were not left out; if every one was, what ran there before.
    fn what_runs(&self) -> Running {
        let of_target = |t: &Target| match &t.state {
            TargetState::Succeeded => Running::New,
            TargetState::Returned { running } | TargetState::Failed { running, .. } => *running,
            TargetState::RolledBack { .. } => Running::Previous,
            TargetState::Cancelled | TargetState::Skipped => before(t),
            TargetState::Waiting | TargetState::Assigned | TargetState::Running | TargetState::Returning => {
                Running::Mixed
            }
        };
        let touched: Vec<_> = self.targets.iter().filter(|t| !is_untouched(&t.state)).map(of_target).collect();
        let all: Vec<_> = if touched.is_empty() { self.targets.iter().map(before).collect() } else { touched };
        let first = all.first().copied().unwrap_or(Running::None);
        if all.iter().all(|r| *r == first) { first } else { Running::Mixed }
    }
}

impl Target {
    /// What its host says of its assignment; the digest that it was deployed by.
    fn end(&mut self, epoch: Epoch, outcome: Outcome) -> Option<Digest> {
        self.epoch = epoch;
        let goes_back = self.state == TargetState::Returning;
        let (state, pinned) = match outcome {
            Outcome::Succeeded { .. } if goes_back => (TargetState::Returned { running: before(self) }, None),
            Outcome::Succeeded { digest } => (TargetState::Succeeded, digest),
            // What it is to go back from is what "previous" is to the host, and what it is to go back to is the order's "new".
            Outcome::Failed { error, running, .. } if goes_back => {
                let running = match running {
                    Running::Previous => Running::New,
                    Running::New => before(self),
                    Running::Mixed | Running::None => running,
                };
                (TargetState::Failed { error, running }, None)
            }
            Outcome::Failed { error, switched: false, .. } if error.code == ErrorCode::Cancelled => {
                (TargetState::Cancelled, None)
            }
            Outcome::Failed { error, switched: true, running: Running::Previous } => {
                (TargetState::RolledBack { error }, None)
            }
            Outcome::Failed { error, running, .. } => (TargetState::Failed { error, running }, None),
        };
        self.state = state;
        pinned
    }
}

fn before(target: &Target) -> Running {
    if target.previous.is_some() { Running::Previous } else { Running::None }
}

fn is_untouched(state: &TargetState) -> bool {
    matches!(state, TargetState::Skipped | TargetState::Cancelled)
}

fn ended(state: &TargetState) -> &'static str {
    match state {
        TargetState::Succeeded => "host-succeeded",
        TargetState::RolledBack { .. } | TargetState::Returned { .. } => "host-rolled-back",
        TargetState::Cancelled => "host-cancelled",
        TargetState::Waiting
        | TargetState::Assigned
        | TargetState::Running
        | TargetState::Returning
        | TargetState::Skipped
        | TargetState::Failed { .. } => "host-failed",
    }
}

impl Event {
    fn name(&self) -> &'static str {
        match self {
            Self::Activated => "an activation",
            Self::HostStarted { .. } => "a host's start",
            Self::HostFinished { .. } => "a host's end",
            Self::HostUnreachable { .. } => "a host's absence",
            Self::Cancelled { .. } => "a cancellation",
            Self::Superseded { .. } => "a supersession",
            Self::Decided(Decision { verdict: Verdict::TimedOut, .. }) => "the end of its time",
            Self::Decided(_) => "a decision",
        }
    }
}
