use proptest::prelude::*;
use tidegate_domain::{
    deployment::{Status, Target, Trigger, TriggerKind},
    id::ApplicationId,
};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn digest(n: u8) -> Digest {
    Digest::parse(&format!("sha256:{}", format!("{n:02x}").repeat(32))).unwrap()
}

fn id(n: u8) -> DeploymentId {
    DeploymentId::new(at(i64::from(n)), [n; 10])
}

fn host(n: u8) -> HostName {
    HostName::parse(&format!("h{n}")).unwrap()
}

fn runs(n: u8) -> Runs {
    Runs { release: id(n), version: Version::parse(&format!("v{n}")).unwrap(), digest: digest(n) }
}

/// Of version `n`, with one target in this state.
fn deployment(n: u8, action: Action, on: u8, state: TargetState) -> Deployment {
    let target = Target { state, ..Target::waiting(host(on)) };
    Deployment {
        id: id(n),
        application_id: ApplicationId(1),
        application_name: "shop".to_owned(),
        action,
        version: Version::parse(&format!("v{n}")).ok(),
        digest: Some(digest(n)),
        sequence: Some(Sequence(n.into())),
        trigger: Trigger { kind: TriggerKind::Webhook, source: None, actor: "token".to_owned(), author: None },
        created_at: at(0),
        started_at: None,
        completed_at: None,
        status: Status::Running,
        targets: vec![target],
        max_parallel: 1,
        rollback_on_failure: true,
        environment: None,
        sources: None,
        adopts: false,
        returns_to: None,
        carries_variables: false,
        retry_of: None,
        issue: None,
        approval: None,
        cancel_requested: None,
        timeline: Vec::new(),
    }
}

fn release(n: u8) -> Effect {
    Effect::Release { version: Version::parse(&format!("v{n}")).unwrap(), digest: digest(n) }
}

/// Version `n` on host 1, from start to success.
fn released(state: ApplicationState, n: u8) -> (ApplicationState, Vec<DeploymentId>) {
    let state = ApplicationState { active: Some(id(n)), ..state };
    let mut done = deployment(n, Action::Deploy, 1, TargetState::Succeeded);
    state.tell_what_runs(&mut done);
    state.after(Some(&host(1)), &done, &[release(n), Effect::Finish], at(n.into()))
}

#[test]
fn releases_are_kept_newest_first_and_old_snapshots_go() {
    let mut state = ApplicationState::default();
    for n in 1..=10 {
        let (next, unneeded) = released(state, n);
        assert_eq!(unneeded, []);
        state = next;
    }
    let (state, unneeded) = released(state, 11);
    assert_eq!(unneeded, [id(1)]);
    assert_eq!(state.releases.len(), KEPT_RELEASES);
    assert_eq!(state.release().map(|r| r.deployment_id), Some(id(11)));
    assert_eq!(state.former_release().map(|r| r.deployment_id), Some(id(10)));
    assert_eq!(state.hosts[&host(1)].runs, runs(11));
}

#[test]
fn a_snapshot_stays_as_long_as_a_host_runs_it() {
    let (state, _) = released(ApplicationState::default(), 1);
    let stays = HostRelease { runs: runs(1), stopped: false, at: at(1) };
    let mut state = ApplicationState { hosts: [(host(2), stays)].into(), ..state };
    for n in 2..=12 {
        let (next, unneeded) = released(state, n);
        assert!(!unneeded.contains(&id(1)), "{n}");
        state = next;
    }
    state.active = Some(id(13));
    let mut moved = deployment(13, Action::Deploy, 2, TargetState::Succeeded);
    state.tell_what_runs(&mut moved);
    // Should another host fail, this one goes back to it.
    let (state, unneeded) = state.after(Some(&host(2)), &moved, &[], at(13));
    assert_eq!(unneeded, []);
    // It has failed elsewhere without a way back, and is what this host runs.
    let (state, unneeded) = state.after(None, &moved, &[Effect::Finish], at(14));
    assert_eq!((unneeded, state.hosts[&host(2)].runs.release), (vec![id(1)], id(13)));
    // What is returned to by default is what all hosts ran last, as not all do.
    assert_eq!(state.former_release().map(|r| r.deployment_id), Some(id(12)));
}

#[test]
fn what_a_host_runs_is_what_it_said_last() {
    let error = tidegate_domain::assignment::TargetError::new(
        tidegate_domain::assignment::ErrorCode::Unhealthy,
        "does not pass",
        "mend it",
    );
    let failed = |running| TargetState::Failed { error: error.clone(), running };
    let check = |action, state, expect: Option<(u8, bool)>| {
        let (before, _) = released(ApplicationState::default(), 1);
        let mut done = deployment(2, action, 1, state);
        done.targets[0].previous = Some(runs(1));
        let (after, _) = before.after(Some(&host(1)), &done, &[], at(2));
        let got = after.hosts.get(&host(1)).map(|h| (h.runs.clone(), h.stopped));
        assert_eq!(got, expect.map(|(n, stopped)| (runs(n), stopped)), "{done:?}");
    };
    check(Action::Deploy, TargetState::Succeeded, Some((2, false)));
    check(Action::Deploy, TargetState::RolledBack { error: error.clone() }, Some((1, false)));
    check(Action::Deploy, failed(Running::New), Some((2, false)));
    check(Action::Deploy, failed(Running::Previous), Some((1, false)));
    check(Action::Deploy, failed(Running::None), Some((1, false)));
    check(Action::Deploy, failed(Running::Mixed), Some((1, false)));
    check(Action::Deploy, TargetState::Returned { running: Running::Previous }, Some((1, false)));
    check(Action::Deploy, TargetState::Cancelled, Some((1, false)));
    check(Action::Stop, TargetState::Succeeded, Some((1, true)));
    check(Action::Stop, failed(Running::Previous), Some((1, false)));
    check(Action::Start, TargetState::Succeeded, Some((1, false)));
    check(Action::Start, failed(Running::None), Some((1, false)));
    check(Action::Restart, TargetState::Succeeded, Some((1, false)));
    check(Action::Remove, TargetState::Succeeded, None);
    check(Action::Remove, failed(Running::Previous), Some((1, false)));
    // An order that was not carried out changes nothing, whatever its host says that runs.
    for action in [Action::Stop, Action::Start, Action::Restart, Action::Remove] {
        for running in [Running::New, Running::Previous, Running::Mixed, Running::None] {
            check(action, failed(running), Some((1, false)));
        }
    }

    let (before, _) = released(ApplicationState::default(), 1);
    let nothing = deployment(1, Action::Deploy, 1, TargetState::Returned { running: Running::None });
    assert!(before.after(Some(&host(1)), &nothing, &[], at(2)).0.hosts.is_empty());
}

#[test]
fn what_was_stopped_is_stopped_after_a_way_back() {
    let (state, _) = released(ApplicationState::default(), 1);
    let stop = deployment(2, Action::Stop, 1, TargetState::Succeeded);
    let (mut state, _) = state.after(Some(&host(1)), &stop, &[], at(2));
    let mut next = deployment(3, Action::Deploy, 1, TargetState::Succeeded);
    state.tell_what_runs(&mut next);
    assert!(next.targets[0].stopped);
    (state, _) = state.after(Some(&host(1)), &next, &[], at(3));
    assert!(!state.hosts[&host(1)].stopped);
    next.targets[0].state = TargetState::Returned { running: Running::Previous };
    (state, _) = state.after(Some(&host(1)), &next, &[], at(4));
    assert_eq!((&state.hosts[&host(1)].runs, state.hosts[&host(1)].stopped), (&runs(1), true));
}

fn lost(n: u8, on: u8) -> Deployment {
    let error = tidegate_domain::assignment::TargetError::new(
        tidegate_domain::assignment::ErrorCode::Unreachable,
        "went away",
        "see whether it is up",
    );
    deployment(n, Action::Deploy, on, TargetState::Failed { error, running: Running::Mixed })
}

#[test]
fn what_may_run_on_a_host_that_went_away_is_not_taken_for_nothing() {
    let deployed = |n, state| deployment(n, Action::Deploy, 1, state);
    let failed = |running| match lost(3, 1).targets.remove(0).state {
        TargetState::Failed { error, .. } => TargetState::Failed { error, running },
        other => other,
    };
    let (state, unneeded) = ApplicationState::default().after(Some(&host(1)), &lost(1, 1), &[Effect::Finish], at(1));
    assert_eq!((&state.hosts, &state.left, unneeded), (&BTreeMap::new(), &BTreeMap::new(), vec![]));
    assert_eq!(state.occupied().collect::<Vec<_>>(), [&host(1)]);
    let mut next = deployed(2, TargetState::Waiting);
    state.tell_what_runs(&mut next);
    assert!(next.targets[0].previous.is_none() && next.targets[0].unclear);

    // What fails there, or is done with what is there, finds nothing out.
    for (action, end) in [
        (Action::Deploy, failed(Running::Previous)),
        (Action::Deploy, failed(Running::None)),
        (Action::Remove, failed(Running::New)),
        (Action::Stop, TargetState::Succeeded),
    ] {
        let (after, _) = state.after(Some(&host(1)), &deployment(2, action, 1, end), &[], at(2));
        assert_eq!((&after.unclear, &after.left), (&state.unclear, &state.left));
    }
    // The sealed configuration is needed for as long as something may run with it.
    let (known, unneeded) =
        state.after(Some(&host(1)), &deployed(2, TargetState::Succeeded), &[release(2), Effect::Finish], at(2));
    assert_eq!((known.unclear.len(), known.hosts[&host(1)].runs.release), (0, id(2)));
    assert_eq!(unneeded, [id(1)]);
    let removed = deployment(2, Action::Remove, 1, TargetState::Succeeded);
    let (gone, _) = state.after(Some(&host(1)), &removed, &[], at(2));
    assert_eq!((gone.occupied().count(), &gone.left), (0, &[(host(1), at(2))].into()));
}

#[test]
fn when_a_host_was_done_is_told_by_its_own_clock() {
    let done_at = |action, state, second| {
        let mut done = deployment(2, action, 1, state);
        done.targets[0].completed_at = Some(at(second));
        done
    };
    let (state, _) = released(ApplicationState::default(), 1);
    let (state, _) = state.after(Some(&host(1)), &done_at(Action::Stop, TargetState::Succeeded, 20), &[], at(30));
    assert_eq!((state.hosts[&host(1)].at, state.left.len()), (at(20), 0));
    let (state, _) = state.after(Some(&host(1)), &done_at(Action::Remove, TargetState::Succeeded, 21), &[], at(30));
    assert_eq!((state.hosts.len(), &state.left), (0, &[(host(1), at(21))].into()));
    let (state, _) = state.after(Some(&host(1)), &done_at(Action::Deploy, TargetState::Succeeded, 22), &[], at(30));
    assert_eq!((state.hosts[&host(1)].at, state.left.len()), (at(22), 0));
}

#[test]
fn the_next_in_line_gets_the_turn_and_one_that_leaves_the_line_is_gone() {
    let state = ApplicationState { active: Some(id(1)), queued: vec![id(2), id(3)], ..ApplicationState::default() };
    let leaves = deployment(2, Action::Deploy, 1, TargetState::Skipped);
    let (state, unneeded) = state.after(None, &leaves, &[Effect::Finish], at(1));
    assert_eq!((state.active, &state.queued, unneeded), (Some(id(1)), &vec![id(3)], vec![id(2)]));
    let ends = deployment(1, Action::Deploy, 1, TargetState::Skipped);
    let (state, _) = state.after(None, &ends, &[Effect::Finish], at(1));
    assert_eq!((state.active, state.queued), (Some(id(3)), vec![]));
}

proptest! {
    /// Whatever is deployed where: the snapshot of everything that can be returned to, or that a host runs, is kept.
    #[test]
    fn nothing_that_is_needed_is_thrown_away(steps in prop::collection::vec((1_u8..5, any::<bool>(), any::<bool>()), 1..60)) {
        let mut state = ApplicationState::default();
        let mut kept = Vec::new();
        for (n, (on, succeeds, releases)) in steps.into_iter().enumerate() {
            let n = u8::try_from(n + 1).unwrap();
            kept.push(id(n));
            state.active = Some(id(n));
            let error = tidegate_domain::assignment::TargetError::new(
                tidegate_domain::assignment::ErrorCode::Exited, "", "");
            let end = if succeeds { TargetState::Succeeded } else { TargetState::RolledBack { error } };
            let effects = if succeeds && releases { vec![release(n), Effect::Finish] } else { vec![Effect::Finish] };
            let mut done = deployment(n, Action::Deploy, on, end);
            state.tell_what_runs(&mut done);
            let (next, unneeded) = state.after(Some(&host(on)), &done, &effects, at(0));
            kept.retain(|id| !unneeded.contains(id));
            for needed in next.releases.iter().map(|r| r.deployment_id).chain(next.hosts.values().map(|h| h.runs.release)) {
                prop_assert!(kept.contains(&needed));
            }
            prop_assert_eq!(next.revision.0, state.revision.0 + 1);
            // At most one for each that is needed: nothing is kept for ever.
            prop_assert!(kept.len() <= next.releases.len() + next.hosts.len());
            state = next;
        }
    }
}
