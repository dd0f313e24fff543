//! infra/template.yaml and infra/host.yaml against the code: environment, routes, permissions, names.

pub(crate) mod identity;
mod intrinsics;
mod schedules;

use std::{collections::BTreeSet, fs};

use awsim_iam_policy::ContextValue;
use serde_json::Value;

use crate::house::{root, source, source::Source};
use identity::Identity;
use intrinsics::Stack;

fn control_plane() -> Stack {
    Stack::read("template.yaml", &[])
}

pub(crate) const TABLE: &str = "arn:aws:dynamodb:eu-test-1:111122223333:table/tidegate-Table-1A2B";
pub(crate) const KEY: &str = "arn:aws:kms:eu-test-1:111122223333:key/1a2b";
pub(crate) const REPORTS: &str = "arn:aws:sqs:eu-test-1:111122223333:tidegate-reports";

fn host(more: &[(&str, &str)]) -> Stack {
    let own =
        [("Tenant", "acme"), ("Name", "web-1"), ("TableArn", TABLE), ("KeyArn", KEY), ("ReportsQueueArn", REPORTS)];
    Stack::read("host.yaml", &own.iter().chain(more).copied().collect::<Vec<_>>())
}

pub(crate) fn function(role: &str) -> Identity {
    Identity::new(&control_plane(), role)
}

pub(crate) fn worker() -> Identity {
    Identity::new(&host(&[]), "Role")
}

fn keys(map: &Value) -> BTreeSet<String> {
    map.as_object().unwrap().keys().cloned().collect()
}

// ---- The control plane ---------------------------------------------------------------------------------------------

/// Variables that env.rs documents for the functions: the sentence of who reads it says `Functions` or `All`.
fn variables_of_functions(env: &str) -> BTreeSet<String> {
    let mut documents = String::new();
    let mut names = BTreeSet::new();
    for line in env.lines() {
        if let Some(document) = line.strip_prefix("///") {
            documents += document;
        } else if let Some((_, value)) = line.split_once(": &str = \"TIDEGATE_") {
            if documents.contains("Functions") || documents.contains("All.") {
                names.insert(format!("TIDEGATE_{}", value.trim_end_matches("\";")));
            }
            documents.clear();
        }
    }
    names
}

#[test]
fn the_functions_get_the_environment_that_they_read() {
    let stack = control_plane();
    let variables = &stack.template["Globals"]["Function"]["Environment"]["Variables"];
    let env = fs::read_to_string(root().join("shared/aws/src/env.rs")).unwrap();
    assert_eq!(keys(variables), variables_of_functions(&env), "template.yaml and shared/aws/src/env.rs");
    for (name, value) in variables.as_object().unwrap() {
        assert!(!stack.text(value).is_empty(), "{name}");
    }
    let example =
        "/// Worker.\npub const A: &str = \"TIDEGATE_A\";\n/// Functions.\npub const B: &str = \"TIDEGATE_B\";";
    assert_eq!(variables_of_functions(example), BTreeSet::from(["TIDEGATE_B".to_owned()]));
}

#[test]
fn a_hosts_queue_is_where_the_functions_look_for_it() {
    let stack = control_plane();
    let prefix =
        stack.text(&stack.template["Globals"]["Function"]["Environment"]["Variables"]["TIDEGATE_HOST_QUEUE_PREFIX"]);
    let host = host(&[]);
    let name = host.text(&host.resource("Queue")["QueueName"]);
    assert_eq!(format!("{prefix}acme_web-1"), format!("https://sqs.eu-test-1.amazonaws.com/111122223333/{name}"));
}

#[test]
fn every_function_of_the_code_is_in_the_template() {
    let stack = control_plane();
    let functions = stack.resources("AWS::Serverless::Function");
    let declared: BTreeSet<_> = functions.iter().map(|(_, f)| stack.text(&f["CodeUri"]).replace("../", "")).collect();
    let folders = fs::read_dir(root().join("functions")).unwrap();
    let built: BTreeSet<_> =
        folders.map(|entry| format!("functions/{}", entry.unwrap().file_name().to_string_lossy())).collect();
    assert_eq!(declared, built);
    for (name, _) in functions {
        assert_eq!(stack.template["Resources"][name]["Metadata"]["BuildMethod"], "rust-cargolambda", "{name}");
    }
}

/// Function that the API calls for the path: an exact route, else the longest `{proxy+}`, else `$default`.
fn called(stack: &Stack, path: &str) -> String {
    let matches = |route: &str| {
        let pattern = route.rsplit(' ').next().unwrap();
        match pattern.strip_suffix("{proxy+}") {
            Some(prefix) => path.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()).then_some(prefix.len()),
            None if pattern == "$default" => Some(0),
            None => (pattern == path).then_some(usize::MAX),
        }
    };
    let routes = stack.resources("AWS::ApiGatewayV2::Route");
    let found = routes.iter().filter_map(|(_, route)| Some((matches(route["RouteKey"].as_str()?)?, route)));
    let (_, route) = found.max_by_key(|(length, _)| *length).expect("$default takes everything");
    let integration = stack.text(&route["Target"]).replace("integrations/", "");
    stack.text(&stack.resource(&integration)["IntegrationUri"]).replace("arn:", "")
}

/// Paths that a router serves: the first argument of every `.route(`.
fn routes(source: &Source) -> Vec<String> {
    let literal = |at: usize| {
        let line = source.code[..at].matches('\n').count() + 1;
        let after = source.literals.iter().filter(|(found, _)| *found >= line);
        // On the line of the call, or on the next after rustfmt broke it.
        after.map(|(_, text)| text.clone()).find(|text| text.starts_with('/'))
    };
    let end = source.tests_begin();
    let shipped = source.code.lines().take(end - 1).collect::<Vec<_>>().join("\n");
    shipped.match_indices(".route(").filter_map(|(at, _)| literal(at)).collect()
}

#[test]
fn the_api_leads_every_route_to_the_function_that_serves_it() {
    let stack = control_plane();
    let sources = source::below(&root());
    let served = |folder: &str| -> Vec<String> {
        sources.iter().filter(|s| s.is_under(&[folder]) && !s.is_test()).flat_map(routes).collect()
    };
    let webhook = served("functions/webhook/src/");
    assert!(webhook.len() > 2, "{webhook:?}");
    for path in webhook {
        assert_eq!(called(&stack, &path), "Webhook", "{path}");
    }
    for path in served("functions/admin/src/") {
        assert_eq!(called(&stack, &path), "Admin", "{path}");
    }
    for (path, function) in [
        ("/webhook/deploy", "Webhook"),
        ("/deploy", "Webhook"),
        ("/api/v2/projects", "Admin"),
        ("/healthz", "Admin"),
        ("/nowhere", "Admin"),
        ("/webhooks", "Admin"),
    ] {
        assert_eq!(called(&stack, path), function, "{path}");
    }
    let example = Source::new("a.rs", "Router::new().route(\"/a/{id}\", get(a))\n.route(\n    \"/b\",\n    get(b))");
    assert_eq!(routes(&example), ["/a/{id}", "/b"]);
}

#[test]
fn the_api_may_call_every_function_that_it_leads_to() {
    let stack = control_plane();
    let permitted: BTreeSet<_> =
        stack.resources("AWS::Lambda::Permission").iter().map(|(_, p)| stack.text(&p["FunctionName"])).collect();
    let led: BTreeSet<_> = stack
        .resources("AWS::ApiGatewayV2::Integration")
        .iter()
        .map(|(_, i)| stack.text(&i["IntegrationUri"]).replace("arn:", ""))
        .collect();
    assert_eq!(permitted, led);
}

/// Calls of the DynamoDB client, and the action that each needs.
const TABLE_CALLS: &[(&str, &str)] = &[
    (".batch_get_item()", "BatchGetItem"),
    (".batch_write_item()", "BatchWriteItem"),
    (".delete_item()", "DeleteItem"),
    ("Delete::builder()", "DeleteItem"),
    ("ConditionCheck::builder()", "ConditionCheckItem"),
    (".describe_table()", "DescribeTable"),
    (".get_item()", "GetItem"),
    (".transact_get_items()", "GetItem"),
    (".put_item()", "PutItem"),
    ("Put::builder()", "PutItem"),
    (".query()", "Query"),
    (".scan()", "Scan"),
    (".update_item()", "UpdateItem"),
    ("Update::builder()", "UpdateItem"),
];

#[test]
fn the_functions_may_do_to_the_table_what_the_code_does() {
    let sources = source::below(&root());
    let store: Vec<_> = sources.iter().filter(|s| s.is_under(&["shared/aws/src/"]) && !s.is_test()).collect();
    let called = TABLE_CALLS.iter().filter(|(call, _)| store.iter().any(|source| source.code.contains(call)));
    let called: BTreeSet<_> = called.map(|(_, action)| format!("dynamodb:{action}")).collect();
    let stack = control_plane();
    let granted: BTreeSet<_> = stack
        .resources("AWS::IAM::Role")
        .iter()
        .flat_map(|(role, _)| Identity::new(&stack, role).actions())
        .filter(|action| action.starts_with("dynamodb:"))
        .collect();
    assert_eq!(granted, called, "granted by template.yaml, called by shared/aws");
}

#[test]
fn no_role_is_wide() {
    let control_plane = control_plane();
    let host = host(&[]);
    for (stack, role) in [
        (&control_plane, "WebhookRole"),
        (&control_plane, "AdminRole"),
        (&control_plane, "ProgressRole"),
        (&control_plane, "ValidationRole"),
        (&control_plane, "ApprovalsRole"),
        (&control_plane, "SweepScheduleRole"),
        (&control_plane, "SyncRole"),
        (&control_plane, "SyncScheduleRole"),
        (&host, "Role"),
    ] {
        let identity = Identity::new(stack, role);
        for action in identity.actions() {
            assert!(!action.contains('*'), "{role}: {action}");
        }
        for statement in &identity.statements {
            assert!(statement["Resource"] != "*", "{role}: {statement}");
            let uses_key = statement["Action"].to_string().contains("kms:")
                && !statement["Action"].to_string().contains("kms:DescribeKey");
            assert!(!uses_key || statement["Condition"].is_object(), "{role} uses the key without limit: {statement}");
        }
    }
}

#[test]
fn each_function_opens_and_seals_only_what_it_must() {
    let stack = control_plane();
    // Purposes of Decrypt, purposes of GenerateDataKey.
    for (role, opens, seals) in [
        ("WebhookRole", &["secret", "snapshot", "replay"][..], &["snapshot", "job", "replay", "intake"][..]),
        ("AdminRole", &["secret", "snapshot", "replay"], &["secret", "snapshot", "job", "replay"]),
        ("ProgressRole", &["snapshot"], &["job"]),
        ("ValidationRole", &["secret", "snapshot", "replay", "intake"], &["secret", "snapshot", "job", "replay"]),
        ("ApprovalsRole", &["secret", "snapshot"], &["job"]),
        ("SyncRole", &["secret"], &["secret"]),
    ] {
        let identity = Identity::new(&stack, role);
        for purpose in ["secret", "snapshot", "job", "replay", "intake", "other"] {
            let may = |action, app| identity.may_with_key(action, "arn:Key", &[("app", app), ("purpose", purpose)]);
            assert_eq!(may("kms:Decrypt", "tidegate"), opens.contains(&purpose), "{role} opens {purpose}");
            assert_eq!(may("kms:GenerateDataKey", "tidegate"), seals.contains(&purpose), "{role} seals {purpose}");
            assert!(!may("kms:Decrypt", "other"), "{role} opens what is not ours");
        }
        assert!(!identity.may_with_key("kms:Decrypt", "arn:Key", &[]), "{role} opens without a context");
        assert!(!identity.may("kms:ScheduleKeyDeletion", "arn:Key", &[]), "{role}");
        assert!(!identity.may("dynamodb:DeleteTable", "arn:Table", &[]), "{role}");
    }
}

#[test]
fn hosts_are_woken_and_no_other_queue_is_written() {
    let stack = control_plane();
    let queue = |name: &str| format!("arn:aws:sqs:eu-test-1:111122223333:{name}");
    for role in ["WebhookRole", "ProgressRole", "ValidationRole", "ApprovalsRole", "AdminRole"] {
        let identity = Identity::new(&stack, role);
        assert!(identity.may("sqs:SendMessage", "arn:IntakeQueue", &[]), "{role} has nobody told");
        assert!(identity.may("sqs:SendMessage", &queue("tidegate-host-acme-web-1"), &[]), "{role}");
        for other in ["tidegate-reports", "tidegate-dev-host-acme-web-1", "orders"] {
            assert!(!identity.may("sqs:SendMessage", &queue(other), &[]), "{role} {other}");
        }
    }
}

#[test]
fn reports_are_retried_one_by_one_and_never_lost() {
    let stack = control_plane();
    let events = &stack.resource("Progress")["Events"]["Reports"]["Properties"];
    assert_eq!(events["FunctionResponseTypes"][0], "ReportBatchItemFailures");
    assert_eq!(stack.text(&events["Queue"]), "arn:ReportsQueue");
    let queue = stack.resource("ReportsQueue");
    let time_out = stack.template["Globals"]["Function"]["Timeout"].as_u64().unwrap();
    // https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html: six times the function's time-out.
    assert!(queue["VisibilityTimeout"].as_u64().unwrap() >= 6 * time_out);
    assert!(time_out < 30, "the gateway gives up at 30 s");
    assert_eq!(stack.text(&queue["RedrivePolicy"]["deadLetterTargetArn"]), "arn:DeadReportsQueue");
}

#[test]
fn what_came_in_is_tried_one_by_one_and_what_is_given_up_is_told() {
    let stack = control_plane();
    let function = stack.resource("Validation");
    let events = &function["Events"]["Intake"]["Properties"];
    assert_eq!(events["FunctionResponseTypes"][0], "ReportBatchItemFailures");
    assert_eq!(stack.text(&events["Queue"]), "arn:IntakeQueue");
    let queue = stack.resource("IntakeQueue");
    assert!(queue["VisibilityTimeout"].as_u64().unwrap() >= 6 * function["Timeout"].as_u64().unwrap());
    assert_eq!(stack.text(&queue["RedrivePolicy"]["deadLetterTargetArn"]), "arn:DeadIntakeQueue");
    let role = Identity::new(&stack, "ValidationRole");
    assert!(
        role.may("sqs:ReceiveMessage", "arn:IntakeQueue", &[]) && role.may("sqs:DeleteMessage", "arn:IntakeQueue", &[])
    );
    let filter = stack.resource("GivenUpFilter");
    assert_eq!(filter["FilterPattern"], r#"{ $.alarm = "validation-timeout" }"#);
}

#[test]
fn what_a_function_logs_as_an_alarm_reaches_somebody() {
    let stack = control_plane();
    for (filter, log) in [("ProgressFilter", "ProgressLog"), ("ApprovalsFilter", "ApprovalsLog")] {
        let filter = stack.resource(filter);
        assert_eq!(filter["FilterPattern"], "{ $.alarm = * }");
        assert_eq!(filter["LogGroupName"]["Ref"], log);
        let counted = &filter["MetricTransformations"][0];
        let alarm = stack.resource("NotWell");
        for (of_filter, of_alarm) in [("MetricName", "MetricName"), ("MetricNamespace", "Namespace")] {
            assert_eq!(counted[of_filter], alarm[of_alarm], "{log}");
        }
        assert_eq!(alarm["AlarmActions"][0]["Ref"], "Alarms");
    }
}

#[test]
fn what_cannot_be_made_again_outlives_the_stack() {
    let stack = control_plane();
    for name in ["Table", "Key", "People"] {
        let resource = &stack.template["Resources"][name];
        assert_eq!(
            (&resource["DeletionPolicy"], &resource["UpdateReplacePolicy"]),
            (&"Retain".into(), &"Retain".into()),
            "{name}"
        );
    }
    assert_eq!(stack.resource("Table")["DeletionProtectionEnabled"], true);
    assert_eq!(stack.resource("Table")["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], true);
    assert_eq!(stack.resource("Key")["EnableKeyRotation"], true);
}

#[test]
fn nobody_moves_himself_into_another_tenant() {
    let stack = control_plane();
    let client = stack.resource("PeopleClient");
    let list = |name: &str| client[name].as_array().unwrap_or_else(|| panic!("{name} must be given")).clone();
    assert!(!list("WriteAttributes").contains(&"custom:tenant".into()));
    assert!(list("ReadAttributes").contains(&"custom:tenant".into()));
    assert_eq!(stack.resource("People")["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"], true);
}

// ---- A host --------------------------------------------------------------------------------------------------------

pub(crate) fn leading(keys: &[&str]) -> Vec<(&'static str, ContextValue)> {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    vec![("dynamodb:LeadingKeys", ContextValue::StringList(keys))]
}

/// The partition as the store builds it.
pub(crate) fn partition(tenant: &str, host: &str) -> String {
    use tidegate_domain::id::{HostName, TenantId};
    tidegate_aws::keys::host_partition(&TenantId::parse(tenant).unwrap(), &HostName::parse(host).unwrap())
}

#[test]
fn a_worker_reaches_its_own_partition_and_no_other() {
    let worker = worker();
    let own = partition("acme", "web-1");
    for action in ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem"] {
        assert!(worker.may(action, TABLE, &leading(&[&own])), "{action}");
        for others in [
            vec![partition("acme", "web-2")],
            vec![partition("other", "web-1")],
            vec!["TENANT#acme#SECRET".to_owned()],
            vec![own.clone(), partition("acme", "web-2")],
            vec![format!("{own}1")],
            vec![],
        ] {
            let keys: Vec<_> = others.iter().map(String::as_str).collect();
            assert!(!worker.may(action, TABLE, &leading(&keys)), "{action} {others:?}");
        }
        assert!(!worker.may(action, TABLE, &[]), "{action} without leading keys");
        assert!(!worker.may(action, &format!("{TABLE}/index/by-time"), &leading(&[&own])), "{action} on an index");
        assert!(!worker.may(action, &format!("{TABLE}2"), &leading(&[&own])), "{action} on another table");
    }
    for action in
        ["PutItem", "DeleteItem", "BatchGetItem", "BatchWriteItem", "Scan", "ConditionCheckItem", "PartiQLSelect"]
    {
        assert!(!worker.may(&format!("dynamodb:{action}"), TABLE, &leading(&[&own])), "{action}");
    }
}

#[test]
fn a_worker_opens_its_own_jobs_and_nothing_else() {
    let worker = worker();
    let own = [("app", "tidegate"), ("purpose", "job"), ("tenant", "acme"), ("host", "web-1")];
    assert!(worker.may_with_key("kms:Decrypt", KEY, &own));
    for (name, other) in
        [("app", "other"), ("purpose", "secret"), ("purpose", "snapshot"), ("tenant", "other"), ("host", "web-2")]
    {
        let changed = own.map(|(n, value)| (n, if n == name { other } else { value }));
        assert!(!worker.may_with_key("kms:Decrypt", KEY, &changed), "{name} {other}");
        let without: Vec<_> = own.into_iter().filter(|(n, _)| *n != name).collect();
        assert!(!worker.may_with_key("kms:Decrypt", KEY, &without), "without {name}");
    }
    for action in ["kms:GenerateDataKey", "kms:Encrypt", "kms:ReEncryptFrom", "kms:CreateGrant"] {
        assert!(!worker.may_with_key(action, KEY, &own), "{action}");
    }
    assert!(!worker.may_with_key("kms:Decrypt", &format!("{KEY}c"), &own));
}

#[test]
fn a_worker_reads_its_own_queue_and_writes_reports() {
    let worker = worker();
    for action in ["ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes"] {
        let action = format!("sqs:{action}");
        assert!(worker.may(&action, "arn:Queue", &[]), "{action}");
        assert!(!worker.may(&action, REPORTS, &[]), "{action} on the reports");
    }
    assert!(worker.may("sqs:SendMessage", REPORTS, &[]));
    assert!(!worker.may("sqs:SendMessage", "arn:Queue", &[]));
    assert!(!worker.may("sqs:PurgeQueue", "arn:Queue", &[]));
}

#[test]
fn only_ec2_or_the_hosts_own_certificate_is_the_worker() {
    let trust = |stack: &Stack| stack.resolve(&stack.resource("Role")["AssumeRolePolicyDocument"]["Statement"][0]);
    assert_eq!(trust(&host(&[]))["Principal"]["Service"], "ec2.amazonaws.com");
    let anchor = "arn:aws:rolesanywhere:eu-test-1:111122223333:trust-anchor/1a2b";
    let elsewhere = trust(&host(&[("TrustAnchorArn", anchor)]));
    assert_eq!(elsewhere["Principal"]["Service"], "rolesanywhere.amazonaws.com");
    assert_eq!(elsewhere["Condition"]["ArnEquals"]["aws:SourceArn"], anchor);
    assert_eq!(elsewhere["Condition"]["StringEquals"]["aws:PrincipalTag/x509Subject/CN"], "acme/web-1");
}

#[test]
fn the_worker_gets_its_configuration_from_the_stack() {
    let stack = host(&[]);
    let written = stack.text(&stack.template["Outputs"]["WorkerConfiguration"]["Value"]);
    for line in [
        "tenant = \"acme\"",
        "host = \"web-1\"",
        "region = \"eu-test-1\"",
        "table = \"tidegate-Table-1A2B\"",
        "queue_url = \"Queue\"",
        "reports_queue_url = \"https://sqs.eu-test-1.amazonaws.com/111122223333/tidegate-reports\"",
    ] {
        assert!(written.lines().any(|found| found == line), "{line} in\n{written}");
    }
}
