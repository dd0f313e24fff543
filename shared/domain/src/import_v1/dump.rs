//! The file: V1's tables as one JSON object, an array of rows each.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    decisions::Decisions,
    plan::{PlannedScope, scope_of},
    row::{Findings, Row, normal, shown, wrong_type},
    sealed::Sealed,
    written::Document,
};
use crate::{
    application::{ContainerName, Port, Protocol},
    image::{ImageName, RegistryServer, Version},
    invalid::{FieldError, Invalid},
    secret::Secret,
    variable::{ValueType, VariableKey, check_value},
};

mod tables;
mod variables;

pub(super) use tables::{port, port_number};

/// What the file holds, free of faults in itself.
#[derive(Debug, Default)]
pub struct Dump {
    pub(super) projects: Vec<Project>,
    pub(super) registries: Vec<Registry>,
    pub(super) groups: Vec<Group>,
    pub(super) secrets: Vec<V1Secret>,
    pub(super) applications: Vec<Application>,
    pub(super) variables: Vec<Variable>,
    pub(super) left_out: Vec<LeftOut>,
    /// Rows that say in two ways whose they are.
    named_twice: Vec<NamedTwice>,
}

/// Something in the file that nothing is made of, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub what: String,
    pub why: String,
}

impl LeftOut {
    pub(super) fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into() }
    }
}

/// What rows refer to each other by: a number or another text.
pub(super) type RowId = String;

#[derive(Debug)]
pub(super) struct Project {
    pub(super) id: Option<RowId>,
    /// As it will be known.
    pub(super) key: String,
    pub(super) name: String,
}

#[derive(Debug)]
pub(super) struct Registry {
    pub(super) id: Option<RowId>,
    pub(super) name: String,
    pub(super) server: RegistryServer,
    pub(super) auth: Auth,
}

#[derive(Debug)]
pub(super) enum Auth {
    None,
    UsernamePassword { username: String, password: Option<Stored> },
    Token { username: Option<String>, token: Option<Stored> },
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Option<RowId>,
    pub(super) name: String,
    pub(super) description: String,
}

#[derive(Debug)]
pub(super) struct V1Secret {
    pub(super) id: Option<RowId>,
    pub(super) name: String,
    /// Name of its group, if the file has groups.
    pub(super) group: Option<String>,
    /// V1 kept none, only where to find it.
    pub(super) value: Option<Stored>,
}

/// A value as the file has it.
#[derive(Debug)]
pub(super) enum Stored {
    Plain(Secret<String>),
    Sealed(Sealed),
}

impl Stored {
    pub(super) fn of(text: String) -> Self {
        Sealed::parse(&text).map_or_else(|| Self::Plain(Secret::new(text)), Self::Sealed)
    }
}

#[derive(Debug)]
pub(super) struct Application {
    pub(super) id: Option<RowId>,
    pub(super) name: ContainerName,
    /// Without the tag, if it was written with one.
    pub(super) image: ImageName,
    /// What runs, as far as V1 knows.
    pub(super) version: Option<Version>,
    pub(super) ports: Vec<Port>,
    pub(super) registry: Option<RowId>,
    pub(super) project: Option<RowId>,
    pub(super) webhook_enabled: bool,
}

#[derive(Debug)]
pub(super) struct Variable {
    pub(super) scope: VariableScope,
    pub(super) key: VariableKey,
    pub(super) value: VariableValue,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum VariableScope {
    Global,
    /// What the row calls its project. In V2's own queries that is an application's id.
    Project(RowId),
    ApplicationId(RowId),
    Application(ContainerName),
}

/// A row that names its application and gives its id, too.
#[derive(Debug)]
struct NamedTwice {
    /// Of the id.
    path: String,
    name: ContainerName,
    id: RowId,
}

#[derive(Debug)]
pub(super) enum VariableValue {
    Text {
        text: Stored,
        value_type: ValueType,
        is_secret: bool,
    },
    /// A secret of the file.
    Reference(RowId),
}

impl Dump {
    /// # Errors
    /// Every fault of the file, at its path: `applications[3].port`. None of them repeats a value.
    pub fn read(file: impl Into<Document>, decisions: &Decisions) -> Result<Self, Vec<FieldError>> {
        let Document { value, doubled } = file.into();
        let mut findings = Findings::new(&decisions.ignore);
        let mut dump = Self::default();
        for path in doubled {
            findings.refuse_doubled(path);
        }
        match value {
            Value::Object(tables) => {
                for (name, rows) in tables {
                    dump.table(&name, rows, &mut findings);
                }
            }
            _ => findings.refuse("", wrong_type("an object with V1's tables")),
        }
        dump.name_groups(&mut findings);
        dump.compare_names(&mut findings);
        dump.check(&mut findings);
        let unused: Vec<_> = findings.unused().cloned().collect();
        for path in unused {
            findings.refuse(format!("decisions.ignore: {}", shown(&path)), names_nothing());
        }
        for (table, columns) in &findings.columns {
            let names = columns.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            dump.left_out.push(LeftOut::new(format!("columns of {table}"), names));
        }
        if findings.faults.is_empty() { Ok(dump) } else { Err(findings.faults) }
    }

    fn table(&mut self, name: &str, value: Value, findings: &mut Findings) {
        let written = shown(name);
        if findings.is_ignored(&written) {
            self.left_out.push(LeftOut::new(format!("table {written}"), "the decisions say so"));
            return;
        }
        if value.is_null() {
            return;
        }
        match normal(name).as_str() {
            "projects" => self.rows("projects", &written, value, findings, Self::project),
            "registries" | "repositories" => self.rows("registries", &written, value, findings, Self::registry),
            "secretgroups" => self.rows("secret_groups", &written, value, findings, Self::group),
            "secrets" => self.rows("secrets", &written, value, findings, Self::secret),
            "applications" => self.rows("applications", &written, value, findings, Self::application),
            "environmentvariables" | "env" | "envvars" => {
                self.rows("environment_variables", &written, value, findings, Self::variable);
            }
            "webhooksecret" => self.left_out.push(webhook_secret()),
            "settings" | "config" => self.settings(&written, &value, findings),
            known => match not_imported(known) {
                Some(why) => self.left_out.push(LeftOut::new(format!("table {written}"), why)),
                None => findings.refuse(
                    written.clone(),
                    Invalid::new(
                        "unknown-table",
                        "is not a table that V1 has",
                        format!("correct its name, or put {written} into `ignore` of the decisions"),
                    ),
                ),
            },
        }
    }

    fn rows(
        &mut self,
        table: &'static str,
        written: &str,
        value: Value,
        findings: &mut Findings,
        read: fn(&mut Self, &mut Row<'_>),
    ) {
        let Value::Array(rows) = value else {
            findings.refuse(written, wrong_type("an array of rows"));
            return;
        };
        for (index, row) in rows.into_iter().enumerate() {
            let path = format!("{written}[{index}]");
            if findings.is_ignored(&path) {
                self.left_out.push(LeftOut::new(path, "the decisions say so"));
                continue;
            }
            let Some(mut row) = Row::of(table, path, row, findings) else { continue };
            if row.parsed(&["deletedAt"], was_deleted) == Some(true) {
                self.left_out.push(LeftOut::new(row.path, "it was deleted in V1"));
                continue;
            }
            row.leave_out(&["createdAt", "updatedAt", "tenantId"]);
            read(self, &mut row);
            row.finish();
        }
    }

    /// Nothing of it is imported; what could be meant to be is a fault.
    fn settings(&mut self, written: &str, value: &Value, findings: &mut Findings) {
        let names: Vec<String> = match value {
            Value::Object(fields) => fields.keys().cloned().collect(),
            Value::Array(rows) => {
                let key = |row: &Value| row.get("key").or(row.get("name")).and_then(Value::as_str).map(str::to_owned);
                rows.iter().map(|row| key(row).unwrap_or_default()).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                findings.refuse(written, wrong_type("an object, or rows of key and value"));
                return;
            }
        };
        for name in names {
            if normal(&name) == "webhooksecret" {
                self.left_out.push(webhook_secret());
                continue;
            }
            let path = format!("{written}.{}", shown(&name));
            if findings.is_ignored(&path) {
                self.left_out.push(LeftOut::new(path, "the decisions say so"));
            } else {
                let suggestion = format!("set what it was for in the new installation, and put {path} into `ignore`");
                findings.refuse(path, Invalid::new("unknown-field", "is a setting that is not imported", suggestion));
            }
        }
    }

    /// Where its variables go, as far as that is decided.
    pub fn scopes(&self, decisions: &Decisions) -> BTreeSet<PlannedScope> {
        self.variables.iter().filter_map(|variable| scope_of(self, decisions, &variable.scope)).collect()
    }

    /// Whether rows call a project so.
    pub(super) fn mentions_project(&self, id: &str) -> bool {
        let is_it = |found: Option<&String>| found.is_some_and(|found| found == id);
        self.applications.iter().any(|application| is_it(application.project.as_ref()))
            || self.projects.iter().any(|project| is_it(project.id.as_ref()) || project.name == id)
            || self.variables.iter().any(|variable| match &variable.scope {
                VariableScope::Project(project) => project == id,
                VariableScope::Global | VariableScope::ApplicationId(_) | VariableScope::Application(_) => false,
            })
    }

    /// Secrets say their group's id until all tables are read.
    fn name_groups(&mut self, findings: &mut Findings) {
        for secret in &mut self.secrets {
            let Some(id) = secret.group.take() else { continue };
            if let Some(group) = self.groups.iter().find(|group| group.id.as_ref() == Some(&id)) {
                secret.group = Some(group.name.clone());
            } else {
                let why = Invalid::new("unknown-group", "is of a group that the file does not have", "add its row");
                findings.refuse(format!("secrets: {}", shown(&secret.name)), why);
            }
        }
    }

    /// What says whose it is by name and by id has to mean one application. Of what the file does not have the planner asks.
    fn compare_names(&mut self, findings: &mut Findings) {
        for NamedTwice { path, name, id } in std::mem::take(&mut self.named_twice) {
            let is_named = |application: &Application| application.name == name;
            let has_id = |application: &Application| application.id.as_ref() == Some(&id);
            let known = self.applications.iter().any(|one| is_named(one) || has_id(one));
            if known && !self.applications.iter().any(|one| is_named(one) && has_id(one)) {
                let why =
                    Invalid::new("either-or", "is not the id of the application that is named", "keep one of them");
                findings.refuse(path, why);
            }
        }
    }

    /// Names are what everything is found by, here and in the installation.
    fn check(&self, findings: &mut Findings) {
        let mut seen = BTreeSet::new();
        let applications = self.applications.iter().map(|a| format!("applications: {}", a.name.as_str()));
        let secrets = self.secrets.iter().map(|s| format!("secrets: {}", s.label()));
        let registries = self.registries.iter().map(|r| format!("registries: {}", r.name));
        let groups = self.groups.iter().map(|g| format!("secret_groups: {}", g.name));
        let projects = self.projects.iter().map(|p| format!("projects: {}", p.key));
        let variables = self.variables.iter().map(|v| format!("environment_variables: {}", v.label()));
        for name in applications.chain(secrets).chain(registries).chain(groups).chain(projects).chain(variables) {
            if !seen.insert(name.clone()) {
                let suggestion = "keep one of the rows, or rename one";
                findings.refuse(name, Invalid::new("duplicate", "is there twice", suggestion));
            }
        }
    }
}

impl V1Secret {
    /// What reports and decisions call it.
    pub(super) fn label(&self) -> String {
        self.group.as_ref().map_or_else(|| self.name.clone(), |group| format!("{group}/{}", self.name))
    }
}

pub(super) fn names_nothing() -> Invalid {
    Invalid::new("unknown-name", "names nothing in the file", "correct it, or take it out of the decisions")
}

fn webhook_secret() -> LeftOut {
    LeftOut::new(
        "the shared webhook secret",
        "whoever has it could deploy anything; each application has a token of its own",
    )
}

/// Whether a row's `deleted_at` says so. For no time exports write an empty text, `false`, 0 or, from `MySQL`, a date of
/// zeros.
fn was_deleted(text: &str) -> Result<bool, Invalid> {
    match text.trim() {
        "" | "false" => Ok(false),
        "true" => Ok(true),
        time if time.starts_with(|c: char| c.is_ascii_digit()) => Ok(time.contains(|c| matches!(c, '1'..='9'))),
        _ => Err(wrong_type("the time at which it was deleted, or null")),
    }
}

/// Tables that are known and that nothing is made of.
fn not_imported(table: &str) -> Option<&'static str> {
    Some(match table {
        "users" => "people sign in anew: passwords are not taken over",
        "apikeys" => "keys are made anew: their hashes are of no use here",
        "deploymentlogs" | "deployments" => "the history begins with the first deployment here",
        "secretproviders" => "a provider is set up anew, with its own credentials",
        "secretsyncs" => "the history of syncs begins anew",
        "environments" => "environments are made with POST /api/v2/environments",
        _ => return None,
    })
}

/// 1 to 128 characters without slash: what can be written in `@secret:group/NAME`.
fn plain_name(text: &str) -> Result<String, Invalid> {
    let valid = (1..=128).contains(&text.chars().count()) && text.trim() == text;
    if !valid || text.contains('/') || text.chars().any(char::is_control) {
        let wanted = "1 to 128 characters without slash, not beginning or ending with a space";
        return Err(Invalid::new("format-name", "cannot be a name here", format!("use {wanted}")));
    }
    Ok(text.to_owned())
}

/// As the API has it: 1 to 40 lower-case letters, digits and hyphens, starting with a letter.
pub(super) fn project_key(text: &str) -> Result<String, Invalid> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !first || !rest || text.len() > 40 {
        let wanted = "1 to 40 lower-case letters, digits and hyphens, starting with a letter";
        return Err(Invalid::new("format-key", "cannot be a project's key", format!("use {wanted}")));
    }
    Ok(text.to_owned())
}
