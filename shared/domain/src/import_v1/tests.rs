use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::{
    application::HostSelector,
    id::{ApplicationId, HostName, ProjectId, RegistryId, SecretGroupId, SecretId},
    image::ImageName,
    secret::Secret,
    variable::{Scope, ValueType},
};

mod contradictions;
mod properties;

fn host(name: &str) -> ExistingHost {
    ExistingHost { name: HostName::parse(name).unwrap(), labels: BTreeMap::new(), drain: false }
}

fn one_host() -> Existing {
    Existing { hosts: vec![host("local")], ..Existing::default() }
}

fn faults(file: Value, decisions: Value) -> Vec<(String, &'static str)> {
    let faults = match Decisions::read(decisions) {
        Err(faults) => faults,
        Ok(decisions) => match Dump::read(file, &decisions) {
            Err(faults) => faults,
            Ok(dump) => planned(dump, &decisions, &one_host()).err().unwrap_or_default(),
        },
    };
    faults.into_iter().map(|fault| (fault.field, fault.invalid.code)).collect()
}

fn planned(dump: Dump, decisions: &Decisions, existing: &Existing) -> Result<Plan, Vec<crate::invalid::FieldError>> {
    let env = |name: &str| (name == "GIVEN").then(|| Secret::new("from the environment".to_owned()));
    let open = |sealed: &Sealed| match sealed.data.first() {
        Some(0) => Ok(Secret::new("opened".to_owned())),
        Some(1) => Err(Closed::WrongKey),
        _ => Err(Closed::NoKey),
    };
    plan(dump, decisions, existing, &Outside { env: &env, open: &open })
}

fn plan_of(file: Value, decisions: Value, existing: &Existing) -> Plan {
    let decisions = Decisions::read(decisions).unwrap();
    planned(Dump::read(file, &decisions).unwrap(), &decisions, existing).unwrap()
}

/// What is done, and what is asked.
#[track_caller]
fn check(file: Value, decisions: Value, existing: &Existing, does: &[&str], asks: &[(&str, &str)]) {
    let shown = file.to_string();
    let plan = plan_of(file, decisions, existing);
    assert_eq!(plan.steps.iter().map(Step::label).collect::<Vec<_>>(), does, "{shown}");
    let asked: Vec<_> = plan.questions.iter().map(|q| (q.field.as_str(), q.invalid.code)).collect();
    assert_eq!(asked, asks, "{shown}");
}

fn shop(changes: &Value) -> Value {
    let mut row = json!({"id": 1, "name": "shop", "image": "registry.example.com/shop", "version": "v1", "port": 8080,
        "containerPort": 80});
    for (column, value) in changes.as_object().unwrap() {
        row[column] = value.clone();
    }
    row
}

fn shop_there(image: &str, port: u16) -> Existing {
    Existing {
        projects: vec![ExistingProject { id: ProjectId(1), key: "v1".to_owned() }],
        applications: vec![ExistingApplication {
            id: ApplicationId(7),
            name: "shop".to_owned(),
            project: ProjectId(1),
            image: ImageName::parse(image).unwrap(),
            ports: vec![dump::port(port, 80)],
            hosts: HostSelector::Names(vec![HostName::parse("local").unwrap()]),
        }],
        ..one_host()
    }
}

#[test]
fn both_spellings_of_all_tables_are_read_and_brought_over_in_order() {
    let file = json!({
        "repositories": [{"id": 3, "registry": "registry.example.com", "authType": "username-password", "username": "ci", "password": "p"}],
        "secret_groups": [{"id": 4, "name": "db"}],
        "secrets": [{"id": 5, "group_id": 4, "name": "URL", "value": "u", "provider_id": null}],
        "applications": [{"id": 1, "name": "shop", "image": "registry.example.com/shop:v1", "container_port": "80", "port": "8080",
            "repository_id": 3, "webhook_enabled": 1, "status": "running", "env": "{\"MODE\":\"x\"}"}],
        "environmentVariables": [
            {"id": 1, "scope": "global", "key": "REGION", "value": "eu", "created_at": "2025-01-01"},
            {"scope": "project", "project_id": 1, "key": "URL", "value": "@secret:5", "value_type": "secret_ref", "secret_id": 5},
        ],
        "webhookSecret": "shared",
        "users": [{"anything": 1}],
    });
    let does = [
        "project v1",
        "secret group db",
        "registry registry.example.com",
        "secret db/URL",
        "application shop",
        "variable application/shop.MODE",
        "variable global.REGION",
        "variable application/shop.URL",
    ];
    check(file.clone(), json!({}), &one_host(), &does, &[]);
    let plan = plan_of(file, json!({}), &one_host());
    let left: Vec<_> = plan.left_out.iter().map(|left| left.what.as_str()).collect();
    let expected = [
        "table users",
        "the shared webhook secret",
        "columns of applications",
        "columns of environment_variables",
        "columns of secrets",
    ];
    assert_eq!(left.len(), expected.len(), "{left:?}");
    assert!(expected.iter().all(|what| left.contains(what)), "{left:?}");
}

#[test]
fn every_fault_is_told_at_once_at_its_path() {
    let file = json!({
        "aplications": [],
        "applications": [
            {"name": "-", "image": "Shop", "port": 0, "containerPort": 80, "contanerPort": 80},
            {"name": "a", "image": "a:1", "version": "2", "port": 1},
            5,
            {"name": "b", "image": "b"}, {"name": "b", "image": "b"},
        ],
        "secrets": [{"name": "a/b"}, {"value": "x"}, {"name": "c", "groupId": 9}],
        "environment_variables": [{"key": "1A", "value": "x"}, {"key": "A"}, {"key": "B", "value": "x", "valueType": "number"},
            {"key": "C", "value": "x", "scope": "project"}, {"key": "D", "value": "x", "scope": "team"}],
        "registries": [{"registry": "a.example.com/path"}, {"registry": "b.example.com", "authType": "magic"}],
        "settings": {"webhook_secret": "x", "smtp_host": "y"},
    });
    let found = faults(file, json!({}));
    for expected in [
        ("aplications", "unknown-table"),
        ("applications[0].name", "format-name"),
        ("applications[0].image", "format-image"),
        ("applications[0].port", "out-of-range"),
        ("applications[0].contanerPort", "unknown-field"),
        ("applications[1].image", "either-or"),
        ("applications[1].containerPort", "missing"),
        ("applications[2]", "wrong-type"),
        ("applications: b", "duplicate"),
        ("secrets[0].name", "format-name"),
        ("secrets[1].name", "missing"),
        ("secrets: c", "unknown-group"),
        ("environment_variables[0].key", "format-key"),
        ("environment_variables[1].value", "missing"),
        ("environment_variables[2].value", "format-number"),
        ("environment_variables[3].projectId", "missing"),
        ("environment_variables[4].scope", "unknown-value"),
        ("registries[0].registry", "format-registry"),
        ("registries[1].authType", "unknown-value"),
        ("settings.smtp_host", "unknown-field"),
    ] {
        let is_it = |(path, code): &(String, &'static str)| (path.as_str(), *code) == expected;
        assert!(found.iter().any(is_it), "{expected:?} is not in {found:#?}");
    }
    assert_eq!(found.len(), 20, "{found:#?}");
    assert_eq!(faults(json!([]), json!({})), [(String::new(), "wrong-type")]);
}

#[test]
fn what_is_ignored_is_no_fault_and_what_is_not_there_cannot_be_ignored() {
    let file = json!({"mails": [], "applications": [shop(&json!({"note": 1})), {"name": "-"}]});
    let ignore = json!({"ignore": ["mails", "applications.note", "applications[1]"]});
    assert_eq!(faults(file.clone(), ignore.clone()), []);
    check(file, ignore, &one_host(), &["project v1", "application shop"], &[]);
    let unknown = json!({"ignore": ["x"], "secrets": {"y": "skip"}, "plain": ["Z"]});
    assert_eq!(faults(json!({}), unknown), [("decisions.ignore: x".to_owned(), "unknown-name")]);
    let unknown = json!({"secrets": {"y": "skip"}, "plain": ["Z"], "variables": {"global.A": "skip"}});
    let found = faults(json!({}), unknown);
    assert_eq!(
        found.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["decisions.secrets.y", "decisions.plain.Z", "decisions.variables.global.A"]
    );
    let wrong =
        json!({"project": "A", "hosts": [], "secrets": {"a": {}}, "applications": {"a": {"image": "nginx"}}, "x": 1});
    let found = faults(json!({}), wrong);
    assert_eq!(
        found.iter().map(|(_, code)| *code).collect::<Vec<_>>(),
        ["format-key", "missing", "either-or", "no-host", "unknown-field"]
    );
}

#[test]
fn a_secret_without_a_value_is_asked_for_until_it_is_decided() {
    let file = || {
        json!({"secrets": [{"id": 1, "name": "prod-db", "provider": "infisical", "reference": "/a/b"}],
        "env": [{"key": "DB", "value": "@secret:1"}]})
    };
    let waits = ("variable global.DB", "waits");
    check(file(), json!({}), &one_host(), &[], &[("secret prod-db", "no-value"), waits]);
    let done = ["secret group v1", "secret v1/prod-db", "variable global.DB"];
    check(file(), json!({"secrets": {"prod-db": {"valueFromEnv": "GIVEN"}}}), &one_host(), &done, &[]);
    let unset = json!({"secrets": {"prod-db": {"valueFromEnv": "OTHER"}}});
    check(file(), unset, &one_host(), &[], &[("secret prod-db", "not-set"), waits]);
    let skip = json!({"secrets": {"prod-db": "skip"}});
    check(file(), skip, &one_host(), &[], &[("variable global.DB", "no-secret")]);
    let other = || json!({"secrets": {"prod-db": {"secret": "infisical/DB"}}});
    check(file(), other(), &one_host(), &[], &[("secret prod-db", "unknown-secret"), waits]);
    let secrets = vec![ExistingSecret { id: SecretId(9), group: "infisical".to_owned(), name: "DB".to_owned() }];
    check(file(), other(), &Existing { secrets, ..one_host() }, &["variable global.DB"], &[]);
}

#[test]
fn an_encrypted_value_is_opened_or_asked_about() {
    let sealed = |first: &str| format!("{}:{}:{first}aa", "00".repeat(16), "11".repeat(16));
    let file = json!({"secrets": [
        {"name": "a", "value": sealed("00")}, {"name": "b", "value": sealed("01")}, {"name": "c", "value": sealed("02")},
        {"name": "d", "value": "host:5432:db"},
    ]});
    let does = ["secret group v1", "secret v1/a", "secret v1/d"];
    check(file, json!({}), &one_host(), &does, &[("secret b", "wrong-key"), ("secret c", "encrypted")]);
}

#[test]
fn a_sealed_value_is_told_from_text() {
    let check = |text: &str, expect: Option<(usize, usize)>| {
        let found = Sealed::parse(text).map(|sealed| (sealed.iv.len(), sealed.data.len()));
        assert_eq!(found, expect, "{text}");
    };
    let (iv, tag) = ("0a".repeat(16), "0b".repeat(16));
    check(&format!("{iv}:{tag}:00ff"), Some((16, 2)));
    check(&format!("{}:{tag}:00ff", "0a".repeat(12)), Some((12, 2)));
    check(&format!("{iv}:{tag}:"), Some((16, 0)));
    check("AAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAA==:AP8=", Some((12, 2)));
    check("AAAAAAAAAAAAAAAAAAAAAA==:AAAAAAAAAAAAAAAAAAAAAA==:+/8=", Some((16, 2)));
    for text in ["", "a:b:c", &format!("{iv}:{tag}"), &format!("{iv}:{tag}:00:00"), &format!("{iv}:{iv}00:00"), "::"] {
        check(text, None);
    }
    for (text, valid) in [("0a".repeat(32), true), ("0a".repeat(31), false), (format!("{}=", "A".repeat(43)), true)] {
        assert_eq!(old_key(&format!("{text}\n")).is_some(), valid, "{text}");
    }
}

#[test]
fn a_plaintext_credential_becomes_a_secret_variable() {
    let file = || json!({"env": {"scope": 1}});
    assert_eq!(faults(file(), json!({})), [("env".to_owned(), "wrong-type")]);
    let file = || {
        json!({"env": [{"key": "API_KEY", "value": "x"}, {"key": "MODE", "value": "a{{b}}"},
        {"key": "REF", "value": "@secret:x"}]})
    };
    let values = |decisions: Value| -> Vec<(String, bool, bool)> {
        let plan = plan_of(file(), decisions, &one_host());
        let texts = plan.steps.into_iter().filter_map(|step| match step {
            Step::Variable { value: PlannedValue::Text { text, is_secret, looks_like_a_credential, .. }, .. } => {
                Some((text.expose().clone(), is_secret, looks_like_a_credential))
            }
            _ => None,
        });
        texts.collect()
    };
    let plain = [("a{{{{b}}".to_owned(), false, false), ("@@secret:x".to_owned(), false, false)];
    assert_eq!(values(json!({})), [[("x".to_owned(), true, true)].as_slice(), &plain].concat());
    let as_plain = values(json!({"plain": ["API_KEY"]}));
    assert_eq!(as_plain, [[("x".to_owned(), false, false)].as_slice(), &plain].concat());
}

#[test]
fn an_application_is_registered_once_nothing_about_it_is_open() {
    let does = ["project v1", "application shop"];
    let app = "application shop";
    let one = |row: Value| json!({"applications": [row]});
    let decided = |row: Value, decision: Value| (one(row), json!({"applications": {"shop": decision}}));
    check(one(shop(&json!({}))), json!({}), &one_host(), &does, &[]);

    check(one(shop(&json!({"image": "shop"}))), json!({}), &one_host(), &[], &[(app, "no-host")]);
    let (file, decisions) = decided(shop(&json!({"image": "shop"})), json!({"image": "docker.io/library/shop"}));
    check(file, decisions, &one_host(), &does, &[]);
    let mut of_the_hub = one(shop(&json!({"image": "a/shop", "repositoryId": 1})));
    of_the_hub["repositories"] = json!([{"id": 1, "name": "hub", "registry": "https://index.docker.io/v1/"}]);
    check(of_the_hub, json!({}), &one_host(), &["project v1", "registry hub", app], &[]);

    check(one(shop(&json!({"version": "latest"}))), json!({}), &one_host(), &does, &[(app, "latest")]);
    let (file, decisions) = decided(shop(&json!({"version": "latest"})), json!({"version": "v1"}));
    check(file, decisions, &one_host(), &does, &[]);

    let two = Existing { hosts: vec![host("a"), host("b")], ..Existing::default() };
    check(one(shop(&json!({}))), json!({}), &two, &[], &[(app, "no-hosts")]);
    check(one(shop(&json!({}))), json!({"hosts": ["b"]}), &two, &does, &[]);
    check(one(shop(&json!({}))), json!({"hosts": ["c"]}), &two, &[], &[(app, "unknown-host")]);

    let mut closed = one(shop(&json!({})));
    closed["registries"] = json!([{"registry": "registry.example.com", "username": "ci"}]);
    let asks = [("registry registry.example.com", "no-password"), (app, "waits")];
    check(closed.clone(), json!({}), &one_host(), &[], &asks);
    let given = json!({"registries": {"registry.example.com": {"passwordFromEnv": "GIVEN"}}});
    check(closed, given, &one_host(), &["project v1", "registry registry.example.com", app], &[]);
}

#[test]
fn a_port_that_two_want_is_given_to_none() {
    let file = || {
        json!({"applications": [shop(&json!({})), shop(&json!({"id": 2, "name": "mail"}))],
        "env": [{"key": "A", "value": "x", "project": "mail"}]})
    };
    let conflicts = [
        ("application shop", "port-conflict"),
        ("application mail", "port-conflict"),
        ("variable application/mail.A", "waits"),
    ];
    check(file(), json!({}), &one_host(), &[], &conflicts);
    let both = ["project v1", "application shop", "application mail", "variable application/mail.A"];
    check(file(), json!({"applications": {"mail": {"port": 8081}}}), &one_host(), &both, &[]);
    check(file(), json!({"applications": {"mail": "skip"}}), &one_host(), &["project v1", "application shop"], &[]);
    let apart = json!({"hosts": ["a"], "applications": {"mail": {"hosts": ["b"]}}});
    check(file(), apart, &Existing { hosts: vec![host("a"), host("b")], ..Existing::default() }, &both, &[]);
    let mut other = shop_there("registry.example.com/other", 8080);
    other.applications[0].name = "other".to_owned();
    let one = json!({"applications": [shop(&json!({}))]});
    check(one, json!({}), &other, &[], &[("application shop", "port-conflict")]);
}

#[test]
fn what_is_there_is_never_overwritten() {
    let app = || json!({"applications": [shop(&json!({"env": {"A": "x"}}))]});
    let name = "application shop";
    let with = |key: &str, value: &str, is_secret: bool, existing: Existing| {
        let variable = ExistingVariable {
            scope: Scope::Application(ApplicationId(7)),
            key: key.to_owned(),
            value: Secret::new(value.to_owned()),
            value_type: ValueType::String,
            is_secret,
            secret: None,
        };
        Existing { variables: vec![variable], ..existing }
    };
    let there = || shop_there("registry.example.com/shop", 8080);
    check(app(), json!({}), &there(), &["variable application/shop.A"], &[]);
    check(app(), json!({}), &with("A", "x", false, there()), &[], &[]);
    check(app(), json!({}), &with("A", "y", false, there()), &[], &[("variable application/shop.A", "differs")]);
    check(app(), json!({}), &with("A", "***************", true, there()), &[], &[]);
    let differs = [(name, "differs"), ("variable application/shop.A", "waits")];
    check(app(), json!({}), &shop_there("registry.example.com/other", 8080), &[], &differs);
    check(app(), json!({}), &shop_there("registry.example.com/shop", 8081), &[], &differs);
    check(app(), json!({"applications": {"shop": "skip"}}), &shop_there("a.example.com/other", 1), &[], &[]);

    let unprotected = json!({"applications": [shop(&json!({"env": {"API_KEY": "x"}}))]});
    let asks = [("variable application/shop.API_KEY", "differs")];
    check(unprotected, json!({}), &with("API_KEY", "x", false, there()), &[], &asks);

    let registry = |server: &str| Existing {
        registries: vec![ExistingRegistry {
            id: RegistryId(1),
            name: "hub".to_owned(),
            server: server.to_owned(),
            auth_type: "username-password".to_owned(),
            username: Some("ci".to_owned()),
        }],
        groups: BTreeMap::from([("v1".to_owned(), SecretGroupId(1))]),
        secrets: vec![ExistingSecret { id: SecretId(1), group: "v1".to_owned(), name: "s".to_owned() }],
        ..one_host()
    };
    let file = || {
        json!({"registries": [{"name": "hub", "registry": "docker.io", "username": "ci", "password": "p"}],
        "secrets": [{"name": "s", "value": "v"}]})
    };
    check(file(), json!({}), &registry("docker.io"), &[], &[]);
    check(file(), json!({}), &registry("a.example.com"), &[], &[("registry hub", "differs")]);
}

#[test]
fn a_project_is_found_by_its_table_its_name_or_a_decision() {
    let variable = |project: Value| json!({"key": "A", "value": "x", "scope": "project", "projectId": project});
    let file = json!({"projects": [{"id": 5, "name": "My Shop"}], "env": [variable(json!(5))]});
    check(file, json!({}), &one_host(), &["project my-shop", "variable project/my-shop.A"], &[]);
    let file = json!({"env": [variable(json!(5))]});
    check(file.clone(), json!({}), &one_host(), &[], &[("variable project 5.A", "unknown-project")]);
    let decided = json!({"projects": {"5": "shop"}});
    check(file, decided, &one_host(), &["project shop", "variable project/shop.A"], &[]);
    // V2's queries take the application's id for the project's.
    let file = json!({"applications": [shop(&json!({}))], "env": [variable(json!(1))]});
    check(file, json!({}), &one_host(), &["project v1", "application shop", "variable application/shop.A"], &[]);
}
