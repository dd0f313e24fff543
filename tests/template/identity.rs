//! Whether a role of a template may do something, as IAM would decide.

use std::collections::HashMap;

use awsim_iam_policy::{AuthzRequest, ContextValue, Decision, EvalContext, PolicyDocument, evaluate, parse_value};
use serde_json::Value;

use super::intrinsics::Stack;

pub(crate) struct Identity {
    policies: Vec<PolicyDocument>,
    /// As they stand, functions worked out.
    pub(super) statements: Vec<Value>,
}

impl Identity {
    pub(super) fn new(stack: &Stack, role: &str) -> Self {
        let policies = stack.resolve(&stack.resource(role)["Policies"]);
        let documents: Vec<_> =
            policies.as_array().unwrap().iter().map(|policy| policy["PolicyDocument"].clone()).collect();
        let statements =
            documents.iter().flat_map(|document| document["Statement"].as_array().unwrap().clone()).collect();
        Self { policies: documents.iter().map(|document| parse_value(document).unwrap()).collect(), statements }
    }

    pub(crate) fn may(&self, action: &str, resource: &str, context: &[(&str, ContextValue)]) -> bool {
        let context: HashMap<_, _> = context.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let request = AuthzRequest {
            principal_arn: "arn:aws:iam::111122223333:role/worker",
            principal_account: "111122223333",
            action,
            resource_arn: resource,
            context: &context,
        };
        evaluate(&request, &EvalContext { identity_policies: &self.policies, ..EvalContext::default() })
            == Decision::Allow
    }

    /// With this encryption context, as pairs.
    pub(crate) fn may_with_key(&self, action: &str, key: &str, encryption_context: &[(&str, &str)]) -> bool {
        let names: Vec<_> =
            encryption_context.iter().map(|(name, _)| format!("kms:EncryptionContext:{name}")).collect();
        let values = encryption_context.iter().map(|(_, value)| ContextValue::String((*value).to_owned()));
        let context: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
        self.may(action, key, &context)
    }

    /// Every action that some statement allows on some resource.
    pub(super) fn actions(&self) -> Vec<String> {
        let of = |statement: &Value| match &statement["Action"] {
            Value::Array(actions) => actions.iter().map(|action| action.as_str().unwrap().to_owned()).collect(),
            action => vec![action.as_str().unwrap().to_owned()],
        };
        self.statements.iter().flat_map(of).collect()
    }
}
