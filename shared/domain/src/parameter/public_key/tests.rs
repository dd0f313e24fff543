use curve25519_dalek::{constants, edwards::CompressedEdwardsY};

use super::*;

fn expect(text: &str, code: Option<&str>) {
    assert_eq!(check(text, None).err().map(|e| e.code), code, "{text}");
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    let mut der = vec![tag];
    if length < 0x80 {
        der.push(u8::try_from(length).unwrap());
    } else {
        let bytes = length.to_be_bytes();
        let bytes = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
        der.push(0x80 | u8::try_from(bytes.len()).unwrap());
        der.extend(bytes);
    }
    der.extend(content);
    der
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(0x30, &parts.concat())
}

/// A positive number, with a zero before it where its first bit is set.
fn positive(bytes: &[u8]) -> Vec<u8> {
    [if bytes[0] >= 0x80 { &[0][..] } else { &[] }, bytes].concat()
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    der(0x02, &positive(bytes))
}

/// An odd number of so many bits.
fn modulus(bits: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..bits.div_ceil(8)).map(|i| u8::try_from(i * 37 % 251).unwrap() | 1).collect();
    let top = (bits - 1) % 8;
    bytes[0] = (bytes[0] & ((1_u8 << top) - 1)) | 1 << top;
    bytes
}

const F4: &[u8] = &[1, 0, 1];
/// `rsaEncryption` and NULL.
const RSA: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
/// `id-Ed25519`
const ED25519: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70];

fn pkcs1(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    sequence(&[&integer(modulus), &integer(exponent)])
}

fn spki_of(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    sequence(&[algorithm, &der(0x03, &[&[0], key].concat())])
}

fn spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    spki_of(RSA, &pkcs1(modulus, exponent))
}

fn ssh(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let part = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    [part(b"ssh-rsa"), part(&positive(exponent)), part(&positive(modulus))].concat()
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn pem_wrapped(label: &str, bytes: &[u8], width: usize, end: &str) -> String {
    let body = base64(bytes);
    let lines: Vec<_> = body.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----{end}{}{end}-----END {label}-----{end}", lines.join(end))
}

fn pem(label: &str, bytes: &[u8]) -> String {
    pem_wrapped(label, bytes, 64, "\n")
}

/// Every form of one key.
fn forms(modulus: &[u8], exponent: &[u8]) -> [String; 6] {
    [
        pem("PUBLIC KEY", &spki(modulus, exponent)),
        pem_wrapped("PUBLIC KEY", &spki(modulus, exponent), 64, "\r\n"),
        pem("RSA PUBLIC KEY", &pkcs1(modulus, exponent)),
        base64(&spki(modulus, exponent)),
        base64(&pkcs1(modulus, exponent)),
        format!("ssh-rsa {}", base64(&ssh(modulus, exponent))),
    ]
}

#[test]
fn an_rsa_key_has_enough_bits_and_a_sound_exponent_in_every_form() {
    let check = |modulus: &[u8], exponent: &[u8], code: Option<&str>| {
        for text in forms(modulus, exponent) {
            expect(&text, code);
        }
    };
    let refused = Some("format-public-key");
    for (bits, code) in [(2_048, None), (2_049, None), (3_072, None), (4_096, None), (8_192, None)] {
        check(&modulus(bits), F4, code);
    }
    for bits in [8, 512, 1_024, 2_040, 2_047, 8_193, 8_200] {
        check(&modulus(bits), F4, refused);
    }
    let mut even = modulus(2_048);
    *even.last_mut().unwrap() &= 0xfe;
    check(&even, F4, refused);
    let good = modulus(2_048);
    for exponent in [&[1, 0, 3][..], &[0xff; 4], &[0xff; 8], &[1, 0, 0, 0, 1]] {
        check(&good, exponent, None);
    }
    for exponent in
        [&[0][..], &[1], &[3], &[17], &[0xff, 0xff], &[1, 0, 0], &[1, 0, 2], &[1, 0, 0, 0, 0, 0, 0, 0, 1], &[1; 9]]
    {
        check(&good, exponent, refused);
    }
}

#[test]
fn nothing_stands_behind_a_key_or_before_it() {
    let refused = Some("format-public-key");
    let n = modulus(2_048);
    for text in forms(&n, F4) {
        for changed in [
            format!("{text} "),
            format!(" {text}"),
            format!("{text}\n"),
            format!("{text}\n\n"),
            format!("{text}="),
            format!("x\n{text}"),
        ] {
            expect(&changed, refused);
        }
        expect(&text[..text.len() / 2], refused);
        expect(&format!("{text}{text}"), refused);
    }
    for bytes in [spki(&n, F4), pkcs1(&n, F4)] {
        expect(&base64(&[&bytes[..], &[0]].concat()), refused);
        expect(&pem("PUBLIC KEY", &[&bytes[..], &[0]].concat()), refused);
        expect(&base64(&bytes[..bytes.len() - 1]), refused);
    }
    // Inside as well: behind the two numbers, and behind the bits.
    let three = sequence(&[&integer(&n), &integer(F4), &integer(&[5])]);
    expect(&base64(&three), refused);
    expect(&base64(&spki_of(RSA, &three)), refused);
    expect(&base64(&spki_of(RSA, &[&pkcs1(&n, F4)[..], &[0]].concat())), refused);
    let ssh = ssh(&n, F4);
    expect(&format!("ssh-rsa {}", base64(&[&ssh[..], &[0]].concat())), refused);
    expect(&format!("ssh-rsa {} me@host", base64(&ssh)), refused);
    expect(&format!("ssh-rsa  {}", base64(&ssh)), refused);
    expect(&format!("command=\"id\" ssh-rsa {}", base64(&ssh)), refused);
    expect(&format!("ssh-ed25519 {}", base64(&ssh)), refused);
    expect(&base64(&ssh), refused);
}

#[test]
fn only_the_one_encoding_of_a_key_is_taken() {
    let refused = Some("format-public-key");
    let n = modulus(2_048);
    let negative = sequence(&[&der(2, &n), &integer(F4)]);
    let padded = sequence(&[&der(2, &[&[0, 0][..], &n].concat()), &integer(F4)]);
    let zero = sequence(&[&der(2, &[]), &integer(F4)]);
    let mut long_length = pkcs1(&n, F4);
    assert_eq!(long_length[..2], [0x30, 0x82]);
    long_length.splice(1..2, [0x83, 0]);
    let mut indefinite = pkcs1(&n, F4);
    indefinite.splice(1..4, [0x80]);
    indefinite.extend([0, 0]);
    for bytes in
        [negative, padded, zero, long_length, indefinite, vec![], vec![0x30], vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]]
    {
        expect(&base64(&bytes), refused);
        expect(&base64(&spki_of(RSA, &bytes)), refused);
    }
    // Without parameters, with others, of other algorithms.
    let mut without = RSA[..RSA.len() - 2].to_vec();
    without[1] -= 2;
    let pss = [&RSA[..RSA.len() - 3], &[10, 5, 0]].concat();
    for algorithm in [&without[..], &pss, ED25519, &[0x30, 0]] {
        expect(&base64(&spki_of(algorithm, &pkcs1(&n, F4))), refused);
    }
    expect(&pem("CERTIFICATE", &spki(&n, F4)), refused);
    expect(&pem("PUBLIC KEY", &pkcs1(&n, F4)), refused);
    expect(&pem("RSA PUBLIC KEY", &spki(&n, F4)), refused);
    let url_safe = base64(&spki(&n, F4)).replace('+', "-").replace('/', "_");
    assert_ne!(url_safe, base64(&spki(&n, F4)));
    expect(&url_safe, refused);
    expect(&pem_wrapped("PUBLIC KEY", &spki(&n, F4), 76, "\n"), None);
}

#[test]
fn an_ed25519_key_is_a_sound_point_in_standard_base64() {
    let base = constants::ED25519_BASEPOINT_COMPRESSED.to_bytes();
    let good = base64(&base);
    expect(&good, None);
    let refused = Some("format-public-key");
    for text in [
        good.trim_end_matches('=').to_owned(),
        format!("{good}="),
        format!("{good}\n"),
        format!(" {good}"),
        good.replace('Z', "-"),
        base64(&base[..31]),
        base64(&[&base[..], &[0]].concat()),
        base.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat(),
        // The last letter says bits that no byte holds.
        format!("{}n=", &good[..42]),
        base64(&spki_of(ED25519, &base)),
        format!("ssh-ed25519 {}", base64(&[&[0, 0, 0, 11][..], b"ssh-ed25519", &[0, 0, 0, 32], &base].concat())),
    ] {
        assert_ne!(text, good);
        expect(&text, refused);
    }
}

#[test]
fn an_ed25519_key_may_begin_with_anything() {
    let begin = |start: [u8; 5]| {
        let bytes = |last: u8| -> [u8; 32] { std::array::from_fn(|i| *start.get(i).unwrap_or(&last)) };
        (0..=255).map(bytes).find(|bytes| CompressedEdwardsY(*bytes).decompress().is_some()).unwrap()
    };
    expect(&base64(&begin([0x30, 30, 2, 1, 0])), None);
    expect(&base64(&begin([0x30, 30, 0x30, 0, 4])), None);
}

#[test]
fn weak_and_doubtful_points_are_refused() {
    let refused = Some("format-public-key");
    for point in constants::EIGHT_TORSION {
        expect(&base64(&point.compress().to_bytes()), refused);
    }
    // y + p for every y that leaves room for it: the same points, or none, written in another way.
    for low in 0xed..=0xff_u8 {
        for high in [0x7f, 0xff] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (low, high);
            expect(&base64(&bytes), refused);
        }
    }
    // x is 0 and said to be odd.
    let mut bytes = [0; 32];
    (bytes[0], bytes[31]) = (1, 0x80);
    expect(&base64(&bytes), refused);
    // About half of all texts are no point at all.
    let no_points = (0..=255).filter(|byte| CompressedEdwardsY([*byte; 32]).decompress().is_none());
    let mut count = 0;
    for byte in no_points {
        expect(&base64(&[byte; 32]), refused);
        count += 1;
    }
    assert!(count > 64, "{count}");
}

#[test]
fn a_private_key_is_told_apart_whatever_was_done_to_it() {
    let n = modulus(2_048);
    let zero: &[u8] = &[2, 1, 0];
    let numbers = [integer(&n), integer(F4), integer(&n), integer(&n[..128]), integer(&n[..128])].concat();
    let pkcs1 = sequence(&[zero, &numbers]);
    let pkcs8 = sequence(&[zero, RSA, &der(4, &pkcs1)]);
    let ed25519 = sequence(&[zero, ED25519, &der(4, &der(4, &[7; 32]))]);
    let sec1 = sequence(&[&[2, 1, 1], &der(4, &[7; 32])]);
    let encrypted = sequence(&[RSA, &der(4, &[7; 1_000])]);
    let openssh = [b"openssh-key-v1\0".as_slice(), &[7; 300]].concat();
    let secret = [[7; 32], constants::ED25519_BASEPOINT_COMPRESSED.to_bytes()].concat();
    let mut texts = vec![
        "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nabc".to_owned(),
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----".to_owned(),
        "PuTTY-User-Key-File-3: ssh-rsa".to_owned(),
        "AGE-SECRET-KEY-1QQQ".to_owned(),
        r#"{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}"#.to_owned(),
        format!("ssh-rsa {}\n{}", base64(&ssh(&n, F4)), pem("RSA PRIVATE KEY", &pkcs1)),
        pem("PUBLIC KEY", &spki(&n, F4)) + &pem("PRIVATE KEY", &pkcs8),
        base64(pem("PRIVATE KEY", &pkcs8).as_bytes()),
        pem("PRIVATE KEY", &pkcs8).replace('\n', "\\n"),
        pem("PRIVATE KEY", &pkcs8).replace('\n', " "),
    ];
    for (label, bytes) in [
        ("RSA PRIVATE KEY", &pkcs1),
        ("PRIVATE KEY", &pkcs8),
        ("PRIVATE KEY", &ed25519),
        ("EC PRIVATE KEY", &sec1),
        ("ENCRYPTED PRIVATE KEY", &encrypted),
        ("OPENSSH PRIVATE KEY", &openssh),
        ("ED25519 PRIVATE KEY", &secret),
    ] {
        let plain = base64(bytes);
        let lines = pem(label, bytes);
        let body: String = lines.lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join("\r\n");
        texts.extend([
            lines.clone(),
            lines.to_lowercase(),
            body,
            format!("  {plain}\n"),
            format!("\"{plain}\""),
            plain.trim_end_matches('=').to_owned(),
            plain.replace('+', "-").replace('/', "_"),
            plain,
        ]);
    }
    for text in texts {
        expect(&text, Some("private-key"));
        let told = check(&text, None).unwrap_err();
        assert!(!told.message.contains("AQAB") && !told.suggestion.contains("AQAB"));
    }
    // Cut in the middle it is one still.
    expect(&base64(&pkcs1[..600]), Some("private-key"));
}

#[test]
fn a_declaration_may_take_one_algorithm_alone() {
    let rsa = base64(&spki(&modulus(2_048), F4));
    let ed25519 = base64(&constants::ED25519_BASEPOINT_COMPRESSED.to_bytes());
    for (allowed, takes) in [
        (None, [true, true]),
        (Some(&[Algorithm::Rsa][..]), [true, false]),
        (Some(&[Algorithm::Ed25519]), [false, true]),
        (Some(&[Algorithm::Rsa, Algorithm::Ed25519]), [true, true]),
    ] {
        assert_eq!([&rsa, &ed25519].map(|text| check(text, allowed).is_ok()), takes, "{allowed:?}");
    }
}

#[test]
fn what_is_too_long_is_not_looked_at() {
    expect(&"A".repeat(16 * 1024 + 1), Some("format-public-key"));
    expect("", Some("format-public-key"));
}
