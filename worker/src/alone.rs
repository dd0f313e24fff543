//! One worker per host, whatever data folder it was given.
//!
//! The lock in the data folder is what a restart rests on: whoever holds it knows that the process before is dead, and
//! takes over at once. Two processes with two folders would both take that for granted, and bring the application "back" in
//! the middle of each other's switch. So a name of the host is held as well, which the kernel gives up the moment that a
//! process dies: an abstract Unix socket, which all processes of one network namespace share.

use std::{io, os::unix::fs::MetadataExt as _, path::PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Holds the host's name until it is dropped.
#[derive(Debug)]
pub(crate) struct Alone {
    _name: Option<UnixListener>,
}

/// `label` names the host and the installation. None: a worker of this user, or of root, has it.
///
/// Anybody on the machine can take such a name. Whoever is neither of these cannot be a worker of this host, and must not
/// be able to keep it from starting.
///
/// # Errors
/// This process cannot have a Unix socket.
pub(crate) async fn hold(label: &str) -> io::Result<Option<Alone>> {
    let name = name_of(label);
    match UnixListener::bind(&name) {
        Ok(name) => Ok(Some(Alone { _name: Some(name) })),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&name).await {
            Some(uid) if uid != 0 && uid != own_uid()? => {
                tracing::warn!(holder.uid = uid, "somebody else holds this host's name; going on without it");
                Ok(Some(Alone { _name: None }))
            }
            Some(_) | None => Ok(None),
        },
        Err(error) => Err(error),
    }
}

/// User of the process that listens there; none if it cannot be asked, as a full backlog is nobody's proof.
async fn holder(name: &PathBuf) -> Option<u32> {
    Some(UnixStream::connect(name).await.ok()?.peer_cred().ok()?.uid())
}

fn own_uid() -> io::Result<u32> {
    Ok(std::fs::metadata("/proc/self")?.uid())
}

/// A leading zero makes a name abstract. It may be 107 bytes long, which a label may be longer than.
fn name_of(label: &str) -> PathBuf {
    // FNV-1a, 64 bit: the same in every build. http://www.isthe.com/chongo/tech/comp/fnv/
    let hash = label
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    PathBuf::from(format!("\0tidegate-worker-{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_has_one_worker_and_another_host_another() {
        let of = |host: &str| format!("test-{}/{host}", std::process::id());
        let first = hold(&of("a")).await.unwrap();
        assert!(first.is_some());
        assert!(hold(&of("a")).await.unwrap().is_none());
        assert!(hold(&of("b")).await.unwrap().is_some());
        drop(first);
        assert!(hold(&of("a")).await.unwrap().is_some());
    }
}
