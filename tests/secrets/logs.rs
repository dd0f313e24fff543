//! Keeps what is logged: by this process, and by those that a test starts.

use std::{
    io::{self, Read, Write},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread::JoinHandle,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::support::binaries::Process;

/// All of our own crates, and what the libraries say unless they are asked for more.
pub(crate) const FILTER: &str = "info,tidegate=trace";

#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything that this process logs from now on, on whatever thread, other tests' words included.
    pub(crate) fn of_this_process() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let start = || {
            let log = Self::default();
            let subscriber =
                tracing_subscriber::fmt().with_writer(log.clone()).with_env_filter(EnvFilter::new(FILTER)).finish();
            tracing::subscriber::set_global_default(subscriber).expect("no other test keeps this process's log");
            log
        };
        LOG.get_or_init(start).clone()
    }

    fn drain(&self, mut from: impl Read + Send + 'static) -> JoinHandle<()> {
        let mut log = self.clone();
        // Ends with the process, whose end closes the pipe.
        std::thread::spawn(move || {
            io::copy(&mut from, &mut log).unwrap();
        })
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A process whose output is kept.
pub(crate) struct Logged {
    process: Process,
    log: Log,
    drains: Vec<JoinHandle<()>>,
}

impl Logged {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::default();
        let drains = vec![log.drain(child.stdout.take().unwrap()), log.drain(child.stderr.take().unwrap())];
        Self { process: Process(child), log, drains }
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Kills it; all that it has said.
    pub(crate) fn end(self) -> Vec<u8> {
        self.process.kill();
        for drain in self.drains {
            drain.join().unwrap();
        }
        self.log.text()
    }
}
