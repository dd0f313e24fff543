//! Encrypts all values of a tenant again under the data key that a rotation chose.
//!
//! A walk looks at every item that holds a value of purpose `secret`, a page at a time, and seals anew what is under another
//! key: conditional on exactly the ciphertext that was read, so that what people write meanwhile stays. Places, revisions
//! and all else stay as they are, and nobody who reads notices. What is sealed anew, and how far the walk has come, are one
//! transaction; a pass that is killed leaves both or neither, and the next one goes on when its lease is over.
//!
//! Somebody may have read a value before it was sealed anew, and write it back with something else of its item afterwards.
//! It can be read as before, but is under the former key. So a walk that found something is followed by another, which
//! begins when whoever may have read before has ended; the rotation ends with a walk that found nothing.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tidegate_domain::{
    id::{ApplicationId, ProjectId, Revision, SecretId, TenantId},
    variable::Scope,
};
use tokio::time::Instant;

use crate::{
    data_keys::{Rotation, RotationState},
    envelope::{Purpose, data_key_of},
    error::{Result, StoreError},
    keys::{self, Kind},
    store::Store,
    table::{Cancelled, Item, PageQuery, item, sort_key, text},
    write::{Expression, Write, delete, put, update},
};

mod ciphertexts;
mod position;

use ciphertexts::{Ciphertext, Held};
pub(crate) use position::Position;
use position::Stage;

/// Whoever may have read a value before it was sealed anew has written it back by then: no function runs longer.
const SETTLED: SignedDuration = SignedDuration::from_mins(2);
/// A pass ends long before that.
const LEASE: SignedDuration = SignedDuration::from_mins(2);
/// Items that are looked at in one go.
const PAGE: usize = 20;
/// As [`PAGE`], of secrets, each with its versions: ten values of 64 KiB each at most.
const PAGE_OF_SECRETS: usize = 5;
/// Of one transaction: DynamoDB takes 4 MB, and each value is in it twice.
const MOST_BYTES: usize = 1 << 20;
/// How often a page is read again because somebody has changed it.
const ATTEMPTS: u32 = 10;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reencrypted {
    /// Rotations that are not done.
    pub running: usize,
    /// Values that were encrypted again.
    pub values: u64,
    /// Rotations at which something could not be done; the next pass tries again.
    pub failed: usize,
}

/// What one go looks at, and where the next one begins.
struct Page {
    held: Vec<Result<Held>>,
    next: Option<Position>,
}

impl Store {
    /// One pass over every running rotation, for at most about `budget`. Without one it costs one query.
    ///
    /// # Errors
    /// If the running rotations cannot be listed.
    pub async fn reencrypt(&self, now: Timestamp, budget: Duration) -> Result<Reencrypted> {
        let until = Instant::now() + budget;
        let running = self.table.all(&keys::rotations(), "").await?;
        let mut done = Reencrypted { running: running.len(), ..Reencrypted::default() };
        for item in &running {
            let Some(tenant) = sort_key(item).and_then(|sk| TenantId::parse(sk).ok()) else {
                tracing::error!(key = sort_key(item), "what is listed as a rotation is no tenant's name");
                done.failed += 1;
                continue;
            };
            match Box::pin(self.reencrypt_tenant(&tenant, now, until)).await {
                Ok(values) => done.values += values,
                Err(error) => {
                    tracing::warn!(tenant = %tenant, error = &error as &dyn std::error::Error,
                        "a pass could not go on with a rotation; the next one does");
                    done.failed += 1;
                }
            }
        }
        Ok(done)
    }

    async fn reencrypt_tenant(&self, tenant: &TenantId, now: Timestamp, until: Instant) -> Result<u64> {
        let Some(mut rotation) = self.lease(tenant, now).await? else { return Ok(0) };
        let before = rotation.reencrypted;
        while let Some(position) = rotation.position.clone() {
            if Instant::now() > until {
                break;
            }
            self.one_page(tenant, &mut rotation, &position, now).await?;
        }
        let ends = rotation.position.is_none();
        let nothing_found = rotation.walk_began.duration_since(rotation.last_found) >= SETTLED;
        rotation.leased_until = None;
        if ends && nothing_found {
            rotation.state = if rotation.unreadable == 0 { RotationState::Succeeded } else { RotationState::Failed };
            rotation.finished_at = Some(now);
        }
        let mut writes = vec![self.rotation_write(tenant, &mut rotation)?];
        if rotation.state != RotationState::Running {
            writes.push(delete(Part::Item, &keys::running_rotation(tenant), &self.table, None));
        }
        self.table.transact(writes).await.map_err(lost)?;
        Ok(rotation.reencrypted - before)
    }

    /// The rotation, if there is something to be done and nobody is at it. A walk is begun if the one before has ended.
    async fn lease(&self, tenant: &TenantId, now: Timestamp) -> Result<Option<Rotation>> {
        let Some(mut rotation) = self.rotation(tenant).await? else { return Ok(None) };
        let is_leased = rotation.leased_until.is_some_and(|until| until > now);
        if rotation.state != RotationState::Running || is_leased {
            return Ok(None);
        }
        if rotation.position.is_none() {
            if now.duration_since(rotation.last_found) < SETTLED {
                return Ok(None);
            }
            rotation.position = Some(Position::START);
            rotation.walk_began = now;
            (rotation.looked_at, rotation.unreadable) = (0, 0);
        }
        rotation.leased_until = Some(now + LEASE);
        let write = self.rotation_write(tenant, &mut rotation)?;
        match self.table.transact(vec![write]).await {
            Ok(()) => Ok(Some(rotation)),
            // Another pass was first.
            Err(Cancelled::Conditions(_)) => Ok(None),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }

    /// Puts the rotation in the place of what was read, or last written: whoever has lost the lease writes nothing more.
    fn rotation_write(&self, tenant: &TenantId, rotation: &mut Rotation) -> Result<Write<Part>> {
        let was = rotation.revision;
        rotation.revision = Revision(was.0 + 1);
        let item = item(&keys::rotation(tenant), rotation)?;
        Ok(put(Part::Rotation, item, &self.table, Some(Expression::revision(was.0))))
    }

    /// Looks at one page, seals anew what is under another key, and goes on behind it.
    async fn one_page(
        &self,
        tenant: &TenantId,
        rotation: &mut Rotation,
        position: &Position,
        now: Timestamp,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let page = self.page_at(tenant, position).await?;
            if self.try_page(tenant, rotation, page, now).await? {
                return Ok(());
            }
        }
        Err(StoreError::Busy)
    }

    /// `false`: somebody has changed something of the page.
    async fn try_page(&self, tenant: &TenantId, rotation: &mut Rotation, page: Page, now: Timestamp) -> Result<bool> {
        let (mut looked_at, mut unreadable) = (0, 0);
        let (mut writes, mut values, mut bytes) = (Vec::new(), 0, 0);
        for held in page.held {
            let held = match held {
                Ok(held) => held,
                Err(error) => {
                    tracing::error!(tenant = %tenant, error = &error as &dyn std::error::Error, "a stored item cannot be read");
                    unreadable += 1;
                    continue;
                }
            };
            looked_at += held.values.len() as u64;
            let sealed = self.anew(tenant, &rotation.data_key, &held).await?;
            unreadable += sealed.unreadable;
            if sealed.values == 0 {
                continue;
            }
            values += sealed.values;
            bytes += sealed.bytes;
            writes.push(sealed.write(&held, self));
            if writes.len() >= PAGE || bytes > MOST_BYTES {
                let full = std::mem::take(&mut writes);
                if !self.keep(tenant, rotation, full, std::mem::take(&mut values), now).await? {
                    return Ok(false);
                }
                bytes = 0;
            }
        }
        let kept = rotation.clone();
        rotation.position = page.next;
        rotation.looked_at += looked_at;
        rotation.unreadable += unreadable;
        if self.keep(tenant, rotation, writes, values, now).await? {
            return Ok(true);
        }
        *rotation = kept;
        Ok(false)
    }

    /// Writes these with the rotation. `false`: one of them has changed since it was read, and nothing was written.
    async fn keep(
        &self,
        tenant: &TenantId,
        rotation: &mut Rotation,
        mut writes: Vec<Write<Part>>,
        values: u64,
        now: Timestamp,
    ) -> Result<bool> {
        let before = rotation.clone();
        if values > 0 {
            rotation.reencrypted += values;
            rotation.last_found = now;
        }
        writes.push(self.rotation_write(tenant, rotation)?);
        match self.table.transact(writes).await {
            Ok(()) => Ok(true),
            Err(Cancelled::Conditions(parts)) if !parts.contains(&Part::Rotation) => {
                *rotation = before;
                Ok(false)
            }
            Err(cancelled) => Err(lost(cancelled)),
        }
    }

    /// The values of an item that are under another key, sealed under this one.
    async fn anew(&self, tenant: &TenantId, data_key: &str, held: &Held) -> Result<Anew> {
        let mut anew = Anew { item: held.item.clone(), values: 0, unreadable: 0, bytes: 0 };
        for Ciphertext { path, place, sealed } in &held.values {
            if data_key_of(sealed).is_ok_and(|of| of == data_key) {
                continue;
            }
            let opened = self.sealer.open(&self.table, tenant, Purpose::Secret, place.borrow(), sealed).await;
            let plain = match opened {
                Ok(plain) => plain,
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(tenant = %tenant, kind = place.kind, id = place.id, version = place.version,
                        error = &error as &dyn std::error::Error, "a value cannot be opened");
                    anew.unreadable += 1;
                    continue;
                }
                Err(other) => return Err(other),
            };
            let (purpose, place) = (Purpose::Secret, place.borrow());
            let value = self.sealer.seal_under(&self.table, tenant, purpose, data_key, place, plain.expose()).await?;
            anew.bytes += 2 * value.len();
            ciphertexts::put_at(&mut anew.item, path, text(value));
            anew.values += 1;
        }
        Ok(anew)
    }

    async fn page_at(&self, tenant: &TenantId, position: &Position) -> Result<Page> {
        let stage = position.stage;
        match stage {
            Stage::Settings => {
                let settings = self.table.get(&keys::settings(tenant)).await?;
                let names = self.table.get(&keys::issue_names(tenant)).await?;
                let settings = settings.map(|item| Held::of(item, ciphertexts::of_settings));
                let names = names.map(|item| Held::of(item, ciphertexts::of_names));
                Ok(Page { held: settings.into_iter().chain(names).collect(), next: Position::stage_after(stage) })
            }
            Stage::Registries => {
                let list = keys::catalogue(tenant, Kind::Registry);
                self.plain_page(&list, position, |item| Held::of(item, ciphertexts::of_registry)).await
            }
            Stage::Providers => {
                let list = keys::catalogue(tenant, Kind::SecretProvider);
                self.plain_page(&list, position, |item| Held::of(item, ciphertexts::of_provider)).await
            }
            Stage::Global => {
                let list = keys::variables(tenant, Scope::Global);
                let held = |item| Held::of(item, |item| ciphertexts::of_variable(item, Scope::Global));
                self.plain_page(&list, position, held).await
            }
            Stage::Projects => {
                let scope = |id| Scope::Project(ProjectId(id));
                self.nested_page(tenant, Kind::Project, position, scope).await
            }
            Stage::Applications => {
                let scope = |id| Scope::Application(ApplicationId(id));
                self.nested_page(tenant, Kind::Application, position, scope).await
            }
            Stage::Environments => self.environments_page(tenant, Kind::Environment, position).await,
            Stage::DeletedEnvironments => self.environments_page(tenant, Kind::DeletedEnvironment, position).await,
            Stage::Secrets => self.secrets_page(tenant, position).await,
        }
    }

    async fn plain_page(&self, list: &str, position: &Position, held: impl Fn(Item) -> Result<Held>) -> Result<Page> {
        let query = PageQuery { after: position.after.as_deref(), limit: Some(PAGE), ..PageQuery::default() };
        let found = self.table.page(list, &query).await?;
        let next = match found.next {
            Some(after) => Some(Position { after: Some(after), ..position.clone() }),
            None => Position::stage_after(position.stage),
        };
        Ok(Page { held: found.items.into_iter().map(held).collect(), next })
    }

    async fn environments_page(&self, tenant: &TenantId, kind: Kind, position: &Position) -> Result<Page> {
        let list = keys::catalogue(tenant, kind);
        self.plain_page(&list, position, |item| Held::of(item, ciphertexts::of_environment)).await
    }

    /// Variables of the projects or applications, one after the other.
    async fn nested_page(
        &self,
        tenant: &TenantId,
        kind: Kind,
        position: &Position,
        scope: impl Fn(u64) -> Scope,
    ) -> Result<Page> {
        let parent = match (position.parent, &position.after) {
            (Some(in_hand), Some(_)) => Some(in_hand),
            (finished, _) => self.id_after(tenant, kind, finished).await?,
        };
        let Some(parent) = parent else {
            return Ok(Page { held: Vec::new(), next: Position::stage_after(position.stage) });
        };
        let scope = scope(parent);
        let query = PageQuery { after: position.after.as_deref(), limit: Some(PAGE), ..PageQuery::default() };
        let found = self.table.page(&keys::variables(tenant, scope), &query).await?;
        let held = |item| Held::of(item, |item| ciphertexts::of_variable(item, scope));
        let next = Position { stage: position.stage, parent: Some(parent), after: found.next };
        Ok(Page { held: found.items.into_iter().map(held).collect(), next: Some(next) })
    }

    async fn id_after(&self, tenant: &TenantId, kind: Kind, finished: Option<u64>) -> Result<Option<u64>> {
        let after = finished.map(|id| keys::thing(tenant, kind, id).sk);
        let query = PageQuery { after: after.as_deref(), limit: Some(1), ..PageQuery::default() };
        let found = self.table.page(&keys::catalogue(tenant, kind), &query).await?;
        Ok(found.items.first().and_then(sort_key).and_then(|sk| sk.parse().ok()))
    }

    /// Secrets, each with its versions.
    async fn secrets_page(&self, tenant: &TenantId, position: &Position) -> Result<Page> {
        let query =
            PageQuery { after: position.after.as_deref(), limit: Some(PAGE_OF_SECRETS), ..PageQuery::default() };
        let found = self.table.page(&keys::catalogue(tenant, Kind::Secret), &query).await?;
        let ids: Vec<u64> = found.items.iter().filter_map(|item| sort_key(item)?.parse().ok()).collect();
        let versions = ids.iter().map(|id| async move {
            let items = self.table.all(&keys::secret_versions(tenant, SecretId(*id)), "").await?;
            Ok::<_, StoreError>(items.into_iter().map(|item| (*id, item)).collect::<Vec<_>>())
        });
        let versions = futures_util::future::try_join_all(versions).await?;
        let mut held: Vec<_> = found.items.into_iter().map(|item| Held::of(item, ciphertexts::of_secret)).collect();
        held.extend(
            versions.into_iter().flatten().map(|(id, item)| Held::of(item, |item| ciphertexts::of_version(item, id))),
        );
        let next = match found.next {
            Some(after) => Some(Position { after: Some(after), ..position.clone() }),
            None => Position::stage_after(position.stage),
        };
        Ok(Page { held, next })
    }
}

/// An item with values sealed anew.
struct Anew {
    item: Item,
    values: u64,
    unreadable: u64,
    bytes: usize,
}

impl Anew {
    /// Replaces what holds the values, if it is what was read.
    fn write(&self, held: &Held, store: &Store) -> Write<Part> {
        let [old, new] = [&held.item, &self.item].map(|item| ciphertexts::at(item, held.part).cloned());
        let names = held.part.iter().enumerate();
        let path: Vec<_> = names.clone().map(|(index, _)| format!("#p{index}")).collect();
        let path = path.join(".");
        let mut change = Expression::new(&format!("SET {path} = :new"));
        for (index, name) in names {
            change = change.name(&format!("#p{index}"), name);
        }
        let change = change.value(":new", new.unwrap_or(AttributeValue::Null(true)));
        let as_read = Expression::new(&format!("{path} = :old"));
        let as_read = as_read.value(":old", old.unwrap_or(AttributeValue::Null(true)));
        update(Part::Item, &held.key, &store.table, change, as_read)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Rotation,
    Item,
}

/// The lease was over, and another pass has it.
fn lost(cancelled: Cancelled<Part>) -> StoreError {
    match cancelled {
        Cancelled::Conditions(_) => StoreError::Conflict,
        Cancelled::Store(error) => error,
    }
}
