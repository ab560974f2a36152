//! Hides the server's data folder from jobs: an empty, read-only file system lies over it, in which only the worker's
//! own folder and the workers' socket folder are to be seen.
//!
//! Must be called in the worker's own mount namespace, before its privileges go. Jobs can not take it off again:
//! they have no capabilities.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

/// Covers `folder` but for the folders in `keep` that lie below it.
///
/// # Errors
/// [`io::Error`] if a part could not be mounted; what was covered before stays covered.
pub fn cover(folder: &Path, keep: &[PathBuf]) -> io::Result<()> {
    let below = keep.iter().filter(|path| path.starts_with(folder));
    let mut kept: Vec<(&Path, OwnedFd)> = Vec::new();
    for path in below {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        kept.push((path, open(path, flags, Mode::empty())?));
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("hodei", folder, "tmpfs", flags, Some(c"mode=0711,size=64k"))?;
    for (path, descriptor) in kept {
        fs::create_dir_all(path)?;
        mount_bind(format!("/proc/self/fd/{}", descriptor.as_raw_fd()), path)?;
    }
    let read_only = MountFlags::BIND | MountFlags::RDONLY | flags;
    Ok(mount_remount(folder, read_only, c"")?)
}
