//! Registries, and secrets with their groups.

use super::{Dump, Fate, PlannedAuth, Planner, Step, Stored, group_label, registry_label};
use crate::import_v1::{
    decisions::{RegistryDecision, SecretDecision},
    dump::{Auth, Registry, V1Secret},
};

impl Planner<'_> {
    pub(super) fn registries(&mut self, dump: &mut Dump) {
        for registry in &mut dump.registries {
            let fate = self.registry(registry);
            self.registry_fates.insert(registry.name.clone(), fate);
        }
    }

    fn registry(&mut self, registry: &mut Registry) -> Fate {
        let label = registry_label(&registry.name);
        let decision = self.decisions.registries.get(&registry.name);
        if let Some(RegistryDecision::Skip) = decision {
            self.skip(label);
            return Fate::Skipped;
        }
        let auth = std::mem::replace(&mut registry.auth, Auth::None);
        if let Some(found) = self.existing.registries.iter().find(|found| found.name == registry.name) {
            let (kind, username) = match &auth {
                Auth::None => ("none", None),
                Auth::UsernamePassword { username, .. } => ("username-password", Some(username)),
                Auth::Token { username, .. } => ("token", username.as_ref()),
            };
            let same_user = username.is_none_or(|username| found.username.as_ref() == Some(username));
            if found.server == registry.server.as_str() && found.auth_type == kind && same_user {
                self.plan.present.push(label);
                return Fate::There(());
            }
            let suggestion = "rename one of them, or skip this one in `registries` and use the other";
            self.ask(label, "differs", "is there with another server, user or way to sign in", suggestion);
            return Fate::Undecided;
        }
        let Some(auth) = self.auth(&label, decision, auth) else { return Fate::Undecided };
        let (name, server) = (registry.name.clone(), registry.server.clone());
        self.plan.steps.push(Step::Registry { name, server, auth });
        Fate::There(())
    }

    fn auth(&mut self, label: &str, decision: Option<&RegistryDecision>, auth: Auth) -> Option<PlannedAuth> {
        let mut password = |stored: Option<Stored>| match (decision, stored) {
            (Some(RegistryDecision::PasswordFromEnv(name)), _) => self.value_of_variable(label, name),
            (_, Some(stored)) => self.value(label, stored),
            (_, None) => {
                let suggestion = "say in `registries` passwordFromEnv, or \"skip\"";
                self.ask(label.to_owned(), "no-password", "signs in without a password in the file", suggestion);
                None
            }
        };
        Some(match auth {
            Auth::None => PlannedAuth::None,
            Auth::UsernamePassword { username, password: stored } => {
                PlannedAuth::UsernamePassword { username, password: password(stored)? }
            }
            Auth::Token { username, token } => PlannedAuth::Token { username, token: password(token)? },
        })
    }

    pub(super) fn secrets(&mut self, dump: &mut Dump) {
        let mut secrets = std::mem::take(&mut dump.secrets);
        for secret in &mut secrets {
            let fate = self.secret(secret, dump);
            self.secret_fates.insert(secret.label(), fate);
        }
        dump.secrets = secrets;
    }

    fn secret(&mut self, secret: &mut V1Secret, dump: &Dump) -> Fate<(String, String)> {
        let group = secret.group.clone().unwrap_or_else(|| self.decisions.group.clone());
        let (name, label) = (secret.name.clone(), format!("secret {}", secret.label()));
        let from_env = match self.decisions.secrets.get(&secret.label()) {
            Some(SecretDecision::Skip) => {
                self.skip(label);
                return Fate::Skipped;
            }
            Some(SecretDecision::Secret { group, name }) => {
                if self.existing.secret(group, name).is_some() {
                    self.plan.present.push(format!("{label} (as {group}/{name})"));
                    return Fate::There((group.clone(), name.clone()));
                }
                let suggestion = "create it, or set up its provider and sync, and run the import again";
                self.ask(label, "unknown-secret", "is to be one that the installation does not have", suggestion);
                return Fate::Undecided;
            }
            Some(SecretDecision::ValueFromEnv(variable)) => Some(variable),
            None => None,
        };
        if self.existing.secret(&group, &name).is_some() {
            self.plan.present.push(label);
            return Fate::There((group, name));
        }
        let value = match (from_env, secret.value.take()) {
            (Some(variable), _) => self.value_of_variable(&label, variable),
            (None, Some(stored)) => self.value(&label, stored),
            (None, None) => {
                let suggestion =
                    "say in `secrets` valueFromEnv, the secret of a provider's group that takes its place, or \"skip\"";
                self.ask(label, "no-value", "has a reference and no value", suggestion);
                return Fate::Undecided;
            }
        };
        let Some(value) = value else { return Fate::Undecided };
        self.need_group(&group, dump);
        self.plan.steps.push(Step::Secret { group: group.clone(), name: name.clone(), value });
        Fate::There((group, name))
    }

    fn need_group(&mut self, name: &str, dump: &Dump) {
        if self.groups.contains_key(name) {
            return;
        }
        if self.existing.groups.contains_key(name) {
            if !self.plan.present.contains(&group_label(name)) {
                self.plan.present.push(group_label(name));
            }
            return;
        }
        let written = dump.groups.iter().find(|group| group.name == name).map(|group| group.description.clone());
        let description = written.unwrap_or_else(|| "Imported from V1".to_owned());
        self.groups.insert(name.to_owned(), Step::Group { name: name.to_owned(), description });
    }
}
