//! An issue asks for a deployment: its values are taken out of it first, and only then looked at.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tidegate_aws::{
    catalogue::Stored,
    clock,
    idempotency::{FirstAnswer, IdempotencyKey},
    intake::{issue_state::IssueLease, names::Names},
    registered::RegisteredApplication,
};
use tidegate_domain::{
    application::Application,
    deployment::{Deployment, Trigger},
    id::{ApplicationId, DeploymentId},
    image::Version,
    invalid::{FieldError, Invalid},
    issue::{
        IssueRef, IssueTrigger, SANITISED_LABEL,
        comment::Comment,
        form::{self, MAX_BODY_BYTES, Values},
    },
    limit::Class,
    refusal::Reason,
    secret::Secret,
};
use tidegate_gate::{Asked, Caller, Decision, Request, asker::may_ask};
use tidegate_github::{Github, event::Event};

use crate::{
    Trouble,
    pass::{Pass, trigger},
    tell::since_any,
};

/// Until the checks are tried again that took too long.
const SLOW: SignedDuration = SignedDuration::from_secs(30);

/// A request, as an issue's state keeps that it was answered.
struct Named {
    /// The same words at any time: what became a deployment is not asked for twice.
    any_time: String,
    /// These words as they were written this time: what was refused may be asked for again, but not by the next delivery
    /// that tells of the same.
    this_time: String,
}

impl Named {
    fn of(names: &Names, text: &str, updated_at: Timestamp) -> Self {
        let at = updated_at.to_string();
        Self { any_time: names.of(&["request", text]), this_time: names.of(&["request", text, &at]) }
    }

    fn is_in(&self, answered: &[String]) -> bool {
        answered.iter().any(|name| *name == self.any_time || *name == self.this_time)
    }
}

/// What came of an application's part of a request.
enum Asking {
    /// It is a deployment, or needs nothing more.
    Deployed,
    Refused,
}

/// A state of an issue, and who asks with it.
struct Written<'a> {
    names: &'a Names,
    trigger: Trigger,
    updated_at: Timestamp,
    /// None if it is longer than anybody reads.
    body: Option<&'a Secret<String>>,
}

impl Pass<'_> {
    pub(crate) async fn request(&self, event: &Event, github: &Github, lease: &IssueLease) -> Result<(), Trouble> {
        let Event::Issue { issue, author, sender, labels, updated_at, body } = event else { return self.done().await };
        let applications = self.applications(issue, labels).await?;
        let Some(first) = applications.iter().find_map(|stored| stored.body.application.issue_trigger.as_ref()) else {
            return self.done().await;
        };
        // Before anything else: from here on the values are nowhere but in what is sealed.
        sanitise(github, issue, first).await?;
        let text = body.as_ref().map_or("", |body| body.expose().as_str());
        let names = self.validation.store.names(&self.message.tenant).await?;
        let request = Named::of(&names, text, *updated_at);
        if request.is_in(&lease.state.answered) {
            return self.done().await;
        }
        // The issue has been changed since, and what it became was answered.
        if lease.state.latest.is_some_and(|latest| latest > *updated_at) {
            tracing::info!(issue = %issue, "an older state of the issue than one that was handled asks for nothing");
            return self.done().await;
        }
        let (store, tenant, now) = (&self.validation.store, &self.message.tenant, clock::now());
        let trigger = trigger(issue, author, sender);
        if store.is_refused_too_often(tenant, &trigger.actor, now).await? {
            tracing::warn!(issue = %issue, caller = trigger.actor, "too many requests of this login were refused lately");
            return self.done().await;
        }
        let written = Written { names: &names, trigger, updated_at: *updated_at, body: body.as_ref() };
        let mut refused = 0;
        for stored in &applications {
            match self.ask(github, issue, &written, stored).await? {
                Asking::Deployed => {}
                Asking::Refused => refused += 1,
            }
        }
        if refused > 0 {
            store.count_refusal(tenant, &written.trigger.actor, now).await?;
        }
        let answered = if refused == 0 { &request.any_time } else { &request.this_time };
        Ok(store.answer_issue(self.message, self.intake, issue, lease, (answered, *updated_at)).await?)
    }

    /// Takes one application's request to the gate, and tells the issue what came of it.
    async fn ask(
        &self,
        github: &Github,
        issue: &IssueRef,
        written: &Written<'_>,
        stored: &Stored<RegisteredApplication>,
    ) -> Result<Asking, Trouble> {
        let application = &stored.body.application;
        let Some(listens) = &application.issue_trigger else { return Ok(Asking::Deployed) };
        let Written { names, trigger, updated_at, body } = written;
        let (store, tenant) = (&self.validation.store, &self.message.tenant);
        let asked = match body {
            Some(body) => read(body.expose(), application, listens),
            None => Asked { version: None, variables: None, faults: vec![too_long()] },
        };
        let may_ask = may_ask(github, &issue.repository, trigger, listens.allow).await?;
        let text = body.map_or("", |body| body.expose().as_str());
        let key = replay_key(names, issue, stored.id, text);
        let request = Request {
            tenant,
            application: ApplicationId(stored.id),
            project: application.project_id,
            trigger: trigger.clone(),
            class: Class::Open,
            user: &trigger.actor,
            source_ip: None,
            caller: Caller::Issue { may_ask },
            asked: &asked,
            key: Some(&key),
            retry_of: None,
            issue: Some(issue.clone()),
            request_id: None,
            id: Some(self.record_id(names, issue, *updated_at, stored.id, text)),
        };
        let deployment = match Box::pin(self.validation.gate.decide(&request, &first_answer)).await? {
            Decision::Recorded(deployment) => *deployment,
            Decision::Before(first) => match deployment_of(&first) {
                Some(id) => store.deployment(tenant, id).await?.deployment,
                None => return Ok(Asking::Deployed),
            },
            Decision::Refused(refusal) => {
                // Of an issue that is mended again and again, the last refusal is all that anybody needs.
                let comment = refused(&format!("application-{}", stored.id), &refusal.reason)?;
                github.say(issue, &comment, since_any()).await?;
                return Ok(Asking::Refused);
            }
            // It was removed meanwhile.
            Decision::CallerGone => return Ok(Asking::Deployed),
        };
        self.validation.tell(github, &deployment).await?;
        Ok(Asking::Deployed)
    }
}

/// The issue as it is now, which may be another than the one that was delivered: what was written since has a delivery of
/// its own, with what it holds. A second run finds it done.
async fn sanitise(github: &Github, issue: &IssueRef, trigger: &IssueTrigger) -> Result<(), Trouble> {
    let current = github.issue(issue).await?;
    if !form::is_sanitised(current.body.expose()) {
        let values = Values::of(current.body.expose(), &[trigger.version_field.as_str()]);
        let version = values.given.get(&trigger.version_field).and_then(|text| Version::parse(text.expose()).ok());
        github.replace_body(issue, &form::sanitised(version.as_ref(), &trigger.version_field)).await?;
    }
    if !current.labels.iter().any(|label| label.eq_ignore_ascii_case(SANITISED_LABEL)) {
        github.add_label(issue, SANITISED_LABEL).await?;
    }
    Ok(())
}

/// What an application's part of an issue's request is found by again, whichever delivery tells of it.
pub(crate) fn replay_key(names: &Names, issue: &IssueRef, application: u64, text: &str) -> IdempotencyKey {
    let name = names.of(&["application", &application.to_string(), text]);
    IdempotencyKey {
        caller: format!("issue:{}#{}", issue.repository.folded(), issue.number),
        key_sha256: name.clone(),
        request_sha256: name,
    }
}

fn read(body: &str, application: &Application, trigger: &IssueTrigger) -> Asked {
    let version_field = trigger.version_field.as_str();
    let declared: Vec<&str> = application.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    let mut names = declared.clone();
    if !names.contains(&version_field) {
        names.push(version_field);
    }
    let Values { given, mut faults } = Values::of(body, &names);
    let version = match given.get(version_field).map(|text| Version::parse(text.expose())) {
        Some(Ok(version)) => Some(version),
        Some(Err(invalid)) => {
            faults.push(invalid.at("version"));
            None
        }
        None => {
            let hint = format!("fill in the form's field {version_field}");
            faults.push(Invalid::new("missing", "is required", hint).at("version"));
            None
        }
    };
    let variables: BTreeMap<String, Value> = given
        .iter()
        .filter(|(name, _)| declared.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), Value::from(value.expose().as_str())))
        .collect();
    Asked { version, variables: Some(variables), faults }
}

fn too_long() -> FieldError {
    let message = format!("is longer than {MAX_BODY_BYTES} bytes");
    Invalid::new("too-large", message, "leave out what the form does not ask for").at("issue")
}

/// # Errors
/// [`Trouble::Wait`] for what is no refusal, but has to be tried again.
fn refused(id: &str, reason: &Reason) -> Result<Comment, Trouble> {
    let detail = match reason {
        Reason::Invalid(faults) => return Ok(Comment::rejection(id, faults)),
        Reason::TimedOut => return Err(Trouble::Wait(SLOW)),
        Reason::PermissionDenied => {
            "Whoever opened this issue, or did the last thing to it, may not ask for a deployment here.".to_owned()
        }
        Reason::WebhookDisabled => "The application takes no requests at present.".to_owned(),
        Reason::RateLimited { full, retry_after } => format!(
            "Too many requests were accepted lately (limits: {}). Open a new issue in {} minutes.",
            full.join(", "),
            retry_after.as_secs().div_ceil(60).max(1)
        ),
        Reason::QueueFull { .. } => "As many deployments wait as may. Open a new issue later.".to_owned(),
    };
    Ok(Comment::refusal(id, reason.code(), &detail))
}

fn first_answer(deployment: &Deployment) -> FirstAnswer {
    FirstAnswer { status: 202, body: Secret::new(json!({ "deploymentId": deployment.id }).to_string()) }
}

fn deployment_of(first: &FirstAnswer) -> Option<DeploymentId> {
    let kept: Value = serde_json::from_str(first.body.expose()).ok()?;
    DeploymentId::parse(kept["deploymentId"].as_str()?).ok()
}
