use super::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn ago(seconds: i64) -> Timestamp {
    NOW - SignedDuration::from_secs(seconds)
}

fn deployment(number: u8) -> DeploymentId {
    DeploymentId::new(NOW, [number; 10])
}

fn digest(letter: char) -> Digest {
    Digest::parse(&format!("sha256:{}", letter.to_string().repeat(64))).unwrap()
}

fn container() -> ContainerReport {
    ContainerReport {
        application_id: ApplicationId(1),
        deployment_id: deployment(1),
        name: "web".to_owned(),
        place: Place::Current,
        digest: Some(digest('a')),
        state: ContainerState::Running,
        exit_code: None,
        health: None,
        restarts: Some(0),
        started_at: Some(ago(3_600)),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Left {
    Running,
    Stopped,
}

/// One case: deployment 1 was left running an hour ago, the heartbeat is ten seconds old.
struct Case {
    left: Option<Left>,
    chosen: bool,
    changing: bool,
    worked_at: Option<Timestamp>,
    at: Option<Timestamp>,
    containers: Option<Vec<ContainerReport>>,
    cut: bool,
}

impl Case {
    fn seeing(containers: Vec<ContainerReport>) -> Self {
        Self {
            left: Some(Left::Running),
            chosen: true,
            changing: false,
            worked_at: Some(ago(3_600)),
            at: Some(ago(10)),
            containers: Some(containers),
            cut: false,
        }
    }

    fn seeing_one(change: impl FnOnce(&mut ContainerReport)) -> Self {
        let mut one = container();
        change(&mut one);
        Self::seeing(vec![one])
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn stands(&self) -> Option<(State, Option<Drift>)> {
        let digest = digest('a');
        let expected = |left| Expected { release: deployment(1), digest: &digest, stopped: left == Left::Stopped };
        let known = Known {
            application: ApplicationId(1),
            expected: self.left.map(expected),
            chosen: self.chosen,
            changing: self.changing,
            worked_at: self.worked_at,
        };
        let sight = self.at.map(|at| Sight { at, containers: self.containers.as_deref(), cut: self.cut });
        standing(&known, sight.as_ref(), NOW).map(|standing| (standing.state, standing.drift))
    }
}

#[track_caller]
fn check(case: &Case, state: State, drift: Option<Drift>) {
    assert_eq!(case.stands(), Some((state, drift)));
}

#[test]
fn what_is_as_it_was_left_does_not_drift() {
    check(&Case::seeing(vec![container()]), State::Running, None);
    let stopped = Case::seeing_one(|c| c.state = ContainerState::Exited).with(|case| case.left = Some(Left::Stopped));
    check(&stopped, State::Stopped, None);
    let beside = ContainerReport { application_id: ApplicationId(2), deployment_id: deployment(2), ..container() };
    let aside = ContainerReport { place: Place::Aside, deployment_id: deployment(9), ..container() };
    check(&Case::seeing(vec![beside, aside, container()]), State::Running, None);
    check(&Case::seeing_one(|c| c.digest = None), State::Running, None);
}

#[test]
fn each_way_of_drifting_has_its_word() {
    let stopped = |state: ContainerState| Case::seeing_one(move |c| c.state = state);
    check(&Case::seeing(vec![]), State::Vanished, Some(Drift::Vanished));
    check(&Case::seeing(vec![]).with(|case| case.left = Some(Left::Stopped)), State::Vanished, Some(Drift::Vanished));
    for state in [ContainerState::Created, ContainerState::Exited, ContainerState::Dead] {
        check(&stopped(state), State::Stopped, Some(Drift::Stopped));
    }
    check(&stopped(ContainerState::Paused), State::Paused, Some(Drift::Paused));
    check(&stopped(ContainerState::Restarting), State::Restarting, Some(Drift::Restarting));
    for (state, shown) in [(ContainerState::Running, State::Running), (ContainerState::Restarting, State::Restarting)] {
        check(&stopped(state).with(|case| case.left = Some(Left::Stopped)), shown, Some(Drift::Started));
    }
    check(&Case::seeing_one(|c| c.place = Place::Renamed), State::Running, Some(Drift::Renamed));
    check(&Case::seeing_one(|c| c.deployment_id = deployment(2)), State::Running, Some(Drift::Changed));
    check(&Case::seeing_one(|c| c.digest = Some(digest('b'))), State::Running, Some(Drift::Changed));
    check(&Case::seeing(vec![container()]).with(|case| case.chosen = false), State::Running, Some(Drift::Orphan));
    check(&Case::seeing(vec![container()]).with(|case| case.left = None), State::Running, Some(Drift::Orphan));
}

#[test]
fn only_the_expected_one_can_be_found_under_another_name() {
    let renamed = |number| ContainerReport { place: Place::Renamed, deployment_id: deployment(number), ..container() };
    check(&Case::seeing(vec![renamed(2)]), State::Vanished, Some(Drift::Vanished));
    check(&Case::seeing(vec![renamed(2), renamed(1)]), State::Running, Some(Drift::Renamed));
    check(&Case::seeing(vec![renamed(1), container()]), State::Running, None);
}

#[test]
fn one_that_was_set_aside_and_is_not_back_is_there_and_not_vanished() {
    let aside = |number, state| ContainerReport {
        place: Place::Aside,
        deployment_id: deployment(number),
        state,
        ..container()
    };
    let (runs, ended) = (|| aside(1, ContainerState::Running), || aside(1, ContainerState::Exited));
    check(&Case::seeing(vec![ended()]), State::Stopped, Some(Drift::Aside));
    check(&Case::seeing(vec![ended(), runs()]), State::Running, Some(Drift::Aside));
    check(&Case::seeing(vec![runs(), container()]), State::Running, None);
    check(&Case::seeing(vec![aside(2, ContainerState::Running)]), State::Vanished, Some(Drift::Vanished));
    // A switch under way.
    check(&Case::seeing(vec![ended()]).with(|case| case.changing = true), State::Unknown, None);
    assert_eq!(Case::seeing(vec![ended()]).with(|case| case.left = None).stands(), None);
}

#[test]
fn one_that_restarted_often_and_just_now_keeps_restarting() {
    for (restarts, up_seconds, keeps) in
        [(Some(3), 5, true), (Some(2), 5, false), (Some(50), 600, false), (None, 5, false), (Some(3), 109, true)]
    {
        let case = Case::seeing_one(|c| {
            c.restarts = restarts;
            c.started_at = Some(ago(10 + up_seconds));
        });
        let drift = keeps.then_some(Drift::Restarting);
        assert_eq!(case.stands(), Some((State::Running, drift)), "{restarts:?} up for {up_seconds} s");
    }
}

#[test]
fn what_cannot_be_seen_is_unknown_and_no_drift() {
    let seen = || Case::seeing(vec![]);
    check(&seen().with(|case| case.at = None), State::Unknown, None);
    check(&seen().with(|case| case.at = Some(ago(90))), State::Unknown, None);
    check(&seen().with(|case| case.at = Some(ago(89))), State::Vanished, Some(Drift::Vanished));
    // A clock that is ahead.
    check(&seen().with(|case| case.at = Some(ago(-60))), State::Vanished, Some(Drift::Vanished));
    check(&seen().with(|case| case.containers = None), State::Unknown, None);
    check(&seen().with(|case| case.cut = true), State::Unknown, None);
    check(&Case::seeing(vec![container()]).with(|case| case.cut = true), State::Running, None);
}

#[test]
fn nothing_drifts_while_it_is_being_changed() {
    check(&Case::seeing(vec![]).with(|case| case.changing = true), State::Unknown, None);
    let changed = || Case::seeing_one(|c| c.deployment_id = deployment(2)).with(|case| case.changing = true);
    check(&changed(), State::Running, None);
    check(&changed().with(|case| case.chosen = false), State::Running, None);
    assert_eq!(changed().with(|case| case.left = None).stands(), None);
}

#[test]
fn a_look_from_before_the_last_work_says_nothing() {
    let before = |left| {
        Case::seeing(vec![]).with(|case| {
            case.worked_at = Some(ago(9));
            case.left = Some(left);
        })
    };
    check(&before(Left::Running), State::Running, None);
    check(&before(Left::Stopped), State::Stopped, None);
    check(&before(Left::Running).with(|case| case.worked_at = Some(ago(10))), State::Vanished, Some(Drift::Vanished));
    // Removed a second ago: the look before that still saw it.
    let removed = Case::seeing(vec![container()]).with(|case| {
        case.left = None;
        case.worked_at = Some(ago(9));
    });
    assert_eq!(removed.stands(), None);
}

#[test]
fn where_nothing_was_left_and_nothing_is_there_is_nothing_to_say() {
    let nothing = || Case::seeing(vec![]).with(|case| case.left = None);
    assert_eq!(nothing().stands(), None);
    assert_eq!(nothing().with(|case| case.at = None).stands(), None);
    assert_eq!(nothing().with(|case| case.cut = true).stands(), None);
}
