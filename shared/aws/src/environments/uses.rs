//! The uses of secrets that are counted for environments.
//!
//! A variable that refers to a secret is counted at the secret, so that it is not deleted under it; of as many as one
//! transaction holds, in the transaction of the change itself. A change of more takes steps. First those that come are
//! counted, as a surplus of the environment: a use that is counted and not made does no harm, and the other way round would.
//! Then the change is made, with one write. Then those that went are counted off. Whatever step a crash follows, the surplus
//! stands on the item, and an entry among the due ones; the next change of the environment, or else the sweep, ends it.
//! A deleted environment ends the same way: all its uses become surplus, and go before it does.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tidegate_domain::id::{EnvironmentId, SecretId, TenantId};

use super::{Environment, Use};
use crate::{
    audit::{self, AuditEvent},
    catalogue::{Part, Reference, Stored, explain},
    error::{Result, StoreError},
    keys::{self, Kind},
    store::Store,
    table::{PageQuery, key_item, number, sort_key},
    write::{Expression, Write, delete, put, update},
};

/// Uses that one transaction changes: two writes each, of the hundred that it may hold.
pub(super) const STEP: usize = 45;
/// Whoever takes steps has ended long before that.
const SETTLE_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// Environments that one pass of the sweep sees to; the rest is the next one's.
const DUE_A_PASS: usize = 25;

/// What a pass found and did about environments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EnvironmentsSwept {
    /// Whose time to be restored is over, and drafts whose maker is gone: removed.
    pub purged: usize,
    /// Of which uses were counted that no variable made.
    pub settled: usize,
    /// At which something could not be done; the next pass tries again.
    pub failed: usize,
}

impl Store {
    /// Writes that count these uses on and off: at most [`STEP`] of both.
    pub(super) fn count_uses<'a>(
        &self,
        tenant: &TenantId,
        id: EnvironmentId,
        gained: impl IntoIterator<Item = &'a Use>,
        lost: impl IntoIterator<Item = &'a Use>,
    ) -> Vec<Write<Part>> {
        let mut writes = Vec::new();
        // A transaction may touch an item once.
        let mut counts: BTreeMap<SecretId, i8> = BTreeMap::new();
        for Use { key, secret_id } in gained {
            *counts.entry(*secret_id).or_default() += 1;
            let key = keys::secret_use(tenant, *secret_id, &format!("{id}.{key}"));
            writes.push(put(Part::Other, key_item(&key), &self.table, None));
        }
        for Use { key, secret_id } in lost {
            *counts.entry(*secret_id).or_default() -= 1;
            let key = keys::secret_use(tenant, *secret_id, &format!("{id}.{key}"));
            writes.push(delete(Part::Other, &key, &self.table, None));
        }
        let changed = counts.into_iter().filter(|(_, by)| *by != 0);
        writes.extend(changed.map(|(secret, by)| {
            self.count_use(tenant, Reference { kind: Kind::Secret, id: secret.0, field: "value" }, by)
        }));
        writes
    }

    pub(super) fn due(&self, tenant: &TenantId, kind: Kind, id: u64, at: Timestamp) -> Write<Part> {
        let due = keys::environment_due(at, tenant, kind, id);
        put(Part::Other, key_item(&due), &self.table, None)
    }

    pub(super) fn settle_time(now: Timestamp) -> Timestamp {
        now + SETTLE_AFTER
    }

    /// Puts `body` in the place of `old`, and nothing else: neither its name nor its project has changed.
    fn step(
        &self,
        tenant: &TenantId,
        kind: Kind,
        old: &Stored<Environment>,
        body: &Environment,
    ) -> Result<Write<Part>> {
        let value = serde_dynamo::to_attribute_value(body).map_err(StoreError::corrupt(kind.noun()))?;
        let change = Expression::new("SET body = :body, #revision = :now")
            .value(":body", value)
            .value(":now", number(old.revision.0 + 1));
        let key = keys::thing(tenant, kind, old.id);
        Ok(update(Part::Thing, &key, &self.table, change, Expression::revision(old.revision.0)))
    }

    /// Counts uses that a change to come will make.
    pub(super) async fn count_before(
        &self,
        tenant: &TenantId,
        kind: Kind,
        mut at: Stored<Environment>,
        gained: &[Use],
        now: Timestamp,
    ) -> Result<Stored<Environment>> {
        for uses in gained.chunks(STEP) {
            let mut body = at.body.clone();
            body.surplus.extend(uses.iter().cloned());
            let mut writes = self.count_uses(tenant, EnvironmentId(at.id), uses, []);
            if body.settle_at.is_none() {
                let settle_at = Self::settle_time(now);
                body.settle_at = Some(settle_at);
                writes.push(self.due(tenant, kind, at.id, settle_at));
            }
            writes.push(self.step(tenant, kind, &at, &body)?);
            self.table.transact(writes).await.map_err(explain)?;
            at.revision.0 += 1;
            at.body = body;
        }
        Ok(at)
    }

    /// Counts off the surplus. Gives what is stored then; none if it is not there.
    pub(super) async fn settle(
        &self,
        tenant: &TenantId,
        kind: Kind,
        id: EnvironmentId,
    ) -> Result<Option<Stored<Environment>>> {
        loop {
            let Some(at) = self.environment_of_kind(tenant, kind, id).await? else { return Ok(None) };
            if at.body.surplus.is_empty() {
                return Ok(Some(at));
            }
            let uses: BTreeSet<Use> = at.body.surplus.iter().take(STEP).cloned().collect();
            let mut body = at.body.clone();
            body.surplus.retain(|of| !uses.contains(of));
            let mut writes = self.count_uses(tenant, id, [], &uses);
            // What is about to be purged stays due until it is gone.
            if body.surplus.is_empty() && kind == Kind::Environment {
                body.settle_at = None;
                writes.extend(self.not_due(tenant, &at));
            }
            writes.push(self.step(tenant, kind, &at, &body)?);
            match self.table.transact(writes).await.map_err(explain) {
                // Somebody else's change: what it left is looked at.
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(other) => return Err(other),
            }
        }
    }

    /// Removes a deleted environment, or a draft, for good: its values at once, its uses of secrets in steps, itself last.
    pub(super) async fn purge(&self, tenant: &TenantId, kind: Kind, id: EnvironmentId, now: Timestamp) -> Result<()> {
        let Some(at) = self.environment_of_kind(tenant, kind, id).await? else { return Ok(()) };
        let mut body = at.body.clone();
        body.surplus = at.body.counted();
        body.variables = Vec::new();
        if body != at.body {
            let step = self.step(tenant, kind, &at, &body)?;
            self.table.transact(vec![step]).await.map_err(explain)?;
        }
        let Some(at) = self.settle(tenant, kind, id).await? else { return Ok(()) };
        let event = AuditEvent {
            actor: "tidegate".to_owned(),
            action: "environment.purged".to_owned(),
            subject: format!("environment/{id}"),
            source_ip: None,
            request_id: None,
        };
        let key = keys::thing(tenant, kind, id.0);
        let mut writes = vec![
            delete(Part::Thing, &key, &self.table, Some(Expression::revision(at.revision.0))),
            self.unlist_deleted(tenant, &at),
        ];
        if kind == Kind::DeletedEnvironment {
            writes.push(audit::write(Part::Other, tenant, &event, now, &self.table)?);
        } else if let Some(due) = at.body.settle_at {
            let due = keys::environment_due(due, tenant, kind, id.0);
            writes.push(delete(Part::Other, &due, &self.table, None));
        }
        self.table.transact(writes).await.map_err(explain)
    }

    /// One pass over what is due. An error with one is logged, and the pass goes on.
    ///
    /// # Errors
    /// If what is due cannot be listed.
    pub async fn sweep_environments(&self, now: Timestamp) -> Result<EnvironmentsSwept> {
        let to = keys::deadline_time(now);
        let query = PageQuery { to: Some(&to), limit: Some(DUE_A_PASS), ..PageQuery::default() };
        let due = self.table.page(&keys::environments_due(), &query).await?;
        let mut swept = EnvironmentsSwept::default();
        for item in &due.items {
            let Some(sk) = sort_key(item) else { continue };
            let Some((tenant, kind, id)) = keys::parse_environment_due(sk) else {
                tracing::error!(key = sk, "what is listed as due is no environment's key");
                swept.failed += 1;
                continue;
            };
            if let Err(error) = self.see_to(&tenant, kind, EnvironmentId(id), sk, now, &mut swept).await {
                tracing::warn!(environment.id = id, tenant = %tenant, error = &error as &dyn std::error::Error,
                    "the sweep could not do all for an environment; the next pass tries again");
                swept.failed += 1;
            }
        }
        Ok(swept)
    }

    async fn see_to(
        &self,
        tenant: &TenantId,
        kind: Kind,
        id: EnvironmentId,
        due: &str,
        now: Timestamp,
        swept: &mut EnvironmentsSwept,
    ) -> Result<()> {
        match self.environment_of_kind(tenant, kind, id).await? {
            // Restored, or done before.
            None => {}
            // Restored meanwhile, and deleted again: due another time.
            Some(stored) if stored.body.restorable_until().is_some_and(|until| until > now) => {}
            Some(_) if kind == Kind::Environment => {
                self.settle(tenant, kind, id).await?;
                swept.settled += 1;
            }
            Some(_) => {
                self.purge(tenant, kind, id, now).await?;
                swept.purged += 1;
            }
        }
        self.table.delete(&keys::Key { pk: keys::environments_due(), sk: due.to_owned() }).await
    }
}

impl Environment {
    /// What changes in the uses that are counted if `new` takes its place: those that come, those that go.
    pub(super) fn change_of_uses(&self, new: &Self) -> (Vec<Use>, Vec<Use>) {
        let (before, after) = (self.counted(), new.referred());
        (after.difference(&before).cloned().collect(), before.difference(&after).cloned().collect())
    }
}
