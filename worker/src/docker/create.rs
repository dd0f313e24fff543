//! What a new container is made with.

use std::collections::{BTreeMap, HashMap};

use bollard::{
    models::{
        ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, Mount, MountTmpfsOptions, MountType,
        NetworkConnectRequest, NetworkingConfig, PortBinding, ResourcesUlimits, RestartPolicy as DockerRestartPolicy,
        RestartPolicyNameEnum,
    },
    query_parameters::{CreateContainerOptionsBuilder, InspectNetworkOptions},
};
use tidegate_domain::{
    container::{Capability, OWN_LABELS, RestartPolicy, Tmpfs, Volume},
    job::Job,
};

use super::{Engine, Error, QUICK, SLOW, within};

/// Docker's own networks: they know no aliases.
const BUILT_IN_NETWORKS: [&str; 4] = ["bridge", "default", "none", "host"];

/// A container to be made.
#[derive(Debug)]
pub struct NewContainer<'a> {
    pub name: &'a str,
    /// What other containers of its networks reach it by, while and after it is tried.
    pub alias: &'a str,
    /// By digest.
    pub image: &'a str,
    pub labels: BTreeMap<&'static str, String>,
    pub job: &'a Job,
}

impl Engine {
    /// Creates it without starting it; its id. A crash in here leaves a container that was never started, which the
    /// next look at the application finds by its name.
    pub async fn create(&self, new: &NewContainer<'_>) -> Result<String, Error> {
        let options = CreateContainerOptionsBuilder::default().name(new.name).build();
        let id = within(SLOW, self.docker.create_container(Some(options), body(new))).await?.id;
        // The engine takes one network at creation, the others one by one.
        for network in new.job.container.networks.iter().skip(1) {
            let request =
                NetworkConnectRequest { container: id.clone(), endpoint_config: endpoint(network, new.alias) };
            within(QUICK, self.docker.connect_network(network, request)).await?;
        }
        Ok(id)
    }

    /// The name of a network that is told by its name or its id; none if there is none.
    pub async fn network_named(&self, told: &str) -> Result<Option<String>, Error> {
        match within(QUICK, self.docker.inspect_network(told, None::<InspectNetworkOptions>)).await {
            Ok(network) => Ok(Some(network.name.unwrap_or_else(|| told.to_owned()))),
            Err(error) if error.status() == Some(404) => Ok(BUILT_IN_NETWORKS.contains(&told).then(|| told.to_owned())),
            Err(error) => Err(error),
        }
    }
}

fn body(new: &NewContainer<'_>) -> ContainerCreateBody {
    let job = new.job;
    let options = &job.container;
    let port_key = |port: &tidegate_domain::application::Port| format!("{}/{}", port.container, port.protocol.as_str());
    let environment = job.variables.iter().map(|v| format!("{}={}", v.key, v.value.expose()));
    // Whatever a work order says, what recovery goes by is ours.
    let given = options.labels.iter().filter(|(key, _)| !key.starts_with(OWN_LABELS));
    let given = given.map(|(key, value)| (key.clone(), value.clone()));
    let labels = given.chain(new.labels.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let first_network = options.networks.first();
    let endpoint = first_network.and_then(|network| Some((network.clone(), endpoint(network, new.alias)?)));
    ContainerCreateBody {
        image: Some(new.image.to_owned()),
        env: Some(environment.collect()),
        labels: Some(labels.collect()),
        exposed_ports: Some(job.ports.iter().map(port_key).collect()),
        cmd: options.command.clone(),
        entrypoint: options.entrypoint.clone(),
        user: options.user.clone(),
        working_dir: options.working_dir.clone(),
        hostname: options.hostname.clone(),
        stop_timeout: Some(i64::from(options.stop_timeout_seconds)),
        host_config: Some(host_config(job)),
        networking_config: endpoint
            .map(|endpoint| NetworkingConfig { endpoints_config: Some(HashMap::from([endpoint])) }),
        ..ContainerCreateBody::default()
    }
}

fn host_config(job: &Job) -> HostConfig {
    let options = &job.container;
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &job.ports {
        let key = format!("{}/{}", port.container, port.protocol.as_str());
        let binding = PortBinding { host_ip: Some(port.host_ip.to_string()), host_port: Some(port.host.to_string()) };
        bindings.entry(key).or_default().get_or_insert_default().push(binding);
    }
    HostConfig {
        port_bindings: Some(bindings),
        restart_policy: Some(DockerRestartPolicy {
            name: Some(match options.restart_policy {
                RestartPolicy::No => RestartPolicyNameEnum::NO,
                RestartPolicy::OnFailure => RestartPolicyNameEnum::ON_FAILURE,
                RestartPolicy::Always => RestartPolicyNameEnum::ALWAYS,
                RestartPolicy::UnlessStopped => RestartPolicyNameEnum::UNLESS_STOPPED,
            }),
            maximum_retry_count: options.restart_max_retries.map(i64::from),
        }),
        memory: options.memory_bytes.map(bytes),
        nano_cpus: options.cpus.map(nano_cpus),
        pids_limit: options.pids_limit.map(i64::from),
        shm_size: options.shm_size_bytes.map(bytes),
        ulimits: Some(options.ulimits.iter().map(ulimit).collect()),
        mounts: Some(options.volumes.iter().map(mount).chain(options.tmpfs.iter().map(tmpfs)).collect()),
        network_mode: options.networks.first().cloned(),
        extra_hosts: Some(options.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
        cap_add: Some(capabilities(&options.cap_add)),
        cap_drop: Some(capabilities(&options.cap_drop)),
        privileged: Some(options.privileged),
        log_config: Some(log_config(job)),
        init: Some(options.init),
        readonly_rootfs: Some(options.read_only_root),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        ..HostConfig::default()
    }
}

/// Docker counts processors in billionths; no machine has so many that one of them would be rounded away.
#[expect(clippy::cast_possible_truncation, reason = "saturates, and the engine refuses more than it has")]
fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9).round() as i64
}

/// Docker's sizes are signed. What does not fit is more than any machine has, and refused by the engine.
fn bytes(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn capabilities(names: &[Capability]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn ulimit(limit: &tidegate_domain::container::Ulimit) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(limit.name.clone()), soft: Some(limit.soft), hard: Some(limit.hard) }
}

/// Bounded by default: the engine's own driver would keep every line for ever.
fn log_config(job: &Job) -> HostConfigLogConfig {
    const BOUNDED: &str = "json-file";
    let (driver, given) = match &job.container.log {
        Some(log) => (log.driver.clone(), log.options.clone()),
        None => (BOUNDED.to_owned(), BTreeMap::new()),
    };
    let mut config: HashMap<_, _> = given.into_iter().collect();
    if driver == BOUNDED {
        for (key, value) in [("max-size", "10m"), ("max-file", "3")] {
            config.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    HostConfigLogConfig { typ: Some(driver), config: Some(config) }
}

/// As a mount, not as a bind: a source that does not exist is refused instead of made by root.
fn mount(volume: &Volume) -> Mount {
    Mount {
        source: Some(volume.source.clone()),
        target: Some(volume.target.clone()),
        typ: Some(if volume.is_bind_mount() { MountType::BIND } else { MountType::VOLUME }),
        read_only: Some(volume.read_only),
        ..Mount::default()
    }
}

fn tmpfs(tmpfs: &Tmpfs) -> Mount {
    Mount {
        target: Some(tmpfs.target.clone()),
        typ: Some(MountType::TMPFS),
        tmpfs_options: Some(MountTmpfsOptions {
            size_bytes: tmpfs.size_bytes.map(bytes),
            ..MountTmpfsOptions::default()
        }),
        ..Mount::default()
    }
}

fn endpoint(network: &str, alias: &str) -> Option<EndpointSettings> {
    (!BUILT_IN_NETWORKS.contains(&network))
        .then(|| EndpointSettings { aliases: Some(vec![alias.to_owned()]), ..EndpointSettings::default() })
}

#[cfg(test)]
mod tests {
    use tidegate_domain::{
        application::{Port, Protocol},
        container::{HostAddress, LogOptions, Ulimit},
        job::JobVariable,
        secret::Secret,
        variable::VariableKey,
    };

    use super::*;
    use crate::samples;

    #[test]
    fn every_option_reaches_docker() {
        let mut job = samples::job();
        job.variables = vec![JobVariable {
            key: VariableKey::parse("DB_URL").unwrap(),
            value: Secret::new("a=b c".to_owned()),
            is_secret: true,
        }];
        job.ports = [8080, 8081]
            .map(|host| Port { host, container: 80, protocol: Protocol::Tcp, host_ip: "127.0.0.1".parse().unwrap() })
            .to_vec();
        let options = &mut job.container;
        options.cpus = Some(0.3);
        options.memory_bytes = Some(64 << 20);
        options.pids_limit = Some(50);
        options.networks = vec!["shop".to_owned(), "bridge".to_owned()];
        options.read_only_root = true;
        options.volumes = [("data", false), ("/srv/data", true)]
            .map(|(source, read_only)| Volume { source: source.to_owned(), target: "/data".to_owned(), read_only })
            .to_vec();
        options.command = Some(vec!["serve".to_owned()]);
        options.tmpfs = vec![Tmpfs { target: "/tmp".to_owned(), size_bytes: Some(1 << 20) }];
        options.restart_policy = RestartPolicy::OnFailure;
        options.restart_max_retries = Some(4);
        options.cap_add = vec![Capability::parse("NET_ADMIN").unwrap()];
        options.cap_drop = vec![Capability::ALL];
        options.privileged = true;
        options.hostname = Some("web".to_owned());
        options.extra_hosts = BTreeMap::from([("db".to_owned(), HostAddress::parse("10.0.0.5").unwrap())]);
        options.shm_size_bytes = Some(1 << 27);
        options.ulimits = vec![Ulimit { name: "nofile".to_owned(), soft: 1_024, hard: -1 }];
        options.labels = [("team", "web"), ("tidegate.epoch", "9"), ("tidegate.other", "x")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let labels = BTreeMap::from([(super::super::label::EPOCH, "4".to_owned())]);
        let new = NewContainer { name: "shop.tidegate-next", alias: "shop", image: "i@sha256:0", labels, job: &job };
        let body = body(&new);
        assert_eq!(body.env.unwrap(), ["DB_URL=a=b c"]);
        assert_eq!(body.cmd.unwrap(), ["serve"]);
        assert_eq!((body.stop_timeout, body.hostname.as_deref()), (Some(10), Some("web")));
        let mut labels: Vec<_> = body.labels.unwrap().into_iter().collect();
        labels.sort();
        assert_eq!(labels, [("team".into(), "web".into()), ("tidegate.epoch".into(), "4".into())]);
        let aliases = body.networking_config.unwrap().endpoints_config.unwrap()["shop"].aliases.clone();
        assert_eq!(aliases.unwrap(), ["shop"]);
        let host = body.host_config.unwrap();
        let bindings = host.port_bindings.unwrap()["80/tcp"].clone().unwrap();
        let ports: Vec<_> = bindings.into_iter().map(|b| (b.host_ip.unwrap(), b.host_port.unwrap())).collect();
        assert_eq!(ports, [("127.0.0.1".into(), "8080".into()), ("127.0.0.1".into(), "8081".into())]);
        assert_eq!(host.nano_cpus, Some(300_000_000));
        assert_eq!(host.memory, Some(64 << 20));
        assert_eq!(host.pids_limit, Some(50));
        assert_eq!(host.network_mode.as_deref(), Some("shop"));
        assert_eq!((host.init, host.readonly_rootfs), (Some(true), Some(true)));
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
        let restart = host.restart_policy.unwrap();
        assert_eq!((restart.name, restart.maximum_retry_count), (Some(RestartPolicyNameEnum::ON_FAILURE), Some(4)));
        assert_eq!(host.cap_add.unwrap(), ["NET_ADMIN"]);
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!((host.privileged, host.shm_size), (Some(true), Some(1 << 27)));
        assert_eq!(host.extra_hosts.unwrap(), ["db:10.0.0.5"]);
        let limit = host.ulimits.unwrap().remove(0);
        assert_eq!((limit.name.as_deref(), limit.soft, limit.hard), (Some("nofile"), Some(1_024), Some(-1)));
        let mut mounts = host.mounts.unwrap();
        let in_memory = mounts.pop().unwrap();
        assert_eq!((in_memory.typ, in_memory.target.as_deref()), (Some(MountType::TMPFS), Some("/tmp")));
        assert_eq!(in_memory.tmpfs_options.unwrap().size_bytes, Some(1 << 20));
        let mounts: Vec<_> = mounts.into_iter().map(|m| (m.typ.unwrap(), m.read_only.unwrap())).collect();
        assert_eq!(mounts, [(MountType::VOLUME, false), (MountType::BIND, true)]);
    }

    #[test]
    fn the_log_of_the_usual_driver_is_bounded() {
        let mut job = samples::job();
        let mut check = |log: Option<(&str, &[(&str, &str)])>, driver: &str, expect: &[(&str, &str)]| {
            job.container.log = log.map(|(driver, options)| LogOptions {
                driver: driver.to_owned(),
                options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            });
            let config = log_config(&job);
            assert_eq!(config.typ.as_deref(), Some(driver));
            let options: BTreeMap<_, _> = config.config.unwrap().into_iter().collect();
            let options: Vec<_> = options.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(options, expect);
        };
        check(None, "json-file", &[("max-file", "3"), ("max-size", "10m")]);
        check(Some(("json-file", &[("max-size", "1m")])), "json-file", &[("max-file", "3"), ("max-size", "1m")]);
        check(Some(("local", &[])), "local", &[]);
        check(Some(("syslog", &[("tag", "shop")])), "syslog", &[("tag", "shop")]);
    }

    #[test]
    fn the_built_in_network_gets_no_alias() {
        assert!(endpoint("bridge", "shop").is_none());
        assert!(endpoint("shop", "shop").is_some());
    }
}
