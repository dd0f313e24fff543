use std::collections::BTreeMap;

use jiff::Timestamp;
use tidegate_domain::id::ApplicationId;

use super::*;
use crate::docker::{Container, label};

const OLD: &str = "01890a5d-ac96-774b-bcce-b302099a8051";
const NEW: &str = "01890a5d-ac96-774b-bcce-b302099a8052";
/// No way from any state to the goal is longer.
const MOST_STEPS: usize = 16;

fn seen(id: &str, deployment: &str, epoch: u64, running: bool) -> Seen {
    Seen {
        id: id.to_owned(),
        base: "shop".to_owned(),
        deployment: DeploymentId::parse(deployment).ok(),
        sequence: Some(Sequence(3)),
        epoch: Some(Epoch(epoch)),
        running,
        ..Seen::default()
    }
}

fn previous(seen: Seen) -> Previous {
    Previous { seen, should_run: true, revived: false, foreign: false, name_taken: false }
}

fn deploy_new(change: impl FnOnce(&mut Deploy)) -> Goal {
    let release = DeploymentId::parse(NEW).unwrap();
    let mut goal =
        Deploy { release, sequence: Sequence(4), epoch: Epoch(2), bake: false, adopt: false, stopped: false };
    change(&mut goal);
    Goal::Deploy(goal)
}

/// All steps from here, each as it is meant to go.
fn steps(goal: &Goal, mut engine: Observed, mut held: Held) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..MOST_STEPS {
        let step = next_step(goal, &engine, held);
        match step {
            Step::Done | Step::RefuseName | Step::RefuseOlder | Step::RefuseNothing | Step::RefuseLost => {
                steps.push(step);
                return steps;
            }
            Step::ProveLease => held = Held::Proven,
            Step::Check { .. } => held = Held::Checked,
            Step::Bake { .. } => held = Held::Baked,
            Step::StartPrevious { .. } if matches!(goal, Goal::Restart { .. }) => held = Held::Restarted,
            _ => {}
        }
        engine = engine.after(&step);
        // As a look would tell.
        engine.bakes |= matches!((&step, goal), (Step::Commit { .. }, Goal::Deploy(goal)) if goal.bake);
        steps.push(step);
    }
    panic!("does not end: {steps:?}");
}

fn a() -> String {
    "a".to_owned()
}

fn b() -> String {
    "b".to_owned()
}

const KEEP: UnnamedVolumes = UnnamedVolumes::Keep;

#[test]
fn the_switch_does_nothing_between_stopping_and_starting() {
    let current = Some(seen("a", OLD, 1, true));
    let engine = Observed { current, next: Some(seen("b", NEW, 2, false)), ..Observed::default() };
    let switch = [
        Step::SetAside { id: a(), name: "shop.tidegate-prev".to_owned() },
        Step::StopPrevious { id: a(), always: false },
        Step::StartNext { id: b() },
        Step::Check { id: b() },
        Step::Commit { id: b() },
    ];
    let ends =
        |baking: &[Step]| [&switch, baking, &[Step::RemovePrevious { id: a(), volumes: KEEP }, Step::Done]].concat();
    assert_eq!(steps(&deploy_new(|_| {}), engine.clone(), Held::Proven), ends(&[]));
    // With a bake time the former version goes only after it.
    let bake = [Step::Bake { id: b() }];
    assert_eq!(steps(&deploy_new(|goal| goal.bake = true), engine, Held::Proven), ends(&bake));
}

#[test]
fn what_was_stopped_takes_its_place_again_without_being_started() {
    let current = Some(seen("a", OLD, 1, true));
    let engine = Observed { current, next: Some(seen("b", NEW, 2, false)), ..Observed::default() };
    let way = [
        Step::SetAside { id: a(), name: "shop.tidegate-prev".to_owned() },
        Step::StopPrevious { id: a(), always: false },
        Step::Commit { id: b() },
        Step::RemovePrevious { id: a(), volumes: KEEP },
        Step::Done,
    ];
    assert_eq!(steps(&deploy_new(|goal| goal.stopped = true), engine, Held::Proven), way);
}

#[test]
fn what_fails_in_its_bake_time_gives_its_name_back_before_anything_else() {
    let release = DeploymentId::parse(NEW).unwrap();
    let engine = Observed {
        current: Some(seen("b", NEW, 2, true)),
        previous: Some(previous(seen("a", OLD, 1, false))),
        bakes: true,
        ..Observed::default()
    };
    assert_eq!(steps(&Goal::Settle, engine.clone(), Held::Nothing), [Step::Done], "somebody may go on with it");
    assert_eq!(
        steps(&Goal::Return { release }, engine, Held::Nothing),
        [
            Step::Uncommit { id: b(), name: "shop.tidegate-failed".to_owned() },
            Step::StopNext { id: b(), always: false },
            Step::RemoveNext { id: b(), volumes: KEEP },
            Step::StartPrevious { id: a(), always: false },
            Step::BringBack { id: a(), name: "shop".to_owned() },
            Step::Done,
        ]
    );
    let first = Observed { current: Some(seen("b", NEW, 2, false)), bakes: true, ..Observed::default() };
    let uncommit = Step::Uncommit { id: b(), name: "shop.tidegate-failed".to_owned() };
    let nothing_left = [uncommit, Step::RemoveNext { id: b(), volumes: KEEP }, Step::Done];
    assert_eq!(steps(&Goal::Return { release }, first, Held::Nothing), nothing_left);
}

#[test]
fn an_adopted_container_is_back_before_what_stands_beside_it_goes() {
    let foreign = Foreign { id: a(), base: "shop".to_owned(), running: true, always: true, is_managed: false };
    let engine =
        Observed { foreign: Some(foreign.clone()), next: Some(seen("b", NEW, 2, false)), ..Observed::default() };
    let adopt = deploy_new(|goal| goal.adopt = true);
    let set_aside = Step::SetAside { id: a(), name: "shop.tidegate-adopted-always".to_owned() };
    let way = steps(&adopt, engine.clone(), Held::Proven);
    assert_eq!(way[..2], [set_aside.clone(), Step::StopPrevious { id: a(), always: true }]);
    let mut failing = engine.clone().after(&set_aside);
    failing.next = Some(seen("b", NEW, 2, true));
    assert_eq!(
        steps(&Goal::Settle, failing, Held::Nothing),
        [
            Step::StopNext { id: b(), always: false },
            Step::StartPrevious { id: a(), always: true },
            Step::BringBack { id: a(), name: "shop".to_owned() },
            Step::RemoveNext { id: b(), volumes: UnnamedVolumes::Remove },
            Step::Done,
        ]
    );
    assert_eq!(next_step(&deploy_new(|_| {}), &engine, Held::Nothing), Step::RefuseName);
    let managed = Foreign { is_managed: true, ..foreign };
    let engine = Observed { foreign: Some(managed), ..Observed::default() };
    assert_eq!(next_step(&adopt, &engine, Held::Nothing), Step::RefuseName, "it is another worker's");
}

#[test]
fn the_other_orders_go_their_shortest_way() {
    let sequence = Sequence(3);
    let of = |running: bool, always: bool| Observed {
        current: Some(Seen { always, ..seen("a", OLD, 1, running) }),
        ..Observed::default()
    };
    let check = |goal: Goal, engine: Observed, expect: &[Step]| {
        assert_eq!(steps(&goal, engine, Held::Nothing), expect, "{goal:?}");
    };
    let (prove, check_it) = (|| Step::ProveLease, || Step::Check { id: a() });
    let stop = |always| Step::StopCurrent { id: a(), always };
    let start = |always| Step::StartCurrent { id: a(), always };
    check(Goal::Stop { sequence }, of(true, false), &[prove(), stop(false), Step::Done]);
    check(Goal::Stop { sequence }, of(false, false), &[Step::Done]);
    check(Goal::Stop { sequence }, Observed::default(), &[Step::Done]);
    check(Goal::Start { sequence }, of(false, true), &[prove(), start(true), check_it(), Step::Done]);
    check(Goal::Start { sequence }, of(true, false), &[check_it(), Step::Done]);
    check(Goal::Start { sequence }, Observed::default(), &[Step::RefuseNothing]);
    let aside = || Step::SetAside { id: a(), name: "shop.tidegate-prev".to_owned() };
    let again = |always| Step::StartPrevious { id: a(), always };
    let back = || Step::BringBack { id: a(), name: "shop".to_owned() };
    for running in [true, false] {
        check(
            Goal::Restart { sequence },
            of(running, true),
            &[prove(), aside(), again(true), back(), check_it(), Step::Done],
        );
    }
    check(Goal::Restart { sequence }, Observed::default(), &[Step::RefuseNothing]);
    let gone = Step::RemoveCurrent { id: a() };
    check(Goal::Remove { sequence }, of(true, false), &[prove(), stop(false), gone, Step::Done]);
    let strays = vec![seen("b", OLD, 1, true)];
    let stray = Observed { strays, ..Observed::default() };
    check(Goal::Remove { sequence }, stray, &[prove(), Step::RemoveStray { id: b() }, Step::Done]);
}

#[test]
fn an_older_order_changes_nothing() {
    let newer = Observed {
        current: Some(seen("a", OLD, 1, true)),
        next: Some(seen("b", NEW, 2, false)),
        ..Observed::default()
    };
    let sequence = Sequence(2);
    let older = deploy_new(|goal| goal.sequence = sequence);
    let all =
        [Goal::Stop { sequence }, Goal::Start { sequence }, Goal::Restart { sequence }, Goal::Remove { sequence }];
    for goal in [older].into_iter().chain(all) {
        for held in [Held::Nothing, Held::Proven] {
            assert_eq!(next_step(&goal, &newer, held), Step::RefuseOlder, "{goal:?}");
        }
    }
    // A way back has the sequence of what it takes back.
    let same = deploy_new(|goal| goal.sequence = Sequence(3));
    assert_ne!(next_step(&same, &newer, Held::Nothing), Step::RefuseOlder);
}

#[test]
fn what_was_set_aside_is_started_once_even_if_it_seems_to_run() {
    let dying = Observed { previous: Some(previous(seen("a", OLD, 1, true))), ..Observed::default() };
    let start = Step::StartPrevious { id: a(), always: false };
    assert_eq!(next_step(&Goal::Settle, &dying, Held::Nothing), start);
    let looked_again = dying.clone().knowing(&dying.clone().after(&start));
    let bring_back = Step::BringBack { id: a(), name: "shop".to_owned() };
    assert_eq!(next_step(&Goal::Settle, &looked_again, Held::Nothing), bring_back);
}

#[test]
fn roles_are_told_by_name_and_owner() {
    let now = Timestamp::from_second(1_000).unwrap();
    let container = |name: &str, host: &str, application: &str, base: &str| Container {
        id: name.to_owned(),
        name: name.to_owned(),
        labels: BTreeMap::from([
            (label::HOST.to_owned(), host.to_owned()),
            (label::APPLICATION.to_owned(), application.to_owned()),
            (label::NAME.to_owned(), base.to_owned()),
            (label::DEPLOYMENT.to_owned(), OLD.to_owned()),
            (label::SEQUENCE.to_owned(), "3".to_owned()),
            (label::EPOCH.to_owned(), "4".to_owned()),
        ]),
        running: true,
        image_id: String::new(),
        published: Vec::new(),
    };
    let all = [
        container("shop", "acme/a", "7", "shop"),
        container("shop.tidegate-next", "acme/b", "7", "shop"),
        container("shop.tidegate-prev", "acme/a", "8", "shop"),
        container("shop.by-hand", "acme/a", "7", "shop"),
    ];
    let of = |host, application, base, containers: &[Container]| {
        let whose = Whose { host, application: ApplicationId(application), base, adopts: false };
        Observed::of(containers, whose, now)
    };
    let observed = of("acme/a", 7, "shop", &all);
    let strays = vec![seen("shop.by-hand", OLD, 4, true)];
    assert_eq!(observed, Observed { current: Some(seen("shop", OLD, 4, true)), strays, ..Observed::default() });
    // The same application under its new name: what runs under the old one is still what is to be replaced.
    assert_eq!(of("acme/a", 7, "store", &all).current.unwrap().base, "shop");
    let foreign = of("acme/b", 9, "shop", &all);
    assert!(foreign.foreign.as_ref().unwrap().is_managed);
    assert_eq!(next_step(&deploy_new(|_| {}), &foreign, Held::Nothing), Step::RefuseName);
    // Somebody else's is known by its name, and only beside one of ours.
    let mut adopted = container("shop.tidegate-adopted", "", "", "");
    adopted.labels.clear();
    let pair = [adopted, container("shop.tidegate-next", "acme/a", "7", "shop")];
    let aside = of("acme/a", 7, "shop", &pair).previous.unwrap();
    assert!(aside.foreign && aside.should_run && aside.seen.base == "shop");
    assert_eq!(of("acme/b", 7, "shop", &pair), Observed::default());
    assert_eq!(of("acme/a", 7, "shop", &pair[..1]), Observed::default());
    let whose = Whose { host: "acme/a", application: ApplicationId(7), base: "shop", adopts: true };
    assert!(Observed::of(&pair[..1], whose, now).previous.is_some(), "whoever adopts it brings it back");
}

#[test]
fn a_bake_time_ends_with_its_label() {
    let labels = BTreeMap::from([
        (label::HOST.to_owned(), "acme/a".to_owned()),
        (label::APPLICATION.to_owned(), "7".to_owned()),
        (label::BAKES_UNTIL.to_owned(), "1970-01-01T00:20:00Z".to_owned()),
    ]);
    let (id, name) = (a(), "shop".to_owned());
    let shop = Container { id, name, labels, running: true, image_id: String::new(), published: Vec::new() };
    let whose = Whose { host: "acme/a", application: ApplicationId(7), base: "shop", adopts: false };
    let bakes = |second| {
        let now = Timestamp::from_second(second).unwrap();
        Observed::of(std::slice::from_ref(&shop), whose, now).bakes
    };
    assert!(bakes(1_199) && !bakes(1_200));
}

#[test]
fn a_new_version_that_has_lost_its_name_is_not_made_again() {
    let before = Observed { previous: Some(previous(seen("a", OLD, 1, false))), ..Observed::default() };
    let strays = vec![seen("b", NEW, 2, true)];
    let renamed = Observed { strays: strays.clone(), ..before.clone() };
    for held in [Held::Created, Held::Proven, Held::Checked, Held::Baked] {
        for engine in [&before, &renamed] {
            assert_eq!(next_step(&deploy_new(|goal| goal.bake = true), engine, held), Step::RefuseLost, "{held:?}");
        }
    }
    let way_back = [
        Step::StopStray { id: b(), always: false },
        Step::StartPrevious { id: a(), always: false },
        Step::BringBack { id: a(), name: "shop".to_owned() },
        Step::Done,
    ];
    let release = DeploymentId::parse(NEW).unwrap();
    assert_eq!(steps(&Goal::Return { release }, renamed.clone(), Held::Nothing), way_back);
    // A process that knows nothing tells by the sequence what the former version was set aside for.
    let newer = Observed { strays: vec![Seen { sequence: Some(Sequence(4)), ..strays[0].clone() }], ..before.clone() };
    assert_eq!(steps(&Goal::Settle, newer, Held::Nothing), way_back);
    let older = Observed { strays: vec![Seen { sequence: Some(Sequence(2)), ..strays[0].clone() }], ..before };
    assert_eq!(steps(&Goal::Settle, older, Held::Nothing), way_back[1..]);
}

#[test]
fn a_name_that_others_gave_is_no_commit() {
    let named = |running| Observed {
        current: Some(seen("b", NEW, 2, running)),
        previous: Some(previous(seen("a", OLD, 1, false))),
        ..Observed::default()
    };
    let goal = deploy_new(|_| {});
    assert_eq!(next_step(&goal, &named(true), Held::Proven), Step::Check { id: b() });
    assert_eq!(next_step(&goal, &named(false), Held::Proven), Step::RefuseLost);
    assert_eq!(next_step(&goal, &named(false), Held::Created), Step::RefuseLost);
    // Another process has committed it.
    let remove = Step::RemovePrevious { id: a(), volumes: KEEP };
    assert_eq!(next_step(&goal, &named(true), Held::Nothing), remove);
    assert_eq!(next_step(&goal, &named(true), Held::Checked), remove);
}

#[test]
fn what_waits_for_its_name_is_started_if_it_does_not_run_and_then_left_alone() {
    let of = |running| Observed {
        previous: Some(Previous { name_taken: true, ..previous(seen("a", OLD, 1, running)) }),
        ..Observed::default()
    };
    assert_eq!(steps(&Goal::Settle, of(true), Held::Nothing), [Step::RefuseName]);
    let start = Step::StartPrevious { id: a(), always: false };
    assert_eq!(steps(&Goal::Settle, of(false), Held::Nothing), [start, Step::RefuseName]);
}

#[test]
fn what_this_process_has_stopped_is_found_under_any_name() {
    let switching = Observed { current: Some(seen("a", OLD, 1, true)), ..Observed::default() };
    let aside = Step::SetAside { id: a(), name: "shop.tidegate-prev".to_owned() };
    let knows = switching.after(&aside);
    let ended = seen("a", OLD, 1, false);
    let start = Step::StartCurrent { id: a(), always: false };
    let named = Observed { current: Some(ended.clone()), ..Observed::default() };
    assert_eq!(steps(&Goal::Settle, named.clone().knowing(&knows), Held::Nothing), [start.clone(), Step::Done]);
    assert_eq!(steps(&Goal::Settle, named, Held::Nothing), [Step::Done], "it may have been stopped on purpose");
    let stray = Observed { strays: vec![ended], ..Observed::default() }.knowing(&knows);
    let back = Step::BringBack { id: a(), name: "shop".to_owned() };
    assert_eq!(steps(&Goal::Settle, stray, Held::Nothing), [back, start, Step::Done]);
}

#[test]
fn stopped_is_what_runs_under_no_name() {
    let strays = vec![seen("b", OLD, 1, true), seen("c", OLD, 1, false)];
    let engine = Observed { current: Some(seen("a", OLD, 1, true)), strays, ..Observed::default() };
    let stop = [
        Step::ProveLease,
        Step::StopStray { id: b(), always: false },
        Step::StopCurrent { id: a(), always: false },
        Step::Done,
    ];
    assert_eq!(steps(&Goal::Stop { sequence: Sequence(3) }, engine.clone(), Held::Nothing), stop);
    for goal in [Goal::Stop { sequence: Sequence(2) }, Goal::Remove { sequence: Sequence(2) }] {
        let renamed = Observed { current: None, ..engine.clone() };
        assert_eq!(next_step(&goal, &renamed, Held::Proven), Step::RefuseOlder);
    }
}
