//! Decides what an import does: creates what is missing, leaves what is there, asks about the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    decisions::Decisions,
    dump::{Dump, LeftOut, Stored},
    existing::Existing,
    sealed::Sealed,
};
use crate::{
    application::{ContainerName, Port},
    id::HostName,
    image::{ImageName, RegistryServer, Version},
    invalid::{FieldError, Invalid},
    secret::Secret,
    variable::{ValueType, VariableKey, check_value},
};

mod applications;
mod credentials;
mod variables;

pub(super) use variables::scope_of;

/// Largest secret value the API takes, in bytes.
const MAX_SECRET_BYTES: usize = 64 * 1024;

/// What the file alone does not say.
pub struct Outside<'a> {
    /// A variable of the command's own environment.
    pub env: &'a dyn Fn(&str) -> Option<Secret<String>>,
    /// Opens a value with the old key.
    pub open: &'a dyn Fn(&Sealed) -> Result<Secret<String>, Closed>,
}

/// Why an encrypted value stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    NoKey,
    /// Or the value was changed: the tag does not say which.
    WrongKey,
    /// Right key, but no text.
    NotText,
}

/// What an import does. Nothing in it changes or deletes what is there.
#[derive(Debug, Default)]
pub struct Plan {
    /// In an order in which each finds what it refers to.
    pub steps: Vec<Step>,
    /// Labels of what is there already.
    pub present: Vec<String>,
    /// What only a person can decide, by label.
    pub questions: Vec<FieldError>,
    pub left_out: Vec<LeftOut>,
}

/// One thing to be created. Others are referred to by their names: ids exist only once they are created.
#[derive(Debug)]
pub enum Step {
    Project {
        key: String,
        name: String,
    },
    Registry {
        name: String,
        server: RegistryServer,
        auth: PlannedAuth,
    },
    Group {
        name: String,
        description: String,
    },
    Secret {
        group: String,
        name: String,
        value: Secret<String>,
    },
    /// One that may take the place of the container of its name that V1 started.
    Application {
        project: String,
        name: ContainerName,
        image: ImageName,
        registry: Option<String>,
        ports: Vec<Port>,
        hosts: Vec<HostName>,
        webhook_enabled: bool,
        /// What V1 ran; to be deployed first.
        version: Option<Version>,
    },
    Variable {
        scope: PlannedScope,
        key: VariableKey,
        value: PlannedValue,
    },
}

#[derive(Debug)]
pub enum PlannedAuth {
    None,
    UsernamePassword {
        username: String,
        password: Secret<String>,
    },
    /// Without a name, that which registries expect beside a token.
    Token {
        username: Option<String>,
        token: Secret<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlannedScope {
    Global,
    /// By its key.
    Project(String),
    /// By its name.
    Application(ContainerName),
}

#[derive(Debug)]
pub enum PlannedValue {
    Text {
        text: Secret<String>,
        value_type: ValueType,
        is_secret: bool,
        /// V1 kept it in plaintext, though it looks like a credential.
        looks_like_a_credential: bool,
    },
    Reference {
        group: String,
        name: String,
    },
}

impl Step {
    /// What reports call it.
    pub fn label(&self) -> String {
        match self {
            Self::Project { key, .. } => project_label(key),
            Self::Registry { name, .. } => registry_label(name),
            Self::Group { name, .. } => group_label(name),
            Self::Secret { group, name, .. } => format!("secret {group}/{name}"),
            Self::Application { name, .. } => application_label(name),
            Self::Variable { scope, key, .. } => variable_label(scope, key),
        }
    }
}

fn project_label(key: &str) -> String {
    format!("project {key}")
}

fn registry_label(name: &str) -> String {
    format!("registry {name}")
}

fn group_label(name: &str) -> String {
    format!("secret group {name}")
}

fn application_label(name: &ContainerName) -> String {
    format!("application {}", name.as_str())
}

fn variable_label(scope: &PlannedScope, key: &VariableKey) -> String {
    format!("variable {}", variable_name(scope, key))
}

/// As the decisions name it.
fn variable_name(scope: &PlannedScope, key: &VariableKey) -> String {
    match scope {
        PlannedScope::Global => format!("global.{key}"),
        PlannedScope::Project(project) => format!("project/{project}.{key}"),
        PlannedScope::Application(name) => format!("application/{}.{key}", name.as_str()),
    }
}

/// What becomes of something that others refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate<T = ()> {
    /// It is there, or will be.
    There(T),
    Undecided,
    Skipped,
}

struct Planner<'a> {
    decisions: &'a Decisions,
    existing: &'a Existing,
    outside: &'a Outside<'a>,
    plan: Plan,
    projects: BTreeMap<String, Step>,
    groups: BTreeMap<String, Step>,
    /// By name.
    registry_fates: BTreeMap<String, Fate>,
    /// By the file's label: the group and the name that stand for it.
    secret_fates: BTreeMap<String, Fate<(String, String)>>,
    application_fates: BTreeMap<ContainerName, Fate>,
}

/// # Errors
/// Decisions about what the file does not have.
pub fn plan(
    mut dump: Dump,
    decisions: &Decisions,
    existing: &Existing,
    outside: &Outside<'_>,
) -> Result<Plan, Vec<FieldError>> {
    let labels = dump.variables.iter().filter_map(|v| scope_of(&dump, decisions, &v.scope).map(|s| (s, v)));
    let labels: BTreeSet<_> = labels.map(|(scope, v)| variable_name(&scope, &v.key)).collect();
    let faults = decisions.about_nothing(&dump, &labels);
    if !faults.is_empty() {
        return Err(faults);
    }
    let plan = Plan { left_out: std::mem::take(&mut dump.left_out), ..Plan::default() };
    let mut planner = Planner {
        decisions,
        existing,
        outside,
        plan,
        projects: BTreeMap::new(),
        groups: BTreeMap::new(),
        registry_fates: BTreeMap::new(),
        secret_fates: BTreeMap::new(),
        application_fates: BTreeMap::new(),
    };
    planner.registries(&mut dump);
    planner.secrets(&mut dump);
    planner.applications(&dump);
    planner.variables(&mut dump);
    Ok(planner.finish())
}

impl Planner<'_> {
    fn ask(&mut self, label: String, code: &'static str, message: impl Into<String>, suggestion: impl Into<String>) {
        self.plan.questions.push(Invalid::new(code, message, suggestion).at(label));
    }

    fn skip(&mut self, label: String) {
        self.plan.left_out.push(LeftOut::new(label, "the decisions say so"));
    }

    /// A value of the file, readable and fit to be stored; else the question is asked.
    fn value(&mut self, label: &str, stored: Stored) -> Option<Secret<String>> {
        let value = match stored {
            Stored::Plain(value) => value,
            Stored::Sealed(sealed) => match (self.outside.open)(&sealed) {
                Ok(value) => value,
                Err(closed) => {
                    let (code, message, suggestion) = match closed {
                        Closed::NoKey => ("encrypted", "is encrypted", "give the old key with --old-key-file"),
                        Closed::WrongKey => (
                            "wrong-key",
                            "is encrypted with another key, or was changed",
                            "give its key with --old-key-file",
                        ),
                        Closed::NotText => {
                            ("not-text", "is encrypted and holds no text", "skip it, or give its value anew")
                        }
                    };
                    self.ask(label.to_owned(), code, message, suggestion);
                    return None;
                }
            },
        };
        self.fit(label, value)
    }

    fn fit(&mut self, label: &str, value: Secret<String>) -> Option<Secret<String>> {
        let refused = if value.expose().len() > MAX_SECRET_BYTES {
            Some(Invalid::new("too-long", "has more than 64 KiB", "skip it, and keep the value elsewhere"))
        } else if value.expose() == crate::secret::MASK {
            Some(Invalid::new("mask", "is a mask and no value", "give its value"))
        } else {
            check_value(ValueType::String, value.expose()).err()
        };
        match refused {
            None => Some(value),
            Some(why) => {
                self.plan.questions.push(why.at(label));
                None
            }
        }
    }

    /// What a decision says to take from the command's environment.
    fn value_of_variable(&mut self, label: &str, name: &str) -> Option<Secret<String>> {
        if let Some(value) = (self.outside.env)(name) {
            self.fit(label, value)
        } else {
            let suggestion = "set the variable that the decisions name";
            self.ask(label.to_owned(), "not-set", "takes its value from a variable that is not set", suggestion);
            None
        }
    }

    fn finish(self) -> Plan {
        let Self { mut plan, projects, groups, .. } = self;
        plan.steps = projects.into_values().chain(groups.into_values()).chain(plan.steps).collect();
        plan
    }

    /// Sees to it that the project is there.
    fn need_project(&mut self, key: &str, dump: &Dump) {
        if self.projects.contains_key(key) || self.plan.present.contains(&project_label(key)) {
            return;
        }
        if self.existing.project(key).is_some() {
            self.plan.present.push(project_label(key));
            return;
        }
        let written = dump.projects.iter().find(|project| project.key == key).map(|project| project.name.clone());
        let name = written.unwrap_or_else(|| {
            if key == self.decisions.project { "Imported from V1".to_owned() } else { key.to_owned() }
        });
        self.projects.insert(key.to_owned(), Step::Project { key: key.to_owned(), name });
    }
}
