//! Applications: V1 took any name, image and port from whoever knew the shared secret. Here they are registered, once.

use super::{
    BTreeSet, Dump, Fate, HostName, ImageName, Planner, Port, RegistryServer, Step, application_label, registry_label,
    variables,
};
use crate::import_v1::{
    decisions::ApplicationDecision,
    dump::{Application, port},
    existing::ExistingApplication,
};

/// An application without open questions about itself; ports may still collide.
struct Candidate {
    application: usize,
    step: Option<Step>,
    ports: Vec<Port>,
    /// Unknown while it is undecided where it runs.
    hosts: Option<Vec<HostName>>,
}

impl Planner<'_> {
    pub(super) fn applications(&mut self, dump: &Dump) {
        let mut candidates = Vec::new();
        for (index, application) in dump.applications.iter().enumerate() {
            match self.application(index, application, dump) {
                Ok(candidate) => candidates.push(candidate),
                Err(fate) => {
                    self.application_fates.insert(application.name.clone(), fate);
                }
            }
        }
        let collisions: Vec<_> = candidates.iter().map(|one| self.collision(one, &candidates, dump)).collect();
        for (candidate, collision) in candidates.into_iter().zip(collisions) {
            let application = &dump.applications[candidate.application];
            let name = application.name.clone();
            let collides = collision.is_some();
            if let Some(message) = collision {
                let suggestion = "give it another port in `applications`, or skip one of them";
                self.ask(application_label(&name), "port-conflict", message, suggestion);
            }
            let fate = match candidate.step {
                Some(step) if !collides => {
                    if let Step::Application { project, .. } = &step {
                        self.need_project(project, dump);
                    }
                    self.plan.steps.push(step);
                    Fate::There(())
                }
                Some(_) | None => Fate::Undecided,
            };
            self.application_fates.insert(name, fate);
        }
    }

    /// The fate of one that is not to be created.
    fn application(&mut self, index: usize, application: &Application, dump: &Dump) -> Result<Candidate, Fate> {
        let label = application_label(&application.name);
        let none = ApplicationDecision::default();
        let decision = self.decisions.applications.get(application.name.as_str()).unwrap_or(&none);
        if decision.skip {
            self.skip(label);
            return Err(Fate::Skipped);
        }
        let ports = ports(application, decision);
        let project = self.project_of(application, dump);
        if let Some(found) = self.existing.application(application.name.as_str()) {
            return Err(self.compare(found, application, decision, &ports, project.as_deref(), label));
        }
        if project.is_none() {
            let suggestion = "say in `projects` which project's key its project gets";
            self.ask(label.clone(), "unknown-project", "is of a project that the file does not describe", suggestion);
        }
        let registry = self.registry_of(application, decision, dump, &label);
        let image = self.image(application, decision, dump, &label);
        let hosts = self.hosts(decision, &label);
        let version = decision.version.clone().or_else(|| application.version.clone());
        if version.as_ref().is_some_and(|version| version.to_string() == "latest") {
            let suggestion = "say in `applications` which version is to be deployed first";
            self.ask(label.clone(), "latest", "runs `latest`, which may be another image tomorrow", suggestion);
        }
        let (registry, image) = match (registry, image) {
            (Ok(Some((_, server))), Some(image)) if *image.server() != server => {
                let suggestion = "say in `applications` which registry or which image is right";
                self.ask(label, "registry-mismatch", "has a registry that its image does not come from", suggestion);
                (Err(()), Some(image))
            }
            others => others,
        };
        let whole = (project, registry.ok(), image, hosts.clone());
        let step = if let (Some(project), Some(registry), Some(image), Some(hosts)) = whole {
            Some(Step::Application {
                project,
                name: application.name.clone(),
                image,
                registry: registry.map(|(name, _)| name),
                ports: ports.clone(),
                hosts,
                webhook_enabled: application.webhook_enabled,
                version,
            })
        } else {
            None
        };
        Ok(Candidate { application: index, step, ports, hosts })
    }

    /// What is there stays, whatever the file says.
    fn compare(
        &mut self,
        found: &ExistingApplication,
        application: &Application,
        decision: &ApplicationDecision,
        ports: &[Port],
        project: Option<&str>,
        label: String,
    ) -> Fate {
        let same_image = match &decision.image {
            Some(image) => same_image(image, &found.image),
            None if application.image.names_host() => same_image(&application.image, &found.image),
            // Which registry it was is known by now.
            None => path(&application.image) == path(&found.image),
        };
        // Where V1 published a port on every address, fewer may do here.
        let numbers = |ports: &[Port]| -> BTreeSet<_> {
            ports.iter().map(|port| (port.host, port.container, port.protocol.as_str())).collect()
        };
        let same_project = project.is_none_or(|key| self.existing.project(key) == Some(found.project));
        let differences =
            [("image", same_image), ("ports", numbers(ports) == numbers(&found.ports)), ("project", same_project)];
        let differences: Vec<_> = differences.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
        if differences.is_empty() {
            self.plan.present.push(label);
            return Fate::There(());
        }
        let message = format!("is there with other {}", differences.join(", "));
        let suggestion = "correct it with the API, or skip it in `applications`: what is there stays as it is";
        self.ask(label, "differs", message, suggestion);
        Fate::Undecided
    }

    fn project_of(&self, application: &Application, dump: &Dump) -> Option<String> {
        match &application.project {
            None => Some(self.decisions.project.clone()),
            Some(id) => variables::project_key(dump, self.decisions, id),
        }
    }

    /// Name and server of the registry whose credentials pull the image; `Err` if that is undecided.
    fn registry_of(
        &mut self,
        application: &Application,
        decision: &ApplicationDecision,
        dump: &Dump,
        label: &str,
    ) -> Result<Option<(String, RegistryServer)>, ()> {
        let named = match (&decision.registry, &application.registry) {
            (Some(name), _) => Some(dump.registries.iter().find(|registry| registry.name == *name)),
            (None, Some(id)) => Some(dump.registries.iter().find(|registry| registry.id.as_ref() == Some(id))),
            (None, None) => None,
        };
        let registry = match named {
            Some(Some(registry)) => registry,
            Some(None) => {
                let suggestion = "add its row, or say in `applications` which registry of the file it is";
                self.ask(
                    label.to_owned(),
                    "unknown-registry",
                    "has a registry that the file does not have",
                    suggestion,
                );
                return Err(());
            }
            None => {
                let image = decision.image.as_ref().unwrap_or(&application.image);
                let mut fitting = dump.registries.iter().filter(|registry| registry.server == *image.server());
                match (fitting.next(), fitting.next()) {
                    (None, _) => return Ok(None),
                    (Some(registry), None) => registry,
                    (Some(_), Some(_)) => {
                        let suggestion = "say in `applications` which registry of the file it is";
                        let message = "may be pulled with the credentials of several registries";
                        self.ask(label.to_owned(), "unknown-registry", message, suggestion);
                        return Err(());
                    }
                }
            }
        };
        match self.registry_fates.get(&registry.name) {
            Some(Fate::There(())) => Ok(Some((registry.name.clone(), registry.server.clone()))),
            Some(Fate::Skipped) => Ok(None),
            Some(Fate::Undecided) | None => {
                self.waits(label, &registry_label(&registry.name));
                Err(())
            }
        }
    }

    pub(super) fn waits(&mut self, label: &str, other: &str) {
        let message = format!("waits for {other}");
        self.ask(label.to_owned(), "waits", message, "decide about that, and run the import again");
    }

    /// V1 pulled an image without host from wherever its machine was signed in.
    fn image(
        &mut self,
        application: &Application,
        decision: &ApplicationDecision,
        dump: &Dump,
        label: &str,
    ) -> Option<ImageName> {
        if let Some(image) = &decision.image {
            return Some(image.clone());
        }
        let linked =
            dump.registries.iter().find(|registry| registry.id.is_some() && registry.id == application.registry);
        let is_the_hubs = linked.is_some_and(|registry| registry.server == *application.image.server());
        if application.image.names_host() || is_the_hubs {
            return Some(application.image.clone());
        }
        let server = linked.map_or("docker.io", |registry| registry.server.as_str());
        let suggestion =
            format!("say in `applications` its image with the registry: {server}/{}", path(&application.image));
        self.ask(label.to_owned(), "no-host", "has an image that names no registry", suggestion);
        None
    }

    fn hosts(&mut self, decision: &ApplicationDecision, label: &str) -> Option<Vec<HostName>> {
        let Some(hosts) = decision.hosts.as_ref().or(self.decisions.hosts.as_ref()) else {
            let mut ready = self.existing.hosts.iter().filter(|host| !host.drain);
            if let (Some(only), None) = (ready.next(), ready.next()) {
                return Some(vec![only.name.clone()]);
            }
            let names = self.existing.hosts.iter().map(|host| host.name.to_string()).collect::<Vec<_>>().join(", ");
            let suggestion = format!("say in `hosts`, or of this one in `applications`; registered are: {names}");
            self.ask(label.to_owned(), "no-hosts", "may run on more hosts than one, or on none", suggestion);
            return None;
        };
        let unknown: Vec<_> =
            hosts.iter().filter(|name| !self.existing.hosts.iter().any(|host| host.name == **name)).collect();
        if unknown.is_empty() {
            return Some(hosts.clone());
        }
        let names = unknown.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let message = format!("is to run on hosts that are not registered: {names}");
        self.ask(label.to_owned(), "unknown-host", message, "start their workers first, or name others");
        None
    }

    /// Whose port it wants, if somebody else has it or wants it, too.
    fn collision(&self, one: &Candidate, all: &[Candidate], dump: &Dump) -> Option<String> {
        let wants = |ports: &[Port]| one.ports.iter().find(|port| ports.iter().any(|other| other.overlaps(port)));
        let own: Option<BTreeSet<_>> = one.hosts.as_ref().map(|hosts| hosts.iter().collect());
        for other in all.iter().filter(|other| other.application != one.application) {
            let same_host = match (&one.hosts, &other.hosts) {
                (Some(one), Some(other)) => one.iter().any(|host| other.contains(host)),
                (None, _) | (_, None) => true,
            };
            if let Some(port) = wants(&other.ports).filter(|_| same_host) {
                let name = dump.applications[other.application].name.as_str();
                return Some(format!("publishes port {} as the application {name} of the file does", port.host));
            }
        }
        self.existing.applications.iter().find_map(|other| {
            let hosts = self.existing.hosts_of(&other.hosts);
            let same_host = own.as_ref().is_none_or(|own| !own.is_disjoint(&hosts));
            let port = wants(&other.ports).filter(|_| same_host)?;
            Some(format!("publishes port {} as the application {} does", port.host, other.name))
        })
    }
}

fn ports(application: &Application, decision: &ApplicationDecision) -> Vec<Port> {
    let mut ports = application.ports.clone();
    if let Some(number) = decision.port {
        match ports.first_mut() {
            Some(first) => first.host = number,
            None => ports.push(port(number, number)),
        }
    }
    ports
}

fn same_image(one: &ImageName, other: &ImageName) -> bool {
    one.server() == other.server() && path(one) == path(other)
}

/// The Hub's own images go by two names.
fn path(image: &ImageName) -> &str {
    image.repository().strip_prefix("library/").unwrap_or(image.repository())
}
