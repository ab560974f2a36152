//! Killing a worker and all that it started, also where its namespaces and cgroups are missing.

use std::fs;
use std::io;
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
    let cgroup = record.and_then(|record| record.cgroup.as_ref());
    if let Some(record) = record {
        kill_worker(record)?;
    }
    // A job that hides its mark and holds the lock is in the cgroup, so it does not hold up what follows.
    if let Some(cgroup) = cgroup {
        cgroup::kill(cgroup)?;
    }
    loop {
        let left = kill_marked(worker)?;
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

/// Kills every process with this worker's id in its environment; returns how many there were.
fn kill_marked(worker: WorkerId) -> io::Result<usize> {
    let mark = format!("HODEI_WORKER_ID={worker}");
    let own = std::process::id();
    let mut found = 0;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == own || !carries(pid, &mark) {
            continue;
        }
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            continue;
        };
        if let Ok(descriptor) = pidfd_open(raw, PidfdFlags::empty())
            && carries(pid, &mark)
            && pidfd_send_signal(&descriptor, Signal::KILL).is_ok()
        {
            found += 1;
        }
    }
    Ok(found)
}

/// Whether a variable stands in a process's environment. A zombie has none.
fn carries(pid: u32, mark: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == mark.as_bytes())
}
