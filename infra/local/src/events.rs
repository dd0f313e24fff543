//! What the event source mapping does between a queue and a function.

use std::{collections::HashSet, future::Future, time::Duration};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use tidegate_aws::{
    clients::Clients,
    queues::{Queue, Received},
};
use tokio::sync::watch;

const WAIT: Duration = Duration::from_secs(20);
/// After an error of the queue, so that its absence does not fill the log.
const PAUSE: Duration = Duration::from_secs(1);

/// Polls the queue and calls the function with what comes, up to ten messages at a time, until `stop` becomes true or
/// its sender is gone. The batch in hand is finished first.
///
/// What the function does not name as failed is deleted; what failed comes again after the queue's visibility time-out,
/// and everything does if the function panics or this process dies.
pub async fn deliver<F>(
    clients: &Clients,
    queue_url: &str,
    function: impl Fn(SqsEvent) -> F + Send + Sync,
    mut stop: watch::Receiver<bool>,
) where
    F: Future<Output = SqsBatchResponse> + Send + 'static,
{
    let queue = Queue::new(clients.sqs.clone(), queue_url.to_owned());
    loop {
        let received = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            received = queue.receive(WAIT) => received,
        };
        match received {
            Ok(messages) if messages.is_empty() => {}
            Ok(messages) => handle(&queue, messages, &function).await,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot receive from the queue");
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}

async fn handle<F>(queue: &Queue, messages: Vec<Received>, function: &impl Fn(SqsEvent) -> F)
where
    F: Future<Output = SqsBatchResponse> + Send + 'static,
{
    // A task of its own: a panic ends the invocation, as on Lambda, not the polling.
    let failed: HashSet<String> = match tokio::spawn(function(event(&messages))).await {
        Ok(response) => response.batch_item_failures.into_iter().map(|item| item.item_identifier).collect(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the function panicked");
            return;
        }
    };
    for message in messages.iter().filter(|message| !failed.contains(&message.receipt)) {
        if let Err(error) = queue.delete(message).await {
            // It comes again, which the function must bear anyway.
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot delete a message");
        }
    }
}

/// The receipt stands for the message's id too: it is as unique, and the function only gives it back.
fn event(messages: &[Received]) -> SqsEvent {
    let mut event = SqsEvent::default();
    event.records = messages
        .iter()
        .map(|received| {
            let mut message = SqsMessage::default();
            message.message_id = Some(received.receipt.clone());
            message.receipt_handle = Some(received.receipt.clone());
            message.body = Some(received.body.clone());
            message.event_source = Some("aws:sqs".to_owned());
            message
        })
        .collect();
    event
}

#[cfg(test)]
mod tests;
