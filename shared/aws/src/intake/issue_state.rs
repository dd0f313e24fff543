//! What is known of an issue: who is at it now, and which of its requests are answered.
//!
//! GitHub delivers an opened issue and each of its labels by itself, and at once. One lease at a time keeps two of them
//! from saying the same thing twice; what is answered keeps the second from asking again.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tidegate_domain::{id::TenantId, issue::IssueRef};

use super::{Intake, IntakeMessage};
use crate::{
    error::{Result, StoreError},
    keys, random,
    store::Store,
    table::{Cancelled, number, text},
    write::{Expression, update},
};

/// Longer than anything is done with an issue at a time. One that died holds up its issue for so long.
pub const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// Of an issue that is edited again and again, the last requests.
const ANSWERED: usize = 50;
/// An issue that nothing happened to for so long is forgotten; its requests hold for a day anyway.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 31);

/// As stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssueState {
    /// Requests that are answered, by what names them; the latest last. Of one that was refused, only this writing of it.
    #[serde(default)]
    pub answered: Vec<String>,
    /// When GitHub last changed the issue before the latest answered request.
    #[serde(default)]
    pub latest: Option<Timestamp>,
    #[serde(default)]
    lease: Option<String>,
    #[serde(default)]
    lease_until: i64,
    #[serde(default)]
    ttl: i64,
}

/// The right to be at an issue, until it is given back or has run out.
#[derive(Debug)]
pub struct IssueLease {
    pub state: IssueState,
    lease: String,
}

impl Store {
    /// None: somebody else is at it.
    pub async fn lease_issue(&self, tenant: &TenantId, issue: &IssueRef, now: Timestamp) -> Result<Option<IssueLease>> {
        let key = keys::issue(tenant, issue);
        let lease = format!("{:032x}", u128::from_be_bytes(random::bytes()));
        let change = Expression::new("SET lease = :lease, leaseUntil = :until, #ttl = :ttl")
            .name("#ttl", "ttl")
            .value(":lease", text(&lease))
            .value(":until", number((now + LEASE).as_second()))
            .value(":ttl", number((now + KEPT).as_second()));
        let free =
            Expression::new("attribute_not_exists(pk) OR leaseUntil <= :now").value(":now", number(now.as_second()));
        if !self.table.update(&key, change, free).await? {
            return Ok(None);
        }
        let state: IssueState = self.table.read(&key, "issue").await?.unwrap_or_default();
        Ok(Some(IssueLease { state, lease }))
    }

    /// Gives it back. One that ran out and is somebody else's by now is left alone.
    pub async fn release_issue(&self, tenant: &TenantId, issue: &IssueRef, lease: &IssueLease) -> Result<()> {
        let change = Expression::new("SET leaseUntil = :none").value(":none", number(0));
        let own = Expression::new("lease = :lease").value(":lease", text(&lease.lease));
        self.table.update(&keys::issue(tenant, issue), change, own).await.map(|_| ())
    }

    /// Ends a delivery whose request is answered: both are written, or neither.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the lease is somebody else's by now; what was done is found again by the next run.
    pub async fn answer_issue(
        &self,
        message: &IntakeMessage,
        intake: &Intake,
        issue: &IssueRef,
        lease: &IssueLease,
        (request, at): (&str, Timestamp),
    ) -> Result<()> {
        let mut state = lease.state.clone();
        if !state.answered.iter().any(|known| known == request) {
            state.answered.push(request.to_owned());
        }
        let too_many = state.answered.len().saturating_sub(ANSWERED);
        state.answered.drain(..too_many);
        let value = serde_dynamo::to_attribute_value(&state.answered).map_err(StoreError::corrupt("issue"))?;
        let latest = state.latest.map_or(at, |latest| latest.max(at));
        let change = Expression::new("SET answered = :answered, latest = :latest")
            .value(":answered", value)
            .value(":latest", text(latest.to_string()));
        let own = Expression::new("lease = :lease").value(":lease", text(&lease.lease));
        let writes = vec![
            update((), &keys::issue(&message.tenant, issue), &self.table, change, own),
            self.intake_removal((), message, intake),
        ];
        match self.table.transact(writes).await {
            Ok(()) => Ok(()),
            Err(Cancelled::Conditions(_)) => Err(StoreError::Conflict),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }
}
