//! What came in from outside and is handled later: deliveries of GitHub, and notices, which are what an issue has to be
//! told of its deployment.
//!
//! An item holds it until it is done. A message to the intake queue only says that there is one: a lost message is sent
//! again by the sweep, and a second one finds nothing left to do.

pub mod issue_state;
pub mod names;
pub mod refusals;
pub mod repositories;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    deployment::Deployment,
    id::{DeploymentId, TenantId},
    invalid::Invalid,
    secret::Secret,
};
use uuid::Uuid;

use crate::{
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    keys::{self, Key},
    queues::Queue,
    random,
    store::Store,
    table::{Cancelled, Item, item, number, record, sort_key, text},
    write::{Expression, Write, delete, put},
};

/// A message that was not heeded for so long may be lost.
const SEND_AGAIN: SignedDuration = SignedDuration::from_mins(1);
/// That a delivery was there is known for so long; GitHub delivers anew by hand for three days.
const SEEN: SignedDuration = SignedDuration::from_hours(24 * 7);
/// How long something is tried.
pub const GIVEN_UP_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// SQS delays a message by at most so much; what is due later waits for the sweep.
const LONGEST_DELAY: SignedDuration = SignedDuration::from_mins(15);

/// Which of GitHub's deliveries: `X-GitHub-Delivery`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(Uuid);

impl DeliveryId {
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| Invalid::new("format-id", "is not a delivery's id", "send the UUID that GitHub gave it"))
    }
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "camelCase")]
pub enum IntakeId {
    /// Something has happened on GitHub.
    Delivery(DeliveryId),
    /// A deployment has something to tell on its issue.
    Notice(DeploymentId),
}

/// "Look at this item."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeMessage {
    pub tenant: TenantId,
    #[serde(flatten)]
    pub id: IntakeId,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenIn {
    New,
    /// It was there before, and is still to be done.
    Again,
    /// It was there before, and is done.
    Done,
}

/// What waits to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intake {
    pub created_at: Timestamp,
    /// Nothing is to be tried before this time.
    pub not_before: Option<Timestamp>,
    /// Past this time the message is taken for lost.
    send_again_at: Timestamp,
    /// How often it was put off.
    #[serde(default)]
    pub attempts: u32,
    /// The deployments that it has begun to decide on, so that a second run knows its own work.
    #[serde(default)]
    pub decides: Vec<DeploymentId>,
    /// Of a delivery.
    #[serde(default)]
    sealed: Option<String>,
    /// Another one under the same key is another notice.
    stamp: String,
}

impl Intake {
    fn new(sealed: Option<String>, now: Timestamp) -> Self {
        Self {
            created_at: now,
            not_before: None,
            send_again_at: now + SEND_AGAIN,
            attempts: 0,
            decides: Vec::new(),
            sealed,
            stamp: format!("{:016x}", u64::from_be_bytes(random::bytes())),
        }
    }

    /// Whether it has been tried for long enough.
    pub fn is_too_old(&self, now: Timestamp) -> bool {
        now.duration_since(self.created_at) >= GIVEN_UP_AFTER
    }

    fn unchanged(&self) -> Expression {
        Expression::new("stamp = :stamp").value(":stamp", text(&self.stamp))
    }
}

fn key(message: &IntakeMessage) -> Key {
    match message.id {
        IntakeId::Delivery(id) => keys::intake_delivery(&message.tenant, &id.to_string()),
        IntakeId::Notice(id) => keys::intake_notice(&message.tenant, id),
    }
}

fn place(id: &str) -> Place<'_> {
    Place { kind: "delivery", id, version: 1 }
}

impl Store {
    /// Keeps a delivery, sealed, unless it was here before. Whoever asked may be told that it is kept.
    pub async fn take_in(
        &self,
        tenant: &TenantId,
        delivery: DeliveryId,
        payload: &Secret<Vec<u8>>,
        now: Timestamp,
    ) -> Result<TakenIn> {
        let id = delivery.to_string();
        let message = IntakeMessage { tenant: tenant.clone(), id: IntakeId::Delivery(delivery) };
        let sealed = self.seal(tenant, Purpose::Intake, place(&id), payload.expose()).await?;
        let until = (now + SEEN).as_second();
        let seen = item(&keys::seen_delivery(tenant, &id), &serde_json::json!({"until": until, "ttl": until}))?;
        // Judged by time: the table's own expiry lags by days.
        let unseen = Expression::new("attribute_not_exists(pk) OR #until <= :now")
            .name("#until", "until")
            .value(":now", number(now.as_second()));
        let writes = vec![
            put((), seen, &self.table, Some(unseen)),
            put((), item(&key(&message), &Intake::new(Some(sealed), now))?, &self.table, None),
        ];
        match self.table.transact(writes).await {
            Ok(()) => Ok(TakenIn::New),
            Err(Cancelled::Conditions(_)) => {
                let open = self.table.get(&key(&message)).await?;
                Ok(if open.is_some() { TakenIn::Again } else { TakenIn::Done })
            }
            Err(Cancelled::Store(error)) => Err(error),
        }
    }

    /// Says that there is something to do. A failure is logged and nothing more: the sweep says it again.
    pub async fn send_intake(&self, message: &IntakeMessage) {
        self.send_intake_after(message, SignedDuration::ZERO).await;
    }

    async fn send_intake_after(&self, message: &IntakeMessage, delay: SignedDuration) {
        let Some(queue) = self.intake_queue() else {
            tracing::error!("there is no intake queue in this environment");
            return;
        };
        // Rounded up: a message that comes too early is for nothing.
        let delay = Duration::try_from(delay.min(LONGEST_DELAY)).unwrap_or_default();
        let seconds = u16::try_from(delay.as_millis().div_ceil(1_000)).unwrap_or_default();
        if let Err(error) = queue.send_after(message, seconds).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the intake queue was not told; the sweep will tell it"
            );
        }
    }

    /// What waits; none if it is done.
    pub async fn intake(&self, message: &IntakeMessage) -> Result<Option<Intake>> {
        self.table.read(&key(message), "delivery").await
    }

    /// What GitHub has delivered.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a notice, which holds nothing.
    pub async fn open_intake(
        &self,
        tenant: &TenantId,
        delivery: DeliveryId,
        intake: &Intake,
    ) -> Result<Secret<Vec<u8>>> {
        let sealed = intake.sealed.as_deref().ok_or_else(|| StoreError::unreadable("delivery", "it holds nothing"))?;
        self.sealer.open(&self.table, tenant, Purpose::Intake, place(&delivery.to_string()), sealed).await
    }

    /// Puts it off. Nothing if it is done, or is another one by now.
    pub async fn postpone_intake(
        &self,
        message: &IntakeMessage,
        intake: &Intake,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        let change = Expression::new("SET notBefore = :until, sendAgainAt = :again ADD attempts :one")
            .value(":until", text(until.to_string()))
            .value(":again", text((until + SEND_AGAIN).to_string()))
            .value(":one", number(1));
        if self.table.update(&key(message), change, intake.unchanged()).await? {
            self.send_intake_after(message, until.duration_since(now)).await;
        }
        Ok(())
    }

    /// Puts on record which deployments it is about to decide on. `false`: it is another one by now.
    pub async fn begin_decision(&self, message: &IntakeMessage, intake: &Intake, ids: &[DeploymentId]) -> Result<bool> {
        let value = serde_dynamo::to_attribute_value(ids).map_err(StoreError::corrupt("delivery"))?;
        let change = Expression::new("SET decides = :ids").value(":ids", value);
        self.table.update(&key(message), change, intake.unchanged()).await
    }

    /// It is done, and what it held is deleted. Nothing if another one has taken its place, which is still to be done.
    pub async fn close_intake(&self, message: &IntakeMessage, intake: &Intake) -> Result<()> {
        match self.table.transact(vec![self.intake_removal((), message, intake)]).await {
            Ok(()) | Err(Cancelled::Conditions(_)) => Ok(()),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }

    pub(crate) fn intake_removal<L>(&self, label: L, message: &IntakeMessage, intake: &Intake) -> Write<L> {
        delete(label, &key(message), &self.table, Some(intake.unchanged()))
    }

    /// For the transaction in which a deployment reaches something that its issue has to hear of; none if it has no issue.
    /// Once it is written, [`Store::send_notice`] makes it quick.
    pub(crate) fn notice_write<L>(
        &self,
        label: L,
        tenant: &TenantId,
        deployment: &Deployment,
        now: Timestamp,
    ) -> Result<Option<Write<L>>> {
        if deployment.issue.is_none() {
            return Ok(None);
        }
        let item = item(&keys::intake_notice(tenant, deployment.id), &Intake::new(None, now))?;
        Ok(Some(put(label, item, &self.table, None)))
    }

    /// Says that the deployment's issue has something to hear. Nothing if it has no issue.
    pub async fn send_notice(&self, tenant: &TenantId, deployment: &Deployment) {
        if deployment.issue.is_some() {
            let id = IntakeId::Notice(deployment.id);
            self.send_intake(&IntakeMessage { tenant: tenant.clone(), id }).await;
        }
    }

    /// Says again what nobody has heeded. How often it did.
    ///
    /// # Errors
    /// If what waits cannot be listed. One that cannot be said again is logged, and the pass goes on.
    pub async fn sweep_intake(&self, now: Timestamp) -> Result<usize> {
        let mut sent = 0;
        for found in self.table.all(&keys::intake(), "").await? {
            match self.send_again(found, now).await {
                Ok(true) => sent += 1,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "something that waits could not be looked at"
                    );
                }
            }
        }
        Ok(sent)
    }

    async fn send_again(&self, found: Item, now: Timestamp) -> Result<bool> {
        let Some(message) = sort_key(&found).and_then(message_of) else {
            return Err(StoreError::unreadable("delivery", "its key is none"));
        };
        let intake: Intake = record(found, "delivery")?;
        if intake.send_again_at > now {
            return Ok(false);
        }
        let change = Expression::new("SET sendAgainAt = :again").value(":again", text((now + SEND_AGAIN).to_string()));
        if !self.table.update(&key(&message), change, intake.unchanged()).await? {
            return Ok(false);
        }
        self.send_intake(&message).await;
        Ok(true)
    }

    fn intake_queue(&self) -> Option<Queue> {
        self.intake_queue_url().map(|url| Queue::new(self.sqs().clone(), url.to_owned()))
    }
}

fn message_of(sk: &str) -> Option<IntakeMessage> {
    let (tenant, kind, id) = keys::parse_intake(sk)?;
    let id = match kind {
        keys::DELIVERY => IntakeId::Delivery(DeliveryId::parse(id).ok()?),
        keys::NOTICE => IntakeId::Notice(DeploymentId::parse(id).ok()?),
        _ => return None,
    };
    Some(IntakeMessage { tenant, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_back_from_queue_and_table() {
        let tenant = TenantId::parse("acme").unwrap();
        let uuid = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
        for id in [
            IntakeId::Delivery(DeliveryId::parse(uuid).unwrap()),
            IntakeId::Notice(DeploymentId::new(Timestamp::UNIX_EPOCH, [7; 10])),
        ] {
            let message = IntakeMessage { tenant: tenant.clone(), id };
            assert_eq!(message_of(&key(&message).sk), Some(message.clone()));
            let sent = serde_json::to_string(&message).unwrap();
            assert_eq!(serde_json::from_str::<IntakeMessage>(&sent).unwrap(), message);
        }
        for wrong in [
            "",
            "acme",
            "acme#DELIVERY",
            "acme#DELIVERY#x",
            &format!("acme#OTHER#{uuid}"),
            &format!("A#DELIVERY#{uuid}"),
        ] {
            assert_eq!(message_of(wrong), None, "{wrong}");
        }
        for wrong in ["", "x", "72d3162e", "72d3162e-cc78-11e3-81ab-4c9367dc0958#"] {
            assert!(DeliveryId::parse(wrong).is_err(), "{wrong}");
        }
    }
}
