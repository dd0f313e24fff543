//! What a host says when it does not do what it was asked for, in words for whoever asked.

use serde::Serialize;
use tidegate_domain::{
    id::HostName,
    task::{LONGEST, Refusal},
};
use tidegate_web::Problem;

/// A host's part of an answer that is about several.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct HostError {
    code: &'static str,
    message: String,
    suggestion: String,
}

impl HostError {
    pub(crate) fn offline(host: &HostName) -> Self {
        Self {
            code: "host-offline",
            message: format!("the host {host} did not answer in time"),
            suggestion: "see whether its worker runs; GET /hosts tells when it was last seen".to_owned(),
        }
    }

    /// The log has why.
    pub(crate) fn not_asked(host: &HostName) -> Self {
        Self {
            code: "not-asked",
            message: format!("the host {host} could not be asked, or its answer not be read"),
            suggestion: "repeat the request; if it stays so, the log has it under the requestId".to_owned(),
        }
    }
}

pub(crate) fn host_error(why: &Refusal) -> HostError {
    let (code, message, suggestion) = match why {
        Refusal::NoContainer => (
            "no-container",
            "there is no container of the application".to_owned(),
            "GET /applications/{id} tells what was left there, and what is seen; deploy again",
        ),
        Refusal::OtherRelease { .. } => {
            ("other-release", "another release's container was found than was thought".to_owned(), "repeat the request")
        }
        Refusal::NotKept { driver } => (
            "not-kept",
            format!("its log driver, {driver}, keeps nothing that can be read"),
            "look where that driver sends it, or choose another in container.log and deploy again",
        ),
        Refusal::DeploymentInHand => (
            "deployment-in-hand",
            "a deployment of the application is in hand there".to_owned(),
            "repeat the request when it has ended; it cleans up after itself",
        ),
        Refusal::EngineAway => ("engine-away", "Docker does not answer there".to_owned(), "start Docker on that host"),
        Refusal::Engine { message } => (
            "engine",
            message.clone(),
            "the message is Docker's own; mend what it says on that host, then repeat the request",
        ),
        Refusal::Late => (
            "late",
            format!("it was not done within {} s; what was begun may still end", LONGEST.as_secs()),
            "repeat the request; it goes on with what is left",
        ),
    };
    HostError { code, message, suggestion: suggestion.to_owned() }
}

/// For a call that is about one host.
pub(crate) fn problem(why: &Refusal, host: &HostName) -> Problem {
    let HostError { code, message, suggestion } = host_error(why);
    match why {
        Refusal::EngineAway | Refusal::Late => Problem::away(&format!("Docker on the host {host}")),
        Refusal::NoContainer
        | Refusal::OtherRelease { .. }
        | Refusal::NotKept { .. }
        | Refusal::DeploymentInHand
        | Refusal::Engine { .. } => {
            Problem::no_logs(format!("On {host}: {message}. To mend it: {suggestion}.")).with("code", code)
        }
    }
}
