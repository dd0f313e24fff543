//! Rules of the house, read from the sources and from `cargo metadata`. Every rule is tried on an example that breaks it,
//! so that none of them passes because it sees nothing.

pub(crate) mod source;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use source::Source;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Where the whole system is put together or tried, things may be named that have one home elsewhere.
const OUTSIDE: &[&str] = &["tests/", "infra/local/"];

/// Fails with every place that breaks the rule, and with what to do.
#[track_caller]
fn keep(rule: impl Fn(&Source) -> Vec<String>, instead: &str) {
    let sources = source::below(&root());
    assert!(sources.len() > 30, "only {} sources were found below {}", sources.len(), root().display());
    let places: Vec<_> = sources.iter().flat_map(rule).collect();
    assert!(places.is_empty(), "{instead}\n  {}\n", places.join("\n  "));
}

#[track_caller]
fn check(rule: impl Fn(&Source) -> Vec<String>, path: &str, text: &str, breaks: bool) {
    let places = rule(&Source::new(path, text));
    assert_eq!(!places.is_empty(), breaks, "{path}: {text}: {places:?}");
}

/// Lines of shipped code that hold the word, outside its home.
fn named_outside(source: &Source, word: &str, homes: &[&str]) -> Vec<String> {
    if source.is_under(homes) || source.is_under(OUTSIDE) {
        return Vec::new();
    }
    let lines = source.code.lines().enumerate();
    lines.filter(|(_, line)| has_word(line, word)).map(|(index, line)| source.at(index + 1, line)).collect()
}

/// Whether a path or name begins so in the line.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn sdk(source: &Source) -> Vec<String> {
    named_outside(source, "aws_sdk_", &["shared/aws/"])
}

#[test]
fn only_shared_aws_names_the_sdk() {
    keep(sdk, "Only shared/aws names aws_sdk_*: give Store, Table or Queue a method there.");
    check(sdk, "functions/admin/src/lib.rs", "use aws_sdk_sqs::Client;", true);
    check(sdk, "functions/admin/src/lib.rs", "// as aws_sdk_sqs does it", false);
    check(sdk, "shared/aws/src/queues.rs", "use aws_sdk_sqs::Client;", false);
}

fn docker(source: &Source) -> Vec<String> {
    named_outside(source, "bollard", &["worker/src/docker/"])
}

#[test]
fn only_the_workers_docker_module_names_bollard() {
    keep(docker, "Only worker/src/docker/ names bollard: give Engine a method there.");
    check(docker, "worker/src/perform.rs", "let docker = bollard::Docker::new();", true);
    check(docker, "worker/src/docker/pull.rs", "let docker = bollard::Docker::new();", false);
}

/// Answers that are no error.
const GOOD_STATUSES: &[&str] =
    &["CONTINUE", "OK", "CREATED", "ACCEPTED", "NO_CONTENT", "MOVED_PERMANENTLY", "FOUND", "SEE_OTHER", "NOT_MODIFIED"];

fn statuses(source: &Source) -> Vec<String> {
    if source.path == "shared/web/src/problem.rs" || !source.is_under(&["functions/", "shared/"]) {
        return Vec::new();
    }
    let bad = |line: &str| {
        line.match_indices("StatusCode::").any(|(at, found)| {
            let name: String =
                line[at + found.len()..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            let is_constant = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            let is_number = name == "from_u16" && ["(4", "(5"].iter().any(|digit| line[at..].contains(digit));
            is_number || is_constant && !GOOD_STATUSES.contains(&name.as_str())
        })
    };
    source.shipped_lines().filter(|(_, line)| bad(line)).map(|(number, line)| source.at(number, line)).collect()
}

#[test]
fn one_file_turns_errors_into_statuses() {
    keep(statuses, "Only shared/web/src/problem.rs turns errors into statuses: return a Problem.");
    check(statuses, "functions/admin/src/hosts.rs", "return StatusCode::NOT_FOUND.into_response();", true);
    check(statuses, "functions/admin/src/hosts.rs", "StatusCode::from_u16(409)", true);
    check(statuses, "functions/admin/src/hosts.rs", "(StatusCode::CREATED, body)", false);
    // A stored answer, given again.
    check(statuses, "functions/admin/src/hosts.rs", "StatusCode::from_u16(stored.status)", false);
    check(statuses, "functions/admin/src/hosts.rs", "#[cfg(test)]\nmod tests { StatusCode::NOT_FOUND }", false);
}

/// `TENANT#`, `HOST#` and their like.
fn table_keys(source: &Source) -> Vec<String> {
    if source.is_under(&["shared/aws/src/keys.rs", "shared/aws/src/keys/"]) || source.is_test() {
        return Vec::new();
    }
    let is_key = |text: &str| {
        text.split_once('#')
            .is_some_and(|(kind, _)| kind.len() > 2 && kind.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let end = source.tests_begin();
    let keys = source.literals.iter().filter(|(line, text)| *line < end && is_key(text));
    keys.map(|(line, text)| source.at(*line, text)).collect()
}

#[test]
fn keys_of_the_table_are_built_in_one_file() {
    keep(table_keys, "Keys of the table are built in shared/aws/src/keys.rs: add a function there.");
    check(table_keys, "shared/aws/src/hosts.rs", "format!(\"HOST#{tenant}#{name}\")", true);
    check(table_keys, "shared/aws/src/keys.rs", "format!(\"HOST#{tenant}#{name}\")", false);
    check(table_keys, "shared/aws/src/hosts.rs", "let text = \"#1\"; let other = r#\"A\"#;", false);
}

fn length(source: &Source) -> Vec<String> {
    let lines = if source.is_test() { source.text.lines().count() } else { source.tests_begin() - 1 };
    if lines > 450 { vec![format!("{}: {lines} lines", source.path)] } else { Vec::new() }
}

#[test]
fn no_file_is_longer_than_one_thing() {
    keep(length, "A file has about 400 lines before its tests, 450 at most; past that it is probably two things.");
    check(length, "worker/src/plan.rs", &"\n".repeat(451), true);
    check(
        length,
        "worker/src/plan.rs",
        &format!("{}#[cfg(test)]\nmod tests {{{}}}", "\n".repeat(400), "\n".repeat(99)),
        false,
    );
}

fn ignored(source: &Source) -> Vec<String> {
    let lines = source.code.lines().enumerate();
    let is_ignored = |line: &str| line.contains("#[ignore") || line.contains("cfg_attr") && has_word(line, "ignore");
    lines.filter(|(_, line)| is_ignored(line)).map(|(index, line)| source.at(index + 1, line)).collect()
}

#[test]
fn every_test_runs() {
    keep(ignored, "A test that does not run proves nothing: mend it or remove it.");
    check(ignored, "tests/crash.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}", true);
    check(ignored, "tests/crash.rs", "#[cfg_attr(not(docker), ignore)]", true);
    check(ignored, "tests/crash.rs", "#[test]\nfn ignored() {}", false);
}

fn sleeps(source: &Source) -> Vec<String> {
    let found = source.test_lines().filter(|(_, line)| has_word(line, "sleep("));
    found.map(|(number, line)| source.at(number, line)).collect()
}

#[test]
fn tests_wait_for_conditions() {
    keep(sleeps, "A test waits for the condition, with a bound: tokio::time::timeout around an interval that looks.");
    check(sleeps, "tests/crash.rs", "tokio::time::sleep(SECOND).await;", true);
    check(sleeps, "worker/src/plan.rs", "#[cfg(test)]\nmod tests { fn a() { std::thread::sleep(SECOND) } }", true);
    check(sleeps, "worker/src/plan.rs", "tokio::time::sleep(SECOND).await;", false);
    check(sleeps, "tests/crash.rs", "app.slow_sleep(); oversleep(1);", false);
}

/// Names of our environment variables in a text.
fn variables(text: &str) -> BTreeSet<String> {
    let names = text.match_indices("TIDEGATE_").map(|(at, _)| {
        text[at..].chars().take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_').collect::<String>()
    });
    names.filter(|name| name.len() > "TIDEGATE_".len() && !name.ends_with('_')).collect()
}

/// Named in shared/aws/src/env.rs, or in the help or a doc comment of what only infra/ reads.
fn documented(sources: &[Source]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in sources {
        let elsewhere = source.is_under(&["infra/"]);
        for line in source.text.lines().map(str::trim_start) {
            let in_help = line.starts_with("///") || line.starts_with("//!") || line.contains("env = \"");
            if source.path == "shared/aws/src/env.rs" || elsewhere && in_help {
                names.extend(variables(line));
            }
        }
    }
    names
}

fn undocumented(source: &Source, documented: &BTreeSet<String>) -> Vec<String> {
    // What tests say to themselves concerns nobody.
    let end = source.tests_begin();
    let shipped = source.literals.iter().filter(|(line, _)| *line < end);
    let named = shipped.flat_map(|(line, text)| variables(text).into_iter().map(move |name| (line, name)));
    named.filter(|(_, name)| !documented.contains(name)).map(|(line, name)| source.at(*line, &name)).collect()
}

#[test]
fn every_environment_variable_is_documented() {
    let known = documented(&source::below(&root()));
    let instead =
        "Document the variable in shared/aws/src/env.rs, or in a doc comment of infra/ if only that reads it.";
    keep(|source| undocumented(source, &known), instead);

    let documents = [
        Source::new("shared/aws/src/env.rs", "pub const TABLE: &str = \"TIDEGATE_TABLE\";"),
        Source::new("infra/local/src/main.rs", "#[arg(long, env = \"TIDEGATE_DATA\")]"),
        Source::new("worker/src/main.rs", "/// `TIDEGATE_SIDE_DOOR` opens it."),
    ];
    let known = documented(&documents);
    check(|s| undocumented(s, &known), "worker/src/main.rs", "var(\"TIDEGATE_SIDE_DOOR\")", true);
    check(|s| undocumented(s, &known), "worker/src/main.rs", "var(\"TIDEGATE_TABLE\"); var(\"TIDEGATE_DATA\")", false);
}

/// What decisions may be made of: text, numbers, keys, errors; no clock, no socket, no file.
const DECISIONS_USE: &[&str] = &[
    "base64",
    "crc32fast",
    "curve25519-dalek",
    "der",
    "idna",
    "ipnet",
    "jiff",
    "pem-rfc7468",
    "pkcs1",
    "psl",
    "regex",
    "serde",
    "serde_json",
    "spki",
    "ssh-encoding",
    "thiserror",
    "url",
    "uuid",
    "zeroize",
];

fn foreign<'a>(dependencies: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    dependencies.into_iter().filter(|name| !DECISIONS_USE.contains(name)).collect()
}

fn packages() -> Vec<Package> {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap().packages
}

fn dependencies(package: &Package) -> impl Iterator<Item = &str> {
    package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal).map(|d| d.name.as_str())
}

#[test]
fn decisions_depend_on_no_io() {
    let packages = packages();
    let domain = packages.iter().find(|package| package.name.as_str() == "tidegate-domain").unwrap();
    let found = foreign(dependencies(domain));
    assert!(found.is_empty(), "shared/domain decides and does nothing: no IO crate there, but it depends on {found:?}");
    assert_eq!(foreign(["serde", "tokio"]), ["tokio"]);
}

fn effects(source: &Source) -> Vec<String> {
    if !source.is_under(&["shared/domain/"]) {
        return Vec::new();
    }
    let words =
        ["std::fs", "std::env", "std::process", "std::thread", "TcpStream", "UdpSocket", "async", "await", "println"];
    let found = source.shipped_lines().filter(|(_, line)| words.iter().any(|word| has_word(line, word)));
    found.map(|(number, line)| source.at(number, line)).collect()
}

#[test]
fn decisions_have_no_effects() {
    keep(effects, "shared/domain decides and does nothing: return what is to be done.");
    check(effects, "shared/domain/src/job.rs", "pub async fn approve() {}", true);
    check(effects, "shared/domain/src/job.rs", "let name = std::env::var(NAME);", true);
    check(effects, "shared/aws/src/store.rs", "pub async fn approve() {}", false);
}

/// Crates with one home, and the packages that may depend on them.
fn strays(package: &str, dependencies: &[&str]) -> Vec<String> {
    let homes = |dependency: &str| -> &[&str] {
        match dependency {
            "bollard" => &["tidegate-worker", "tidegate-local", "tidegate-tests"],
            name if name.starts_with("aws-sdk-") => &["tidegate-aws", "tidegate-local", "tidegate-tests"],
            name if name.starts_with("awsim-") || name == "dynoxide-rs" => &["tidegate-local", "tidegate-tests"],
            _ => &[],
        }
    };
    let has_home = |d: &&&str| !homes(d).is_empty() && !homes(d).contains(&package);
    dependencies.iter().filter(has_home).map(|d| format!("{package} depends on {d}")).collect()
}

#[test]
fn stand_ins_and_sdks_stay_at_home() {
    let found: Vec<_> =
        packages().iter().flat_map(|p| strays(p.name.as_str(), &dependencies(p).collect::<Vec<_>>())).collect();
    assert!(found.is_empty(), "the functions and the worker know AWS through shared/aws alone: {found:?}");
    assert_eq!(strays("tidegate-worker", &["aws-sdk-sqs", "bollard", "awsim-kms"]).len(), 2);
}

#[test]
fn every_package_keeps_the_workspaces_lints() {
    let bare = |manifest: &str| !manifest.replace(' ', "").contains("[lints]\nworkspace=true");
    for package in packages() {
        let manifest = fs::read_to_string(&package.manifest_path).unwrap();
        assert!(!bare(&manifest), "{} needs [lints] workspace = true", package.manifest_path);
    }
    assert!(bare("[package]\nname = \"a\"\n"));
}

const TOP_LEVEL: &[&str] = &[
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "functions",
    "infra",
    "samconfig.toml",
    "shared",
    "tests",
    "worker",
];

fn strangers(names: &[String]) -> Vec<&String> {
    let allowed = |name: &str| name.starts_with('.') || name == "target" || TOP_LEVEL.contains(&name);
    names.iter().filter(|name| !allowed(name)).collect()
}

#[test]
fn the_top_level_is_as_the_layout_says() {
    let names: Vec<_> =
        fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(strangers(&names).is_empty(), "these have no place at the top level: {:?}", strangers(&names));
    for name in TOP_LEVEL {
        assert!(names.iter().any(|found| found == name), "{name} is missing at the top level");
    }
    assert_eq!(strangers(&["docs".to_owned(), ".git".to_owned(), "infra".to_owned()]), ["docs"]);
}
