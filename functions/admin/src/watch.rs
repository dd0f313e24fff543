//! What hosts say, gathered for answers: who is there, and how applications stand on them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tidegate_aws::{
    application_state::ApplicationState,
    error::Result,
    hosts::{Heartbeat, HostSight, RegisteredHost, standing},
    store::Store,
};
use tidegate_domain::{
    application::Application,
    host::{Standing, is_online},
    id::{ApplicationId, HostName, TenantId},
};

/// Registered hosts and the last word of each that matters.
#[derive(Debug)]
pub(crate) struct Watch {
    registered: BTreeMap<HostName, RegisteredHost>,
    heartbeats: BTreeMap<HostName, Heartbeat>,
    now: Timestamp,
}

impl Watch {
    /// Over these hosts.
    pub(crate) fn over(hosts: &[RegisteredHost], heartbeats: BTreeMap<HostName, Heartbeat>, now: Timestamp) -> Self {
        let registered = hosts.iter().map(|host| (host.name.clone(), host.clone())).collect();
        Self { registered, heartbeats, now }
    }

    /// Over every host that one of these applications asks for, or was left on.
    pub(crate) async fn over_hosts_of(
        store: &Store,
        tenant: &TenantId,
        applications: &[(&Application, &ApplicationState)],
        now: Timestamp,
    ) -> Result<Self> {
        let hosts = store.hosts(tenant).await?;
        let mut names = BTreeSet::new();
        for (application, state) in applications {
            names.extend(state.occupied().cloned());
            let taken_in = hosts.iter().filter(|host| application.hosts.takes_in(host.candidate()));
            names.extend(taken_in.map(|host| host.name.clone()));
        }
        let names: Vec<_> = names.into_iter().collect();
        let heartbeats = store.heartbeats(tenant, &names).await?;
        Ok(Self::over(&hosts, heartbeats, now))
    }

    pub(crate) fn heartbeat(&self, host: &HostName) -> Option<&Heartbeat> {
        self.heartbeats.get(host)
    }

    pub(crate) fn is_online(&self, host: &HostName) -> bool {
        self.heartbeat(host).is_some_and(|heartbeat| is_online(heartbeat.at, self.now))
    }

    /// None: nothing was left there, and nothing is seen.
    pub(crate) fn standing(
        &self,
        id: ApplicationId,
        application: &Application,
        state: &ApplicationState,
        host: &HostName,
    ) -> Option<Standing> {
        let sight = HostSight { name: host, registered: self.registered.get(host), heartbeat: self.heartbeat(host) };
        standing(id, application, state, sight, self.now)
    }

    /// On every host where there is something to say of it.
    pub(crate) fn standings<'a>(
        &'a self,
        id: ApplicationId,
        application: &Application,
        state: &'a ApplicationState,
    ) -> Vec<(&'a HostName, Standing)> {
        let heard_of = self.heartbeats.keys().filter(|host| self.registered.contains_key(*host));
        let hosts: BTreeSet<_> = state.hosts.keys().chain(heard_of).collect();
        hosts.into_iter().filter_map(|host| Some((host, self.standing(id, application, state, host)?))).collect()
    }
}
