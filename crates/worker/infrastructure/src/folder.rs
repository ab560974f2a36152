//! The worker's folder: locked for the worker's life, with a private folder per attempt below it.
//!
//! Jobs run as the worker's user. Where the worker has a mount namespace, they can write nowhere in its folder but
//! below `attempts`, and not remove that: so none can take the lock or the other jobs' place away.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::mount::{MountFlags, mount_bind, mount_remount};

/// The worker's folder. The lock goes with the last process that holds this open file.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    open: OwnedFd,
    protected: bool,
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
        let open = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let folder = Self {
            path,
            open,
            protected: false,
            _lock: lock,
        };
        folder.clear();
        fs::DirBuilder::new().mode(0o700).create(folder.attempts())?;
        Ok(folder)
    }

    /// Where the attempts' folders are.
    pub fn attempts(&self) -> PathBuf {
        self.path.join("attempts")
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder itself, where spools overflow to: can be written also when it is protected.
    ///
    /// # Errors
    /// [`io::Error`] if there is no descriptor left.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.open.try_clone()
    }

    /// Makes it read-only for everybody in this mount namespace, but for what is below `attempts`, which can not be
    /// removed then. Only in a mount namespace of the worker's own, after what else is mounted over or below it.
    ///
    /// # Errors
    /// [`io::Error`] if that can not be mounted; the folder can be used as before then.
    pub fn protect(&mut self) -> io::Result<()> {
        let attempts = self.attempts();
        mount_bind(&self.path, &self.path)?;
        mount_bind(&attempts, &attempts)?;
        self.protected = true;
        // A mount of another user namespace keeps its flags, and must be told so.
        let kept = u32::try_from(rustix::fs::statvfs(&self.path)?.f_flag.bits()).unwrap_or(0);
        let kept = MountFlags::from_bits_retain(kept)
            & (MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC);
        let read_only = MountFlags::BIND | MountFlags::RDONLY | kept;
        Ok(mount_remount(&self.path, read_only, c"")?)
    }

    /// Removes all that attempts have left; best effort.
    pub fn clear(&self) {
        let attempts = self.attempts();
        if !self.protected {
            return remove_tree(&attempts);
        }
        for entry in fs::read_dir(attempts).into_iter().flatten().flatten() {
            remove_tree(&entry.path());
        }
    }
}

/// Removes `path`, a file or a folder with all below it, also folders that were made unreadable; best effort.
pub fn remove_tree(path: &Path) {
    if fs::remove_dir_all(path).is_ok() || fs::remove_file(path).is_ok() {
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
