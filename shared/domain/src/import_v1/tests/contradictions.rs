//! Files that say two things at once. Which of them was meant nobody can know; so it is asked, not chosen.

use super::*;

/// With two applications, the first of a project, and two secrets.
fn with(variable: &Value) -> Value {
    json!({
        "applications": [shop(&json!({"projectId": 5})), shop(&json!({"id": 2, "name": "mail", "port": 8081}))],
        "projects": [{"id": 5, "name": "front"}],
        "secrets": [{"id": 1, "name": "ONE", "value": "x"}, {"id": 2, "name": "TWO", "value": "y"}],
        "environment_variables": [variable],
    })
}

/// What a row has with these columns besides its key.
fn row(columns: &Value) -> Value {
    let mut row = json!({"key": "A"});
    for (column, value) in columns.as_object().unwrap() {
        row[column] = value.clone();
    }
    row
}

#[track_caller]
fn check_fault(columns: &Value, column: &str, code: &'static str) {
    let found = faults(with(&row(columns)), json!({}));
    assert_eq!(found, [(format!("environment_variables[0].{column}"), code)], "{columns}");
}

/// The labels of its variables, and the secret that each refers to.
fn variables(file: Value) -> Vec<(String, Option<String>)> {
    let plan = plan_of(file, json!({}), &one_host());
    assert!(plan.questions.is_empty(), "{:?}", plan.questions);
    let variables = plan.steps.iter().filter_map(|step| match step {
        Step::Variable { value: PlannedValue::Reference { name, .. }, .. } => Some((step.label(), Some(name.clone()))),
        Step::Variable { value: PlannedValue::Text { .. }, .. } => Some((step.label(), None)),
        _ => None,
    });
    variables.collect()
}

#[test]
fn an_id_is_of_one_row() {
    let id = |table: &str| (format!("{table}[1].id"), "duplicate");
    let check =
        |table: &str, rows: Value| assert_eq!(faults(json!({ table: rows }), json!({})), [id(table)], "{table}");
    check("applications", json!([shop(&json!({})), shop(&json!({"name": "mail", "port": 8081}))]));
    check("applications", json!([shop(&json!({})), shop(&json!({"id": "1", "name": "mail", "port": 8081}))]));
    check("secrets", json!([{"id": 9, "name": "A", "value": "x"}, {"id": 9, "name": "B", "value": "y"}]));
    check("secret_groups", json!([{"id": 9, "name": "a"}, {"id": 9, "name": "b"}]));
    check("projects", json!([{"id": 9, "name": "a"}, {"id": 9, "name": "b"}]));
    check("repositories", json!([{"id": 9, "registry": "a.example.com"}, {"id": 9, "registry": "b.example.com"}]));
    // Under either name of their table.
    let both = json!({"registries": [{"id": 9, "registry": "a.example.com"}],
        "repositories": [{"id": 9, "registry": "b.example.com"}]});
    assert_eq!(faults(both, json!({})), [("repositories[0].id".to_owned(), "duplicate")]);
    let secrets = json!([{"id": 9, "name": "A", "value": "x"}, {"id": 9, "name": "B", "value": "y"},
        {"name": "C", "value": "z"}, {"name": "D", "value": "z"}, {"id": "", "name": "E", "value": "z"},
        {"id": "", "name": "F", "value": "z"}, {"id": 9, "name": "G", "value": "z", "deleted_at": "2025-01-01"}]);
    assert_eq!(faults(json!({"secrets": secrets}), json!({"ignore": ["secrets[0]"]})), []);
    // Of variables nobody says the id, and other tables have ids of their own.
    let apart = json!({"env": [{"id": 1, "key": "A", "value": "x"}, {"id": 1, "key": "B", "value": "y"}],
        "secrets": [{"id": 1, "name": "A", "value": "x"}], "applications": [shop(&json!({}))]});
    assert_eq!(faults(apart, json!({})), []);
}

#[test]
fn a_variable_is_of_the_one_that_all_of_its_row_says() {
    let check = |columns: Value, expect: &str| {
        let mut columns = columns;
        columns["value"] = "x".into();
        assert_eq!(variables(with(&row(&columns))), [(format!("variable {expect}.A"), None)], "{columns}");
    };
    check(json!({}), "global");
    check(json!({"scope": "global", "project_id": "", "application_id": null}), "global");
    check(json!({"scope": "application", "application_id": 1, "project_id": ""}), "application/shop");
    check(json!({"application": "mail", "application_id": 2}), "application/mail");
    check(json!({"scope": "project", "project_id": 5}), "project/front");
    let check = |columns: Value, column: &str, code: &'static str| {
        let mut columns = columns;
        columns["value"] = "x".into();
        check_fault(&columns, column, code);
    };
    check(json!({"scope": "global", "application_id": 1}), "scope", "either-or");
    check(json!({"scope": "global", "application": "shop"}), "scope", "either-or");
    check(json!({"scope": "global", "project_id": 5}), "scope", "either-or");
    check(json!({"scope": "application", "project_id": 5}), "scope", "either-or");
    check(json!({"scope": "project", "application_id": 1}), "scope", "either-or");
    check(json!({"application_id": 1, "project_id": 5}), "project_id", "either-or");
    check(json!({"scope": "application", "applicationName": "shop", "projectId": 5}), "projectId", "either-or");
    check(json!({"application": "shop", "application_id": 2}), "application_id", "either-or");
    check(json!({"application": "shop", "application_id": 77}), "application_id", "either-or");
    check(json!({"application": "other", "application_id": 1}), "application_id", "either-or");
    check(json!({"scope": "application", "application_id": ""}), "projectId", "missing");
    check(json!({"application_id": ""}), "scope", "missing");
    check(json!({"scope": "team", "application_id": 1}), "scope", "unknown-value");
    // Neither is known: the planner asks.
    let ghost = with(&row(&json!({"value": "x", "application": "ghost", "application_id": 77})));
    assert_eq!(faults(ghost, json!({})), []);
}

#[test]
fn a_variable_has_one_value() {
    let check = |columns: Value, expect: Option<&str>| {
        let expect = [("variable global.A".to_owned(), expect.map(str::to_owned))];
        assert_eq!(variables(with(&row(&columns))), expect, "{columns}");
    };
    for value in [json!(null), json!(""), json!("@secret:2")] {
        check(json!({"value": value, "secret_id": 2}), Some("TWO"));
        check(json!({"value": value, "secret_id": 2, "value_type": "secret_ref"}), Some("TWO"));
    }
    check(json!({"value": "@secret:2"}), Some("TWO"));
    check(json!({"value": "@secret:2", "secret_id": ""}), Some("TWO"));
    check(json!({"value": "@secret:2", "value_type": "secret_ref"}), Some("TWO"));
    check(json!({"value": "@secret:2", "value_type": "string"}), None);
    check(json!({"value": "", "value_type": "string", "secret_id": ""}), None);
    check_fault(&json!({"value": "", "value_type": "string", "secret_id": 1}), "secret_id", "either-or");
    check_fault(&json!({"value": "5", "value_type": "number", "secretId": 1}), "secretId", "either-or");
    check_fault(&json!({"value": "@secret:2", "secret_id": 1}), "value", "either-or");
    check_fault(&json!({"value": "x", "secret_id": 1}), "value", "either-or");
    check_fault(&json!({"value": "x", "secret_id": 1, "value_type": "secret_ref"}), "value", "either-or");
    check_fault(&json!({"value": "x", "value_type": "secret_ref"}), "secretId", "missing");
    let own = json!({"applications": [shop(&json!({"env": [{"key": "A", "value": "@secret:2", "secretId": 1}]}))]});
    assert_eq!(faults(own, json!({})), [("applications[0].env[0].value".to_owned(), "either-or")]);
}

#[test]
fn a_row_is_deleted_if_it_says_when() {
    let secret = |deleted: &Value| json!({"secrets": [{"name": "S", "value": "x", "deleted_at": deleted}]});
    for live in [
        json!(null),
        json!(""),
        json!(" "),
        json!(false),
        json!("false"),
        json!(0),
        json!("0"),
        json!("0000-00-00 00:00:00"),
    ] {
        check(secret(&live), json!({}), &one_host(), &["secret group v1", "secret v1/S"], &[]);
    }
    for deleted in [
        json!(true),
        json!("true"),
        json!(1),
        json!("1"),
        json!("2025-01-01T00:00:00Z"),
        json!("0001-01-01 00:00:00"),
        json!(1_735_689_600),
    ] {
        check(secret(&deleted), json!({}), &one_host(), &[], &[]);
    }
    for unclear in [json!("NULL"), json!("\\N"), json!("no"), json!({}), json!([])] {
        let expect = [("secrets[0].deleted_at".to_owned(), "wrong-type")];
        assert_eq!(faults(secret(&unclear), json!({})), expect, "{unclear}");
    }
}

/// The faults of texts: of the file, and of the decisions if those have any.
fn faults_of(file: &str, decisions: &str) -> Vec<String> {
    let faults = Decisions::read(read_json(decisions).unwrap())
        .and_then(|decisions| Dump::read(read_json(file).unwrap(), &decisions))
        .map_or_else(|faults| faults, |_| Vec::new());
    faults.into_iter().map(|fault| format!("{} {}", fault.field, fault.invalid.code)).collect()
}

#[test]
fn nothing_is_lost_to_a_name_that_is_there_twice() {
    let check = |file: &str, decisions: &str, expect: &[&str]| {
        assert_eq!(faults_of(file, decisions), expect, "{file} {decisions}");
    };
    let tables = r#"{"secrets":[{"name":"A","value":"x"}],"secrets":[{"name":"B","value":"x"}]}"#;
    check(tables, "{}", &["secrets duplicate"]);
    let columns =
        r#"{"secrets":[{"name":"A","name":"B","value":"x"},{"name":"C","value":"x","value":1.50,"vlaue":""}]}"#;
    let told = ["secrets[0].name duplicate", "secrets[1].value duplicate", "secrets[1].vlaue unknown-field"];
    check(columns, "{}", &told);
    // In what a column holds as an object, and as a text.
    let app = |env: &str| {
        let rest = r#""name":"a","image":"r.example.com/a","version":"1""#;
        format!(r#"{{"applications":[{{{rest},"env":{env}}}]}}"#)
    };
    for env in [r#"{"A":1,"A":2}"#, r#"{"A":1.50,"A":2}"#, r#""{\"A\":1,\"A\":2}""#, r#""{\"A\":1.50,\"A\":2}""#] {
        check(&app(env), "{}", &["applications[0].env.A duplicate"]);
    }
    let list = r#""[{\"key\":\"A\",\"value\":1,\"value\":2}]""#;
    check(&app(list), "{}", &["applications[0].env[0].value duplicate"]);
    let json = r#"{"env":[{"key":"A","value_type":"json","value":{"a":1,"a":2}}]}"#;
    check(json, "{}", &["env[0].value.a duplicate"]);
    check("{}", r#"{"secrets":{"a":"skip","a":{"valueFromEnv":"A"}}}"#, &["decisions.secrets.a duplicate"]);
    // What is passed over loses nothing.
    let joined = r#"{"users":[{"id":1,"id":2}],"secrets":[{"id":1,"id":2},{"name":"S","value":"x"}]}"#;
    check(joined, r#"{"ignore":["users","secrets[0]"]}"#, &[]);
    check(joined, r#"{"ignore":["users"]}"#, &["secrets[0].id duplicate", "secrets[0].name missing"]);
}
