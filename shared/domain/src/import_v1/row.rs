//! Objects of the file, taken apart column by column: every fault is collected, and no column is passed over in silence.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::written::{self, Document};
use crate::invalid::{FieldError, Invalid};

/// What was found while reading: faults, and what was left out on purpose.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Tables, `table.column` and `table[row]` that are to be passed over, as the decisions name them.
    ignore: BTreeSet<String>,
    ignored: BTreeSet<String>,
    pub(super) faults: Vec<FieldError>,
    /// Of rows that others refer to, with their table.
    ids: BTreeSet<(&'static str, String)>,
    /// Paths of names that are there twice, and are told once.
    doubled: BTreeSet<String>,
    /// Columns that are known and not imported, by their table.
    pub(super) columns: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Findings {
    pub(super) fn new(ignore: &[String]) -> Self {
        Self { ignore: ignore.iter().cloned().collect(), ..Self::default() }
    }

    pub(super) fn refuse(&mut self, path: impl Into<String>, why: Invalid) {
        self.faults.push(why.at(path));
    }

    /// A name that its object has twice. In what is passed over it loses nothing.
    pub(super) fn refuse_doubled(&mut self, path: String) {
        let is_within = |whole: &String| {
            path.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if !self.ignore.iter().any(is_within) && self.doubled.insert(path.clone()) {
            self.refuse(path, Invalid::new("duplicate", "is there twice", "keep one of them"));
        }
    }

    /// Whether the decisions say to pass over it.
    pub(super) fn is_ignored(&mut self, path: &str) -> bool {
        let named = self.ignore.contains(path);
        if named {
            self.ignored.insert(path.to_owned());
        }
        named
    }

    /// What was to be passed over and is not there.
    pub(super) fn unused(&self) -> impl Iterator<Item = &String> {
        self.ignore.difference(&self.ignored)
    }
}

/// One object. Columns are found in `snake_case` and in `camelCase`.
pub(super) struct Row<'f> {
    pub(super) path: String,
    table: &'static str,
    /// By their names without case and `_`.
    columns: BTreeMap<String, (String, Value)>,
    pub(super) findings: &'f mut Findings,
}

impl<'f> Row<'f> {
    /// `None`, and a fault, for what is no object.
    pub(super) fn of(table: &'static str, path: String, value: Value, findings: &'f mut Findings) -> Option<Self> {
        let Value::Object(fields) = value else {
            findings.refuse(path, wrong_type("an object"));
            return None;
        };
        let columns = columns(&path, fields, findings);
        Some(Self { path, table, columns, findings })
    }

    pub(super) fn refuse(&mut self, column: &str, why: Invalid) {
        let path = self.at(column);
        self.findings.refuse(path, why);
    }

    pub(super) fn at(&self, column: &str) -> String {
        below(&self.path, column)
    }

    /// What other rows refer to this one by. Of two rows with one id nobody can say which is meant.
    pub(super) fn id(&mut self) -> Option<String> {
        let (written, id) = self.reference(&["id"])?;
        if !self.findings.ids.insert((self.table, id.clone())) {
            let suggestion = "keep one of the rows, or give one another id here and where it is referred to";
            self.refuse(&written, Invalid::new("duplicate", "is the id of a row before it, too", suggestion));
        }
        Some(id)
    }

    /// An id, and its column as it is written. An empty one is none: some exports know no `null`.
    pub(super) fn reference(&mut self, names: &[&str]) -> Option<(String, String)> {
        let written = self.written(names);
        let id = self.text(names)?;
        (!id.is_empty()).then_some((written, id))
    }

    /// A JSON document in a text, as `SQLite` keeps it; anything else as it is.
    pub(super) fn unwrapped(&mut self, column: &str, value: Value) -> Value {
        let Value::String(text) = value else { return value };
        let Ok(Document { value, doubled }) = written::document(&text) else { return Value::String(text) };
        for path in doubled {
            let path = below(&self.at(column), &path);
            self.findings.refuse_doubled(path);
        }
        value
    }

    /// The value under the first of the names that is there, and that name as it is written; `null` is as absent.
    pub(super) fn take(&mut self, names: &[&str]) -> Option<(String, Value)> {
        let mut first: Option<(String, Value)> = None;
        for name in names {
            match self.columns.remove(&normal(name)) {
                None | Some((_, Value::Null)) => {}
                Some((written, _)) if first.is_some() => self.refuse(&written, said_twice()),
                Some(found) => first = Some(found),
            }
        }
        first
    }

    /// A text, or a number as a text.
    pub(super) fn text(&mut self, names: &[&str]) -> Option<String> {
        let (written, value) = self.take(names)?;
        let text = scalar(value);
        if text.is_none() {
            self.refuse(&written, wrong_type("a text"));
        }
        text
    }

    pub(super) fn parsed<T>(&mut self, names: &[&str], parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        let written = self.written(names);
        let text = self.text(names)?;
        parse(&text).map_err(|why| self.refuse(&written, why)).ok()
    }

    /// As [`Row::parsed`], where absence is a fault.
    pub(super) fn required<T>(
        &mut self,
        names: &[&'static str],
        parse: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        if !self.has(names) {
            self.refuse(names[0], Invalid::new("missing", "is required", "add the column"));
            self.take(names);
            return None;
        }
        self.parsed(names, parse)
    }

    /// A truth value as JSON, `SQLite` or a driver writes it.
    pub(super) fn flag(&mut self, names: &[&str]) -> Option<bool> {
        self.parsed(names, |text| match text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong_type("true or false")),
        })
    }

    /// Whether one of the names is there and not `null`.
    pub(super) fn has(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.columns.get(&normal(name)).is_some_and(|(_, value)| !value.is_null()))
    }

    /// The name that is there as it is written, or else the first.
    pub(super) fn written(&self, names: &[&str]) -> String {
        let found = names.iter().find_map(|name| self.columns.get(&normal(name)));
        found.map_or_else(|| names.first().copied().unwrap_or_default().to_owned(), |(written, _)| written.clone())
    }

    /// Columns that are known and that nothing is made of.
    pub(super) fn leave_out(&mut self, names: &[&str]) {
        for name in names {
            if let Some((written, _)) = self.columns.remove(&normal(name)) {
                self.findings.columns.entry(self.table).or_default().insert(written);
            }
        }
    }

    /// What is left over is a fault: it may be the misspelt name of something that matters.
    pub(super) fn finish(self) {
        let Self { path, table, columns, findings } = self;
        for (written, _) in columns.into_values() {
            if findings.is_ignored(&format!("{table}.{written}")) {
                findings.columns.entry(table).or_default().insert(written);
                continue;
            }
            let suggestion = format!("correct its name, or put {table}.{written} into `ignore` of the decisions");
            findings.refuse(
                below(&path, &written),
                Invalid::new("unknown-field", "is not a column that V1 has", suggestion),
            );
        }
    }
}

fn columns(path: &str, fields: Map<String, Value>, findings: &mut Findings) -> BTreeMap<String, (String, Value)> {
    let mut columns = BTreeMap::new();
    for (name, value) in fields {
        let written = shown(&name);
        match columns.entry(normal(&name)) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert((written, value));
            }
            std::collections::btree_map::Entry::Occupied(_) => {
                findings.refuse(format!("{path}.{written}"), said_twice());
            }
        }
    }
    columns
}

fn said_twice() -> Invalid {
    Invalid::new("duplicate", "is there under two names", "keep one of them")
}

pub(super) fn wrong_type(what: &str) -> Invalid {
    Invalid::new("wrong-type", format!("must be {what}"), "correct it in the file")
}

/// The path of what stands in something at a path.
pub(super) fn below(path: &str, inner: &str) -> String {
    let separator = if path.is_empty() || inner.starts_with('[') { "" } else { "." };
    format!("{path}{separator}{inner}")
}

/// `container_port` and `containerPort` are one name.
pub(super) fn normal(name: &str) -> String {
    name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

/// A name from the file, fit to be printed: what is no plain name may be anything, a value in the wrong place included.
pub(super) fn shown(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=64).contains(&name.len()) && name.chars().all(plain) {
        return name.to_owned();
    }
    format!("(a name of {} characters)", name.chars().count())
}

/// Texts, and what a text can stand for.
pub(super) fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
