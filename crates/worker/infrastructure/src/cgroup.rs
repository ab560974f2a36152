//! A cgroup (version 2) per slot, by which everything that a job started is found and killed.
//!
//! Invariants: no controller is enabled and no limit set; a slot's cgroup is empty before its next job; one that was
//! killed is replaced by a fresh one, because a killed cgroup kills what is cloned into it later; all descriptors are
//! opened relative to the worker's own folder of cgroups. Where cgroups are absent or refused there are none.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::mount::{MountFlags, mount_bind, mount_remount};
use rustix::process::{Pid, Signal, kill_process};

/// The worker's folder of cgroups.
#[derive(Debug)]
pub struct Cgroups {
    path: PathBuf,
    parent: OwnedFd,
    folder: Arc<OwnedFd>,
}

impl Cgroups {
    /// Makes `hodei-<worker>` below the worker's own cgroup; none, and nothing left, if no slot could use it.
    pub fn create(worker: &str) -> Option<Self> {
        Self::create_below(&own_cgroup()?, worker)
    }

    fn create_below(parent: &Path, worker: &str) -> Option<Self> {
        let path = parent.join(format!("hodei-{worker}"));
        let made = fs::create_dir(&path);
        if made.is_err() && !path.is_dir() {
            return None;
        }
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
        let (Ok(parent), Ok(folder)) = (opened(parent), opened(&path)) else {
            remove(&path);
            return None;
        };
        // Its folder goes when it is dropped, so also where a slot's cgroup can not be made or killed.
        let folder = Arc::new(folder);
        let cgroups = Self { path, parent, folder };
        cgroups.slot(0).is_some().then_some(cgroups)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets nobody move out of a slot's cgroup by its path: the hierarchy is mounted over itself, read-only. Only in
    /// a mount namespace of the worker's own. What is reached by descriptors, as all is here, can be written as before.
    ///
    /// # Errors
    /// [`io::Error`] if it can not be mounted.
    pub fn seal(&self) -> io::Result<()> {
        let Some(point) = mount_point() else { return Ok(()) };
        mount_bind(&point, &point)?;
        let flags = MountFlags::BIND
            | MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC;
        Ok(mount_remount(&point, flags, c"")?)
    }

    /// The cgroup of one slot; none if it can not be made.
    pub(crate) fn slot(&self, n: usize) -> Option<SlotCgroup> {
        let name = format!("slot{n}");
        let folder = Arc::clone(&self.folder);
        remove_at(folder.as_fd(), &name);
        let open = Open::make(&folder, &name).ok()?;
        Some(SlotCgroup { folder, name, open })
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Some(name) = self.path.file_name().and_then(|name| name.to_str()) {
            remove_at(self.parent.as_fd(), name);
        }
    }
}

/// Removes the cgroups that a killed worker has left below this process's own cgroup; best effort.
pub fn remove_left_by(worker: &str) {
    if let Some(own) = own_cgroup() {
        remove(&own.join(format!("hodei-{worker}")));
    }
}

/// Removes a folder of cgroups and the empty ones in it; best effort.
pub fn remove(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // A cgroup that is not empty stays, and whoever destroys the worker sees it.
    let _busy = fs::remove_dir(path);
}

/// The cgroup of one slot.
#[derive(Debug)]
pub(crate) struct SlotCgroup {
    folder: Arc<OwnedFd>,
    name: String,
    open: Open,
}

#[derive(Debug)]
struct Open {
    cgroup: OwnedFd,
    events: OwnedFd,
    kill: OwnedFd,
}

impl Open {
    fn make(folder: &OwnedFd, name: &str) -> io::Result<Self> {
        mkdirat(folder, name, Mode::from_raw_mode(0o755))?;
        let opened = (|| {
            let cgroup = openat(folder, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            let events = openat(
                &cgroup,
                "cgroup.events",
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let kill = openat(
                &cgroup,
                "cgroup.kill",
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            Ok(Self { cgroup, events, kill })
        })();
        if opened.is_err() {
            remove_at(folder.as_fd(), name);
        }
        opened
    }
}

impl SlotCgroup {
    /// The descriptor to start a process in.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.open.cgroup.as_fd()
    }

    /// Whether a process is in it; true if that can not be told.
    pub(crate) fn is_populated(&self) -> bool {
        let mut text = [0; 256];
        match rustix::io::pread(&self.open.events, &mut text, 0) {
            Ok(len) => !String::from_utf8_lossy(&text[..len]).contains("populated 0"),
            Err(_) => true,
        }
    }

    /// Kills all that is in it. It must be renewed before it is used again.
    pub(crate) fn kill(&self) -> bool {
        rustix::io::write(&self.open.kill, b"1").is_ok()
    }

    /// Sends `signal` to all that is in it and in the cgroups that the job made below it, except to `but`.
    pub(crate) fn signal(&self, signal: Signal, but: Option<i32>) {
        signal_below(self.open.cgroup.as_fd(), signal, but);
    }

    /// Replaces it by a fresh one.
    ///
    /// # Errors
    /// [`io::Error`] if it is not empty or can not be made.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        remove_at(self.folder.as_fd(), &self.name);
        self.open = Open::make(&self.folder, &self.name)?;
        Ok(())
    }
}

impl Drop for SlotCgroup {
    fn drop(&mut self) {
        remove_at(self.folder.as_fd(), &self.name);
    }
}

fn signal_below(cgroup: BorrowedFd<'_>, signal: Signal, but: Option<i32>) {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    // Of a threaded cgroup the processes are listed by the one above it.
    let procs = openat(cgroup, "cgroup.procs", flags, Mode::empty());
    let text = procs.map(|procs| io::read_to_string(fs::File::from(procs)).unwrap_or_default());
    let pids = text.iter().flat_map(|text| text.lines());
    for pid in pids
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| Some(*pid) != but)
    {
        if let Some(pid) = Pid::from_raw(pid) {
            // It may have ended meanwhile.
            let _gone = kill_process(pid, signal);
        }
    }
    for name in inner_folders(cgroup) {
        if let Ok(inner) = openat(cgroup, &name, flags | OFlags::DIRECTORY, Mode::empty()) {
            signal_below(inner.as_fd(), signal, but);
        }
    }
}

fn inner_folders(folder: BorrowedFd<'_>) -> Vec<String> {
    let entries = rustix::fs::Dir::read_from(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type() == rustix::fs::FileType::Directory)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name != "." && name != "..")
        .collect()
}

/// Removes the cgroup `name` and those that a job made below it; best effort.
pub(crate) fn remove_at(folder: BorrowedFd<'_>, name: &str) {
    if unlinkat(folder, name, AtFlags::REMOVEDIR).is_ok() {
        return;
    }
    let Ok(inner) = openat(folder, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return;
    };
    for name in inner_folders(inner.as_fd()) {
        remove_at(inner.as_fd(), &name);
    }
    let _busy = unlinkat(folder, name, AtFlags::REMOVEDIR);
}

/// This process's own cgroup in the file system.
fn own_cgroup() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?
        .trim_start_matches('/')
        .to_owned();
    Some(mount_point()?.join(own))
}

/// This process's own cgroup, open.
pub(crate) fn open_own() -> Option<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(own_cgroup()?, flags, Mode::empty()).ok()
}

/// Where the version 2 hierarchy is mounted.
fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (point, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_slot_can_have_a_cgroup_nothing_is_left() {
        // An ordinary folder: like that of a kernel without cgroup.kill, but for more that is missing.
        let base = tempfile::tempdir().expect("a folder");
        assert!(Cgroups::create_below(base.path(), "w").is_none());
        assert_eq!(fs::read_dir(base.path()).expect("readable").count(), 0);
    }
}
