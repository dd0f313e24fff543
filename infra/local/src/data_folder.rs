//! The folder that outlives the process, and files in it that survive a crash.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Why a folder cannot hold the data.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("cannot use {} as data folder; choose another with --data or TIDEGATE_DATA", path.display())]
    Unusable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another process uses the data folder {}; stop it, or choose another with --data", path.display())]
    InUse { path: PathBuf },
    #[error(
        "{} is open to other users and holds files that are not ours; choose an empty folder with --data, or `chmod 700` it",
        path.display()
    )]
    NotOurs { path: PathBuf },
}

/// An own folder, mode 0700, held by this process alone until it is dropped.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// The kernel releases the lock with the last handle, so a killed process never leaves one behind.
    _lock: File,
}

const LOCK: &str = "lock";

impl DataFolder {
    /// Creates the folder if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        close_to_others(path).map_err(unusable)?.then_some(()).ok_or(FolderError::NotOurs { path: path.to_owned() })?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> DurableFile {
        DurableFile { path: self.path.join(name) }
    }
}

/// Whether only the owner can enter, after the attempt to make it so. Never touches a folder that others made for
/// something else: `--data /tmp` must not lock everybody out of it.
fn close_to_others(path: &Path) -> io::Result<bool> {
    if fs::metadata(path)?.permissions().mode().trailing_zeros() >= 6 {
        return Ok(true);
    }
    let ours = path.join(LOCK).exists() || fs::read_dir(path)?.next().is_none();
    if ours {
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(ours)
}

/// A file that always holds one complete content, the old or the new, whenever the machine stops. Mode 0600.
#[derive(Debug, Clone)]
pub(crate) struct DurableFile {
    path: PathBuf,
}

impl DurableFile {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The content, if the file is there.
    pub(crate) fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(&self.path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gone from the disk once this returns; it may have been gone before.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        File::open(self.path.parent().expect("a path made by joining has a parent"))?.sync_all()
    }

    /// On the disk, not only on its way, once this returns. A crash before the rename leaves a `.new` file, which the
    /// next write replaces.
    pub(crate) fn write(&self, content: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        File::open(self.path.parent().expect("a path made by joining has a parent"))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_can_read() {
        let parent = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&parent.path().join("a/b")).unwrap();
        let file = folder.file("key");
        file.write(b"1").unwrap();
        file.write(b"2").unwrap();
        assert_eq!(file.read().unwrap().unwrap(), b"2");
        assert_eq!((mode(folder.path()), mode(file.path())), (0o700, 0o600));
        assert_eq!(folder.file("other").read().unwrap(), None);
    }

    #[test]
    fn two_never_share_a_folder() {
        let parent = tempfile::tempdir().unwrap();
        let first = DataFolder::open(parent.path()).unwrap();
        let error = DataFolder::open(parent.path()).unwrap_err();
        assert!(matches!(error, FolderError::InUse { .. }), "{error}");
        drop(first);
        DataFolder::open(parent.path()).unwrap();
    }

    #[test]
    fn a_folder_of_others_is_left_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(parent.path().join("theirs"), "").unwrap();
        let error = DataFolder::open(parent.path()).unwrap_err();
        assert!(matches!(error, FolderError::NotOurs { .. }), "{error}");
        assert_eq!(mode(parent.path()), 0o755);
        fs::remove_file(parent.path().join("theirs")).unwrap();
        DataFolder::open(parent.path()).unwrap();
        assert_eq!(mode(parent.path()), 0o700);
    }

    #[test]
    fn a_path_that_cannot_be_a_folder_is_told() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DataFolder::open(&file.join("data")).unwrap_err();
        assert!(error.to_string().contains("--data") && !error.to_string().contains('\n'), "{error}");
    }
}
