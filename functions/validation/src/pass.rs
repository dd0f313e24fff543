//! One run over one item.

use jiff::Timestamp;
use tidegate_aws::{
    audit::AuditEvent,
    catalogue::Stored,
    clock,
    error::StoreError,
    intake::{GIVEN_UP_AFTER, Intake, IntakeId, IntakeMessage, issue_state::IssueLease, names::Names},
    registered::RegisteredApplication,
};
use tidegate_domain::{
    deployment::{Deployment, Status, Trigger, TriggerKind},
    id::{ApplicationId, DeploymentId},
    issue::{IssueRef, comment, form},
    secret::Secret,
};
use tidegate_gate::asker::actor;
use tidegate_github::{Github, event::Event};

use crate::{BUSY, Trouble, Validation, request::replay_key};

/// How an app's login ends.
const BOT: &str = "[bot]";

/// An item, and what it is handled with.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) validation: &'a Validation,
    pub(crate) message: &'a IntakeMessage,
    pub(crate) intake: &'a Intake,
}

impl Pass<'_> {
    pub(crate) async fn run(&self) -> Result<(), Trouble> {
        let (store, tenant) = (&self.validation.store, &self.message.tenant);
        match self.message.id {
            IntakeId::Delivery(_) => {
                let event = self.event().await?;
                // Without its values it asks for nothing, whoever has left it so: mostly ourselves.
                if let Event::Issue { body: Some(body), .. } = &event
                    && form::is_sanitised(body.expose())
                {
                    return self.done().await;
                }
                let github = self.validation.gate.github(tenant).await?;
                if is_our_doing(&event, &github.login().await?) {
                    return self.done().await;
                }
                let lease = self.lease(event.issue()).await?;
                let handled = self.handle(&event, &github, &lease).await;
                self.give_back(event.issue(), &lease, handled).await
            }
            IntakeId::Notice(id) => {
                let deployment = match store.deployment(tenant, id).await {
                    Ok(stored) => stored.deployment,
                    Err(StoreError::Missing) => return self.done().await,
                    Err(other) => return Err(other.into()),
                };
                let Some(issue) = deployment.issue else { return self.done().await };
                let github = self.validation.gate.github(tenant).await?;
                let lease = self.lease(&issue).await?;
                let handled = async {
                    // Read under the lease: of two notices the later one has the last word.
                    let deployment = store.deployment(tenant, id).await?.deployment;
                    self.validation.tell(&github, &deployment).await?;
                    self.done().await
                };
                let handled = handled.await;
                self.give_back(&issue, &lease, handled).await
            }
        }
    }

    async fn handle(&self, event: &Event, github: &Github, lease: &IssueLease) -> Result<(), Trouble> {
        match event {
            Event::Issue { .. } => Box::pin(self.request(event, github, lease)).await,
            Event::Comment { issue, sender, body } => Box::pin(self.decision(github, issue, sender, body)).await,
        }
    }

    pub(crate) async fn done(&self) -> Result<(), Trouble> {
        Ok(self.validation.store.close_intake(self.message, self.intake).await?)
    }

    async fn event(&self) -> Result<Event, StoreError> {
        let IntakeId::Delivery(id) = self.message.id else { return Err(StoreError::Missing) };
        let opened = self.validation.store.open_intake(&self.message.tenant, id, self.intake).await?;
        // Its own words may quote what it could not read.
        serde_json::from_slice(opened.expose())
            .map_err(|_| StoreError::Corrupt { what: "delivery", source: "it is no event".into() })
    }

    async fn lease(&self, issue: &IssueRef) -> Result<IssueLease, Trouble> {
        let leased = self.validation.store.lease_issue(&self.message.tenant, issue, clock::now()).await?;
        leased.ok_or(Trouble::Wait(BUSY))
    }

    async fn give_back(
        &self,
        issue: &IssueRef,
        lease: &IssueLease,
        handled: Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let released = self.validation.store.release_issue(&self.message.tenant, issue, lease).await;
        if let Err(error) = released {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an issue's lease was not given back; it runs out"
            );
        }
        handled
    }

    /// The applications that an issue with these labels is about.
    pub(crate) async fn applications(
        &self,
        issue: &IssueRef,
        labels: &[String],
    ) -> Result<Vec<Stored<RegisteredApplication>>, StoreError> {
        let (store, tenant) = (&self.validation.store, &self.message.tenant);
        let listeners = store.listeners(&issue.repository).await?;
        let ids: Vec<u64> =
            listeners.iter().filter(|l| l.tenant == *tenant).map(|listener| listener.application_id.0).collect();
        let mut applications: Vec<Stored<RegisteredApplication>> = store.find_many(tenant, &ids).await?;
        applications.retain(|stored| {
            let trigger = stored.body.application.issue_trigger.as_ref();
            trigger.is_some_and(|trigger| {
                trigger.repository == issue.repository && labels.iter().any(|label| trigger.label.is_named(label))
            })
        });
        applications.sort_by_key(|stored| stored.id);
        Ok(applications)
    }

    /// It was tried for a day. That it was is put on record where somebody looks, and what it held is deleted.
    pub(crate) async fn give_up(&self) -> Result<(), StoreError> {
        tracing::error!(tenant = %self.message.tenant, item = ?self.message.id, alarm = "validation-timeout",
            "given up: GitHub did not do its part for a day");
        self.end_on_record().await
    }

    /// Ends it with a record of each request that has none. What cannot be read any more ends without.
    pub(crate) async fn end_on_record(&self) -> Result<(), StoreError> {
        if let Err(error) = self.record_unanswered().await {
            let age = clock::now().duration_since(self.intake.created_at);
            let may_pass = matches!(error, StoreError::Away { .. } | StoreError::Busy | StoreError::Conflict);
            // A key that is gone for good may look like one that is away.
            if may_pass && age < GIVEN_UP_AFTER * 2 {
                return Err(error);
            }
            tracing::error!(tenant = %self.message.tenant, item = ?self.message.id, alarm = "validation-timeout",
                error = &error as &dyn std::error::Error, "given up, and not on record: it cannot be read");
        }
        self.validation.store.close_intake(self.message, self.intake).await
    }

    async fn record_unanswered(&self) -> Result<(), StoreError> {
        let (store, tenant) = (&self.validation.store, &self.message.tenant);
        if !matches!(self.message.id, IntakeId::Delivery(_)) {
            return Ok(());
        }
        let Event::Issue { issue, author, sender, labels, updated_at, body } = self.event().await? else {
            return Ok(());
        };
        let names = store.names(tenant).await?;
        let text = body.as_ref().map_or("", |body| body.expose().as_str());
        for stored in self.applications(&issue, &labels).await? {
            // Another delivery of the same request may have been luckier.
            let key = replay_key(&names, &issue, stored.id, text);
            if store.first_answer(tenant, &key, clock::now()).await?.is_some() {
                continue;
            }
            let id = self.record_id(&names, &issue, updated_at, stored.id, text);
            self.record_time_out(&stored, id, &issue, trigger(&issue, &author, &sender)).await?;
        }
        Ok(())
    }

    /// The id under which an application's part of a request is on record, the same for every run and for every delivery
    /// of the same state of the issue: a second record of it cannot be written.
    pub(crate) fn record_id(
        &self,
        names: &Names,
        issue: &IssueRef,
        updated_at: Timestamp,
        application: u64,
        text: &str,
    ) -> DeploymentId {
        let (issue, application) = (format!("{}#{}", issue.repository.folded(), issue.number), application.to_string());
        let name = names.of(&["deployment", &issue, &application, text]);
        let digits = name.get(..20).unwrap_or_default();
        let [_, _, _, _, _, _, bytes @ ..] = u128::from_str_radix(digits, 16).unwrap_or_default().to_be_bytes();
        // By GitHub's clock, which is not to put it ahead of everything in the history.
        DeploymentId::new(updated_at.min(self.intake.created_at), bytes)
    }

    /// Nothing if it is on record already.
    async fn record_time_out(
        &self,
        application: &Stored<RegisteredApplication>,
        id: DeploymentId,
        issue: &IssueRef,
        trigger: Trigger,
    ) -> Result<(), StoreError> {
        let now = clock::now();
        let actor = trigger.actor.clone();
        let application_id = ApplicationId(application.id);
        let mut deployment = Deployment::requested(id, application_id, &application.body.application, trigger, now);
        deployment.status = Status::Rejected { reason: "validation-timeout".to_owned() };
        deployment.completed_at = Some(now);
        deployment.issue = Some(issue.clone());
        deployment.note(now, "rejected", None);
        let event = AuditEvent {
            actor,
            action: "deployment.rejected".to_owned(),
            subject: format!("application/{application_id}/deployment/{id}"),
            source_ip: None,
            request_id: None,
        };
        self.validation.store.record_rejection(&self.message.tenant, &deployment, &event).await.map(|_| ())
    }
}

/// A bot does nothing but what we do. A person whose token we have may open issues and decide like anybody else; what we
/// say in their name carries our marker.
fn is_our_doing(event: &Event, login: &str) -> bool {
    if !login.eq_ignore_ascii_case(event.sender()) {
        return false;
    }
    let is_said_by_us = |body: &Secret<String>| comment::is_marked(body.expose());
    login.ends_with(BOT) || matches!(event, Event::Comment { body, .. } if is_said_by_us(body))
}

/// Who asks with an issue: who did what was delivered, and beside them who wrote it.
pub(crate) fn trigger(issue: &IssueRef, author: &str, sender: &str) -> Trigger {
    let author = Some(author).filter(|author| !author.eq_ignore_ascii_case(sender)).map(actor);
    Trigger { kind: TriggerKind::Issue, source: Some(issue.to_string()), actor: actor(sender), author }
}
