//! What is written of a provider. Its `config` is read by what `tidegate_providers` says of its fields, so that nothing here
//! knows any source.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_aws::{
    error::StoreError,
    providers::{SealedCredential, SecretProvider},
    store::Store,
};
use tidegate_domain::{
    id::TenantId,
    invalid::Invalid,
    provider::{OnConflict, OnRemoved, ProviderType},
};
use tidegate_providers::{Need, field};
use tidegate_web::{
    Problem,
    auth::DEFAULT_TENANT,
    form::{Form, within},
};

use crate::{
    call::plain_name,
    masked::{self, SecretField},
};

const INTERVAL_MINUTES: u32 = 15;
/// A week.
const LONGEST_INTERVAL_MINUTES: u32 = 7 * 24 * 60;

/// A provider whose credentials are not sealed yet.
pub(crate) struct Parsed {
    name: String,
    kind: ProviderType,
    config: Config,
    auto_sync: bool,
    sync_interval_minutes: u32,
    on_conflict: OnConflict,
    on_removed: OnRemoved,
}

struct Config {
    texts: BTreeMap<String, String>,
    credentials: BTreeMap<&'static str, SecretField>,
}

pub(crate) fn read(mut form: Form, tenant: &TenantId, stored: Option<&SecretProvider>) -> Result<Parsed, Problem> {
    let kind = match stored {
        Some(stored) => {
            form.fixed("type", &stored.kind.as_str().into());
            Some(stored.kind)
        }
        None => form.required("type", None, |text: String| ProviderType::parse(&text)),
    };
    let default = stored.map(|s| s.name.clone()).or_else(|| kind.map(|kind| kind.as_str().to_owned()));
    let name = form.required("name", default, plain_name);
    let config = if let Some(kind) = kind {
        let unchanged = stored.map(Config::of);
        let config = form.object("config", unchanged, |config| read_config(config, tenant, kind, stored));
        if config.is_none() && form.faults() == 0 {
            let why = Invalid::new("missing", "is required", "send an object with the source's settings");
            form.refuse("config", why);
        }
        config
    } else {
        // What its fields should be nobody knows.
        form.read_only(&["config"]);
        None
    };
    let auto_sync = form.defaulted("autoSync", stored.is_some_and(|s| s.auto_sync), Ok);
    let default = stored.map_or(INTERVAL_MINUTES, |s| s.sync_interval_minutes);
    let sync_interval_minutes = form.defaulted("syncIntervalMinutes", default, within(1, LONGEST_INTERVAL_MINUTES));
    let default = stored.map_or_else(OnConflict::default, |s| s.on_conflict);
    let on_conflict = form.defaulted("onConflict", default, |text: String| OnConflict::parse(&text));
    let default = stored.map_or_else(OnRemoved::default, |s| s.on_removed);
    let on_removed = form.defaulted("onRemoved", default, |text: String| OnRemoved::parse(&text));
    form.finish(|| {
        Some(Parsed {
            name: name?,
            kind: kind?,
            config: config?,
            auto_sync,
            sync_interval_minutes,
            on_conflict,
            on_removed,
        })
    })
}

impl Config {
    fn of(stored: &SecretProvider) -> Self {
        let kept = tidegate_providers::fields(stored.kind).iter().map(|field| field.name);
        let kept = kept.filter(|name| stored.credentials.contains_key(*name));
        Self { texts: stored.settings.clone(), credentials: kept.map(|name| (name, SecretField::Keep)).collect() }
    }
}

/// What is left out stays as it was, field by field.
fn read_config(
    form: &mut Form,
    tenant: &TenantId,
    kind: ProviderType,
    stored: Option<&SecretProvider>,
) -> Option<Config> {
    let faults = form.faults();
    let fields = tidegate_providers::fields(kind);
    let before = |name: &str| stored.and_then(|stored| stored.settings.get(name));
    let mut texts = BTreeMap::new();
    let mut same_place = true;
    for field in fields.iter().filter(|field| !field.is_secret) {
        let old = before(field.name).cloned();
        let parse = |text: String| (field.parse)(&text);
        let text = match field.need {
            Need::Required => form.required(field.name, old.clone(), parse),
            Need::Optional => form.nullable(field.name, old.clone(), parse),
            Need::Default(default) => {
                Some(form.defaulted(field.name, old.clone().unwrap_or_else(|| default.to_owned()), parse))
            }
        };
        same_place &= !field.is_destination || text == old;
        texts.extend(text.map(|text| (field.name.to_owned(), text)));
    }
    let mut credentials = BTreeMap::new();
    for field in fields.iter().filter(|field| field.is_secret) {
        // Credentials only ever go to the place that they were given for; what only comes in from there goes nowhere.
        let is_kept = stored.is_some_and(|stored| stored.credentials.contains_key(field.name))
            && (same_place || field::webhook_secret(kind) == Some(field.name));
        let value = match field.need {
            Need::Optional => {
                masked::optional(form, field.name, is_kept, |value| (field.parse)(value.expose()).map(drop))
            }
            Need::Required | Need::Default(_) => masked::secret(form, field.name, is_kept),
        };
        credentials.extend(value.map(|value| (field.name, value)));
    }
    let given: BTreeSet<_> = credentials.keys().copied().collect();
    if form.faults() == faults {
        for fault in field::faults(kind, &texts, &given) {
            form.refuse(&fault.field, fault.invalid);
        }
        if tenant.as_str() != DEFAULT_TENANT {
            refuse_what_is_the_installations(form, kind, &texts, &given);
        }
    }
    (form.faults() == faults).then_some(Config { texts, credentials })
}

/// Its role, and what listens on its machine, are no other tenant's to use.
fn refuse_what_is_the_installations(
    form: &mut Form,
    kind: ProviderType,
    texts: &BTreeMap<String, String>,
    given: &BTreeSet<&'static str>,
) {
    if field::is_ambient(kind, given) {
        let why = "must be given, as the installation's own role is not this tenant's to use";
        form.refuse("accessKeyId", Invalid::new("missing", why, "send an access key with its secret"));
    }
    for field in tidegate_providers::fields(kind).iter().filter(|field| field.is_destination) {
        if texts.get(field.name).is_some_and(|address| field::is_within(address)) {
            let why = "is on the machine of the installation itself";
            form.refuse(
                field.name,
                Invalid::new("format-url", why, "write the address as https://secrets.example.com"),
            );
        }
    }
}

/// Seals what is new, each under the next version of its place.
pub(crate) async fn seal(
    store: &Store,
    tenant: &TenantId,
    id: u64,
    old: Option<&SecretProvider>,
    parsed: Parsed,
) -> Result<SecretProvider, Problem> {
    let Parsed { name, kind, config, auto_sync, sync_interval_minutes, on_conflict, on_removed } = parsed;
    let mut credentials = BTreeMap::new();
    for (field, value) in config.credentials {
        let kept = old.and_then(|old| old.credentials.get(field));
        let sealed = seal_one(store, tenant, (id, field), kept, value).await?.ok_or_else(Problem::internal)?;
        credentials.insert(field.to_owned(), sealed);
    }
    let settings = config.texts;
    Ok(SecretProvider { name, kind, settings, credentials, auto_sync, sync_interval_minutes, on_conflict, on_removed })
}

async fn seal_one(
    store: &Store,
    tenant: &TenantId,
    (id, field): (u64, &str),
    kept: Option<&SealedCredential>,
    value: SecretField,
) -> Result<Option<SealedCredential>, StoreError> {
    match value {
        SecretField::Keep => Ok(kept.cloned()),
        SecretField::New(value) => store.seal_credential(tenant, id, field, kept, &value).await.map(Some),
    }
}
