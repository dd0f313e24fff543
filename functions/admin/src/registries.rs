//! Registries: where images are pulled from, and with which credentials.

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
};
use serde::Serialize;
use tidegate_aws::{
    catalogue::Stored,
    error::StoreError,
    keys::Kind,
    registered::{RegisteredApplication, Registry, RegistryAuth, Sealed},
    store::Store,
};
use tidegate_domain::{
    id::TenantId,
    image::RegistryServer,
    invalid::Invalid,
    secret::{MASK, Secret},
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    conditional::Conditions,
    form::{Form, line},
    page::Page,
};

use crate::{
    AdminState,
    call::{
        Call, Creation, Race, Stamps, answer_change, answer_creation, first_answer, missing, page, page_of, path_id,
        plain_name, take_stamps,
    },
    masked::{self, SecretField},
};

const WHAT: &str = "The registry";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    id: u64,
    name: String,
    server: String,
    auth_type: &'static str,
    username: Option<String>,
    password: Option<&'static str>,
    #[serde(flatten)]
    stamps: Stamps,
}

impl From<Stored<Registry>> for View {
    fn from(stored: Stored<Registry>) -> Self {
        let stamps = Stamps::from(&stored);
        let Registry { name, server, auth } = stored.body;
        let (username, password) = match &auth {
            RegistryAuth::None => (None, None),
            RegistryAuth::UsernamePassword { username, .. } | RegistryAuth::Token { username, .. } => {
                (Some(username.clone()), Some(MASK))
            }
        };
        let auth_type = AuthType::of(&auth).name();
        Self { id: stored.id, name, server: server.to_string(), auth_type, username, password, stamps }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthType {
    None,
    UsernamePassword,
    Token,
}

impl AuthType {
    const ALL: [Self; 3] = [Self::None, Self::UsernamePassword, Self::Token];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::UsernamePassword => "username-password",
            Self::Token => "token",
        }
    }

    fn of(auth: &RegistryAuth) -> Self {
        match auth {
            RegistryAuth::None => Self::None,
            RegistryAuth::UsernamePassword { .. } => Self::UsernamePassword,
            RegistryAuth::Token { .. } => Self::Token,
        }
    }

    fn parse(text: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|t| t.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Invalid::new("unknown-value", "is not a way to sign in at a registry", format!("use one of {names}"))
        })
    }
}

/// The stored credentials, apart from how they are used.
struct Kept {
    username: String,
    password: Sealed,
    version: u64,
}

impl Kept {
    fn of(auth: &RegistryAuth) -> Option<Self> {
        match auth.clone() {
            RegistryAuth::None => None,
            RegistryAuth::UsernamePassword { username, password, version }
            | RegistryAuth::Token { username, token: password, version } => Some(Self { username, password, version }),
        }
    }
}

/// A registry whose password is not sealed yet.
struct Parsed {
    name: String,
    server: RegistryServer,
    auth_type: AuthType,
    /// User, and the password or token; none without a sign-in.
    credentials: Option<(String, SecretField)>,
}

fn read(mut form: Form, stored: Option<&Registry>) -> Result<Parsed, Problem> {
    let name = form.required("name", stored.map(|s| s.name.clone()), plain_name);
    let old_server = stored.map(|s| s.server.clone());
    let server = form.required("server", old_server.clone(), |text: String| RegistryServer::parse(&text));
    let auth_type =
        form.defaulted("authType", stored.map_or(AuthType::None, |s| AuthType::of(&s.auth)), |text: String| {
            AuthType::parse(&text)
        });
    let kept = stored.and_then(|s| Kept::of(&s.auth));
    let credentials = match auth_type {
        AuthType::None => {
            // A form sends what it shows: no user, no password.
            form.only("username", &[serde_json::Value::Null, "".into()]);
            form.only("password", &[serde_json::Value::Null, "".into()]);
            Some(None)
        }
        AuthType::UsernamePassword | AuthType::Token => {
            // Registries ignore the user beside a token, and want one all the same.
            let default = (auth_type == AuthType::Token).then(|| "token".to_owned());
            let username =
                form.required("username", kept.as_ref().map(|k| k.username.clone()).or(default), line(1, 255));
            // Credentials only ever go to the server that they were given for: a kept one would go to another.
            let same_server = server == old_server;
            let password = masked::secret(&mut form, "password", kept.is_some() && same_server);
            username.zip(password).map(Some)
        }
    };
    form.finish(|| Some(Parsed { name: name?, server: server?, auth_type, credentials: credentials? }))
}

/// Seals a new password under the next version.
async fn seal(
    store: &Store,
    tenant: &TenantId,
    id: u64,
    old: Option<&Registry>,
    parsed: Parsed,
) -> Result<Registry, Problem> {
    let Parsed { name, server, auth_type, credentials } = parsed;
    let kept = old.and_then(|o| Kept::of(&o.auth));
    let auth = match credentials {
        None => RegistryAuth::None,
        Some((username, field)) => {
            let next = kept.as_ref().map_or(0, |k| k.version) + 1;
            let (password, version) = match (field, kept) {
                (SecretField::Keep, Some(kept)) => (kept.password, kept.version),
                (SecretField::New(password), _) => (seal_one(store, tenant, id, next, &password).await?, next),
                (SecretField::Keep, None) => return Err(Problem::internal()),
            };
            match auth_type {
                AuthType::Token => RegistryAuth::Token { username, token: password, version },
                AuthType::UsernamePassword | AuthType::None => {
                    RegistryAuth::UsernamePassword { username, password, version }
                }
            }
        }
    };
    Ok(Registry { name, server, auth })
}

async fn seal_one(
    store: &Store,
    tenant: &TenantId,
    id: u64,
    version: u64,
    password: &Secret<String>,
) -> Result<Sealed, StoreError> {
    store.seal_password(tenant, id, version, password).await
}

pub(crate) async fn list(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Json<Page<View>>, Problem> {
    Ok(page(state.store.list(call.tenant(), &page_of(query.as_deref())?).await?, View::from))
}

pub(crate) async fn create(State(state): State<AdminState>, mut creation: Creation) -> Result<Response, Problem> {
    let parsed = read(Form::of_body(creation.body.take())?, None)?;
    let (store, tenant) = (&state.store, creation.call.tenant());
    let id = store.next_id(Kind::Registry).await?;
    let stored = Stored::new(id, seal(store, tenant, id, None, parsed).await?, creation.call.now);
    let event = creation.call.event("registry.created", format!("registry/{id}"));
    let answer = first_answer(&View::from(stored.clone()));
    let created = store.create(tenant, &stored, creation.replay(&answer), &event).await?;
    Ok(answer_creation(&created, &answer))
}

async fn find(state: &AdminState, tenant: &TenantId, id: &str) -> Result<Stored<Registry>, Problem> {
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
    let mut race = Race::new(&conditions);
    loop {
        let old = find(&state, call.tenant(), &id).await?;
        conditions.allow_change(old.revision)?;
        let mut form = Form::of_body(body.value.clone())?;
        take_stamps(&mut form, old.id);
        let parsed = read(form, Some(&old.body))?;
        let applications = if parsed.server == old.body.server {
            Vec::new()
        } else {
            users(&state.store, call.tenant(), old.id).await?
        };
        if !applications.is_empty() {
            // Their images are pulled from the old server, and its credentials would be sent to nobody.
            return Err(Problem::in_use(applications));
        }
        let new = seal(&state.store, call.tenant(), old.id, Some(&old.body), parsed).await?;
        let event = call.event("registry.updated", format!("registry/{}", old.id));
        match state.store.replace(call.tenant(), &old, new, call.now, &event).await {
            Ok(stored) => return Ok(answer_change(stored.revision, View::from(stored))),
            Err(error) => race.lost(error).await?,
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
        let event = call.event("registry.deleted", format!("registry/{}", old.id));
        match state.store.delete(call.tenant(), &old, call.now, &event).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT),
            Err(StoreError::InUse { .. }) => {
                return Err(Problem::in_use(users(&state.store, call.tenant(), old.id).await?));
            }
            Err(error) => race.lost(error).await?,
        }
    }
}

async fn users(store: &Store, tenant: &TenantId, id: u64) -> Result<Vec<String>, Problem> {
    let applications = store.every::<RegisteredApplication>(tenant).await?;
    let users = applications.iter().filter(|a| a.body.application.registry_id.is_some_and(|r| r.0 == id));
    Ok(users.map(|a| format!("application {} ({})", a.id, a.body.application.name.as_str())).collect())
}
