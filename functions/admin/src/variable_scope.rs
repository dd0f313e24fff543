//! A scope as a request names it: the word may be left out where an id says it.

use tidegate_aws::store::Store;
use tidegate_domain::{
    id::{ApplicationId, EnvironmentId, TenantId},
    invalid::Invalid,
    variable::Scope,
};
use tidegate_web::{
    Problem,
    form::{Form, FromField},
};

use crate::projects::ProjectRef;

pub(crate) struct ScopeFields {
    word: Option<String>,
    project: Option<ProjectRef>,
    environment: Option<EnvironmentId>,
    application: Option<ApplicationId>,
}

impl ScopeFields {
    pub(crate) fn read<N: FromField>(form: &mut Form, number: fn(N) -> Result<u64, Invalid>) -> Self {
        let word = form.nullable("scope", None, |text: String| {
            if matches!(text.as_str(), "global" | "project" | "environment" | "application") {
                return Ok(text);
            }
            Err(Invalid::new("unknown-value", "is not a scope", "use global, project, environment or application"))
        });
        let project = form.nullable("projectId", None, Ok);
        let environment = form.nullable("envId", None, |text: String| EnvironmentId::parse(&text));
        let application = form.nullable("applicationId", None, |n: N| number(n).map(ApplicationId));
        let fields = Self { word, project, environment, application };
        fields.check(form);
        fields
    }

    /// One id, and that of the word.
    fn check(&self, form: &mut Form) {
        let missing = || Invalid::new("missing", "is required by the scope", "send the id that the scope is of");
        let surplus = || Invalid::new("not-of-scope", "does not go with the scope", "leave it out");
        let ids = [
            ("project", "projectId", self.project.is_some()),
            ("environment", "envId", self.environment.is_some()),
            ("application", "applicationId", self.application.is_some()),
        ];
        let mut is_named = false;
        for (word, field, is_there) in ids {
            let is_meant = self.word.as_deref().is_none_or(|of| of == word);
            if is_there && (!is_meant || is_named) {
                form.refuse(field, surplus());
            } else if !is_there && self.word.as_deref() == Some(word) {
                form.refuse(field, missing());
            }
            is_named |= is_there;
        }
    }

    /// As [`ScopeFields::resolve`], of a scope that is only read: 404 where it is of nothing. An environment is looked for
    /// where it is read.
    pub(crate) async fn resolve_present(self, store: &Store, tenant: &TenantId) -> Result<Scope, Problem> {
        let scope = self.resolve(store, tenant).await?;
        let what = match scope {
            Scope::Global | Scope::Environment(_) => return Ok(scope),
            Scope::Project(_) => "The project",
            Scope::Application(_) => "The application",
        };
        if store.is_there(tenant, scope).await? { Ok(scope) } else { Err(Problem::not_found(what)) }
    }

    pub(crate) async fn resolve(self, store: &Store, tenant: &TenantId) -> Result<Scope, Problem> {
        Ok(match (self.application, self.environment, self.project) {
            (Some(id), _, _) => Scope::Application(id),
            (None, Some(id), _) => Scope::Environment(id),
            (None, None, Some(project)) => Scope::Project(project.of_field(store, tenant).await?),
            (None, None, None) => Scope::Global,
        })
    }
}
