//! Deployments that wait for somebody's decision: what was asked for, who has to look at it, and how it ends.
//!
//! The deployment's own record decides. Two lists lead to those that wait: one of the tenant, for the people who decide,
//! and one of all tenants in order of their deadlines, for the sweep. Both are written and removed with the record.

use std::collections::BTreeMap;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_domain::{
    approval::{ApprovalPolicy, Approved, ContentHash, Decision, Scope, Verdict},
    deployment::{Deployment, Event, Status},
    id::{ApplicationId, DeploymentId, TenantId},
    image::Version,
    job::Job,
    secret::{Secret, in_sealed_form},
};
use zeroize::Zeroizing;

use crate::{
    audit::{self, AuditEvent},
    deployments::{Part, StoredDeployment},
    envelope::{Place, Purpose},
    error::{Result, StoreError},
    keys, random,
    store::Store,
    table::{Cancelled, end_of, item, number, patience, pause, record, sort_key},
    transition::About,
    write::{Write, delete, put},
};

/// A request is kept so long after it came, for its approval and for retries.
const REQUEST_KEPT: SignedDuration = SignedDuration::from_hours(24 * 31);

/// What somebody asked for, as they wrote it, kept sealed: for a decision, which resolves it anew, and for a retry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requested {
    pub version: Version,
    /// JSON, since any of it may be a secret: `{"NAME": value}`.
    #[serde(with = "in_sealed_form")]
    variables: Secret<String>,
    /// Of the hash that an approval shows.
    #[serde(with = "in_sealed_form")]
    salt: Secret<String>,
}

impl Requested {
    /// # Errors
    /// [`StoreError::Corrupt`] for variables that cannot be written as JSON, which no request's are.
    pub fn new(version: Version, variables: &BTreeMap<String, Value>) -> Result<Self> {
        let variables = serde_json::to_string(variables).map_err(StoreError::corrupt_json("request"))?;
        let salt = URL_SAFE_NO_PAD.encode(random::bytes::<32>());
        Ok(Self { version, variables: Secret::new(variables), salt: Secret::new(salt) })
    }

    /// # Errors
    /// [`StoreError::Corrupt`] if they are not what [`Requested::new`] wrote.
    pub fn variables(&self) -> Result<BTreeMap<String, Value>> {
        serde_json::from_str(self.variables.expose()).map_err(StoreError::corrupt_json("request"))
    }

    /// The proof that a decision covers this work order in this scope.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for a work order that cannot be written as JSON.
    pub fn approved(&self, job: &Job, scope: Scope) -> Result<Approved> {
        let hash = content_hash(&self.salt, &scope, job)?;
        Ok(Approved { hash, salt: self.salt.duplicate(), scope })
    }
}

/// HMAC-SHA256 of [`Scope::content`] under the salt. Keyed, as the content holds secrets that could be guessed, and the
/// hash is shown to everybody who may read an issue.
fn content_hash(salt: &Secret<String>, scope: &Scope, job: &Job) -> Result<ContentHash> {
    let content = scope.content(job).map_err(StoreError::corrupt_json("job"))?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, salt.expose().as_bytes());
    let hash = hmac::sign(&key, content.as_bytes()).as_ref().iter().fold(String::new(), |mut hex, byte| {
        use std::fmt::Write as _;
        write!(hex, "{byte:02x}").expect("writing to a string does not fail");
        hex
    });
    ContentHash::parse(&hash).map_err(|_| StoreError::unreadable("hash", "it is not one"))
}

/// Whether a decision covers the work order that it came with.
///
/// # Errors
/// [`StoreError::Corrupt`] for a work order that cannot be written as JSON.
pub fn covers(approved: &Approved, job: &Job) -> Result<bool> {
    Ok(content_hash(&approved.salt, &approved.scope, job)? == approved.hash)
}

/// One line of the list of what waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    pub deployment_id: DeploymentId,
    pub application_id: ApplicationId,
}

/// Why a decision was not taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undecided {
    /// It does not wait any more, or never did: this is what has become of it.
    NotWaiting(Box<Deployment>),
    /// It is not the decider's to take; why, in words.
    Forbidden(&'static str),
}

/// What the sweep did about approvals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimedOut {
    pub timed_out: usize,
    pub failed: usize,
}

impl Store {
    /// What waits in a tenant, the oldest first; of one application, if it is given.
    pub async fn pending_approvals(
        &self,
        tenant: &TenantId,
        application: Option<ApplicationId>,
    ) -> Result<Vec<StoredDeployment>> {
        let listed = self.table.all(&keys::pending_of(tenant), "").await?;
        let mut ids = Vec::new();
        for item in listed {
            let pending: Pending = record(item, "approval")?;
            if application.is_none_or(|wanted| wanted == pending.application_id) {
                ids.push(keys::deployment(tenant, pending.deployment_id));
            }
        }
        let mut found = Vec::new();
        for item in self.table.batch_get(&ids).await? {
            let stored: StoredDeployment = record(item, "deployment")?;
            // Decided between the two reads.
            if stored.deployment.status == Status::AwaitingApproval {
                found.push(stored);
            }
        }
        found.sort_by_key(|stored| stored.deployment.id);
        Ok(found)
    }

    /// The request of a deployment; none if it is not kept any more.
    pub async fn requested(&self, tenant: &TenantId, id: DeploymentId, now: Timestamp) -> Result<Option<Requested>> {
        #[derive(Deserialize)]
        struct Kept {
            sealed: String,
            ttl: i64,
        }
        let found: Option<Kept> = self.table.read(&keys::request(tenant, id), "request").await?;
        let Some(Kept { sealed, .. }) = found.filter(|kept| kept.ttl > now.as_second()) else { return Ok(None) };
        let id = id.to_string();
        let plain = self.sealer.open(&self.table, tenant, Purpose::Snapshot, place(&id), &sealed).await?;
        serde_json::from_slice(plain.expose()).map(Some).map_err(StoreError::corrupt_json("request"))
    }

    pub(crate) async fn request_write(
        &self,
        tenant: &TenantId,
        id: DeploymentId,
        requested: &Requested,
        now: Timestamp,
    ) -> Result<Write<Part>> {
        let plain = serde_json::to_vec(requested).map_err(StoreError::corrupt_json("request"))?;
        let plain = Zeroizing::new(plain);
        let name = id.to_string();
        let sealed = self.seal(tenant, Purpose::Snapshot, place(&name), &plain).await?;
        let mut item = item(&keys::request(tenant, id), &serde_json::json!({ "sealed": sealed }))?;
        item.insert("ttl".to_owned(), number((now + REQUEST_KEPT).as_second()));
        Ok(put(Part::Other, item, &self.table, None))
    }

    /// Both lists' lines of a deployment that waits from now on.
    pub(crate) fn pending_writes(&self, tenant: &TenantId, deployment: &Deployment) -> Result<Vec<Write<Part>>> {
        let Some(approval) = &deployment.approval else { return Ok(Vec::new()) };
        let pending = Pending { deployment_id: deployment.id, application_id: deployment.application_id };
        let keys = [keys::pending(tenant, deployment.id), keys::deadline(approval.expires_at, tenant, deployment.id)];
        keys.iter().map(|key| Ok(put(Part::Other, item(key, &pending)?, &self.table, None))).collect()
    }

    pub(crate) fn pending_removal(&self, tenant: &TenantId, deployment: &Deployment) -> Vec<Write<Part>> {
        let Some(approval) = &deployment.approval else { return Vec::new() };
        let keys = [keys::pending(tenant, deployment.id), keys::deadline(approval.expires_at, tenant, deployment.id)];
        keys.iter().map(|key| delete(Part::Other, key, &self.table, None)).collect()
    }

    /// Refuses a request that waits. One that is over by now is recorded as timed out instead.
    ///
    /// # Errors
    /// [`StoreError::Missing`] for no deployment.
    pub async fn deny(
        &self,
        tenant: &TenantId,
        id: DeploymentId,
        decision: Decision,
        may: impl Fn(&Deployment) -> std::result::Result<(), &'static str>,
        event: &AuditEvent,
    ) -> Result<std::result::Result<Deployment, Undecided>> {
        let until = patience();
        let mut attempt = 0;
        loop {
            let stored = self.deployment(tenant, id).await?;
            if let Err(why) = may(&stored.deployment) {
                return Ok(Err(Undecided::Forbidden(why)));
            }
            let Some(decision) = in_time(&stored.deployment, &decision) else {
                return Ok(Err(Undecided::NotWaiting(Box::new(stored.deployment))));
            };
            let late = decision.verdict == Verdict::TimedOut;
            let at = decision.at;
            if let Some(ended) = self.end_waiting(tenant, &stored, decision, Some(event).filter(|_| !late), at).await? {
                return Ok(if late { Err(Undecided::NotWaiting(Box::new(ended))) } else { Ok(ended) });
            }
            pause(&mut attempt, until).await?;
        }
    }

    /// Ends one that waits, if it still does. `None`: something has changed meanwhile.
    pub(crate) async fn end_waiting(
        &self,
        tenant: &TenantId,
        stored: &StoredDeployment,
        decision: Decision,
        event: Option<&AuditEvent>,
        now: Timestamp,
    ) -> Result<Option<Deployment>> {
        let actor = decision.by.clone();
        let about = About { state: None, host: None, actor: &actor };
        let mut transition = self.transition(tenant, stored, Event::Decided(decision), about, now).await?;
        if let Some(event) = event {
            transition.writes.push(audit::write(Part::Other, tenant, event, now, &self.table)?);
        }
        self.commit(tenant, transition).await
    }

    /// Records that the time is over for one that still waits. `None`: something has changed meanwhile.
    pub async fn time_out_approval(
        &self,
        tenant: &TenantId,
        stored: &StoredDeployment,
        decision: Decision,
    ) -> Result<Option<Deployment>> {
        let at = decision.at;
        self.end_waiting(tenant, stored, decision, None, at).await
    }

    /// Puts what would run now in the place of what was asked for; it goes on waiting. `None`: something has changed
    /// meanwhile.
    pub async fn renew_approval(
        &self,
        tenant: &TenantId,
        stored: &StoredDeployment,
        deployment: Deployment,
        job: &Job,
        now: Timestamp,
    ) -> Result<Option<Deployment>> {
        let mut writes = vec![
            self.deployment_write(Part::Deployment, tenant, &deployment, Some(stored.revision))?,
            self.snapshot_write(Part::Other, tenant, job).await?,
        ];
        // Its issue shows the hash to decide on.
        writes.extend(self.notice_write(Part::Other, tenant, &deployment, now)?);
        match self.table.transact(writes).await {
            Ok(()) => {
                self.send_notice(tenant, &deployment).await;
                Ok(Some(deployment))
            }
            Err(Cancelled::Conditions(_)) => Ok(None),
            Err(Cancelled::Store(error)) => Err(error),
        }
    }

    /// Ends one that waits, since a later deployment is the only one that is wanted; what has become of it.
    pub async fn supersede_approval(
        &self,
        tenant: &TenantId,
        id: DeploymentId,
        by: DeploymentId,
        now: Timestamp,
    ) -> Result<Deployment> {
        self.supersede_one(tenant, id, Some(by), now).await?;
        Ok(self.deployment(tenant, id).await?.deployment)
    }

    /// Records as timed out what nobody decided on in time, in all tenants, the longest overdue first. An error with one is
    /// logged, and the pass goes on.
    ///
    /// # Errors
    /// If the list cannot be read.
    pub async fn time_out_approvals(&self, now: Timestamp) -> Result<TimedOut> {
        let mut done = TimedOut::default();
        let due = end_of(&keys::deadline_time(now));
        for item in self.table.range(&keys::deadlines(), None, Some(&due)).await? {
            let Some((tenant, id)) = sort_key(&item).and_then(keys::parse_deadline) else {
                tracing::error!(key = sort_key(&item), "what is listed as waiting is no deployment's key");
                done.failed += 1;
                continue;
            };
            match self.time_out(&tenant, id, &item, now).await {
                Ok(true) => done.timed_out += 1,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(deployment.id = %id, tenant = %tenant, error = &error as &dyn std::error::Error,
                        "could not record that an approval's time is over; the next pass tries again");
                    done.failed += 1;
                }
            }
        }
        Ok(done)
    }

    async fn time_out(
        &self,
        tenant: &TenantId,
        id: DeploymentId,
        line: &crate::table::Item,
        now: Timestamp,
    ) -> Result<bool> {
        let until = patience();
        let mut attempt = 0;
        loop {
            let stored = match self.deployment(tenant, id).await {
                Ok(stored) => Some(stored),
                Err(StoreError::Missing) => None,
                Err(other) => return Err(other),
            };
            let waiting = stored.filter(|stored| stored.deployment.status == Status::AwaitingApproval);
            let Some(stored) = waiting else {
                // Nothing that we write leaves such a line behind; one that got there by hand would be looked at for ever.
                if let Some(sk) = sort_key(line) {
                    self.table.delete(&keys::Key { pk: keys::deadlines(), sk: sk.to_owned() }).await?;
                }
                return Ok(false);
            };
            let decision = Decision { verdict: Verdict::TimedOut, at: now, by: "tidegate".to_owned(), comment: None };
            if in_time(&stored.deployment, &decision).is_none_or(|d| d.verdict != Verdict::TimedOut) {
                return Ok(false);
            }
            if self.end_waiting(tenant, &stored, decision, None, now).await?.is_some() {
                return Ok(true);
            }
            pause(&mut attempt, until).await?;
        }
    }
}

fn place(id: &str) -> Place<'_> {
    Place { kind: "request", id, version: 1 }
}

/// The decision, or that it is too late for one; none for a deployment that does not wait.
///
/// The deadline stands in the record that the write is conditional on, so that no decision after it can ever be written.
pub fn in_time(deployment: &Deployment, decision: &Decision) -> Option<Decision> {
    if deployment.status != Status::AwaitingApproval {
        return None;
    }
    let approval = deployment.approval.as_ref()?;
    if decision.at >= approval.expires_at {
        let by = "tidegate".to_owned();
        return Some(Decision { verdict: Verdict::TimedOut, at: decision.at, by, comment: None });
    }
    (decision.verdict != Verdict::TimedOut).then(|| decision.clone())
}

/// Whether somebody may decide, as a closure for [`Store::deny`].
pub fn permitted<'a>(
    policy: ApprovalPolicy,
    decider: tidegate_domain::approval::Decider<'a>,
    owner: &'a str,
) -> impl Fn(&Deployment) -> std::result::Result<(), &'static str> + 'a {
    move |deployment| policy.permits(decider, owner, &deployment.trigger)
}
