use std::{os::unix::fs::PermissionsExt as _, process::Command};

use tempfile::TempDir;

use super::*;

fn options(root: &TempDir) -> Install {
    Install { user: "tidegate".to_owned(), root: root.path().to_owned(), dry_run: false }
}

fn below(root: &TempDir, path: &str) -> PathBuf {
    root.path().join(path.trim_start_matches('/'))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn refused(options: &Install, config: Option<&Path>) -> Vec<String> {
    match install(options, config) {
        Err(InstallError::Refused(reasons)) => reasons,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_of_it_is_put_below_the_root_once() {
    let root = tempfile::tempdir().unwrap();
    let told = install(&options(&root), None).unwrap().to_string();
    assert_eq!(told.matches("written").count(), 5, "{told}");
    assert!(told.contains("useradd --system") && told.contains("systemctl enable tidegate-worker"), "{told}");
    assert_eq!(fs::read_to_string(below(&root, DEFAULT_PATH)).unwrap(), config::template());
    for (path, expected) in [(DEFAULT_PATH, 0o640), (UNIT, 0o644), (PROGRAM, 0o755), (DEFAULT_DATA, 0o700)] {
        assert_eq!(mode(&below(&root, path)), expected, "{path}");
    }
    assert_eq!(fs::read(below(&root, PROGRAM)).unwrap(), fs::read(std::env::current_exe().unwrap()).unwrap());

    let again = install(&options(&root), None).unwrap().to_string();
    assert_eq!((again.matches("left as it is").count(), again.matches("written").count()), (5, 0), "{again}");
}

#[test]
fn a_changed_configuration_stays_and_a_changed_unit_does_not() {
    let root = tempfile::tempdir().unwrap();
    install(&options(&root), None).unwrap();
    fs::write(below(&root, DEFAULT_PATH), "data = \"/srv/worker\"\n").unwrap();
    fs::write(below(&root, UNIT), format!("{MARK}\n[Unit]\n")).unwrap();
    // As a run that was cut off leaves it.
    fs::write(below(&root, &format!("{UNIT}.tidegate-new")), "half").unwrap();
    install(&options(&root), None).unwrap();
    assert_eq!(fs::read_to_string(below(&root, DEFAULT_PATH)).unwrap(), "data = \"/srv/worker\"\n");
    let unit = fs::read_to_string(below(&root, UNIT)).unwrap();
    assert!(unit.contains("\nReadWritePaths=/srv/worker\n") && !unit.contains("StateDirectory"), "{unit}");
    assert_eq!(mode(&below(&root, "/srv/worker")), 0o700);
    assert!(!below(&root, &format!("{UNIT}.tidegate-new")).exists());
}

#[test]
fn a_dry_run_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let told = install(&Install { dry_run: true, ..options(&root) }, None).unwrap().to_string();
    assert_eq!(told.matches("would be written").count(), 5, "{told}");
    assert!(told.contains("ProtectSystem=strict"), "{told}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn what_speaks_against_it_is_told_at_once_and_nothing_is_changed() {
    let root = tempfile::tempdir().unwrap();
    let unit = below(&root, UNIT);
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    fs::write(&unit, "[Unit]\n").unwrap();
    let reasons = refused(&Install { user: "-x".to_owned(), ..options(&root) }, Some(Path::new("worker toml")));
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert_eq!(fs::read_to_string(unit).unwrap(), "[Unit]\n");
    assert!(!below(&root, PROGRAM).exists());
}

#[test]
fn systemd_reads_the_unit() {
    let analyze = |arguments: &[&OsStr]| Command::new("systemd-analyze").args(arguments).output();
    if analyze(&[OsStr::new("--version")]).is_err() {
        println!("systemd-analyze is not installed here: only the unit's text is tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidegate-worker.service");
    // It wants the program to be there.
    let program = std::env::current_exe().unwrap();
    let text = unit("tidegate", &program, Path::new(DEFAULT_PATH), Path::new(DEFAULT_DATA));
    let verify = |text: &str| {
        fs::write(&path, text).unwrap();
        let output = analyze(&[OsStr::new("verify"), OsStr::new("--man=no"), path.as_os_str()]).unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        // Other units of the machine are told of as well.
        told.lines().filter(|line| line.contains("tidegate-worker.service")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(verify(&text), Vec::<String>::new());
    assert!(!verify(&text.replace("WatchdogSec=180", "WatchdogSeconds=180")).is_empty());
}
