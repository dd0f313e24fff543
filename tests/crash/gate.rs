//! Between Docker and a registry: lets connections through, or keeps them waiting.

use std::net::SocketAddr;

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub(crate) struct Gate {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Gate {
    /// Open.
    pub(crate) async fn before(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_open, seen) = watch::channel(true);
        let serving = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut seen = seen.clone();
                tokio::spawn(async move {
                    if seen.wait_for(|open| *open).await.is_ok()
                        && let Ok(mut server) = TcpStream::connect(registry).await
                    {
                        // One side's end is the end of a connection.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self { address, is_open, serving }
    }

    /// To close it from elsewhere.
    pub(crate) fn closing(&self) -> Closing {
        Closing(self.is_open.clone())
    }

    /// As part of an image's name.
    pub(crate) fn server(&self) -> String {
        self.address.to_string()
    }

    /// New connections are accepted, and then nothing comes.
    pub(crate) fn close(&self) {
        self.is_open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }
}

#[derive(Clone)]
pub(crate) struct Closing(watch::Sender<bool>);

impl Closing {
    pub(crate) fn close(&self) {
        self.0.send_replace(false);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
