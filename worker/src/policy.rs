//! What this host's own configuration lets a container do, whatever a work order says.

use std::{
    io,
    os::unix::fs::FileTypeExt as _,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use tidegate_domain::{
    assignment::{ErrorCode, TargetError},
    container::Capability,
    job::Job,
};

/// Limits of one host, from its own file: a control plane that was taken over cannot widen them.
#[derive(Debug, Clone)]
pub struct HostPolicy {
    /// A bind mount's source must be one of these or below one of them. None by default.
    pub allowed_bind_mounts: Vec<PathBuf>,
    /// Containers may be privileged, which is to own the host.
    pub allow_privileged: bool,
    /// Containers may share the host's network: every port of it, and what listens on loopback only.
    pub allow_host_network: bool,
    /// Containers may be given the Docker socket, which is to own the host.
    pub allow_docker_socket: bool,
    /// What `capAdd` may name beside Docker's own set; `ALL` for any.
    pub allowed_capabilities: Vec<Capability>,
    /// What `log.driver` may name. The others are told by a work order where Docker, as root, is to connect and to write.
    pub allowed_log_drivers: Vec<String>,
    /// Less free space where Docker keeps its data fails a deployment before anything is pulled; 0 for no limit.
    pub min_free_disk_bytes: u64,
    /// So many of an application's newest images are kept on the host, beside those in use.
    pub keep_images: usize,
    /// A container without any health check counts as working once it has run so long.
    pub stable: Duration,
    /// Put before every container's name, so that several workers can share one engine.
    pub container_prefix: String,
}

impl Default for HostPolicy {
    fn default() -> Self {
        Self {
            allowed_bind_mounts: Vec::new(),
            allow_privileged: false,
            allow_host_network: false,
            allow_docker_socket: false,
            allowed_capabilities: Vec::new(),
            allowed_log_drivers: LOCAL_LOG_DRIVERS.map(str::to_owned).to_vec(),
            min_free_disk_bytes: 0,
            keep_images: 3,
            stable: Duration::from_secs(5),
            container_prefix: String::new(),
        }
    }
}

/// These write to the host's own journal or below Docker's folder, or nowhere, whatever their options say.
const LOCAL_LOG_DRIVERS: [&str; 4] = ["json-file", "local", "journald", "none"];

/// Whoever can write to one of these owns the host.
const SOCKETS: [&str; 2] = ["docker.sock", "containerd.sock"];
const SOCKET_PATHS: [&str; 3] = ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock"];

/// One option that the host does not have.
struct Refusal {
    /// The field, and what is wrong with it.
    what: String,
    /// The key of the host's file that would allow it, with its value; none where nothing does.
    key: Option<String>,
}

impl HostPolicy {
    /// All that the host refuses, at once. Looks at the host's own files, but not at Docker.
    ///
    /// # Errors
    /// `forbidden`, naming each option, and the key of the host's configuration that would allow it.
    pub fn check(&self, job: &Job) -> Result<(), TargetError> {
        let options = &job.container;
        let mut refused = Vec::new();
        if options.privileged && !self.allow_privileged {
            refused.push(Refusal::unless("container.privileged: a privileged container", "allow_privileged = true"));
        }
        for (index, capability) in options.cap_add.iter().enumerate() {
            if !self.allows_capability(*capability) {
                refused.push(Refusal::unless(
                    &format!("container.capAdd[{index}]: the capability {capability}"),
                    &format!("allowed_capabilities = [\"{capability}\"]"),
                ));
            }
        }
        for (index, network) in options.networks.iter().enumerate() {
            if network == "host" && !self.allow_host_network {
                let what = format!("container.networks[{index}]: the host's own network");
                refused.push(Refusal::unless(&what, "allow_host_network = true"));
            } else if network.contains(':') {
                // `container:NAME` is the network of a container that nobody registered, and goes with it.
                refused.push(Refusal::always(format!("container.networks[{index}]: the network mode {network}")));
            }
        }
        for (index, volume) in options.volumes.iter().enumerate() {
            let field = format!("container.volumes[{index}].source");
            if volume.is_bind_mount() {
                refused.extend(self.refuse_bind_mount(&field, Path::new(&volume.source)));
            } else if volume.source.contains(['/', '\\']) {
                refused.push(Refusal::always(format!("{field}: a volume's name with a slash")));
            }
        }
        // Without `log` the worker chooses: a local driver.
        refused.extend(options.log.as_ref().and_then(|log| self.refuse_log_driver(&log.driver)));
        if refused.is_empty() { Ok(()) } else { Err(forbidden(&refused)) }
    }

    fn allows_capability(&self, wanted: Capability) -> bool {
        wanted.is_default()
            || self.allowed_capabilities.iter().any(|allowed| *allowed == wanted || *allowed == Capability::ALL)
    }

    fn refuse_log_driver(&self, driver: &str) -> Option<Refusal> {
        if self.allowed_log_drivers.iter().any(|allowed| allowed == driver) {
            return None;
        }
        // The key takes the place of the usual list, which the owner then wants to keep.
        let all: Vec<_> = self.allowed_log_drivers.iter().map(String::as_str).chain([driver]).collect();
        let what = format!("container.log.driver: the log driver {driver}");
        Some(Refusal::unless(&what, &format!("allowed_log_drivers = {all:?}")))
    }

    fn refuse_bind_mount(&self, field: &str, source: &Path) -> Option<Refusal> {
        let shown = source.display();
        let plain = source.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !plain {
            return Some(Refusal::always(format!("{field}: the path {shown}, which is not plain")));
        }
        // A symbolic link in an allowed directory must not lead out of it.
        let real = match resolved(source, Path::canonicalize) {
            Ok(real) => real,
            Err(error) => {
                let why = format!("which cannot be looked at by the worker's user ({error}), who has to reach it");
                let what = format!("{field}: {shown}, {why}");
                return Some(Refusal::always(what));
            }
        };
        if [source, &real].iter().any(|path| reaches_socket(path)) {
            if !self.allow_docker_socket {
                let what = format!("{field}: {shown}, which gives the container control of the host");
                return Some(Refusal::unless(&what, "allow_docker_socket = true"));
            }
            // The socket itself needs no other permission; a directory around it does.
            if is_socket(&real) {
                return None;
            }
        }
        let allowed = |path: &Path| {
            self.allowed_bind_mounts
                .iter()
                .any(|root| path.starts_with(root) || real_root(root).is_some_and(|root| path.starts_with(root)))
        };
        let what = || format!("{field}: a bind mount of {shown}");
        (!allowed(source) || !allowed(&real))
            .then(|| Refusal::unless(&what(), &format!("allowed_bind_mounts = [\"{}\"]", real.display())))
    }
}

/// Where a path leads, without symbolic links. What of it does not exist yet, here or on a remote engine's machine, stays as
/// it is below the deepest folder that does.
///
/// # Errors
/// A part of it cannot be looked at, or is a link to nothing: nobody knows where it will lead.
fn resolved(path: &Path, real: impl Fn(&Path) -> io::Result<PathBuf>) -> io::Result<PathBuf> {
    for ancestor in path.ancestors() {
        match real(ancestor) {
            Ok(found) => {
                let missing = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
                // Not `join`, which would end an empty rest with a slash.
                return Ok(found.components().chain(missing.components()).collect());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && ancestor.symlink_metadata().is_err() => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn real_root(root: &Path) -> Option<PathBuf> {
    resolved(root, Path::canonicalize).ok()
}

fn reaches_socket(path: &Path) -> bool {
    path.file_name().is_some_and(|name| SOCKETS.iter().any(|socket| name == *socket))
        || SOCKET_PATHS.iter().any(|socket| Path::new(socket).starts_with(path))
}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.file_type().is_socket())
}

impl Refusal {
    fn unless(what: &str, key: &str) -> Self {
        Self { what: what.to_owned(), key: Some(key.to_owned()) }
    }

    fn always(what: String) -> Self {
        Self { what, key: None }
    }
}

fn forbidden(refused: &[Refusal]) -> TargetError {
    let all: Vec<_> = refused.iter().map(|refusal| refusal.what.as_str()).collect();
    let keys: Vec<_> = refused.iter().filter_map(|refusal| refusal.key.as_deref()).collect();
    let these = if refused.len() == 1 { "this option" } else { "these options" };
    let suggestion = if keys.is_empty() {
        format!("change {these} of the application")
    } else {
        format!(
            "do without {these}, or let the host's owner write into the worker's configuration: {}",
            keys.join("; ")
        )
    };
    TargetError::new(ErrorCode::Forbidden, format!("this host does not allow {}", all.join("; ")), suggestion)
}

#[cfg(test)]
mod tests {
    use tidegate_domain::container::{ContainerOptions, LogOptions, Volume};

    use super::*;
    use crate::samples;

    fn refusal(policy: &HostPolicy, change: impl FnOnce(&mut ContainerOptions)) -> Option<TargetError> {
        let mut job = samples::job();
        change(&mut job.container);
        let error = policy.check(&job).err()?;
        assert_eq!(error.code, ErrorCode::Forbidden);
        Some(error)
    }

    fn log(driver: &str, options: &[(&str, &str)]) -> LogOptions {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LogOptions { driver: driver.to_owned(), options }
    }

    fn bind(source: &str) -> Volume {
        Volume { source: source.to_owned(), target: "/data".to_owned(), read_only: false }
    }

    #[test]
    fn the_hosts_network_is_its_owners_to_give() {
        let check = |network: &str, usual: bool, with_host: bool| {
            for (allow_host_network, allowed) in [(false, usual), (true, with_host)] {
                let policy = HostPolicy { allow_host_network, ..HostPolicy::default() };
                let refused = refusal(&policy, |options| options.networks = vec![network.to_owned()]);
                assert_eq!(refused.is_none(), allowed, "{network} {allow_host_network}");
            }
        };
        check("shop", true, true);
        check("bridge", true, true);
        check("none", true, true);
        check("host", false, true);
        check("container:database", false, false);
    }

    #[test]
    fn capabilities_beyond_dockers_own_are_its_owners_to_give() {
        let check = |wanted: &str, allowed: &[&str], expect: bool| {
            let parse = |name: &str| Capability::parse(name).unwrap();
            let allowed_capabilities = allowed.iter().map(|name| parse(name)).collect();
            let policy = HostPolicy { allowed_capabilities, ..HostPolicy::default() };
            let refused = refusal(&policy, |options| {
                options.cap_drop = vec![Capability::ALL];
                options.cap_add = vec![parse(wanted)];
            });
            assert_eq!(refused.is_none(), expect, "{wanted} of {allowed:?}");
        };
        check("NET_BIND_SERVICE", &[], true);
        check("SYS_ADMIN", &[], false);
        check("ALL", &[], false);
        check("SYS_ADMIN", &["NET_ADMIN"], false);
        check("SYS_ADMIN", &["SYS_ADMIN"], true);
        check("ALL", &["SYS_ADMIN"], false);
        check("SYS_ADMIN", &["ALL"], true);
        check("ALL", &["ALL"], true);
    }

    #[test]
    fn all_that_is_refused_is_told_at_once_with_the_keys_that_would_allow_it() {
        let everything = |options: &mut ContainerOptions| {
            options.privileged = true;
            options.cap_add = vec![Capability::parse("NET_ADMIN").unwrap()];
            options.networks = vec!["host".to_owned()];
            options.volumes = vec![bind("data"), bind("/etc"), bind("/var/run/docker.sock")];
            options.log = Some(log("fluentd", &[("fluentd-address", "unix:///var/run/docker.sock")]));
        };
        let told = refusal(&HostPolicy::default(), everything).unwrap();
        for (field, key) in [
            ("container.privileged", "allow_privileged = true"),
            ("container.capAdd[0]", "allowed_capabilities = [\"NET_ADMIN\"]"),
            ("container.networks[0]", "allow_host_network = true"),
            ("container.volumes[1].source", "allowed_bind_mounts = [\"/etc\"]"),
            ("container.volumes[2].source", "allow_docker_socket = true"),
            (
                "container.log.driver: the log driver fluentd",
                "allowed_log_drivers = [\"json-file\", \"local\", \"journald\", \"none\", \"fluentd\"]",
            ),
        ] {
            assert!(told.message.contains(field), "{field}: {}", told.message);
            assert!(told.suggestion.contains(key), "{key}: {}", told.suggestion);
        }
        assert!(!told.message.contains("volumes[0]"), "{}", told.message);
        let policy = HostPolicy {
            allow_privileged: true,
            allow_host_network: true,
            allow_docker_socket: true,
            allowed_capabilities: vec![Capability::parse("NET_ADMIN").unwrap()],
            allowed_log_drivers: vec!["fluentd".to_owned()],
            allowed_bind_mounts: vec![PathBuf::from("/etc"), PathBuf::from("/var/run"), PathBuf::from("/run")],
            ..HostPolicy::default()
        };
        assert_eq!(refusal(&policy, everything), None);
    }

    #[test]
    fn log_drivers_that_reach_beyond_docker_are_the_owners_to_give() {
        let check = |driver: &str, allowed: &[&str], expect: bool| {
            let allowed_log_drivers = allowed.iter().map(|name| (*name).to_owned()).collect();
            let policy = HostPolicy { allowed_log_drivers, ..HostPolicy::default() };
            let refused = refusal(&policy, |options| options.log = Some(log(driver, &[])));
            assert_eq!(refused.is_none(), expect, "{driver} of {allowed:?}");
        };
        for driver in LOCAL_LOG_DRIVERS {
            check(driver, &LOCAL_LOG_DRIVERS, true);
            check(driver, &[], false);
        }
        for driver in ["fluentd", "gelf", "syslog", "splunk", "awslogs", "gcplogs", "vendor/plugin:latest", "Local", ""]
        {
            check(driver, &LOCAL_LOG_DRIVERS, false);
        }
        check("syslog", &["syslog"], true);
        check("json-file", &["syslog"], false);
        // Without one, the worker's own choice.
        let policy = HostPolicy { allowed_log_drivers: Vec::new(), ..HostPolicy::default() };
        assert_eq!(refusal(&policy, |options| options.log = None), None);
        // And what a host allows whose owner has said nothing.
        assert_eq!(HostPolicy::default().allowed_log_drivers, ["json-file", "local", "journald", "none"]);
    }

    #[test]
    fn bind_mounts_stay_inside_the_allow_list() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("data");
        std::fs::create_dir(&inside).unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.path().join(name)).unwrap();
        link("/etc", "link");
        link("/etc/not-there", "to-nothing");
        link("round", "round");
        std::fs::write(root.path().join("file"), "").unwrap();
        let policy = HostPolicy { allowed_bind_mounts: vec![root.path().to_owned()], ..HostPolicy::default() };
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        let check = |source: &str, allowed: bool| {
            let refused = refusal(&policy, |options| options.volumes = vec![bind(source)]);
            assert_eq!(refused.is_none(), allowed, "{source}: {refused:?}");
        };
        check("data", true);
        check("../data", false);
        check(&path("data"), true);
        check(&path("not-yet"), true);
        check(&path("data/../../../etc"), false);
        check(&path("link"), false);
        check(&path("link/ssh"), false);
        check(&path("link/not-yet"), false);
        check(&path("data/not/yet"), true);
        check(&path("to-nothing"), false);
        check(&path("to-nothing/below"), false);
        // Neither of these can be looked at, and not because it is not there.
        check(&path("round"), false);
        check(&path("file/below"), false);
        check(&format!("{}-other", root.path().display()), false);
        check("/etc", false);
        check("/", false);
        check("/var/run/docker.sock", false);
        check(&path("docker.sock"), false);
    }

    #[test]
    fn what_the_workers_user_may_not_look_at_is_refused() {
        let denied = |path: &Path| match path.to_str() {
            // A container has made the folder its own; below it may be a link to anywhere.
            Some("/srv/app/own/link") => Err(io::ErrorKind::PermissionDenied.into()),
            Some("/srv") => Ok(PathBuf::from("/mnt/srv")),
            Some("/srv/not-yet") => Err(io::ErrorKind::NotFound.into()),
            _ => panic!("not asked: {path:?}"),
        };
        let error = resolved(Path::new("/srv/app/own/link"), denied).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(resolved(Path::new("/srv/not-yet"), denied).unwrap(), Path::new("/mnt/srv/not-yet"));

        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("round", root.path().join("round")).unwrap();
        let policy = HostPolicy { allowed_bind_mounts: vec![root.path().to_owned()], ..HostPolicy::default() };
        let source = root.path().join("round");
        let told = refusal(&policy, |options| options.volumes = vec![bind(source.to_str().unwrap())]).unwrap();
        assert!(told.message.contains("cannot be looked at by the worker's user"), "{told:?}");
        assert!(!told.suggestion.contains("allowed_bind_mounts"), "{told:?}");
    }

    #[test]
    fn a_folder_that_was_allowed_before_it_is_there_is_allowed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
        let of = |name: &str| root.path().join(name);
        let policy = HostPolicy { allowed_bind_mounts: vec![of("link/not-yet")], ..HostPolicy::default() };
        let check = |source: &str, allowed: bool| {
            let source = of(source).to_str().unwrap().to_owned();
            let refused = refusal(&policy, |options| options.volumes = vec![bind(&source)]);
            assert_eq!(refused.is_none(), allowed, "{source}: {refused:?}");
        };
        check("link/not-yet", true);
        check("link/not-yet/data", true);
        check("link", false);
        check("link/other", false);
    }

    #[test]
    fn the_socket_is_refused_whatever_is_mounted_around_it() {
        let everything = vec![PathBuf::from("/")];
        let policy = HostPolicy { allowed_bind_mounts: everything, ..HostPolicy::default() };
        for source in ["/", "/run", "/var/run", "/var/run/docker.sock"] {
            let told = refusal(&policy, |options| options.volumes = vec![bind(source)]).expect(source);
            assert!(told.suggestion.contains("allow_docker_socket"), "{told:?}");
        }
    }

    #[test]
    fn an_allowed_socket_needs_no_other_permission_and_gives_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let _listener = std::os::unix::net::UnixListener::bind(path("docker.sock")).unwrap();
        std::os::unix::fs::symlink(path("docker.sock"), path("other.sock")).unwrap();
        std::fs::create_dir_all(path("fake/docker.sock")).unwrap();
        let check = |allow_docker_socket: bool, source: &str, allowed: bool| {
            let policy = HostPolicy { allow_docker_socket, ..HostPolicy::default() };
            let refused = refusal(&policy, |options| options.volumes = vec![bind(source)]);
            assert_eq!(refused.is_none(), allowed, "{source}: {refused:?}");
        };
        check(false, &path("docker.sock"), false);
        check(true, &path("docker.sock"), true);
        check(true, &path("other.sock"), true);
        check(true, &path("fake/docker.sock"), false);
        check(true, folder.path().to_str().unwrap(), false);
        check(true, "/run", false);
    }
}
