use proptest::prelude::*;

use super::*;

const PLACE: Place<'static> = Place { kind: "secret", id: "12", version: 3 };

fn key(byte: u8) -> DataKey {
    DataKey(Zeroizing::new([byte; 32]))
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn aad_of(place: Place<'_>) -> Vec<u8> {
    aad("v2", &tenant("a"), "secret", place, "k1")
}

fn sealed() -> String {
    encrypt("v2", "k1", &key(1), &aad_of(PLACE), b"hunter2")
}

#[test]
fn what_was_sealed_opens_in_its_place() {
    let opened = decrypt(&sealed(), &key(1), &aad_of(PLACE)).unwrap();
    assert_eq!(opened.expose(), b"hunter2");
    assert_ne!(sealed(), sealed());
}

#[test]
fn nothing_opens_elsewhere_or_with_another_key() {
    let sealed = sealed();
    assert!(decrypt(&sealed, &key(2), &aad_of(PLACE)).is_err());
    for place in [Place { kind: "variable", ..PLACE }, Place { id: "13", ..PLACE }, Place { version: 4, ..PLACE }] {
        assert!(decrypt(&sealed, &key(1), &aad_of(place)).is_err());
    }
    assert!(decrypt(&sealed, &key(1), &aad("v2", &tenant("b"), "secret", PLACE, "k1")).is_err());
    assert!(decrypt(&sealed, &key(1), &aad("v2", &tenant("a"), "replay", PLACE, "k1")).is_err());
    assert!(decrypt(&sealed, &key(1), &aad("v2", &tenant("a"), "secret", PLACE, "k2")).is_err());
}

#[test]
fn any_changed_character_is_noticed() {
    let sealed = sealed();
    let start = sealed.match_indices(':').nth(1).unwrap().0 + 1;
    for at in start..sealed.len() {
        let mut changed = sealed.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(decrypt(&changed, &key(1), &aad_of(PLACE)).is_err(), "{at} of {sealed}");
    }
}

#[test]
fn an_answer_is_no_order_and_opens_for_no_other_task() {
    let (tenant, host) = (tenant("a"), HostName::parse("web-1").unwrap());
    let key = |byte| JobKey { wrapped: "w1".to_owned(), key: Arc::new(key(byte)) };
    let (order, answer) = (crate::tasks::order_place("t1"), crate::tasks::answer_place("t1"));
    let sealed = key(1).seal(&tenant, &host, answer, b"lines");
    assert_eq!(key(1).open(&tenant, &host, answer, &sealed).unwrap().expose(), b"lines");
    assert!(key(2).open(&tenant, &host, answer, &sealed).is_err());
    assert!(key(1).open(&tenant, &host, order, &sealed).is_err());
    assert!(key(1).open(&tenant, &host, crate::tasks::answer_place("t2"), &sealed).is_err());
    assert!(key(1).open(&tenant, &HostName::parse("web-2").unwrap(), answer, &sealed).is_err());
    let renamed = sealed.replacen("w1", "w2", 1);
    assert!(key(1).open(&tenant, &host, answer, &renamed).is_err());
}

/// All that ties a ciphertext to where it belongs.
#[derive(Debug, Clone, PartialEq)]
struct Context {
    key: u8,
    data_key: String,
    tenant: String,
    purpose: &'static str,
    kind: String,
    id: String,
    version: u64,
}

impl Context {
    fn aad(&self) -> Vec<u8> {
        let place = Place { kind: &self.kind, id: &self.id, version: self.version };
        aad("v2", &tenant(&self.tenant), self.purpose, place, &self.data_key)
    }

    fn seal(&self, plain: &[u8]) -> String {
        encrypt("v2", &self.data_key, &key(self.key), &self.aad(), plain)
    }

    fn open(&self, sealed: &str) -> Result<Secret<Vec<u8>>> {
        decrypt(sealed, &key(self.key), &self.aad())
    }
}

/// Few values of each, so that two contexts often differ in one part alone; and such as run into each other.
fn contexts() -> impl Strategy<Value = Context> {
    let words = || prop_oneof!["[ab/]{0,3}", "secret|variable|1|12|2"];
    let purposes = prop_oneof![Just("secret"), Just("snapshot"), Just("replay"), Just("intake")];
    (0..3_u8, "[a-c]{1,2}", "[a-c]", purposes, words(), words(), 0..4_u64).prop_map(
        |(key, data_key, tenant, purpose, kind, id, version)| Context {
            key,
            data_key,
            tenant,
            purpose,
            kind,
            id,
            version,
        },
    )
}

proptest! {
    #[test]
    fn a_value_opens_in_its_own_context_and_in_no_other(
        (own, other) in (contexts(), contexts()),
        plain in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let sealed = own.seal(&plain);
        let opened = own.open(&sealed).unwrap();
        prop_assert_eq!(opened.expose(), &plain);
        prop_assert_eq!(other.open(&sealed).is_ok(), own == other);
    }

    #[test]
    fn of_two_swapped_values_neither_opens(
        (one, other) in (contexts(), contexts()),
        plain in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        prop_assume!(one != other);
        let (first, second) = (one.seal(&plain), other.seal(&plain));
        prop_assert!(one.open(&second).is_err() && other.open(&first).is_err());
    }

    #[test]
    fn any_changed_bit_is_noticed(
        own in contexts(),
        plain in prop::collection::vec(any::<u8>(), 0..200),
        (at, bit) in (any::<prop::sample::Index>(), 0..7_u32),
    ) {
        let sealed = own.seal(&plain);
        let mut changed = sealed.clone().into_bytes();
        changed[at.index(sealed.len())] ^= 1 << bit;
        let changed = String::from_utf8(changed).unwrap();
        // Format and data key are read from the text itself, and looked for before anything is opened.
        let opened = match data_key_of(&changed) {
            Ok(data_key) => Context { data_key: data_key.to_owned(), ..own.clone() }.open(&changed),
            Err(error) => Err(error),
        };
        prop_assert!(opened.is_err());
    }

    #[test]
    fn whatever_is_read_as_a_ciphertext_is_refused_without_a_fault(own in contexts(), text in "\\PC{0,80}|v2(:[A-Za-z0-9_-]{0,20}){0,6}") {
        prop_assert!(own.open(&text).is_err());
    }
}
