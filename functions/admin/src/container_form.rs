//! How an application's container is created, read from a request.
//!
//! What Docker would refuse only at a container's start, when the old version has stopped already, is refused here; what
//! it refuses when the container is made, with nothing touched yet, is Docker's to know.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tidegate_domain::{
    application::{HealthCheck, Port, Probe},
    container::{
        Capability, ContainerOptions, HostAddress, LogOptions, OWN_LABELS, RestartPolicy, Tmpfs, ULIMITS, Ulimit,
        Volume,
    },
    invalid::Invalid,
};
use tidegate_web::form::{Form, line, within};

use crate::application_form::unknown_value;

/// Docker's own minimum.
const SMALLEST_MEMORY: u64 = 6 * 1024 * 1024;
/// Of a memory file system: one page, to more than any machine has.
const SIZES: (u64, u64) = (4_096, 1 << 40);
/// Networks that a container cannot have beside others.
const LONE_NETWORKS: [&str; 2] = ["host", "none"];

/// A command line, word by word.
pub(crate) fn arguments(words: Vec<String>) -> Result<Vec<String>, Invalid> {
    if words.is_empty() || words.len() > 256 || words.iter().any(|word| word.contains('\0') || word.len() > 8_192) {
        return Err(Invalid::new(
            "format-command",
            "is not a command",
            "send 1 to 256 words of at most 8192 bytes, as a list",
        ));
    }
    Ok(words)
}

/// Fields inside `container` have their own defaults: whoever sends the object says all of it.
pub(crate) fn container_options(form: &mut Form) -> ContainerOptions {
    let default = ContainerOptions::default();
    let options = ContainerOptions {
        restart_policy: form.defaulted("restartPolicy", default.restart_policy, |text: String| match text.as_str() {
            "no" => Ok(RestartPolicy::No),
            "on-failure" => Ok(RestartPolicy::OnFailure),
            "always" => Ok(RestartPolicy::Always),
            "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
            _ => Err(unknown_value("a restart policy", "no, on-failure, always, unless-stopped")),
        }),
        restart_max_retries: form.nullable("restartMaxRetries", None, within(1, 10_000)),
        command: form.nullable("command", None, arguments),
        entrypoint: form.nullable("entrypoint", None, arguments),
        user: form.nullable("user", None, line(1, 128)),
        working_dir: form.nullable("workingDir", None, |text: String| absolute_path(text)),
        hostname: form.nullable("hostname", None, host_name),
        memory_bytes: form.nullable("memoryBytes", None, within(SMALLEST_MEMORY, 1 << 50)),
        cpus: form.nullable("cpus", None, within(0.01, 1_024.0)),
        pids_limit: form.nullable("pidsLimit", None, within(1, 4_194_304)),
        shm_size_bytes: form.nullable("shmSizeBytes", None, within(SIZES.0, SIZES.1)),
        ulimits: form.objects("ulimits", Vec::new(), ulimit),
        volumes: form.objects("volumes", Vec::new(), volume),
        tmpfs: form.objects("tmpfs", Vec::new(), tmpfs),
        networks: form.items("networks", Vec::new(), resource_name),
        extra_hosts: extra_hosts(form),
        labels: form.defaulted("labels", BTreeMap::new(), labels),
        cap_add: form.items("capAdd", Vec::new(), |text: String| Capability::parse(&text)),
        cap_drop: form.items("capDrop", Vec::new(), |text: String| Capability::parse(&text)),
        privileged: form.defaulted("privileged", default.privileged, Ok),
        init: form.defaulted("init", default.init, Ok),
        read_only_root: form.defaulted("readOnlyRoot", default.read_only_root, Ok),
        log: form.object("log", None, log),
        stop_timeout_seconds: form.defaulted("stopTimeoutSeconds", default.stop_timeout_seconds, within(0, 600)),
    };
    check_targets(form, &options);
    check_networks(form, &options.networks);
    check_capabilities(form, &options);
    check_ulimits(form, &options.ulimits);
    if options.restart_max_retries.is_some() && options.restart_policy != RestartPolicy::OnFailure {
        let alone = "leave it out, or use the restart policy on-failure";
        form.refuse("restartMaxRetries", either_or("goes with the restart policy on-failure only", alone));
    }
    options
}

/// What of the application does not go with its container's network.
pub(crate) fn check_reachable(
    form: &mut Form,
    options: &ContainerOptions,
    ports: &[Port],
    health_check: Option<&HealthCheck>,
) {
    let Some(network) = options.networks.iter().find(|name| LONE_NETWORKS.contains(&name.as_str())) else { return };
    if !ports.is_empty() {
        let suggestion = match network.as_str() {
            "host" => "leave ports out: on the host's network the application listens on the host's ports by itself",
            _ => "leave ports out, or use a network",
        };
        form.refuse("ports", either_or(&format!("cannot be published from the network {network}"), suggestion));
    }
    let by_network = health_check.is_some_and(|check| match check.probe {
        Probe::Http { .. } | Probe::Tcp { .. } => true,
        Probe::Command { .. } | Probe::None => false,
    });
    if by_network && !options.uses_host_network() {
        let why = either_or("cannot reach a container without a network", "check by a command, or use a network");
        form.refuse("healthCheck.type", why);
    }
}

fn either_or(message: &str, suggestion: &str) -> Invalid {
    Invalid::new("either-or", message.to_owned(), suggestion.to_owned())
}

fn duplicate() -> Invalid {
    Invalid::new("duplicate", "is named twice", "name it once")
}

fn volume(form: &mut Form) -> Option<Volume> {
    let source = form.required("source", None, |text: String| {
        if text.starts_with('/') {
            return absolute_path(text);
        }
        // Docker takes no volume of one letter.
        if text.len() == 1 { Err(bad_resource_name()) } else { resource_name(text) }
    });
    let target = form.required("target", None, target);
    let read_only = form.defaulted("readOnly", false, Ok);
    Some(Volume { source: source?, target: target?, read_only })
}

fn tmpfs(form: &mut Form) -> Option<Tmpfs> {
    let target = form.required("target", None, target);
    let size_bytes = form.nullable("sizeBytes", None, within(SIZES.0, SIZES.1));
    Some(Tmpfs { target: target?, size_bytes })
}

/// Where something is mounted, without what means nothing in a path, so that the same place looks the same.
fn target(text: String) -> Result<String, Invalid> {
    let path = absolute_path(text)?;
    let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    match parts.first() {
        None | Some(&"proc") => Err(Invalid::new(
            "format-path",
            "is a place where nothing can be mounted",
            "use a folder of the container other than / and those below /proc",
        )),
        Some(_) => Ok(format!("/{}", parts.join("/"))),
    }
}

fn check_targets(form: &mut Form, options: &ContainerOptions) {
    let mut taken = BTreeSet::new();
    let volumes = options.volumes.iter().enumerate().map(|(i, v)| (format!("volumes[{i}].target"), &v.target));
    let tmpfs = options.tmpfs.iter().enumerate().map(|(i, t)| (format!("tmpfs[{i}].target"), &t.target));
    for (field, target) in volumes.chain(tmpfs) {
        if !taken.insert(target) {
            let twice = Invalid::new("duplicate", "is mounted over already", "give each target to one volume or tmpfs");
            form.refuse(&field, twice);
        }
    }
    if options.shm_size_bytes.is_some() && taken.iter().any(|target| *target == "/dev/shm") {
        let alone = "leave it out, or the mount on /dev/shm";
        form.refuse("shmSizeBytes", either_or("has no effect with something mounted on /dev/shm", alone));
    }
}

fn check_networks(form: &mut Form, networks: &[String]) {
    for (i, network) in networks.iter().enumerate() {
        let field = format!("networks[{i}]");
        if networks.iter().take(i).any(|other| other == network) {
            form.refuse(&field, duplicate());
        } else if networks.len() > 1 && LONE_NETWORKS.contains(&network.as_str()) {
            let message = format!("does not go with other networks: {network} is the only one of its container");
            form.refuse(&field, either_or(&message, "name it alone, or leave it out"));
        }
    }
}

fn check_capabilities(form: &mut Form, options: &ContainerOptions) {
    for (name, list) in [("capAdd", &options.cap_add), ("capDrop", &options.cap_drop)] {
        for (i, capability) in list.iter().enumerate() {
            let field = format!("{name}[{i}]");
            if list.iter().take(i).any(|other| other == capability) {
                form.refuse(&field, duplicate());
            } else if options.privileged {
                let alone = "leave it out, or do without privileged";
                form.refuse(&field, either_or("has no effect: a privileged container has every capability", alone));
            } else if name == "capAdd" && options.cap_drop.contains(capability) {
                form.refuse(&field, either_or("is dropped as well", "name it in capAdd or in capDrop"));
            }
        }
    }
}

fn ulimit(form: &mut Form) -> Option<Ulimit> {
    let name = form.required("name", None, |text: String| {
        if ULIMITS.contains(&text.as_str()) { Ok(text) } else { Err(unknown_value("a limit", &ULIMITS.join(", "))) }
    });
    let soft = form.required("soft", None, |value: Value| rlimit(&value));
    let hard = form.defaulted("hard", soft, |value: Value| rlimit(&value).map(Some));
    let (name, soft, hard) = (name?, soft?, hard?);
    // -1 is more than any number.
    if u64::try_from(soft).unwrap_or(u64::MAX) > u64::try_from(hard).unwrap_or(u64::MAX) {
        form.refuse("soft", Invalid::new("out-of-range", "is above the hard limit", "send at most the hard limit"));
    }
    Some(Ulimit { name, soft, hard })
}

fn rlimit(value: &Value) -> Result<i64, Invalid> {
    let wrong = || Invalid::new("out-of-range", "is not a limit", "send a whole number, or -1 for unlimited");
    value.as_i64().filter(|number| *number >= -1).ok_or_else(wrong)
}

fn check_ulimits(form: &mut Form, ulimits: &[Ulimit]) {
    for (i, limit) in ulimits.iter().enumerate() {
        if ulimits.iter().take(i).any(|other| other.name == limit.name) {
            form.refuse(&format!("ulimits[{i}].name"), duplicate());
        }
    }
}

fn extra_hosts(form: &mut Form) -> BTreeMap<String, HostAddress> {
    let given = form.defaulted("extraHosts", BTreeMap::new(), |given: BTreeMap<String, String>| {
        let too_many = || Invalid::new("out-of-range", "has too many names", "send at most 64");
        if given.len() > 64 { Err(too_many()) } else { Ok(given) }
    });
    let mut read = BTreeMap::new();
    for (name, address) in given {
        let shown: String = name.chars().take(64).collect();
        match host_name(name).and_then(|name| HostAddress::parse(&address).map(|address| (name, address))) {
            Ok((name, address)) => drop(read.insert(name, address)),
            Err(why) => form.refuse(&format!("extraHosts.{shown}"), why),
        }
    }
    read
}

/// Docker's own limits are wider; these keep a work order within its item.
fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    let plain = |key: &str| (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if labels.len() > 64 || !labels.iter().all(|(key, value)| plain(key) && value.len() <= 4_096) {
        return Err(Invalid::new(
            "format-labels",
            "has labels that cannot be used",
            "use at most 64, with names of at most 128 visible ASCII characters and values of at most 4096 bytes",
        ));
    }
    if labels.keys().any(|key| key.starts_with(OWN_LABELS)) {
        return Err(Invalid::new(
            "reserved",
            format!("has a label whose name begins with {OWN_LABELS}"),
            "use another name: these are the worker's own",
        ));
    }
    Ok(labels)
}

fn log(form: &mut Form) -> Option<LogOptions> {
    let driver = form.required("driver", None, |text: String| {
        // A plugin's name may have a path and a tag.
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/' | b':');
        if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(text);
        }
        Err(Invalid::new("format-name", "cannot be a log driver's name", "use json-file, local, journald, …"))
    });
    let options = form.defaulted("options", BTreeMap::new(), Ok);
    if let Some(driver @ ("json-file" | "local")) = driver.as_deref() {
        check_file_log(form, driver, &options);
    }
    for (key, value) in &options {
        if ["splunk-token", "logentries-token"].contains(&key.as_str()) {
            form.refuse(
                &format!("options.{key}"),
                Invalid::new(
                    "plaintext-secret",
                    "is a secret, and would be kept and shown in plaintext",
                    "set it in the Docker engine's own configuration on the host (daemon.json, log-opts)",
                ),
            );
        }
        if key.len() > 128 || value.len() > 4_096 || options.len() > 64 {
            let shown: String = key.chars().take(64).collect();
            let limits = "send at most 64 options, with names of at most 128 bytes and values of at most 4096";
            form.refuse(&format!("options.{shown}"), Invalid::new("out-of-range", "is too much", limits));
        }
    }
    Some(LogOptions { driver: driver?, options })
}

/// The engine looks at these values only when the container starts.
fn check_file_log(form: &mut Form, driver: &str, options: &BTreeMap<String, String>) {
    if options.get("max-size").is_some_and(|text| !is_size(text)) {
        let why = Invalid::new("format-size", "is not a size", "send a number with k, m or g behind it, such as 10m");
        form.refuse("options.max-size", why);
    }
    let files = options.get("max-file");
    if files.is_some_and(|text| text.parse::<u32>().map_or(true, |number| number == 0)) {
        form.refuse(
            "options.max-file",
            Invalid::new("out-of-range", "is not a number of files", "send a whole number from 1"),
        );
    }
    let compress = options.get("compress");
    if compress.is_some_and(|text| !matches!(text.as_str(), "true" | "false")) {
        form.refuse("options.compress", Invalid::new("format-boolean", "is not true or false", "send true or false"));
    }
    let compressed = compress.map_or(driver == "local", |text| text == "true");
    if compressed && files.is_some_and(|text| text == "1") {
        let alone = "raise max-file, or set compress to false";
        form.refuse("options.max-file", either_or("of 1 leaves no old file to be compressed", alone));
    }
}

/// As docker/go-units reads it, above zero.
fn is_size(text: &str) -> bool {
    let number = text.strip_suffix(['b', 'B']).unwrap_or(text);
    let number = number.strip_suffix(['i', 'I']).unwrap_or(number);
    let number = number.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T']).unwrap_or(number);
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    digits && text.len() <= 16 && number.bytes().any(|b| b != b'0')
}

/// As `sethostname(2)` takes it: longer ones are told only at the start.
fn host_name(text: String) -> Result<String, Invalid> {
    let label = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if text.len() <= 63 && text.split('.').all(label) {
        return Ok(text);
    }
    Err(Invalid::new(
        "format-name",
        "cannot be a host's name",
        "use 1 to 63 letters, digits and '-', in parts separated by '.'",
    ))
}

/// Without `..`, which would step around a host's list of allowed folders, and without `:`, which Docker splits at.
fn absolute_path(text: String) -> Result<String, Invalid> {
    let plain = text.len() <= 4_096 && !text.chars().any(|c| c.is_control() || c == ':');
    if text.starts_with('/') && plain && text.split('/').all(|part| part != "..") {
        return Ok(text);
    }
    Err(Invalid::new("format-path", "is not an absolute path", "begin it with /, without '..' and ':'"))
}

/// Of a Docker volume or network. `container:NAME`, the network of another container, is none: it would go away with each
/// version of that one.
fn resource_name(text: String) -> Result<String, Invalid> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && text.len() <= 128 { Ok(text) } else { Err(bad_resource_name()) }
}

fn bad_resource_name() -> Invalid {
    Invalid::new(
        "format-name",
        "cannot be the name of a volume or network",
        "use 2 to 128 letters, digits, '_', '.' and '-', starting with a letter or digit",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_place_looks_the_same() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(target(text.to_owned()).ok().as_deref(), expect, "{text}");
        };
        check("/data", Some("/data"));
        check("//data/./x/", Some("/data/x"));
        check("/", None);
        check("/./", None);
        check("/proc/sys", None);
        check("/process", Some("/process"));
        check("/data/..", None);
        check("data", None);
    }

    #[test]
    fn a_size_is_what_the_engine_can_read() {
        for text in ["10m", "1g", "512k", "10MB", "10MiB", "1048576"] {
            assert!(is_size(text), "{text}");
        }
        for text in ["", "m", "0", "00k", "-1", "10bb", "10 apples", "1.5.2m", "ten"] {
            assert!(!is_size(text), "{text}");
        }
    }
}
