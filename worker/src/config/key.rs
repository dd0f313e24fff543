//! The keys, as people read of them: in the file that `install` writes, and in what is told of a wrong one.

use std::fmt::Write as _;

struct Key {
    name: &'static str,
    /// What it is for, in lines of the file.
    about: &'static [&'static str],
    /// A value, as the file writes it: the default where there is one.
    shown: &'static str,
    /// Written into a new file, not only shown in it.
    written: bool,
}

const KEYS: [Key; 21] = [
    Key::new(
        "tenant",
        "\"default\"",
        &["Whose host this is. The output WorkerConfiguration of infra/host.yaml has this", "and the next five."],
    ),
    Key::new("host", "\"web-1\"", &["This host's name, as it is registered."]),
    Key::new("region", "\"eu-central-1\"", &["Where AWS is; else as the AWS SDK finds it."]),
    Key::new("table", "\"tidegate\"", &["The installation's table."]),
    Key::new(
        "queue_url",
        "\"https://sqs.eu-central-1.amazonaws.com/123456789012/tidegate-host-default_web-1\"",
        &["This host's own queue."],
    ),
    Key::new(
        "reports_queue_url",
        "\"https://sqs.eu-central-1.amazonaws.com/123456789012/tidegate-reports\"",
        &["Where all hosts report to."],
    ),
    Key::new("docker_host", "\"unix:///run/docker.sock\"", &["Where Docker is; else its own default."]),
    Key::new(
        "data",
        "\"/var/lib/tidegate-worker\"",
        &[
            "The worker's folder: a lock, and nothing that matters. After a change of it run",
            "`tidegate-worker install` again, which lets the service write there.",
        ],
    ),
    Key::new(
        "max_concurrent_jobs",
        "4",
        &["Applications that are worked on at once, 1 to 64, beside those that wait for a registry."],
    ),
    Key::new("shutdown_seconds", "60", &["Once it is to stop, a switch in hand may take so long to end, 1 to 300."]),
    Key {
        written: true,
        ..Key::new(
            "metrics_listen",
            "\"127.0.0.1:9464\"",
            &["/metrics for Prometheus, and /healthz; only loopback addresses. Without it, neither."],
        )
    },
    Key::new(
        "min_free_disk_bytes",
        "0",
        &["Less free space where Docker keeps its data fails a deployment before it begins."],
    ),
    Key::new("keep_images", "3", &["So many of an application's newest images stay, beside those in use."]),
    Key::new("stable_seconds", "5", &["Without any health check, a container that stays up so long works, 1 to 600."]),
    Key::new("container_prefix", "\"\"", &["Before every container's name, for several workers on one engine."]),
    Key::new("allowed_bind_mounts", "[]", &["Directories that containers may mount, with all below: [\"/srv/shop\"]."]),
    Key::new("allow_privileged", "false", &["Privileged containers, which own the host."]),
    Key::new("allow_host_network", "false", &["Containers in the host's own network."]),
    Key::new("allow_docker_socket", "false", &["Containers with the Docker socket, which own the host."]),
    Key::new(
        "allowed_capabilities",
        "[]",
        &["Capabilities that containers may have beyond Docker's usual ones: [\"NET_ADMIN\"]."],
    ),
    Key::new(
        "allowed_log_drivers",
        "[\"json-file\", \"local\", \"journald\", \"none\"]",
        &[
            "All log drivers that containers may name. Others connect, as root, to wherever they are told, Docker's socket",
            "included. A container that names none has json-file.",
        ],
    ),
];

impl Key {
    const fn new(name: &'static str, shown: &'static str, about: &'static [&'static str]) -> Self {
        Self { name, about, shown, written: false }
    }
}

/// A configuration file to begin with: every key, explained.
pub(crate) fn template() -> String {
    let mut text = String::from(
        "# The configuration of Tidegate's worker on this host. Every key can be given as a variable of the environment as\n\
         # well, which goes first: TIDEGATE_WORKER_ and the key in capitals; lists are separated by commas.\n\
         # `tidegate-worker check` tells all that is missing or wrong.\n",
    );
    for key in &KEYS {
        text.push('\n');
        for line in key.about {
            writeln!(text, "# {line}").expect("writing to a string does not fail");
        }
        let off = if key.written { "" } else { "# " };
        writeln!(text, "{off}{} = {}", key.name, key.shown).expect("writing to a string does not fail");
    }
    text
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|key| key.name)
}

/// A value that the key may have.
pub(super) fn shown(name: &str) -> &'static str {
    KEYS.iter().find(|key| key.name == name).map_or("…", |key| key.shown)
}

/// The key that was probably meant: at most two letters away.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    names()
        .map(|known| (distance(name, known), known))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, known)| known)
}

/// Letters to change, add or remove (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
