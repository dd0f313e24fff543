//! AWS Secrets Manager of an account and region, with an access key or as the installation's own role.
//!
//! A secret's whole text is the value, also where it is JSON: whoever wants a part of it keeps that part as a secret of its
//! own. Folders are what stands before the last slash of a name, so that `prod/shop/DATABASE_URL` is `DATABASE_URL` in
//! `/prod/shop`. A secret that is not text is told as one that cannot be taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tidegate_aws::secrets_manager::{Account, Found, Named, NamesPage, SecretsManager, SecretsManagerError};
use tidegate_domain::{
    invalid::{FieldError, Invalid},
    provider::RemotePath,
    sync::Listed,
};

use crate::{Entry, Field, Need, Page, Provider, ProviderError, Settings, field};

const KEY_ID: &str = "accessKeyId";
const KEY: &str = "secretAccessKey";

pub(crate) const FIELDS: &[Field] = &[
    Field::text("region", Need::Required, region),
    Field::destination("endpointUrl", Need::Optional),
    Field::text(KEY_ID, Need::Optional, key_id),
    Field::secret(KEY, Need::Optional),
    Field::text("path", Need::Default("/"), field::path),
];

fn region(text: &str) -> Result<String, Invalid> {
    let is_region = (5..=32).contains(&text.len())
        && text.contains('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if is_region {
        Ok(text.to_owned())
    } else {
        Err(Invalid::new("format-region", "is not a region of AWS", "write its code, such as eu-central-1"))
    }
}

/// It travels in a header.
fn key_id(text: &str) -> Result<String, Invalid> {
    let is_key_id =
        (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if is_key_id {
        Ok(text.to_owned())
    } else {
        Err(Invalid::new("format-text", "is not the id of an access key", "write it as AWS shows it"))
    }
}

pub(crate) fn faults(texts: &BTreeMap<String, String>, secrets: &BTreeSet<&'static str>) -> Vec<FieldError> {
    let half = |missing: &str, given: &str| {
        Invalid::new(
            "missing",
            format!("is required with {given}"),
            "send both, or neither for the installation's role",
        )
        .at(missing)
    };
    match (texts.contains_key(KEY_ID), secrets.contains(KEY)) {
        (true, false) => vec![half(KEY, KEY_ID)],
        (false, true) => vec![half(KEY_ID, KEY)],
        (true, true) | (false, false) => Vec::new(),
    }
}

#[derive(Debug)]
pub struct AwsSecretsManager {
    client: SecretsManager,
    path: RemotePath,
}

impl AwsSecretsManager {
    pub(crate) async fn new(settings: &Settings, patience: Duration) -> Result<Self, ProviderError> {
        let keys = match (settings.text(KEY_ID), settings.secrets.get(KEY)) {
            (Some(id), Some(secret)) => Some((id, secret)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(ProviderError::Misconfigured(KEY)),
        };
        let account =
            Account { region: settings.required("region")?, endpoint_url: settings.text("endpointUrl"), keys };
        Ok(Self { client: SecretsManager::new(account, patience).await, path: settings.path()? })
    }
}

impl Provider for AwsSecretsManager {
    /// Goes on until there is a value to read, if there is any.
    async fn check(&self) -> Result<(), ProviderError> {
        let mut after = None;
        loop {
            let page = self.list(&RemotePath::default(), after.as_deref()).await?;
            if !page.entries.is_empty() || page.next.is_none() {
                return Ok(());
            }
            after = page.next;
        }
    }

    /// Of other folders, which other permissions may be for, only the names are read.
    async fn list(&self, path: &RemotePath, after: Option<&str>) -> Result<Page, ProviderError> {
        let folder = self.path.join(path);
        let NamesPage { named, next } = self.client.names(&prefixes(&folder), after).await.map_err(explain)?;
        let is_here = |named: &Named| key_in(&folder, &named.name).is_some();
        let arns: Vec<_> = named.into_iter().filter(is_here).map(|named| named.arn).collect();
        let found = self.client.values(&arns).await.map_err(explain)?;
        let entry = |found: Found| {
            let key = key_in(&folder, &found.name)?.to_owned();
            let path = folder.entry(&key);
            Some(Entry { remote_id: found.arn, path, key, value: found.value, version: found.version_id })
        };
        Ok(Page { entries: found.into_iter().filter_map(entry).collect(), next })
    }

    /// Region and account stand in each ARN; whatever key reads them, they are the same.
    fn place(&self, path: &RemotePath, listing: &[Listed]) -> String {
        let account = listing.first().and_then(|there| there.remote_id.split_once(":secret:"));
        format!("{} {}", account.map_or("", |(account, _)| account), self.path.join(path))
    }
}

/// Names are written with a slash before them or without.
fn prefixes(folder: &RemotePath) -> Vec<String> {
    match folder.as_str() {
        "/" => Vec::new(),
        folder => vec![format!("{}/", &folder[1..]), format!("{folder}/")],
    }
}

/// The last part of a name, if what stands before it is the folder.
fn key_in<'a>(folder: &RemotePath, name: &'a str) -> Option<&'a str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let (before, key) = bare.rsplit_once('/').unwrap_or(("", bare));
    (before == &folder.as_str()[1..] && !key.is_empty()).then_some(key)
}

fn explain(error: SecretsManagerError) -> ProviderError {
    match error {
        SecretsManagerError::BadCredentials => ProviderError::LoginRefused,
        SecretsManagerError::BadRole(source) => ProviderError::BadRole { source },
        SecretsManagerError::Denied => ProviderError::Denied,
        SecretsManagerError::Throttled => ProviderError::RateLimited { after: Duration::from_mins(1) },
        SecretsManagerError::Restart => ProviderError::Malformed("it has forgotten where its list was"),
        SecretsManagerError::Refused { status } => ProviderError::Refused { status },
        SecretsManagerError::Away(source) => ProviderError::Away { source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_what_stands_before_the_last_slash() {
        let check = |folder: &str, name: &str, expect: Option<&str>| {
            assert_eq!(key_in(&RemotePath::parse(folder).unwrap(), name), expect, "{folder} {name}");
        };
        check("/", "DATABASE_URL", Some("DATABASE_URL"));
        check("/", "/DATABASE_URL", Some("DATABASE_URL"));
        check("/", "prod/DATABASE_URL", None);
        check("/prod", "prod/DATABASE_URL", Some("DATABASE_URL"));
        check("/prod", "/prod/DATABASE_URL", Some("DATABASE_URL"));
        check("/prod", "prod/shop/DATABASE_URL", None);
        check("/prod/shop", "prod/shop/DATABASE_URL", Some("DATABASE_URL"));
        check("/prod", "production/DATABASE_URL", None);
        check("/prod", "prod/", None);
        assert_eq!(prefixes(&RemotePath::parse("/prod").unwrap()), ["prod/", "/prod/"]);
        assert!(prefixes(&RemotePath::default()).is_empty());
    }

    #[test]
    fn a_key_has_two_halves_or_none() {
        let check = |id: bool, key: bool, expect: &[&str]| {
            let texts = if id { BTreeMap::from([(KEY_ID.to_owned(), "AK".to_owned())]) } else { BTreeMap::new() };
            let secrets = if key { BTreeSet::from([KEY]) } else { BTreeSet::new() };
            let told: Vec<_> = faults(&texts, &secrets).into_iter().map(|fault| fault.field).collect();
            assert_eq!(told, expect);
        };
        check(true, true, &[]);
        check(false, false, &[]);
        check(true, false, &[KEY]);
        check(false, true, &[KEY_ID]);
        assert!(region("eu-central-1").is_ok() && region("us-gov-west-1").is_ok());
        assert!(region("Frankfurt").is_err() && region("").is_err());
        assert!(key_id("AKIAIOSFODNN7EXAMPLE").is_ok() && key_id("").is_err());
        assert!(key_id("AKIA/eu").is_err() && key_id("schlüssel").is_err());
    }
}
