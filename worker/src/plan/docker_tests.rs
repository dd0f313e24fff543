//! A small Docker: containers with names, labels and states, and one port that all of them publish.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tidegate_domain::id::{ApplicationId, DeploymentId};

use super::super::super::*;
use crate::docker::{Container, label};

pub(in super::super) const BASE: &str = "shop";
const HOST: &str = "acme/a";
/// While a bake time lasts, and when it is long over.
pub(in super::super) const BAKING: i64 = 1_000;
pub(in super::super) const OVER: i64 = 3_000;
const BAKES_UNTIL: i64 = 2_000;

pub(in super::super) fn release(number: u64) -> DeploymentId {
    DeploymentId::parse(&format!("01890a5d-ac96-774b-bcce-{number:012}")).unwrap()
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Thing {
    pub(in super::super) container: Container,
    /// Docker's own restart policy is `always`, else `unless-stopped`.
    pub(in super::super) always: bool,
    /// Docker starts nothing with itself that never ran.
    ran: bool,
    /// Made in the middle of an order by somebody else.
    pub(in super::super) theirs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Refused {
    Missing,
    NameTaken,
    PortTaken,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Docker {
    pub(in super::super) things: Vec<Thing>,
    made: usize,
    /// Two versions were to run at once.
    pub(in super::super) collided: bool,
}

#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Version {
    pub(in super::super) release: u64,
    pub(in super::super) sequence: u64,
    pub(in super::super) epoch: u64,
    pub(in super::super) always: bool,
    pub(in super::super) bakes: bool,
}

impl Docker {
    pub(in super::super) fn named(&self, name: &str) -> Option<&Thing> {
        self.things.iter().find(|thing| thing.container.name == name)
    }

    pub(in super::super) fn list(&self) -> Vec<Container> {
        self.things.iter().map(|thing| thing.container.clone()).collect()
    }

    fn get(&mut self, id: &str) -> Result<&mut Thing, Refused> {
        self.things.iter_mut().find(|thing| thing.container.id == id).ok_or(Refused::Missing)
    }

    pub(in super::super) fn add(&mut self, name: &str, labels: BTreeMap<String, String>, running: bool, always: bool) {
        self.made += 1;
        let container = Container {
            id: format!("c{}", self.made),
            name: name.to_owned(),
            labels,
            running,
            image_id: String::new(),
            published: Vec::new(),
        };
        self.things.push(Thing { container, always, ran: running, theirs: false });
    }

    pub(in super::super) fn create(&mut self, name: &str, version: Version, running: bool) -> Result<(), Refused> {
        if self.named(name).is_some() {
            return Err(Refused::NameTaken);
        }
        let mut labels = BTreeMap::from([
            (label::HOST.to_owned(), HOST.to_owned()),
            (label::APPLICATION.to_owned(), "7".to_owned()),
            (label::NAME.to_owned(), BASE.to_owned()),
            (label::DEPLOYMENT.to_owned(), release(version.release).to_string()),
            (label::SEQUENCE.to_owned(), version.sequence.to_string()),
            (label::EPOCH.to_owned(), version.epoch.to_string()),
        ]);
        if version.always {
            labels.insert(label::RESTART_POLICY.to_owned(), label::ALWAYS.to_owned());
        }
        if version.bakes {
            let until = Timestamp::from_second(BAKES_UNTIL).unwrap();
            labels.insert(label::BAKES_UNTIL.to_owned(), until.to_string());
        }
        self.add(name, labels, running, version.always);
        Ok(())
    }

    pub(in super::super) fn rename(&mut self, id: &str, name: &str) -> Result<(), Refused> {
        if self.named(name).is_some_and(|thing| thing.container.id != id) {
            return Err(Refused::NameTaken);
        }
        self.get(id)?.container.name = name.to_owned();
        Ok(())
    }

    fn start(&mut self, id: &str) -> Result<(), Refused> {
        self.get(id)?;
        if self.things.iter().any(|thing| thing.container.running && thing.container.id != id) {
            self.collided = true;
            return Err(Refused::PortTaken);
        }
        let thing = self.get(id)?;
        (thing.container.running, thing.ran) = (true, true);
        Ok(())
    }

    pub(in super::super) fn stop(&mut self, id: &str) -> Result<(), Refused> {
        self.get(id)?.container.running = false;
        Ok(())
    }

    pub(in super::super) fn remove(&mut self, id: &str) {
        self.things.retain(|thing| thing.container.id != id);
    }

    fn starts_with_docker(&mut self, id: &str, always: bool) -> Result<(), Refused> {
        self.get(id)?.always = always;
        Ok(())
    }

    /// What ran is started again, and so is what always is, first come, first served.
    pub(in super::super) fn restart_daemon(&mut self) {
        let starting: Vec<_> = self.things.iter().filter(|t| t.container.running || t.always && t.ran).collect();
        let starting: Vec<_> = starting.into_iter().map(|thing| thing.container.id.clone()).collect();
        for thing in &mut self.things {
            thing.container.running = false;
        }
        for id in starting {
            let _ = self.start(&id);
        }
    }

    pub(in super::super) fn observe(&self, now: i64, adopts: bool) -> Observed {
        let whose = Whose { host: HOST, application: ApplicationId(7), base: BASE, adopts };
        let mut observed = Observed::of(&self.list(), whose, Timestamp::from_second(now).unwrap());
        if let Some(foreign) = &mut observed.foreign {
            foreign.always = self.things.iter().any(|t| t.container.id == foreign.id && t.always);
        }
        observed
    }

    /// What a step asks of Docker.
    pub(in super::super) fn carry_out(&mut self, step: &Step, version: Option<Version>) -> Result<(), Refused> {
        match step {
            Step::Create => {
                let version = version.expect("only a deployment creates");
                self.create(&next_name(BASE), version, false)
            }
            Step::SetAside { id, name } | Step::BringBack { id, name } | Step::Uncommit { id, name } => {
                self.rename(id, name)
            }
            Step::Commit { id } => self.rename(id, BASE),
            Step::StopPrevious { id, always }
            | Step::StopNext { id, always }
            | Step::StopCurrent { id, always }
            | Step::StopStray { id, always } => {
                if *always {
                    self.starts_with_docker(id, false)?;
                }
                self.stop(id)
            }
            Step::StartNext { id } => self.start(id),
            Step::StartPrevious { id, always } | Step::StartCurrent { id, always } => {
                if matches!(step, Step::StartPrevious { .. }) {
                    self.stop(id)?;
                }
                self.start(id)?;
                if *always { self.starts_with_docker(id, true) } else { Ok(()) }
            }
            Step::RemoveNext { id, .. }
            | Step::RemovePrevious { id, .. }
            | Step::RemoveCurrent { id }
            | Step::RemoveStray { id } => {
                self.remove(id);
                Ok(())
            }
            Step::RefuseName
            | Step::RefuseOlder
            | Step::RefuseNothing
            | Step::RefuseLost
            | Step::Pull
            | Step::ProveLease
            | Step::Check { .. }
            | Step::Bake { .. }
            | Step::Done => Ok(()),
        }
    }
}
