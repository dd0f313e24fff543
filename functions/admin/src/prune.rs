//! Cleaning up after an application on its hosts, while the caller waits.

use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use tidegate_aws::{application_state::ApplicationState, error::Result as StoreResult, idempotency::FirstAnswer};
use tidegate_domain::{
    id::{ApplicationId, HostName},
    invalid::Invalid,
    task::{Pruned, TaskAnswer, TaskOrder, What},
};
use tidegate_web::{
    Problem,
    auth::Write,
    body::OptionalJsonBody,
    form::Form,
    idempotency::{self, IdempotencyKey},
};

use crate::{
    AdminState,
    applications::{WHAT, find},
    call::{Call, first_answer, missing},
    refusal::{HostError, host_error},
};

#[derive(Serialize)]
struct View {
    hosts: Vec<HostView>,
}

/// Null where nobody knows.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct HostView {
    host: HostName,
    images_removed: Option<usize>,
    bytes_reclaimed: Option<u64>,
    containers_removed: Option<usize>,
    /// Why not all was done.
    error: Option<HostError>,
}

pub(crate) async fn prune(
    State(state): State<AdminState>,
    call: Call<Write>,
    key: IdempotencyKey,
    Path(id): Path<String>,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let tenant = call.tenant();
    let key = key.of(&format!("user:{}", call.user()), &body.fingerprint);
    if let Some(key) = &key
        && let Some(first) = state.store.first_answer(tenant, key, call.now).await?
    {
        return Ok(idempotency::replay(&first));
    }
    let mut form = Form::of_body(body.value)?;
    let named = form.has("hosts");
    let asked = form.items("hosts", Vec::new(), |text: String| HostName::parse(&text));
    let asked = form.finish(|| Some(named.then_some(asked)))?;

    let application = find(&state, tenant, &id).await?;
    let application_id = ApplicationId(application.id);
    let current = state.store.application_state(tenant, application_id).await.map_err(missing(WHAT))?;
    let registered: Vec<_> = state.store.hosts(tenant).await?.into_iter().map(|host| host.name).collect();
    let hosts = match asked {
        Some(asked) => checked(&registered, asked)?,
        None => wherever_it_was(&registered, &current),
    };
    let event = call.event("application.pruned", format!("application/{application_id}"));
    state.store.record(tenant, &event, call.now).await?;
    let order = TaskOrder {
        application_id,
        name: application.body.application.name.clone(),
        what: What::Prune { image: application.body.application.image.clone() },
    };
    let order = &order;
    let asking = hosts.into_iter().map(|host| {
        let state = &state;
        async move {
            let answer = state.store.ask(tenant, &host, order, call.now).await;
            view(host, answer)
        }
    });
    let view = View { hosts: futures_util::future::join_all(asking).await };
    let answer = FirstAnswer { status: StatusCode::OK.as_u16(), ..first_answer(&view) };
    if let Some(key) = &key {
        state.store.keep_first_answer(tenant, key, &answer, call.now).await?;
    }
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], answer.body.expose().clone()).into_response())
}

/// Hosts that the application is on, or has left, as far as they are still registered.
fn wherever_it_was(registered: &[HostName], current: &ApplicationState) -> Vec<HostName> {
    let was = |host: &&HostName| current.hosts.contains_key(*host) || current.left.contains_key(*host);
    registered.iter().filter(was).cloned().collect()
}

fn checked(registered: &[HostName], asked: Vec<HostName>) -> Result<Vec<HostName>, Problem> {
    let unknown = |(index, host): (usize, &HostName)| {
        let why = if asked[..index].contains(host) {
            Invalid::new("duplicate", "is named twice", "name each host once")
        } else if registered.contains(host) {
            return None;
        } else {
            Invalid::new("unknown-host", "is not registered", "name hosts of GET /hosts")
        };
        Some(why.at(format!("hosts[{index}]")))
    };
    let errors: Vec<_> = asked.iter().enumerate().filter_map(unknown).collect();
    if errors.is_empty() { Ok(asked) } else { Err(Problem::validation_failed(errors)) }
}

/// One host's trouble hides no other's result.
fn view(host: HostName, answer: StoreResult<Option<TaskAnswer>>) -> HostView {
    let failed = |error| HostView {
        host: host.clone(),
        images_removed: None,
        bytes_reclaimed: None,
        containers_removed: None,
        error: Some(error),
    };
    match answer {
        Ok(Some(TaskAnswer::Pruned(Pruned { images_removed, bytes_reclaimed, containers_removed, error }))) => {
            HostView {
                images_removed: Some(images_removed),
                bytes_reclaimed: Some(bytes_reclaimed),
                containers_removed: Some(containers_removed),
                error: error.as_ref().map(host_error),
                host,
            }
        }
        Ok(Some(TaskAnswer::Refused { why })) => failed(host_error(&why)),
        Ok(None) => failed(HostError::offline(&host)),
        Ok(Some(TaskAnswer::Logs(_))) => {
            tracing::error!(host.name = %host, "a host has answered something that it was not asked for");
            failed(HostError::not_asked(&host))
        }
        Err(error) => {
            let why = &error as &dyn std::error::Error;
            tracing::error!(host.name = %host, error = why, "a host could not be asked");
            failed(HostError::not_asked(&host))
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_domain::task::Refusal;

    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn each_host_has_its_own_result() {
        let pruned =
            Pruned { images_removed: 2, bytes_reclaimed: 7, containers_removed: 1, error: Some(Refusal::Late) };
        let shown = view(name("a"), Ok(Some(TaskAnswer::Pruned(pruned))));
        assert_eq!(
            (shown.images_removed, shown.bytes_reclaimed, shown.containers_removed),
            (Some(2), Some(7), Some(1))
        );
        assert_eq!(shown.error, Some(host_error(&Refusal::Late)));
        let offline = view(name("b"), Ok(None));
        assert_eq!((offline.images_removed, offline.error), (None, Some(HostError::offline(&name("b")))));
        let refused = view(name("c"), Ok(Some(TaskAnswer::Refused { why: Refusal::EngineAway })));
        assert_eq!(refused.error, Some(host_error(&Refusal::EngineAway)));
    }

    #[test]
    fn every_named_host_is_registered_and_named_once() {
        let registered = [name("a"), name("b")];
        assert_eq!(checked(&registered, vec![name("b")]).unwrap(), [name("b")]);
        let refused = checked(&registered, vec![name("a"), name("a"), name("c")]).unwrap_err();
        assert_eq!(refused.summary(), "hosts[1]: duplicate, hosts[2]: unknown-host");
    }
}
