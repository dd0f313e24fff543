//! What an error of the engine means to the person who deploys: a code, the thing it is about, and the way out.
//!
//! Docker tells most causes in words only. The phrases looked for are those of Docker Engine 20.10 to 28 and of the
//! distribution specification's error codes; what matches none of them keeps Docker's own words.

use std::error::Error as _;

use tidegate_domain::{
    application::Port,
    assignment::{ErrorCode, Running, TargetError},
    job::Job,
};

use super::{Container, Error};

const CREATE_NETWORK: &str = "create the network on this host (docker network create), or correct its name";

/// Of a pull: the registry's fault, the credentials', the image's, or the host's.
pub fn pull(error: &Error, job: &Job) -> TargetError {
    let image = job.image.at(&job.version);
    let server = job.image.server();
    let (status, message) = match error {
        Error::Refused { status, message } => (*status, message.to_lowercase()),
        // The engine answers at once unless it waits for the registry itself.
        Error::Late(_) => return registry_unavailable(job, "it did not answer in time"),
        Error::Away(_) | Error::Unreadable(_) => return engine(error),
    };
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    if says(&["no space left on device"]) {
        return disk_full(&message);
    }
    let denied = ["unauthorized", "authentication required", "no basic auth credentials", "denied", "forbidden"];
    if matches!(status, 401 | 403) || says(&denied) || says(&["incorrect username or password"]) {
        let suggestion = match &job.credentials {
            None => "register the registry with a user and password, and choose it in the application",
            Some(own) if own.server != *server => {
                "the application's registry is another server than its image's: register this one, and choose it"
            }
            Some(_) => "check the registered user and password, and that this user may pull the image",
        };
        let message = format!("the registry {server} refuses access to {image}");
        return TargetError::new(ErrorCode::RegistryDenied, message, suggestion);
    }
    if says(&["toomanyrequests", "too many requests", "rate limit"]) {
        return registry_unavailable(job, "it limits the rate of pulls");
    }
    let unknown =
        ["manifest unknown", "blob unknown", "name unknown", "not found", "does not exist", "no such manifest"];
    let away =
        ["no such host", "connection refused", "i/o timeout", "dial tcp", "tls", "x509", "http response to https"];
    if !says(&away) && (status == 404 || says(&unknown)) {
        return TargetError::new(
            ErrorCode::ImageNotFound,
            format!("the registry {server} has no image {image}"),
            "push the version, or deploy one that was pushed",
        );
    }
    if says(&["no matching manifest"]) {
        let message = format!("the image {image} does not exist for this host's kind of processor");
        return TargetError::new(ErrorCode::ImageNotFound, message, "build it for this platform too");
    }
    let Error::Refused { message, .. } = error else { return engine(error) };
    registry_unavailable(job, message)
}

fn registry_unavailable(job: &Job, why: &str) -> TargetError {
    let (server, image) = (job.image.server(), job.image.at(&job.version));
    TargetError::new(
        ErrorCode::RegistryUnavailable,
        format!("the registry {server} cannot deliver {image}: {why}"),
        "check that the registry is up and that this host reaches it, then deploy again",
    )
}

/// Of making a container.
pub fn create(error: &Error, name: &str, job: &Job) -> TargetError {
    let Error::Refused { status, message } = error else { return engine(error) };
    if *status == 409 && message.contains("already in use") {
        return name_taken(name);
    }
    if *status == 404 && message.contains("No such image") {
        return TargetError::new(
            ErrorCode::ImageNotFound,
            format!("the image {} was removed from this host while it was deployed", job.image.at(&job.version)),
            "deploy again",
        );
    }
    start(error, job, &[])
}

/// Neither the new version nor the one before. `error` is why the new one was given up.
pub fn restore(error: TargetError, why: &str) -> TargetError {
    let message = format!("{}; and the way back failed: {why}", error.message);
    let suggestion = "look at the application's containers on the host (docker ps -a), and start what is to run";
    TargetError { code: ErrorCode::RestoreFailed, message, suggestion: suggestion.to_owned(), ..error }
}

/// The version before has its place again, but for its name. `error` is why the new one was given up.
pub fn name_not_back(error: TargetError, name: &str, running: Running) -> TargetError {
    let old = if running == Running::None { "does not run" } else { "runs again" };
    let message = format!(
        "the old version {old}, but cannot have its name back: a container named {name} exists on this host that is not \
         this application's. Before that: {}",
        error.message
    );
    let suggestion = format!(
        "remove or rename that container (docker inspect {name} tells whose it is); the old version has its name back \
         within a minute"
    );
    TargetError { code: ErrorCode::RestoreFailed, message, suggestion, ..error }
}

/// Somebody else's container has the name.
pub fn name_taken(name: &str) -> TargetError {
    TargetError::new(
        ErrorCode::NameTaken,
        format!("a container named {name} exists on this host that is not this application's"),
        format!("see whose it is (docker inspect {name}); remove or rename it, or give the application another name"),
    )
}

/// Of starting a container. `others` are the engine's containers, to name the one that holds a port.
pub fn start(error: &Error, job: &Job, others: &[Container]) -> TargetError {
    let Error::Refused { message, .. } = error else { return engine(error) };
    if message.contains("no space left on device") {
        return disk_full(message);
    }
    if ["port is already allocated", "address already in use"].iter().any(|phrase| message.contains(phrase)) {
        let port = job.ports.iter().find(|port| names_port(message, port)).or(job.ports.first());
        return match port {
            Some(port) => port_taken(port, holder(port, others, &[]).map(|container| container.name.as_str())),
            None => start_failed(message, "free the port, or publish another one"),
        };
    }
    if message.contains("network") && message.contains("not found") {
        return start_failed(message, CREATE_NETWORK);
    }
    if message.contains("bind source path does not exist") {
        return start_failed(message, "make the folder or file on this host, or correct the volume's source");
    }
    if message.contains("unable to apply caps") {
        return start_failed(
            message,
            "this engine does not have those capabilities itself; name the ones that the application needs in capAdd, in place of \
             privileged or ALL",
        );
    }
    if message.contains("unable to find user") || message.contains("unable to find group") {
        return start_failed(message, "correct the application's user: the image has none of that name");
    }
    if message.contains("executable file not found") || message.contains("no such file or directory") {
        return start_failed(message, "correct the application's command or entrypoint, or the image");
    }
    start_failed(message, "correct the container's options as the message says, then deploy again")
}

/// Who publishes a port that this one overlaps with, leaving out containers by id.
pub fn holder<'a>(port: &Port, containers: &'a [Container], except: &[&str]) -> Option<&'a Container> {
    containers
        .iter()
        .filter(|container| !except.contains(&container.id.as_str()))
        .find(|container| container.published.iter().any(|published| published.overlaps(port)))
}

/// `holder` is a container's name; without one it is a process outside Docker.
pub fn port_taken(port: &Port, holder: Option<&str>) -> TargetError {
    let held_by = match holder {
        Some(name) => format!("the container {name}"),
        None => "another process of the host".to_owned(),
    };
    TargetError::new(
        ErrorCode::PortTaken,
        format!("the host's port {}/{} is taken by {held_by}", port.host, port.protocol.as_str()),
        "stop what uses the port, or publish another one",
    )
}

/// A port is to be published where this machine is not.
pub fn no_such_address(port: &Port) -> TargetError {
    let (ip, host) = (port.host_ip, port.host);
    start_failed(
        &format!("this host has no address {ip}, where its port {host}/{} is to be", port.protocol.as_str()),
        "correct the port's hostIp, or leave it out",
    )
}

/// The host's own network, by an id that no rule about its name sees.
pub fn host_network_by_id(id: &str) -> TargetError {
    TargetError::new(
        ErrorCode::Forbidden,
        format!("the network {id} of container.networks is the host's own one"),
        "write it as host, which publishes no ports and needs allow_host_network = true in the host's own configuration",
    )
}

/// A network that the container is to join does not exist.
pub fn network_missing(name: &str) -> TargetError {
    start_failed(&format!("network {name} not found"), CREATE_NETWORK)
}

/// Less free than the host wants to keep, in bytes.
pub fn disk_too_full(free: u64, wanted: u64) -> TargetError {
    const MIB: u64 = 1024 * 1024;
    disk_full(&format!("{} MiB are free, this host keeps {} MiB", free / MIB, wanted / MIB))
}

fn disk_full(why: &str) -> TargetError {
    TargetError::new(
        ErrorCode::DiskFull,
        format!("the host's disk is full: {why}"),
        "free some space (docker system df shows what Docker uses), then deploy again",
    )
}

fn start_failed(message: &str, suggestion: &str) -> TargetError {
    let message = format!("Docker cannot start the container: {}", message.trim());
    TargetError::new(ErrorCode::StartFailed, message, suggestion)
}

/// Of any other call; see [`refused`].
pub fn engine(error: &Error) -> TargetError {
    refused(error, "do what it was asked for")
}

/// Of a call for `what`, in the words of a step. What the engine calls its own fault may go well the next time.
pub fn refused(error: &Error, what: &str) -> TargetError {
    match error {
        Error::Refused { status, .. } => {
            let code = if *status >= 500 { ErrorCode::DockerUnavailable } else { ErrorCode::StartFailed };
            TargetError::new(
                code,
                format!("Docker cannot {what}: {error}"),
                "look into the Docker engine's log on the host (journalctl -u docker), then deploy again",
            )
        }
        Error::Away(_) | Error::Late(_) | Error::Unreadable(_) => {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            TargetError::new(
                ErrorCode::DockerUnavailable,
                format!("{error}{cause}"),
                "check on the host that Docker runs (systemctl status docker) and that the worker may use it",
            )
        }
    }
}

/// `0.0.0.0:8080`, as Docker writes a port in its message.
fn names_port(message: &str, port: &Port) -> bool {
    let number = format!(":{}", port.host);
    message.match_indices(&number).any(|(at, _)| {
        let after = message[at + number.len()..].chars().next();
        !after.is_some_and(|c| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use tidegate_domain::application::Protocol;

    use super::*;
    use crate::{docker::Published, samples};

    fn refused(status: u16, message: &str) -> Error {
        Error::Refused { status, message: message.to_owned() }
    }

    #[test]
    fn a_failed_pull_says_whose_fault_it_is() {
        let check = |status, message: &str, code: ErrorCode| {
            let told = pull(&refused(status, message), &samples::job());
            assert_eq!(told.code, code, "{status} {message}: {told:?}");
            let names_it = told.message.contains("registry.example.com:5000") || code == ErrorCode::DiskFull;
            assert!(names_it, "{}", told.message);
        };
        check(401, "errors:\nunauthorized: authentication required\n", ErrorCode::RegistryDenied);
        check(500, "Get https://r/v2/x: unauthorized: authentication required", ErrorCode::RegistryDenied);
        check(500, "Head http://r/v2/x: no basic auth credentials", ErrorCode::RegistryDenied);
        check(403, "forbidden", ErrorCode::RegistryDenied);
        check(404, "manifest for r/x:v9 not found: manifest unknown: manifest unknown", ErrorCode::ImageNotFound);
        check(500, "unknown: blob unknown", ErrorCode::ImageNotFound);
        check(404, "errors:\nmanifest unknown: manifest unknown\n", ErrorCode::ImageNotFound);
        check(
            500,
            "Get http://r/v2/: dial tcp 127.0.0.1:5000: connect: connection refused",
            ErrorCode::RegistryUnavailable,
        );
        check(500, "dial tcp: lookup registry.example.com: no such host", ErrorCode::RegistryUnavailable);
        check(500, "dial tcp: lookup registry.example.com: host not found", ErrorCode::RegistryUnavailable);
        check(503, "received unexpected HTTP status: 503 Service Unavailable", ErrorCode::RegistryUnavailable);
        check(429, "toomanyrequests: You have reached your pull rate limit", ErrorCode::RegistryUnavailable);
        check(500, "write /var/lib/docker/tmp/x: no space left on device", ErrorCode::DiskFull);
        assert_eq!(pull(&Error::Late(Duration::from_secs(1)), &samples::job()).code, ErrorCode::RegistryUnavailable);
        let away = Error::Away(Box::new(std::io::Error::other("gone")));
        assert_eq!(pull(&away, &samples::job()).code, ErrorCode::DockerUnavailable);
    }

    #[test]
    fn a_failed_start_names_the_port_and_who_holds_it() {
        let mut job = samples::job();
        let port = |host| Port { host, container: 80, protocol: Protocol::Tcp, host_ip: "0.0.0.0".parse().unwrap() };
        job.ports = vec![port(80), port(8080)];
        let other = Container {
            id: "1".to_owned(),
            name: "intruder".to_owned(),
            labels: BTreeMap::new(),
            running: true,
            image_id: String::new(),
            published: vec![Published { ip: "127.0.0.1".parse().unwrap(), port: 8080, protocol: Protocol::Tcp }],
        };
        let message = "driver failed programming external connectivity on endpoint x: Bind for 0.0.0.0:8080 failed: port is already allocated";
        let told = start(&refused(500, message), &job, std::slice::from_ref(&other));
        assert_eq!(told.message, "the host's port 8080/tcp is taken by the container intruder");
        let message = "listen tcp4 0.0.0.0:8080: bind: address already in use";
        let told = start(&refused(500, message), &job, &[]);
        assert_eq!(
            (told.code, told.message.as_str()),
            (ErrorCode::PortTaken, "the host's port 8080/tcp is taken by another process of the host")
        );
    }

    #[test]
    fn an_error_of_the_engine_names_what_it_was_asked_for_and_is_tried_again_if_it_is_its_own() {
        let told = super::refused(&refused(500, "layer store is locked"), "set the old version aside");
        assert_eq!(told.message, "Docker cannot set the old version aside: Docker answers 500: layer store is locked");
        assert!(told.code.is_worth_a_retry(), "{told:?}");
        let told = super::refused(&refused(409, "a removal is in progress"), "stop the old version");
        assert!(!told.code.is_worth_a_retry() && told.message.contains("stop the old version"), "{told:?}");
    }

    #[test]
    fn other_errors_keep_dockers_words() {
        let job = samples::job();
        let message = "OCI runtime create failed: exec: \"/nope\": stat /nope: no such file or directory: unknown";
        let told = start(&refused(400, message), &job, &[]);
        assert_eq!(told.code, ErrorCode::StartFailed);
        assert!(told.message.contains("/nope") && told.suggestion.contains("entrypoint"), "{told:?}");
        for (message, about) in [
            ("invalid mount config for type \"bind\": bind source path does not exist: /srv/x", "volume's source"),
            ("unable to find user web: no matching entries in passwd file", "user"),
            ("unable to start container process: unable to apply caps: operation not permitted", "capAdd"),
        ] {
            let told = start(&refused(400, message), &job, &[]);
            assert!(told.message.contains(message) && told.suggestion.contains(about), "{told:?}");
        }
        let conflict = "Conflict. The container name \"/shop\" is already in use by container \"0a\"";
        assert_eq!(create(&refused(409, conflict), "shop", &job).code, ErrorCode::NameTaken);
    }
}
