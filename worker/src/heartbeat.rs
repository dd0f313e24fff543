//! What the worker says of its host: twice a minute, on start, and at once when a job has ended.
//!
//! It is one write of one item. It goes out without Docker too, as the host is there even when its engine is not.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tidegate_aws::{clock, hosts::Heartbeat};
use tidegate_domain::{
    application::RESERVED,
    host::{ContainerReport, MAX_CONTAINERS, Place},
    id::{ApplicationId, DeploymentId},
    image::Digest,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    docker::{Detail, Error, Machine, Ours, Version, label},
    job::Worker,
};

const INTERVAL: Duration = Duration::from_secs(30);
/// The engine may take so long for all that is asked of it, so that a slow one does not make the host look gone.
const LOOK: Duration = Duration::from_secs(10);
/// Docker has no limit for a container's name; ours are far shorter.
const MAX_NAME: usize = 255;

/// Never returns. `now` asks for one before its time.
pub(crate) async fn keep_beating(worker: Arc<Worker>, now: Arc<Notify>) {
    let mut lookout = Lookout { worker, machine: None, is_away: false };
    loop {
        let heartbeat = lookout.look(clock::now()).await;
        lookout.worker.vitals.docker(heartbeat.engine_version.is_some());
        match lookout.worker.side.beat(&heartbeat).await {
            Ok(()) => lookout.worker.vitals.beat(),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no heartbeat could be written");
            }
        }
        // Only whether somebody asked matters: either way it is time for the next.
        let _ = timeout(INTERVAL, now.notified()).await;
    }
}

struct Lookout {
    worker: Arc<Worker>,
    /// As the engine told when it was last asked, which it is again each time that it was away.
    machine: Option<Machine>,
    is_away: bool,
}

impl Lookout {
    /// `at` is before anything is looked at, so that whoever reads it knows that all of it is younger.
    async fn look(&mut self, at: Timestamp) -> Heartbeat {
        let deadline = Instant::now() + LOOK;
        let asked = timeout_at(deadline, self.ask()).await.unwrap_or(Err(Error::Late(LOOK)));
        let mut heartbeat = Heartbeat {
            at,
            worker_version: env!("CARGO_PKG_VERSION").to_owned(),
            engine_version: None,
            engine_api_version: None,
            facts: self.machine.as_ref().map(Machine::facts),
            containers: None,
            containers_left_out: 0,
        };
        match asked {
            Ok((version, ours)) => {
                if std::mem::take(&mut self.is_away) {
                    tracing::info!("Docker answers again");
                }
                heartbeat.engine_version = Some(version.engine);
                heartbeat.engine_api_version = version.api;
                heartbeat.containers_left_out = ours.len().saturating_sub(MAX_CONTAINERS);
                heartbeat.containers = Some(self.reports(ours, deadline).await);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(error = &error as &dyn std::error::Error, "Docker does not answer");
                }
            }
        }
        heartbeat
    }

    async fn ask(&mut self) -> Result<(Version, Vec<Ours>), Error> {
        let host = &self.worker.host;
        let version = host.engine.version().await?;
        if self.is_away || self.machine.is_none() {
            self.machine = Some(host.engine.machine().await?);
        }
        Ok((version, host.engine.ours(&host.label()).await?))
    }

    /// Looks at one after the other, which the engine feels least. Past the deadline what the list says has to do.
    async fn reports(&self, mut ours: Vec<Ours>, deadline: Instant) -> Vec<ContainerReport> {
        ours.truncate(MAX_CONTAINERS);
        let mut reports = Vec::with_capacity(ours.len());
        for one in ours {
            let detail = if Instant::now() < deadline {
                let detail = timeout_at(deadline, self.worker.host.engine.detail(&one.id)).await;
                detail.unwrap_or(Err(Error::Late(LOOK)))
            } else {
                Err(Error::Late(LOOK))
            };
            match detail {
                Ok(Some(detail)) => reports.extend(report(one, Some(detail))),
                // It has gone since it was listed.
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(
                        container.name = one.name,
                        error = &error as &dyn std::error::Error,
                        "a container could not be looked at for the heartbeat"
                    );
                    reports.extend(report(one, None));
                }
            }
        }
        reports
    }
}

/// None for one whose labels are not as we write them.
fn report(ours: Ours, detail: Option<Detail>) -> Option<ContainerReport> {
    let Ours { mut name, labels, state: listed, .. } = ours;
    let text = |key: &str| labels.get(key).map(String::as_str);
    let deployment_id = DeploymentId::parse(text(label::DEPLOYMENT)?).ok()?;
    let place = place(&name, text(label::NAME)?);
    name.truncate(name.floor_char_boundary(MAX_NAME));
    Some(ContainerReport {
        application_id: ApplicationId(text(label::APPLICATION)?.parse().ok()?),
        deployment_id,
        name,
        place,
        digest: text(label::DIGEST).and_then(|digest| Digest::parse(digest).ok()),
        state: detail.as_ref().map_or(listed, |detail| detail.state),
        exit_code: detail.as_ref().and_then(|detail| detail.exit_code),
        health: detail.as_ref().and_then(|detail| detail.health),
        restarts: detail.as_ref().map(|detail| detail.restarts),
        started_at: detail.and_then(|detail| detail.started_at),
    })
}

/// `own` is the name that it has by its commit.
fn place(name: &str, own: &str) -> Place {
    match name.strip_prefix(own) {
        Some("") => Place::Current,
        Some(rest) if rest.starts_with(RESERVED) => Place::Aside,
        Some(_) | None => Place::Renamed,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidegate_domain::host::ContainerState;

    use super::*;
    use crate::plan;

    #[test]
    fn a_name_tells_which_container_counts() {
        let check = |name: &str, expected| assert_eq!(place(name, "p-web"), expected, "{name}");
        check("p-web", Place::Current);
        check(&plan::next_name("p-web"), Place::Aside);
        check("p-web.tidegate-prev", Place::Aside);
        check("p-web.tidegate-prev-stopped", Place::Aside);
        check("p-web-old", Place::Renamed);
        check("p-we", Place::Renamed);
        check("web", Place::Renamed);
    }

    #[test]
    fn a_container_is_told_of_by_its_labels_and_one_without_them_is_not() {
        let id = "01939dd4-0000-7000-8000-000000000000";
        let labels = |changes: &[(&str, Option<&str>)]| {
            let mut labels = BTreeMap::from([
                (label::APPLICATION.to_owned(), "7".to_owned()),
                (label::DEPLOYMENT.to_owned(), id.to_owned()),
                (label::NAME.to_owned(), "web".to_owned()),
            ]);
            for (key, value) in changes {
                match value {
                    Some(value) => labels.insert((*key).to_owned(), (*value).to_owned()),
                    None => labels.remove(*key),
                };
            }
            labels
        };
        let of = |changes: &[(&str, Option<&str>)]| {
            let name = "ä".repeat(MAX_NAME);
            let ours = Ours { id: "c".to_owned(), name, labels: labels(changes), state: ContainerState::Paused };
            report(ours, None)
        };
        let told = of(&[]).unwrap();
        assert_eq!((told.application_id, told.deployment_id), (ApplicationId(7), DeploymentId::parse(id).unwrap()));
        assert_eq!((told.state, told.restarts), (ContainerState::Paused, None));
        assert!(told.name.len() <= MAX_NAME, "{}", told.name);
        for key in [label::APPLICATION, label::DEPLOYMENT, label::NAME] {
            assert_eq!(of(&[(key, None)]), None, "{key}");
        }
        assert_eq!(of(&[(label::APPLICATION, Some("web"))]), None);
    }
}
