//! What is wrong with a configuration, and where.

use std::{fmt, io, path::Path};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The file, and the line in it where that is known.
    File { path: String, line: Option<usize> },
    /// A variable of the environment, by its name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{path}, line {line}"),
            Self::File { path, line: None } => f.write_str(path),
            Self::Environment(name) => write!(f, "{name} in the environment"),
        }
    }
}

/// One thing that is wrong. Never repeats a value: it may be a secret that got into the wrong place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// None: the file as a whole.
    pub key: Option<String>,
    /// None: nobody has given a value.
    pub origin: Option<Origin>,
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl Fault {
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let mend = match error.kind() {
            io::ErrorKind::NotFound => "write it (`tidegate-worker install` does), or name another with --config",
            io::ErrorKind::PermissionDenied => {
                "let the worker's user read it: chgrp it to that user's group, chmod 0640"
            }
            io::ErrorKind::InvalidData => "save it as UTF-8",
            _ => "make it a readable file",
        };
        Self::of_file(path, format!("cannot be read: {error}"), mend)
    }

    /// A folder, a FIFO, a socket or a device.
    pub(super) fn no_file(path: &Path) -> Self {
        Self::of_file(path, "not a regular file".to_owned(), "write the keys into a file, and name that")
    }

    fn of_file(path: &Path, what: String, mend: &str) -> Self {
        let origin = Origin::File { path: path.display().to_string(), line: None };
        Self { key: None, origin: Some(origin), what, mend: mend.to_owned() }
    }
}

impl Fault {
    /// What is wrong and where, without the way out.
    pub(crate) fn place(&self) -> String {
        match (&self.key, &self.origin) {
            (Some(key), Some(origin)) => format!("{key} ({origin}): {}", self.what),
            (Some(key), None) => format!("{key}: {}", self.what),
            (None, Some(origin)) => format!("{origin}: {}", self.what),
            (None, None) => self.what.clone(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.place(), self.mend)
    }
}

/// All that is wrong, in the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not right")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for Faults {}
