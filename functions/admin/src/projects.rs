//! Projects: what groups applications.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use serde_json::Value;
use tidegate_aws::{
    catalogue::{PageRequest, Stored},
    environments::Deletion,
    error::StoreError,
    keys::Kind,
    registered::{Project, RegisteredApplication},
    store::Store,
};
use tidegate_domain::{
    id::{EnvironmentId, ProjectId, TenantId},
    invalid::Invalid,
    variable::Scope,
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::Conditions,
    form::{Form, FromField, line},
    page::Page,
    problem::reference_missing,
};

use crate::{
    AdminState,
    call::{
        Call, Creation, Race, Stamps, answer_change, answer_creation, first_answer, missing, page, page_of, take_stamps,
    },
    environment_form::truth,
};

const WHAT: &str = "The project";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    id: u64,
    key: String,
    name: String,
    description: String,
    #[serde(flatten)]
    stamps: Stamps,
}

impl From<Stored<Project>> for View {
    fn from(stored: Stored<Project>) -> Self {
        let stamps = Stamps::from(&stored);
        let Project { key, name, description } = stored.body;
        Self { id: stored.id, key, name, description, stamps }
    }
}

/// How callers name a project: by its id, or by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProjectRef {
    Id(ProjectId),
    Key(String),
}

impl ProjectRef {
    /// Keys begin with a letter, so digits are an id.
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        match text.parse() {
            Ok(id) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Self::Id(ProjectId(id))),
            _ => parse_key(text).map(Self::Key),
        }
    }

    /// The id, if there is such a project. An id is taken at its word: whoever writes checks it in the same transaction.
    pub(crate) async fn resolve(&self, store: &Store, tenant: &TenantId) -> Result<Option<ProjectId>, StoreError> {
        match self {
            Self::Id(id) => Ok(Some(*id)),
            Self::Key(key) => Ok(store.id_by_name(tenant, Kind::Project.name(), key).await?.map(ProjectId)),
        }
    }

    /// The project itself.
    pub(crate) async fn find(&self, store: &Store, tenant: &TenantId) -> Result<Stored<Project>, StoreError> {
        let id = self.resolve(store, tenant).await?.ok_or(StoreError::Missing)?;
        store.find(tenant, id.0).await
    }

    /// As [`ProjectRef::resolve`], for a field of a request.
    pub(crate) async fn of_field(&self, store: &Store, tenant: &TenantId) -> Result<ProjectId, Problem> {
        let found = self.resolve(store, tenant).await?;
        found.ok_or_else(|| Problem::validation_failed(vec![reference_missing().at("projectId")]))
    }
}

/// What is of a project stays in it, whichever way that is named.
pub(crate) async fn take_project(
    form: &mut Form,
    store: &Store,
    tenant: &TenantId,
    of: ProjectId,
) -> Result<(), Problem> {
    if !form.has("projectId") {
        return Ok(());
    }
    let key = store.find_many::<Project>(tenant, &[of.0]).await?.into_iter().next().map(|project| project.body.key);
    form.defaulted("projectId", (), |named: ProjectRef| {
        let is_same = match &named {
            ProjectRef::Id(id) => *id == of,
            ProjectRef::Key(named) => key.as_ref() == Some(named),
        };
        let how = "leave it out; create it anew in the other project";
        if is_same { Ok(()) } else { Err(Invalid::new("read-only", "cannot be changed", how)) }
    });
    Ok(())
}

impl FromField for ProjectRef {
    fn from_field(value: Value) -> Result<Self, Invalid> {
        match value {
            Value::String(text) => Self::parse(&text),
            other => u64::from_field(other).map(|id| Self::Id(ProjectId(id))),
        }
    }
}

fn parse_key(text: &str) -> Result<String, Invalid> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !first || !rest || text.len() > 40 {
        return Err(Invalid::new(
            "format-key",
            "cannot be a project's key",
            "use 1 to 40 lower-case letters, digits and hyphens, starting with a letter",
        ));
    }
    Ok(text.to_owned())
}

fn read(mut form: Form, id: u64, stored: Option<&Project>) -> Result<Project, Problem> {
    let default_key = stored.map_or_else(|| format!("proj-{id:03}"), |s| s.key.clone());
    let key = form.defaulted("key", default_key, |text: String| parse_key(&text));
    let name = form.required("name", stored.map(|s| s.name.clone()), line(1, 128));
    let default = stored.map(|s| s.description.clone()).unwrap_or_default();
    let description = form.defaulted("description", default, line(0, 1_000));
    form.finish(|| Some(Project { key, name: name?, description }))
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    Ok(page(state.store.list(call.tenant(), &page_of(query.as_deref())?).await?, View::from))
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    // Read once before the id is taken, so that refused requests leave no gap.
    let body = creation.body.take();
    read(Form::of_body(body.clone())?, 0, None)?;
    let id = state.store.next_id(Kind::Project).await?;
    let stored = Stored::new(id, read(Form::of_body(body)?, id, None)?, creation.call.now);
    let event = creation.call.event("project.created", format!("project/{id}"));
    let answer = first_answer(&View::from(stored.clone()));
    let created = state.store.create(creation.call.tenant(), &stored, creation.replay(&answer), &event).await?;
    Ok(answer_creation(&created, &answer))
}

async fn find(state: &AdminState, tenant: &TenantId, id: &str) -> Result<Stored<Project>, Problem> {
    let project = ProjectRef::parse(id).map_err(|_| Problem::not_found(WHAT))?;
    project.find(&state.store, tenant).await.map_err(missing(WHAT))
}

pub(crate) async fn show(
    State(state): State<AdminState>,
    call: Call<Read>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let stored = find(&state, call.tenant(), &id).await?;
    Ok(conditions.answer(stored.revision, View::from(stored)))
}

pub(crate) async fn change(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, call.tenant(), &id).await?;
        conditions.allow_change(old.revision)?;
        let mut form = Form::of_body(body.value.clone())?;
        take_stamps(&mut form, old.id);
        let new = read(form, old.id, Some(&old.body))?;
        let event = call.event("project.updated", format!("project/{}", old.id));
        match state.store.replace(call.tenant(), &old, new, call.now, &event).await {
            Ok(stored) => return Ok(answer_change(stored.revision, View::from(stored))),
            Err(error) => race.lost(error).await?,
        }
    }
}

/// With `?environments=true` the project's environments are deleted first, the active one as well: it cannot be deleted by
/// itself. They cannot be restored without their project.
pub(crate) async fn delete(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let environments = form.defaulted("environments", false, |text: String| truth(&text));
    let environments = form.finish(|| Some(environments))?;
    let (store, tenant) = (&state.store, call.tenant());
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, tenant, &id).await?;
        conditions.allow_change(old.revision)?;
        if environments {
            delete_environments(store, &call, ProjectId(old.id)).await?;
        }
        let event = call.event("project.deleted", format!("project/{}", old.id));
        match store.delete_project(tenant, &old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(StoreError::InUse { .. }) => {
                let mut by = users(store, tenant, old.id).await?;
                by.extend(environments_of(store, tenant, old.id).await?);
                return Err(Problem::in_use(by));
            }
            Err(error) => race.lost(error).await?,
        }
    }
}

/// Passes without progress after which it is given up.
const VAIN_PASSES: u32 = 5;

/// Does nothing where the project stays for another reason. A crash leaves some of them deleted, which can be restored.
/// However many they are: it gives up only where others undo all that it does.
async fn delete_environments(store: &Store, call: &Call<Write>, project: ProjectId) -> Result<(), Problem> {
    let tenant = call.tenant();
    let others = users(store, tenant, project.0).await?;
    if !others.is_empty() {
        return Err(Problem::in_use(others));
    }
    let first = PageRequest { limit: 200, cursor: None };
    let mut vain = 0;
    while vain < VAIN_PASSES {
        let (listed, active) = store.list_environments(tenant, Some(project), &first).await?;
        if listed.data.is_empty() {
            return Ok(());
        }
        let mut is_vain = true;
        for stored in &listed.data {
            let id = EnvironmentId(stored.id);
            let event = call.event("environment.deleted", format!("environment/{id}"));
            let deleted = if active.get(&project) == Some(&id) {
                store.delete_active_environment(tenant, stored, call.now, &event).await.map(|()| Deletion::Done)
            } else {
                store.delete_environment(tenant, stored, call.now, &event).await
            };
            match deleted {
                Ok(Deletion::Done) => is_vain = false,
                // What somebody else did to it shows in the list.
                Ok(Deletion::Active) | Err(StoreError::Missing | StoreError::Conflict) => {}
                Err(other) => return Err(other.into()),
            }
        }
        vain = if is_vain { vain + 1 } else { 0 };
    }
    Err(Problem::busy())
}

async fn users(store: &Store, tenant: &TenantId, id: u64) -> Result<Vec<String>, Problem> {
    let applications = store.every::<RegisteredApplication>(tenant).await?;
    let applications = applications.iter().filter(|a| a.body.application.project_id.0 == id);
    let mut users: Vec<_> =
        applications.map(|a| format!("application {} ({})", a.id, a.body.application.name.as_str())).collect();
    let variables = store.variables(tenant, Scope::Project(ProjectId(id))).await?;
    users.extend(variables.iter().map(|v| format!("variable {} of this project", v.key)));
    Ok(users)
}

/// The first of them, by name: enough to see what is in the way.
async fn environments_of(store: &Store, tenant: &TenantId, id: u64) -> Result<Vec<String>, Problem> {
    let first = PageRequest { limit: 200, cursor: None };
    let (environments, _) = store.list_environments(tenant, Some(ProjectId(id)), &first).await?;
    let environments = environments.data.iter();
    Ok(environments.map(|e| format!("environment {} ({})", EnvironmentId(e.id), e.body.name)).collect())
}
