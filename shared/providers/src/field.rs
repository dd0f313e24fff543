//! What is configured of a source, as data: forms, views, storage and sealing go by it and know no source.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_domain::{
    invalid::{FieldError, Invalid},
    provider::{ProviderType, RemotePath},
    secret::Secret,
};
use url::{Host, Url};

use crate::{aws_secrets_manager, fields, infisical};

/// One field of `config`.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub need: Need,
    /// Sealed, and shown as the mask.
    pub is_secret: bool,
    /// Where the credentials go: kept ones do not go to another place.
    pub is_destination: bool,
    /// The one form in which a text is kept.
    pub parse: fn(&str) -> Result<String, Invalid>,
}

/// What there is if nothing is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Required,
    Optional,
    Default(&'static str),
}

impl Field {
    pub(crate) const fn text(name: &'static str, need: Need, parse: fn(&str) -> Result<String, Invalid>) -> Self {
        Self { name, need, is_secret: false, is_destination: false, parse }
    }

    pub(crate) const fn secret(name: &'static str, need: Need) -> Self {
        Self { name, need, is_secret: true, is_destination: false, parse: line }
    }

    pub(crate) const fn destination(name: &'static str, need: Need) -> Self {
        Self { name, need, is_secret: false, is_destination: true, parse: address }
    }
}

/// What is configured, secrets opened.
#[derive(Debug, Default)]
pub struct Settings {
    pub texts: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, Secret<String>>,
}

impl Settings {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    pub(crate) fn required(&self, name: &'static str) -> Result<&str, crate::ProviderError> {
        self.text(name).ok_or(crate::ProviderError::Misconfigured(name))
    }

    pub(crate) fn path(&self) -> Result<RemotePath, crate::ProviderError> {
        let path = self.text("path").unwrap_or("/");
        RemotePath::parse(path).map_err(|_| crate::ProviderError::Misconfigured("path"))
    }
}

/// What is wrong with fields that are right one by one. `secrets` are the names of those that are set.
pub fn faults(
    kind: ProviderType,
    texts: &BTreeMap<String, String>,
    secrets: &BTreeSet<&'static str>,
) -> Vec<FieldError> {
    match kind {
        ProviderType::Infisical => infisical::faults(),
        ProviderType::AwsSecretsManager => aws_secrets_manager::faults(texts, secrets),
    }
}

/// Whether the source is read as the installation itself, with no credentials of its own. Only the installation's own
/// tenant may have that: another one would read what belongs to whoever runs it.
pub fn is_ambient(kind: ProviderType, secrets: &BTreeSet<&'static str>) -> bool {
    match kind {
        ProviderType::Infisical => false,
        ProviderType::AwsSecretsManager => secrets.is_empty(),
    }
}

/// Whether this is an address within the machine that asks. Only the installation's own tenant may name one: what listens
/// there is for whoever runs it, on AWS the interface of the Lambda runtime among it.
pub fn is_within(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| is_loopback(&url))
}

/// Whether its changes can be told by a webhook, and the secret that they are signed with.
pub fn webhook_secret(kind: ProviderType) -> Option<&'static str> {
    match kind {
        ProviderType::Infisical => Some(infisical::WEBHOOK_SECRET),
        ProviderType::AwsSecretsManager => None,
    }
}

/// The field of this kind with this name.
pub fn field(kind: ProviderType, name: &str) -> Option<&'static Field> {
    fields(kind).iter().find(|field| field.name == name)
}

pub(crate) fn line(text: &str) -> Result<String, Invalid> {
    const MAX_CHARS: usize = 500;
    if text.is_empty() || text.chars().count() > MAX_CHARS || text.chars().any(char::is_control) {
        let wanted = "1 to 500 characters without line breaks";
        return Err(Invalid::new("format-text", format!("must have {wanted}"), format!("send {wanted}")));
    }
    Ok(text.to_owned())
}

pub(crate) fn path(text: &str) -> Result<String, Invalid> {
    RemotePath::parse(text).map(String::from)
}

/// `https`, or anything inside this machine; without a slash at the end.
pub(crate) fn address(text: &str) -> Result<String, Invalid> {
    let refused =
        |message: &str| Err(Invalid::new("format-url", message, "write the address as https://secrets.example.com"));
    let Ok(url) = Url::parse(text) else { return refused("is not an address") };
    if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)) {
        return refused("is not an https address, and credentials do not travel in plain text");
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return refused("has credentials, a query or a fragment");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// `localhost` is this machine, whatever a resolver says.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_https_addresses_or_stay_inside() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(address(text).ok().as_deref(), expect, "{text}");
        check("https://app.infisical.com", Some("https://app.infisical.com"));
        check("https://Secrets.example.com:8443/infisical/", Some("https://secrets.example.com:8443/infisical"));
        check("http://127.0.0.1:8080", Some("http://127.0.0.1:8080"));
        check("http://[::1]:8080/", Some("http://[::1]:8080"));
        check("http://localhost", Some("http://localhost"));
        check("http://secrets.example.com", None);
        check("http://localhost.example.com", None);
        check("http://127.0.0.1.example.com", None);
        check("http://10.0.0.1", None);
        check("ftp://localhost", None);
        check("https://user:word@secrets.example.com", None);
        check("https://secrets.example.com?a=b", None);
        check("secrets.example.com", None);
        check("", None);
    }

    #[test]
    fn every_default_is_in_the_form_in_which_it_is_kept() {
        for kind in ProviderType::ALL {
            for field in fields(kind) {
                if let Need::Default(text) = field.need {
                    assert_eq!((field.parse)(text).as_deref(), Ok(text), "{}", field.name);
                }
            }
        }
    }
}
