//! The new applications' tokens, which the installation shows once and never again.
//!
//! A crash between the answer that shows a token and the disk would lose it. So what is about to be asked is written beside
//! the tokens first, with its `Idempotency-Key`: the next run asks the same again, and for a day the installation gives the
//! same answer to the same caller. To others, and later, it says that there is such an application: then its token is lost,
//! and nothing goes on before somebody has seen to that.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ImportError,
    api::{Api, Created, new_key},
};
use crate::data_folder::DurableFile;

/// A file with a line of JSON for each application, mode 0600.
pub(super) struct Tokens {
    file: DurableFile,
    attempt: DurableFile,
    url: String,
    lines: String,
}

/// A creation that may have happened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attempt {
    url: String,
    key: String,
    body: Value,
}

/// One that is there.
#[derive(Debug, Deserialize)]
struct Application {
    id: u64,
    name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    application: &'a Value,
    application_id: &'a Value,
    webhook_token: &'a Value,
}

impl Tokens {
    /// Goes on with what earlier runs wrote.
    pub(super) fn open(path: &Path, url: &str) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Tokens { path: path.to_owned(), source };
        let path = std::path::absolute(path).map_err(failed)?;
        let mut beside = path.clone().into_os_string();
        beside.push(".unfinished");
        let file = DurableFile::at(path.clone());
        let lines = file.read().map_err(failed)?.unwrap_or_default();
        let lines = String::from_utf8(lines).map_err(|error| failed(io::Error::other(error.utf8_error())))?;
        Ok(Self { file, attempt: DurableFile::at(beside.into()), url: url.to_owned(), lines })
    }

    /// Creates an application and keeps its token; what is returned is its answer.
    pub(super) async fn create(&mut self, api: &mut Api, body: &Value) -> Result<Created, ImportError> {
        let attempt = Attempt { url: self.url.clone(), key: new_key(), body: body.clone() };
        let text = serde_json::to_vec(&attempt).expect("texts and JSON can be written as JSON");
        self.attempt.write(&text).map_err(|source| self.failed(source))?;
        self.perform(api, &attempt).await
    }

    /// What an interrupted run was about.
    pub(super) async fn finish_last(&mut self, api: &mut Api) -> Result<(), ImportError> {
        let Some(text) = self.attempt.read().map_err(|source| self.failed(source))? else { return Ok(()) };
        let attempt: Attempt = serde_json::from_slice(&text).map_err(|error| self.failed(error.into()))?;
        if attempt.url != self.url {
            return Err(ImportError::OtherInstallation { path: self.attempt.path().to_owned() });
        }
        match self.create_again(api, &attempt).await? {
            Created::Yes { .. } => {}
            Created::Refused(_) => self.check_not_lost(api, &attempt).await?,
        }
        self.attempt.remove().map_err(|source| self.failed(source))
    }

    /// Of a creation that is refused: for another reason than that it has happened, which is told when the application is
    /// planned again.
    async fn check_not_lost(&self, api: &mut Api, attempt: &Attempt) -> Result<(), ImportError> {
        let found = api.every::<Application>("applications").await?;
        let Some(found) = found.into_iter().find(|found| attempt.body["name"] == *found.name) else { return Ok(()) };
        let of_it =
            |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["applicationId"] == found.id);
        if self.lines.lines().any(of_it) {
            return Ok(());
        }
        let path = self.attempt.path().to_owned();
        Err(ImportError::TokenLost { application: found.name, id: found.id, path })
    }

    async fn perform(&mut self, api: &mut Api, attempt: &Attempt) -> Result<Created, ImportError> {
        let created = self.create_again(api, attempt).await?;
        self.attempt.remove().map_err(|source| self.failed(source))?;
        Ok(created)
    }

    /// Creates it, or hears the first answer once more.
    async fn create_again(&mut self, api: &mut Api, attempt: &Attempt) -> Result<Created, ImportError> {
        let created = api.create("applications", &attempt.key, &attempt.body).await?;
        if let Created::Yes { body, replayed } = &created {
            // One that was deleted meanwhile is answered, too.
            let there = !replayed || api.is_there(&format!("applications/{}", body["id"])).await?;
            if there {
                self.keep(body)?;
            }
        }
        Ok(created)
    }

    fn keep(&mut self, answer: &Value) -> Result<(), ImportError> {
        let line = Line {
            application: &answer["name"],
            application_id: &answer["id"],
            webhook_token: &answer["webhookToken"],
        };
        let line = serde_json::to_string(&line).expect("JSON can be written as JSON");
        if self.lines.lines().any(|kept| kept == line) {
            return Ok(());
        }
        if !self.lines.is_empty() && !self.lines.ends_with('\n') {
            self.lines.push('\n');
        }
        self.lines.push_str(&line);
        self.lines.push('\n');
        self.file.write(self.lines.as_bytes()).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> ImportError {
        ImportError::Tokens { path: self.file.path().to_owned(), source }
    }
}
