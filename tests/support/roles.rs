//! The functions' roles, as `infra/template.yaml` gives them: what no role allows fails in every test, as on AWS.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use awsim_iam_policy::ContextValue;
use serde_json::Value;
use tidegate_aws::permit::{Asked, Permit};
use tidegate_local::stack::{Function, Permits};

use crate::template::{self, identity::Identity};

static ROLES: LazyLock<HashMap<Function, (&str, Identity)>> = LazyLock::new(|| {
    [
        (Function::Webhook, "WebhookRole"),
        (Function::Admin, "AdminRole"),
        (Function::Validation, "ValidationRole"),
        (Function::Progress, "ProgressRole"),
        (Function::Approvals, "ApprovalsRole"),
        (Function::Sync, "SyncRole"),
    ]
    .map(|(function, role)| (function, (role, template::function(role))))
    .into()
});

/// What was refused to the functions of one installation. Fails the test when it is dropped, if anything was.
#[derive(Default)]
pub(crate) struct Roles {
    refused: Arc<Mutex<Vec<String>>>,
}

impl Roles {
    pub(crate) fn permits(&self) -> Permits {
        let refused = Arc::clone(&self.refused);
        Permits::new(move |function| {
            let refused = Arc::clone(&refused);
            Permit::new(move |asked| {
                let (role, identity) = &ROLES[&function];
                match refusal(identity, asked) {
                    None => Ok(()),
                    Some(what) => {
                        let refusal = format!("{role} may not {what}");
                        // The test may fail of something else first.
                        eprintln!("{refusal}");
                        refused.lock().unwrap_or_else(PoisonError::into_inner).push(refusal.clone());
                        Err(refusal)
                    }
                }
            })
        })
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(refused.is_empty() || std::thread::panicking(), "{refused:#?}");
    }
}

/// What of the call the role does not allow.
fn refusal(identity: &Identity, asked: &Asked<'_>) -> Option<String> {
    let body: Value = serde_json::from_slice(asked.body).unwrap_or_default();
    let refused = |action: &str, resource: &str, context: &[(String, String)]| {
        let context: Vec<_> =
            context.iter().map(|(name, value)| (name.as_str(), ContextValue::String(value.clone()))).collect();
        (!identity.may(action, resource, &context)).then(|| format!("{action} on {resource} with {context:?}"))
    };
    match asked.service {
        "DynamoDB" => table_actions(asked.operation, &body)
            .into_iter()
            .find_map(|action| refused(&format!("dynamodb:{action}"), "arn:Table", &[])),
        "KMS" => {
            let pairs = body["EncryptionContext"].as_object().into_iter().flatten();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let context: Vec<_> =
                pairs.map(|(name, value)| (format!("kms:EncryptionContext:{name}"), text(value))).collect();
            refused(&format!("kms:{}", asked.operation), "arn:Key", &context)
        }
        "SQS" => refused(&format!("sqs:{}", asked.operation), &queue(&body["QueueUrl"]), &[]),
        other => Some(format!("call {other}")),
    }
}

/// What IAM asks for: a transaction is the actions that it holds.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html>
fn table_actions(operation: &str, body: &Value) -> Vec<String> {
    let items = body["TransactItems"].as_array().into_iter().flatten();
    match operation {
        "TransactGetItems" => vec!["GetItem".to_owned()],
        "TransactWriteItems" => items
            .filter_map(|item| item.as_object()?.keys().next().cloned())
            .map(|kind| match kind.as_str() {
                "ConditionCheck" => "ConditionCheckItem".to_owned(),
                kind => format!("{kind}Item"),
            })
            .collect(),
        other => vec![other.to_owned()],
    }
}

/// The queue of the template that stands where this one does.
fn queue(url: &Value) -> String {
    match url.as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default() {
        "tidegate-intake" => "arn:IntakeQueue".to_owned(),
        "tidegate-reports" => "arn:ReportsQueue".to_owned(),
        name => format!("arn:aws:sqs:eu-test-1:111122223333:{name}"),
    }
}
