//! Variables: each to where its row belongs, as what its value is.

use super::{
    Decisions, Dump, Fate, Invalid, LeftOut, PlannedScope, PlannedValue, Planner, Secret, Step, Stored, VariableKey,
    application_label, check_value, variable_label, variable_name,
};
use crate::import_v1::{
    credential,
    dump::{Variable, VariableScope, VariableValue, project_key as valid_key},
    existing::ExistingVariable,
};

/// The key of a project that rows call so, by id or by name.
pub(super) fn project_key(dump: &Dump, decisions: &Decisions, id: &str) -> Option<String> {
    let named = || {
        let of_file = dump.projects.iter().find(|p| p.id.as_deref() == Some(id) || p.name == id || p.key == id);
        of_file.map(|project| project.key.clone())
    };
    // V1 knows projects by their names alone where it has no table of them.
    let bare = || valid_key(id).ok().filter(|_| dump.projects.is_empty());
    decisions.projects.get(id).cloned().or_else(named).or_else(bare)
}

/// Whose variable it is. V2's queries take the application's id for the project's (seed, "build the environment"); so a
/// number that no project has is looked for among the applications.
pub(in super::super) fn scope_of(dump: &Dump, decisions: &Decisions, scope: &VariableScope) -> Option<PlannedScope> {
    let application = |wanted: &dyn Fn(&super::super::dump::Application) -> bool| {
        let found = dump.applications.iter().find(|application| wanted(application));
        found.map(|application| PlannedScope::Application(application.name.clone()))
    };
    let by_id = |id: &str| application(&|application| application.id.as_deref() == Some(id));
    match scope {
        VariableScope::Global => Some(PlannedScope::Global),
        VariableScope::Application(name) => application(&|application| application.name == *name),
        VariableScope::ApplicationId(id) => by_id(id),
        VariableScope::Project(id) => {
            let said = decisions.projects.contains_key(id) || !dump.projects.is_empty();
            let of_file = || project_key(dump, decisions, id).map(PlannedScope::Project);
            if said {
                return of_file();
            }
            by_id(id).or_else(|| application(&|application| application.name.as_str() == id)).or_else(of_file)
        }
    }
}

impl Planner<'_> {
    pub(super) fn variables(&mut self, dump: &mut Dump) {
        for variable in std::mem::take(&mut dump.variables) {
            if let Some(scope) = scope_of(dump, self.decisions, &variable.scope) {
                self.variable(scope, variable, dump);
            } else {
                let message = "is of a project or application that the file does not have";
                let suggestion = "say in `projects` which project's key it gets, or ignore its row";
                self.ask(format!("variable {}", variable.label()), "unknown-project", message, suggestion);
            }
        }
    }

    fn variable(&mut self, scope: PlannedScope, variable: Variable, dump: &Dump) {
        let Variable { key, value, .. } = variable;
        let label = variable_label(&scope, &key);
        if self.decisions.variables.contains(&variable_name(&scope, &key)) {
            return self.skip(label);
        }
        let stored = match &scope {
            PlannedScope::Global => Some(crate::variable::Scope::Global),
            PlannedScope::Project(project) => self.existing.project(project).map(crate::variable::Scope::Project),
            PlannedScope::Application(name) => match self.application_fates.get(name) {
                Some(Fate::There(())) => {
                    let found = self.existing.application(name.as_str());
                    found.map(|application| crate::variable::Scope::Application(application.id))
                }
                Some(Fate::Skipped) => {
                    return self.plan.left_out.push(LeftOut::new(label, "its application is left out"));
                }
                Some(Fate::Undecided) | None => return self.waits(&label, &application_label(name)),
            },
        };
        let Some(value) = self.planned(&label, &key, value, dump) else { return };
        let found = stored.and_then(|stored| self.existing.variable(stored, key.as_str()));
        match found.map(|found| self.difference(found, &value)) {
            None => {
                if let PlannedScope::Project(project) = &scope {
                    self.need_project(project, dump);
                }
                self.plan.steps.push(Step::Variable { scope, key, value });
            }
            Some(None) => self.plan.present.push(label),
            Some(Some(why)) => self.plan.questions.push(why.at(label)),
        }
    }

    fn planned(&mut self, label: &str, key: &VariableKey, value: VariableValue, dump: &Dump) -> Option<PlannedValue> {
        match value {
            VariableValue::Reference(id) => {
                let secret = dump.secrets.iter().find(|secret| secret.id.as_ref() == Some(&id));
                let fate = secret.and_then(|secret| self.secret_fates.get(&secret.label()));
                match fate.cloned() {
                    Some(Fate::There((group, name))) => return Some(PlannedValue::Reference { group, name }),
                    Some(Fate::Undecided) => {
                        let other = secret.map(super::super::dump::V1Secret::label).unwrap_or_default();
                        self.waits(label, &format!("secret {other}"));
                    }
                    Some(Fate::Skipped) | None => {
                        let suggestion = "import the secret, or skip the variable in `variables`";
                        self.ask(label.to_owned(), "no-secret", "refers to a secret that is not imported", suggestion);
                    }
                }
                None
            }
            VariableValue::Text { text, value_type, is_secret } => {
                let was_plain = matches!(text, Stored::Plain(_));
                let text = self.value(label, text)?;
                if let Err(why) = check_value(value_type, text.expose()) {
                    self.plan.questions.push(why.at(label));
                    return None;
                }
                let plain = self.decisions.plain.contains(key.as_str());
                let looks = !is_secret && !plain && credential::looks_like_one(key.as_str(), text.expose());
                Some(PlannedValue::Text {
                    text: literal(&text),
                    value_type,
                    is_secret: is_secret || looks || !was_plain,
                    looks_like_a_credential: looks && was_plain,
                })
            }
        }
    }

    /// Why what is there is not what the file says; it is never overwritten. The value of a secret one cannot be seen, and
    /// so cannot differ.
    fn difference(&self, found: &ExistingVariable, wanted: &PlannedValue) -> Option<Invalid> {
        let differs = |what: &str| {
            let suggestion = "correct it with the API, or skip it in `variables`: what is there stays as it is";
            Some(Invalid::new("differs", format!("is there {what}"), suggestion))
        };
        match wanted {
            PlannedValue::Reference { group, name } => {
                let secret = self.existing.secret(group, name);
                let same = secret.is_some() && found.secret == secret;
                if same { None } else { differs("and does not refer to that secret") }
            }
            PlannedValue::Text { .. } if found.secret.is_some() => differs("and refers to a secret"),
            PlannedValue::Text { .. } if found.is_secret => None,
            PlannedValue::Text { text, value_type, is_secret, .. } => {
                let same = found.value.expose() == text.expose() && found.value_type == *value_type;
                match (same, is_secret) {
                    (true, false) => None,
                    (true, true) => differs("for everybody to read, and looks like a credential"),
                    (false, _) => differs("with another value"),
                }
            }
        }
    }
}

/// V1 knew neither references nor interpolation in a plain value: what looks like one is meant as it stands.
fn literal(text: &Secret<String>) -> Secret<String> {
    let text = text.expose();
    let escaped = if text.starts_with("@secret:") { format!("@{text}") } else { text.clone() };
    Secret::new(escaped.replace("{{", "{{{{"))
}
