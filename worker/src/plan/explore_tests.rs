//! Any order, on any start, with any mishap at any step: the application runs what was committed last.

#[path = "model_tests.rs"]
mod model;

use std::collections::BTreeMap;

use model::{
    BAKING, BASE, Docker, End, Machine, Meddling, Mishap, OVER, Told, Trouble, Version, Worker, epoch, release,
    sequence,
};
use proptest::prelude::*;
use tidegate_domain::job::Action;

use super::*;
use crate::docker::label;

/// What stands on the host before.
#[derive(Debug, Clone, Copy)]
enum Start {
    Nothing,
    Ours {
        running: bool,
        always: bool,
    },
    Foreign {
        running: bool,
        always: bool,
    },
    /// A version in a bake time that nobody watches, with the former one.
    Baking {
        always: bool,
    },
}

#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
struct Order {
    action: Action,
    /// Later or earlier than what stands there.
    older: bool,
    healthy: bool,
    bakes: bool,
    bakes_well: bool,
    adopts: bool,
    always: bool,
    trouble: Option<Trouble>,
    /// Of the recovery after a crash.
    second: Option<Trouble>,
}

impl Order {
    /// What was set aside as adopted shows nothing of ours, so `next` is kept until it is back; and a rename that Docker
    /// is asked for by a dead process, and does in between, counts as the commit it was. Docker renames within
    /// milliseconds, and a new process takes longer.
    fn without_late_calls(self) -> Self {
        let punctual = |trouble: Option<Trouble>| {
            trouble.map(|Trouble { at, what }| match what {
                Mishap::CrashAndLate(_) => Trouble { at, what: Mishap::CrashAfter },
                _ => Trouble { at, what },
            })
        };
        Self { trouble: punctual(self.trouble), second: punctual(self.second), ..self }
    }
}

/// What bears the application's name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stands {
    id: String,
    runs: bool,
    ours: bool,
    sequence: Option<u64>,
}

fn stands(docker: &Docker) -> Option<Stands> {
    let thing = docker.named(BASE)?;
    let ours = !thing.container.labels.is_empty();
    let sequence = thing.container.labels.get(label::SEQUENCE).and_then(|sequence| sequence.parse().ok());
    Some(Stands { id: thing.container.id.clone(), runs: thing.container.running, ours, sequence })
}

fn machine(start: Start) -> Machine {
    let mut machine = Machine::default();
    let docker = &mut machine.docker;
    let version = |release, always, bakes| Version { release, sequence: 5, epoch: 1, always, bakes };
    match start {
        Start::Nothing => {}
        Start::Ours { running, always } => docker.create(BASE, version(1, always, false), running).unwrap(),
        Start::Foreign { running, always } => docker.add(BASE, BTreeMap::new(), running, always),
        Start::Baking { always } => {
            docker.create(&previous_name(BASE, true), version(1, false, false), false).unwrap();
            docker.create(BASE, version(2, always, true), true).unwrap();
        }
    }
    machine
}

fn sequence_of(order: Order, number: u64) -> u64 {
    if order.older { 4 } else { 5 + number }
}

/// One order until it has ended, over as many attempts as its trouble takes. How it ended.
fn carry_out(machine: &mut Machine, order: Order, number: u64) -> End {
    let before = stands(&machine.docker);
    let bakes = order.bakes;
    for attempt in 0..4 {
        let version = Version {
            release: 10 + number,
            sequence: sequence_of(order, number),
            epoch: 10 * number + attempt,
            always: order.always,
            bakes,
        };
        let sequence = sequence(version.sequence);
        let goal = match order.action {
            Action::Deploy => Goal::Deploy(Deploy {
                release: release(version.release),
                sequence,
                epoch: epoch(version.epoch),
                bake: bakes,
                adopt: order.adopts,
                stopped: false,
            }),
            Action::Stop => Goal::Stop { sequence },
            Action::Start => Goal::Start { sequence },
            Action::Restart => Goal::Restart { sequence },
            Action::Remove => Goal::Remove { sequence },
        };
        let worker = Worker {
            goal,
            version: (order.action == Action::Deploy).then_some(version),
            healthy: order.healthy,
            bakes_well: order.bakes_well,
            trouble: order.trouble.filter(|_| attempt == 0),
            adopts: order.adopts,
            now: BAKING,
        };
        match machine.perform(worker) {
            End::Crashed => {
                let trouble = order.second.filter(|_| attempt == 0);
                if machine.recover(BAKING, trouble) == End::Crashed {
                    machine.recover(BAKING, None);
                }
                check_recovered(machine, before.as_ref(), order, number);
                machine.quiet();
            }
            End::Broken => {}
            end => return end,
        }
    }
    panic!("not even without trouble: {machine:#?}");
}

/// Before anybody is asked anything: the old or the new version is in its place, as it was or as it was ordered.
fn check_recovered(machine: &Machine, before: Option<&Stands>, order: Order, number: u64) {
    let (Some(before), true) = (before, machine.is_quiet() && !machine.meddled) else { return };
    let now = stands(&machine.docker);
    let is_new =
        machine.docker.observe(BAKING, false).current.is_some_and(|s| s.deployment == Some(release(10 + number)));
    let expected = match order.action {
        Action::Deploy => now.as_ref() == Some(before) || is_new && now.is_some_and(|now| now.runs),
        Action::Stop => now.is_some_and(|now| now.id == before.id && (before.runs || !now.runs)),
        Action::Start | Action::Restart => now.is_some_and(|now| now.id == before.id && (now.runs || !before.runs)),
        Action::Remove => now.is_none_or(|now| now.id == before.id),
    };
    assert!(expected, "{before:?}, {order:?}: {machine:#?}");
}

/// At the end of an order without more trouble.
fn check_end(machine: &Machine, before: Option<&Stands>, order: Order, number: u64, end: End) {
    let now = stands(&machine.docker);
    let told = || format!("{before:?}, {order:?} ended as {end:?}: {machine:#?}");
    assert!(!machine.docker.collided, "two versions on one port: {}", told());
    let ours = before.filter(|before| before.ours);
    let foreign = before.filter(|before| !before.ours);
    let is_old = ours.is_some_and(|ours| ours.sequence > Some(sequence_of(order, number)));
    match (order.action, end) {
        (_, End::Refused(Told::Older)) => assert!(is_old && now.as_ref() == before, "{}", told()),
        (Action::Deploy, End::Refused(Told::Name)) => {
            assert!(foreign.is_some() && !order.adopts && now.as_ref() == before, "{}", told());
        }
        (Action::Start | Action::Restart, End::Refused(Told::Nothing)) => {
            assert!(ours.is_none() && now.as_ref() == before, "{}", told());
        }
        (Action::Deploy, End::Done) => {
            assert!(!is_old && order.healthy && (order.bakes_well || !order.bakes), "{}", told());
            let current = machine.docker.observe(BAKING, false).current;
            let new = current.filter(|seen| seen.deployment == Some(release(10 + number)));
            assert!(
                new.is_some_and(|seen| seen.running && seen.sequence == Some(sequence(sequence_of(order, number)))),
                "{}",
                told()
            );
        }
        (Action::Deploy, End::Failed) => {
            assert!(!order.healthy || order.bakes && !order.bakes_well, "{}", told());
            assert_eq!(now.as_ref(), before, "{}", told());
        }
        (Action::Stop, End::Done) => {
            let stopped = ours.map(|before| Stands { runs: false, ..before.clone() }).or(foreign.cloned());
            assert_eq!(now, stopped, "{}", told());
        }
        (Action::Start | Action::Restart, End::Done | End::Failed) => {
            assert_eq!(end == End::Done, order.healthy, "{}", told());
            assert_eq!(now, ours.map(|before| Stands { runs: true, ..before.clone() }), "{}", told());
        }
        (Action::Remove, End::Done) => assert_eq!(now.as_ref(), foreign, "{}", told()),
        (_, End::Refused(_) | End::Failed | End::Broken | End::Crashed) => panic!("{}", told()),
    }
    // What Docker is to start with itself is what is to run, by the policy that it was made with.
    for thing in &machine.docker.things {
        let labelled = thing.container.labels.contains_key(label::RESTART_POLICY);
        assert!(thing.container.running || !thing.always || foreign.is_some() || now.as_ref() == before, "{}", told());
        assert!(!labelled || !thing.container.running || thing.always || order.trouble.is_some(), "{}", told());
    }
}

/// Nothing but what counts is there, and looking again changes nothing.
fn check_settled(machine: &Machine) {
    let mut later = machine.clone();
    let before = stands(&later.docker);
    assert_eq!(later.recover(OVER, None), End::Done);
    assert_eq!(stands(&later.docker), before, "settling changed what runs: {machine:#?}");
    assert!(later.docker.things.iter().all(|thing| thing.container.name == BASE), "left over: {later:#?}");
    let settled = later.docker.clone();
    later.recover(OVER, None);
    assert_eq!(later.docker, settled);
}

fn any_start() -> impl Strategy<Value = Start> {
    let two = || (any::<bool>(), any::<bool>());
    prop_oneof![
        1 => Just(Start::Nothing),
        4 => two().prop_map(|(running, always)| Start::Ours { running, always }),
        2 => two().prop_map(|(running, always)| Start::Foreign { running, always }),
        1 => any::<bool>().prop_map(|always| Start::Baking { always }),
    ]
}

fn any_mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        Just(Mishap::CrashBefore),
        Just(Mishap::CrashAfter),
        (0..6_usize).prop_map(Mishap::CrashAndLate),
        Just(Mishap::Refused),
        Just(Mishap::Unheard),
        Just(Mishap::Twice),
        Just(Mishap::DaemonRestarts),
        Just(Mishap::Interrupted),
    ]
}

fn any_trouble() -> impl Strategy<Value = Option<Trouble>> {
    proptest::option::weighted(0.8, (0..16_usize, any_mishap()).prop_map(|(at, what)| Trouble { at, what }))
}

fn any_order() -> impl Strategy<Value = Order> {
    let action = prop_oneof![
        5 => Just(Action::Deploy),
        1 => Just(Action::Stop),
        1 => Just(Action::Start),
        1 => Just(Action::Restart),
        1 => Just(Action::Remove),
    ];
    let flags = (proptest::bool::weighted(0.1), proptest::bool::weighted(0.7), any::<(bool, bool, bool, bool)>());
    (action, flags, any_trouble(), any_trouble()).prop_map(|(action, flags, trouble, second)| {
        let (older, healthy, (bakes, bakes_well, adopts, always)) = flags;
        Order { action, older, healthy, bakes, bakes_well, adopts, always, trouble, second }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_what_was_committed_last_runs(
        start in any_start(),
        orders in proptest::collection::vec(any_order(), 1..4),
    ) {
        let mut machine = machine(start);
        for (number, order) in (1..).zip(orders) {
            let before = stands(&machine.docker);
            let is_foreign = before.as_ref().is_some_and(|before| !before.ours);
            let order = if is_foreign { order.without_late_calls() } else { order };
            let end = carry_out(&mut machine, order, number);
            check_end(&machine, before.as_ref(), order, number, end);
            check_settled(&machine);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    #[test]
    fn whoever_else_does_what_an_order_ends_and_leaves_nothing_over(
        start in any_start(),
        order in any_order(),
        how in any_meddling(),
        at in 0..10_usize,
        which in 0..3_usize,
    ) {
        let mut machine = machine(start);
        let before = stands(&machine.docker);
        let trouble = Some(Trouble { at, what: Mishap::Meddled(how, which) });
        let end = carry_out(&mut machine, Order { trouble, ..order }, 1);
        check_served(&machine, before.as_ref(), order, how, end);
        if how == Meddling::TakeName {
            let theirs = machine.docker.things.iter().find(|thing| thing.theirs).map(|thing| thing.container.id.clone());
            if let Some(id) = theirs {
                machine.docker.remove(&id);
            }
        }
        machine.recover(OVER, None);
        let running = machine.docker.things.iter().filter(|thing| thing.container.running).count();
        prop_assert!(running <= 1, "{machine:#?}");
        let left = machine.docker.things.iter().filter(|thing| thing.container.name.contains(".tidegate-"));
        // Somebody else's is brought back only while something of ours stands beside it.
        let left = left.filter(|thing| !thing.container.labels.is_empty()).count();
        prop_assert_eq!(left, 0, "{:#?}", machine);
    }
}

fn any_meddling() -> impl Strategy<Value = Meddling> {
    use Meddling::{Name, Remove, Rename, Stop, TakeName};
    proptest::sample::select(vec![Remove, Stop, Rename, Name, TakeName])
}

/// Whoever renames what: a version that fails is never told as good and never left running, and what ran before an order
/// that was to have something run is not left stopped.
fn check_served(machine: &Machine, before: Option<&Stands>, order: Order, how: Meddling, end: End) {
    let told = || format!("{before:?}, {order:?} with {how:?} ended as {end:?}: {machine:#?}");
    let is_new = |thing: &&model::Thing| thing.container.labels.get(label::SEQUENCE).is_some_and(|s| s == "6");
    let is_good = order.healthy && (order.bakes_well || !order.bakes);
    let new_runs = machine.docker.things.iter().filter(is_new).any(|thing| thing.container.running);
    if order.action == Action::Deploy && !order.older {
        assert!(is_good || end != End::Done && !new_runs, "a bad version is left: {}", told());
    }
    if matches!(how, Meddling::Rename | Meddling::Name | Meddling::TakeName) {
        let running = machine.docker.things.iter().filter(|thing| thing.container.running).count();
        match order.action {
            // Without labels and with a name of their own nobody knows it.
            Action::Deploy | Action::Restart
                if how == Meddling::Rename && before.is_some_and(|before| !before.ours) => {}
            Action::Deploy | Action::Restart if before.is_some_and(|before| before.runs) => {
                assert_eq!(running, 1, "{}", told());
            }
            Action::Stop if end == End::Done && before.is_some_and(|before| before.ours) => {
                assert_eq!(running, 0, "stopped, and runs: {}", told());
            }
            Action::Deploy | Action::Restart | Action::Stop | Action::Start | Action::Remove => {}
        }
    }
}

/// Every arrangement of names that our steps can leave, and some that only people can, whatever runs of it.
fn any_arrangement() -> impl Strategy<Value = Docker> {
    let previous = [
        ".tidegate-prev",
        ".tidegate-prev-stopped",
        ".tidegate-adopted",
        ".tidegate-adopted-always",
        ".tidegate-adopted-stopped",
    ];
    let previous = proptest::option::of(proptest::sample::select(previous.to_vec()));
    let others = proptest::sample::subsequence(vec!["", ".tidegate-next", ".tidegate-failed"], 0..=3);
    (previous, others, 0..5_usize, any::<(bool, bool)>()).prop_map(|(previous, others, runs, (always, bakes))| {
        let mut docker = Docker::default();
        for (index, suffix) in others.into_iter().chain(previous).enumerate() {
            let name = format!("{BASE}{suffix}");
            if suffix.contains("adopted") {
                docker.add(&name, BTreeMap::new(), index == runs, always);
            } else {
                let version = Version { release: 1, sequence: 5, epoch: 1, always, bakes };
                docker.create(&name, version, index == runs).unwrap();
            }
        }
        docker
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn settling_ends_where_no_crash_would_have_ended_from_any_state(
        docker in any_arrangement(),
        trouble in any_trouble(),
        now in prop_oneof![Just(BAKING), Just(OVER)],
    ) {
        // Of what Docker would start with itself only people can have left so much.
        let trouble = trouble.filter(|trouble: &Trouble| trouble.what != Mishap::DaemonRestarts);
        let settled = |trouble| {
            let mut machine = Machine { docker: docker.clone(), ..Machine::default() };
            if machine.recover(now, trouble) == End::Crashed {
                machine.recover(now, None);
                machine.quiet();
                machine.recover(now, None);
            }
            machine.docker
        };
        let (calm, disturbed) = (settled(None), settled(trouble));
        prop_assert_eq!(stands(&calm), stands(&disturbed));
        let was_there = stands(&docker);
        prop_assert!(was_there.is_none() || stands(&calm) == was_there, "what was committed stays");
        let ours = calm.things.iter().filter(|thing| !thing.container.labels.is_empty());
        let kept = |name: &str| name == BASE || now == BAKING && name.contains("-prev");
        prop_assert!(ours.clone().all(|thing| kept(&thing.container.name)), "left over: {:#?}", calm);
        let mut again = Machine { docker: calm.clone(), ..Machine::default() };
        again.recover(now, None);
        prop_assert_eq!(again.docker, calm);
    }
}
