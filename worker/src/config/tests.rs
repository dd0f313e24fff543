use super::*;

const SMALLEST: &str = "tenant = \"default\"\nhost = \"web-1\"\ntable = \"t\"\n\
    queue_url = \"https://sqs.eu-central-1.amazonaws.com/1/q\"\nreports_queue_url = \"http://127.0.0.1:9324/1/r\"\n";

fn of(file: Option<&str>, environment: &[(&str, &str)]) -> Result<Config, Faults> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::of(Path::new("worker.toml"), file, None, environment)
}

fn told(file: Option<&str>, environment: &[(&str, &str)]) -> Vec<String> {
    of(file, environment).unwrap_err().0.iter().map(Fault::to_string).collect()
}

#[test]
fn five_lines_are_a_configuration() {
    let config = of(Some(SMALLEST), &[]).unwrap();
    assert_eq!((config.max_concurrent_jobs, config.shutdown), (4, Duration::from_mins(1)));
    assert_eq!((config.metrics_listen, config.data), (None, PathBuf::from("/var/lib/tidegate-worker")));
    assert!(!config.policy.allow_privileged && config.policy.allowed_bind_mounts.is_empty());
}

#[test]
fn the_environment_alone_is_one_too_and_goes_over_the_file() {
    let required = [
        ("TIDEGATE_WORKER_TENANT", "default"),
        ("TIDEGATE_WORKER_HOST", "web-2"),
        ("TIDEGATE_WORKER_TABLE", "t"),
        ("TIDEGATE_WORKER_QUEUE_URL", "https://q/q"),
        ("TIDEGATE_WORKER_REPORTS_QUEUE_URL", "https://q/r"),
    ];
    assert_eq!(of(None, &required).unwrap().host.to_string(), "web-2");

    let file = format!("{SMALLEST}keep_images = 9\nallowed_bind_mounts = [\"/a\"]\nmetrics_listen = \"[::1]:1\"\n");
    let config = of(Some(&file), &[]).unwrap();
    assert_eq!((config.policy.keep_images, config.metrics_listen), (9, "[::1]:1".parse().ok()));
    let over = [
        ("TIDEGATE_WORKER_KEEP_IMAGES", "2"),
        ("TIDEGATE_WORKER_ALLOWED_BIND_MOUNTS", "/srv, /data"),
        ("TIDEGATE_WORKER_ALLOWED_CAPABILITIES", "net_admin"),
        ("TIDEGATE_WORKER_ALLOWED_LOG_DRIVERS", "local, syslog"),
        ("TIDEGATE_WORKER_ALLOW_HOST_NETWORK", "true"),
        ("TIDEGATE_WORKER_METRICS_LISTEN", ""),
    ];
    let config = of(Some(&file), &over).unwrap();
    assert_eq!((config.policy.keep_images, config.metrics_listen), (2, None));
    assert_eq!(config.policy.allowed_bind_mounts, [PathBuf::from("/srv"), PathBuf::from("/data")]);
    assert_eq!(config.policy.allowed_capabilities, [Capability::parse("NET_ADMIN").unwrap()]);
    assert_eq!(config.policy.allowed_log_drivers, ["local", "syslog"]);
    assert!(config.policy.allow_host_network);
}

#[test]
fn log_drivers_are_the_usual_ones_until_somebody_says_which() {
    let check = |line: &str, environment: Option<&str>, expect: &[&str]| {
        let environment: Vec<_> =
            environment.map(|value| ("TIDEGATE_WORKER_ALLOWED_LOG_DRIVERS", value)).into_iter().collect();
        let config = of(Some(&format!("{SMALLEST}{line}\n")), &environment).unwrap();
        assert_eq!(config.policy.allowed_log_drivers, expect, "{line} {environment:?}");
    };
    check("", None, &["json-file", "local", "journald", "none"]);
    check("allowed_log_drivers = [\"gelf\"]", None, &["gelf"]);
    check("allowed_log_drivers = []", None, &[]);
    check("allowed_log_drivers = [\"gelf\"]", Some(""), &[]);
    let told = told(Some(&format!("{SMALLEST}allowed_log_drivers = [\"local\", \"ALL\", \"\"]\n")), &[]);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].starts_with("allowed_log_drivers[1] (worker.toml, line 6): not a log driver's name"), "{told:#?}");
}

#[test]
fn all_faults_are_told_at_once_each_with_its_place_and_a_way_out() {
    let file = "tenant = \"Default\"\nhost = 7\nkeep_image = 2\nkeep_images = \"3\"\nshutdown_seconds = 0\n\
                metrics_listen = \"0.0.0.0:9464\"\nallowed_bind_mounts = [\"/srv\", \"data\"]\nallow_privileged = \"yes\"\n\
                docker_host = \"ssh://x\"\ncontainer_prefix = \"-a\"\n";
    let environment = [("TIDEGATE_WORKER_MAX_CONCURRENT_JOBS", "many"), ("TIDEGATE_WORKER_TENNANT", "default")];
    let told = told(Some(file), &environment);
    for expect in [
        "tenant (worker.toml, line 1): ",
        "host (worker.toml, line 2): not a text; write host = \"…\"",
        "table: missing; set it in worker.toml or as TIDEGATE_WORKER_TABLE",
        "queue_url: missing",
        "reports_queue_url: missing",
        "keep_image (worker.toml, line 3): there is no such key; write keep_images, if that is meant",
        "keep_images (worker.toml, line 4): not a whole number from 0 to 100; write keep_images = 3",
        "shutdown_seconds (worker.toml, line 5): not a whole number from 1 to 300",
        "metrics_listen (worker.toml, line 6): other machines could reach it",
        "allowed_bind_mounts[1] (worker.toml, line 7): not an absolute path",
        "allow_privileged (worker.toml, line 8): neither true nor false",
        "docker_host (worker.toml, line 9): not an address",
        "container_prefix (worker.toml, line 10): ",
        "max_concurrent_jobs (TIDEGATE_WORKER_MAX_CONCURRENT_JOBS in the environment): not a whole number",
        "tennant (TIDEGATE_WORKER_TENNANT in the environment): there is no such key; write tenant",
    ] {
        assert_eq!(told.iter().filter(|fault| fault.starts_with(expect)).count(), 1, "{expect} in {told:#?}");
    }
    assert_eq!(told.len(), 15, "{told:#?}");
}

#[test]
fn what_is_behind_a_fault_of_the_file_is_not_called_missing() {
    let broken = told(Some("tenant = \"default\nhost = \"web-1\"\nshutdown_seconds = 0\n"), &[]);
    assert!(broken[0].starts_with("worker.toml, line 1: not TOML: "), "{broken:#?}");
    assert!(broken.iter().all(|fault| !fault.contains("missing")), "{broken:#?}");

    let denied = Fault::unreadable(Path::new("worker.toml"), &io::ErrorKind::PermissionDenied.into());
    let environment = BTreeMap::from([("TIDEGATE_WORKER_SHUTDOWN_SECONDS".to_owned(), "x".to_owned())]);
    let faults = Config::of(Path::new("worker.toml"), None, Some(denied), environment).unwrap_err().0;
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(faults[0].to_string().contains("chmod 0640"), "{faults:#?}");
}

#[test]
fn a_named_file_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Config::read(Some(&folder.path().join("none.toml"))).unwrap_err();
    assert!(faults.0[0].what.starts_with("cannot be read"), "{faults}");
}

#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo.toml");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for path in [&fifo, folder.path(), Path::new("/dev/zero")] {
        let faults = Config::read(Some(path)).unwrap_err();
        let told = faults.0[0].to_string();
        assert!(told.starts_with(&format!("{}: not a regular file; ", path.display())), "{told}");
    }
    let file = folder.path().join("worker.toml");
    fs::write(&file, SMALLEST).unwrap();
    let link = folder.path().join("link.toml");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(Config::read(Some(&link)).unwrap().host.to_string(), "web-1");
}

#[test]
fn the_new_file_shows_every_key_and_needs_only_its_own_host() {
    let told = told(Some(&template()), &[]);
    let missing: Vec<_> = told.iter().map(|fault| fault.split(": missing").next().unwrap()).collect();
    assert_eq!(missing, ["tenant", "host", "table", "queue_url", "reports_queue_url"]);
    // Every value that it shows is one that may be written there.
    let shown: Vec<_> = template()
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line).to_owned())
        .collect();
    let config = of(Some(&shown.join("\n")), &[]).unwrap();
    assert_eq!(config.metrics_listen, "127.0.0.1:9464".parse().ok());
    assert_eq!(config.data, PathBuf::from(DEFAULT_DATA));
}

#[test]
fn every_key_is_documented_among_the_environments_variables() {
    let documented = include_str!("../../../shared/aws/src/env.rs");
    for key in key::names() {
        let variable = reader::variable(key);
        let named = |line: &str| line.split(|c: char| !c.is_ascii_uppercase() && c != '_').any(|word| word == variable);
        assert!(documented.lines().any(named), "{variable}");
    }
}
