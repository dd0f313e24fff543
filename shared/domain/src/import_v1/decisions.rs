//! What a person decided about the questions of an earlier run, so that it can be finished unattended.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    dump::{Dump, names_nothing, port_number, project_key},
    row::{Findings, Row, below, normal, scalar, shown, wrong_type},
    written::Document,
};
use crate::{
    id::HostName,
    image::{ImageName, Version},
    invalid::{FieldError, Invalid},
};

/// Where things go that V1 put into no project and no group.
const DEFAULT_NAME: &str = "v1";

/// The decisions file. All of it may be left out.
#[derive(Debug)]
pub struct Decisions {
    /// Key of the project of what has none.
    pub(super) project: String,
    /// Name of the group of secrets that have none.
    pub(super) group: String,
    /// Where applications run, unless said of one.
    pub(super) hosts: Option<Vec<HostName>>,
    /// Tables, `table.column` and `table[row]` of the file to pass over.
    pub(super) ignore: Vec<String>,
    /// Keys of variables that look like credentials and are none.
    pub(super) plain: BTreeSet<String>,
    /// V1's project ids or names, and the keys of the projects that they become.
    pub(super) projects: BTreeMap<String, String>,
    pub(super) secrets: BTreeMap<String, SecretDecision>,
    pub(super) registries: BTreeMap<String, RegistryDecision>,
    pub(super) applications: BTreeMap<String, ApplicationDecision>,
    /// Labels of variables that are not imported.
    pub(super) variables: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) enum SecretDecision {
    Skip,
    /// The value is in this environment variable of the command.
    ValueFromEnv(String),
    /// This one, which the installation has or gets from a provider, takes its place.
    Secret {
        group: String,
        name: String,
    },
}

#[derive(Debug)]
pub(super) enum RegistryDecision {
    Skip,
    PasswordFromEnv(String),
}

#[derive(Debug, Default)]
pub(super) struct ApplicationDecision {
    pub(super) skip: bool,
    pub(super) image: Option<ImageName>,
    /// Name of a registry of the file.
    pub(super) registry: Option<String>,
    pub(super) hosts: Option<Vec<HostName>>,
    /// Of the host, in place of the first published port's.
    pub(super) port: Option<u16>,
    pub(super) version: Option<Version>,
}

impl Default for Decisions {
    fn default() -> Self {
        Self {
            project: DEFAULT_NAME.to_owned(),
            group: DEFAULT_NAME.to_owned(),
            hosts: None,
            ignore: Vec::new(),
            plain: BTreeSet::new(),
            projects: BTreeMap::new(),
            secrets: BTreeMap::new(),
            registries: BTreeMap::new(),
            applications: BTreeMap::new(),
            variables: BTreeSet::new(),
        }
    }
}

impl Decisions {
    /// # Errors
    /// Every fault, at its path in the decisions.
    pub fn read(file: impl Into<Document>) -> Result<Self, Vec<FieldError>> {
        let Document { value, doubled } = file.into();
        let mut findings = Findings::default();
        let mut decisions = Self::default();
        for path in doubled {
            findings.refuse_doubled(below("decisions", &path));
        }
        if let Some(mut row) = Row::of("decisions", "decisions".to_owned(), value, &mut findings) {
            decisions.fill(&mut row);
            row.finish();
        }
        if findings.faults.is_empty() { Ok(decisions) } else { Err(findings.faults) }
    }

    fn fill(&mut self, row: &mut Row<'_>) {
        if let Some(project) = row.parsed(&["project"], project_key) {
            self.project = project;
        }
        if let Some(group) = row.parsed(&["group"], named) {
            self.group = group;
        }
        self.hosts = hosts(row);
        self.ignore = texts(row, "ignore", |text| Ok(text.to_owned())).unwrap_or_default();
        self.plain = texts(row, "plain", named).unwrap_or_default().into_iter().collect();
        for (name, path, value) in entries(row, "projects") {
            let key = scalar(value).ok_or_else(|| wrong_type("a project's key")).and_then(|text| project_key(&text));
            match key {
                Ok(key) => {
                    self.projects.insert(name, key);
                }
                Err(why) => row.findings.refuse(path, why),
            }
        }
        for (name, path, value) in entries(row, "secrets") {
            let said = is_skip(&value).then_some(SecretDecision::Skip);
            if let Some(said) = said.or_else(|| secret(path, value, row.findings)) {
                self.secrets.insert(name, said);
            }
        }
        for (name, path, value) in entries(row, "registries") {
            let said = is_skip(&value).then_some(RegistryDecision::Skip);
            if let Some(said) = said.or_else(|| registry(path, value, row.findings)) {
                self.registries.insert(name, said);
            }
        }
        for (name, path, value) in entries(row, "applications") {
            let said = is_skip(&value).then(|| ApplicationDecision { skip: true, ..ApplicationDecision::default() });
            if let Some(said) = said.or_else(|| application(path, value, row.findings)) {
                self.applications.insert(name, said);
            }
        }
        for (name, path, value) in entries(row, "variables") {
            if is_skip(&value) {
                self.variables.insert(name);
            } else {
                row.findings.refuse(path, Invalid::new("unknown-value", "is no decision", "write \"skip\""));
            }
        }
    }

    /// Decisions about what the file does not have: a misspelt name must not be ignored.
    pub(super) fn about_nothing(&self, dump: &Dump, variables: &BTreeSet<String>) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let mut check = |kind: &str, name: &String, is_there: bool| {
            if !is_there {
                faults.push(names_nothing().at(format!("decisions.{kind}.{}", shown(name))));
            }
        };
        for name in self.secrets.keys() {
            check("secrets", name, dump.secrets.iter().any(|s| s.label() == *name));
        }
        for name in self.registries.keys() {
            check("registries", name, dump.registries.iter().any(|r| r.name == *name));
        }
        for name in self.applications.keys() {
            check("applications", name, dump.applications.iter().any(|a| a.name.as_str() == name));
        }
        for name in &self.plain {
            check("plain", name, dump.variables.iter().any(|v| v.key.as_str() == name));
        }
        for name in &self.variables {
            check("variables", name, variables.contains(name));
        }
        for name in self.projects.keys() {
            check("projects", name, dump.mentions_project(name));
        }
        faults
    }
}

fn is_skip(value: &Value) -> bool {
    value.as_str() == Some("skip")
}

fn named(text: &str) -> Result<String, Invalid> {
    let valid = !text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control);
    valid.then(|| text.to_owned()).ok_or_else(|| wrong_type("a name"))
}

/// `group/NAME`.
fn reference(text: &str) -> Result<(String, String), Invalid> {
    let parts = text.split_once('/').filter(|(group, name)| !group.is_empty() && !name.is_empty());
    let refused = || Invalid::new("format-secret-ref", "is not the name of a secret", "write group/NAME");
    parts.filter(|(_, name)| !name.contains('/')).map(|(g, n)| (g.to_owned(), n.to_owned())).ok_or_else(refused)
}

fn secret(path: String, value: Value, findings: &mut Findings) -> Option<SecretDecision> {
    let mut row = Row::of("decisions.secrets", path, value, findings)?;
    let from_env = row.parsed(&["valueFromEnv"], named);
    let other = row.parsed(&["secret"], reference);
    let said = match (from_env, other) {
        (Some(name), None) => Some(SecretDecision::ValueFromEnv(name)),
        (None, Some((group, name))) => Some(SecretDecision::Secret { group, name }),
        (Some(_), Some(_)) | (None, None) => {
            let why = Invalid::new("either-or", "is no decision", "write \"skip\", valueFromEnv or secret");
            let path = row.path.clone();
            row.findings.refuse(path, why);
            None
        }
    };
    row.finish();
    said
}

fn registry(path: String, value: Value, findings: &mut Findings) -> Option<RegistryDecision> {
    let mut row = Row::of("decisions.registries", path, value, findings)?;
    let from_env = row.required(&["passwordFromEnv"], named);
    row.finish();
    from_env.map(RegistryDecision::PasswordFromEnv)
}

fn application(path: String, value: Value, findings: &mut Findings) -> Option<ApplicationDecision> {
    let mut row = Row::of("decisions.applications", path, value, findings)?;
    let decision = ApplicationDecision {
        skip: false,
        image: row.parsed(&["image"], with_host),
        registry: row.parsed(&["registry"], named),
        hosts: hosts(&mut row),
        port: row.parsed(&["port"], port_number),
        version: row.parsed(&["version"], Version::parse),
    };
    row.finish();
    Some(decision)
}

/// The host is what is to be decided.
fn with_host(text: &str) -> Result<ImageName, Invalid> {
    let image = ImageName::parse(text)?;
    if image.names_host() {
        return Ok(image);
    }
    Err(Invalid::new("no-host", "names no registry", "write it with its host: docker.io/library/nginx"))
}

fn hosts(row: &mut Row<'_>) -> Option<Vec<HostName>> {
    let written = row.written(&["hosts"]);
    let found = texts(row, "hosts", HostName::parse)?;
    if found.is_empty() {
        row.refuse(&written, Invalid::new("missing", "names no host", "name one at least, or leave it out"));
    }
    Some(found)
}

/// A list of texts.
fn texts<T>(row: &mut Row<'_>, column: &str, parse: impl Fn(&str) -> Result<T, Invalid>) -> Option<Vec<T>> {
    let (written, value) = row.take(&[column])?;
    let Value::Array(items) = value else {
        row.refuse(&written, wrong_type("a list of texts"));
        return None;
    };
    let mut found = Vec::new();
    for (index, item) in items.into_iter().enumerate() {
        match scalar(item).ok_or_else(|| wrong_type("a text")).and_then(|text| parse(&text)) {
            Ok(item) => found.push(item),
            Err(why) => row.refuse(&format!("{written}[{index}]"), why),
        }
    }
    Some(found)
}

/// Names, the paths of what is said of them, and what that is.
fn entries(row: &mut Row<'_>, column: &str) -> Vec<(String, String, Value)> {
    let Some((written, value)) = row.take(&[column]) else { return Vec::new() };
    let Value::Object(fields) = value else {
        row.refuse(&written, wrong_type("an object of names and decisions"));
        return Vec::new();
    };
    debug_assert_eq!(normal(&written), normal(column), "a column is found by its name");
    let path = row.at(&written);
    fields.into_iter().map(|(name, said)| (name.clone(), format!("{path}.{}", shown(&name)), said)).collect()
}
