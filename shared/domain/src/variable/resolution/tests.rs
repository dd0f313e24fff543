use proptest::prelude::*;

use super::*;
use crate::id::SecretId;

fn key(text: &str) -> VariableKey {
    VariableKey::parse(text).unwrap()
}

fn layered(origin: Origin, name: &str, value: Written) -> Layered {
    let value_type = match value {
        Written::Reference(_) => ValueType::SecretRef,
        Written::Text(_) | Written::Template(_) => ValueType::String,
    };
    Layered { origin, key: key(name), value, value_type, is_secret: false }
}

fn stored(origin: Origin, name: &str, value: &str) -> Layered {
    layered(origin, name, Written::Template(Secret::new(value.to_owned())))
}

fn sent(origin: Origin, name: &str, value: &str) -> Layered {
    layered(origin, name, Written::Text(Secret::new(value.to_owned())))
}

fn reference(name: &str, written: &str) -> Layered {
    layered(Origin::Project, name, Written::Reference(SecretReference::parse(written).unwrap()))
}

fn sealed(origin: Origin, name: &str, value: &str) -> Layered {
    Layered { is_secret: true, ..stored(origin, name, value) }
}

fn typed(value_type: ValueType, name: &str, value: &str) -> Layered {
    Layered { value_type, ..stored(Origin::Project, name, value) }
}

fn no_secret(_: &SecretReference) -> Option<&'static Secret<String>> {
    None
}

/// `KEY=value`, with a `*` for what is secret and a `?` in the place of a value that could not be made.
fn shown(layers: &[Layered]) -> Vec<String> {
    let value = |entry: &Entry| entry.value.as_ref().map_or("?".to_owned(), |value| value.expose().clone());
    let show = |e: &Entry| format!("{}{}={}", e.key, if e.is_secret { "*" } else { "" }, value(e));
    resolve(layers, no_secret).entries.iter().map(show).collect()
}

/// `field code`, of each fault.
fn faults(layers: &[Layered]) -> Vec<String> {
    let faults = resolve(layers, no_secret).faults;
    faults.iter().map(|fault| format!("{} {}", fault.field, fault.invalid.code)).collect()
}

#[test]
fn the_stronger_layer_wins() {
    let layers = [
        stored(Origin::Global, "A", "global"),
        sent(Origin::Request, "A", "request"),
        stored(Origin::Project, "A", "project"),
        sent(Origin::Default, "B", "default"),
        stored(Origin::Global, "C", "global"),
        stored(Origin::Application, "C", "application"),
        stored(Origin::Environment, "D", "environment"),
        stored(Origin::Project, "D", "project"),
        stored(Origin::Environment, "E", "environment"),
        stored(Origin::Application, "E", "application"),
    ];
    assert_eq!(shown(&layers), ["A=request", "B=default", "C=application", "D=environment", "E=application"]);
}

#[test]
fn references_take_from_the_merged_set_or_from_the_environment_alone() {
    let layers = [
        stored(Origin::Application, "HOST", "{{env.HOST}}:8443"),
        stored(Origin::Environment, "HOST", "{{NAME}}.example.com"),
        stored(Origin::Environment, "NAME", "staging"),
        stored(Origin::Application, "NAME", "own"),
        stored(Origin::Global, "URL", "https://{{HOST}}/{{env.NAME}}?{{{{x}}"),
    ];
    let expect = ["HOST=own.example.com:8443", "NAME=own", "URL=https://own.example.com:8443/staging?{{x}}"];
    assert_eq!(shown(&layers), expect);
    let references = |entry: &Entry| entry.references.iter().map(ToString::to_string).collect::<Vec<_>>();
    let of_url = resolve(&layers, no_secret).entries.iter().find(|e| e.key.as_str() == "URL").map(references);
    assert_eq!(of_url.unwrap(), ["HOST", "env.NAME"]);
}

#[test]
fn what_a_request_or_a_secret_says_is_never_read_for_references() {
    let secret = Secret::new("{{B}} {{".to_owned());
    let layers = [
        sent(Origin::Request, "A", "{{B}}"),
        sent(Origin::Default, "D", "{{"),
        stored(Origin::Project, "B", "hidden"),
        stored(Origin::Project, "E", "{{A}} {{S}}"),
        reference("S", "@secret:1"),
    ];
    let resolved = resolve(&layers, |_| Some(&secret)).complete().unwrap();
    let got: Vec<_> = resolved.iter().map(|v| v.value.expose().as_str()).collect();
    assert_eq!(got, ["{{B}}", "hidden", "{{", "{{B}} {{B}} {{", "{{B}} {{"]);
}

#[test]
fn what_contains_a_secret_is_secret_however_deep() {
    let secret = Secret::new("s3".to_owned());
    let layers = [
        reference("A", "@secret:1"),
        stored(Origin::Project, "B", "<{{A}}>"),
        stored(Origin::Project, "C", "{{B}}{{B}}"),
        sealed(Origin::Project, "D", "p"),
        stored(Origin::Project, "E", "{{D}}"),
        stored(Origin::Project, "F", "plain"),
        stored(Origin::Project, "G", "@@secret:{{F}}"),
    ];
    let resolved = resolve(&layers, |_| Some(&secret)).complete().unwrap();
    let marks: String = resolved.iter().map(|v| if v.is_secret { '*' } else { '-' }).collect();
    assert_eq!(marks, "*****--");
    assert_eq!(resolved[2].value.expose(), "<s3><s3>");
    assert_eq!(resolved[6].value.expose(), "@secret:plain");
}

#[test]
fn every_fault_is_told_at_once() {
    let layers = [
        stored(Origin::Project, "A", "{{B}}"),
        stored(Origin::Project, "B", "{{C}}"),
        stored(Origin::Project, "C", "{{A}}"),
        stored(Origin::Project, "D", "{{D}}"),
        stored(Origin::Project, "E", "{{NONE}}{{env.NONE}}{{NONE}}"),
        stored(Origin::Project, "F", "{{ F }}"),
        // Not at fault itself.
        stored(Origin::Project, "G", "{{A}}{{E}}"),
        reference("H", "@secret:1"),
        typed(ValueType::Number, "I", "{{J}}"),
        stored(Origin::Project, "J", "eighty"),
        stored(Origin::Application, "K", "{{env.K}}"),
        stored(Origin::Environment, "K", "{{NONE}}"),
    ];
    let expect = [
        "variables.A circular-variable",
        "variables.B circular-variable",
        "variables.C circular-variable",
        "variables.D circular-variable",
        "variables.E unknown-variable",
        "variables.E unknown-variable",
        "variables.F format-template",
        "variables.H unknown-secret",
        "variables.I format-number",
        "variables.env.K unknown-variable",
    ];
    assert_eq!(faults(&layers), expect);
    let made = shown(&layers);
    assert_eq!(made, ["A=?", "B=?", "C=?", "D=?", "E=?", "F=?", "G=?", "H*=?", "I=?", "J=eighty", "K=?"]);
}

#[test]
fn what_is_hidden_and_not_referred_to_may_be_as_wrong_as_it_likes() {
    let layers = [
        sent(Origin::Request, "A", "1"),
        stored(Origin::Environment, "A", "{{NONE}}{{"),
        stored(Origin::Application, "B", "2"),
        stored(Origin::Environment, "B", "{{env.B}}"),
        stored(Origin::Global, "B", "{{"),
    ];
    assert_eq!(shown(&layers), ["A=1", "B=2"]);
    assert!(faults(&layers).is_empty());
}

#[test]
fn no_fault_repeats_a_value() {
    let layers = [
        sealed(Origin::Project, "A", "n33dle{{N33DLE}}"),
        stored(Origin::Project, "B", "n33dle{{"),
        typed(ValueType::Json, "C", "{n33dle}"),
        typed(ValueType::Boolean, "D", "n33dle"),
    ];
    let resolution = resolve(&layers, no_secret);
    assert_eq!(resolution.faults.len(), 4);
    let told = format!("{resolution:?}").to_lowercase();
    assert!(!told.contains("n33dle"), "{told}");
}

#[test]
fn types_are_checked_of_what_comes_out() {
    let layers = [
        typed(ValueType::Number, "A", "8{{N}}"),
        typed(ValueType::Json, "B", r#"{"a":{"b":"{{N}}"}}"#),
        typed(ValueType::Boolean, "C", "{{N}}"),
        stored(Origin::Project, "N", "0"),
    ];
    assert_eq!(faults(&layers), ["variables.C format-boolean"]);
    assert_eq!(shown(&layers), ["A=80", r#"B={"a":{"b":"0"}}"#, "C=?", "N=0"]);
}

#[test]
fn only_texts_of_a_type_of_their_own_are_judged_by_the_secrets_in_them() {
    let layers = [
        reference("A", "@secret:1"),
        reference("B", "@secret:2"),
        stored(Origin::Project, "C", "{{A}}"),
        stored(Origin::Project, "D", "{{B}}"),
        typed(ValueType::Number, "E", "{{D}}"),
    ];
    assert_eq!(judged_by_value(&layers), [&SecretReference::Id(SecretId(2))]);
}

#[test]
fn doubling_again_and_again_costs_nothing() {
    let name = |index: usize| format!("V{index}");
    let doubled = |leaf: &str| {
        let mut layers: Vec<_> = (0..499)
            .map(|index| stored(Origin::Project, &name(index), &format!("{{{{{0}}}}}{{{{{0}}}}}", name(index + 1))))
            .collect();
        layers.push(stored(Origin::Project, &name(499), leaf));
        layers
    };
    let resolution = resolve(&doubled("x"), no_secret);
    let made: usize =
        resolution.entries.iter().filter_map(|entry| entry.value.as_ref()).map(|v| v.expose().len()).sum();
    assert!(made <= MAX_TOTAL_BYTES, "{made}");
    assert_eq!(resolution.faults.iter().map(|fault| fault.invalid.code).collect::<Vec<_>>(), ["too-many-variables"]);
    // Two to the 499th nothing.
    assert!(resolve(&doubled(""), no_secret).faults.is_empty());
}

#[test]
fn limits_are_those_of_all_together() {
    let many = |count: usize| (0..count).map(|i| stored(Origin::Project, &format!("V{i}"), "")).collect::<Vec<_>>();
    assert!(faults(&many(MAX_VARIABLES)).is_empty());
    assert_eq!(faults(&many(MAX_VARIABLES + 1)), ["variables too-many-variables"]);
    let large = |length: usize| [stored(Origin::Project, "A", &"x".repeat(length))];
    assert!(faults(&large(MAX_TOTAL_BYTES - 1)).is_empty());
    assert_eq!(faults(&large(MAX_TOTAL_BYTES)), ["variables too-many-variables"]);
    // Those that only the environment has room for.
    let hidden = [
        stored(Origin::Application, "A", "{{env.A}}"),
        stored(Origin::Environment, "A", &"x".repeat(MAX_TOTAL_BYTES / 2)),
    ];
    assert_eq!(faults(&hidden), ["variables too-many-variables"]);
}

#[test]
fn more_faults_than_an_answer_has_room_for_are_counted() {
    let names = (0..150).map(|index| format!("{{{{NONE{index}}}}}")).collect::<Vec<_>>().concat();
    let faults = resolve(&[stored(Origin::Project, "A", &names)], no_secret).faults;
    assert_eq!(faults.len(), 101);
    assert_eq!(faults[100].invalid.code, "more-faults");
}

const SECRET: &str = "\u{2605}";

fn origins() -> impl Strategy<Value = Origin> {
    let all =
        [Origin::Request, Origin::Application, Origin::Environment, Origin::Project, Origin::Global, Origin::Default];
    prop::sample::select(all.to_vec())
}

/// Few names, so that layers hide each other and references meet; the secret ones hold a character that nothing else has.
fn entries() -> impl Strategy<Value = Vec<(Origin, &'static str, String, u8)>> {
    let name = prop::sample::select(vec!["A", "B", "C", "D", "E"]);
    let piece = prop_oneof![
        5 => "[a-z]{0,2}",
        4 => "[A-E]".prop_map(|name| format!("{{{{{name}}}}}")),
        2 => "[A-E]".prop_map(|name| format!("{{{{env.{name}}}}}")),
        1 => Just("{{{{".to_owned()),
    ];
    let text = prop::collection::vec(piece, 0..3).prop_map(|pieces| pieces.concat());
    let entry = (origins(), name, text, 0_u8..8);
    prop::collection::vec(entry, 0..14).prop_map(|mut entries| {
        entries.sort_by_key(|(origin, name, ..)| (*origin, *name));
        entries.dedup_by_key(|(origin, name, ..)| (*origin, *name));
        entries
    })
}

fn build(entries: &[(Origin, &'static str, String, u8)]) -> Vec<Layered> {
    let of = |(origin, name, text, kind): &(Origin, &'static str, String, u8)| match (origin, kind) {
        (Origin::Request | Origin::Default, 0) => {
            Layered { is_secret: true, ..sent(*origin, name, &format!("{text}{SECRET}")) }
        }
        (Origin::Request | Origin::Default, _) => sent(*origin, name, text),
        (_, 0) => sealed(*origin, name, &format!("{text}{SECRET}")),
        (_, 1) => layered(*origin, name, Written::Reference(SecretReference::Id(SecretId(1)))),
        _ => stored(*origin, name, text),
    };
    entries.iter().map(of).collect()
}

type Told = (Vec<(String, bool, Option<String>)>, Vec<FieldError>);

fn told(layers: &[Layered]) -> Told {
    let secret = Secret::new(SECRET.to_owned());
    let Resolution { entries, faults } = resolve(layers, |_| Some(&secret));
    let tell = |e: Entry| (e.key.to_string(), e.is_secret, e.value.map(|value| value.expose().clone()));
    (entries.into_iter().map(tell).collect(), faults)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_order_of_entries_does_not_matter(
        (straight, shuffled) in entries().prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle()))
    ) {
        prop_assert_eq!(told(&build(&straight)), told(&build(&shuffled)));
    }

    #[test]
    fn a_secret_appears_in_no_value_that_is_not_marked_secret(entries in entries()) {
        let (made, faults) = told(&build(&entries));
        for (key, is_secret, value) in made {
            let holds = value.is_some_and(|value| value.contains(SECRET));
            prop_assert!(is_secret || !holds, "{}", key);
        }
        let told = format!("{faults:?}");
        prop_assert!(!told.contains(SECRET), "{}", told);
    }

    #[test]
    fn without_a_fault_everything_has_a_value(entries in entries()) {
        let (made, faults) = told(&build(&entries));
        prop_assert_eq!(faults.is_empty(), made.iter().all(|(_, _, value)| value.is_some()));
    }

    #[test]
    fn no_text_is_too_strange(texts in prop::collection::vec((origins(), r"(\{\{|\}\}|\{|\}|env\.|[A-C]|@secret:|\PC){0,12}"), 0..8)) {
        let names = ["A", "B", "C", "D"];
        let of = |(index, (origin, text)): (usize, &(Origin, String))| stored(*origin, names[index % names.len()], text);
        let _ = told(&texts.iter().enumerate().map(of).collect::<Vec<_>>());
    }
}
