//! Applications: their tokens, and the state that changes with every deployment.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_domain::{
    id::{ApplicationId, ProjectId, Revision, TenantId},
    token::Token,
};

use crate::{
    application_state::ApplicationState,
    audit::AuditEvent,
    catalogue::{Created, Part, Replay, Stored},
    error::{Result, StoreError},
    keys::{self, Key},
    registered::RegisteredApplication,
    store::Store,
    table::{Item, item, record},
    write::{Expression, Write, delete, put},
};

/// SHA-256, hex: the form in which tokens are kept and looked up. A 256-bit random secret gains nothing from a slow hash.
pub fn token_sha256(token: &str) -> String {
    sha256_hex(token.as_bytes())
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        use std::fmt::Write as _;
        write!(hex, "{byte:02x}").expect("writing to a string does not fail");
        hex
    })
}

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenGrant {
    pub tenant: TenantId,
    pub application_id: ApplicationId,
    /// Copied here so that everything about the application can be read in one round trip. Never changes.
    pub project_id: ProjectId,
    /// Of a token that was rotated with an overlap.
    pub valid_until: Option<Timestamp>,
}

impl TokenGrant {
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.valid_until.is_none_or(|until| until > now)
    }
}

/// A new token for an application.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    pub token: &'a Token,
    /// Until when the old token works beside it; none: not at all.
    pub overlap_until: Option<Timestamp>,
    pub replay: Option<Replay<'a>>,
}

impl Store {
    /// What the token opens, or opened until a moment ago: see [`TokenGrant::is_valid`]. None for an unknown or a revoked one.
    pub async fn grant(&self, token: &Token) -> Result<Option<TokenGrant>> {
        self.table.read(&keys::token(&token_sha256(token.expose())), "token").await
    }

    pub async fn application_state(&self, tenant: &TenantId, id: ApplicationId) -> Result<ApplicationState> {
        self.table.read(&keys::application_state(tenant, id), "application's state").await?.ok_or(StoreError::Missing)
    }

    /// States by application, of those that exist.
    pub async fn application_states(
        &self,
        tenant: &TenantId,
        ids: &[ApplicationId],
    ) -> Result<BTreeMap<ApplicationId, ApplicationState>> {
        let by_pk: BTreeMap<String, ApplicationId> =
            ids.iter().map(|id| (keys::application_state(tenant, *id).pk, *id)).collect();
        let keys: Vec<Key> = by_pk.values().map(|id| keys::application_state(tenant, *id)).collect();
        let mut states = BTreeMap::new();
        for item in self.table.batch_get(&keys).await? {
            let id = item.get("pk").and_then(|v| v.as_s().ok()).and_then(|pk| by_pk.get(pk)).copied();
            if let Some(id) = id {
                states.insert(id, record(item, "application's state")?);
            }
        }
        Ok(states)
    }

    /// Registers an application with its first token.
    pub async fn create_application(
        &self,
        tenant: &TenantId,
        stored: &Stored<RegisteredApplication>,
        replay: Option<Replay<'_>>,
        event: &AuditEvent,
    ) -> Result<Created> {
        let id = ApplicationId(stored.id);
        let state = item(&keys::application_state(tenant, id), &ApplicationState::default())?;
        let mut more = vec![
            put(Part::Other, state, &self.table, Some(Expression::absent())),
            self.grant_write(tenant, stored, &stored.body.token_sha256, None)?,
        ];
        more.extend(self.listener_writes(Part::Other, tenant, id, None, Some(&stored.body.application))?);
        self.create_with(tenant, stored, replay, event, more).await
    }

    /// Puts a new registration in the place of `old`.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it has moved on since `old` was read.
    pub async fn replace_application(
        &self,
        tenant: &TenantId,
        old: &Stored<RegisteredApplication>,
        body: RegisteredApplication,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Stored<RegisteredApplication>> {
        let (before, after) = (Some(&old.body.application), Some(&body.application));
        let more = self.listener_writes(Part::Other, tenant, ApplicationId(old.id), before, after)?;
        self.replace_with(tenant, old, body, now, event, more).await
    }

    /// Puts a new token in the place of the application's; the old one works until `overlap_until`, if that is given.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] also if the idempotency key of `replay` was used meanwhile.
    pub async fn rotate_token(
        &self,
        tenant: &TenantId,
        old: &Stored<RegisteredApplication>,
        rotation: Rotation<'_>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<Stored<RegisteredApplication>> {
        let Rotation { token, overlap_until, replay } = rotation;
        let mut body = old.body.clone();
        body.token_sha256 = token_sha256(token.expose());
        body.token_hint = token.hint();
        body.previous_token = overlap_until.map(|until| (old.body.token_sha256.clone(), until));
        let mut more = vec![self.grant_write(tenant, old, &body.token_sha256, None)?];
        // At most two tokens work at any time: one that was still in its overlap ends now.
        if let Some((before, _)) = &old.body.previous_token {
            more.push(delete(Part::Other, &keys::token(before), &self.table, None));
        }
        more.push(match overlap_until {
            Some(until) => self.grant_write(tenant, old, &old.body.token_sha256, Some(until))?,
            None => delete(Part::Other, &keys::token(&old.body.token_sha256), &self.table, None),
        });
        if let Some(replay) = replay {
            more.push(self.keep_answer(Part::Replay, tenant, replay.key, replay.answer, now).await?);
        }
        self.replace_with(tenant, old, body, now, event, more).await
    }

    /// Removes an application of which nothing runs and nothing is queued.
    ///
    /// # Errors
    /// [`StoreError::InUse`] naming what is still there.
    pub async fn delete_application(
        &self,
        tenant: &TenantId,
        old: &Stored<RegisteredApplication>,
        now: Timestamp,
        event: &AuditEvent,
    ) -> Result<()> {
        let id = ApplicationId(old.id);
        let state = self.application_state(tenant, id).await?;
        let mut by: Vec<String> = state.active.iter().chain(&state.queued).map(|d| format!("deployment {d}")).collect();
        // What was left on a machine that is registered no more can neither be seen nor removed.
        let registered: BTreeSet<_> = self.hosts(tenant).await?.into_iter().map(|host| host.name).collect();
        by.extend(state.occupied().filter(|h| registered.contains(*h)).map(|h| format!("container on host {h}")));
        if !self
            .table
            .all(&keys::variables(tenant, tidegate_domain::variable::Scope::Application(id)), "")
            .await?
            .is_empty()
        {
            by.push("the application's variables".to_owned());
        }
        let waiting = self.pending_approvals(tenant, Some(id)).await?;
        by.extend(waiting.iter().map(|s| format!("deployment {}, which waits for a decision", s.deployment.id)));
        if !by.is_empty() {
            return Err(StoreError::InUse { by });
        }
        let key = keys::application_state(tenant, id);
        let mut more = vec![
            delete(Part::Thing, &key, &self.table, Some(Expression::revision(state.revision.0))),
            delete(Part::Other, &keys::token(&old.body.token_sha256), &self.table, None),
        ];
        if let Some((before, _)) = &old.body.previous_token {
            more.push(delete(Part::Other, &keys::token(before), &self.table, None));
        }
        let totals = keys::variable_totals(tenant, tidegate_domain::variable::Scope::Application(id));
        more.push(delete(Part::Other, &totals, &self.table, None));
        more.extend(self.listener_writes(Part::Other, tenant, id, Some(&old.body.application), None)?);
        // The sealed configuration of what could be returned to.
        let kept = state.releases.iter().map(|release| release.deployment_id);
        let kept: BTreeSet<_> = kept.chain(state.placed()).collect();
        more.extend(kept.into_iter().map(|id| self.snapshot_removal(Part::Other, tenant, id)));
        self.delete_with(tenant, old, now, event, more).await
    }

    fn grant_write(
        &self,
        tenant: &TenantId,
        stored: &Stored<RegisteredApplication>,
        sha256: &str,
        valid_until: Option<Timestamp>,
    ) -> Result<Write<Part>> {
        let grant = TokenGrant {
            tenant: tenant.clone(),
            application_id: ApplicationId(stored.id),
            project_id: stored.body.application.project_id,
            valid_until,
        };
        Ok(put(Part::Other, item(&keys::token(sha256), &grant)?, &self.table, None))
    }

    pub(crate) fn state_write<L>(
        &self,
        label: L,
        tenant: &TenantId,
        id: ApplicationId,
        was: Revision,
        state: &ApplicationState,
    ) -> Result<Write<L>> {
        let item: Item = item(&keys::application_state(tenant, id), state)?;
        Ok(put(label, item, &self.table, Some(Expression::revision(was.0))))
    }
}
