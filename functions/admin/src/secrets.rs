//! Secrets: values that are sealed when written and never shown.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use serde_json::Value;
use tidegate_aws::{
    catalogue::{Listed, PageRequest, Stored},
    error::StoreError,
    keys::Kind,
    registered::{Project, RegisteredApplication, Source, StoredSecret},
    store::Store,
    variables::StoredValue,
};
use tidegate_domain::{
    id::{ApplicationId, ProjectId, SecretGroupId, SecretId, TenantId},
    secret::MASK,
    variable::Scope,
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::Conditions,
    form::{Form, number_text},
    page::{Page, PageQuery},
};

use crate::{
    AdminState,
    call::{
        Call, Creation, Race, Stamps, answer_change, answer_creation, first_answer, missing, page, path_id, plain_name,
        request_of, take_stamps,
    },
    masked::{self, SecretField},
};

const WHAT: &str = "The secret";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    id: u64,
    group_id: u64,
    name: String,
    value: &'static str,
    source: &'static str,
    provider_id: Option<u64>,
    provider_reference: Option<String>,
    value_version: u64,
    #[serde(flatten)]
    stamps: Stamps,
}

impl From<Stored<StoredSecret>> for View {
    fn from(stored: Stored<StoredSecret>) -> Self {
        let stamps = Stamps::from(&stored);
        let StoredSecret { group_id, name, value: _, value_version, .. } = stored.body;
        Self {
            id: stored.id,
            group_id: group_id.0,
            name,
            value: MASK,
            source: "manual",
            provider_id: None,
            provider_reference: None,
            value_version,
            stamps,
        }
    }
}

/// A secret whose value is not sealed yet.
struct Parsed {
    group_id: SecretGroupId,
    name: String,
    value: SecretField,
}

fn read(mut form: Form, stored: Option<&StoredSecret>) -> Result<Parsed, Problem> {
    let group_id = form.required("groupId", stored.map(|s| s.group_id), |id: u64| Ok(SecretGroupId(id)));
    let name = form.required("name", stored.map(|s| s.name.clone()), plain_name);
    let value = masked::secret(&mut form, "value", stored.is_some());
    form.only("source", &["manual".into()]);
    form.only("providerId", &[Value::Null]);
    form.only("providerReference", &[Value::Null]);
    form.finish(|| Some(Parsed { group_id: group_id?, name: name?, value: value? }))
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let asked = PageQuery::read(&mut form);
    let group = form.nullable("groupId", None, |text: String| number_text(&text).map(SecretGroupId));
    let asked = form.finish(|| Some(request_of(asked)))?;
    let found = match group {
        None => state.store.list(call.tenant(), &asked).await?,
        Some(group) => of_group(&state.store, call.tenant(), group, asked).await?,
    };
    Ok(page(found, View::from))
}

/// A full page of one group's secrets: reads on until there are enough, never past what the cursor says.
async fn of_group(
    store: &Store,
    tenant: &TenantId,
    group: SecretGroupId,
    asked: PageRequest,
) -> Result<Listed<Stored<StoredSecret>>, StoreError> {
    let mut data: Vec<Stored<StoredSecret>> = Vec::new();
    let mut cursor = asked.cursor;
    loop {
        let rest = PageRequest { limit: asked.limit - data.len(), cursor };
        let found = store.list::<StoredSecret>(tenant, &rest).await?;
        data.extend(found.data.into_iter().filter(|s| s.body.group_id == group));
        cursor = found.next_cursor;
        if cursor.is_none() || data.len() == asked.limit {
            return Ok(Listed { data, next_cursor: cursor });
        }
    }
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    let Parsed { group_id, name, value } = read(Form::of_body(creation.body.take())?, None)?;
    let SecretField::New(value) = value else { return Err(Problem::internal()) };
    let (store, tenant) = (&state.store, creation.call.tenant());
    let id = store.next_id(Kind::Secret).await?;
    let value = store.seal_secret(tenant, id, 1, &value).await?;
    let stored = Stored::new(
        id,
        StoredSecret { group_id, name, value, value_version: 1, source: Source::Manual, expires_at: None },
        creation.call.now,
    );
    let event = creation.call.event("secret.created", format!("secret/{id}"));
    let answer = first_answer(&View::from(stored.clone()));
    let created = store.create(tenant, &stored, creation.replay(&answer), &event).await?;
    Ok(answer_creation(&created, &answer))
}

async fn find(state: &AdminState, tenant: &TenantId, id: &str) -> Result<Stored<StoredSecret>, Problem> {
    state.store.find(tenant, path_id(id, WHAT)?).await.map_err(missing(WHAT))
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
    let (store, tenant) = (&state.store, call.tenant());
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, tenant, &id).await?;
        conditions.allow_change(old.revision)?;
        let mut form = Form::of_body(body.value.clone())?;
        take_stamps(&mut form, old.id);
        form.read_only(&["valueVersion"]);
        let Parsed { group_id, name, value } = read(form, Some(&old.body))?;
        let (value, value_version) = match value {
            SecretField::Keep => (old.body.value.clone(), old.body.value_version),
            SecretField::New(value) => {
                let version = old.body.value_version + 1;
                (store.seal_secret(tenant, old.id, version, &value).await?, version)
            }
        };
        let new = StoredSecret { group_id, name, value, value_version, ..old.body.clone() };
        let event = call.event("secret.updated", format!("secret/{}", old.id));
        match store.replace(tenant, &old, new, call.now, &event).await {
            Ok(stored) => return Ok(answer_change(stored.revision, View::from(stored))),
            Err(error) => race.lost(error)?,
        }
    }
}

pub(crate) async fn delete(
    State(state): State<AdminState>,
    call: Call<Write>,
    conditions: Conditions,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, call.tenant(), &id).await?;
        conditions.allow_change(old.revision)?;
        let event = call.event("secret.deleted", format!("secret/{}", old.id));
        match state.store.delete(call.tenant(), &old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(StoreError::InUse { .. }) => {
                return Err(Problem::in_use(users(&state.store, call.tenant(), SecretId(old.id)).await?));
            }
            Err(error) => race.lost(error)?,
        }
    }
}

/// The variables that refer to a secret. Reads every scope, which only a refused deletion pays for.
async fn users(store: &Store, tenant: &TenantId, id: SecretId) -> Result<Vec<String>, StoreError> {
    let mut scopes = vec![Scope::Global];
    scopes.extend(store.every::<Project>(tenant).await?.iter().map(|p| Scope::Project(ProjectId(p.id))));
    let applications = store.every::<RegisteredApplication>(tenant).await?;
    scopes.extend(applications.iter().map(|a| Scope::Application(ApplicationId(a.id))));
    let mut users = Vec::new();
    for scope in scopes {
        let of = match scope {
            Scope::Global => "global".to_owned(),
            Scope::Project(project) => format!("project {project}"),
            Scope::Environment(environment) => format!("environment {environment}"),
            Scope::Application(application) => format!("application {application}"),
        };
        for variable in store.variables(tenant, scope).await? {
            match variable.value {
                StoredValue::Reference { secret_id, .. } if secret_id == id => {
                    users.push(format!("variable {} ({of})", variable.key));
                }
                StoredValue::Reference { .. } | StoredValue::Plain { .. } | StoredValue::Secret { .. } => {}
            }
        }
    }
    Ok(users)
}
