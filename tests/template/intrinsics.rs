//! As much of `CloudFormation` as the templates use: intrinsic functions, worked out for given parameters.

use std::collections::HashMap;

use serde_json::{Value, json};

/// A template, and what its references stand for.
pub(super) struct Stack {
    pub(super) template: Value,
    parameters: HashMap<String, String>,
}

impl Stack {
    /// The file below infra/, with these parameters and the defaults of the others.
    pub(super) fn read(file: &str, parameters: &[(&str, &str)]) -> Self {
        let path = crate::house::root().join("infra").join(file);
        let template: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut known: HashMap<_, _> = [("Region", "eu-test-1"), ("AccountId", "111122223333"), ("Partition", "aws")]
            .into_iter()
            .chain([("URLSuffix", "amazonaws.com"), ("StackName", "tidegate")])
            .map(|(name, value)| (format!("AWS::{name}"), value.to_owned()))
            .collect();
        for (name, parameter) in template["Parameters"].as_object().unwrap() {
            known.extend(parameter["Default"].as_str().map(|default| (name.clone(), default.to_owned())));
        }
        known.extend(parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Self { template, parameters: known }
    }

    /// Resources of a type, by name.
    pub(super) fn resources(&self, kind: &str) -> Vec<(&str, &Value)> {
        let all = self.template["Resources"].as_object().unwrap();
        let of_kind = |(name, resource): (_, _)| -> Option<(&str, &Value)> {
            let (name, resource): (&String, &Value) = (name, resource);
            (resource["Type"] == kind).then_some((name.as_str(), &resource["Properties"]))
        };
        let found: Vec<_> = all.iter().filter_map(of_kind).collect();
        assert!(!found.is_empty(), "the template has no {kind}");
        found
    }

    pub(super) fn resource(&self, name: &str) -> &Value {
        &self.template["Resources"][name]["Properties"]
    }

    /// The value with every function worked out. A resource is its name, its ARN `arn:<name>`.
    pub(super) fn resolve(&self, value: &Value) -> Value {
        match value {
            Value::Object(map) if map.len() == 1 => {
                let (function, argument) = map.iter().next().unwrap();
                self.call(function, argument).unwrap_or_else(|| json!({ function.clone(): self.resolve(argument) }))
            }
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.resolve(value))).collect(),
            Value::Array(items) => items.iter().map(|item| self.resolve(item)).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }

    pub(super) fn text(&self, value: &Value) -> String {
        self.resolve(value).as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
    }

    fn call(&self, function: &str, argument: &Value) -> Option<Value> {
        let result = match function {
            "Ref" => json!(self.reference(argument.as_str().unwrap())),
            "Fn::GetAtt" => {
                json!(format!("{}:{}", argument[1].as_str().unwrap().to_lowercase(), argument[0].as_str().unwrap()))
            }
            "Fn::Sub" => json!(self.substitute(argument)),
            "Fn::If" => self.resolve(&argument[if self.holds(&argument[0]) { 1 } else { 2 }]),
            "Fn::Select" => {
                let index = usize::try_from(argument[0].as_u64().unwrap()).unwrap();
                self.resolve(&argument[1])[index].clone()
            }
            "Fn::Split" => self.text(&argument[1]).split(argument[0].as_str().unwrap()).collect(),
            "Fn::Equals" => json!(self.resolve(&argument[0]) == self.resolve(&argument[1])),
            "Fn::Not" => json!(!self.resolve(&argument[0]).as_bool().unwrap()),
            "Condition" if argument.is_string() => json!(self.holds(argument)),
            _ => return None,
        };
        Some(result)
    }

    fn holds(&self, condition: &Value) -> bool {
        let name = condition.as_str().unwrap();
        self.resolve(&self.template["Conditions"][name]).as_bool().unwrap_or_else(|| panic!("{name} is no condition"))
    }

    fn reference(&self, name: &str) -> String {
        if let Some(value) = self.parameters.get(name) {
            return value.clone();
        }
        assert!(self.template["Resources"].get(name).is_some(), "nothing is called {name}");
        name.to_owned()
    }

    fn substitute(&self, argument: &Value) -> String {
        let own = argument.get(1);
        let text = argument.as_str().or_else(|| argument[0].as_str()).unwrap();
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, after) = after.split_once('}').unwrap();
            let value = match own.and_then(|own| own.get(name)) {
                Some(value) => self.text(value),
                None => self.reference(name),
            };
            result += before;
            result += &value;
            rest = after;
        }
        result + rest
    }
}
