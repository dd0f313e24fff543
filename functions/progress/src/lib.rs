//! Folds the hosts' reports into their deployments, starts the next wave, and hands the application's turn on.
//!
//! A report holds ids only: what happened is read from the assignment, which only its host can write. Any report may come
//! late, twice or not at all; a report that fails stays in its queue and comes again.

use std::error::Error as _;

use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use tidegate_aws::{clock, queues::Report, store::Store};

/// Each message by itself: one that fails does not hold up the others.
pub async fn handle(store: &Store, event: SqsEvent) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    for message in event.records {
        let id = message.message_id.clone().unwrap_or_default();
        if let Err(error) = fold(store, &message).await {
            tracing::error!(message.id = id, error = &*error, "a report could not be folded; it stays in its queue");
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id;
            response.batch_item_failures.push(failure);
        }
    }
    response
}

async fn fold(store: &Store, message: &SqsMessage) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let report: Report = serde_json::from_str(message.body.as_deref().unwrap_or_default())?;
    let folded = store.fold(&report, clock::now()).await;
    if let Err(error) = &folded {
        tracing::warn!(deployment.id = %report.deployment_id, host.name = %report.host, cause = error.source(), "not folded");
    }
    Ok(folded?)
}
