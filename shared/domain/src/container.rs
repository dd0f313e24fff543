//! How a container is created: what a person would write behind `docker run`, and nothing that a deployment sets itself.
//!
//! One serialised form, as in [`crate::application`]. A form that was stored before an option existed reads with that
//! option's default.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;

/// Labels whose names begin so are the worker's own: recovery goes by them.
pub const OWN_LABELS: &str = "tidegate.";

/// How the container is created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerOptions {
    pub restart_policy: RestartPolicy,
    /// With [`RestartPolicy::OnFailure`] only; none for no end.
    pub restart_max_retries: Option<u32>,
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub memory_bytes: Option<u64>,
    pub cpus: Option<f64>,
    pub pids_limit: Option<u32>,
    /// Of `/dev/shm`; none for the engine's 64 MiB.
    pub shm_size_bytes: Option<u64>,
    pub ulimits: Vec<Ulimit>,
    pub volumes: Vec<Volume>,
    pub tmpfs: Vec<Tmpfs>,
    pub networks: Vec<String>,
    /// Names that `/etc/hosts` gets, beside the container's own.
    pub extra_hosts: BTreeMap<String, HostAddress>,
    /// Beside the worker's own, which begin with [`OWN_LABELS`].
    pub labels: BTreeMap<String, String>,
    pub cap_add: Vec<Capability>,
    pub cap_drop: Vec<Capability>,
    /// Every capability and every device: a container that owns the host.
    pub privileged: bool,
    /// A small init as PID 1, so that a process without a SIGTERM handler stops at once.
    pub init: bool,
    pub read_only_root: bool,
    pub log: Option<LogOptions>,
    /// Between SIGTERM and SIGKILL.
    pub stop_timeout_seconds: u32,
}

impl Default for ContainerOptions {
    fn default() -> Self {
        Self {
            restart_policy: RestartPolicy::UnlessStopped,
            restart_max_retries: None,
            command: None,
            entrypoint: None,
            user: None,
            working_dir: None,
            hostname: None,
            memory_bytes: None,
            cpus: None,
            pids_limit: None,
            shm_size_bytes: None,
            ulimits: Vec::new(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            networks: Vec::new(),
            extra_hosts: BTreeMap::new(),
            labels: BTreeMap::new(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            privileged: false,
            init: true,
            read_only_root: false,
            log: None,
            stop_timeout_seconds: 10,
        }
    }
}

impl ContainerOptions {
    /// The container shares the machine's own network: it publishes nothing, its ports are the machine's.
    pub fn uses_host_network(&self) -> bool {
        self.networks.iter().any(|network| network == "host")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    No,
    OnFailure,
    Always,
    UnlessStopped,
}

/// A named volume, or a bind mount if `source` is an absolute path (which the host's own configuration must allow).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub source: String,
    pub target: String,
    pub read_only: bool,
}

impl Volume {
    pub fn is_bind_mount(&self) -> bool {
        self.source.starts_with('/')
    }
}

/// A folder in memory, gone with the container. What is in it counts against the container's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tmpfs {
    pub target: String,
    /// None for the kernel's limit, half of the machine's memory.
    pub size_bytes: Option<u64>,
}

/// A limit of `setrlimit(2)`, by its name in lower case without `RLIMIT_`; -1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// Names of [`Ulimit`], as the engine has them (docker/go-units, `ulimit.go`).
pub const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Docker's log driver and its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogOptions {
    pub driver: String,
    pub options: BTreeMap<String, String>,
}

/// What a name of `extraHosts` leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostAddress {
    Ip(IpAddr),
    /// The machine itself, as the container sees it; `host-gateway` in Docker's words.
    Gateway,
}

const HOST_GATEWAY: &str = "host-gateway";

impl HostAddress {
    /// # Errors
    /// `format-ip`
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text == HOST_GATEWAY {
            return Ok(Self::Gateway);
        }
        let refused = || {
            Invalid::new("format-ip", "is not an IP address", "use an address, or host-gateway for the machine itself")
        };
        text.parse().map(Self::Ip).map_err(|_| refused())
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Gateway => f.write_str(HOST_GATEWAY),
        }
    }
}

impl TryFrom<String> for HostAddress {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<HostAddress> for String {
    fn from(address: HostAddress) -> String {
        address.to_string()
    }
}

/// A capability of Linux without its `CAP_`, or `ALL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Capability(&'static str);

/// `include/uapi/linux/capability.h` of Linux 6.18; `capabilities(7)` says what each is good for.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// What the engine gives every container (moby, `oci/caps/defaults.go`).
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

impl Capability {
    pub const ALL: Self = Self("ALL");

    /// As `docker run --cap-add` reads it: in any case, with or without `CAP_`.
    ///
    /// # Errors
    /// `unknown-value`
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == Self::ALL.0 {
            return Ok(Self::ALL);
        }
        let known = CAPABILITIES.iter().find(|known| **known == name);
        known.map(|known| Self(known)).ok_or_else(|| {
            Invalid::new(
                "unknown-value",
                "is not a capability of Linux",
                "use a name of capabilities(7) without CAP_, such as NET_ADMIN, or ALL",
            )
        })
    }

    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether the engine gives it to every container, so that adding it gives back at most what was dropped.
    pub fn is_default(self) -> bool {
        DEFAULT_CAPABILITIES.contains(&self.0)
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// By hand, because the derived one would borrow the name from its input.
impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_of_an_earlier_release_reads_with_the_defaults_of_what_it_did_not_know() {
        let earlier = r#"{"restartPolicy":"always","command":null,"entrypoint":null,"user":"app","workingDir":null,
            "memoryBytes":67108864,"cpus":0.5,"pidsLimit":null,"volumes":[{"source":"data","target":"/data",
            "readOnly":false}],"networks":["shop"],"init":false,"readOnlyRoot":true,"log":null,"stopTimeoutSeconds":7}"#;
        let read: ContainerOptions = serde_json::from_str(earlier).unwrap();
        let expect = ContainerOptions {
            restart_policy: RestartPolicy::Always,
            user: Some("app".to_owned()),
            memory_bytes: Some(64 << 20),
            cpus: Some(0.5),
            volumes: vec![Volume { source: "data".to_owned(), target: "/data".to_owned(), read_only: false }],
            networks: vec!["shop".to_owned()],
            init: false,
            read_only_root: true,
            stop_timeout_seconds: 7,
            ..ContainerOptions::default()
        };
        assert_eq!(read, expect);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let options = ContainerOptions {
            cap_add: vec![Capability::parse("cap_net_admin").unwrap()],
            cap_drop: vec![Capability::ALL],
            extra_hosts: BTreeMap::from([
                ("db".to_owned(), HostAddress::parse("fd00::1").unwrap()),
                ("host".to_owned(), HostAddress::Gateway),
            ]),
            ulimits: vec![Ulimit { name: "nofile".to_owned(), soft: 1_024, hard: -1 }],
            ..ContainerOptions::default()
        };
        let text = serde_json::to_string(&options).unwrap();
        assert!(text.contains(r#""capAdd":["NET_ADMIN"]"#), "{text}");
        assert_eq!(serde_json::from_str::<ContainerOptions>(&text).unwrap(), options);
    }

    #[test]
    fn a_capability_is_known_by_any_of_its_spellings() {
        for (text, name, default) in [
            ("NET_ADMIN", Some("NET_ADMIN"), false),
            ("cap_chown", Some("CHOWN"), true),
            ("CAP_SYS_ADMIN", Some("SYS_ADMIN"), false),
            ("all", Some("ALL"), false),
            ("CAP_", None, false),
            ("NET_ADMIN ", None, false),
            ("NETADMIN", None, false),
        ] {
            let parsed = Capability::parse(text).ok();
            assert_eq!(parsed.map(Capability::as_str), name, "{text}");
            assert_eq!(parsed.is_some_and(Capability::is_default), default, "{text}");
        }
        assert!(DEFAULT_CAPABILITIES.iter().all(|name| CAPABILITIES.contains(name)));
    }
}
