//! A service manager, as far as a service talks to it: the socket of `sd_notify(3)`.

use std::time::Duration;

use tempfile::TempDir;
use tokio::{
    net::UnixDatagram,
    time::{Instant, timeout_at},
};

use crate::support::own_worker::OwnWorker;

/// Longer than a start takes.
const BOUND: Duration = Duration::from_mins(1);

pub(super) struct Manager {
    socket: UnixDatagram,
    _folder: TempDir,
}

impl Manager {
    /// Of a worker that is started next.
    pub(super) fn of(worker: &mut OwnWorker, watchdog: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        worker.set("NOTIFY_SOCKET", path.to_str().unwrap());
        worker.set("WATCHDOG_USEC", watchdog.as_micros().to_string());
        Self { socket, _folder: folder }
    }

    /// Waits until it hears the line, whatever else is said before.
    pub(super) async fn hears(&self, line: &str) {
        assert!(self.hears_within(line, BOUND).await, "never heard: {line}");
    }

    pub(super) async fn hears_within(&self, line: &str, bound: Duration) -> bool {
        let until = Instant::now() + bound;
        let mut buffer = [0; 4096];
        loop {
            match timeout_at(until, self.socket.recv(&mut buffer)).await {
                Ok(received) => {
                    let said = String::from_utf8_lossy(&buffer[..received.unwrap()]).into_owned();
                    if said.lines().any(|said| said == line) {
                        return true;
                    }
                }
                Err(_) => return false,
            }
        }
    }
}
