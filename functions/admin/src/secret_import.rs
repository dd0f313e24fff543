//! A secret group imported as variables.

use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tidegate_aws::{
    error::StoreError,
    idempotency::FirstAnswer,
    registered::RegisteredApplication,
    secret_import::{Import, Imported, ImportedSecret},
    store::Store,
};
use tidegate_domain::{
    id::{ApplicationId, EnvironmentId, SecretGroupId, SecretId, TenantId},
    invalid::Invalid,
    variable::Scope,
};
use tidegate_web::{
    Problem,
    auth::Write,
    body::JsonBody,
    form::Form,
    idempotency::{self, IdempotencyKey},
    problem::reference_missing,
};

use crate::{
    AdminState,
    call::{Call, first_answer},
    projects::ProjectRef,
    secret_groups::find,
};

/// A kept answer is one item of the table, sealed. A larger one is not kept: the same import again changes nothing anyway.
const LARGEST_KEPT_BYTES: usize = 200 * 1024;

/// Where to, as a request names it.
enum Target {
    Project(ProjectRef),
    Application(ApplicationId),
    Environment(EnvironmentId),
}

struct Asked {
    target: Target,
    overwrite: bool,
}

fn read(mut form: Form) -> Result<Asked, Problem> {
    let project = form.nullable("projectId", None, Ok);
    let application = form.nullable("applicationId", None, |id: u64| Ok(ApplicationId(id)));
    let environment = form.nullable("envId", None, |text: String| EnvironmentId::parse(&text));
    let overwrite = form.defaulted("overwrite", false, Ok);
    let target = match (project, application, environment) {
        (Some(project), None, None) => Some(Target::Project(project)),
        (None, Some(application), None) => Some(Target::Application(application)),
        (None, None, Some(environment)) => Some(Target::Environment(environment)),
        (None, None, None) if form.faults() > 0 => None,
        (None, None, None) => {
            let hint = "send one of projectId, applicationId and envId";
            form.refuse("projectId", Invalid::new("missing", "is required, or another target", hint));
            None
        }
        _ => {
            let why = "names more than one target";
            form.refuse("projectId", Invalid::new("one-target", why, "send one of projectId, applicationId and envId"));
            None
        }
    };
    form.finish(|| Some(Asked { target: target?, overwrite }))
}

impl Target {
    async fn scope(&self, store: &Store, tenant: &TenantId) -> Result<Scope, Problem> {
        let unknown = |field: &'static str| Problem::validation_failed(vec![reference_missing().at(field)]);
        Ok(match self {
            Self::Project(project) => match project.find(store, tenant).await {
                Ok(found) => Scope::Project(found.id.into()),
                Err(StoreError::Missing) => return Err(unknown("projectId")),
                Err(other) => return Err(other.into()),
            },
            Self::Application(id) => {
                if store.find_many::<RegisteredApplication>(tenant, &[id.0]).await?.is_empty() {
                    return Err(unknown("applicationId"));
                }
                Scope::Application(*id)
            }
            // Looked for by whoever writes it.
            Self::Environment(id) => Scope::Environment(*id),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    /// Nothing is left to be imported.
    success: bool,
    imported: usize,
    skipped: usize,
    /// For which the time was too short: import again.
    left: usize,
    secrets: Vec<SecretView>,
}

#[derive(Serialize)]
struct SecretView {
    id: SecretId,
    name: String,
    result: &'static str,
    /// Why it was skipped.
    reason: Option<String>,
}

impl From<ImportedSecret> for SecretView {
    fn from(secret: ImportedSecret) -> Self {
        let ImportedSecret { id, name, result } = secret;
        let (result, reason) = match result {
            Imported::Created => ("imported", None),
            Imported::Overwritten => ("overwritten", None),
            Imported::Unchanged => ("skipped", Some("the variable refers to this secret already".to_owned())),
            Imported::Exists => (
                "skipped",
                Some("there is another variable of this name; import with overwrite to replace it".to_owned()),
            ),
            Imported::NotAKey(invalid) => ("skipped", Some(format!("the name {invalid}"))),
            Imported::Gone => ("skipped", Some("the secret was deleted, renamed or moved meanwhile".to_owned())),
            Imported::Left => ("left", Some("the time was over; import again".to_owned())),
        };
        Self { id, name, result, reason }
    }
}

pub(crate) async fn import(
    State(state): State<AdminState>,
    call: Call<Write>,
    key: IdempotencyKey,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    if let Some(key) = &key
        && let Some(first) = store.first_answer(tenant, key, call.now).await?
    {
        return Ok(idempotency::replay(&first));
    }
    let Asked { target, overwrite } = read(Form::of_body(body.value)?)?;
    let group = find(&state, tenant, &id).await?;
    let scope = target.scope(store, tenant).await?;
    let import = Import { group: SecretGroupId(group.id), scope, overwrite };
    let event = |action: &str, subject: String| call.event(action, subject);
    let secrets = store.import_group(tenant, import, call.now, event).await?;
    let secrets: Vec<_> = secrets.into_iter().map(SecretView::from).collect();
    let count = |results: &[&str]| secrets.iter().filter(|secret| results.contains(&secret.result)).count();
    let (imported, skipped, left) = (count(&["imported", "overwritten"]), count(&["skipped"]), count(&["left"]));
    let view = View { success: left == 0, imported, skipped, left, secrets };
    let answer = FirstAnswer { status: StatusCode::OK.as_u16(), ..first_answer(&view) };
    // What is left is for the same request to do.
    if let Some(key) = key.filter(|_| left == 0 && answer.body.expose().len() <= LARGEST_KEPT_BYTES) {
        store.keep_first_answer(tenant, &key, &answer, call.now).await?;
    }
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], answer.body.expose().clone()).into_response())
}
