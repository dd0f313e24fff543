//! Whether the ports of an application are free, found out while the old version still runs: Docker would tell only at
//! the new one's start.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
};

use tidegate_domain::{
    application::{Port, Protocol},
    assignment::TargetError,
    job::Job,
};
use tokio::net::TcpSocket;

use crate::docker::{Container, failure};

/// `own` are the ids of the application's containers, which give their ports up; `is_local` whether the engine publishes
/// on this machine, so that other processes can be seen.
///
/// # Errors
/// `port-taken`, naming the port and its holder.
pub(crate) fn check_free(job: &Job, containers: &[Container], own: &[&str], is_local: bool) -> Result<(), TargetError> {
    for port in &job.ports {
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
    Ok(())
}

/// Nothing ever listens here, so that no client is answered by mistake. Any other error than "in use" (no right to a low
/// port, an address that this machine does not have) is Docker's to tell.
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

    use tidegate_domain::assignment::ErrorCode;

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
}
