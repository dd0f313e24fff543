//! Performs the plan, one creation after the other.

use std::{collections::BTreeMap, io::Write};

use serde_json::{Value, json};
use tidegate_domain::{
    application::ContainerName,
    id::{ApplicationId, RegistryId, SecretGroupId},
    import_v1::{Existing, PlannedAuth, PlannedScope, PlannedValue, Step},
};

use super::{
    ImportError,
    api::{Api, Created, new_key},
    report,
    tokens::Tokens,
};

/// Ids of what others refer to, by name.
struct Ids {
    registries: BTreeMap<String, RegistryId>,
    groups: BTreeMap<String, SecretGroupId>,
    applications: BTreeMap<String, ApplicationId>,
}

/// What is to be deployed first, and under which id.
pub(super) struct First {
    pub(super) application: ContainerName,
    pub(super) id: u64,
    pub(super) version: Option<String>,
}

/// How many steps were refused. One that another refers to takes that one with it.
///
/// # Errors
/// Where it makes no sense to go on: no answer, no right, no place for tokens.
pub(super) async fn all(
    out: &mut (impl Write + Send),
    api: &mut Api,
    existing: &Existing,
    steps: Vec<Step>,
    mut tokens: Option<Tokens>,
) -> Result<usize, ImportError> {
    let mut ids = Ids {
        registries: existing.registries.iter().map(|found| (found.name.clone(), found.id)).collect(),
        groups: existing.groups.clone(),
        applications: existing.applications.iter().map(|found| (found.name.clone(), found.id)).collect(),
    };
    let mut first = Vec::new();
    let mut refused = 0;
    for step in steps {
        let label = step.label();
        let Some((resource, body)) = call_of(&step, &ids) else {
            refused += 1;
            report::refused(out, &label, "what it refers to was refused")?;
            continue;
        };
        let created = match (&step, &mut tokens) {
            (Step::Application { .. }, Some(tokens)) => tokens.create(api, &body).await?,
            _ => api.create(resource, &new_key(), &body).await?,
        };
        match created {
            Created::Refused(why) => {
                refused += 1;
                report::refused(out, &label, &why)?;
            }
            Created::Yes { body, .. } => {
                let id = body["id"].as_u64().unwrap_or_default();
                report::created(out, &label)?;
                if let (Step::Application { .. }, None) = (&step, &tokens) {
                    report::token(out, body["webhookToken"].as_str().unwrap_or_default())?;
                }
                learn(step, id, &mut ids, &mut first);
            }
        }
    }
    report::next(out, &first)?;
    Ok(refused)
}

fn learn(step: Step, id: u64, ids: &mut Ids, first: &mut Vec<First>) {
    match step {
        Step::Registry { name, .. } => {
            ids.registries.insert(name, RegistryId(id));
        }
        Step::Group { name, .. } => {
            ids.groups.insert(name, SecretGroupId(id));
        }
        Step::Application { name, version, .. } => {
            ids.applications.insert(name.as_str().to_owned(), ApplicationId(id));
            first.push(First { application: name, id, version: version.map(|version| version.to_string()) });
        }
        Step::Project { .. } | Step::Secret { .. } | Step::Variable { .. } => {}
    }
}

/// What is posted where; none if it refers to something that is not there.
fn call_of(step: &Step, ids: &Ids) -> Option<(&'static str, Value)> {
    Some(match step {
        Step::Project { key, name } => ("projects", json!({ "key": key, "name": name })),
        Step::Registry { name, server, auth } => {
            let mut body = json!({ "name": name, "server": server.as_str() });
            let (auth_type, username, password) = match auth {
                PlannedAuth::None => ("none", None, None),
                PlannedAuth::UsernamePassword { username, password } => {
                    ("username-password", Some(username), Some(password))
                }
                PlannedAuth::Token { username, token } => ("token", username.as_ref(), Some(token)),
            };
            body["authType"] = auth_type.into();
            if let Some(username) = username {
                body["username"] = username.as_str().into();
            }
            if let Some(password) = password {
                body["password"] = password.expose().as_str().into();
            }
            ("registries", body)
        }
        Step::Group { name, description } => ("secret-groups", json!({ "name": name, "description": description })),
        Step::Secret { group, name, value } => {
            ("secrets", json!({ "groupId": ids.groups.get(group)?, "name": name, "value": value.expose() }))
        }
        Step::Application { project, name, image, registry, ports, hosts, webhook_enabled, version: _ } => {
            let registry = match registry {
                Some(name) => Some(ids.registries.get(name)?),
                None => None,
            };
            let body = json!({
                "projectId": project,
                "name": name,
                "image": image,
                "registryId": registry,
                "ports": ports,
                "hosts": { "names": hosts },
                "webhook": { "enabled": webhook_enabled },
                // The container of that name that V1 started gives way, and comes back if its successor fails.
                "adopt": true,
            });
            ("applications", body)
        }
        Step::Variable { scope, key, value } => {
            let mut body = json!({ "key": key });
            match scope {
                PlannedScope::Global => body["scope"] = "global".into(),
                PlannedScope::Project(project) => body["projectId"] = project.as_str().into(),
                PlannedScope::Application(name) => {
                    body["applicationId"] = json!(ids.applications.get(name.as_str())?);
                }
            }
            match value {
                PlannedValue::Text { text, value_type, is_secret, .. } => {
                    body["value"] = text.expose().as_str().into();
                    body["valueType"] = json!(value_type);
                    body["isSecret"] = json!(is_secret);
                }
                PlannedValue::Reference { group, name } => {
                    body["value"] = format!("@secret:{group}/{name}").into();
                    body["valueType"] = "secret_ref".into();
                }
            }
            ("variables", body)
        }
    })
}
