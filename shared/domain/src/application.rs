//! What is registered beforehand: everything about a container but its version.
//!
//! These types have one serialised form, which is the API's, the store's and the sealed job's: they are plain
//! configuration without behaviour, and three copies of them would only drift apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    approval::ApprovalPolicy,
    container::ContainerOptions,
    host::Candidate,
    id::{EnvironmentId, HostName, ProjectId, RegistryId},
    image::{ImageName, Version},
    invalid::Invalid,
    issue::IssueTrigger,
    limit::Limits,
    parameter::Parameter,
    pattern::Pattern,
};

/// At most so many hosts an application: their results share the deployment's item, which the table limits to 400 KB.
pub const MAX_HOSTS: usize = 50;

/// A registered application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    pub project_id: ProjectId,
    pub name: ContainerName,
    /// The user who answers for it.
    pub owner: String,
    pub image: ImageName,
    /// Whose credentials pull the image; none for an open registry.
    pub registry_id: Option<RegistryId>,
    pub ports: Vec<Port>,
    pub hosts: HostSelector,
    /// Whose variables its deployments get; none for those of the project's active environment.
    #[serde(default)]
    pub env_id: Option<EnvironmentId>,
    /// What `version` must look like, anchored; none for any tag or digest.
    pub version_pattern: Option<VersionPattern>,
    /// What a request's `variables` may carry.
    pub parameters: Vec<Parameter>,
    /// None: the image's own health check, or else "runs and stays up".
    pub health_check: Option<HealthCheck>,
    pub container: ContainerOptions,
    pub rollout: Rollout,
    /// A container of the application's name that somebody else made may be replaced: the way over from other tools.
    #[serde(default)]
    pub adopt: bool,
    pub webhook_enabled: bool,
    #[serde(default)]
    pub approval: ApprovalPolicy,
    /// None: issues ask for nothing.
    #[serde(default)]
    pub issue_trigger: Option<IssueTrigger>,
    /// Of its own, for both classes together, and counted apart from the tenant's. None: those of the tenant's settings.
    #[serde(default)]
    pub limits: Option<Limits>,
}

/// The container's name on its hosts, and the application's: `[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}`, Docker's rule but
/// shorter, because a suffix is added while two versions stand side by side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

/// Part of the names that containers have while two versions stand side by side.
pub const RESERVED: &str = ".tidegate-";

impl ContainerName {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if text.contains(RESERVED) {
            return Err(Invalid::new(
                "format-name",
                format!("contains {RESERVED}, which marks the container that stands beside another in a switch"),
                "use another name",
            ));
        }
        if !first || !rest || !(1..=64).contains(&text.len()) {
            return Err(Invalid::new(
                "format-name",
                "cannot be a container's name",
                "use 1 to 64 letters, digits, '_', '.' and '-', starting with a letter or digit",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ContainerName {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<ContainerName> for String {
    fn from(name: ContainerName) -> String {
        name.0
    }
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// On the machine.
    pub host: u16,
    /// In the container.
    pub container: u16,
    pub protocol: Protocol,
    /// The machine's address to listen on; `0.0.0.0` for all.
    pub host_ip: std::net::IpAddr,
}

impl Port {
    /// Whether both would listen on the same address and port of one machine.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.host == other.host
            && self.protocol == other.protocol
            && (self.host_ip == other.host_ip || self.host_ip.is_unspecified() || other.host_ip.is_unspecified())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Which machines an application runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostSelector {
    /// These, in this order.
    Names(Vec<HostName>),
    /// All that carry every one of these labels when the deployment is admitted, by name.
    Labels(BTreeMap<String, String>),
}

impl HostSelector {
    /// Splits the hosts that are asked for by whether a deployment may go there, each in rollout order.
    pub fn select<'a>(&'a self, registered: &[Candidate<'a>]) -> Selection<'a> {
        let mut selection = Selection::default();
        match self {
            Self::Names(names) => {
                for name in names {
                    match registered.iter().find(|host| host.name == name) {
                        Some(host) => selection.take(*host),
                        None => selection.unknown.push(name),
                    }
                }
            }
            Self::Labels(_) => {
                let mut carrying: Vec<_> = registered.iter().filter(|host| self.takes_in(**host)).copied().collect();
                carrying.sort_by_key(|host| host.name);
                for host in carrying {
                    selection.take(host);
                }
            }
        }
        selection
    }

    /// Whether it asks for this host, drained or not.
    pub fn takes_in(&self, host: Candidate<'_>) -> bool {
        match self {
            Self::Names(names) => names.contains(host.name),
            Self::Labels(wanted) => wanted.iter().all(|(key, value)| host.labels.get(key) == Some(value)),
        }
    }
}

/// Hosts that an application asks for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Selection<'a> {
    /// A deployment goes there.
    pub chosen: Vec<&'a HostName>,
    /// Left out, because they are being drained.
    pub draining: Vec<&'a HostName>,
    /// Named, but not registered.
    pub unknown: Vec<&'a HostName>,
}

impl<'a> Selection<'a> {
    fn take(&mut self, host: Candidate<'a>) {
        if host.drain { self.draining.push(host.name) } else { self.chosen.push(host.name) }
    }
}

/// What an application's versions look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionPattern(Pattern);

impl VersionPattern {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Pattern::parse(text).map(Self)
    }

    pub fn allows(&self, version: &Version) -> bool {
        self.0.is_match(&version.to_string())
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// How the worker learns that a new container works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    #[serde(flatten)]
    pub probe: Probe,
    /// Between two probes.
    pub interval_ms: u64,
    /// For one probe.
    pub timeout_ms: u64,
    /// So many failures in a row, after the start period, mean unhealthy.
    pub retries: u32,
    /// Failures in this time after the start do not count.
    pub start_period_ms: u64,
    /// Not healthy after this time is unhealthy.
    pub deadline_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Probe {
    /// `GET path` on the container's own port answers 2xx or 3xx.
    Http { path: String, port: u16 },
    /// The container's own port accepts a connection.
    Tcp { port: u16 },
    /// The command, run in the container, exits 0.
    Command { command: Vec<String> },
    /// It runs, and stays up for the host's `stableSeconds`.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    pub strategy: Strategy,
    /// Hosts at a time, 1 to 20.
    pub max_parallel: u32,
    /// When a host fails, those that were switched already go back to what they ran before.
    pub rollback_on_failure: bool,
    /// After the switch the new version is watched so long, and the former one comes back if it fails meanwhile; at most
    /// an hour.
    pub bake_seconds: u32,
    pub concurrency: Concurrency,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            strategy: Strategy::Recreate,
            max_parallel: 1,
            rollback_on_failure: true,
            bake_seconds: 0,
            concurrency: Concurrency::Queue,
        }
    }
}

/// What a new deployment means for those of the application that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concurrency {
    /// Nothing: each has its turn, in order.
    Queue,
    /// They are superseded; only the latest has a turn.
    Latest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Old aside, stopped, new started and checked; the old one comes back if the new one is not healthy.
    Recreate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_be_taken_for_a_container_in_a_switch() {
        for (name, valid) in [
            ("web", true),
            ("web.tidegate-next", false),
            ("a.tidegate-prev-stopped", false),
            (".a", false),
            ("a b", false),
        ] {
            assert_eq!(ContainerName::parse(name).is_ok(), valid, "{name}");
        }
    }

    #[test]
    fn a_version_pattern_matches_the_whole_version() {
        let pattern = VersionPattern::parse(r"v\d+|latest").unwrap();
        for (version, allowed) in [("v1", true), ("latest", true), ("xv1", false), ("v1x", false), ("latest2", false)] {
            assert_eq!(pattern.allows(&Version::parse(version).unwrap()), allowed, "{version}");
        }
    }

    #[test]
    fn hosts_are_chosen_by_name_or_by_all_their_labels_unless_they_are_being_drained() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let host = |name: &str| HostName::parse(name).unwrap();
        let hosts = [
            (host("b"), labels(&[("role", "web"), ("zone", "1")]), false),
            (host("a"), labels(&[("role", "web")]), false),
            (host("c"), labels(&[("role", "db")]), false),
            (host("d"), labels(&[("role", "web"), ("zone", "1")]), true),
        ];
        let registered: Vec<_> =
            hosts.iter().map(|(name, labels, drain)| Candidate { name, labels, drain: *drain }).collect();
        let check = |selector: &HostSelector, expected: [&[&str]; 3]| {
            let words = |names: &[&HostName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
            let selection = selector.select(&registered);
            assert_eq!([words(&selection.chosen), words(&selection.draining), words(&selection.unknown)], expected);
            for host in &registered {
                let is_in = selection.chosen.contains(&host.name) || selection.draining.contains(&host.name);
                assert_eq!(selector.takes_in(*host), is_in, "{}", host.name);
            }
        };
        check(&HostSelector::Labels(labels(&[("role", "web")])), [&["a", "b"], &["d"], &[]]);
        check(&HostSelector::Labels(labels(&[("role", "web"), ("zone", "1")])), [&["b"], &["d"], &[]]);
        check(&HostSelector::Labels(labels(&[("role", "mail")])), [&[], &[], &[]]);
        let named = |names: &[&str]| HostSelector::Names(names.iter().map(|name| host(name)).collect());
        check(&named(&["c", "x", "a"]), [&["c", "a"], &[], &["x"]]);
        check(&named(&["d", "b", "x"]), [&["b"], &["d"], &["x"]]);
    }

    #[test]
    fn ports_overlap_on_the_same_address_or_on_all() {
        let port = |host, ip: &str, protocol| Port { host, container: 80, protocol, host_ip: ip.parse().unwrap() };
        let any = port(80, "0.0.0.0", Protocol::Tcp);
        assert!(any.overlaps(&port(80, "127.0.0.1", Protocol::Tcp)));
        assert!(!any.overlaps(&port(80, "127.0.0.1", Protocol::Udp)));
        assert!(!any.overlaps(&port(81, "0.0.0.0", Protocol::Tcp)));
        assert!(!port(80, "10.0.0.1", Protocol::Tcp).overlaps(&port(80, "127.0.0.1", Protocol::Tcp)));
    }
}
