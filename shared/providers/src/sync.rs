//! The sync: what is due is read from its source, planned, and written step by step.
//!
//! A pass ends at its deadline, wherever it is, and leaves the rest to the next: that one reads and plans anew, so that it
//! does not matter what came in between. A crash is the same without the leave-taking.

mod group;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tidegate_aws::{
    catalogue::Stored,
    error::StoreError,
    providers::SecretProvider,
    registered::SecretGroup,
    store::Store,
    syncs::{DueSync, StoredSync, SyncLease},
};
use tidegate_domain::{
    id::{Revision, SecretGroupId, SecretProviderId, TenantId},
    sync_run::{Ending, SyncFailure, SyncTrigger},
};
use tokio::time::Instant;

pub use group::{GroupPlan, PlannedStep};

use crate::{Connection, Provider as _, ProviderError, Settings};

/// For one request to a source, with its retries. Shorter than the lease.
const PATIENCE: Duration = Duration::from_secs(15);
const AT_ONCE: usize = 4;
/// A run that has not come to its end by then never will.
const LONGEST_RUN: SignedDuration = SignedDuration::from_hours(1);
const CONNECTIONS: usize = 100;

/// How long a pass is at one provider.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// So long something new is begun, so that a slow provider does not keep the others waiting.
    pub slice: Duration,
    /// So long one folder is listed, also beyond the slice: half a list is none, and the next pass would begin with it anew.
    pub listing: Duration,
    /// So long at least is written what was listed, or the next pass would be no further.
    pub writing: Duration,
}

impl Default for Pace {
    /// With what a pass has for all of it, within the time-out of the function.
    fn default() -> Self {
        Self { slice: Duration::from_secs(20), listing: Duration::from_secs(35), writing: Duration::from_secs(5) }
    }
}

/// How long one turn takes.
#[derive(Debug, Clone, Copy)]
struct Until {
    /// Nothing new is begun then.
    begins: Instant,
    /// What is being listed then is left.
    lists: Instant,
    /// After a listing, whatever the time.
    writes: Duration,
}

/// Keeps groups as their sources have them. Clones share their connections, and with them the sources' tokens.
#[derive(Debug, Clone)]
pub struct Syncer {
    store: Store,
    clock: fn() -> Timestamp,
    pace: Pace,
    connections: Arc<Mutex<HashMap<(TenantId, u64), Connected>>>,
}

/// With the revision of the provider that it was made from.
type Connected = (Revision, Arc<Connection>);

/// What became of one provider's turn.
#[derive(Debug)]
pub enum Ran {
    Finished(Box<StoredSync>),
    /// The time was up; the next pass goes on.
    Continues,
    /// Somebody else is at it, or nothing is to be done.
    Nothing,
}

/// What a pass found and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Passed {
    pub due: usize,
    pub succeeded: usize,
    /// Runs that ended without success; each one's log says why.
    pub failed: usize,
    pub continued: usize,
    /// Providers at which something could not be done; the next pass tries again.
    pub broken: usize,
}

/// Why a run does not go on.
enum Stop {
    TimeUp,
    /// Another one has taken over.
    Lost,
    Source(ProviderError),
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Why a source could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Source(#[from] ProviderError),
}

impl Syncer {
    pub fn new(store: Store, clock: fn() -> Timestamp) -> Self {
        Self { store, clock, pace: Pace::default(), connections: Arc::default() }
    }

    #[must_use]
    pub fn at_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Everything that is due, until the time is up.
    ///
    /// # Errors
    /// If what is due cannot be listed.
    pub async fn pass(&self, until: Instant) -> Result<Passed, StoreError> {
        let due = self.store.due_syncs((self.clock)()).await?;
        let passed = Mutex::new(Passed { due: due.len(), ..Passed::default() });
        futures_util::stream::iter(due)
            .for_each_concurrent(AT_ONCE, async |due| {
                if Instant::now() >= until {
                    return;
                }
                let begins = until.min(Instant::now() + self.pace.slice);
                let ran = Box::pin(self.turn(&due, Until { begins, lists: until, writes: self.pace.writing })).await;
                let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
                match ran {
                    Ok(Ran::Finished(run)) if run.failure().is_none() => passed.succeeded += 1,
                    Ok(Ran::Finished(_)) => passed.failed += 1,
                    Ok(Ran::Continues) => passed.continued += 1,
                    Ok(Ran::Nothing) => {}
                    Err(error) => {
                        tracing::warn!(provider.id = %due.provider, tenant = %due.tenant,
                            error = &error as &dyn std::error::Error, "a sync broke off; the next pass goes on");
                        passed.broken += 1;
                    }
                }
            })
            .await;
        Ok(passed.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    async fn turn(&self, due: &DueSync, until: Until) -> Result<Ran, StoreError> {
        match self.run_until(&due.tenant, due.provider, until).await {
            Err(StoreError::Missing) => {
                self.store.forget_due(due, (self.clock)()).await?;
                Ok(Ran::Nothing)
            }
            other => other,
        }
    }

    /// The provider's run, if one is to be done and nobody else does it, until the time is up.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such provider. Whatever it is, what was written stays, and the run goes on with
    /// the next pass.
    pub async fn run(&self, tenant: &TenantId, id: SecretProviderId, until: Instant) -> Result<Ran, StoreError> {
        let until = Until { begins: until, lists: until, writes: Duration::ZERO };
        self.run_until(tenant, id, until).await
    }

    async fn run_until(&self, tenant: &TenantId, id: SecretProviderId, until: Until) -> Result<Ran, StoreError> {
        let Some(mut lease) = self.store.begin_sync(tenant, id, (self.clock)()).await? else { return Ok(Ran::Nothing) };
        // Read under the lease, which whoever writes it takes away: while anything can be written, it is as it was read.
        let provider: Stored<SecretProvider> = match self.store.find(tenant, id.0).await {
            Ok(provider) => provider,
            Err(error) => {
                self.release(&lease).await;
                return Err(error);
            }
        };
        let ending = match self.groups(&mut lease, &provider, until).await {
            Ok(()) => Ending::Done,
            Err(Stop::Lost) => return Ok(Ran::Nothing),
            Err(Stop::TimeUp) => return self.give_back(&lease, &provider).await,
            Err(Stop::Source(error)) => {
                tracing::warn!(provider.id = %id, %tenant, code = error.code(), error = &error as &dyn std::error::Error,
                    "a source could not be read");
                lease.run.found.fail(failure(&error));
                ending(&error)
            }
            Err(Stop::Store(error)) => {
                self.release(&lease).await;
                return Err(error);
            }
        };
        self.finish(&lease, ending, &provider).await
    }

    /// After an error, which is told instead of what becomes of this.
    async fn release(&self, lease: &SyncLease) {
        if let Err(error) = self.store.pause_sync(lease, (self.clock)()).await {
            tracing::warn!(provider.id = %lease.provider, tenant = %lease.tenant,
                error = &error as &dyn std::error::Error, "a lease was not given back; it ends by itself");
        }
    }

    async fn give_back(&self, lease: &SyncLease, provider: &Stored<SecretProvider>) -> Result<Ran, StoreError> {
        let now = (self.clock)();
        if now.duration_since(lease.run.started_at) < LONGEST_RUN {
            let is_ours = self.store.pause_sync(lease, now).await?;
            return Ok(if is_ours { Ran::Continues } else { Ran::Nothing });
        }
        let mut run = lease.run.clone();
        run.found.fail(SyncFailure {
            code: "too-long".to_owned(),
            message: "it did not come to its end within an hour; the log of the sync function tells why".to_owned(),
        });
        self.finish(&lease.with(run), Ending::Done, provider).await
    }

    async fn finish(
        &self,
        lease: &SyncLease,
        ending: Ending,
        provider: &Stored<SecretProvider>,
    ) -> Result<Ran, StoreError> {
        let Some(ended) = self.store.finish_sync(lease, ending, &provider.body, (self.clock)()).await? else {
            return Ok(Ran::Nothing);
        };
        tracing::info!(provider.id = %lease.provider, tenant = %lease.tenant, sync.id = %ended.id,
            ended.written.added, ended.written.updated, ended.written.renamed, ended.written.removed,
            ended.found.unchanged, failures = ended.found.failures.len(), "synced");
        Ok(Ran::Finished(Box::new(ended)))
    }

    async fn groups(&self, lease: &mut SyncLease, provider: &Stored<SecretProvider>, until: Until) -> Result<(), Stop> {
        let groups = self.store.groups_of(&lease.tenant, lease.provider).await?;
        let is_wanted = |group: &Stored<SecretGroup>| {
            let by_itself = provider.body.auto_sync && group.body.auto_sync;
            let asked = lease.run.asked.trigger == SyncTrigger::Manual || by_itself;
            asked && !lease.run.done.contains(&SecretGroupId(group.id))
        };
        let wanted: Vec<_> = groups.into_iter().filter(is_wanted).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let connection = self.connection(&lease.tenant, provider).await?;
        let last = wanted.len() - 1;
        for (at, group) in wanted.iter().enumerate() {
            if Instant::now() >= until.begins {
                return Err(Stop::TimeUp);
            }
            self.group(lease, provider, &connection, group, until).await?;
            lease.run.done.push(SecretGroupId(group.id));
            // The end of the run notes the last one.
            if at < last && !self.store.note_sync(lease, (self.clock)()).await? {
                return Err(Stop::Lost);
            }
        }
        Ok(())
    }

    /// The source as it is configured now, with the token that it gave before.
    async fn connection(&self, tenant: &TenantId, provider: &Stored<SecretProvider>) -> Result<Arc<Connection>, Stop> {
        let key = (tenant.clone(), provider.id);
        {
            let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, kept)) = connections.get(&key).filter(|(revision, _)| *revision == provider.revision) {
                return Ok(Arc::clone(kept));
            }
        }
        let mut settings = Settings { texts: provider.body.settings.clone(), ..Settings::default() };
        for (field, credential) in &provider.body.credentials {
            let opened = self.store.open_credential(tenant, provider.id, field, credential).await?;
            settings.secrets.insert(field.clone(), opened);
        }
        let connection = Connection::new(provider.body.kind, settings, PATIENCE).await.map_err(Stop::Source)?;
        let connection = Arc::new(connection);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() >= CONNECTIONS {
            connections.clear();
        }
        connections.insert(key, (provider.revision, Arc::clone(&connection)));
        Ok(connection)
    }

    async fn ask(&self, tenant: &TenantId, provider: &Stored<SecretProvider>) -> Result<Arc<Connection>, AskError> {
        self.connection(tenant, provider).await.map_err(|stop| match stop {
            Stop::Store(error) => error.into(),
            Stop::Source(error) => error.into(),
            Stop::TimeUp | Stop::Lost => StoreError::Busy.into(),
        })
    }

    /// Whether the credentials are right and the provider's folder can be read, as far as that shows until then.
    pub async fn check(
        &self,
        tenant: &TenantId,
        provider: &Stored<SecretProvider>,
        until: Instant,
    ) -> Result<(), AskError> {
        in_time(until, async { Ok(self.ask(tenant, provider).await?.check().await?) }).await
    }

    /// What a run would do now to each of the groups, by names, if that shows until then.
    pub async fn plan(
        &self,
        tenant: &TenantId,
        provider: &Stored<SecretProvider>,
        force: bool,
        until: Instant,
    ) -> Result<Vec<GroupPlan>, AskError> {
        in_time(until, async {
            let connection = self.ask(tenant, provider).await?;
            let mut plans = Vec::new();
            for group in self.store.groups_of(tenant, SecretProviderId(provider.id)).await? {
                plans.push(self.plan_of(tenant, provider, &connection, &group, force).await?);
            }
            Ok(plans)
        })
        .await
    }
}

async fn in_time<T>(until: Instant, asked: impl Future<Output = Result<T, AskError>>) -> Result<T, AskError> {
    let asked = tokio::time::timeout_at(until, Box::pin(asked)).await;
    asked.unwrap_or_else(|_| Err(ProviderError::away("it takes longer than anybody waits for an answer").into()))
}

fn failure(error: &ProviderError) -> SyncFailure {
    SyncFailure { code: error.code().to_owned(), message: error.to_string() }
}

fn ending(error: &ProviderError) -> Ending {
    match error {
        ProviderError::LoginRefused => Ending::Refused,
        ProviderError::RateLimited { after } => Ending::Away(SignedDuration::try_from(*after).ok()),
        // Also what has nothing of the source's API: something before it may answer in its place for a while.
        ProviderError::Away { .. } | ProviderError::BadRole { .. } | ProviderError::NoSuchApi => Ending::Away(None),
        ProviderError::Misconfigured(_)
        | ProviderError::Denied
        | ProviderError::Hidden { .. }
        | ProviderError::NotFound
        | ProviderError::Refused { .. }
        | ProviderError::Redirected
        | ProviderError::TooLarge
        | ProviderError::TooSlow
        | ProviderError::Malformed(_) => Ending::Done,
    }
}
