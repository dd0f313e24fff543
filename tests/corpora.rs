//! Our verdicts beside other people's test vectors, which come with the sources of the crates we build on. Where we differ,
//! one of a few stated reasons must hold; a difference without one fails.

mod keys;
mod names;
mod urls;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::LazyLock,
};

use cargo_metadata::{Metadata, MetadataCommand};
use tidegate_domain::{
    parameter::{Parameter, ParameterType, Verdict},
    variable::VariableKey,
};

use crate::house;

/// As Rust names it: `x86_64-unknown-linux-gnu`.
fn host_platform() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = std::process::Command::new(rustc).arg("-vV").output().expect("what runs these tests has a compiler");
    let told = String::from_utf8(told.stdout).expect("its description is a text");
    told.lines().find_map(|line| line.strip_prefix("host: ")).expect("it names its host").to_owned()
}

/// The folders of a crate's sources, one for each version that is built.
fn sources(package: &str) -> Vec<PathBuf> {
    static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
        let mut command = MetadataCommand::new();
        // Of this platform alone: what is only for others was never brought here.
        let options = ["--offline", "--locked", "--filter-platform", &host_platform()].map(str::to_owned);
        command.manifest_path(house::root().join("Cargo.toml")).other_options(options);
        command.exec().unwrap_or_else(|error| panic!("`cargo fetch` brings the sources: {error}"))
    });
    let found = METADATA.packages.iter().filter(|found| found.name.as_str() == package);
    let folders: Vec<PathBuf> = found.map(|found| found.manifest_path.parent().unwrap().to_owned().into()).collect();
    assert!(!folders.is_empty(), "{package} is no dependency any more: take its vectors from another crate");
    folders
}

/// A file of vectors.
fn read(package: &str, path: &str) -> String {
    let folder = sources(package).pop().unwrap();
    let path = folder.join(path);
    let instead = "`cargo fetch` brings the sources; a newer release of the crate may have its vectors elsewhere";
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}: {instead}", path.display()))
}

fn verdict(value_type: ParameterType, text: &str) -> Result<Verdict, &'static str> {
    let parameter = Parameter::new(VariableKey::parse("A").unwrap(), value_type);
    parameter.check(text).map_err(|failed| failed[0].code)
}

/// What a corpus came to.
struct Tally {
    corpus: &'static str,
    agreed: usize,
    differing: BTreeMap<&'static str, usize>,
    unexplained: Vec<String>,
}

impl Tally {
    fn of(corpus: &'static str) -> Self {
        Self { corpus, agreed: 0, differing: BTreeMap::new(), unexplained: Vec::new() }
    }

    /// One vector: whether the corpus takes it, whether we do, and why we may differ.
    fn count(&mut self, vector: &str, theirs: bool, ours: bool, reason: impl FnOnce() -> Option<&'static str>) {
        if theirs == ours {
            self.agreed += 1;
            return;
        }
        match reason() {
            Some(reason) => *self.differing.entry(reason).or_default() += 1,
            None => self.unexplained.push(format!("{vector:?}: theirs {theirs}, ours {ours}")),
        }
    }

    /// Prints the figures, and fails for a difference without a reason, or a corpus that has become small.
    #[track_caller]
    fn close(self, at_least: usize) {
        let Self { corpus, agreed, differing, unexplained } = self;
        let count = agreed + differing.values().sum::<usize>() + unexplained.len();
        println!(
            "figure: corpora: {corpus}: {count} vectors, {agreed} judged alike, {} unexplained",
            unexplained.len()
        );
        for (reason, count) in &differing {
            println!("figure: corpora: {corpus}: {count} judged otherwise: {reason}");
        }
        let shown: Vec<_> = unexplained.iter().take(40).map(String::as_str).collect();
        assert!(unexplained.is_empty(), "{} without a reason:\n{}", unexplained.len(), shown.join("\n"));
        assert!(count >= at_least, "{corpus} has only {count} vectors left");
    }
}

/// The rules of the Public Suffix List, in lower-case ASCII.
struct Suffixes(BTreeSet<String>);

impl Suffixes {
    fn read() -> Self {
        let rules = read("psl", "data/rules.txt");
        let rules: BTreeSet<_> = rules.lines().map(ascii).collect();
        assert!(rules.len() > 5_000, "the list has only {} rules", rules.len());
        Self(rules)
    }

    fn has(&self, rule: &str) -> bool {
        self.0.contains(&ascii(rule))
    }
}

/// Without a check of anything: a rule or a name as the DNS has it.
fn ascii(name: &str) -> String {
    let (mark, name) = name.strip_prefix('!').map_or(("", name), |name| ("!", name));
    let (wildcard, name) = name.strip_prefix("*.").map_or(("", name), |name| ("*.", name));
    let ascii = ::url::Host::parse(name).map_or_else(|_| name.to_lowercase(), |host| host.to_string());
    format!("{mark}{wildcard}{ascii}")
}

/// Why a name that could be one by its letters is none for us.
fn not_public(name: &str, suffixes: &Suffixes) -> Option<&'static str> {
    const SPECIAL: [&str; 7] = ["localhost", "local", "internal", "test", "example", "invalid", "onion"];
    let name = name.strip_suffix('.').unwrap_or(name);
    let (_, last) = name.rsplit_once('.').unwrap_or(("", name));
    match name {
        _ if !name.contains('.') => Some("there is only one label"),
        _ if SPECIAL.contains(&last) => Some("the end of the name is set aside"),
        _ if !suffixes.has(last) && !suffixes.has(&format!("*.{last}")) => Some("there is no such public suffix"),
        _ => None,
    }
}
