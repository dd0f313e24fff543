//! The syncs of providers: what is due, who is at it, and what became of the last ones.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    id::{Epoch, SecretProviderId, TenantId},
    sync_run::{Asked, Ending, Found, LEASE, SyncFailure, SyncId, SyncRun, SyncState, SyncStatus, Written},
};

use crate::{
    audit::{self, AuditEvent},
    catalogue::{Listed, PageRequest, Part, explain},
    error::{Result, StoreError},
    keys::{self, Key},
    providers::SecretProvider,
    random,
    store::Store,
    table::{Item, PageQuery, item, number, patience, pause, record, sort_key, text},
    write::{Expression, Write, delete, put, update},
};

/// So many runs of a provider are kept.
const KEPT: usize = 50;
const WHAT: &str = "state of a provider's syncs";

/// A run as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredSync {
    pub id: SyncId,
    pub asked: Asked,
    pub status: SyncStatus,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    #[serde(flatten)]
    pub written: Written,
    #[serde(flatten)]
    pub found: Found,
}

impl StoredSync {
    fn of(run: &SyncRun, written: Written, finished_at: Option<Timestamp>) -> Self {
        let status = match finished_at {
            None => SyncStatus::Running,
            Some(_) if run.found.failures.is_empty() => SyncStatus::Success,
            Some(_) => SyncStatus::Failed,
        };
        let SyncRun { id, asked, started_at, found, done: _ } = run.clone();
        Self { id, asked, status, started_at, finished_at, written, found }
    }

    pub fn failure(&self) -> Option<&SyncFailure> {
        self.found.failures.first()
    }
}

/// Proof of being the only one at a provider. What is written with it fails once somebody else has taken over.
#[derive(Debug)]
pub struct SyncLease {
    pub tenant: TenantId,
    pub provider: SecretProviderId,
    pub(crate) epoch: Epoch,
    pub run: SyncRun,
}

impl SyncLease {
    /// The same proof, for a run as it is to be noted.
    #[must_use]
    pub fn with(&self, run: SyncRun) -> Self {
        Self { tenant: self.tenant.clone(), provider: self.provider, epoch: self.epoch, run }
    }
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSync {
    pub tenant: TenantId,
    pub provider: SecretProviderId,
}

impl Store {
    pub async fn sync_state(&self, tenant: &TenantId, provider: SecretProviderId) -> Result<SyncState> {
        self.table.read(&keys::sync_state(tenant, provider), WHAT).await?.ok_or(StoreError::Missing)
    }

    /// Of several providers, by id.
    pub async fn sync_states(&self, tenant: &TenantId, providers: &[u64]) -> Result<HashMap<u64, SyncState>> {
        let states: Vec<Key> = providers.iter().map(|id| keys::sync_state(tenant, SecretProviderId(*id))).collect();
        let ids: HashMap<&str, u64> = states.iter().map(|key| key.pk.as_str()).zip(providers.iter().copied()).collect();
        let of =
            |item: &Item| item.get("pk").and_then(|pk| pk.as_s().ok()).and_then(|pk| ids.get(pk.as_str())).copied();
        let items = self.table.batch_get(&states).await?;
        let read = |item: Item| Ok(of(&item).zip(Some(record(item, WHAT)?)));
        items.into_iter().filter_map(|item| read(item).transpose()).collect()
    }

    /// Providers of all tenants that somebody should look at, those that wait longest first.
    pub async fn due_syncs(&self, now: Timestamp) -> Result<Vec<DueSync>> {
        let due =
            self.table.range(&keys::due_syncs(), None, Some(&crate::table::end_of(&keys::deadline_time(now)))).await?;
        let read = |item: &Item| {
            let found = sort_key(item).and_then(keys::parse_due_sync);
            if found.is_none() {
                tracing::error!(key = sort_key(item), "what is listed as due is no provider's key");
            }
            found.map(|(tenant, provider)| DueSync { tenant, provider })
        };
        Ok(due.iter().filter_map(read).collect())
    }

    /// Takes from what is due a provider that is not there any more. Nothing that we write leaves one behind.
    pub async fn forget_due(&self, due: &DueSync, now: Timestamp) -> Result<()> {
        for item in
            self.table.range(&keys::due_syncs(), None, Some(&crate::table::end_of(&keys::deadline_time(now)))).await?
        {
            let Some(sk) = sort_key(&item) else { continue };
            if keys::parse_due_sync(sk) == Some((due.tenant.clone(), due.provider)) {
                self.table.delete(&Key { pk: keys::due_syncs(), sk: sk.to_owned() }).await?;
            }
        }
        Ok(())
    }

    /// Makes it due now. Once this has answered, a run begins after it, whatever becomes of the caller.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such provider.
    pub async fn ask_for_sync(
        &self,
        tenant: &TenantId,
        provider: SecretProviderId,
        asked: &Asked,
        now: Timestamp,
        event: Option<&AuditEvent>,
    ) -> Result<()> {
        let change = |state: &SyncState| Some(state.ask(asked.clone(), now));
        self.change_state(tenant, provider, change, |_, _| match event {
            Some(event) => Ok(vec![audit::write(Part::Other, tenant, event, now, &self.table)?]),
            None => Ok(Vec::new()),
        })
        .await
        .map(|_| ())
    }

    /// Takes the provider for a run; none if somebody is at it, or if nothing is due.
    pub async fn begin_sync(
        &self,
        tenant: &TenantId,
        provider: SecretProviderId,
        now: Timestamp,
    ) -> Result<Option<SyncLease>> {
        let id = random::bytes();
        let begun = self
            .change_state(
                tenant,
                provider,
                |state| state.begin(now, id),
                |old, new| match &new.run {
                    Some(run) if old.run.is_none() => {
                        let stored = StoredSync::of(run, Written::default(), None);
                        let item = item(&keys::sync(tenant, provider, run.id), &stored)?;
                        Ok(vec![put(Part::Other, item, &self.table, None)])
                    }
                    Some(_) | None => Ok(Vec::new()),
                },
            )
            .await?;
        let lease = begun.and_then(|state| {
            let epoch = state.epoch;
            state.run.map(|run| SyncLease { tenant: tenant.clone(), provider, epoch, run })
        });
        Ok(lease)
    }

    /// Keeps the lease. `false`: somebody else has it.
    pub async fn renew_sync(&self, lease: &SyncLease, now: Timestamp) -> Result<bool> {
        let (change, condition) = fence(lease, Written::default(), now);
        self.table.update(&keys::sync_state(&lease.tenant, lease.provider), change, condition).await
    }

    /// A write that counts what the transaction does, and fails with it if the lease is another's.
    pub(crate) fn fenced(&self, lease: &SyncLease, written: Written, now: Timestamp) -> Write<Part> {
        let (change, condition) = fence(lease, written, now);
        update(Part::Other, &keys::sync_state(&lease.tenant, lease.provider), &self.table, change, condition)
    }

    /// Notes what has been found so far. `false`: the lease is another's.
    pub async fn note_sync(&self, lease: &SyncLease, now: Timestamp) -> Result<bool> {
        self.as_holder(lease, |state| state.group_done(lease.run.clone(), now), |_| Ok(Vec::new())).await
    }

    /// Hands it over to whoever comes next. `false`: the lease is another's.
    pub async fn pause_sync(&self, lease: &SyncLease, now: Timestamp) -> Result<bool> {
        self.as_holder(lease, |state| state.pause(lease.run.clone(), now), |_| Ok(Vec::new())).await
    }

    /// Ends the run, whose last state is then its entry in the log; none if the lease is another's.
    pub async fn finish_sync(
        &self,
        lease: &SyncLease,
        ending: Ending,
        provider: &SecretProvider,
        now: Timestamp,
    ) -> Result<Option<StoredSync>> {
        let (tenant, id) = (&lease.tenant, lease.provider);
        let mut ended = None;
        let is_ours = self
            .as_holder(
                lease,
                |state| state.finish(&lease.run, ending, provider.interval(), now),
                |new| {
                    let stored = StoredSync::of(&lease.run, new.written, Some(now));
                    let item = item(&keys::sync(tenant, id, lease.run.id), &stored)?;
                    ended = Some(stored);
                    Ok(vec![put(Part::Other, item, &self.table, None)])
                },
            )
            .await?;
        if !is_ours {
            return Ok(None);
        }
        // A crash right before it leaves some more than are wanted, until the next run.
        self.trim_syncs(tenant, id, KEPT).await?;
        Ok(ended)
    }

    /// Newest first. Of the one that is under way with what it has written by now.
    pub async fn syncs(
        &self,
        tenant: &TenantId,
        provider: SecretProviderId,
        page: &PageRequest,
    ) -> Result<Listed<StoredSync>> {
        let list = keys::syncs(tenant, provider);
        let after = self.read_cursor(tenant, &list, page.cursor.as_deref()).await?;
        let query =
            PageQuery { after: after.as_deref(), limit: Some(page.limit), newest_first: true, ..PageQuery::default() };
        let (found, state) = tokio::try_join!(self.table.page(&list, &query), self.sync_state(tenant, provider))?;
        let read = |item| record(item, "sync of a provider").map(|stored| with_progress(stored, &state));
        let data = found.items.into_iter().map(read).collect::<Result<_>>()?;
        Ok(Listed { data, next_cursor: self.write_cursor(tenant, &list, found.next).await? })
    }

    pub(crate) async fn trim_syncs(&self, tenant: &TenantId, provider: SecretProviderId, keep: usize) -> Result<()> {
        let list = keys::syncs(tenant, provider);
        let mut old = self.table.sort_keys(&list, "").await?;
        old.truncate(old.len().saturating_sub(keep));
        for sk in old {
            self.table.delete(&Key { pk: list.clone(), sk }).await?;
        }
        Ok(())
    }

    /// Changes the state from what it is, as often as others get in between. None if there is nothing to change.
    async fn change_state(
        &self,
        tenant: &TenantId,
        provider: SecretProviderId,
        mut change: impl FnMut(&SyncState) -> Option<SyncState>,
        mut more: impl FnMut(&SyncState, &SyncState) -> Result<Vec<Write<Part>>>,
    ) -> Result<Option<SyncState>> {
        let (until, mut attempt) = (patience(), 0);
        loop {
            let old = self.sync_state(tenant, provider).await?;
            let Some(new) = change(&old) else { return Ok(None) };
            let mut writes = self.state_writes(tenant, provider, Some(&old), &new)?;
            writes.extend(more(&old, &new)?);
            match self.table.transact(writes).await.map_err(explain) {
                Ok(()) => return Ok(Some(new)),
                Err(StoreError::Conflict) => pause(&mut attempt, until).await?,
                Err(other) => return Err(other),
            }
        }
    }

    async fn as_holder(
        &self,
        lease: &SyncLease,
        change: impl Fn(&SyncState) -> SyncState,
        mut more: impl FnMut(&SyncState) -> Result<Vec<Write<Part>>>,
    ) -> Result<bool> {
        let ours = |state: &SyncState| (state.epoch == lease.epoch).then(|| change(state));
        let changed = self.change_state(&lease.tenant, lease.provider, ours, |_, new| more(new)).await;
        match changed {
            Ok(changed) => Ok(changed.is_some()),
            // The provider was deleted.
            Err(StoreError::Missing) => Ok(false),
            Err(other) => Err(other),
        }
    }

    /// The change of a state, with that of its place among what is due. What the holder of a run counts meanwhile stays,
    /// but for a new run, which begins at nothing.
    pub(crate) fn state_writes(
        &self,
        tenant: &TenantId,
        provider: SecretProviderId,
        old: Option<&SyncState>,
        new: &SyncState,
    ) -> Result<Vec<Write<Part>>> {
        let key = keys::sync_state(tenant, provider);
        let mut writes = vec![match old {
            None => put(Part::Other, item(&key, new)?, &self.table, Some(Expression::absent())),
            Some(old) => {
                let is_new_run = old.run.is_none() && new.run.is_some();
                update(Part::Other, &key, &self.table, set(new, is_new_run)?, Expression::revision(old.revision))
            }
        }];
        let [before, after] =
            [old.and_then(|old| old.due_at), new.due_at].map(|at| at.map(|at| keys::due_sync(at, tenant, provider)));
        if before != after {
            writes.extend(before.map(|key| delete(Part::Other, &key, &self.table, None)));
            let listed = after.map(|key| item(&key, &serde_json::json!({}))).transpose()?;
            writes.extend(listed.map(|item| put(Part::Other, item, &self.table, None)));
        }
        Ok(writes)
    }
}

fn with_progress(mut stored: StoredSync, state: &SyncState) -> StoredSync {
    if let Some(run) = state.run.as_ref().filter(|run| run.id == stored.id) {
        stored.written = state.written;
        stored.found = run.found.clone();
    }
    stored
}

const COUNTED: [&str; 4] = ["added", "updated", "renamed", "removed"];

/// All of a state; what is counted only if it begins anew.
fn set(new: &SyncState, counts: bool) -> Result<Expression> {
    let fields: HashMap<String, AttributeValue> = serde_dynamo::to_item(new).map_err(StoreError::corrupt(WHAT))?;
    let mut fields: Vec<_> = fields.into_iter().collect();
    fields.retain(|(name, _)| counts || !COUNTED.contains(&name.as_str()));
    let mut expression = Expression::default();
    let mut assignments = Vec::new();
    for (at, (name, value)) in fields.into_iter().enumerate() {
        // The condition has its own name for it, and one name may stand for one attribute only once.
        let placeholder = if name == "revision" { "#revision".to_owned() } else { format!("#f{at}") };
        assignments.push(format!("{placeholder} = :f{at}"));
        expression = expression.name(&placeholder, &name).value(&format!(":f{at}"), value);
    }
    expression.text = format!("SET {}", assignments.join(", "));
    Ok(expression)
}

/// The lease lasts from now on.
fn fence(lease: &SyncLease, written: Written, now: Timestamp) -> (Expression, Expression) {
    let until = now.saturating_add(LEASE).unwrap_or(now);
    let counts = [written.added, written.updated, written.renamed, written.removed];
    let mut change = Expression::new("SET leaseUntil = :until").value(":until", text(until.to_string()));
    let mut counted = Vec::new();
    for (name, count) in COUNTED.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
        counted.push(format!("#{name} :{name}"));
        change = change.name(&format!("#{name}"), name).value(&format!(":{name}"), number(count));
    }
    if !counted.is_empty() {
        change.text = format!("{} ADD {}", change.text, counted.join(", "));
    }
    (change, Expression::new("epoch = :epoch").value(":epoch", number(lease.epoch)))
}
