//! The worker as it is handed on: a static binary, and an image of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use crate::command::{cargo, command, exit_code, shown, workspace};

/// Where systems keep the certificates of the authorities that they trust.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const SOCKET: &str = "/var/run/docker.sock";
/// `PT_INTERP`.
const INTERPRETER: usize = 3;

/// A binary that needs nothing of its host but a kernel. It takes some minutes.
///
/// The GNU target linked statically: since 2.34 glibc has what looks up names in itself, and no other C compiler is needed,
/// as it would be for musl.
pub(crate) fn binary(target: Option<String>) -> Option<PathBuf> {
    let target = target.or_else(own_target)?;
    // Named even where it is this machine's: else it would be said of build scripts and macros as well.
    let mut build = cargo(&["build", "--release", "--package", "tidegate-worker", "--target", &target]);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    if exit_code(&mut build) != 0 {
        eprintln!("{} has failed", shown(&build));
        return None;
    }
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let binary = workspace().join(folder).join(target).join("release/tidegate-worker");
    match fs::read(&binary) {
        Ok(bytes) if needs_a_loader(&bytes) => {
            eprintln!("{} is not static", binary.display());
            None
        }
        Ok(bytes) => {
            println!("{} ({} kB)", binary.display(), bytes.len() / 1000);
            Some(binary)
        }
        Err(error) => {
            eprintln!("{}: {error}", binary.display());
            None
        }
    }
}

/// `x86_64-unknown-linux-gnu`, say.
fn own_target() -> Option<String> {
    let said = command("rustc", ["-vV"]).output().ok()?.stdout;
    let said = String::from_utf8(said).ok()?;
    Some(said.lines().find_map(|line| line.strip_prefix("host: "))?.to_owned())
}

/// Whether it is a 64-bit ELF file with a segment that names an interpreter (`elf(5)`, `PT_INTERP`).
fn needs_a_loader(elf: &[u8]) -> bool {
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else { return true };
    !elf.starts_with(b"\x7fELF") || (0..count).any(|index| number(table + index * size, 4) == Some(INTERPRETER))
}

/// An image of that binary by this name. Seen to run, with what Docker it finds.
pub(crate) fn image(tag: &str) -> bool {
    let Some(binary) = binary(None) else { return false };
    match context(&binary) {
        Ok(folder) => {
            let mut build = command("docker", ["build", "--tag", tag]);
            build.arg(folder.path());
            exit_code(&mut build) == 0 && runs(tag)
        }
        Err(error) => {
            eprintln!("{error}");
            false
        }
    }
}

/// All that the recipe copies, and nothing more.
fn context(binary: &Path) -> io::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let authorities = AUTHORITIES.iter().find(|path| Path::new(path).exists()).ok_or_else(|| {
        io::Error::other(
            "this machine has no CA certificates: install ca-certificates, so that the image can have them",
        )
    })?;
    fs::copy(authorities, folder.path().join("ca-certificates.crt"))?;
    fs::copy(binary, folder.path().join("tidegate-worker"))?;
    fs::copy(workspace().join("worker/Dockerfile"), folder.path().join("Dockerfile"))?;
    fs::create_dir(folder.path().join("data"))?;
    Ok(folder)
}

/// It starts, reaches Docker through a mounted socket, may write its folder, and says what its host still lacks.
fn runs(tag: &str) -> bool {
    let version = run(&mut command("docker", ["run", "--rm", tag, "--version"]));
    let version =
        version.is_some_and(|output| output.status.success() && said(&output).starts_with("tidegate-worker "));
    expect(version, "it tells its version");

    let mut check = command("docker", ["run", "--rm", "--volume"]);
    check.arg(format!("{SOCKET}:{SOCKET}"));
    if let Some(group) = socket_group() {
        check.args(["--group-add", &group.to_string()]);
    }
    for (key, value) in [
        ("TENANT", "default"),
        ("HOST", "web-1"),
        ("TABLE", "none"),
        ("QUEUE_URL", "http://127.0.0.1:9/none"),
        ("REPORTS_QUEUE_URL", "http://127.0.0.1:9/none"),
    ] {
        check.args(["--env", &format!("TIDEGATE_WORKER_{key}={value}")]);
    }
    // A port that nobody listens on: it is to fail, and soon.
    for (name, value) in [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "none"),
        ("AWS_SECRET_ACCESS_KEY", "none"),
    ] {
        check.args(["--env", &format!("{name}={value}")]);
    }
    check.args([tag, "check"]);
    let told = run(&mut check).map(|output| said(&output)).unwrap_or_default();
    print!("{told}");
    let has =
        |verdict: &str, subject: &str| told.lines().any(|line| line.split_whitespace().take(2).eq([verdict, subject]));
    let (docker, folder, table) = (has("fine", "docker"), has("fine", "folder"), has("WRONG", "table"));
    expect(docker, "it reaches Docker");
    expect(folder, "it may write its folder");
    expect(table, "it tells that AWS is not there");
    version && docker && folder && table
}

fn run(command: &mut Command) -> Option<Output> {
    let output = command.output();
    if let Err(error) = &output {
        eprintln!("{} cannot be started: {error}", shown(command));
    }
    output.ok()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn socket_group() -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(SOCKET).ok().map(|socket| socket.gid())
}

fn expect(holds: bool, what: &str) {
    println!("{} {what}", if holds { "ok    " } else { "FAILED" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_with_an_interpreter_is_told_from_one_without() {
        // This test's own binary is linked as usual.
        assert!(needs_a_loader(&fs::read(std::env::current_exe().unwrap()).unwrap()));
        let mut elf = vec![0; 64 + 2 * 56];
        elf[..4].copy_from_slice(b"\x7fELF");
        (elf[32], elf[54], elf[56]) = (64, 56, 2);
        (elf[64], elf[64 + 56]) = (1, 2);
        assert!(!needs_a_loader(&elf));
        elf[64 + 56] = 3;
        assert!(needs_a_loader(&elf));
        assert!(needs_a_loader(b"#!/bin/sh"));
    }
}
