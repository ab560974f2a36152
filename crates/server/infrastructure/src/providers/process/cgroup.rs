//! The cgroup (version 2) below which a worker keeps its jobs: found, tried, killed, removed.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hodei_shared::ids::WorkerId;

/// The cgroup of this process in the version 2 hierarchy, if one is mounted.
fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4))?
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(path))
}

/// Where a worker that this process starts keeps its jobs.
pub(super) fn worker_cgroup(worker: WorkerId) -> Option<PathBuf> {
    own_cgroup().map(|own| own.join(format!("hodei-{worker}")))
}

/// Whether a process of ours can make cgroups that can be killed as a whole: made, looked at and removed.
pub(super) fn can_kill_by_cgroup() -> bool {
    let Some(own) = own_cgroup() else { return false };
    let probe = own.join(format!("hodei-probe-{}", std::process::id()));
    if fs::create_dir(&probe).is_err() {
        return false;
    }
    let can = probe.join("cgroup.kill").exists();
    fs::remove_dir(&probe).is_ok() && can
}

/// Kills all that is in a worker's cgroup, where the kernel can (Linux 5.14); elsewhere, or if there is no such
/// cgroup, it does nothing.
pub(super) fn kill(cgroup: &Path) -> io::Result<()> {
    let opened = OpenOptions::new().write(true).open(cgroup.join("cgroup.kill"));
    or_gone(opened.and_then(|mut file| file.write_all(b"1")))
}

/// Kills all that is in a worker's cgroup and removes it, with everything below.
pub(super) fn kill_and_remove(cgroup: &Path, patience: Duration) -> io::Result<()> {
    if !cgroup.is_dir() {
        return Ok(());
    }
    kill(cgroup)?;
    let until = Instant::now() + patience;
    loop {
        match remove(cgroup) {
            Err(error) if error.raw_os_error() == Some(libc_ebusy()) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

fn remove(cgroup: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(cgroup) {
        Err(error) if is_gone(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        match entry.and_then(|entry| Ok((entry.file_type()?, entry))) {
            Ok((kind, entry)) if kind.is_dir() => remove(&entry.path())?,
            Ok(_) => {}
            Err(error) => or_gone(Err(error))?,
        }
    }
    or_gone(fs::remove_dir(cgroup))
}

/// Whether there is no such cgroup any more: a worker removes its own at its end, perhaps at this moment.
fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV))
}

fn or_gone(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

fn libc_ebusy() -> i32 {
    rustix::io::Errno::BUSY.raw_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_can_not_be_killed_as_a_whole_is_removed() {
        let temp = tempfile::tempdir().expect("a folder");
        let cgroup = temp.path().join("hodei-worker");
        fs::create_dir_all(cgroup.join("slot-0/job")).expect("made");
        kill_and_remove(&cgroup, Duration::ZERO).expect("removed");
        assert!(!cgroup.exists());
        kill_and_remove(&cgroup, Duration::ZERO).expect("nothing to remove");
    }

    #[test]
    fn what_somebody_else_removes_at_the_same_time_is_removed() {
        let temp = tempfile::tempdir().expect("a folder");
        let cgroup = temp.path().join("hodei-worker");
        for _ in 0..200 {
            (0..8).for_each(|n| fs::create_dir_all(cgroup.join(format!("slot{n}"))).expect("made"));
            let both = || {
                let cgroup = cgroup.clone();
                std::thread::spawn(move || remove(&cgroup))
            };
            let both = [both(), both()];
            for removal in both {
                removal.join().expect("no panic").expect("removed");
            }
            assert!(!cgroup.exists());
        }
    }
}
