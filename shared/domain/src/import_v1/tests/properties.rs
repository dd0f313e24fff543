use proptest::prelude::*;

use super::*;

const MARKER: &str = "v4lue-that-nobody-may-see";

/// Columns that hold values, and what else a row may have.
fn cell() -> impl Strategy<Value = (String, Value)> {
    let hidden = prop::sample::select(vec![
        "value",
        "password",
        "token",
        "webhookToken",
        "webhook_secret",
        "valeu",
        "reference",
    ]);
    let hidden = (hidden, prop::sample::select(vec!["", "x", ":"]))
        .prop_map(|(name, before)| (name.to_owned(), Value::from(format!("{before}{MARKER}"))));
    let columns = vec![
        "id",
        "name",
        "key",
        "image",
        "version",
        "port",
        "containerPort",
        "container_port",
        "repositoryId",
        "projectId",
        "project",
        "scope",
        "valueType",
        "secretId",
        "isSecret",
        "groupId",
        "registry",
        "authType",
        "username",
        "ports",
        "webhookEnabled",
        "deleted_at",
        "envId",
    ];
    let values = vec![
        json!(1),
        json!(0),
        json!(-1),
        json!(1e300),
        json!(null),
        json!(true),
        json!("1"),
        json!("a"),
        json!("shop"),
        json!("A"),
        json!("nginx:latest"),
        json!("registry.example.com/a"),
        json!("project"),
        json!("global"),
        json!([]),
        json!({}),
        json!("secret_ref"),
        json!("json"),
        json!("token"),
        json!([{"host": 1, "container": 2}]),
        json!("@secret:1"),
    ];
    let other = (prop::sample::select(columns), prop::sample::select(values)).prop_map(|(n, v)| (n.to_owned(), v));
    let env = prop::sample::select(vec!["env", "environment"])
        .prop_map(|name| (name.to_owned(), json!({"A": MARKER, "B_TOKEN": MARKER, "1": MARKER, "C": {"x": MARKER}})));
    prop_oneof![4 => other, 2 => hidden, 1 => env]
}

fn file() -> impl Strategy<Value = Value> {
    let tables = vec![
        "applications",
        "secrets",
        "env",
        "environment_variables",
        "registries",
        "secretGroups",
        "projects",
        "settings",
        "webhookSecret",
        "users",
        "nonsense",
    ];
    let row = prop::collection::btree_map("x", Just(()), 0..1)
        .prop_flat_map(|_| prop::collection::vec(cell(), 0..8))
        .prop_map(|cells| Value::Object(cells.into_iter().collect()));
    let table = prop_oneof![8 => prop::collection::vec(row, 0..4).prop_map(Value::Array), 1 => Just(json!(MARKER))];
    prop::collection::vec((prop::sample::select(tables), table), 0..6)
        .prop_map(|tables| Value::Object(tables.into_iter().map(|(name, rows)| (name.to_owned(), rows)).collect()))
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from)
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "applications",
            "secrets",
            "env",
            "name",
            "key",
            "value",
            "ports",
            "image",
            "ignore",
            "hosts"
        ])
        .prop_map(str::to_owned),
        ".{0,6}"
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// All that can be said of them.
fn told(file: Value, decisions: Value) -> String {
    let decisions = match Decisions::read(decisions) {
        Ok(decisions) => decisions,
        Err(faults) => return format!("{faults:?}"),
    };
    match Dump::read(file, &decisions) {
        Err(faults) => format!("{faults:?}"),
        Ok(dump) => format!("{:?}", planned(dump, &decisions, &one_host())),
    }
}

proptest! {
    #[test]
    fn any_json_is_read_without_panic(file in anything(), decisions in anything()) {
        told(file, decisions);
    }

    #[test]
    fn no_value_is_ever_told(file in file()) {
        let told = told(file, json!({}));
        prop_assert!(!told.contains(MARKER), "{}", told);
    }

    #[test]
    fn a_variable_goes_to_nobody_whom_its_row_does_not_say(
        scope in prop::sample::select(vec![None, Some("global"), Some("project"), Some("application")]),
        name in prop::sample::select(vec![None, Some("shop"), Some("mail")]),
        id in prop::sample::select(vec![json!(null), json!(""), json!(1), json!("2"), json!(77)]),
        project in prop::sample::select(vec![json!(null), json!(""), json!(5), json!(6)]),
    ) {
        let file = json!({
            "applications": [shop(&json!({})), shop(&json!({"id": 2, "name": "mail", "port": 8081}))],
            "projects": [{"id": 5, "name": "front"}, {"id": 6, "name": "back"}],
            "env": [{"key": "A", "value": "x", "scope": scope, "application": name, "applicationId": id, "projectId": project}],
        });
        let decisions = Decisions::default();
        if let Ok(dump) = Dump::read(file, &decisions) {
            let plan = planned(dump, &decisions, &one_host()).unwrap();
            let label = plan.steps.iter().map(Step::label).find(|label| label.starts_with("variable "));
            let said = |value: &Value| value.as_str() != Some("") && !value.is_null();
            let (whose, kind) = match label.as_deref() {
                None => return Ok(()),
                Some("variable global.A") => ((None, json!(null), json!(null)), "global"),
                Some("variable application/shop.A") => ((Some("shop"), json!(1), json!(null)), "application"),
                Some("variable application/mail.A") => ((Some("mail"), json!("2"), json!(null)), "application"),
                Some("variable project/front.A") => ((None, json!(null), json!(5)), "project"),
                Some("variable project/back.A") => ((None, json!(null), json!(6)), "project"),
                Some(other) => panic!("{other}"),
            };
            prop_assert!(scope.is_none_or(|scope| scope == kind));
            prop_assert!(name.is_none() || name == whose.0);
            prop_assert!(!said(&id) || id == whose.1);
            prop_assert!(!said(&project) || project == whose.2);
        }
    }

    #[test]
    fn what_was_planned_and_done_is_not_planned_again(file in file()) {
        let decisions = Decisions::default();
        let read = |file: &Value| Dump::read(file.clone(), &decisions);
        if let Ok(dump) = read(&file) {
            let first = planned(dump, &decisions, &one_host()).unwrap();
            let after = done(&first);
            let second = planned(read(&file).unwrap(), &decisions, &after).unwrap();
            let again: Vec<_> = second.steps.iter().map(Step::label).collect();
            prop_assert!(again.is_empty(), "{:?}", again);
        }
    }
}

/// An installation after these steps.
fn done(plan: &Plan) -> Existing {
    let mut after = one_host();
    let id = |index: usize| u64::try_from(index).unwrap();
    for (index, step) in plan.steps.iter().enumerate() {
        match step {
            Step::Project { key, .. } => {
                after.projects.push(ExistingProject { id: ProjectId(id(index)), key: key.clone() });
            }
            Step::Registry { name, server, auth } => {
                let (auth_type, username) = match auth {
                    PlannedAuth::None => ("none", None),
                    PlannedAuth::UsernamePassword { username, .. } => ("username-password", Some(username.clone())),
                    PlannedAuth::Token { username, .. } => {
                        ("token", Some(username.clone().unwrap_or_else(|| "token".to_owned())))
                    }
                };
                after.registries.push(ExistingRegistry {
                    id: RegistryId(id(index)),
                    name: name.clone(),
                    server: server.to_string(),
                    auth_type: auth_type.to_owned(),
                    username,
                });
            }
            Step::Group { name, .. } => {
                after.groups.insert(name.clone(), SecretGroupId(id(index)));
            }
            Step::Secret { group, name, .. } => {
                after.secrets.push(ExistingSecret {
                    id: SecretId(id(index)),
                    group: group.clone(),
                    name: name.clone(),
                });
            }
            Step::Application { project, name, image, ports, hosts, .. } => {
                let project = after.project(project).unwrap();
                after.applications.push(ExistingApplication {
                    id: ApplicationId(id(index)),
                    name: name.as_str().to_owned(),
                    project,
                    image: image.clone(),
                    ports: ports.clone(),
                    hosts: HostSelector::Names(hosts.clone()),
                });
            }
            Step::Variable { scope, key, value } => {
                let scope = match scope {
                    PlannedScope::Global => Scope::Global,
                    PlannedScope::Project(key) => Scope::Project(after.project(key).unwrap()),
                    PlannedScope::Application(name) => Scope::Application(after.application(name.as_str()).unwrap().id),
                };
                let (text, value_type, is_secret, secret) = match value {
                    PlannedValue::Text { text, value_type, is_secret, .. } => {
                        (text.duplicate(), *value_type, *is_secret, None)
                    }
                    PlannedValue::Reference { group, name } => {
                        (Secret::new(String::new()), ValueType::SecretRef, true, after.secret(group, name))
                    }
                };
                after.variables.push(ExistingVariable {
                    scope,
                    key: key.to_string(),
                    value: text,
                    value_type,
                    is_secret,
                    secret,
                });
            }
        }
    }
    after
}
