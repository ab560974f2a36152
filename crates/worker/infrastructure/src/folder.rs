//! The worker's folder: locked for the worker's life, with a private folder per attempt below it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// The worker's folder. The lock goes with the last process that holds this open file.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes and locks the folder at `path`, and empties what an earlier worker left.
    ///
    /// # Errors
    /// [`io::Error`] if it can not be made, or another worker holds it.
    pub fn lock(path: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let path = fs::canonicalize(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let folder = Self { path, _lock: lock };
        folder.clear();
        fs::DirBuilder::new().mode(0o700).create(folder.attempts())?;
        Ok(folder)
    }

    /// Where the attempts' folders are.
    pub fn attempts(&self) -> PathBuf {
        self.path.join("attempts")
    }

    /// Where spools overflow to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes all that attempts have left; best effort.
    pub fn clear(&self) {
        remove_tree(&self.attempts());
    }
}

/// Removes `path` and all below it, also folders that were made unreadable; best effort.
pub fn remove_tree(path: &Path) {
    if fs::remove_dir_all(path).is_ok() {
        return;
    }
    open_up(path);
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "folder not removed");
    }
}

fn open_up(path: &Path) {
    // What fails here shows when the folder is removed.
    let _denied = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
