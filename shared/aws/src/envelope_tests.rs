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
