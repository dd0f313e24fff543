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
    let target = |n| Target {
        host: host(n),
        state: TargetState::Waiting,
        started_at: None,
        completed_at: None,
        progress: Progress::default(),
    };
    Deployment {
        id: DeploymentId::new(at(0), [0; 10]),
        application_id: ApplicationId(1),
        application_name: "shop".to_owned(),
        version: Version::parse("v1").ok(),
        digest: None,
        sequence: Some(Sequence(1)),
        trigger: Trigger { kind: TriggerKind::Webhook, source: None, actor: "token".to_owned() },
        created_at: at(0),
        started_at: None,
        completed_at: None,
        status: Status::Queued,
        targets: (0..hosts).map(target).collect(),
        max_parallel,
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
    Outcome::Succeeded { digest: digest() }
}

fn finished(n: usize, outcome: Outcome) -> Event {
    Event::HostFinished {
        host: host(n),
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
        let (deployment, effects) = run(queued(count, 20), events);
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
fn a_host_that_was_never_asked_cannot_report() {
    let (deployment, _) = run(queued(2, 1), vec![Event::Activated]);
    assert!(deployment.clone().step(finished(1, succeeded()), at(3)).is_err());
    assert!(deployment.step(finished(7, succeeded()), at(3)).is_err());
}

proptest! {
    /// Whatever the order, and however often the same thing is told: it ends once, and only when all is settled.
    #[test]
    fn it_ends_exactly_once(hosts in 1_usize..6, width in 1_u32..4, tells in prop::collection::vec((0_usize..6, 0_u8..4), 0..60)) {
        let (mut deployment, mut effects) = run(queued(hosts, width), vec![Event::Activated]);
        for (n, kind) in tells {
            let event = match kind {
                0 => Event::HostStarted { host: host(n), at: at(1) },
                1 => finished(n, succeeded()),
                2 => finished(n, failed(true, Running::Previous)),
                _ => Event::Activated,
            };
            let was_final = deployment.status.is_final();
            if let Ok((next, more)) = deployment.clone().step(event, at(3)) {
                prop_assert!(!was_final || (next == deployment && more.is_empty()));
                deployment = next;
                effects.extend(more);
            }
        }
        let ends = effects.iter().filter(|e| **e == Effect::Finish).count();
        prop_assert_eq!(ends, usize::from(deployment.status.is_final()));
        let unsettled = deployment.targets.iter().any(|t| !t.state.is_settled());
        prop_assert_eq!(unsettled, !deployment.status.is_final());
        let in_flight = deployment.targets.iter().filter(|t| matches!(t.state, TargetState::Assigned | TargetState::Running)).count();
        prop_assert!(in_flight <= width as usize);
    }
}
