//! `tidegate import-v1`: brings over what V1 had, from a dump of its tables, through the public API of an installation,
//! be it this machine's or one in AWS.
//!
//! What is to be done is decided in [`tidegate_domain::import_v1`]; here it is read, said and performed. Each thing is
//! created by one call that is all or nothing, so whatever a crash leaves is what the next run finds: it goes on from
//! there. The one thing that cannot be asked for again, an application's token, is seen to in [`tokens`].

mod api;
mod look;
mod old_key;
mod perform;
mod report;
mod tokens;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use tidegate_domain::{
    import_v1::{Closed, Decisions, Document, Dump, Outside, plan, read_json},
    invalid::FieldError,
    secret::Secret,
};

use self::{api::Api, old_key::OldKey, tokens::Tokens};

pub use api::{ApiError, Credential};

/// What a run is given.
#[derive(Debug)]
pub struct Options {
    /// V1's tables as JSON.
    pub file: PathBuf,
    /// JSON, or TOML if it is called so.
    pub decisions: Option<PathBuf>,
    pub old_key_file: Option<PathBuf>,
    /// Takes the new applications' tokens, which are printed otherwise.
    pub tokens_file: Option<PathBuf>,
    pub dry_run: bool,
    /// Of the installation: `https://deploy.example.com`.
    pub url: String,
    pub credential: Credential,
}

/// How a run ended that did what it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The rest is done by another run, once somebody has decided.
    DecisionsNeeded,
}

/// Why a run did not do what it could. What it did until then stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("cannot read {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The parser's own words may hold what stands at that place.
    #[error("{} cannot be read as {form}, at line {line}", path.display())]
    Malformed { path: PathBuf, form: &'static str, line: usize },
    #[error("{} holds no key: 32 bytes, as 64 hexadecimal digits or in base64", path.display())]
    NoKey { path: PathBuf },
    #[error("{count} faults are to be mended first")]
    Faults { count: usize },
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("{count} things were refused")]
    Refused { count: usize },
    #[error("cannot keep tokens in {}", path.display())]
    Tokens {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the token of the application {application} was lost with a run that was interrupted: rotate it (POST \
         /api/v2/applications/{id}/webhook-token), then remove {} and run this again",
        path.display()
    )]
    TokenLost { application: String, id: u64, path: PathBuf },
    #[error("{} is of a run against another installation, which was interrupted; finish that one, or remove the file", path.display())]
    OtherInstallation { path: PathBuf },
    #[error("cannot write to standard output")]
    Output(#[from] io::Error),
}

/// Plans, tells, and unless it is a dry run performs.
///
/// # Errors
/// See [`ImportError`]. Nothing is done if the files have faults, all of which are told.
pub async fn run(out: &mut (impl Write + Send), options: Options) -> Result<Outcome, ImportError> {
    let key = options.old_key_file.as_deref().map(old_key).transpose()?;
    let (file, decisions) = (parsed(&options.file)?, options.decisions.as_deref());
    let decisions = decisions.map(parsed).transpose()?;
    let decisions = match decisions.map_or_else(|| Ok(Decisions::default()), Decisions::read) {
        Ok(decisions) => decisions,
        Err(faults) => return refuse(out, &faults),
    };
    let dump = match Dump::read(file, &decisions) {
        Ok(dump) => dump,
        Err(faults) => return refuse(out, &faults),
    };
    let mut api = Api::sign_in(&options.url, options.credential).await?;
    let mut tokens = options.tokens_file.as_deref().map(|path| Tokens::open(path, api.url())).transpose()?;
    if let (Some(tokens), false) = (&mut tokens, options.dry_run) {
        tokens.finish_last(&mut api).await?;
    }
    let existing = look::around(&mut api, &dump.scopes(&decisions)).await?;
    let outside = Outside {
        env: &|name| std::env::var(name).ok().map(Secret::new),
        open: &|sealed| key.as_ref().map_or(Err(Closed::NoKey), |key| key.open(sealed)),
    };
    let plan = match plan(dump, &decisions, &existing, &outside) {
        Ok(plan) => plan,
        Err(faults) => return refuse(out, &faults),
    };
    report::planned(out, &plan, options.dry_run)?;
    let outcome = if plan.questions.is_empty() { Outcome::Done } else { Outcome::DecisionsNeeded };
    if options.dry_run {
        return Ok(outcome);
    }
    let refused = perform::all(out, &mut api, &existing, plan.steps, tokens).await?;
    if refused > 0 { Err(ImportError::Refused { count: refused }) } else { Ok(outcome) }
}

fn refuse(out: &mut impl Write, faults: &[FieldError]) -> Result<Outcome, ImportError> {
    report::faults(out, faults)?;
    Err(ImportError::Faults { count: faults.len() })
}

fn text_of(path: &Path) -> Result<String, ImportError> {
    fs::read_to_string(path).map_err(|source| ImportError::Unreadable { path: path.to_owned(), source })
}

/// TOML if it is called so, or else JSON.
fn parsed(path: &Path) -> Result<Document, ImportError> {
    let text = text_of(path)?;
    let malformed = |form, line| ImportError::Malformed { path: path.to_owned(), form, line };
    if path.extension().is_some_and(|extension| extension == "toml") {
        let line = |at: usize| text[..at].lines().count().max(1);
        let read = toml::from_str::<serde_json::Value>(&text).map(Document::from);
        return read.map_err(|error| {
            malformed("TOML", error.span().map_or(1, |span: std::ops::Range<usize>| line(span.start)))
        });
    }
    read_json(&text).map_err(|error| malformed("JSON", error.line()))
}

fn old_key(path: &Path) -> Result<OldKey, ImportError> {
    let text = Secret::new(text_of(path)?);
    OldKey::parse(&text).ok_or_else(|| ImportError::NoKey { path: path.to_owned() })
}
