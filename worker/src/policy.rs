//! What this host's own configuration lets a container do, whatever a work order says.

use std::{
    path::{Component, Path, PathBuf},
    time::Duration,
};

use tidegate_domain::{
    assignment::{ErrorCode, TargetError},
    job::Job,
};

/// Limits of one host, from its own file: a control plane that was taken over cannot widen them.
#[derive(Debug, Clone)]
pub struct HostPolicy {
    /// A bind mount's source must be one of these or below one of them. None by default.
    pub allowed_bind_mounts: Vec<PathBuf>,
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
            min_free_disk_bytes: 0,
            keep_images: 3,
            stable: Duration::from_secs(5),
            container_prefix: String::new(),
        }
    }
}

/// Whoever can write to one of these owns the host.
const SOCKETS: [&str; 2] = ["docker.sock", "containerd.sock"];

impl HostPolicy {
    /// # Errors
    /// `forbidden`, naming the option and how the host's owner would allow it.
    pub fn check(&self, job: &Job) -> Result<(), TargetError> {
        for network in &job.container.networks {
            if network == "host" || network.starts_with("container:") {
                return Err(forbidden(
                    &format!("container.networks: the network mode {network} is not allowed on this host"),
                    "use a network of its own and publish the ports",
                ));
            }
        }
        for (index, volume) in job.container.volumes.iter().enumerate() {
            if volume.is_bind_mount() {
                self.check_bind_mount(index, Path::new(&volume.source))?;
            } else if volume.source.contains(['/', '\\']) {
                return Err(forbidden(
                    &format!("container.volumes[{index}].source: a volume's name has no slash"),
                    "use a plain name for a volume or an absolute path for a bind mount",
                ));
            }
        }
        Ok(())
    }

    fn check_bind_mount(&self, index: usize, source: &Path) -> Result<(), TargetError> {
        let field = format!("container.volumes[{index}].source");
        let plain = source.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !plain {
            return Err(forbidden(
                &format!("{field}: the path {} is not plain", source.display()),
                "write the path without . and ..",
            ));
        }
        // A symbolic link in an allowed directory must not lead out of it. A path that does not exist cannot be one, and
        // Docker refuses to mount it. On a remote engine's paths this looks in vain and changes nothing.
        let real = source.canonicalize().unwrap_or_else(|_| source.to_owned());
        if [source, &real].iter().any(|path| reaches_socket(path)) {
            return Err(forbidden(
                &format!("{field}: {} would give the container control of the host", source.display()),
                "remove the mount",
            ));
        }
        let allowed = |path: &Path| {
            self.allowed_bind_mounts
                .iter()
                .any(|root| path.starts_with(root) || root.canonicalize().is_ok_and(|root| path.starts_with(root)))
        };
        if !allowed(source) || !allowed(&real) {
            return Err(forbidden(
                &format!("{field}: the path {} is not among this host's allowed bind mounts", source.display()),
                "use a named volume, or add the path to allowed_bind_mounts in the host's own configuration",
            ));
        }
        Ok(())
    }
}

fn reaches_socket(path: &Path) -> bool {
    path.file_name().is_some_and(|name| SOCKETS.iter().any(|socket| name == *socket))
        || ["/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock"]
            .iter()
            .any(|socket| Path::new(socket).starts_with(path))
}

fn forbidden(message: &str, suggestion: &str) -> TargetError {
    TargetError {
        code: ErrorCode::Forbidden,
        message: message.to_owned(),
        suggestion: suggestion.to_owned(),
        exit_code: None,
        oom_killed: false,
        log_tail: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_domain::application::Volume;

    use super::*;
    use crate::samples;

    fn refusal(policy: &HostPolicy, change: impl FnOnce(&mut Job)) -> Option<String> {
        let mut job = samples::job();
        change(&mut job);
        policy.check(&job).err().map(|error| {
            assert_eq!(error.code, ErrorCode::Forbidden);
            error.message
        })
    }

    #[test]
    fn only_the_hosts_own_networks_are_allowed() {
        let check = |network: &str, allowed: bool| {
            let refused = refusal(&HostPolicy::default(), |job| job.container.networks = vec![network.to_owned()]);
            assert_eq!(refused.is_none(), allowed, "{network}");
        };
        check("shop", true);
        check("bridge", true);
        check("host", false);
        check("container:database", false);
    }

    #[test]
    fn bind_mounts_stay_inside_the_allow_list() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("data");
        std::fs::create_dir(&inside).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("link")).unwrap();
        let policy = HostPolicy { allowed_bind_mounts: vec![root.path().to_owned()], ..HostPolicy::default() };
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        let check = |source: &str, allowed: bool| {
            let volume = Volume { source: source.to_owned(), target: "/data".to_owned(), read_only: false };
            let refused = refusal(&policy, |job| job.container.volumes = vec![volume]);
            assert_eq!(refused.is_none(), allowed, "{source}: {refused:?}");
        };
        check("data", true);
        check("../data", false);
        check(&path("data"), true);
        check(&path("not-yet"), true);
        check(&path("data/../../../etc"), false);
        check(&path("link"), false);
        check(&path("link/ssh"), false);
        check(&format!("{}-other", root.path().display()), false);
        check("/etc", false);
        check("/", false);
        check("/var/run/docker.sock", false);
        check(&path("docker.sock"), false);
    }

    #[test]
    fn the_socket_is_refused_whatever_is_allowed() {
        let policy = HostPolicy { allowed_bind_mounts: vec![PathBuf::from("/")], ..HostPolicy::default() };
        for source in ["/", "/run", "/var/run", "/var/run/docker.sock"] {
            let volume = Volume { source: source.to_owned(), target: "/data".to_owned(), read_only: true };
            assert!(refusal(&policy, |job| job.container.volumes = vec![volume]).is_some(), "{source}");
        }
    }
}
