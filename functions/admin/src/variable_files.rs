//! Variables of a scope as a `.env` file: written at once from one, and read as one.

use std::collections::BTreeMap;

use axum::{
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tidegate_aws::{
    error::StoreError,
    idempotency::FirstAnswer,
    store::Store,
    variable_import::{ImportInto, ImportResult, ImportedValue, ImportedVariable},
    variables::{StoredValue, StoredVariable},
};
use tidegate_domain::{
    dotenv,
    id::{SecretId, TenantId},
    invalid::{FieldError, Invalid},
    secret::{MASK, Secret},
    variable::{MAX_VARIABLES, SecretReference, VariableKey},
};
use tidegate_web::{
    Problem,
    auth::{Read, Write},
    body::JsonBody,
    form::{Form, number_text},
    idempotency::{self, IdempotencyKey},
    problem::reference_missing,
};

use crate::{
    AdminState,
    call::{Call, first_answer, missing},
    environments,
    variable_scope::ScopeFields,
};

/// A kept answer is one item of the table, sealed. A larger one is not kept: the same import again changes nothing anyway.
const LARGEST_KEPT_BYTES: usize = 200 * 1024;
/// So many names of secrets are looked up at a time.
const AT_ONCE: usize = 16;

/// What is asked for.
struct Asked {
    scope: ScopeFields,
    lines: Vec<dotenv::Line>,
    overwrite: bool,
    dry_run: bool,
    secret: Marked,
}

/// Which of the variables are to be secrets.
enum Marked {
    All,
    Named(Vec<VariableKey>),
}

impl Marked {
    fn has(&self, key: &VariableKey) -> bool {
        match self {
            Self::All => true,
            Self::Named(keys) => keys.contains(key),
        }
    }
}

fn read(mut form: Form) -> Result<Asked, Problem> {
    let scope = ScopeFields::read(&mut form, Ok::<u64, Invalid>);
    let overwrite = form.defaulted("overwrite", false, Ok);
    let dry_run = form.defaulted("dryRun", false, Ok);
    let all = form.defaulted("allSecret", false, Ok);
    let named = form.items("secret", Vec::new(), |text: String| VariableKey::parse(&text));
    if all && !named.is_empty() {
        form.refuse("secret", Invalid::new("one-choice", "goes beside allSecret", "send one of the two"));
    }
    let text = form.required("dotenv", None, Ok::<Secret<String>, _>);
    let lines = text.and_then(|text| match dotenv::read("dotenv", text.expose()) {
        Ok(lines) => Some(lines),
        Err(faults) => {
            form.refuse_all(faults);
            None
        }
    });
    if let Some(lines) = &lines {
        if lines.len() > MAX_VARIABLES {
            let message = format!("has {} variables", lines.len());
            let hint = format!("import at most {MAX_VARIABLES} at a time, which is what a deployment may have");
            form.refuse("dotenv", Invalid::new("too-many-variables", message, hint));
        }
        for (index, key) in named.iter().enumerate().filter(|(_, key)| !lines.iter().any(|line| line.key == **key)) {
            let hint = format!("leave {key} out, or write it into the file");
            form.refuse(&format!("secret[{index}]"), Invalid::new("unknown-value", "is not a key of the file", hint));
        }
    }
    let secret = if all { Marked::All } else { Marked::Named(named) };
    form.finish(|| Some(Asked { scope, lines: lines?, overwrite, dry_run, secret }))
}

/// With every reference looked up.
async fn values(
    store: &Store,
    tenant: &TenantId,
    lines: Vec<dotenv::Line>,
    marked: &Marked,
) -> Result<Vec<ImportedVariable>, Problem> {
    let mut faults = Vec::new();
    let mut references = BTreeMap::new();
    for line in lines.iter().filter(|line| line.value.expose().starts_with(SecretReference::PREFIX)) {
        match SecretReference::parse(line.value.expose()) {
            Ok(reference) => {
                references.insert(reference, None);
            }
            Err(invalid) => faults.push(invalid.at(field(line))),
        }
    }
    let wanted: Vec<SecretReference> = references.keys().cloned().collect();
    let found: Vec<(SecretReference, Option<SecretId>)> = stream::iter(wanted)
        .map(|reference| async move {
            let id = store.resolve_reference(tenant, &reference).await?;
            Ok::<_, StoreError>((reference, id))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    references.extend(found);
    let mut variables = Vec::new();
    for line in lines {
        let field = field(&line);
        let reference = SecretReference::parse(line.value.expose()).ok();
        let value = match reference.map(|reference| references.get(&reference).copied().flatten()) {
            Some(Some(secret_id)) => ImportedValue::Reference(secret_id),
            Some(None) => {
                faults.push(reference_missing().at(field));
                continue;
            }
            None if line.value.expose() == MASK => ImportedValue::Masked,
            None => ImportedValue::Text { text: line.value, is_secret: marked.has(&line.key) },
        };
        variables.push(ImportedVariable { key: line.key, value, field });
    }
    if faults.is_empty() { Ok(variables) } else { Err(Problem::validation_failed(faults)) }
}

fn field(line: &dotenv::Line) -> String {
    format!("dotenv[{}]", line.number)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    success: bool,
    dry_run: bool,
    imported: usize,
    skipped: usize,
    variables: Vec<VariableView>,
}

#[derive(Serialize)]
struct VariableView {
    key: VariableKey,
    result: &'static str,
}

fn view(variables: Vec<ImportedVariable>, results: &[ImportResult], dry_run: bool) -> View {
    let is_written = |result: &&ImportResult| matches!(result, ImportResult::Imported | ImportResult::Updated);
    let imported = results.iter().filter(is_written).count();
    let word = |result: &ImportResult| match result {
        ImportResult::Imported => "imported",
        ImportResult::Updated => "updated",
        ImportResult::Unchanged => "unchanged",
        ImportResult::Skipped => "skipped",
    };
    let variables = variables.into_iter().zip(results);
    let variables = variables.map(|(variable, result)| VariableView { key: variable.key, result: word(result) });
    View { success: true, dry_run, imported, skipped: results.len() - imported, variables: variables.collect() }
}

/// Into an environment at once; into another scope in steps, each of them whole. If it ends in the middle, the same import
/// again does the rest.
pub(crate) async fn import(
    State(state): State<AdminState>,
    call: Call<Write>,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<Response, Problem> {
    let (store, tenant) = (&state.store, call.tenant());
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    if let Some(key) = &key
        && let Some(first) = store.first_answer(tenant, key, call.now).await?
    {
        return Ok(idempotency::replay(&first));
    }
    let Asked { scope, lines, overwrite, dry_run, secret } = read(Form::of_body(body.value)?)?;
    let into = ImportInto { scope: scope.resolve(store, tenant).await?, overwrite, dry_run };
    let variables = values(store, tenant, lines, &secret).await?;
    let event = |action: &str, subject: String| call.event(action, subject);
    let imported: Result<_, Vec<FieldError>> =
        store.import_variables(tenant, into, &variables, call.now, event).await?;
    let results = imported.map_err(Problem::validation_failed)?;
    let view = view(variables, &results, dry_run);
    let answer = FirstAnswer { status: StatusCode::OK.as_u16(), ..first_answer(&view) };
    if let Some(key) = key.filter(|_| answer.body.expose().len() <= LARGEST_KEPT_BYTES) {
        // Afterwards is early enough: importing what is imported changes nothing.
        store.keep_first_answer(tenant, &key, &answer, call.now).await?;
    }
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], answer.body.expose().clone()).into_response())
}

/// What was exported can be imported again: secrets are masked, which keeps them.
pub(crate) async fn export(
    State(state): State<AdminState>,
    call: Call<Read>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut form = Form::of_query(query.as_deref())?;
    let scope = ScopeFields::read(&mut form, |text: String| number_text(&text));
    let scope = form.finish(|| Some(scope))?.resolve_present(&state.store, call.tenant()).await?;
    let variables = state.store.variables(call.tenant(), scope).await.map_err(missing(environments::WHAT))?;
    let shown: Vec<(&VariableKey, String)> = variables
        .iter()
        .map(|variable| {
            let value = match &variable.value {
                // A text that looks like a reference would come back as one.
                StoredValue::Plain { text } if text.starts_with(SecretReference::PREFIX) => format!("@{text}"),
                StoredValue::Plain { text } => text.clone(),
                StoredValue::Secret { .. } => MASK.to_owned(),
                StoredValue::Reference { secret_id } => StoredVariable::reference(*secret_id),
            };
            (&variable.key, value)
        })
        .collect();
    let text = dotenv::write(shown.iter().map(|(key, value)| (*key, value.as_str())));
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
