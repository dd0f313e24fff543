//! Takes values key by key, from the environment or else from the file, and remembers all that is wrong.

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path};

use tidegate_aws::env;
use tidegate_domain::invalid::Invalid;
use toml::de::{DeTable, DeValue};

use super::{
    fault::{Fault, Faults, Origin},
    key,
};

/// What somebody has written for a key.
#[derive(Debug)]
enum Given {
    /// In the environment: to be read as what the key wants.
    Word(String),
    Text(String),
    Integer(Option<u64>),
    Boolean(bool),
    Texts(Vec<String>),
    /// A kind that no key has, or a list of such.
    Other,
}

pub(super) struct Reader {
    path: String,
    file: BTreeMap<String, (Given, Origin)>,
    environment: BTreeMap<String, String>,
    /// Of the file, all could be read; else nothing is called missing.
    complete: bool,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(
        path: &Path,
        file: Option<&str>,
        unreadable: Option<Fault>,
        environment: BTreeMap<String, String>,
    ) -> Self {
        let mut reader = Self {
            path: path.display().to_string(),
            file: BTreeMap::new(),
            environment,
            complete: unreadable.is_none(),
            faults: unreadable.into_iter().collect(),
        };
        reader.read_file(file.unwrap_or_default());
        reader
    }

    fn read_file(&mut self, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let line_of = |at: usize| text.get(..at).map(|before| 1 + before.matches('\n').count());
        for error in &errors {
            let line = error.span().and_then(|span| line_of(span.start));
            self.faults.push(Fault {
                key: None,
                origin: Some(Origin::File { path: self.path.clone(), line }),
                what: format!("not TOML: {}", error.message()),
                mend: "write `key = value`, texts and the members of lists in quotes".to_owned(),
            });
        }
        // What stands behind a fault may have been lost with it.
        self.complete &= errors.is_empty();
        for (key, value) in table.into_inner() {
            let origin = Origin::File { path: self.path.clone(), line: line_of(key.span().start) };
            self.file.insert(key.into_inner().into_owned(), (given(value.into_inner()), origin));
        }
    }

    /// The value is then no longer there; what is left in the end has no meaning.
    fn take(&mut self, key: &str) -> Option<(Given, Origin)> {
        let from_file = self.file.remove(key);
        let variable = variable(key);
        match self.environment.remove(&variable) {
            Some(word) => Some((Given::Word(word), Origin::Environment(variable))),
            None => from_file,
        }
    }

    fn wrong(&mut self, key: &str, origin: Origin, what: impl Into<String>, mend: impl Into<String>) {
        self.faults.push(Fault {
            key: Some(key.to_owned()),
            origin: Some(origin),
            what: what.into(),
            mend: mend.into(),
        });
    }

    /// An empty text is none.
    pub(super) fn text<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        let (given, origin) = self.take(key)?;
        match given {
            Given::Word(text) | Given::Text(text) if text.is_empty() => None,
            Given::Word(text) | Given::Text(text) => match parse(&text) {
                Ok(value) => Some(value),
                Err(invalid) => {
                    self.wrong(key, origin, invalid.message, invalid.suggestion);
                    None
                }
            },
            Given::Integer(_) | Given::Boolean(_) | Given::Texts(_) | Given::Other => {
                self.wrong(key, origin, "not a text", format!("write {key} = \"…\""));
                None
            }
        }
    }

    pub(super) fn required<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Option<T> {
        let before = self.faults.len();
        let value = self.text(key, parse);
        if value.is_none() && self.faults.len() == before && self.complete {
            self.faults.push(Fault {
                key: Some(key.to_owned()),
                origin: None,
                what: "missing".to_owned(),
                mend: format!("set it in {} or as {}", self.path, variable(key)),
            });
        }
        value
    }

    pub(super) fn integer(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let (given, origin) = self.take(key)?;
        let number = match given {
            Given::Word(word) => word.trim().parse().ok(),
            Given::Integer(number) => number,
            Given::Text(_) | Given::Boolean(_) | Given::Texts(_) | Given::Other => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let what = format!("not a whole number from {} to {}", range.start(), range.end());
            self.wrong(key, origin, what, format!("write {key} = {}, without quotes", key::shown(key)));
        }
        number
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        let (given, origin) = self.take(key)?;
        let value = match given {
            Given::Word(word) => word.trim().parse().ok(),
            Given::Boolean(value) => Some(value),
            Given::Text(_) | Given::Integer(_) | Given::Texts(_) | Given::Other => None,
        };
        if value.is_none() {
            self.wrong(key, origin, "neither true nor false", "write true or false, without quotes");
        }
        value
    }

    /// None: nobody has said anything, not even that it is empty.
    pub(super) fn list<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, Invalid>) -> Option<Vec<T>> {
        let (given, origin) = self.take(key)?;
        let members = match given {
            Given::Word(word) if word.trim().is_empty() => Vec::new(),
            Given::Word(word) => word.split(',').map(|member| member.trim().to_owned()).collect(),
            Given::Texts(members) => members,
            Given::Text(_) | Given::Integer(_) | Given::Boolean(_) | Given::Other => {
                self.wrong(key, origin, "not a list of texts", format!("write {key} = {}", key::shown(key)));
                return None;
            }
        };
        let mut parsed = Vec::new();
        for (index, member) in members.iter().enumerate() {
            match parse(member) {
                Ok(value) => parsed.push(value),
                Err(invalid) => {
                    self.wrong(&format!("{key}[{index}]"), origin.clone(), invalid.message, invalid.suggestion);
                }
            }
        }
        Some(parsed)
    }

    /// What nobody has taken is a fault as well: a misspelt key would otherwise be one that was never set.
    pub(super) fn finish(mut self) -> Faults {
        for (key, (_, origin)) in std::mem::take(&mut self.file) {
            self.unknown(&key, origin);
        }
        for (variable, _) in std::mem::take(&mut self.environment) {
            let key = variable.trim_start_matches(env::WORKER).to_ascii_lowercase();
            self.unknown(&key, Origin::Environment(variable));
        }
        Faults(self.faults)
    }

    fn unknown(&mut self, key: &str, origin: Origin) {
        let mend = match key::nearest(key) {
            Some(meant) => format!("write {meant}, if that is meant, or remove it"),
            None => format!("remove it; the keys are {}", key::names().collect::<Vec<_>>().join(", ")),
        };
        self.wrong(key, origin, "there is no such key", mend);
    }
}

fn given(value: DeValue<'_>) -> Given {
    match value {
        DeValue::String(text) => Given::Text(text.into_owned()),
        DeValue::Integer(number) => Given::Integer(u64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Boolean(value) => Given::Boolean(value),
        DeValue::Array(members) => {
            let texts = members.into_iter().map(|member| match member.into_inner() {
                DeValue::String(text) => Some(text.into_owned()),
                DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_)
                | DeValue::Table(_) => None,
            });
            texts.collect::<Option<Vec<_>>>().map_or(Given::Other, Given::Texts)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Given::Other,
    }
}

/// `TIDEGATE_WORKER_KEEP_IMAGES` for `keep_images`.
pub(super) fn variable(key: &str) -> String {
    format!("{}{}", env::WORKER, key.to_ascii_uppercase())
}
