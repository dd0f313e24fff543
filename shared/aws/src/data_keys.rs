//! Rotation of the data keys that secrets are encrypted with.
//!
//! A rotation chooses a new data key, which all that is sealed from then on gets, and encrypts again under it what others
//! hold: see [`crate::reencryption`]. Former data keys stay where they are: a backup that is brought back, or a value that
//! somebody read before and writes afterwards, may still need them; they are small, and of no use without KMS.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::id::{Revision, TenantId};

use crate::{
    audit::{self, AuditEvent},
    catalogue::Replay,
    envelope::Purpose,
    error::{Result, StoreError},
    idempotency::{FirstAnswer, IdempotencyKey},
    keys,
    reencryption::Position,
    store::Store,
    table::{Cancelled, item, key_item},
    write::{Expression, put},
};

/// A tenant's last rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// The data key that it chose. Whoever seals reads it here.
    pub(crate) data_key: String,
    pub state: RotationState,
    pub started_at: Timestamp,
    pub started_by: String,
    pub finished_at: Option<Timestamp>,
    /// Values that the walk in hand, or else the last one, has looked at.
    pub looked_at: u64,
    /// Values that were encrypted again, by all walks.
    pub reencrypted: u64,
    /// Values that the walk in hand, or else the last one, could not open.
    pub unreadable: u64,
    /// Where the walk in hand goes on; none between two walks.
    pub(crate) position: Option<Position>,
    /// When the walk in hand began.
    pub(crate) walk_began: Timestamp,
    /// When a value was last found under another key; at first, when the rotation was started.
    pub(crate) last_found: Timestamp,
    /// Whoever does a pass has it until then.
    pub(crate) leased_until: Option<Timestamp>,
    pub(crate) revision: Revision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RotationState {
    /// Passes walk over the values. Left when a walk has found nothing under another key.
    Running,
    /// All values are under the chosen key.
    Succeeded,
    /// All values are under the chosen key but those that nothing can open; the log names them.
    Failed,
}

/// What became of the start of a rotation.
#[derive(Debug)]
pub enum Started {
    Now(Rotation),
    /// The same request was first: this was its answer.
    Before(FirstAnswer),
    /// Another one runs, and chooses no other key.
    Running,
}

/// Makes the answer that is kept for a repeated request.
pub type AnswerOf = fn(&Rotation) -> FirstAnswer;

impl Rotation {
    fn new(data_key: String, by: &str, now: Timestamp, before: Option<&Self>) -> Self {
        Self {
            data_key,
            state: RotationState::Running,
            started_at: now,
            started_by: by.to_owned(),
            finished_at: None,
            looked_at: 0,
            reencrypted: 0,
            unreadable: 0,
            position: Some(Position::START),
            walk_began: now,
            last_found: now,
            leased_until: None,
            revision: Revision(before.map_or(0, |before| before.revision.0) + 1),
        }
    }

    /// How many data keys the tenant's secrets are under, if that is known.
    pub fn keys_in_use(&self) -> Option<u64> {
        match self.state {
            RotationState::Succeeded => Some(1),
            RotationState::Running | RotationState::Failed => None,
        }
    }
}

impl Store {
    pub async fn rotation(&self, tenant: &TenantId) -> Result<Option<Rotation>> {
        self.table.read(&keys::rotation(tenant), "rotation").await
    }

    /// Chooses a new data key, and lets the sweep encrypt all values again under it.
    ///
    /// # Errors
    /// KMS away or the key disabled: nothing was changed.
    pub async fn rotate_data_keys(
        &self,
        tenant: &TenantId,
        replay: Option<(&IdempotencyKey, AnswerOf)>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Started> {
        let before = self.rotation(tenant).await?;
        if before.as_ref().is_some_and(|before| before.state == RotationState::Running) {
            return Ok(Started::Running);
        }
        // A crash right behind this leaves a key that nothing uses.
        let data_key = self.sealer.new_data_key(&self.table, tenant, Purpose::Secret).await?;
        let rotation = Rotation::new(data_key, &event.actor, now, before.as_ref());
        let as_read = before.map_or_else(Expression::absent, |before| Expression::revision(before.revision.0));
        let mut writes = vec![
            put(Part::Rotation, item(&keys::rotation(tenant), &rotation)?, &self.table, Some(as_read)),
            put(Part::Other, key_item(&keys::running_rotation(tenant)), &self.table, None),
            audit::write(Part::Other, tenant, event, now, &self.table)?,
        ];
        let answer = replay.map(|(key, answer)| (key, answer(&rotation)));
        let replay = answer.as_ref().map(|(key, answer)| Replay { key, answer });
        if let Some(replay) = replay {
            writes.push(self.keep_answer(Part::Replay, tenant, replay.key, replay.answer, now).await?);
        }
        match self.table.transact(writes).await {
            Ok(()) => Ok(Started::Now(rotation)),
            Err(Cancelled::Conditions(parts)) if parts.contains(&Part::Replay) => {
                let key = replay.map(|replay| replay.key).ok_or(StoreError::Conflict)?;
                self.first_answer(tenant, key, now).await?.map(Started::Before).ok_or(StoreError::Conflict)
            }
            // Somebody else was first.
            Err(Cancelled::Conditions(_)) => Ok(Started::Running),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Rotation,
    Replay,
    Other,
}
