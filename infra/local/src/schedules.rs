//! What the scheduler does for a function that is called once a minute.

use std::{future::Future, time::Duration};

use tokio::{sync::watch, time::MissedTickBehavior};

const MINUTE: Duration = Duration::from_mins(1);

/// Calls the function now and then once a minute, one call at a time, until `stop` becomes true or its sender is gone.
/// The call in hand is finished first.
pub async fn each_minute<F>(function: impl Fn() -> F, mut stop: watch::Receiver<bool>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut minutes = tokio::time::interval(MINUTE);
    // What took longer than a minute is not made up for.
    minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            _ = minutes.tick() => {}
        }
        // A task of its own: a panic ends the invocation, as on Lambda, not the schedule.
        if let Err(error) = tokio::spawn(function()).await {
            tracing::error!(error = &error as &dyn std::error::Error, "the function panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn it_is_called_at_once_and_not_after_the_stop() {
        let calls = Arc::new(AtomicU32::new(0));
        let (stop, stopped) = watch::channel(false);
        let function = || {
            let (calls, stop) = (calls.clone(), stop.clone());
            async move {
                calls.fetch_add(1, Ordering::Relaxed);
                stop.send(true).unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), each_minute(function, stopped.clone())).await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        each_minute(function, stopped).await;
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
