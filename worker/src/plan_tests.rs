use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const OLD: &str = "01890a5d-ac96-774b-bcce-b302099a8051";
const NEW: &str = "01890a5d-ac96-774b-bcce-b302099a8052";
/// No way from any state to the goal is longer.
const MOST_STEPS: usize = 16;

fn seen(id: &str, deployment: &str, epoch: u64, running: bool) -> Seen {
    Seen {
        id: id.to_owned(),
        base: "shop".to_owned(),
        deployment: DeploymentId::parse(deployment).ok(),
        epoch: Some(Epoch(epoch)),
        digest: None,
        running,
    }
}

fn goal(epoch: u64) -> Goal {
    Goal::Deploy { deployment: DeploymentId::parse(NEW).unwrap(), epoch: Epoch(epoch) }
}

/// A process with its memory, and the engine it looks at.
#[derive(Debug, Clone)]
struct Simulation {
    engine: Observed,
    goal: Goal,
    held: Held,
    healthy: bool,
}

impl Simulation {
    /// Carries out one step; false when there is nothing left to do.
    fn advance(&mut self) -> bool {
        let step = next_step(&self.goal, &self.engine, self.held);
        let Goal::Deploy { epoch, .. } = self.goal else {
            self.engine = self.engine.clone().after(&step);
            return step != Step::Done;
        };
        match &step {
            Step::Pull => self.hold(Held::Pulled),
            Step::Create => {
                assert!(self.engine.next.is_none() && self.held >= Held::Pulled);
                self.engine.next = Some(seen("created", NEW, epoch.0, false));
                self.hold(Held::Created);
            }
            Step::ProveLease => self.hold(Held::Proven),
            Step::Check { .. } if !self.healthy => self.goal = Goal::Settle,
            Step::Check { .. } => self.hold(Held::Checked),
            Step::Commit { .. } => {
                assert!(self.held == Held::Checked && self.engine.current.is_none());
                assert!(self.engine.next.as_ref().is_some_and(|next| next.running));
            }
            Step::StartNext { .. } => {
                assert!(!self.engine.previous.as_ref().is_some_and(|p| p.seen.running), "two on one port");
            }
            Step::SetAside { .. } | Step::StopPrevious { .. } => {
                assert!(self.held >= Held::Proven, "switched without a lease");
            }
            Step::RefuseName => return false,
            Step::RemoveNext { .. }
            | Step::RemovePrevious { .. }
            | Step::StartPrevious { .. }
            | Step::BringBack { .. }
            | Step::Done => {}
        }
        self.engine = self.engine.clone().after(&step);
        step != Step::Done
    }

    fn hold(&mut self, now: Held) {
        self.held = self.held.max(now);
    }

    fn run(&mut self) {
        for _ in 0..MOST_STEPS {
            if !self.advance() {
                return;
            }
        }
        panic!("does not end: {self:?}");
    }

    fn runs(&self) -> Option<&Seen> {
        self.engine.current.as_ref().filter(|current| current.running)
    }
}

/// What settling must bring back: the committed container, and whether it runs.
fn committed(engine: &Observed) -> Option<(String, bool)> {
    let previous = || engine.previous.as_ref().map(|p| (p.seen.id.clone(), p.should_run || p.seen.running));
    engine.current.as_ref().map(|seen| (seen.id.clone(), seen.running)).or_else(previous)
}

fn any_engine() -> impl Strategy<Value = Observed> {
    let deployment = prop_oneof![Just(OLD), Just(NEW)];
    let current = proptest::option::of((any::<bool>(), deployment.clone()));
    let next = proptest::option::of((any::<bool>(), deployment, 1_u64..4));
    let previous = proptest::option::of((any::<bool>(), any::<bool>()));
    (current, next, previous).prop_map(|(current, next, previous)| Observed {
        current: current.map(|(running, deployment)| seen("current", deployment, 1, running)),
        next: next.map(|(running, deployment, epoch)| seen("next", deployment, epoch, running)),
        previous: previous.map(|(running, should_run)| Previous {
            seen: seen("previous", OLD, 1, running),
            should_run,
            revived: false,
        }),
        name_is_taken: false,
    })
}

proptest! {
    #[test]
    fn settling_brings_back_what_was_committed_from_any_state(engine in any_engine(), crash_after in 0..MOST_STEPS) {
        let expected = committed(&engine);
        let mut simulation = Simulation { engine, goal: Goal::Settle, held: Held::Nothing, healthy: true };
        for _ in 0..crash_after {
            simulation.advance();
        }
        // The next process begins anew.
        simulation.run();
        prop_assert_eq!(committed(&simulation.engine), expected);
        prop_assert!(simulation.engine.next.is_none() && simulation.engine.previous.is_none());
        let settled = simulation.engine.clone();
        simulation.run();
        prop_assert_eq!(simulation.engine, settled);
    }

    #[test]
    fn a_crash_anywhere_ends_where_no_crash_would(
        engine in any_engine(),
        crash_after in 0..MOST_STEPS,
        healthy: bool,
        recovers: bool,
    ) {
        let already = engine.current.as_ref().is_some_and(|c| c.deployment == DeploymentId::parse(NEW).ok());
        let before = committed(&engine);
        let mut simulation = Simulation { engine, goal: goal(2), held: Held::Nothing, healthy };
        for _ in 0..crash_after {
            simulation.advance();
        }
        if recovers {
            simulation.goal = Goal::Settle;
            simulation.run();
            let now = committed(&simulation.engine);
            let is_new = simulation.engine.current.as_ref().is_some_and(|c| c.deployment == DeploymentId::parse(NEW).ok());
            prop_assert!(is_new && healthy || now == before, "{before:?} became {now:?}");
        }
        simulation.goal = goal(3);
        simulation.held = Held::Nothing;
        simulation.run();
        prop_assert!(simulation.engine.next.is_none() && simulation.engine.previous.is_none());
        if healthy && !already {
            let deployed = simulation.engine.current.as_ref().is_some_and(|c| c.deployment == DeploymentId::parse(NEW).ok());
            prop_assert!(deployed, "{simulation:?}");
        } else if !healthy {
            prop_assert_eq!(committed(&simulation.engine), before.clone());
        }
        if before.is_some_and(|(_, ran)| ran) {
            prop_assert!(simulation.runs().is_some(), "{simulation:?}");
        }
        let done = simulation.engine.clone();
        simulation.goal = goal(4);
        simulation.held = Held::Nothing;
        if healthy || already {
            simulation.run();
            prop_assert_eq!(simulation.engine, done);
        }
    }
}

#[test]
fn the_switch_does_nothing_between_stopping_and_starting() {
    let mut engine = Observed { current: Some(seen("a", OLD, 1, true)), ..Observed::default() };
    engine.next = Some(seen("b", NEW, 2, false));
    let mut held = Held::Proven;
    let mut steps = Vec::new();
    for _ in 0..MOST_STEPS {
        let step = next_step(&goal(2), &engine, held);
        if matches!(step, Step::Check { .. }) {
            held = Held::Checked;
        }
        engine = engine.after(&step);
        if step == Step::Done {
            break;
        }
        steps.push(step);
    }
    let (a, b) = (|| "a".to_owned(), || "b".to_owned());
    assert_eq!(
        steps,
        [
            Step::SetAside { id: a(), name: "shop.tidegate-prev".to_owned() },
            Step::StopPrevious { id: a() },
            Step::StartNext { id: b() },
            Step::Check { id: b() },
            Step::Commit { id: b() },
            Step::RemovePrevious { id: a() },
        ]
    );
}

#[test]
fn what_was_set_aside_is_started_once_even_if_it_seems_to_run() {
    let previous = Previous { seen: seen("a", OLD, 1, true), should_run: true, revived: false };
    let dying = Observed { previous: Some(previous), ..Observed::default() };
    let start = Step::StartPrevious { id: "a".to_owned() };
    assert_eq!(next_step(&Goal::Settle, &dying, Held::Nothing), start);
    let looked_again = dying.clone().knowing(&dying.clone().after(&start));
    let bring_back = Step::BringBack { id: "a".to_owned(), name: "shop".to_owned() };
    assert_eq!(next_step(&Goal::Settle, &looked_again, Held::Nothing), bring_back);
}

#[test]
fn roles_are_told_by_name_and_owner() {
    let container = |name: &str, host: &str, application: &str, base: &str| Container {
        id: name.to_owned(),
        name: name.to_owned(),
        labels: BTreeMap::from([
            (label::HOST.to_owned(), host.to_owned()),
            (label::APPLICATION.to_owned(), application.to_owned()),
            (label::NAME.to_owned(), base.to_owned()),
            (label::DEPLOYMENT.to_owned(), OLD.to_owned()),
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
    let observed = Observed::of(&all, "acme/a", ApplicationId(7), "shop");
    assert_eq!(observed, Observed { current: Some(seen("shop", OLD, 4, true)), ..Observed::default() });
    // The same application under its new name: what runs under the old one is still what is to be replaced.
    let renamed = Observed::of(&all, "acme/a", ApplicationId(7), "store");
    assert_eq!(renamed.current.unwrap().base, "shop");
    let foreign = Observed::of(&all, "acme/b", ApplicationId(9), "shop");
    assert_eq!(foreign, Observed { name_is_taken: true, ..Observed::default() });
    let step = next_step(&goal(2), &foreign, Held::Nothing);
    assert_eq!(step, Step::RefuseName);
}
