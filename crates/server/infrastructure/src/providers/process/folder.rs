//! A worker's folder: `lock`, `worker.log` and `machine.json`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// What is known of a worker's process, for a server that did not start it itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MachineRecord {
    /// The process that was started.
    pub(super) pid: u32,
    /// Its start time in clock ticks since boot, from /proc/PID/stat: tells it from a later process of that id.
    pub(super) start_time: u64,
    /// The boot in which it was started.
    pub(super) boot_id: String,
    /// The cgroup that holds its jobs, if this machine has cgroups.
    pub(super) cgroup: Option<PathBuf>,
}

impl MachineRecord {
    /// The record of a process that was just started.
    pub(super) fn of(pid: u32, cgroup: Option<PathBuf>) -> Self {
        Self {
            pid,
            start_time: start_time(pid).unwrap_or(0),
            boot_id: boot_id(),
            cgroup,
        }
    }

    /// Whether the process that it names is still that process.
    pub(super) fn is_alive(&self) -> bool {
        self.start_time != 0 && self.boot_id == boot_id() && start_time(self.pid) == Some(self.start_time)
    }
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)); `None` also for a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    if matches!(fields.next(), Some("Z" | "X")) {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// One worker's folder.
#[derive(Debug, Clone)]
pub(super) struct WorkerFolder(PathBuf);

impl WorkerFolder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn exists(&self) -> bool {
        self.0.is_dir()
    }

    pub(super) fn create(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().mode(0o700).create(&self.0)
    }

    pub(super) fn open_log(&self) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.0.join("worker.log"))
    }

    pub(super) fn write_record(&self, record: &MachineRecord) -> io::Result<()> {
        let unfinished = self.0.join("machine.json.new");
        std::fs::write(&unfinished, serde_json::to_vec(record)?)?;
        std::fs::rename(unfinished, self.0.join("machine.json"))
    }

    pub(super) fn read_record(&self) -> Option<MachineRecord> {
        serde_json::from_slice(&std::fs::read(self.0.join("machine.json")).ok()?).ok()
    }

    /// Whether nobody holds the worker's lock. A worker takes it first of all and holds it for life.
    pub(super) fn lock_is_free(&self) -> io::Result<bool> {
        let file = match File::open(self.0.join("lock")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the folder; it is no error if it is not there.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
