//! Stopping a container so that another can take its place at once.
//!
//! The engine answers a stop only after it has taken the container's network and file system apart, which takes longer
//! than most processes need to end. The published ports are given up first of all, and the next container's start does not
//! need the rest, so it is asked for as soon as the process has ended.

use std::{collections::HashMap, time::Duration};

use bollard::query_parameters::{EventsOptionsBuilder, StopContainerOptionsBuilder};
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use super::{Engine, Error, SLOW, within};

/// A container whose process has ended. The engine may still be clearing up after it.
#[derive(Debug)]
pub struct Stopped {
    clearing: Option<JoinHandle<Result<(), Error>>>,
}

impl Stopped {
    /// Waits until the engine has cleared up.
    pub async fn cleared(self) {
        if let Some(clearing) = self.clearing {
            // The process has ended, whatever is said of the rest.
            let _ = clearing.await;
        }
    }
}

impl Engine {
    /// SIGTERM, and SIGKILL after `grace`. Does nothing to a container that is stopped.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<Stopped, Error> {
        let died = self.dies(id);
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let (docker, id) = (self.docker.clone(), id.to_owned());
        // Goes on by itself once the process has ended.
        let mut stopping =
            tokio::spawn(async move { within(grace + SLOW, docker.stop_container(&id, Some(options))).await });
        tokio::select! {
            answer = &mut stopping => match answer {
                Ok(answer) => answer.map(|()| Stopped { clearing: None }),
                // The runtime is being shut down, and this with it.
                Err(error) => Err(Error::Away(Box::new(error))),
            },
            () = died => Ok(Stopped { clearing: Some(stopping) }),
        }
    }

    /// Starts a container in the place of one that was stopped.
    pub async fn start_after(&self, id: &str, stopped: Option<Stopped>) -> Result<(), Error> {
        let started = self.start(id).await;
        match (started, stopped.and_then(|stopped| stopped.clearing)) {
            (Err(error), Some(clearing)) if !error.is_passing() => {
                // Something was not given up yet. What it answers once everything is, counts.
                let _ = clearing.await;
                self.start(id).await
            }
            (started, _) => started,
        }
    }

    /// Ends when the container's process does. Without an answer of the engine, never.
    async fn dies(&self, id: &str) {
        let filter = |value: &str| vec![value.to_owned()];
        let filters = HashMap::from([("container", filter(id)), ("event", filter("die"))]);
        let mut events = self.docker.events(Some(EventsOptionsBuilder::default().filters(&filters).build()));
        match events.next().await {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}
