//! What came in through the intake queue: issues that ask for a deployment, decisions that people write on them, and what
//! issues are told of their deployments.
//!
//! A message only says that there is something. All is read anew, every step can be done twice, and what is begun by one
//! run is found by the next. Whatever GitHub does, nothing is lost for a day: what cannot be done now is put off.

mod decision;
mod pass;
mod request;
mod tell;

use std::time::Duration;

use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tidegate_aws::{
    clock,
    error::StoreError,
    intake::{Intake, IntakeMessage},
    random,
    store::Store,
};
use tidegate_gate::{Gate, Unreachable};
use tidegate_github::GithubError;

use crate::pass::Pass;

/// One item takes at most so long: less than its issue's lease, and than the function may.
const PATIENCE: Duration = Duration::from_secs(50);
/// Between two tries where GitHub names no time: half of what has passed since the first one, within these.
const SHORTEST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// By so much at most what GitHub has put off is spread.
const MOST_SPREAD: SignedDuration = SignedDuration::from_secs(30);
/// Until another one that is at the same issue is probably done.
const BUSY: SignedDuration = SignedDuration::from_secs(2);

/// What is needed to handle what came in. Clones share clients and caches.
#[derive(Debug, Clone)]
pub struct Validation {
    store: Store,
    gate: Gate,
    /// For links, without a slash at the end.
    public_url: String,
}

impl Validation {
    pub fn new(store: Store, public_url: &str) -> Self {
        let public_url = public_url.trim_end_matches('/').to_owned();
        Self { gate: Gate::new(store.clone()), store, public_url }
    }
}

/// Why something is not done yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("GitHub did not do it")]
    Github(#[from] GithubError),
    #[error("the store did not do it")]
    Store(#[from] StoreError),
    /// Somebody else is at the issue, or the checks took too long, or the queue has no place for what was approved. An
    /// issue's own request does not wait for a place: it is refused.
    #[error("it has to wait for {0:#}")]
    Wait(SignedDuration),
    #[error("the tenant has no GitHub credentials")]
    NoCredentials,
}

impl From<Unreachable> for Trouble {
    fn from(why: Unreachable) -> Self {
        match why {
            Unreachable::Github(error) => Self::Github(error),
            Unreachable::Store(error) => Self::Store(error),
            Unreachable::NoCredentials => Self::NoCredentials,
        }
    }
}

/// Each message by itself: one that fails does not hold up the others.
///
/// What GitHub does not do now is no failure of the message: it is put off until a time, on record, and said again then.
pub async fn handle(validation: &Validation, event: SqsEvent) -> SqsBatchResponse {
    let handled = event.records.into_iter().map(|message| async move {
        let id = message.message_id.clone().unwrap_or_default();
        match one(validation, &message).await {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(
                    message.id = id,
                    error = &*error,
                    cause = error.source(),
                    "a message could not be handled; it stays in its queue"
                );
                let mut failure = BatchItemFailure::default();
                failure.item_identifier = id;
                Some(failure)
            }
        }
    });
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = join_all(handled).await.into_iter().flatten().collect();
    response
}

async fn one(validation: &Validation, message: &SqsMessage) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let message: IntakeMessage = serde_json::from_str(message.body.as_deref().unwrap_or_default())?;
    Ok(Box::pin(validation.look_at(&message)).await?)
}

impl Validation {
    async fn look_at(&self, message: &IntakeMessage) -> Result<(), StoreError> {
        let now = clock::now();
        // A second message finds nothing.
        let Some(intake) = self.store.intake(message).await? else { return Ok(()) };
        // It is said again when its time has come.
        if intake.not_before.is_some_and(|time| time > now) {
            return Ok(());
        }
        let pass = Pass { validation: self, message, intake: &intake };
        if intake.is_too_old(now) {
            return pass.give_up().await;
        }
        let trouble = match tokio::time::timeout(PATIENCE, Box::pin(pass.run())).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Trouble::Store(error))) => return Err(error),
            Ok(Err(trouble)) => trouble,
            Err(_) => Trouble::Wait(BUSY),
        };
        let now = clock::now();
        let Some(until) = retry_at(&trouble, &intake, now) else {
            tracing::error!(tenant = %message.tenant, item = ?message.id, error = &trouble as &dyn std::error::Error,
                "cannot be done, and is left");
            return match trouble {
                // Whoever asked is still there, and finds in the history that nothing came of it.
                Trouble::Github(GithubError::Refused { .. }) => pass.end_on_record().await,
                _ => self.store.close_intake(message, &intake).await,
            };
        };
        tracing::warn!(tenant = %message.tenant, item = ?message.id, attempt = intake.attempts, %until,
            error = &trouble as &dyn std::error::Error, "put off");
        self.store.postpone_intake(message, &intake, until, now).await
    }
}

/// What waits for the same time is not to come back all at once.
fn spread(pause: SignedDuration) -> SignedDuration {
    let most = (pause / 2).clamp(SignedDuration::ZERO, MOST_SPREAD);
    most * i32::from(u16::from_be_bytes(random::bytes()) / 2) / i32::from(i16::MAX)
}

/// When to try again; none if that would change nothing.
fn retry_at(trouble: &Trouble, intake: &Intake, now: Timestamp) -> Option<Timestamp> {
    let backoff = (now.duration_since(intake.created_at) / 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    match trouble {
        Trouble::Github(GithubError::RateLimited { until }) => Some(*until + spread(until.duration_since(now))),
        Trouble::Github(GithubError::Gone | GithubError::Refused { .. }) => None,
        // What a person can mend, mostly a credential, is tried again: nothing is lost meanwhile.
        Trouble::Github(
            GithubError::Away { .. }
            | GithubError::Denied { .. }
            | GithubError::NotFound
            | GithubError::BadKey
            | GithubError::BadAddress,
        )
        | Trouble::NoCredentials
        | Trouble::Store(_) => Some(now + backoff),
        Trouble::Wait(time) => Some(now + *time),
    }
}
