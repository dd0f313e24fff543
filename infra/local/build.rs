//! Compiles the demo application, so that images can be made of it without any registry to fetch from.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=demo/app.rs");
    let variable = |name: &str| env::var_os(name).expect("cargo sets it for build scripts");
    let status = Command::new(variable("RUSTC"))
        .args(["--edition=2024", "--crate-name=app", "--target"])
        .arg(variable("TARGET"))
        .args(["-C", "target-feature=+crt-static", "-C", "opt-level=s", "-C", "strip=symbols", "-C", "panic=abort"])
        .arg("-o")
        .arg(Path::new(&variable("OUT_DIR")).join("demo-app"))
        .arg("demo/app.rs")
        .status()
        .expect("rustc runs, or cargo would not");
    assert!(status.success(), "the demo application does not compile: {status}");
}
