//! A server that can be taken away as if its machine had lost its network, and given back.

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use tokio::{net::TcpListener, runtime::Runtime};

type Serve = dyn Fn(TcpListener) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// A server on a loopback port of its own, and on threads of its own: stopping it must also end the connections that
/// clients keep open, and only the end of a runtime ends those.
pub(crate) struct Engine {
    name: &'static str,
    address: SocketAddr,
    serve: Box<Serve>,
    runtime: Mutex<Option<Runtime>>,
}

impl Engine {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) fn start<F>(
        name: &'static str,
        serve: impl Fn(TcpListener) -> F + Send + Sync + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let serve: Box<Serve> = Box::new(move |listener| Box::pin(serve(listener)));
        let engine = Self { name, address, serve, runtime: Mutex::new(None) };
        engine.run(listener)?;
        Ok(engine)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on connections are refused, and those that were open are cut.
    pub(crate) fn stop(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }

    /// Listens on the same port again; nothing if it still does.
    pub(crate) fn resume(&self) -> io::Result<()> {
        if self.runtime.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        // What `std` binds reuses an address whose old connections linger.
        self.run(std::net::TcpListener::bind(self.address)?)
    }

    fn run(&self, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(self.name)
            .enable_all()
            .build()?;
        let serving = {
            let _inside = runtime.enter();
            (self.serve)(TcpListener::from_std(listener)?)
        };
        runtime.spawn(serving);
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(runtime);
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}
