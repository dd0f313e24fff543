//! Whether the ports of an application are free, found out while the old version still runs: Docker would tell only at
//! the new one's start.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use tidegate_domain::{
    application::{Port, Probe, Protocol},
    assignment::TargetError,
    job::Job,
};
use tokio::net::TcpSocket;

use crate::docker::{Container, failure};

/// `own` are the ids of the application's containers, which give their ports up; `is_local` whether the engine publishes
/// on this machine, so that other processes can be seen.
///
/// # Errors
/// `port-taken`, naming the port and its holder; `start-failed` for an address that this machine does not have.
pub(crate) fn check_free(job: &Job, containers: &[Container], own: &[&str], is_local: bool) -> Result<(), TargetError> {
    for port in &job.ports {
        if is_local && is_elsewhere(port) {
            return Err(failure::no_such_address(port));
        }
        if let Some(holder) = failure::holder(port, containers, own) {
            return Err(failure::port_taken(port, Some(&holder.name)));
        }
        let is_ours = containers
            .iter()
            .filter(|container| own.contains(&container.id.as_str()))
            .any(|container| container.published.iter().any(|published| published.overlaps(port)));
        if is_local && !is_ours && is_bound(port) {
            return Err(failure::port_taken(port, None));
        }
    }
    match on_host_network(job) {
        Some(port) if is_local && !containers.iter().any(|c| c.running && own.contains(&c.id.as_str())) => {
            match failure::holder(&port, containers, own) {
                Some(holder) => Err(failure::port_taken(&port, Some(&holder.name))),
                None if is_bound(&port) => Err(failure::port_taken(&port, None)),
                None => Ok(()),
            }
        }
        Some(_) | None => Ok(()),
    }
}

/// On the host's network the application binds by itself, and only its health check tells where. Whatever listened there
/// already would be taken for it. While a version of its own runs, that one does.
fn on_host_network(job: &Job) -> Option<Port> {
    let probe = job.health_check.as_ref().map(|check| &check.probe).filter(|_| job.container.uses_host_network());
    match probe? {
        Probe::Http { port, .. } | Probe::Tcp { port } => {
            Some(Port { host: *port, container: *port, protocol: Protocol::Tcp, host_ip: Ipv4Addr::LOCALHOST.into() })
        }
        Probe::Command { .. } | Probe::None => None,
    }
}

/// Its address is none of this machine's. Asked with a port that the system chooses: whether the port itself is free does
/// not matter here.
fn is_elsewhere(port: &Port) -> bool {
    let bound = UdpSocket::bind(SocketAddr::new(port.host_ip, 0));
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

/// Nothing ever listens here, so that no client is answered by mistake. Any other error than "in use" (no right to a low
/// port) is Docker's to tell.
fn is_bound(port: &Port) -> bool {
    let address = SocketAddr::new(port.host_ip, port.host);
    let bound = match port.protocol {
        Protocol::Udp => UdpSocket::bind(address).map(drop),
        Protocol::Tcp => {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
            // As Docker binds it: what is merely waiting out its last connections is no holder.
            socket.and_then(|socket| socket.set_reuseaddr(true).and_then(|()| socket.bind(address)))
        }
    };
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidegate_domain::{application::HealthCheck, assignment::ErrorCode};

    use super::*;
    use crate::{docker::Published, samples};

    #[tokio::test]
    async fn a_taken_port_is_told_with_its_holder() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().port();
        let mut job = samples::job();
        let port = Port { host, container: 80, protocol: Protocol::Tcp, host_ip: "127.0.0.1".parse().unwrap() };
        job.ports = vec![port];
        let told = check_free(&job, &[], &[], true).unwrap_err();
        assert_eq!(told.code, ErrorCode::PortTaken);
        assert!(told.message.contains("another process"), "{}", told.message);
        assert!(check_free(&job, &[], &[], false).is_ok());

        let published = Published { ip: "0.0.0.0".parse().unwrap(), port: host, protocol: Protocol::Tcp };
        let container = Container {
            id: "1".to_owned(),
            name: "other".to_owned(),
            labels: BTreeMap::new(),
            running: true,
            image_id: String::new(),
            published: vec![published],
        };
        let told = check_free(&job, std::slice::from_ref(&container), &[], true).unwrap_err();
        assert!(told.message.contains("the container other"), "{}", told.message);
        assert!(check_free(&job, &[container], &["1"], true).is_ok());

        drop(listener);
        assert!(check_free(&job, &[], &[], true).is_ok());
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_told_and_one_of_this_one_is_not() {
        let mut job = samples::job();
        let port = |ip: &str| Port { host: 1, container: 80, protocol: Protocol::Tcp, host_ip: ip.parse().unwrap() };
        // Kept for documents (RFC 5737), so that no machine has it.
        job.ports = vec![port("203.0.113.9")];
        let told = check_free(&job, &[], &[], true).unwrap_err();
        assert_eq!(told.code, ErrorCode::StartFailed);
        assert!(told.message.contains("203.0.113.9"), "{}", told.message);
        assert!(check_free(&job, &[], &[], false).is_ok(), "another machine's ports cannot be seen");
        job.ports = vec![port("127.0.0.9"), port("0.0.0.0")];
        assert!(check_free(&job, &[], &[], true).is_ok());
    }

    #[tokio::test]
    async fn on_the_hosts_network_the_port_of_the_health_check_is_looked_at() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut job = samples::job();
        job.health_check = Some(HealthCheck {
            probe: Probe::Tcp { port },
            interval_ms: 100,
            timeout_ms: 100,
            retries: 1,
            start_period_ms: 0,
            deadline_ms: 1_000,
        });
        assert!(check_free(&job, &[], &[], true).is_ok(), "a container's own network has all ports free");
        job.container.networks = vec!["host".to_owned()];
        let told = check_free(&job, &[], &[], true).unwrap_err();
        assert_eq!(told.code, ErrorCode::PortTaken);
        let own = Container {
            id: "1".to_owned(),
            name: "shop".to_owned(),
            labels: BTreeMap::new(),
            running: true,
            image_id: String::new(),
            published: Vec::new(),
        };
        assert!(check_free(&job, &[own], &["1"], true).is_ok(), "the old version listens there");
        drop(listener);
        assert!(check_free(&job, &[], &[], true).is_ok());
    }
}
