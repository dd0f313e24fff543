//! `tidegate-worker install`: makes this program a service of systemd.
//!
//! Each step is done only where it is missing, and what it writes appears at once and whole, so it can be run again
//! after an upgrade, or after it was cut off. A configuration that is there is never touched.

mod account;
mod place;

use std::{
    ffi::OsStr,
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use account::{Account, DOCKER_GROUP};
use place::{Owner, Place, State};

use crate::config::{self, DEFAULT_DATA, DEFAULT_PATH};

const UNIT: &str = "/etc/systemd/system/tidegate-worker.service";
const PROGRAM: &str = "/usr/local/bin/tidegate-worker";
/// A unit without this first line is somebody else's.
const MARK: &str =
    "# Written by `tidegate-worker install`, which writes it anew; changes belong into `systemctl edit`.";

/// How it is installed.
#[derive(Debug, clap::Args)]
pub struct Install {
    /// Whom the service runs as; made if there is no such user, and put into the group docker
    #[arg(long, default_value = "tidegate")]
    pub user: String,
    /// Writes below this folder, for a package or an image; then no user is made, and no file given to one
    #[arg(long, default_value = "/")]
    pub root: PathBuf,
    /// Only tells what would be done
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Nothing was changed.
    #[error("nothing was installed:\n  {}", .0.join("\n  "))]
    Refused(Vec<String>),
    /// What was done before stays; run again, it goes on.
    #[error("{what}: {source}; mend it, and run this again")]
    Failed { what: String, source: io::Error },
}

/// What was done, line by line, and what comes next.
#[derive(Debug, Default)]
pub struct Told {
    lines: Vec<String>,
}

impl Told {
    fn step(&mut self, subject: impl fmt::Display, state: State) {
        let state = state.to_string();
        self.lines.push(format!("{state:18} {subject}"));
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// `config`: where the configuration is, if not at its usual place.
///
/// # Errors
/// All reasons not to begin, at once; or the first step that failed.
pub fn install(options: &Install, config: Option<&Path>) -> Result<Told, InstallError> {
    let place = Place { root: options.root.clone(), dry_run: options.dry_run };
    let config = config.unwrap_or(Path::new(DEFAULT_PATH));
    let program = program(&place);
    let refusals = refusals(options, &place, config);
    if !refusals.is_empty() {
        return Err(InstallError::Refused(refusals));
    }
    let mut told = Told::default();
    let account = if place.is_this_machine() {
        let (account, state) = Account::ensure(&options.user, options.dry_run)?;
        told.step(format_args!("user {}, in the group {DOCKER_GROUP}", options.user), state);
        account
    } else {
        None
    };
    let (root_and_group, own) = match account {
        Some(account) => (Owner::Is { uid: 0, gid: account.gid }, Owner::Is { uid: account.uid, gid: account.gid }),
        None => (Owner::AsIs, Owner::AsIs),
    };
    if let Some(source) = &program.copy_of {
        let bytes = fs::read(source).map_err(failed("this program cannot be read"))?;
        told.step(PROGRAM, place.put(Path::new(PROGRAM), &bytes, 0o755, Owner::AsIs)?);
    }
    let folder = config.parent().unwrap_or(Path::new("/"));
    told.step(folder.display(), place.folder(folder, 0o750, root_and_group)?);
    told.step(config.display(), place.put_new(config, config::template().as_bytes(), 0o640, root_and_group)?);
    let data = data_of(&place.below(config));
    told.step(data.display(), place.folder(&data, 0o700, own)?);
    let unit = unit(&options.user, &program.path, config, &data);
    told.step(UNIT, place.put(Path::new(UNIT), unit.as_bytes(), 0o644, Owner::AsIs)?);
    told.lines.push(next(options, &place, config, &unit));
    Ok(told)
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> InstallError {
    let what = what.into();
    move |source| InstallError::Failed { what, source }
}

/// What has to be otherwise before anything is changed.
fn refusals(options: &Install, place: &Place, config: &Path) -> Vec<String> {
    let mut refusals = Vec::new();
    if !is_user_name(&options.user) {
        refusals.push("--user: write 1 to 32 lower-case letters, digits, `-` and `_`, a letter first".to_owned());
    }
    // systemd splits a command at spaces, and reads some signs.
    let plain = |path: &Path| {
        let sign = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        path.is_absolute() && path.to_str().is_some_and(|text| text.chars().all(sign))
    };
    if !plain(config) {
        refusals.push("--config: name it from / on, in letters, digits, `.`, `_` and `-`".to_owned());
    }
    let data = data_of(&place.below(config));
    if !plain(&data) {
        refusals
            .push(format!("data in {}: write it from / on, in letters, digits, `.`, `_` and `-`", config.display()));
    }
    if fs::read_to_string(place.below(Path::new(UNIT))).is_ok_and(|unit| !unit.starts_with(MARK)) {
        refusals.push(format!("{UNIT} is not of this command's making: move it away"));
    }
    if !place.root.is_dir() {
        refusals.push(format!("--root: {} is no folder", place.root.display()));
    }
    if place.is_this_machine() {
        if !options.dry_run && fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0) {
            refusals.push("only root may: run it with sudo, or with --dry-run".to_owned());
        }
        if !account::has_docker_group() {
            refusals.push(format!("there is no group {DOCKER_GROUP}: install Docker first"));
        }
    }
    refusals
}

fn is_user_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 32
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
}

/// What the service starts.
struct Program {
    path: PathBuf,
    /// To be copied to that path first.
    copy_of: Option<PathBuf>,
}

/// This program where it is, if that is a place for programs; else a copy of it.
fn program(place: &Place) -> Program {
    let own = std::env::current_exe().ok();
    match own {
        Some(own) if place.is_this_machine() && (own.starts_with("/usr") || own.starts_with("/opt")) => {
            Program { path: own, copy_of: None }
        }
        copy_of => Program { path: PathBuf::from(PROGRAM), copy_of },
    }
}

/// As the file says, if there is one: the service may write nowhere else.
fn data_of(config: &Path) -> PathBuf {
    let text = fs::read_to_string(config).unwrap_or_default();
    let table = text.parse::<toml::Table>().unwrap_or_default();
    table.get("data").and_then(toml::Value::as_str).map_or_else(|| PathBuf::from(DEFAULT_DATA), PathBuf::from)
}

/// Of systemd 247 (Debian 11) and later.
fn unit(user: &str, program: &Path, config: &Path, data: &Path) -> String {
    let writable = match data.strip_prefix("/var/lib") {
        Ok(name) if name.components().count() == 1 => {
            format!("StateDirectory={}\nStateDirectoryMode=0700", name.display())
        }
        Ok(_) | Err(_) => format!("ReadWritePaths={}", data.display()),
    };
    let (program, config) = (program.display(), config.display());
    format!(
        "{MARK}
[Unit]
Description=Tidegate's worker, which runs this host's containers as the control plane orders
Wants=network-online.target
After=network-online.target docker.service
# It is tried again for ever: an application that a crash has left stopped waits for it.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={program} --config {config}
# Variables, where they go over the file.
EnvironmentFile=-{environment}
User={user}
Restart=always
RestartSec=2
# What a crash has left is brought back before it is ready.
TimeoutStartSec=180
# Longer than the longest shutdown_seconds and a recovery.
TimeoutStopSec=420
# Its loop says that it turns at least every 20 seconds, and waits for nothing longer than 90.
WatchdogSec=180
{writable}
UMask=0077
OOMScoreAdjust=-500
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
# Homes and /tmp stay visible: whether a bind mount leads out of an allowed directory is seen only by looking.
ProtectHome=read-only
DevicePolicy=closed
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
",
        environment = Path::new(DEFAULT_PATH).with_file_name("worker.env").display(),
    )
}

fn next(options: &Install, place: &Place, config: &Path, unit: &str) -> String {
    let (user, config_shown) = (&options.user, config.display());
    let with_config =
        if config == OsStr::new(DEFAULT_PATH) { String::new() } else { format!(" --config {config_shown}") };
    let commands = format!(
        "  edit {config_shown}   (the output WorkerConfiguration of infra/host.yaml has what it needs)\n  \
           sudo -u {user} tidegate-worker check{with_config}\n  \
           systemctl daemon-reload\n  \
           systemctl enable tidegate-worker\n  \
           systemctl restart tidegate-worker"
    );
    if options.dry_run {
        return format!("\n{UNIT}:\n\n{unit}\nNothing was changed. After it, without --dry-run:\n{commands}");
    }
    if place.is_this_machine() {
        return format!("\nNext:\n{commands}");
    }
    let account = account::useradd(user).join(" ");
    format!("\nNext, on the machine itself:\n  {account}\n  chgrp {user} {config_shown}\n{commands}")
}

#[cfg(test)]
mod tests;
