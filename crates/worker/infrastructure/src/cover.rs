//! Hides the server's data folder from jobs: an empty, read-only file system lies over it, in which only the worker's
//! own folder and the workers' socket folder are to be seen.
//!
//! Must be called in the worker's own mount namespace, before its privileges go. Jobs can not take it off again:
//! they have no capabilities. Invariant: either all of it is in place or nothing is, or the worker must not work.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};
use thiserror::Error;

/// Why a folder could not be covered.
#[derive(Debug, Error)]
pub enum CoverError {
    /// It is as it was before.
    #[error("the folder could not be covered")]
    Uncovered(#[source] io::Error),
    /// It is covered, and what should be seen in it is not: no job could run.
    #[error("the folder is half covered, and that can not be undone: {undo}")]
    Half {
        /// Why it is not wholly covered.
        #[source]
        reason: io::Error,
        /// Why the cover stays.
        undo: io::Error,
    },
}

/// Covers `folder` but for the folders in `keep` that lie below it.
///
/// # Errors
/// [`CoverError::Uncovered`] if a part could not be mounted and all was undone; [`CoverError::Half`] if it was not.
pub fn cover(folder: &Path, keep: &[PathBuf]) -> Result<(), CoverError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = keep
        .iter()
        .filter(|path| path.starts_with(folder))
        .map(|path| Ok((path.as_path(), open(path, flags, Mode::empty())?)));
    let kept = opened
        .collect::<io::Result<Vec<_>>>()
        .map_err(CoverError::Uncovered)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("hodei", folder, "tmpfs", flags, Some(c"mode=0711,size=64k"))
        .map_err(|error| CoverError::Uncovered(error.into()))?;
    show(folder, &kept, flags).map_err(|reason| {
        // Takes what was shown in it along.
        match unmount(folder, UnmountFlags::DETACH) {
            Ok(()) => CoverError::Uncovered(reason),
            Err(undo) => CoverError::Half {
                reason,
                undo: undo.into(),
            },
        }
    })
}

/// Makes what is `kept` to be seen in the cover, and the cover read-only.
fn show(folder: &Path, kept: &[(&Path, OwnedFd)], flags: MountFlags) -> io::Result<()> {
    for (path, descriptor) in kept {
        fs::create_dir_all(path)?;
        mount_bind(format!("/proc/self/fd/{}", descriptor.as_raw_fd()), *path)?;
    }
    let read_only = MountFlags::BIND | MountFlags::RDONLY | flags;
    Ok(mount_remount(folder, read_only, c"")?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const THIS: &str = "cover::tests::a_cover_is_whole_or_not_there";
    /// Set where the test runs in a mount namespace of its own; nowhere else may it mount anything.
    const INSIDE: &str = "HODEI_TEST_IN_MOUNT_NAMESPACE";

    /// Runs itself again in a mount namespace, where the kernel allows one.
    #[test]
    fn a_cover_is_whole_or_not_there() {
        if std::env::var_os(INSIDE).is_some() {
            return in_a_mount_namespace();
        }
        let unshare = || {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount"]);
            command
        };
        let may = unshare().arg("true").status();
        if !may.is_ok_and(|status| status.success()) {
            return;
        }
        let this = std::env::current_exe().expect("a test has a file");
        let inner = unshare()
            .arg(this)
            .args([THIS, "--exact"])
            .env(INSIDE, "1")
            .output()
            .expect("it starts");
        assert!(inner.status.success(), "{inner:?}");
        assert!(
            String::from_utf8_lossy(&inner.stdout).contains("1 passed"),
            "{inner:?}"
        );
    }

    fn in_a_mount_namespace() {
        let base = tempfile::tempdir().expect("a folder");
        let (secret, worker) = (base.path().join("secret"), base.path().join("run/worker"));
        fs::write(&secret, "s").expect("written");
        fs::create_dir_all(&worker).expect("made");
        fs::write(worker.join("own"), "o").expect("written");
        let keep = [worker.clone()];
        // Without /proc the binding fails when the cover is already there.
        mount("none", "/proc", "tmpfs", MountFlags::empty(), None).expect("mounted");
        let error = cover(base.path(), &keep).expect_err("/proc is missing");
        assert!(matches!(error, CoverError::Uncovered(_)), "{error:?}");
        assert!(secret.exists() && worker.join("own").exists(), "all is as before");
        unmount("/proc", UnmountFlags::DETACH).expect("unmounted");
        cover(base.path(), &keep).expect("covered");
        assert!(!secret.exists() && worker.join("own").exists());
        fs::write(base.path().join("new"), "").expect_err("read-only");
        fs::write(worker.join("new"), "").expect("the worker's folder is not");
        unmount(base.path(), UnmountFlags::DETACH).expect("unmounted");
    }
}
