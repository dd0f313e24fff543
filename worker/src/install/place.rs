//! Files and folders below a root, each put there whole or not at all.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use super::{InstallError, failed};

/// What became of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Changed,
    AsItWas,
    WouldChange,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "written",
            Self::AsItWas => "left as it is",
            Self::WouldChange => "would be written",
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Is {
        uid: u32,
        gid: u32,
    },
    /// Whoever runs this.
    AsIs,
}

impl Owner {
    fn give(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Is { uid, gid } => chown(path, Some(uid), Some(gid)),
            Self::AsIs => Ok(()),
        }
    }
}

pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) dry_run: bool,
}

impl Place {
    pub(super) fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the machine to be is now.
    pub(super) fn below(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A folder that is there keeps its mode and owner: somebody may have meant them.
    pub(super) fn folder(&self, path: &Path, mode: u32, owner: Owner) -> Result<State, InstallError> {
        let path = self.below(path);
        if path.is_dir() {
            return Ok(State::AsItWas);
        }
        if self.dry_run {
            return Ok(State::WouldChange);
        }
        let make = || {
            self.above(&path)?;
            // Under another name until it has its owner, so that a crash leaves no folder that nobody can use.
            let new = beside(&path);
            if new.is_dir() {
                fs::remove_dir(&new)?;
            }
            DirBuilder::new().mode(mode).create(&new)?;
            owner.give(&new)?;
            fs::rename(&new, &path)
        };
        make().map_err(failed(path.display().to_string()))?;
        Ok(State::Changed)
    }

    /// In place of what is there.
    pub(super) fn put(&self, path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> Result<State, InstallError> {
        let path = self.below(path);
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(State::AsItWas);
        }
        if self.dry_run {
            return Ok(State::WouldChange);
        }
        let put = || {
            self.above(&path)?;
            let new = written(&path, bytes, mode, owner)?;
            fs::rename(&new, &path)?;
            sync_folder(&path)
        };
        put().map_err(failed(path.display().to_string()))?;
        Ok(State::Changed)
    }

    /// Only where nothing is, not even something that came this very moment.
    pub(super) fn put_new(&self, path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> Result<State, InstallError> {
        let path = self.below(path);
        if path.symlink_metadata().is_ok() {
            return Ok(State::AsItWas);
        }
        if self.dry_run {
            return Ok(State::WouldChange);
        }
        let put = || {
            self.above(&path)?;
            let new = written(&path, bytes, mode, owner)?;
            let linked = fs::hard_link(&new, &path);
            fs::remove_file(&new)?;
            match linked {
                Ok(()) => sync_folder(&path).map(|()| State::Changed),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(State::AsItWas),
                Err(error) => Err(error),
            }
        };
        put().map_err(failed(path.display().to_string()))
    }

    /// Folders on the way, as the system has them.
    fn above(&self, path: &Path) -> io::Result<()> {
        let above = path.parent().unwrap_or(&self.root);
        if above.is_dir() { Ok(()) } else { DirBuilder::new().recursive(true).mode(0o755).create(above) }
    }
}

/// A name that only a run of this that was cut off can have left.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tidegate-new");
    path.with_file_name(name)
}

/// On the disk, under another name.
fn written(path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> io::Result<PathBuf> {
    let new = beside(path);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    // Whatever the umask took.
    file.set_permissions(Permissions::from_mode(mode))?;
    owner.give(&new)?;
    file.sync_all()?;
    Ok(new)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}
