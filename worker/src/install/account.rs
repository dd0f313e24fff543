//! The user that the service runs as.
//!
//! Read from the files themselves: a static binary knows no other directories of users. Where one has the user,
//! `useradd` says so.

use std::{fs, io, process::Command};

use super::{InstallError, failed, place::State};
use crate::config::DEFAULT_DATA;

/// Whoever is in it may use Docker's socket.
pub(super) const DOCKER_GROUP: &str = "docker";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// Makes the user, or puts one that is there into Docker's group. None if it is only told what would be done.
    pub(super) fn ensure(name: &str, dry_run: bool) -> Result<(Option<Self>, State), InstallError> {
        let read = |path| fs::read_to_string(path).map_err(failed(format!("{path} cannot be read")));
        let found = account(&read("/etc/passwd")?, name);
        let command = match found {
            None => useradd(name),
            Some(account) if is_member(&read("/etc/group")?, name, account.gid) => {
                return Ok((Some(account), State::AsItWas));
            }
            Some(_) => ["usermod", "--append", "--groups", DOCKER_GROUP, name].map(str::to_owned).to_vec(),
        };
        if dry_run {
            return Ok((found, State::WouldChange));
        }
        let shown = command.join(" ");
        let status = Command::new(&command[0]).args(&command[1..]).status().map_err(failed(&shown))?;
        if !status.success() {
            return Err(failed(shown)(io::Error::other(status.to_string())));
        }
        let made =
            account(&read("/etc/passwd")?, name).ok_or_else(|| io::Error::other("there is no such user after it"));
        Ok((Some(made.map_err(failed(shown))?), State::Changed))
    }
}

/// With a home, for `~/.aws/config`.
pub(super) fn useradd(name: &str) -> Vec<String> {
    let words = ["useradd", "--system", "--user-group", "--groups", DOCKER_GROUP];
    let home = ["--home-dir", DEFAULT_DATA, "--no-create-home", "--shell", "/usr/sbin/nologin", name];
    words.into_iter().chain(home).map(str::to_owned).collect()
}

pub(super) fn has_docker_group() -> bool {
    fs::read_to_string("/etc/group").is_ok_and(|groups| group(&groups).is_some())
}

/// In lines like `tidegate:x:998:998:…` (`passwd(5)`).
fn account(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (found, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (found == name).then_some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    })
}

/// Number and members of Docker's group, in lines like `docker:x:999:ada,tidegate` (`group(5)`).
fn group(groups: &str) -> Option<(u32, Vec<&str>)> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (found, _, gid, members) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (found == DOCKER_GROUP).then_some((gid.parse().ok()?, members.split(',').collect()))
    })
}

fn is_member(groups: &str, name: &str, own: u32) -> bool {
    group(groups).is_some_and(|(gid, members)| gid == own || members.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_read() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\ntidegate2:x:1:1::/:/bin/sh\ntidegate:x:998:997::/var/lib/t:/bin/sh\n";
        assert_eq!(account(passwd, "tidegate"), Some(Account { uid: 998, gid: 997 }));
        assert_eq!(account(passwd, "ada"), None);
        let groups = "dockers:x:5:tidegate\ndocker:x:999:ada,bob\n";
        assert!(is_member(groups, "bob", 1) && is_member(groups, "eve", 999));
        assert!(!is_member(groups, "tidegate", 1));
        assert!(!is_member("dockers:x:5:tidegate\n", "tidegate", 5));
    }
}
