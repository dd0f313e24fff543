//! Commands in the workspace's folder.

use std::{
    ffi::OsStr,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Folder of the workspace, wherever the command was called.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this package is two folders below the workspace")
        .to_owned()
}

/// `program` with `arguments`, in the workspace's folder.
pub(crate) fn command<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace());
    command
}

/// The cargo that runs this task, with `arguments`.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    command(&cargo, arguments)
}

/// How the command reads for a person who wants to run it alone.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program.into_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Whether the program is there at all.
pub(crate) fn exists(program: &str, arguments: &[&str]) -> bool {
    command(program, arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Exit code of the command; 127, as a shell would say, if it cannot be started.
pub(crate) fn exit_code(command: &mut Command) -> u8 {
    match command.status() {
        // A command that a signal ended has no code.
        Ok(status) => status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("{} cannot be started: {error}", shown(command));
            127
        }
    }
}

/// As [`exit_code`], and every line that the command wrote to its output, which is shown as it comes.
pub(crate) fn exit_code_and_lines(command: &mut Command) -> (u8, Vec<String>) {
    let mut child = match command.stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("{} cannot be started: {error}", shown(command));
            return (127, Vec::new());
        }
    };
    let output = child.stdout.take().expect("the output is piped");
    let mut lines = Vec::new();
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        // A closed terminal is no reason to fail the command.
        let _ = writeln!(io::stdout(), "{line}");
        lines.push(line);
    }
    let code = child.wait().ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    (code.unwrap_or(1), lines)
}
