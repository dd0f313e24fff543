//! Where the items of the table hold values of purpose `secret`, and the place that each is sealed for.

use aws_sdk_dynamodb::types::AttributeValue;
use tidegate_domain::variable::Scope;

use crate::{
    catalogue::Stored,
    envelope::Place,
    environments::Environment,
    error::{Result, StoreError},
    intake::names::sealed_key,
    keys::Key,
    providers::{PROVIDER_PLACE, SealedCredential, SecretProvider, credential_place},
    registered::{REGISTRY_PLACE, Registry, RegistryAuth, StoredSecret},
    secrets::{SECRET_PLACE, SecretVersion},
    settings::{SettingsSecret, StoredGithubAuth, StoredSettings},
    table::{Item, record, sort_key},
    variables::{StoredValue, StoredVariable, VARIABLE_PLACE, variable_place},
};

/// One value of an item.
pub(super) struct Ciphertext {
    pub(super) path: Vec<Step>,
    pub(super) place: OwnPlace,
    pub(super) sealed: String,
}

pub(super) enum Step {
    Name(&'static str),
    /// A name that somebody else has chosen.
    Key(String),
    At(usize),
}

pub(super) struct OwnPlace {
    pub(super) kind: &'static str,
    pub(super) id: String,
    pub(super) version: u64,
}

impl OwnPlace {
    pub(super) fn borrow(&self) -> Place<'_> {
        Place { kind: self.kind, id: &self.id, version: self.version }
    }
}

/// An item with its values, and the part that is replaced when one of them is sealed anew: the smallest that holds all.
pub(super) struct Held {
    pub(super) key: Key,
    pub(super) item: Item,
    pub(super) part: &'static [&'static str],
    pub(super) values: Vec<Ciphertext>,
}

pub(super) type Found = (&'static [&'static str], Vec<Ciphertext>);

impl Held {
    pub(super) fn of(item: Item, find: impl FnOnce(Item) -> Result<Found>) -> Result<Self> {
        let pk = item.get("pk").and_then(|v| v.as_s().ok()).cloned();
        let key = pk.zip(sort_key(&item).map(str::to_owned)).map(|(pk, sk)| Key { pk, sk });
        let key = key.ok_or_else(|| StoreError::unreadable("item", "it has no key"))?;
        let (part, values) = find(item.clone())?;
        Ok(Self { key, item, part, values })
    }
}

/// What stands there.
pub(super) fn at<'a>(item: &'a Item, path: &[&str]) -> Option<&'a AttributeValue> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(item.get(*first)?, |value, name| value.as_m().ok()?.get(*name))
}

/// Puts a value where a path of [`Ciphertext`] leads.
pub(super) fn put_at(item: &mut Item, path: &[Step], value: AttributeValue) {
    fn place<'a>(value: &'a mut AttributeValue, step: &Step) -> Option<&'a mut AttributeValue> {
        match (value, step) {
            (AttributeValue::M(fields), Step::Name(name)) => fields.get_mut(*name),
            (AttributeValue::M(fields), Step::Key(name)) => fields.get_mut(name),
            (AttributeValue::L(items), Step::At(index)) => items.get_mut(*index),
            _ => None,
        }
    }
    let Some((Step::Name(first), rest)) = path.split_first() else { return };
    if let Some(found) = item.get_mut(*first).and_then(|first| rest.iter().try_fold(first, place)) {
        *found = value;
    }
}

fn names(path: &[&'static str]) -> Vec<Step> {
    path.iter().map(|name| Step::Name(name)).collect()
}

pub(super) fn of_settings(item: Item) -> Result<Found> {
    let settings: StoredSettings = record(item, "settings")?;
    let mut values = Vec::new();
    if let Some(github) = settings.github {
        let (auth_path, auth, which): (&[&str], _, _) = match github.auth {
            StoredGithubAuth::Token { token } => {
                (&["github", "auth", "token", "sealed"], token, SettingsSecret::GithubToken)
            }
            StoredGithubAuth::App { private_key, .. } => {
                (&["github", "auth", "privateKey", "sealed"], private_key, SettingsSecret::GithubPrivateKey)
            }
        };
        let webhook: (&[&str], _, _) =
            (&["github", "webhookSecret", "sealed"], github.webhook_secret, SettingsSecret::GithubWebhook);
        for (path, secret, which) in [webhook, (auth_path, auth, which)] {
            let Place { kind, id, version } = which.place(secret.version);
            let place = OwnPlace { kind, id: id.to_owned(), version };
            values.push(Ciphertext { path: names(path), place, sealed: secret.sealed.0 });
        }
    }
    Ok((&["github"], values))
}

/// The key that requests of issues are named with.
pub(super) fn of_names(item: Item) -> Result<Found> {
    let (Place { kind, id, version }, sealed) = sealed_key(item)?;
    let path = &["sealed"];
    let place = OwnPlace { kind, id: id.to_owned(), version };
    Ok((path, vec![Ciphertext { path: names(path), place, sealed }]))
}

pub(super) fn of_registry(item: Item) -> Result<Found> {
    let registry: Stored<Registry> = record(item, "registry")?;
    let found: Option<(&[&str], _, _)> = match registry.body.auth {
        RegistryAuth::None => None,
        RegistryAuth::UsernamePassword { password, version, .. } => {
            Some((&["body", "auth", "password"], password, version))
        }
        RegistryAuth::Token { token, version, .. } => Some((&["body", "auth", "token"], token, version)),
    };
    let values = found.into_iter().map(|(path, sealed, version)| {
        let place = OwnPlace { kind: REGISTRY_PLACE, id: registry.id.to_string(), version };
        Ciphertext { path: names(path), place, sealed: sealed.0 }
    });
    Ok((&["body", "auth"], values.collect()))
}

pub(super) fn of_provider(item: Item) -> Result<Found> {
    let provider: Stored<SecretProvider> = record(item, "secret provider")?;
    let values = provider.body.credentials.into_iter().map(|(field, SealedCredential { sealed, version })| {
        let place = OwnPlace { kind: PROVIDER_PLACE, id: credential_place(provider.id, &field), version };
        let mut path = names(&["body", "credentials"]);
        path.extend([Step::Key(field), Step::Name("sealed")]);
        Ciphertext { path, place, sealed: sealed.0 }
    });
    Ok((&["body", "credentials"], values.collect()))
}

/// The ciphertext of a variable with its place; none of one that holds no secret of its own.
fn sealed(variable: StoredVariable, scope: Scope) -> Option<(OwnPlace, String)> {
    let StoredVariable { key, value, revision, .. } = variable;
    match value {
        StoredValue::Secret { sealed } => {
            let place = OwnPlace { kind: VARIABLE_PLACE, id: variable_place(scope, &key), version: revision.0 };
            Some((place, sealed.0))
        }
        StoredValue::Plain { .. } | StoredValue::Reference { .. } => None,
    }
}

pub(super) fn of_variable(item: Item, scope: Scope) -> Result<Found> {
    let found = sealed(record(item, "variable")?, scope);
    let value = found.map(|(place, sealed)| Ciphertext { path: names(&["value", "sealed"]), place, sealed });
    Ok((&["value"], value.into_iter().collect()))
}

pub(super) fn of_environment(item: Item) -> Result<Found> {
    let environment: Stored<Environment> = record(item, "environment")?;
    let scope = Scope::Environment(tidegate_domain::id::EnvironmentId(environment.id));
    let values = environment.body.variables.into_iter().enumerate().filter_map(|(index, variable)| {
        let (place, sealed) = sealed(variable, scope)?;
        let mut path = names(&["body", "variables"]);
        path.push(Step::At(index));
        path.extend(names(&["value", "sealed"]));
        Some(Ciphertext { path, place, sealed })
    });
    Ok((&["body", "variables"], values.collect()))
}

fn of_value(path: &[&'static str], id: u64, version: u64, sealed: String) -> Vec<Ciphertext> {
    let place = OwnPlace { kind: SECRET_PLACE, id: id.to_string(), version };
    vec![Ciphertext { path: names(path), place, sealed }]
}

pub(super) fn of_secret(item: Item) -> Result<Found> {
    let secret: Stored<StoredSecret> = record(item, "secret")?;
    let path = &["body", "value"];
    Ok((path, of_value(path, secret.id, secret.body.value_version, secret.body.value.0)))
}

pub(super) fn of_version(item: Item, secret: u64) -> Result<Found> {
    let version: SecretVersion = record(item, "version of a secret")?;
    let path = &["value"];
    Ok((path, of_value(path, secret, version.version, version.value.0)))
}
