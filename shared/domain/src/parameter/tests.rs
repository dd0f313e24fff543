use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::{approval::ReasonCode, invalid::FieldError};

fn parameter(name: &str, value_type: ParameterType) -> Parameter {
    Parameter::new(VariableKey::parse(name).unwrap(), value_type)
}

fn given(value: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(value).unwrap()
}

type Pairs<'a> = Vec<(&'a str, &'a str)>;

fn pairs(errors: &[FieldError]) -> Pairs<'_> {
    errors.iter().map(|e| (e.field.as_str(), e.invalid.code)).collect()
}

#[test]
fn every_fault_of_the_variables_is_told_at_once() {
    let parameters = [
        parameter("A", ParameterType::Number),
        Parameter { required: true, ..parameter("B", ParameterType::Boolean) },
        Parameter { required: true, ..parameter("C", ParameterType::String) },
        Parameter {
            min_length: Some(3),
            pattern: Some(Pattern::parse("[a-z]+").unwrap()),
            choices: Some(vec!["abc".to_owned()]),
            ..parameter("E", ParameterType::String)
        },
    ];
    let check = |values: Value, expect: Result<Pairs<'_>, Pairs<'_>>| {
        let got = accept(&parameters, &given(values));
        match (&got, expect) {
            (Ok(got), Ok(expect)) => {
                assert_eq!(got.values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expect);
            }
            (Err(got), Err(expect)) => assert_eq!(pairs(got), expect),
            _ => panic!("{got:?}"),
        }
    };
    check(json!({"A": 1.5, "B": true, "C": "x"}), Ok(vec![("A", "1.5"), ("B", "true"), ("C", "x")]));
    check(json!({"B": "false", "C": "", "E": "abc"}), Ok(vec![("B", "false"), ("C", ""), ("E", "abc")]));
    check(
        json!({"A": "x", "D": "y", "C": "z", "E": "1"}),
        Err(vec![
            ("variables.A", "format-number"),
            ("variables.D", "undeclared"),
            ("variables.E", "too-short"),
            ("variables.E", "unknown-value"),
            ("variables.E", "pattern"),
            ("variables.B", "missing"),
        ]),
    );
    check(
        json!({"A": null, "B": null, "C": "z"}),
        Err(vec![("variables.A", "format-number"), ("variables.B", "format-boolean")]),
    );
}

#[test]
fn what_is_refused_is_never_repeated() {
    let marked = "m4rked\u{1}.value";
    let mut parameters: Vec<_> =
        ParameterType::ALL.into_iter().enumerate().map(|(i, t)| parameter(&format!("P{i}"), t)).collect();
    parameters.push(Parameter {
        choices: Some(vec!["a".to_owned()]),
        multiline: true,
        max_length: Some(2),
        pattern: Some(Pattern::parse("a").unwrap()),
        ..parameter("CHOICE", ParameterType::String)
    });
    let values = parameters.iter().map(|p| (p.name.to_string(), json!(marked))).collect();
    let errors = accept(&parameters, &values).unwrap_err();
    assert_eq!(errors.len(), ParameterType::ALL.len() + 3);
    for error in errors {
        assert!(!format!("{error:?}").contains("m4rked"), "{error:?}");
    }
}

#[test]
fn a_name_that_is_no_name_is_shown_harmless_and_short() {
    let long = "x".repeat(100_000);
    let values = given(json!({"API-URL": 1, "@all <b>": 1, "a\nb": 1, long.as_str(): 1}));
    let errors = accept(&[], &values).unwrap_err();
    let fields: Vec<_> = errors.iter().map(|e| e.field.as_str()).collect();
    let short = format!("variables.{}…", "x".repeat(64));
    assert_eq!(fields, ["variables.?all??b?", "variables.API-URL", "variables.a?b", &short]);
}

#[test]
fn an_answer_stays_short_however_many_names_are_wrong() {
    let parameters: Vec<_> =
        (0..200).map(|i| parameter(&format!("{}_{i}", "P".repeat(120)), ParameterType::String)).collect();
    let check = |count: usize, listed: usize, last: (&str, &str)| {
        let values = (0..count).map(|i| (format!("N{i}"), json!(1))).collect();
        let errors = accept(&parameters, &values).unwrap_err();
        assert_eq!((errors.len(), *pairs(&errors).last().unwrap()), (listed, last), "{count}");
        let bytes: usize = errors.iter().map(|e| e.field.len() + e.invalid.to_string().len()).sum();
        assert!(bytes < 400_000, "{count} names make an answer of {bytes} bytes");
        errors.last().unwrap().invalid.message.clone()
    };
    check(100, 100, ("variables.N99", "undeclared"));
    check(101, 101, ("variables", "more-faults"));
    assert!(check(50_000, 101, ("variables", "more-faults")).contains("49900"));
}

#[test]
fn public_values_ask_for_a_decision_where_the_declaration_says_so() {
    let asking = |name: &str, value_type| Parameter {
        approval: Some(ApprovalRule::PublicAddress),
        ..parameter(name, value_type)
    };
    let parameters = [
        asking("IP", ParameterType::Ip),
        asking("HOST", ParameterType::Host),
        asking("URL", ParameterType::Url),
        asking("DOMAIN", ParameterType::Domain),
        parameter("FREE", ParameterType::Url),
        Parameter { approval: Some(ApprovalRule::Always), ..parameter("EVER", ParameterType::String) },
        Parameter { default: Some("8.8.8.8".to_owned()), ..asking("DEFAULT", ParameterType::Ipv4) },
        Parameter {
            default: Some("x".to_owned()),
            approval: Some(ApprovalRule::Always),
            ..parameter("EVER_DEFAULT", ParameterType::String)
        },
    ];
    let check = |values: Value, expect: &[(&str, ReasonCode)]| {
        let accepted = accept(&parameters, &given(values)).unwrap();
        let got: Vec<_> = accepted.reasons.iter().map(|reason| (reason.field.as_str(), reason.code)).collect();
        assert_eq!(got, expect);
        for reason in accepted.reasons {
            assert!(!reason.message.contains("8.8") && !reason.message.contains("example"), "{reason:?}");
        }
    };
    check(json!({}), &[]);
    check(json!({"IP": "10.0.0.1", "HOST": "10.0.0.1:80", "URL": "http://[fd00::1]/", "FREE": "http://8.8.8.8/"}), &[]);
    check(
        json!({"IP": "2606:4700::1", "HOST": "8.8.8.8:80", "URL": "https://8.8.8.8/"}),
        &[
            ("variables.HOST", ReasonCode::PublicAddress),
            ("variables.IP", ReasonCode::PublicAddress),
            ("variables.URL", ReasonCode::PublicAddress),
        ],
    );
    check(
        json!({"DOMAIN": "example.com", "HOST": "example.com", "URL": "https://10.0.0.1.nip.io/"}),
        &[
            ("variables.DOMAIN", ReasonCode::DomainAddress),
            ("variables.HOST", ReasonCode::DomainAddress),
            ("variables.URL", ReasonCode::DomainAddress),
        ],
    );
    check(json!({"EVER": ""}), &[("variables.EVER", ReasonCode::Always)]);
    // Sent, a default's value is the request's.
    check(
        json!({"DEFAULT": "8.8.8.8", "EVER_DEFAULT": "x"}),
        &[("variables.DEFAULT", ReasonCode::PublicAddress), ("variables.EVER_DEFAULT", ReasonCode::Always)],
    );
}

#[test]
fn a_declaration_that_contradicts_itself_is_told_what_is_wrong() {
    let check =
        |parameter: Parameter, expect: Pairs<'_>| assert_eq!(pairs(&parameter.faults()), expect, "{parameter:?}");
    for value_type in ParameterType::ALL {
        let public = Parameter { approval: Some(ApprovalRule::PublicAddress), ..parameter("A", value_type) };
        let leads_somewhere = matches!(value_type.name(), "ipv4" | "ip" | "domain" | "host" | "url");
        check(public, if leads_somewhere { vec![] } else { vec![("approval", "either-or")] });
        check(Parameter { approval: Some(ApprovalRule::Always), ..parameter("A", value_type) }, vec![]);
    }
    let string = || parameter("A", ParameterType::String);
    check(Parameter { min_length: Some(3), max_length: Some(2), ..string() }, vec![("minLength", "either-or")]);
    check(Parameter { min_length: Some(2), max_length: Some(2), ..string() }, vec![]);
    check(Parameter { min_length: Some(4_097), ..string() }, vec![("minLength", "either-or")]);
    check(Parameter { max_length: Some(65_536), ..string() }, vec![]);
    check(Parameter { max_length: Some(65_537), ..string() }, vec![("maxLength", "out-of-range")]);
    check(Parameter { choices: Some(vec![]), ..string() }, vec![("enum", "out-of-range")]);
    check(Parameter { choices: Some(vec!["a".to_owned(); 101]), ..string() }, vec![("enum", "out-of-range")]);
    check(
        Parameter { choices: Some(vec!["1".to_owned(), "x".to_owned()]), ..parameter("A", ParameterType::Number) },
        vec![("enum[1]", "format-number")],
    );
    check(
        Parameter { default: Some("x".to_owned()), ..parameter("A", ParameterType::Ip) },
        vec![("default", "format-ip")],
    );
    check(
        Parameter { default: Some("127.0.0.1".to_owned()), ..parameter("A", ParameterType::Ip) },
        vec![("default", "reserved-address")],
    );
    check(
        Parameter { default: Some("b".to_owned()), choices: Some(vec!["a".to_owned()]), ..string() },
        vec![("default", "unknown-value")],
    );
    check(
        Parameter { default: Some("b".to_owned()), pattern: Some(Pattern::parse("a").unwrap()), ..string() },
        vec![("default", "pattern")],
    );
    check(Parameter { default: Some("b".to_owned()), sensitive: true, ..string() }, vec![("default", "either-or")]);
    check(Parameter { multiline: true, ..parameter("A", ParameterType::Json) }, vec![("multiline", "either-or")]);
    check(Parameter { multiline: true, default: Some("a\nb".to_owned()), ..string() }, vec![]);
    check(Parameter { algorithms: Some(vec![Algorithm::Rsa]), ..string() }, vec![("algorithms", "either-or")]);
    check(
        Parameter { algorithms: Some(vec![]), ..parameter("A", ParameterType::PublicKey) },
        vec![("algorithms", "missing")],
    );
}

#[test]
fn lengths_count_characters() {
    let check = |parameter: &Parameter, value: &str, expect: Option<&str>| {
        let got = parameter.check(value).err().map(|failed| failed[0].code);
        assert_eq!(got, expect, "{}", value.len());
    };
    let plain = parameter("A", ParameterType::String);
    check(&plain, &"é".repeat(4_096), None);
    check(&plain, &"a".repeat(4_097), Some("too-long"));
    let declared = Parameter { min_length: Some(2), max_length: Some(5_000), ..plain };
    check(&declared, "😀😀", None);
    check(&declared, "é", Some("too-short"));
    check(&declared, &"😀".repeat(5_000), None);
    check(&declared, &"a".repeat(5_001), Some("too-long"));
    let number = Parameter { max_length: Some(2), ..parameter("A", ParameterType::Number) };
    check(&number, "123", Some("too-long"));
}

#[test]
fn the_choices_for_a_secret_are_not_told() {
    let open = Parameter { choices: Some(vec!["alpha".to_owned()]), ..parameter("A", ParameterType::String) };
    let told = |parameter: &Parameter| parameter.check("x").unwrap_err()[0].suggestion.contains("alpha");
    assert!(told(&open));
    assert!(!told(&Parameter { sensitive: true, ..open }));
}

#[test]
fn a_declaration_that_was_stored_before_is_still_read() {
    let before = json!({"name": "A", "type": "json", "required": true, "default": null, "sensitive": false});
    let read: Parameter = serde_json::from_value(before).unwrap();
    assert_eq!(read, Parameter { required: true, ..parameter("A", ParameterType::Json) });
}

#[test]
fn a_declaration_is_written_as_the_api_has_it() {
    let all = json!({
        "name": "key", "type": "public_key", "required": false, "default": null, "sensitive": true, "approval": "always",
        "minLength": 1, "maxLength": 9, "pattern": "a+", "enum": ["aa"], "multiline": false, "algorithms": ["rsa", "ed25519"],
    });
    let read: Parameter = serde_json::from_value(all.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), all);
    for value_type in ParameterType::ALL {
        assert_eq!(serde_json::to_value(value_type).unwrap(), value_type.name());
        assert_eq!(ParameterType::parse(value_type.name()), Ok(value_type));
    }
    assert!(ParameterType::parse("secret_ref").is_err());
    assert_eq!(serde_json::to_value(ApprovalRule::PublicAddress).unwrap(), "public-address");
}
