//! One group: listed, planned, and written step by step.

use std::collections::BTreeMap;

use tidegate_aws::{
    catalogue::Stored,
    error::StoreError,
    providers::SecretProvider,
    registered::{SecretGroup, StoredSecret},
    synced::{SyncedChange, There},
    syncs::SyncLease,
};
use tidegate_domain::{
    id::{SecretGroupId, SecretId, SecretProviderId, TenantId},
    secret::Secret,
    sync::{self, Conflict, Known, Listed, Plan, Rules, Step, Trouble},
    sync_run::{SyncFailure, SyncProblem},
};
use tokio::time::{Duration, Instant};

use super::{AskError, Stop, Syncer, Until, failure};
use crate::{Connection, Provider as _, ProviderError};

/// A plan that others get in the way of is made anew so often; then the next pass goes on.
const PLANS: usize = 5;
/// A failure names so many secrets.
const NAMED: usize = 10;
/// Well within the lease.
const RENEWED_EACH: Duration = Duration::from_secs(15);

/// What a run would do to a group.
#[derive(Debug)]
pub struct GroupPlan {
    pub group: SecretGroupId,
    pub name: String,
    pub steps: Vec<PlannedStep>,
    pub unchanged: usize,
    pub held_back: usize,
    pub problems: Vec<SyncProblem>,
    /// With it nothing would be done to the group.
    pub failure: Option<SyncFailure>,
}

#[derive(Debug)]
pub struct PlannedStep {
    /// `add`, `update`, `rename`, `adopt`, `link`, `mark-stale`, `delete`
    pub action: &'static str,
    pub name: String,
    pub secret: Option<SecretId>,
    /// Of a renaming.
    pub to: Option<String>,
}

/// What the source has of a group.
struct Listing {
    /// As [`Rules::place`] has it.
    place: String,
    secrets: Vec<Listed>,
}

/// The group as it is stored now.
struct Present {
    stored: BTreeMap<SecretId, Stored<StoredSecret>>,
    known: Vec<Known>,
}

/// What stands in the way of a step.
enum Met {
    /// Something has changed since the plan was made, or the lease is another's.
    Change,
    /// There is no such group any more.
    NoGroup,
    Store(StoreError),
}

impl Syncer {
    /// What a source has to say of one group alone is noted, and the others are synced all the same.
    pub(super) async fn group(
        &self,
        lease: &mut SyncLease,
        provider: &Stored<SecretProvider>,
        connection: &Connection,
        group: &Stored<SecretGroup>,
        until: Until,
    ) -> Result<(), Stop> {
        let listing = match self.listing(lease, connection, group, until.lists).await? {
            Ok(secrets) => Listing::of(connection, group, secrets),
            Err(error) if is_of_one_folder(&error) => {
                let SyncFailure { code, message } = failure(&error);
                lease.run.found.add_failure(SyncFailure { code, message: of_group(group, &message) });
                return Ok(());
            }
            Err(error) => return Err(Stop::Source(error)),
        };
        let until = until.begins.max(Instant::now() + until.writes);
        let rules = listing.rules(provider, lease.run.asked.force);
        for _ in 0..PLANS {
            let mut present = self.present(&lease.tenant, SecretGroupId(group.id)).await?;
            let plan = match sync::plan(&listing.secrets, &present.known, rules) {
                Ok(plan) => plan,
                Err(conflicts) => {
                    lease.run.found.add_failure(conflict(group, &conflicts));
                    return Ok(());
                }
            };
            match self.carry_out(lease, &plan, &listing, &mut present, group, until).await? {
                None => {
                    note(lease, plan, &present, group);
                    return Ok(());
                }
                Some(Met::NoGroup) => return Ok(()),
                Some(Met::Store(error)) => return Err(error.into()),
                Some(Met::Change) if self.store.renew_sync(lease, (self.clock)()).await? => {}
                Some(Met::Change) => return Err(Stop::Lost),
            }
        }
        Err(Stop::TimeUp)
    }

    /// The lease is renewed while the source takes its time.
    async fn listing(
        &self,
        lease: &SyncLease,
        connection: &Connection,
        group: &Stored<SecretGroup>,
        until: Instant,
    ) -> Result<Result<Vec<Listed>, ProviderError>, Stop> {
        let listing = connection.all(&group.body.remote_path);
        tokio::pin!(listing);
        let too_slow = Instant::now() + self.pace.listing;
        let mut renewals = tokio::time::interval(RENEWED_EACH);
        loop {
            tokio::select! {
                listed = &mut listing => return Ok(listed),
                () = tokio::time::sleep_until(too_slow) => return Ok(Err(ProviderError::TooSlow)),
                () = tokio::time::sleep_until(until) => return Err(Stop::TimeUp),
                _ = renewals.tick() => {
                    if !self.store.renew_sync(lease, (self.clock)()).await? {
                        return Err(Stop::Lost);
                    }
                }
            }
        }
    }

    async fn present(&self, tenant: &TenantId, group: SecretGroupId) -> Result<Present, StoreError> {
        let mut present = Present { stored: BTreeMap::new(), known: Vec::new() };
        for secret in self.store.all_of_group(tenant, group).await? {
            present.known.push(self.store.known_secret(tenant, &secret).await?);
            present.stored.insert(SecretId(secret.id), secret);
        }
        Ok(present)
    }

    /// None: all of it is done.
    async fn carry_out(
        &self,
        lease: &SyncLease,
        plan: &Plan,
        listing: &Listing,
        present: &mut Present,
        group: &Stored<SecretGroup>,
        until: Instant,
    ) -> Result<Option<Met>, Stop> {
        for step in &plan.steps {
            if Instant::now() >= until {
                return Err(Stop::TimeUp);
            }
            match self.step(lease, step, listing, present, SecretGroupId(group.id)).await {
                Ok(()) => {}
                Err(
                    StoreError::Conflict
                    | StoreError::NameTaken { .. }
                    | StoreError::InUse { .. }
                    | StoreError::Missing,
                ) => return Ok(Some(Met::Change)),
                Err(StoreError::ReferenceMissing { field: "groupId" }) => return Ok(Some(Met::NoGroup)),
                Err(StoreError::ReferenceMissing { .. }) => return Err(Stop::Lost),
                Err(other) => return Ok(Some(Met::Store(other))),
            }
        }
        Ok(None)
    }

    /// One write, with all that belongs to it: a crash after it leaves what the next plan goes on from.
    async fn step(
        &self,
        lease: &SyncLease,
        step: &Step,
        listing: &Listing,
        present: &mut Present,
        group: SecretGroupId,
    ) -> Result<(), StoreError> {
        let now = (self.clock)();
        let value = |at: usize| listing.secrets[at].value.as_ref().map(Secret::duplicate);
        let (secret, change) = match step {
            Step::Add { listed } => {
                let (key, value) = (&listing.secrets[*listed].key, value(*listed).ok_or(StoreError::Conflict)?);
                return self.store.add_synced(lease, group, key, listing.there(*listed), value, now).await;
            }
            Step::Delete { secret } => {
                let old = present.stored.get(secret).ok_or(StoreError::Missing)?;
                return self.store.delete_synced(lease, old, now).await;
            }
            Step::MarkStale { secret } => (secret, SyncedChange::MarkStale),
            Step::Rename { secret, to, listed } => {
                (secret, SyncedChange::Rename { to, there: listed.map(|at| listing.there(at)) })
            }
            Step::Update { secret, listed, new_value } => {
                let value = new_value.then(|| value(*listed)).flatten();
                (secret, SyncedChange::Update { there: listing.there(*listed), value })
            }
            Step::Adopt { secret, listed } => {
                (secret, SyncedChange::Adopt { there: listing.there(*listed), value: value(*listed) })
            }
        };
        let old = present.stored.get(secret).ok_or(StoreError::Missing)?;
        let new = self.store.change_synced(lease, old, change, now).await?;
        present.stored.insert(*secret, new);
        Ok(())
    }

    pub(super) async fn plan_of(
        &self,
        tenant: &TenantId,
        provider: &Stored<SecretProvider>,
        connection: &Connection,
        group: &Stored<SecretGroup>,
        force: bool,
    ) -> Result<GroupPlan, AskError> {
        let secrets = connection.all(&group.body.remote_path).await?;
        let listing = Listing::of(connection, group, secrets);
        let present = self.present(tenant, SecretGroupId(group.id)).await?;
        let mut told = GroupPlan {
            group: SecretGroupId(group.id),
            name: group.body.name.clone(),
            steps: Vec::new(),
            unchanged: 0,
            held_back: 0,
            problems: Vec::new(),
            failure: None,
        };
        match sync::plan(&listing.secrets, &present.known, listing.rules(provider, force)) {
            Err(conflicts) => told.failure = Some(conflict(group, &conflicts)),
            Ok(plan) => {
                told.unchanged = plan.unchanged.len();
                told.held_back = plan.held_back;
                told.steps = plan.steps.iter().map(|step| tell(step, &listing.secrets, &present)).collect();
                told.problems = plan.problems.into_iter().map(|trouble| problem(group, trouble)).collect();
            }
        }
        Ok(told)
    }
}

impl Listing {
    fn of(connection: &Connection, group: &Stored<SecretGroup>, secrets: Vec<Listed>) -> Self {
        Self { place: connection.place(&group.body.remote_path, &secrets), secrets }
    }

    fn rules(&self, provider: &Stored<SecretProvider>, force: bool) -> Rules<'_> {
        let SecretProvider { on_conflict, on_removed, .. } = provider.body;
        Rules { provider: SecretProviderId(provider.id), place: &self.place, on_conflict, on_removed, force }
    }

    fn there(&self, at: usize) -> There<'_> {
        let Listed { remote_id, reference, .. } = &self.secrets[at];
        There { remote_id, reference, place: &self.place }
    }
}

/// Whether another folder may be read all the same.
fn is_of_one_folder(error: &ProviderError) -> bool {
    match error {
        ProviderError::Denied
        | ProviderError::Hidden { .. }
        | ProviderError::NotFound
        | ProviderError::Refused { .. }
        | ProviderError::TooLarge
        | ProviderError::TooSlow => true,
        ProviderError::Misconfigured(_)
        | ProviderError::LoginRefused
        | ProviderError::BadRole { .. }
        | ProviderError::NoSuchApi
        | ProviderError::Redirected
        | ProviderError::RateLimited { .. }
        | ProviderError::Malformed(_)
        | ProviderError::Away { .. } => false,
    }
}

/// What this run has written itself is not unchanged, also if a pass before this one wrote it.
fn note(lease: &mut SyncLease, plan: Plan, present: &Present, group: &Stored<SecretGroup>) {
    let since = lease.run.started_at;
    let is_older = |id: &&SecretId| present.stored.get(*id).is_some_and(|secret| secret.updated_at < since);
    let found = &mut lease.run.found;
    found.unchanged += plan.unchanged.iter().filter(is_older).count() as u64;
    found.held_back += plan.held_back as u64;
    for trouble in plan.problems {
        found.add_problem(problem(group, trouble));
    }
}

fn problem(group: &Stored<SecretGroup>, trouble: Trouble) -> SyncProblem {
    let Trouble { reference, why } = trouble;
    SyncProblem {
        group_id: SecretGroupId(group.id),
        // A name of any length may stand there.
        reference: reference.chars().take(200).collect(),
        code: why.code.to_owned(),
        message: why.message,
        suggestion: why.suggestion,
    }
}

fn of_group(group: &Stored<SecretGroup>, message: &str) -> String {
    format!("group {} ({}): {message}", group.id, group.body.name)
}

fn conflict(group: &Stored<SecretGroup>, conflicts: &[Conflict]) -> SyncFailure {
    let names: Vec<_> = conflicts
        .iter()
        .take(NAMED)
        .map(|conflict| format!("secret {} ({}): {}", conflict.secret, conflict.name, conflict.why))
        .collect();
    let more = conflicts.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let message = format!(
        "the source has secrets of the same names as these, and nothing was changed; rename or delete them, or set onConflict \
         to adopt: {}{more}",
        names.join("; ")
    );
    SyncFailure { code: "name-conflict".to_owned(), message: of_group(group, &message) }
}

fn tell(step: &Step, listing: &[Listed], present: &Present) -> PlannedStep {
    let named = |action, secret: &SecretId, to: Option<&String>| PlannedStep {
        action,
        name: present.stored.get(secret).map(|secret| secret.body.name.clone()).unwrap_or_default(),
        secret: Some(*secret),
        to: to.cloned(),
    };
    match step {
        Step::Add { listed } => {
            PlannedStep { action: "add", name: listing[*listed].key.clone(), secret: None, to: None }
        }
        Step::Rename { secret, to, .. } => named("rename", secret, Some(to)),
        Step::Update { secret, new_value: true, .. } => named("update", secret, None),
        Step::Update { secret, .. } => named("link", secret, None),
        Step::Adopt { secret, .. } => named("adopt", secret, None),
        Step::MarkStale { secret } => named("mark-stale", secret, None),
        Step::Delete { secret } => named("delete", secret, None),
    }
}
