//! Killing a worker and all that it started, also where its namespaces and cgroups are missing.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::{Duration, Instant};

use hodei_shared::ids::WorkerId;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::cgroup;
use super::folder::{MachineRecord, WorkerFolder};

/// Kills the worker, its jobs and what they left, waits until its lock is free, then removes cgroup and folder.
pub(super) fn kill_all(
    worker: WorkerId,
    record: Option<&MachineRecord>,
    folder: &WorkerFolder,
    patience: Duration,
) -> io::Result<()> {
    let until = Instant::now() + patience;
    let mark = format!("HODEI_WORKER_ID={worker}");
    let cgroup = record
        .and_then(|record| record.cgroup.clone())
        .or_else(|| cgroup::worker_cgroup(worker));
    let cgroup = cgroup.as_deref();
    if let Some(record) = record {
        kill_worker(record)?;
    }
    // The record and the folder may have been removed by a job.
    let argument = folder.path().as_os_str().as_bytes();
    kill_all_that(|process| process.has_argument(argument))?;
    // A job that hides its mark and holds the lock is in the cgroup, so it does not hold up what follows.
    if let Some(cgroup) = cgroup {
        cgroup::kill(cgroup)?;
    }
    loop {
        let left = kill_all_that(|process| process.carries(&mark))?;
        if left == 0 && folder.is_free(record)? {
            break;
        }
        if Instant::now() >= until {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "its processes do not end",
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    if let Some(cgroup) = cgroup {
        cgroup::kill_and_remove(cgroup, patience)?;
    }
    folder.remove()
}

/// Kills the worker itself: with its PID namespace the kernel ends everything in it.
fn kill_worker(record: &MachineRecord) -> io::Result<()> {
    let Some(pid) = i32::try_from(record.pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    // The descriptor is opened first and the process compared after: the id can not change hands in between.
    let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(());
    };
    if !record.is_alive() {
        return Ok(());
    }
    match pidfd_send_signal(&descriptor, Signal::KILL) {
        Err(error) if error != rustix::io::Errno::SRCH => Err(error.into()),
        _ => Ok(()),
    }
}

/// Kills every other process of which `wanted` holds; returns how many there were.
fn kill_all_that(wanted: impl Fn(Process) -> bool) -> io::Result<usize> {
    let own = std::process::id();
    let mut found = 0;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == own || !wanted(Process(pid)) {
            continue;
        }
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            continue;
        };
        if let Ok(descriptor) = pidfd_open(raw, PidfdFlags::empty())
            && wanted(Process(pid))
            && pidfd_send_signal(&descriptor, Signal::KILL).is_ok()
        {
            found += 1;
        }
    }
    Ok(found)
}

/// A process, as /proc shows it. A zombie shows nothing.
#[derive(Clone, Copy)]
struct Process(u32);

impl Process {
    /// Whether a variable stands in its environment.
    fn carries(self, mark: &str) -> bool {
        let text = fs::read(format!("/proc/{}/environ", self.0)).unwrap_or_default();
        text.split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    }

    /// Whether it was started as a worker is, with `--folder` and this path.
    fn has_argument(self, folder: &[u8]) -> bool {
        let text = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        let words: Vec<&[u8]> = text.split(|byte| *byte == 0).collect();
        words
            .windows(2)
            .any(|pair| pair == [b"--folder".as_slice(), folder])
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_worker_whose_folder_and_record_are_gone_is_killed() {
        let temp = tempfile::tempdir().expect("a folder");
        let folder = WorkerFolder::new(temp.path().join("worker"));
        // A shell that does not become the last command of its script: its own arguments stay.
        let start = |path: &std::path::Path| {
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", "read -r line", "worker", "--folder"])
                .arg(path);
            command
                .stdin(std::process::Stdio::piped())
                .spawn()
                .expect("it starts")
        };
        let mut other = start(&temp.path().join("worker2"));
        let mut worker = start(folder.path());
        let id = WorkerId::from_bytes([7; 16]);
        kill_all(id, None, &folder, Duration::from_secs(10)).expect("killed");
        let ended = worker.wait().expect("it ends");
        assert_eq!(ended.signal(), Some(9), "{ended:?}");
        drop(other.stdin.take());
        let ended = other.wait().expect("it ends");
        assert_eq!(ended.signal(), None, "another worker goes on");
    }
}
