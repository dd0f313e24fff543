use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn digest() -> Digest {
    Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap()
}

fn host(n: usize) -> HostName {
    HostName::parse(&format!("h{n}")).unwrap()
}

fn queued(hosts: usize, max_parallel: u32) -> Deployment {
    Deployment {
        id: DeploymentId::new(at(0), [0; 10]),
        application_id: ApplicationId(1),
        application_name: "shop".to_owned(),
        action: Action::Deploy,
        version: Version::parse("v1").ok(),
        digest: Some(digest()),
        sequence: Some(Sequence(1)),
        trigger: Trigger { kind: TriggerKind::Webhook, source: None, actor: "token".to_owned(), author: None },
        created_at: at(0),
        started_at: None,
        completed_at: None,
        status: Status::Queued,
        targets: (0..hosts).map(|n| Target::waiting(host(n))).collect(),
        max_parallel,
        rollback_on_failure: false,
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

fn failed(switched: bool, running: Running) -> Outcome {
    let error = TargetError {
        code: ErrorCode::Unhealthy,
        message: String::new(),
        suggestion: String::new(),
        exit_code: None,
        oom_killed: false,
        log_tail: Vec::new(),
    };
    Outcome::Failed { error, switched, running }
}

fn succeeded() -> Outcome {
    Outcome::Succeeded { digest: Some(digest()) }
}

fn finished(n: usize, outcome: Outcome) -> Event {
    finished_at(n, 1, outcome)
}

fn finished_at(n: usize, epoch: u64, outcome: Outcome) -> Event {
    Event::HostFinished {
        host: host(n),
        epoch: Epoch(epoch),
        started_at: Some(at(1)),
        completed_at: at(2),
        progress: Progress::default(),
        outcome,
    }
}

fn run(mut deployment: Deployment, events: Vec<Event>) -> (Deployment, Vec<Effect>) {
    let mut all = Vec::new();
    for event in events {
        let (next, effects) = deployment.step(event, at(3)).unwrap();
        deployment = next;
        all.extend(effects);
    }
    (deployment, all)
}

#[test]
fn every_end_says_what_runs() {
    let check = |outcomes: Vec<Outcome>, expect: Status| {
        let count = outcomes.len();
        let mut events = vec![Event::Activated];
        events.extend(outcomes.into_iter().enumerate().map(|(n, outcome)| finished(n, outcome)));
        let stays = Deployment { rollback_on_failure: false, ..with_former(count, 20) };
        let (deployment, effects) = run(stays, events);
        assert_eq!(deployment.status, expect);
        assert_eq!(effects.iter().filter(|e| **e == Effect::Finish).count(), 1);
        assert_eq!(
            effects.contains(&Effect::Release { version: Version::parse("v1").unwrap(), digest: digest() }),
            expect == Status::Succeeded
        );
        assert_eq!(deployment.completed_at, Some(at(3)));
    };
    check(vec![succeeded()], Status::Succeeded);
    check(vec![succeeded(), succeeded()], Status::Succeeded);
    check(vec![failed(false, Running::Previous)], Status::Failed { running: Running::Previous });
    check(vec![failed(true, Running::Previous)], Status::RolledBack);
    check(vec![failed(true, Running::None)], Status::Failed { running: Running::None });
    check(vec![succeeded(), failed(true, Running::Previous)], Status::Failed { running: Running::Mixed });
    check(vec![failed(false, Running::Previous), failed(true, Running::Previous)], Status::RolledBack);
    check(
        vec![failed(true, Running::None), failed(true, Running::Previous)],
        Status::Failed { running: Running::Mixed },
    );
}

#[test]
fn a_failed_wave_stops_the_rollout() {
    let (deployment, effects) = run(
        queued(3, 1),
        vec![Event::Activated, finished(0, succeeded()), finished(1, failed(true, Running::Previous))],
    );
    assert_eq!(deployment.targets[2].state, TargetState::Skipped);
    let assigned: Vec<_> = effects.iter().filter(|e| matches!(e, Effect::Assign { .. })).collect();
    assert_eq!(assigned, [&Effect::Assign { hosts: vec![host(0)] }, &Effect::Assign { hosts: vec![host(1)] }]);
}

#[test]
fn the_first_host_finds_out_what_a_tag_means() {
    let unknown = Deployment { digest: None, ..queued(4, 3) };
    let (deployment, effects) = run(unknown, vec![Event::Activated]);
    assert_eq!(effects, [Effect::Assign { hosts: vec![host(0)] }]);
    let (deployment, effects) = run(deployment, vec![finished(0, succeeded())]);
    assert_eq!(effects, [Effect::Assign { hosts: vec![host(1), host(2), host(3)] }]);
    assert_eq!(deployment.digest, Some(digest()));
}

#[test]
fn a_host_that_was_never_asked_cannot_report() {
    let (deployment, _) = run(queued(2, 1), vec![Event::Activated]);
    assert!(deployment.clone().step(finished(1, succeeded()), at(3)).is_err());
    assert!(deployment.step(finished(7, succeeded()), at(3)).is_err());
}

/// Every host ran something before.
fn with_former(hosts: usize, max_parallel: u32) -> Deployment {
    let mut deployment = Deployment { rollback_on_failure: true, ..queued(hosts, max_parallel) };
    for target in &mut deployment.targets {
        target.previous = Some(former());
    }
    deployment
}

fn before() -> DeploymentId {
    DeploymentId::new(at(0), [9; 10])
}

fn former() -> Runs {
    Runs { release: before(), version: Version::parse("v0").unwrap(), digest: digest() }
}

fn cancel(unclaimed: &[usize]) -> Event {
    let request = CancelRequest { at: at(3), by: "ada".to_owned() };
    Event::Cancelled { request, unclaimed: unclaimed.iter().map(|n| host(*n)).collect() }
}

fn cancelled() -> Outcome {
    Outcome::Failed {
        error: TargetError::new(ErrorCode::Cancelled, "", ""),
        switched: false,
        running: Running::Previous,
    }
}

fn back(n: usize, to: Option<Runs>) -> Return {
    Return { host: host(n), epoch: Epoch(2), to }
}

#[test]
fn hosts_that_were_switched_go_back_when_another_fails() {
    let until_the_failure = vec![
        Event::Activated,
        finished(0, succeeded()),
        finished(1, succeeded()),
        finished(2, failed(true, Running::Previous)),
    ];
    let (deployment, effects) = run(with_former(4, 2), until_the_failure);
    // The other host of the failed wave is waited for.
    assert_eq!(deployment.status, Status::Running);
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Return { .. })).count(), 0);
    let (deployment, effects) = run(deployment, vec![finished(3, succeeded())]);
    assert_eq!(effects, [Effect::Return { hosts: vec![back(0, Some(former())), back(1, Some(former()))] }]);
    // What is told once more of the way there is not the way back.
    let (deployment, effects) = run(deployment, vec![finished(0, succeeded())]);
    assert_eq!((&deployment.targets[0].state, effects.len()), (&TargetState::Returning, 0));
    let (deployment, effects) = run(deployment, vec![finished_at(0, 3, succeeded()), finished_at(1, 3, succeeded())]);
    assert_eq!(effects, [Effect::Return { hosts: vec![back(3, Some(former()))] }]);
    let (deployment, effects) = run(deployment, vec![finished_at(3, 3, succeeded())]);
    assert_eq!((&deployment.status, effects), (&Status::RolledBack, vec![Effect::Finish]));
    assert_eq!(deployment.error().map(|e| e.code), Some(ErrorCode::Unhealthy));
}

#[test]
fn a_way_back_that_fails_is_told_and_does_not_stop_the_others() {
    let events = vec![
        Event::Activated,
        finished(0, succeeded()),
        finished(1, succeeded()),
        finished(2, failed(false, Running::Previous)),
        finished_at(0, 3, failed(true, Running::Previous)),
        finished_at(1, 3, succeeded()),
    ];
    let (deployment, effects) = run(with_former(3, 1), events);
    assert_eq!(effects.iter().filter(|e| matches!(e, Effect::Return { .. })).count(), 2);
    // The first host runs what it was to go back from.
    assert_eq!(deployment.status, Status::Failed { running: Running::Mixed });
    assert_eq!(deployment.targets[0].state.name(), "failed");
}

#[test]
fn what_runs_after_a_way_back_that_failed_is_told_as_the_deployment_sees_it() {
    for (told, running) in [
        (Running::Previous, Running::New),
        (Running::New, Running::Previous),
        (Running::None, Running::None),
        (Running::Mixed, Running::Mixed),
    ] {
        let fails = finished(1, failed(true, Running::Previous));
        let events = vec![Event::Activated, finished(0, succeeded()), fails, finished_at(0, 3, failed(true, told))];
        let (deployment, _) = run(with_former(2, 1), events);
        let TargetState::Failed { running: seen, .. } = deployment.targets[0].state else { panic!("{deployment:?}") };
        assert_eq!(seen, running, "{told:?}");
    }
}

#[test]
fn an_alarm_is_due_where_what_ran_before_is_not_back() {
    let not_restored = Outcome::Failed {
        error: TargetError::new(ErrorCode::RestoreFailed, "", ""),
        switched: true,
        running: Running::Mixed,
    };
    let (there, _) = run(with_former(2, 1), vec![Event::Activated]);
    let (back, _) = run(there.clone(), vec![finished(0, succeeded()), finished(1, failed(true, Running::Previous))]);
    assert_eq!(back.targets[0].state, TargetState::Returning);
    let of = |deployment: &Deployment, outcome: &Outcome| deployment.needs_an_alarm(&host(0), outcome);
    for (outcome, on_the_way_there, on_the_way_back) in [
        (succeeded(), false, false),
        (failed(true, Running::Previous), false, true),
        (failed(false, Running::Mixed), false, true),
        (not_restored, true, true),
    ] {
        assert_eq!((of(&there, &outcome), of(&back, &outcome)), (on_the_way_there, on_the_way_back), "{outcome:?}");
    }
}

#[test]
fn a_host_that_ran_nothing_before_goes_back_to_nothing() {
    let mut deployment = with_former(2, 1);
    deployment.targets[0].previous = None;
    let events = vec![Event::Activated, finished(0, succeeded()), finished(1, failed(true, Running::Previous))];
    let (deployment, effects) = run(deployment, events);
    assert!(effects.contains(&Effect::Return { hosts: vec![back(0, None)] }));
    let (deployment, _) = run(deployment, vec![finished_at(0, 3, succeeded())]);
    assert_eq!(deployment.targets[0].state, TargetState::Returned { running: Running::None });
    // Every host is as it was.
    assert_eq!(deployment.status, Status::RolledBack);
}

#[test]
fn nothing_is_removed_from_a_host_where_something_may_have_run_before() {
    let check = |change: fn(&mut Deployment)| {
        let mut deployment = with_former(3, 1);
        deployment.targets[0].previous = None;
        change(&mut deployment);
        let fails = finished(2, failed(true, Running::Previous));
        let events = vec![Event::Activated, finished(0, succeeded()), finished(1, succeeded()), fails];
        let (deployment, effects) = run(deployment, events);
        let returns: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::Return { .. })).collect();
        assert_eq!(returns, [&Effect::Return { hosts: vec![back(1, Some(former()))] }]);
        let (deployment, _) = run(deployment, vec![finished_at(1, 3, succeeded())]);
        assert_eq!(deployment.targets[0].state, TargetState::Succeeded);
        assert_eq!(deployment.status, Status::Failed { running: Running::Mixed });
    };
    // Nobody knows what an earlier deployment has left there.
    check(|deployment| deployment.targets[0].unclear = true);
    // What was there may have been started by hand, and is gone.
    check(|deployment| deployment.adopts = true);
}

#[test]
fn a_host_that_stays_away_ends_as_unreachable() {
    let error = TargetError::new(ErrorCode::Unreachable, "", "");
    let away = |n| Event::HostUnreachable { host: host(n), epoch: Epoch(2), error: error.clone() };
    let (deployment, effects) = run(with_former(2, 1), vec![Event::Activated, finished(0, succeeded()), away(1)]);
    assert_eq!(deployment.targets[1].state.name(), "unreachable");
    assert!(effects.contains(&Effect::Return { hosts: vec![back(0, Some(former()))] }));
    // Word of the past: the sweep was first.
    let (deployment, effects) = run(deployment, vec![finished_at(1, 2, succeeded()), away(1)]);
    assert_eq!((deployment.targets[1].state.name(), effects.len()), ("unreachable", 0));
    let (deployment, _) = run(deployment, vec![finished_at(0, 3, succeeded())]);
    assert_eq!(deployment.status, Status::Failed { running: Running::Mixed });
}

#[test]
fn a_deployment_that_is_called_off_ends_when_nobody_is_at_work() {
    let check = |hosts: usize, events: Vec<Event>, expect: Status| {
        let mut all = vec![Event::Activated];
        all.extend(events);
        let (deployment, effects) = run(with_former(hosts, 2), all);
        assert_eq!(deployment.status, expect);
        assert_eq!(effects.iter().filter(|e| **e == Effect::Finish).count(), usize::from(deployment.status.is_final()));
    };
    let previous = || Status::Cancelled { running: Running::Previous };
    check(2, vec![cancel(&[0, 1])], previous());
    check(2, vec![cancel(&[0])], Status::Queued);
    check(2, vec![cancel(&[0]), finished(1, cancelled())], previous());
    // One was too late, and goes back.
    check(3, vec![cancel(&[0]), finished(1, succeeded())], Status::Running);
    check(3, vec![cancel(&[0]), finished(1, succeeded()), finished_at(1, 3, succeeded())], previous());
    check(2, vec![cancel(&[]), finished(0, cancelled()), finished(1, cancelled())], previous());

    let (waiting, effects) = run(with_former(1, 1), vec![cancel(&[])]);
    // Nobody had anything to do yet.
    assert_eq!((&waiting.status, effects), (&previous(), vec![Effect::Finish]));
    assert!(waiting.step(cancel(&[]), at(4)).is_err());
}

#[test]
fn only_what_was_not_begun_is_superseded() {
    let (deployment, effects) = run(queued(2, 1), vec![Event::Superseded { by: Some(before()) }]);
    assert_eq!(deployment.status, Status::Superseded { by: Some(before()) });
    assert_eq!(effects, [Effect::Finish]);
    assert_eq!(deployment.clone().step(Event::Activated, at(4)).unwrap(), (deployment, Vec::new()));
    let (begun, _) = run(queued(2, 1), vec![Event::Activated]);
    assert!(begun.step(Event::Superseded { by: None }, at(4)).is_err());
}

#[test]
fn a_host_that_is_drained_is_left_out() {
    let drained = |ns: &[usize]| ns.iter().map(|n| host(*n)).collect::<BTreeSet<_>>();
    let mut deployment = queued(3, 1);
    deployment.skip_drained(&drained(&[1]), at(1));
    let (deployment, _) = run(deployment, vec![Event::Activated, finished(0, succeeded()), finished(2, succeeded())]);
    assert_eq!((&deployment.status, deployment.targets[1].state.name()), (&Status::Succeeded, "skipped"));

    let mut deployment = queued(2, 1);
    deployment.skip_drained(&drained(&[0, 1]), at(1));
    let (deployment, effects) = run(deployment, vec![Event::Activated]);
    assert_eq!(deployment.status, Status::Cancelled { running: Running::None });
    assert_eq!(effects, [Effect::Finish]);
}

#[test]
fn other_actions_leave_no_release_and_do_not_go_back() {
    let stop = Deployment { action: Action::Stop, rollback_on_failure: true, ..with_former(2, 1) };
    let events = vec![Event::Activated, finished(0, succeeded()), finished(1, failed(false, Running::Previous))];
    let (deployment, effects) = run(stop.clone(), events);
    assert_eq!(deployment.status, Status::Failed { running: Running::Mixed });
    assert!(!effects.iter().any(|e| matches!(e, Effect::Return { .. })));
    let (_, effects) = run(stop, vec![Event::Activated, finished(0, succeeded()), finished(1, succeeded())]);
    assert!(!effects.iter().any(|e| matches!(e, Effect::Release { .. })));
}

proptest! {
    /// Whatever the order, and however often the same thing is told: it ends once, only when nobody is at work, and no host
    /// is asked for two things at once.
    #[test]
    fn it_ends_exactly_once(
        hosts in 1_usize..6,
        width in 1_u32..4,
        goes_back in any::<bool>(),
        tells in prop::collection::vec((0_usize..6, 0_u8..9, 1_u64..5), 0..80),
    ) {
        let start = Deployment { rollback_on_failure: goes_back, ..with_former(hosts, width) };
        let (mut deployment, mut effects) = run(start, vec![Event::Activated]);
        for (n, kind, epoch) in tells {
            let error = TargetError::new(ErrorCode::Unreachable, "", "");
            let event = match kind {
                0 => Event::HostStarted { host: host(n), at: at(1) },
                1 | 2 => finished_at(n, epoch, succeeded()),
                3 => finished_at(n, epoch, failed(true, Running::Previous)),
                4 => finished_at(n, epoch, failed(true, Running::None)),
                5 => Event::HostUnreachable { host: host(n), epoch: Epoch(epoch), error },
                6 => cancel(&[n]),
                7 => finished_at(n, epoch, cancelled()),
                _ => Event::Activated,
            };
            let was = deployment.clone();
            if let Ok((next, more)) = deployment.clone().step(event, at(3)) {
                prop_assert!(!was.status.is_final() || (next == was && more.is_empty()));
                for effect in &more {
                    let asked: Vec<_> = match effect {
                        Effect::Assign { hosts } => hosts.clone(),
                        Effect::Return { hosts } => hosts.iter().map(|back| back.host.clone()).collect(),
                        Effect::Finish | Effect::Release { .. } => Vec::new(),
                    };
                    let open: Vec<_> = next.open_hosts().collect();
                    prop_assert!(asked.iter().all(|host| open.contains(&host)));
                    prop_assert!(asked.is_empty() || asked.len() == open.len());
                }
                deployment = next;
                effects.extend(more);
            }
        }
        let ends = effects.iter().filter(|e| **e == Effect::Finish).count();
        prop_assert_eq!(ends, usize::from(deployment.status.is_final()));
        let at_work = deployment.open_hosts().count();
        prop_assert_eq!(at_work == 0, deployment.status.is_final());
        prop_assert!(at_work <= width as usize);
        let waits = deployment.targets.iter().any(|t| t.state == TargetState::Waiting);
        prop_assert!(!(waits && deployment.status.is_final()));
        let released = effects.iter().any(|e| matches!(e, Effect::Release { .. }));
        prop_assert_eq!(released, deployment.status == Status::Succeeded);
    }
}
