//! A port of a host belongs to one application.

use std::collections::BTreeSet;

use tidegate_aws::{hosts::RegisteredHost, registered::RegisteredApplication, store::Store};
use tidegate_domain::{
    application::{Application, HostSelector},
    id::{HostName, TenantId},
    invalid::{FieldError, Invalid},
};
use tidegate_web::Problem;

/// Refuses ports that another application publishes on one of the same hosts. `id` is the application's own, if it has one.
///
/// Two writes at once can both pass, and labels can be changed afterwards: the worker looks again before every switch.
pub(crate) async fn check(
    store: &Store,
    tenant: &TenantId,
    id: Option<u64>,
    application: &Application,
) -> Result<(), Problem> {
    if application.ports.is_empty() {
        return Ok(());
    }
    let (registered, others) = tokio::try_join!(store.hosts(tenant), store.every::<RegisteredApplication>(tenant))?;
    let others = others.iter().filter(|other| Some(other.id) != id).map(|other| &other.body.application);
    let errors = taken(application, others, &registered);
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation_failed(errors)) }
}

fn taken<'a>(
    application: &Application,
    others: impl Iterator<Item = &'a Application>,
    registered: &[RegisteredHost],
) -> Vec<FieldError> {
    let own = hosts_of(&application.hosts, registered);
    let mut errors = Vec::new();
    for other in others {
        let shared: Vec<_> = hosts_of(&other.hosts, registered).intersection(&own).copied().collect();
        let Some(host) = shared.first() else { continue };
        for (i, port) in application.ports.iter().enumerate() {
            if other.ports.iter().any(|published| published.overlaps(port)) {
                let message = format!("is published on host {host} by the application {}", other.name.as_str());
                let suggestion = "use another port, or another address of the host in hostIp";
                errors.push(Invalid::new("port-taken", message, suggestion).at(format!("ports[{i}].host")));
            }
        }
    }
    errors
}

/// Drained or not: what runs on a drained host keeps its ports.
fn hosts_of<'a>(selector: &'a HostSelector, registered: &'a [RegisteredHost]) -> BTreeSet<&'a HostName> {
    match selector {
        HostSelector::Names(names) => names.iter().collect(),
        HostSelector::Labels(_) => {
            registered.iter().filter(|host| selector.takes_in(host.candidate())).map(|host| &host.name).collect()
        }
    }
}
