//! What a stored variable is known by.

use std::fmt;

use crate::{
    id::{ApplicationId, EnvironmentId, ProjectId},
    variable::{Scope, VariableKey},
};

/// Scope and key, written `global.KEY`, `project-1.KEY`, `env-2.KEY`, `application-3.KEY`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariableId {
    pub scope: Scope,
    pub key: VariableKey,
}

impl VariableId {
    pub fn new(scope: Scope, key: &VariableKey) -> Self {
        Self { scope, key: key.clone() }
    }

    /// None for a text that is no variable's id.
    pub fn parse(text: &str) -> Option<Self> {
        let (scope, key) = text.split_once('.')?;
        let scope = match scope.split_once('-') {
            None if scope == "global" => Scope::Global,
            Some(("project", id)) => Scope::Project(ProjectId(number(id)?)),
            Some(("env", _)) => Scope::Environment(EnvironmentId::parse(scope).ok()?),
            Some(("application", id)) => Scope::Application(ApplicationId(number(id)?)),
            Some(_) | None => return None,
        };
        Some(Self { scope, key: VariableKey::parse(key).ok()? })
    }
}

/// Digits alone: `parse` takes a `+` as well.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for VariableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match self.scope {
            Scope::Global => write!(f, "global.{key}"),
            Scope::Project(id) => write!(f, "project-{id}.{key}"),
            Scope::Environment(id) => write!(f, "{id}.{key}"),
            Scope::Application(id) => write!(f, "application-{id}.{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back() {
        for text in ["global.A", "project-1.DATABASE_URL", "env-12.a_1", "application-3.X"] {
            assert_eq!(VariableId::parse(text).unwrap().to_string(), text);
        }
        for text in
            ["", "A", "global", "global.", "global.1A", "project.A", "project-.A", "project-+1.A", "env-01.A", "x-1.A"]
        {
            assert_eq!(VariableId::parse(text), None, "{text}");
        }
    }
}
