//! A table with values of every kind, each of which can be opened, moved and spoilt.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde_json::json;
use tidegate_aws::{
    audit::AuditEvent,
    clients::Clients,
    clock,
    keys::{self, Key, Kind},
    registered::{Registry, SecretGroup, StoredSecret},
    store::{Store, StoreConfig},
};
use tidegate_aws::{catalogue::Stored, registered::Source, secrets::NewSecret};
use tidegate_domain::{
    id::{ApplicationId, EnvironmentId, ProjectId, SecretGroupId, SecretId, TenantId},
    provider::RemotePath,
    secret::Secret,
    variable::{Scope, VariableKey},
};
use tidegate_local::{
    embedded::Detour,
    provision::{KEY_ALIAS, TABLE},
    stack,
};

use crate::{administration::admin::Admin, secrets::key};

type Item = HashMap<String, AttributeValue>;

pub(super) struct Kept {
    pub(super) admin: Admin,
    pub(super) tenant: TenantId,
    pub(super) other: TenantId,
    pub(super) now: Timestamp,
    /// What the key of the tenant's names makes of nothing.
    name: String,
}

/// A ciphertext in the table.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) of: Of,
    at: Key,
    path: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Name(&'static str),
    At(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    Secret(TenantId, u64),
    Version(u64, u64),
    Variable(Scope, &'static str),
    Registry,
    Github,
    Names,
}

fn names(path: &[&'static str]) -> Vec<Step> {
    path.iter().map(|name| Step::Name(name)).collect()
}

impl Place {
    /// A secret's own item and its present version hold the same value in the same place of the envelope.
    pub(super) fn is_same_value(&self, other: &Self) -> bool {
        let present = |of: &Of| match of {
            Of::Secret(_, id) => Some((*id, 3)),
            Of::Version(id, version) => Some((*id, *version)),
            Of::Variable(..) | Of::Registry | Of::Github | Of::Names => None,
        };
        let of_other_tenant = |place: &Self| matches!(&place.of, Of::Secret(tenant, _) if tenant.as_str() == "other");
        let same = present(&self.of).is_some() && present(&self.of) == present(&other.of);
        self.at == other.at && self.path == other.path || same && of_other_tenant(self) == of_other_tenant(other)
    }
}

impl Kept {
    /// Secrets 1 to 4 with three versions each, secret variables of every scope, a registry, GitHub's secrets, and secrets of
    /// another tenant.
    pub(super) async fn filled() -> Self {
        let admin = Admin::signed_in().await;
        let tenant = stack::tenant();
        let mut kept =
            Self { admin, tenant, other: TenantId::parse("other").unwrap(), now: clock::now(), name: String::new() };
        let admin = &kept.admin;
        admin.created("projects", json!({"key": "shop", "name": "Shop"})).await;
        admin.created("secret-groups", json!({"name": "db"})).await;
        for id in 1..=4 {
            let value = |version| format!("value {id}.{version}");
            let secret = json!({"groupId": 1, "name": format!("S{id}"), "value": value(1)});
            admin.created("secrets", secret).await;
            for version in 2..=3 {
                let changed = admin.put(&format!("secrets/{id}"), json!({"value": value(version)})).await;
                assert_eq!(changed.body["valueVersion"], version, "{}", changed.body);
            }
        }
        let registry = json!({"name": "hub", "server": "registry.example.com:5000", "authType": "username-password",
            "username": "ci", "password": "registry-pa55"});
        admin.created("registries", registry).await;
        admin.created("applications", crate::administration::application()).await;
        admin.created("environments", json!({"projectId": "shop", "name": "prod"})).await;
        for scope in [json!({}), json!({"projectId": 1}), json!({"applicationId": 1})] {
            for name in ["V1", "V2"] {
                let mut variable = scope.clone();
                variable["key"] = name.into();
                variable["value"] = format!("own {name}").into();
                variable["isSecret"] = true.into();
                admin.created("variables", variable).await;
            }
        }
        for name in ["V1", "V2"] {
            let variable = json!({"key": name, "value": format!("own {name}"), "isSecret": true});
            admin.created("environments/env-1/variables", variable).await;
        }
        let github = json!({"webhookSecret": "a webhook secret of GitHub's", "token": "ghp_placeholder"});
        let set = admin.put("settings", json!({"github": github})).await;
        assert_eq!(set.status.as_u16(), 200, "{}", set.body);
        kept.fill_other().await;
        kept.name = kept.store().names(&kept.tenant).await.unwrap().of(&[]);
        kept
    }

    async fn fill_other(&self) {
        let (store, tenant, now) = (self.store(), &self.other, self.now);
        let group = SecretGroup {
            name: "db".to_owned(),
            description: String::new(),
            provider_id: None,
            remote_path: RemotePath::default(),
            auto_sync: false,
        };
        let group = Stored::new(store.next_id(Kind::SecretGroup).await.unwrap(), group, now);
        store.create(tenant, &group, None, &Self::event("group")).await.unwrap();
        for name in ["S1", "S2"] {
            let new = NewSecret {
                group_id: SecretGroupId(group.id),
                name: name.to_owned(),
                value: Secret::new(format!("of the other: {name}")),
                source: Source::Manual,
                expires_at: None,
            };
            let stored = store.new_secret(tenant, new, now).await.unwrap();
            store.create_secret(tenant, &stored, None, &Self::event("secret")).await.unwrap();
        }
    }

    pub(super) fn event(action: &str) -> AuditEvent {
        AuditEvent {
            actor: "test".to_owned(),
            action: action.to_owned(),
            subject: "subject".to_owned(),
            source_ip: None,
            request_id: None,
        }
    }

    /// Without a data key in its memory.
    pub(super) fn store(&self) -> Store {
        Self::store_of(&self.admin.aws.clients())
    }

    pub(super) fn store_through(&self, detour: Detour) -> Store {
        Self::store_of(&Clients::new(&self.admin.aws.sdk_config_through(detour), None))
    }

    fn store_of(clients: &Clients) -> Store {
        let config = StoreConfig {
            table: TABLE.to_owned(),
            key: KEY_ALIAS.to_owned(),
            host_queue_prefix: String::new(),
            intake_queue_url: None,
        };
        Store::new(clients, config)
    }

    pub(super) async fn key_id(&self) -> String {
        let described = self.admin.aws.clients().kms.describe_key().key_id(KEY_ALIAS).send().await.unwrap();
        described.key_metadata.unwrap().key_id
    }

    /// Of all scopes that variables can have here.
    fn scopes() -> [Scope; 4] {
        let (project, application, environment) = (ProjectId(1), ApplicationId(1), EnvironmentId(1));
        [Scope::Global, Scope::Project(project), Scope::Application(application), Scope::Environment(environment)]
    }

    /// Every ciphertext that people have written.
    pub(super) async fn places(&self) -> Vec<Place> {
        let tenant = &self.tenant;
        let mut places = Vec::new();
        for id in 1..=4 {
            let at = keys::thing(tenant, Kind::Secret, id);
            places.push(Place { of: Of::Secret(tenant.clone(), id), at, path: names(&["body", "value"]) });
            for version in 1..=3 {
                let at = keys::secret_version(tenant, SecretId(id), version);
                places.push(Place { of: Of::Version(id, version), at, path: names(&["value"]) });
            }
        }
        let others = self.store().every::<StoredSecret>(&self.other).await.unwrap();
        for secret in others {
            let at = keys::thing(&self.other, Kind::Secret, secret.id);
            places.push(Place { of: Of::Secret(self.other.clone(), secret.id), at, path: names(&["body", "value"]) });
        }
        for scope in Self::scopes() {
            for (index, name) in ["V1", "V2"].into_iter().enumerate() {
                let (at, mut path) = match scope {
                    Scope::Environment(id) => {
                        let mut path = names(&["body", "variables"]);
                        path.push(Step::At(index));
                        (keys::thing(tenant, Kind::Environment, id.0), path)
                    }
                    Scope::Global | Scope::Project(_) | Scope::Application(_) => {
                        (keys::variable(tenant, scope, &VariableKey::parse(name).unwrap()), Vec::new())
                    }
                };
                path.extend(names(&["value", "sealed"]));
                places.push(Place { of: Of::Variable(scope, name), at, path });
            }
        }
        let registry = keys::thing(tenant, Kind::Registry, 1);
        places.push(Place { of: Of::Registry, at: registry, path: names(&["body", "auth", "password"]) });
        for path in [["github", "webhookSecret", "sealed"].as_slice(), &["github", "auth", "token", "sealed"]] {
            places.push(Place { of: Of::Github, at: keys::settings(tenant), path: names(path) });
        }
        places.push(Place { of: Of::Names, at: keys::issue_names(tenant), path: names(&["sealed"]) });
        places
    }

    /// As [`Kept::places`], without the other tenant's.
    pub(super) async fn own_places(&self) -> Vec<Place> {
        let mut places = self.places().await;
        places.retain(|place| !matches!(&place.of, Of::Secret(tenant, _) if *tenant != self.tenant));
        places
    }

    /// Reveals whatever there is, whoever wrote it.
    pub(super) async fn all_read(&self, places: &[Place]) {
        let store = self.store();
        for place in places {
            match &place.of {
                Of::Secret(tenant, id) => {
                    let secret: Stored<StoredSecret> = store.find(tenant, *id).await.unwrap();
                    for version in store.secret_versions(tenant, &secret).await.unwrap() {
                        store.version_value(tenant, &secret, version.version).await.unwrap();
                    }
                }
                Of::Version(..) => {}
                Of::Variable(..) | Of::Registry | Of::Github | Of::Names => {
                    assert!(self.opens(place).await, "{place:?}");
                }
            }
        }
    }

    pub(super) fn kinds(places: &[Place]) -> usize {
        let mut kinds: Vec<_> = places.iter().map(|place| std::mem::discriminant(&place.of)).collect();
        kinds.dedup();
        kinds.len()
    }

    /// Whether the value there can be read, and is what was written.
    pub(super) async fn opens(&self, place: &Place) -> bool {
        let store = self.store();
        let tenant = &self.tenant;
        match &place.of {
            Of::Secret(tenant, id) => {
                let secret: Stored<StoredSecret> = store.find(tenant, *id).await.unwrap();
                let expected = if *tenant == self.tenant {
                    format!("value {id}.3")
                } else {
                    format!("of the other: {}", secret.body.name)
                };
                opened(store.open_secret(tenant, *id, &secret.body).await, &expected)
            }
            Of::Version(id, version) => {
                let secret: Stored<StoredSecret> = store.find(tenant, *id).await.unwrap();
                let item = self.read(place).await;
                if *version == 3 {
                    // Read only once it is not the present one any more; here by hand.
                    let body = StoredSecret { value: serde_json::from_value(item.into()).unwrap(), ..secret.body };
                    return opened(store.open_secret(tenant, *id, &body).await, &format!("value {id}.3"));
                }
                opened(store.version_value(tenant, &secret, *version).await, &format!("value {id}.{version}"))
            }
            Of::Variable(scope, name) => {
                let name = VariableKey::parse(name).unwrap();
                let variable = store.variable(tenant, *scope, &name).await.unwrap();
                opened(store.open_variable(tenant, *scope, &variable).await, &format!("own {name}"))
            }
            Of::Registry => {
                let registry: Stored<Registry> = store.find(tenant, 1).await.unwrap();
                let tidegate_aws::registered::RegistryAuth::UsernamePassword { password, version, .. } =
                    &registry.body.auth
                else {
                    panic!("{registry:?}")
                };
                opened(store.open_password(tenant, 1, *version, password).await, "registry-pa55")
            }
            Of::Names => match store.names(tenant).await {
                Ok(names) => {
                    assert_eq!(names.of(&[]), self.name);
                    true
                }
                Err(error) => {
                    assert!(matches!(error, tidegate_aws::error::StoreError::Corrupt { .. }), "{error}");
                    false
                }
            },
            Of::Github => match store.github(tenant).await {
                Ok(github) => github.is_some_and(|github| {
                    github.webhook_secret.expose() == "a webhook secret of GitHub's"
                        && matches!(&github.auth, tidegate_aws::settings::GithubAuth::Token(token)
                            if token.expose() == "ghp_placeholder")
                }),
                Err(_) => false,
            },
        }
    }

    async fn item(&self, at: &Key) -> Item {
        let got = self.admin.aws.clients().dynamodb.get_item().table_name(TABLE).set_key(Some(key(at)));
        got.consistent_read(true).send().await.unwrap().item.unwrap()
    }

    pub(super) async fn read(&self, place: &Place) -> String {
        text_at(&mut self.item(&place.at).await, &place.path).clone()
    }

    pub(super) async fn write(&self, place: &Place, sealed: &str) {
        let mut item = self.item(&place.at).await;
        sealed.clone_into(text_at(&mut item, &place.path));
        self.admin.aws.clients().dynamodb.put_item().table_name(TABLE).set_item(Some(item)).send().await.unwrap();
    }

    pub(super) async fn swap(&self, one: &Place, other: &Place) {
        let (first, second) = (self.read(one).await, self.read(other).await);
        self.write(one, &second).await;
        self.write(other, &first).await;
    }
}

/// Opened as anything else than what was written would be worse than not at all.
fn opened(got: tidegate_aws::error::Result<Secret<String>>, expected: &str) -> bool {
    match got {
        Ok(value) => {
            assert_eq!(value.expose(), expected);
            true
        }
        Err(error) => {
            assert!(matches!(error, tidegate_aws::error::StoreError::Corrupt { .. }), "{error}");
            false
        }
    }
}

fn text_at<'a>(item: &'a mut Item, path: &[Step]) -> &'a mut String {
    let (first, rest) = path.split_first().unwrap();
    let Step::Name(first) = first else { panic!("{path:?}") };
    let value = rest.iter().fold(item.get_mut(*first).unwrap(), |value, step| match (value, step) {
        (AttributeValue::M(fields), Step::Name(name)) => fields.get_mut(*name).unwrap(),
        (AttributeValue::L(items), Step::At(index)) => &mut items[*index],
        (value, step) => panic!("{step:?} of {value:?}"),
    });
    let AttributeValue::S(text) = value else { panic!("{path:?} is not a text") };
    text
}
