//! What a configuration is made from, as hashes over names and revisions: enough to tell whether it would come out otherwise
//! now, without opening a secret.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use tidegate_domain::{
    application::Application,
    deployment::Sources,
    id::SecretId,
    variable::{Scope, VariableKey},
};

use crate::{applications::sha256_hex, variables::StoredVariable};

/// Of the stored variables, from the strongest layer to the weakest, those that a configuration is made from: what no
/// stronger layer hides, the `request` being the strongest, and what of the environment is hidden and used all the same.
pub(crate) fn used<'a>(
    stored: &'a [(Scope, StoredVariable)],
    request: &[VariableKey],
    of_environment: &[VariableKey],
) -> Vec<&'a (Scope, StoredVariable)> {
    let mut taken: BTreeSet<VariableKey> = request.iter().cloned().collect();
    let also: BTreeSet<&VariableKey> = of_environment.iter().collect();
    let is_used = |entry: &&'a (Scope, StoredVariable)| {
        let (scope, variable) = entry;
        taken.insert(variable.key.clone()) || matches!(scope, Scope::Environment(_)) && also.contains(&variable.key)
    };
    stored.iter().filter(is_used).collect()
}

/// `versions` of the secrets that `used` variables refer to, of those that exist.
pub(crate) fn sources(
    application: &Application,
    used: &[&(Scope, StoredVariable)],
    versions: &BTreeMap<SecretId, u64>,
    request: Vec<VariableKey>,
    environment: Vec<VariableKey>,
) -> Sources {
    // A variable that was deleted and made anew begins again at its first revision, but not at its first time.
    let mut variables: Vec<String> = used
        .iter()
        .map(|(scope, v)| format!("{} {} {} {} {}", scope.name(), scope.id(), v.key, v.revision, v.created_at))
        .collect();
    variables.sort();
    let referred: BTreeSet<SecretId> = used.iter().filter_map(|(_, variable)| variable.secret_id()).collect();
    let secrets: Vec<String> = referred.iter().filter_map(|id| Some(format!("{id} {}", versions.get(id)?))).collect();
    Sources {
        settings: settings(application),
        variables: sha256_hex(variables.join("\n").as_bytes()),
        secrets: sha256_hex(secrets.join("\n").as_bytes()),
        request,
        environment,
    }
}

/// What the containers are made from, and on which hosts. Left out is what only decides who may deploy them, and how one
/// takes the other's place.
pub(crate) fn settings(application: &Application) -> String {
    let defaults: Vec<_> = application.parameters.iter().map(|p| (&p.name, &p.default, p.sensitive)).collect();
    let settings = json!({
        "name": application.name,
        "image": application.image,
        "ports": application.ports,
        "hosts": application.hosts,
        "parameters": defaults,
        "healthCheck": application.health_check,
        "container": application.container,
    });
    sha256_hex(settings.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tidegate_domain::{
        id::{ApplicationId, EnvironmentId, ProjectId, Revision},
        variable::ValueType,
    };

    use super::*;
    use crate::variables::StoredValue;

    fn key(text: &str) -> VariableKey {
        VariableKey::parse(text).unwrap()
    }

    fn stored(scope: Scope, name: &str) -> (Scope, StoredVariable) {
        let at = Timestamp::UNIX_EPOCH;
        let variable = StoredVariable {
            key: key(name),
            value_type: ValueType::String,
            value: StoredValue::Plain { text: String::new() },
            revision: Revision(1),
            created_at: at,
            updated_at: at,
        };
        (scope, variable)
    }

    #[test]
    fn only_what_a_configuration_is_made_from_counts() {
        let (application, environment) = (Scope::Application(ApplicationId(1)), Scope::Environment(EnvironmentId(1)));
        let all = [
            stored(application, "A"),
            stored(application, "B"),
            stored(environment, "A"),
            stored(environment, "B"),
            stored(environment, "C"),
            stored(Scope::Project(ProjectId(1)), "C"),
            stored(Scope::Global, "B"),
            stored(Scope::Global, "D"),
            stored(Scope::Global, "E"),
        ];
        let used: Vec<_> =
            used(&all, &[key("E")], &[key("B")]).into_iter().map(|(s, v)| (s.name(), v.key.as_str())).collect();
        let expect =
            [("application", "A"), ("application", "B"), ("environment", "B"), ("environment", "C"), ("global", "D")];
        assert_eq!(used, expect);
    }
}
