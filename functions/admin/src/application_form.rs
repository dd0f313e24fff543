//! The whole shape of an application, read from a request. What is left out keeps what is stored, or gets its default.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::json;
use tidegate_domain::{
    application::{
        Application, Concurrency, ContainerName, HealthCheck, HostSelector, MAX_HOSTS, Port, Probe, Protocol, Rollout,
        Strategy, VersionPattern,
    },
    approval::ApprovalPolicy,
    id::{EnvironmentId, HostName, ProjectId, RegistryId},
    image::ImageName,
    invalid::Invalid,
    issue::{self, Allow, IssueTrigger, Label, Repository, VERSION_FIELD},
};
use tidegate_web::{
    Problem,
    form::{Form, line, within},
};

use crate::{
    container_form::{arguments, check_reachable, container_options},
    parameter_form::parameters,
    projects::ProjectRef,
    settings,
};

/// An application whose project may still be a key.
pub(crate) struct Parsed {
    pub(crate) project: ProjectRef,
    with_project: Box<dyn FnOnce(ProjectId) -> Application + Send>,
}

impl Parsed {
    pub(crate) fn in_project(self, id: ProjectId) -> Application {
        (self.with_project)(id)
    }
}

/// `owner` is who the application belongs to if neither request nor store says.
pub(crate) fn read(mut form: Form, owner: &str, stored: Option<&Application>) -> Result<Parsed, Problem> {
    let project = form.required("projectId", stored.map(|s| ProjectRef::Id(s.project_id)), Ok);
    let name = form.required("name", stored.map(|s| s.name.clone()), |t: String| ContainerName::parse(&t));
    let owner = form.defaulted("owner", stored.map_or_else(|| owner.to_owned(), |s| s.owner.clone()), line(1, 128));
    let image = form.required("image", stored.map(|s| s.image.clone()), |t: String| ImageName::parse(&t));
    let registry_id = form.nullable("registryId", stored.and_then(|s| s.registry_id), |id: u64| Ok(RegistryId(id)));
    let ports = form.objects("ports", stored.map(|s| s.ports.clone()).unwrap_or_default(), port);
    check_ports(&mut form, &ports);
    let hosts = hosts(&mut form, stored.map(|s| s.hosts.clone()));
    let version_pattern =
        form.nullable("versionPattern", stored.and_then(|s| s.version_pattern.clone()), |t: String| {
            VersionPattern::parse(&t)
        });
    let parameters = parameters(&mut form, stored.map(|s| s.parameters.clone()).unwrap_or_default());
    let health_check = form.object("healthCheck", stored.and_then(|s| s.health_check.clone()), health_check);
    let container = stored.map(|s| s.container.clone()).unwrap_or_default();
    let container = form.object("container", Some(container), |form| Some(container_options(form))).unwrap_or_default();
    check_reachable(&mut form, &container, &ports, health_check.as_ref());
    let rollout = stored.map(|s| s.rollout.clone()).unwrap_or_default();
    let rollout = form.object("rollout", Some(rollout), |form| Some(read_rollout(form))).unwrap_or_default();
    let adopt = form.defaulted("adopt", stored.is_some_and(|s| s.adopt), Ok);
    let webhook_enabled = stored.is_none_or(|s| s.webhook_enabled);
    let webhook_enabled = form
        .object("webhook", Some(webhook_enabled), |form| {
            form.read_only(&["tokenHint", "lastUsedAt"]);
            Some(form.defaulted("enabled", webhook_enabled, Ok))
        })
        .unwrap_or(webhook_enabled);
    let limits = form
        .object("limits", stored.and_then(|s| s.limits), |form| settings::limits(form, stored.and_then(|s| s.limits)));
    let env_id = form.nullable("envId", stored.and_then(|s| s.env_id), |text: String| EnvironmentId::parse(&text));
    let approval = stored.map(|s| s.approval).unwrap_or_default();
    let approval = form.object("approval", Some(approval), |form| Some(read_approval(form))).unwrap_or_default();
    form.only("trustedRepositories", &[json!([])]);
    let issue_trigger = form.object("issueTrigger", stored.and_then(|s| s.issue_trigger.clone()), read_issue_trigger);
    form.finish(|| {
        let (project, name, image, hosts) = (project?, name?, image?, hosts?);
        let with_project = Box::new(move |project_id| Application {
            project_id,
            name,
            owner,
            image,
            registry_id,
            ports,
            hosts,
            env_id,
            version_pattern,
            parameters,
            health_check,
            container,
            rollout,
            adopt,
            webhook_enabled,
            limits,
            approval,
            issue_trigger,
        });
        Some(Parsed { project, with_project })
    })
}

fn read_issue_trigger(form: &mut Form) -> Option<IssueTrigger> {
    let repository = form.required("repository", None, |text: String| Repository::parse(&text));
    let label = form.required("label", None, |text: String| Label::parse(&text));
    let allow = form.defaulted("allow", Allow::default(), |text: String| match text.as_str() {
        "owner" => Ok(Allow::Owner),
        "write" => Ok(Allow::Write),
        "anyone" => Ok(Allow::Anyone),
        _ => Err(unknown_value("a group of people", "owner, write, anyone")),
    });
    let version_field =
        form.defaulted("versionField", VERSION_FIELD.to_owned(), |text: String| issue::version_field(&text));
    Some(IssueTrigger { repository: repository?, label: label?, allow, version_field })
}

fn read_approval(form: &mut Form) -> ApprovalPolicy {
    ApprovalPolicy {
        required: form.defaulted("required", false, Ok),
        require_other_approver: form.defaulted("requireOtherApprover", false, Ok),
    }
}

pub(crate) fn unknown_value(what: &str, names: &str) -> Invalid {
    Invalid::new("unknown-value", format!("is not {what}"), format!("use one of {names}"))
}

fn port(form: &mut Form) -> Option<Port> {
    let host = form.required("host", None, within(1, u16::MAX));
    let container = form.required("container", None, within(1, u16::MAX));
    let protocol = form.defaulted("protocol", Protocol::Tcp, |text: String| match text.as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(unknown_value("a protocol", "tcp, udp")),
    });
    let host_ip = form.defaulted("hostIp", IpAddr::from([0, 0, 0, 0]), |text: String| {
        text.parse().map_err(|_| {
            Invalid::new("format-ip", "is not an IP address", "use an address of the host, or 0.0.0.0 for all")
        })
    });
    Some(Port { host: host?, container: container?, protocol, host_ip })
}

fn check_ports(form: &mut Form, ports: &[Port]) {
    for (i, port) in ports.iter().enumerate() {
        if ports.iter().take(i).any(|other| other.overlaps(port)) {
            let twice = Invalid::new("duplicate", "is published twice", "give each port of the host once");
            form.refuse(&format!("ports[{i}].host"), twice);
        }
    }
}

fn hosts(form: &mut Form, stored: Option<HostSelector>) -> Option<HostSelector> {
    if stored.is_none() && !form.has("hosts") {
        form.refuse("hosts", Invalid::new("missing", "is required", r#"say where it runs: {"names":["…"]}"#));
    }
    let mut empty = false;
    let selector = form.object("hosts", stored, |form| {
        let names = form.has("names").then(|| form.items("names", Vec::new(), |t: String| HostName::parse(&t)));
        let labels = form.nullable("labels", None, labels);
        match (names, labels) {
            (Some(names), None) => {
                check_names(form, &names);
                Some(HostSelector::Names(names))
            }
            (None, Some(labels)) if !labels.is_empty() => Some(HostSelector::Labels(labels)),
            (None, _) => {
                empty = true;
                None
            }
            (Some(_), Some(_)) => {
                form.refuse(
                    "labels",
                    Invalid::new("either-or", "does not go with names", "send names or labels, not both"),
                );
                None
            }
        }
    });
    if empty {
        form.refuse(
            "hosts",
            Invalid::new("missing", "names no host", r#"send {"names":["…"]} or {"labels":{"role":"web"}}"#),
        );
    }
    selector
}

fn check_names(form: &mut Form, names: &[HostName]) {
    let wanted = format!("1 to {MAX_HOSTS} host names");
    if names.is_empty() || names.len() > MAX_HOSTS {
        form.refuse("names", Invalid::new("out-of-range", format!("must have {wanted}"), format!("send {wanted}")));
    }
    for (i, name) in names.iter().enumerate() {
        if names.iter().take(i).any(|other| other == name) {
            form.refuse(&format!("names[{i}]"), Invalid::new("duplicate", "is named twice", "name each host once"));
        }
    }
}

/// At most 20 labels of at most 63 characters.
pub(crate) fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    let plain = |text: &str, min: usize| (min..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if labels.len() > 20 || !labels.iter().all(|(key, value)| plain(key, 1) && plain(value, 0)) {
        return Err(Invalid::new(
            "format-labels",
            "has labels that cannot be used",
            "use at most 20, with names and values of at most 63 visible ASCII characters",
        ));
    }
    Ok(labels)
}

fn health_check(form: &mut Form) -> Option<HealthCheck> {
    let kind = form.required("type", None, |text: String| {
        if matches!(text.as_str(), "http" | "tcp" | "command" | "none") {
            return Ok(text);
        }
        Err(unknown_value("a health check", "http, tcp, command, none"))
    });
    let probe = match kind.as_deref() {
        Some("http") => {
            let path = form.defaulted("path", "/".to_owned(), |text: String| {
                let valid = text.starts_with('/') && text.len() <= 1_024 && text.bytes().all(|b| b.is_ascii_graphic());
                let refused = || Invalid::new("format-path", "is not a path", "begin it with / and percent-encode it");
                valid.then_some(text).ok_or_else(refused)
            });
            form.required("port", None, within(1, u16::MAX)).map(|port| Probe::Http { path, port })
        }
        Some("tcp") => form.required("port", None, within(1, u16::MAX)).map(|port| Probe::Tcp { port }),
        Some("command") => form.required("command", None, arguments).map(|command| Probe::Command { command }),
        Some(_) => Some(Probe::None),
        None => {
            // Whatever the type would have been, its fields are not the fault.
            form.read_only(&["path", "port", "command"]);
            None
        }
    };
    let interval_ms = form.defaulted("intervalMs", 500, within(100, 60_000));
    let timeout_ms = form.defaulted("timeoutMs", 1_000, within(100, 60_000));
    let retries = form.defaulted("retries", 3, within(1, 100));
    let start_period_ms = form.nullable("startPeriodMs", None, within(0, 600_000));
    let deadline_ms = form.nullable("deadlineMs", None, within(1_000, 900_000));
    // Each default gives way to the other field.
    let deadline_ms = deadline_ms.unwrap_or_else(|| (start_period_ms.unwrap_or(0) + 30_000).max(60_000));
    let start_period_ms = start_period_ms.unwrap_or_else(|| deadline_ms.min(2_000));
    if start_period_ms > deadline_ms {
        let why = "ends before the start period, in which no failure counts";
        let suggestion = "raise deadlineMs, or lower startPeriodMs";
        form.refuse("deadlineMs", Invalid::new("either-or", why, suggestion));
    }
    Some(HealthCheck { probe: probe?, interval_ms, timeout_ms, retries, start_period_ms, deadline_ms })
}

fn read_rollout(form: &mut Form) -> Rollout {
    let default = Rollout::default();
    Rollout {
        strategy: form.defaulted("strategy", default.strategy, |text: String| match text.as_str() {
            "recreate" => Ok(Strategy::Recreate),
            _ => Err(unknown_value("a strategy that this release has", "recreate")),
        }),
        max_parallel: form.defaulted("maxParallel", default.max_parallel, within(1, 20)),
        rollback_on_failure: form.defaulted("rollbackOnFailure", default.rollback_on_failure, Ok),
        bake_seconds: form.defaulted("bakeSeconds", default.bake_seconds, within(0, 3_600)),
        concurrency: form.defaulted("concurrency", default.concurrency, |text: String| match text.as_str() {
            "queue" => Ok(Concurrency::Queue),
            "latest" => Ok(Concurrency::Latest),
            _ => Err(unknown_value("a way to go about what waits", "queue, latest")),
        }),
    }
}
