use proptest::prelude::*;

use super::*;

const OURS: SecretProviderId = SecretProviderId(1);
const HERE: &str = "source /prod";
const RULES: Rules<'_> =
    Rules { provider: OURS, place: HERE, on_conflict: OnConflict::Fail, on_removed: OnRemoved::Retain, force: false };

fn value(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

/// `r1 DATABASE_URL=value`
fn listed(text: &str) -> Listed {
    let (remote_id, rest) = text.split_once(' ').unwrap();
    let (key, plain) = rest.split_once('=').unwrap();
    Listed {
        remote_id: remote_id.to_owned(),
        key: key.to_owned(),
        reference: format!("/{key}"),
        value: Some(value(plain)),
    }
}

/// `1 NAME=value`, then: nothing (people's), `r1` (ours), `r1 stale`, `r1 of 2`, `r1 elsewhere`, and `used` last.
fn known(text: &str) -> Known {
    let mut words = text.split(' ');
    let id = words.next().unwrap().parse().map(SecretId).unwrap();
    let (name, plain) = words.next().unwrap().split_once('=').unwrap();
    let words: Vec<_> = words.collect();
    let remote_id = words.iter().find(|word| word.starts_with('r'));
    let provider = words.iter().find_map(|word| word.parse().ok()).map_or(OURS, SecretProviderId);
    let link = match remote_id {
        None => Link::Manual,
        Some(remote_id) => Link::Synced {
            provider,
            remote_id: (*remote_id).to_owned(),
            reference: format!("/{name}"),
            place: if words.contains(&"elsewhere") { "source /other" } else { HERE }.to_owned(),
            stale: words.contains(&"stale"),
        },
    };
    Known { id, name: name.to_owned(), value: Some(value(plain)), link, is_used: words.contains(&"used") }
}

fn listing(texts: &[&str]) -> Vec<Listed> {
    texts.iter().map(|text| listed(text)).collect()
}

fn group(texts: &[&str]) -> Vec<Known> {
    texts.iter().map(|text| known(text)).collect()
}

fn told(step: &Step, listing: &[Listed]) -> String {
    match step {
        Step::MarkStale { secret } => format!("stale {secret}"),
        Step::Rename { secret, to, listed: Some(_) } => format!("rename {secret} {to}"),
        Step::Rename { secret, to, listed: None } => format!("aside {secret} {to}"),
        Step::Update { secret, new_value: true, .. } => format!("update {secret}"),
        Step::Update { secret, new_value: false, .. } => format!("link {secret}"),
        Step::Adopt { secret, .. } => format!("adopt {secret}"),
        Step::Add { listed } => format!("add {}", listing[*listed].key),
        Step::Delete { secret } => format!("delete {secret}"),
    }
}

#[track_caller]
fn check_with(rules: Rules<'_>, there: &[&str], here: &[&str], expect: &[&str]) -> Plan {
    let (listing, known) = (listing(there), group(here));
    let plan = plan(&listing, &known, rules).unwrap();
    let steps: Vec<_> = plan.steps.iter().map(|step| told(step, &listing)).collect();
    assert_eq!(steps, expect, "{there:?} {here:?}");
    plan
}

#[track_caller]
fn check(there: &[&str], here: &[&str], expect: &[&str]) -> Plan {
    check_with(RULES, there, here, expect)
}

#[test]
fn what_is_new_is_added_and_what_has_changed_is_updated() {
    check(&[], &[], &[]);
    check(&["r1 A=1", "r2 B=2"], &[], &["add A", "add B"]);
    let plan = check(&["r1 A=1", "r2 B=3", "r3 C=1"], &["1 A=1 r1", "2 B=2 r2"], &["update 2", "add C"]);
    assert_eq!(plan.unchanged, [SecretId(1)]);
    check(&["r1 A=1"], &["1 A=1 r1 stale"], &["link 1"]);
    check(&["r1 A=2"], &["1 A=1 r1 stale"], &["update 1"]);
    let mut unreadable = known("1 A=1 r1");
    unreadable.value = None;
    let steps = plan_of(&listing(&["r1 A=1"]), &[unreadable]).steps;
    assert_eq!(steps, [Step::Update { secret: SecretId(1), listed: 0, new_value: true }]);
}

fn plan_of(listing: &[Listed], known: &[Known]) -> Plan {
    plan(listing, known, RULES).unwrap()
}

#[test]
fn a_new_name_is_followed_by_what_the_source_knows_it_by() {
    check(&["r1 B=1"], &["1 A=1 r1"], &["rename 1 B"]);
    check(&["r1 B=2"], &["1 A=1 r1"], &["rename 1 B", "update 1"]);
    // A chain, and one that is added under a name that the chain frees.
    check(&["r1 B=1", "r2 C=2", "r3 A=3"], &["1 A=1 r1", "2 B=2 r2"], &["rename 2 C", "rename 1 B", "add A"]);
    // Two that swap, and three in a circle.
    check(&["r1 B=1", "r2 A=2"], &["1 A=1 r1", "2 B=2 r2"], &["aside 1 A.moving-1", "rename 2 A", "rename 1 B"]);
    check(
        &["r1 B=1", "r2 C=2", "r3 A=3"],
        &["1 A=1 r1", "2 B=2 r2", "3 C=3 r3"],
        &["aside 1 A.moving-1", "rename 3 A", "rename 2 C", "rename 1 B"],
    );
    // A crash left it out of the way.
    check(&["r1 B=1", "r2 A=2"], &["1 A.moving-1=1 r1", "2 B=2 r2"], &["rename 2 A", "rename 1 B"]);
    // The name is that of one that has gone, and is kept for those who use it.
    check(&["r1 B=1"], &["1 A=1 r1", "2 B=2 r2"], &["stale 2", "aside 2 B.former-2", "rename 1 B"]);
}

#[test]
fn what_was_made_again_under_its_name_is_the_same_secret() {
    check(&["r9 A=1"], &["1 A=1 r1"], &["link 1"]);
    check(&["r9 A=2"], &["1 A=1 r1 used"], &["update 1"]);
    // Another source's before.
    check(&["r1 A=1"], &["1 A=1 r1 of 2"], &["link 1"]);
    // Moved to another folder there.
    check(&["r1 A=1"], &["1 A=1 r1 elsewhere"], &["link 1"]);
    check(&["r1 B=1"], &["1 A=1 r1 elsewhere"], &["rename 1 B"]);
}

#[test]
fn what_was_listed_elsewhere_has_not_gone_from_here() {
    let delete = Rules { on_removed: OnRemoved::Delete, ..RULES };
    let there = ["r11 A=1", "r12 B=2", "r13 C=3", "r14 D=4"];
    for of in ["of 2", "elsewhere"] {
        let names = (1..).zip(["A", "B", "C", "D", "E", "F"]);
        let group: Vec<_> = names.map(|(at, name)| format!("{at} {name}=1 r{at} {of}")).collect();
        let group: Vec<_> = group.iter().map(String::as_str).collect();
        let plan =
            check_with(delete, &there, &group, &["stale 5", "stale 6", "link 1", "update 2", "update 3", "update 4"]);
        assert_eq!(plan.held_back, 2);
        check_with(
            Rules { force: true, ..delete },
            &there,
            &group,
            &["link 1", "update 2", "update 3", "update 4", "delete 5", "delete 6"],
        );
    }
    // It is no measure of what has gone from here either: two of three are too many.
    let group = ["1 A=1 r11", "2 X=2 r2", "3 Y=3 r3", "4 B=2 r4 of 2", "5 C=3 r5 of 2", "6 D=4 r6 elsewhere"];
    check_with(delete, &there, &group, &["stale 2", "stale 3", "link 4", "link 5", "link 6"]);
}

#[test]
fn what_people_wrote_is_never_overwritten_silently() {
    let conflicts = |rules, there: &[&str], here: &[&str]| {
        let refused = plan(&listing(there), &group(here), rules).unwrap_err();
        refused.into_iter().map(|conflict| conflict.secret.0).collect::<Vec<_>>()
    };
    assert_eq!(conflicts(RULES, &["r1 A=1", "r2 B=1", "r3 C=1"], &["1 A=1", "2 B=2"]), [1, 2]);
    let adopt = Rules { on_conflict: OnConflict::Adopt, ..RULES };
    check_with(adopt, &["r1 A=1", "r2 B=2"], &["1 A=0"], &["adopt 1", "add B"]);
    // One that is here already cannot become two.
    assert_eq!(conflicts(adopt, &["r1 B=1"], &["1 A=1 r1", "2 B=2"]), [2]);
    check(&["r1 A=1"], &["1 A=1 r1", "2 Z=people"], &[]);
}

#[test]
fn what_has_gone_is_kept_or_deleted_by_the_rules() {
    let gone = ["1 A=1 r1", "2 B=2 r2", "3 C=3 r3 used", "4 D=4 r4", "5 E=5 r5"];
    let there = ["r1 A=1", "r4 D=4", "r5 E=5"];
    check(&there, &gone, &["stale 2", "stale 3"]);
    check(&there, &["1 A=1 r1", "2 B=2 r2 stale", "4 D=4 r4", "5 E=5 r5"], &[]);
    let delete = Rules { on_removed: OnRemoved::Delete, ..RULES };
    let plan = check_with(delete, &there, &gone, &["stale 3", "delete 2"]);
    assert_eq!(plan.held_back, 1);
    // Nothing, or too little.
    let plan = check_with(delete, &[], &["1 A=1 r1"], &["stale 1"]);
    assert_eq!(plan.held_back, 1);
    let three = ["1 A=1 r1", "2 B=2 r2", "3 C=3 r3"];
    check_with(delete, &["r1 A=1"], &three, &["stale 2", "stale 3"]);
    // What was held back is not deleted for being looked at twice.
    check_with(delete, &["r1 A=1", "r4 D=1"], &["1 A=1 r1", "2 B=2 r2 stale", "4 D=1 r4"], &[]);
    let force = Rules { force: true, ..delete };
    check_with(force, &["r1 A=1"], &["1 A=1 r1", "2 B=2 r2 stale", "3 C=3 r3 used"], &["stale 3", "delete 2"]);
    check_with(force, &[], &["1 A=1 r1", "2 B=people"], &["delete 1"]);
    check_with(Rules { force: true, ..RULES }, &[], &["1 A=1 r1"], &["stale 1"]);
}

#[test]
fn what_cannot_be_taken_is_told_and_left_as_it_was() {
    let problems = |there: &[&str], here: &[&str], expect: &[&str]| {
        let plan = check(there, here, expect);
        plan.problems.into_iter().map(|problem| (problem.reference, problem.why.code)).collect::<Vec<_>>()
    };
    assert_eq!(problems(&["r1 a/b=1", "r2 B=1"], &[], &["add B"]), [("/a/b".to_owned(), "format-name")]);
    // It keeps its name, and its value is followed.
    problems(&["r1 a/b=2"], &["1 A=1 r1"], &["update 1"]);
    // Unless another one is to have the name.
    problems(&["r1 a/b=1", "r2 A=2"], &["1 A=1 r1"], &["aside 1 A.former-1", "link 1", "add A"]);
    let twice = problems(&["r1 A=1", "r2 A=2"], &["1 A=1 r1"], &[]);
    assert_eq!(twice, [("/A".to_owned(), "duplicate"), ("/A".to_owned(), "duplicate")]);
    // The same thing on two pages is one.
    assert_eq!(problems(&["r1 A=1", "r1 A=1"], &[], &["add A"]), []);
    let nul = problems(&["r1 A=\0"], &["1 A=1 r1"], &[]);
    assert_eq!(nul, [("/A".to_owned(), "format-string")]);
    let mask = problems(&[&format!("r1 A={}", secret::MASK)], &[], &[]);
    assert_eq!(mask, [("/A".to_owned(), "mask")]);
    let mut binary = listed("r1 A=");
    binary.value = None;
    assert_eq!(plan_of(&[binary], &[]).problems[0].why.code, "not-text");
    let long = format!("r1 A={}", "x".repeat(secret::MAX_VALUE_BYTES + 1));
    assert_eq!(problems(&[&long], &[], &[]), [("/A".to_owned(), "too-long")]);
}

// ---- A group as the store keeps it ---------------------------------------------------------------------------------

#[derive(Debug, Clone, PartialEq)]
struct Item {
    id: u64,
    name: String,
    value: String,
    link: Link,
    is_used: bool,
}

fn known_of(items: &[Item]) -> Vec<Known> {
    let one = |item: &Item| Known {
        id: SecretId(item.id),
        name: item.name.clone(),
        value: Some(value(&item.value)),
        link: item.link.clone(),
        is_used: item.is_used,
    };
    items.iter().map(one).collect()
}

fn text(there: &Listed) -> String {
    there.value.as_ref().unwrap().expose().clone()
}

fn link_to(there: &Listed) -> Link {
    Link::Synced {
        provider: OURS,
        remote_id: there.remote_id.clone(),
        reference: there.reference.clone(),
        place: HERE.to_owned(),
        stale: false,
    }
}

/// As the store does it, refusing what the store refuses.
fn apply(items: &mut Vec<Item>, step: &Step, listing: &[Listed]) {
    let at = |items: &[Item], id: SecretId| items.iter().position(|item| item.id == id.0).unwrap();
    match step {
        Step::MarkStale { secret } => {
            let at = at(items, *secret);
            let Link::Synced { stale, .. } = &mut items[at].link else { panic!("people's") };
            assert!(!std::mem::replace(stale, true));
        }
        Step::Rename { secret, to, listed } => {
            assert!(items.iter().all(|item| item.name != *to), "{to} is taken");
            secret::check_name(to).unwrap();
            let at = at(items, *secret);
            assert_ne!(items[at].link, Link::Manual);
            items[at].name.clone_from(to);
            if let Some(listed) = listed {
                items[at].link = link_to(&listing[*listed]);
            }
        }
        Step::Update { secret, listed, new_value } => {
            let at = at(items, *secret);
            assert_ne!(items[at].link, Link::Manual);
            let there = &listing[*listed];
            assert_eq!(*new_value, items[at].value != text(there));
            items[at].value = text(there);
            items[at].link = link_to(there);
        }
        Step::Adopt { secret, listed } => {
            let at = at(items, *secret);
            assert_eq!(items[at].link, Link::Manual);
            items[at].value = text(&listing[*listed]);
            items[at].link = link_to(&listing[*listed]);
        }
        Step::Add { listed } => {
            let there = &listing[*listed];
            assert!(items.iter().all(|item| item.name != there.key), "{} is taken", there.key);
            let id = items.iter().map(|item| item.id).max().unwrap_or(0) + 1;
            let (name, value) = (there.key.clone(), text(there));
            items.push(Item { id, name, value, link: link_to(there), is_used: false });
        }
        Step::Delete { secret } => {
            let item = items.remove(at(items, *secret));
            assert!(!item.is_used && item.link != Link::Manual);
        }
    }
}

/// What a secret is linked to, its value, and whether something uses it.
type Drawn = (Option<(u8, bool, Origin)>, String, bool);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Origin {
    Here,
    /// The same provider's, from another folder of it.
    Elsewhere,
    OtherProvider,
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let origin = prop_oneof![6 => Just(Origin::Here), 1 => Just(Origin::Elsewhere), 1 => Just(Origin::OtherProvider)];
    let link = prop_oneof![
        1 => Just(None),
        6 => (0_u8..12, prop::bool::weighted(0.2), origin).prop_map(Some),
    ];
    prop::collection::btree_map("[A-H]", (link, "[xy]", prop::bool::weighted(0.2)), 0..8).prop_map(|entries| {
        let entries = entries.into_iter().enumerate();
        let item = |(at, (name, (link, value, is_used))): (usize, (String, Drawn))| {
            let link = match link {
                None => Link::Manual,
                Some((remote, stale, origin)) => Link::Synced {
                    provider: if origin == Origin::OtherProvider { SecretProviderId(2) } else { OURS },
                    remote_id: format!("r{remote}"),
                    reference: format!("/{name}"),
                    place: if origin == Origin::Elsewhere { "source /other" } else { HERE }.to_owned(),
                    stale,
                },
            };
            Item { id: at as u64 + 1, name, value, link, is_used }
        };
        entries.map(item).collect()
    })
}

fn listings() -> impl Strategy<Value = Vec<Listed>> {
    let key = prop_oneof![8 => "[A-H]", 1 => Just("a/b".to_owned())];
    let plain = prop_oneof![8 => "[xy]", 1 => Just("\0".to_owned())];
    prop::collection::btree_map(0_u8..12, (key, plain), 0..9).prop_map(|entries| {
        let entry = |(remote, (key, plain)): (u8, (String, String))| listed(&format!("r{remote} {key}={plain}"));
        entries.into_iter().map(entry).collect()
    })
}

fn rules() -> impl Strategy<Value = Rules<'static>> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(adopt, delete, force)| Rules {
        provider: OURS,
        place: HERE,
        on_conflict: if adopt { OnConflict::Adopt } else { OnConflict::Fail },
        on_removed: if delete { OnRemoved::Delete } else { OnRemoved::Retain },
        force,
    })
}

/// To the end, or until a crash after so many steps of each plan.
fn run(mut items: Vec<Item>, listing: &[Listed], rules: Rules<'_>, crashes: &[usize]) -> Vec<Item> {
    for crash in crashes.iter().copied().chain([usize::MAX]) {
        let plan = plan(listing, &known_of(&items), rules).unwrap();
        for step in plan.steps.iter().take(crash) {
            apply(&mut items, step, listing);
        }
    }
    items
}

/// Those that were there by their ids, new ones by what they are.
fn end(items: Vec<Item>, before: usize) -> Vec<(u64, String, String, Link)> {
    let old = |id: u64| if id <= before as u64 { id } else { u64::MAX };
    let mut end: Vec<_> = items.into_iter().map(|item| (old(item.id), item.name, item.value, item.link)).collect();
    end.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    end
}

proptest! {
    #[test]
    fn a_crash_after_any_step_changes_nothing_of_the_end(
        items in items(), listing in listings(), rules in rules(), crashes in prop::collection::vec(0_usize..8, 1..5),
    ) {
        prop_assume!(plan(&listing, &known_of(&items), rules).is_ok());
        let before = items.len();
        let straight = run(items.clone(), &listing, rules, &[]);
        let crashed = run(items, &listing, rules, &crashes);
        let again = plan(&listing, &known_of(&straight), rules).unwrap();
        prop_assert!(again.steps.is_empty(), "{:?}", again.steps);
        prop_assert_eq!(end(straight, before), end(crashed, before));
    }

    #[test]
    fn only_what_has_just_gone_from_here_is_deleted_unless_forced(
        items in items(), listing in listings(), rules in rules(), crashes in prop::collection::vec(0_usize..8, 0..4),
    ) {
        prop_assume!(!rules.force && plan(&listing, &known_of(&items), rules).is_ok());
        let after = run(items.clone(), &listing, rules, &crashes);
        let from_here = |item: &&Item| matches!(&item.link, Link::Synced { provider, place, .. } if *provider == OURS && place == HERE);
        let had = items.iter().filter(from_here).count();
        for item in items.iter().filter(|item| after.iter().all(|other| other.id != item.id)) {
            prop_assert!(from_here(&item), "{item:?}");
            prop_assert!(!matches!(item.link, Link::Synced { stale: true, .. }), "{item:?}");
            prop_assert!(rules.on_removed == OnRemoved::Delete && !listing.is_empty());
        }
        let kept = items.iter().filter(from_here).filter(|item| after.iter().any(|other| other.id == item.id)).count();
        prop_assert!(kept * 2 >= had, "{kept} of {had}");
    }

    #[test]
    fn what_people_wrote_and_what_is_used_stays(items in items(), listing in listings(), rules in rules()) {
        prop_assume!(plan(&listing, &known_of(&items), rules).is_ok());
        let after = run(items.clone(), &listing, rules, &[]);
        for item in &items {
            let found = after.iter().find(|other| other.id == item.id);
            if item.is_used || item.link == Link::Manual {
                prop_assert!(found.is_some(), "{item:?}");
            }
            if item.link == Link::Manual && rules.on_conflict == OnConflict::Fail {
                prop_assert_eq!(found, Some(item));
            }
        }
        // Whatever was listed and can be taken is there, once.
        let plan = plan(&listing, &known_of(&after), rules).unwrap();
        let bad: Vec<_> = plan.problems.iter().map(|problem| &problem.reference).collect();
        for there in listing.iter().filter(|there| !bad.contains(&&there.reference)) {
            let same: Vec<_> = after.iter().filter(|item| item.link == link_to(there)).collect();
            prop_assert_eq!(same.len(), 1, "{:?}", there);
            prop_assert_eq!((&same[0].name, &same[0].value), (&there.key, &text(there)));
        }
    }
}
