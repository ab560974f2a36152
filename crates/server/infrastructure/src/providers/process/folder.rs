//! A worker's folder with `lock` and `worker.log`, and beside it `ID.json`, the record of its process.
//!
//! Jobs of the same user can write in the folder, so nothing in it is believed: the record, which names what is
//! killed, lies outside, and a lock that is free, missing or something else frees no worker whose process lives.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::system::files::{remove_tree, write_private};

/// How much of a worker's log is told.
const TOLD_BYTES: u64 = 1 << 10;
/// How many lines of it.
const TOLD_LINES: usize = 5;

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
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.0.join("worker.log"))
    }

    pub(super) fn read_log(&self) -> io::Result<File> {
        // A job may have put something else in its place, which is not waited for and not followed.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.0.join("worker.log"), flags, Mode::empty())?.into())
    }

    fn record(&self) -> PathBuf {
        self.0.with_extension("json")
    }

    pub(super) fn write_record(&self, record: &MachineRecord) -> io::Result<()> {
        write_private(&self.record(), &serde_json::to_vec(record)?)
    }

    pub(super) fn read_record(&self) -> Option<MachineRecord> {
        serde_json::from_slice(&std::fs::read(self.record()).ok()?).ok()
    }

    /// Removes the record; it is no error if it is not there.
    pub(super) fn remove_record(&self) -> io::Result<()> {
        match std::fs::remove_file(self.record()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the worker has ended: nobody holds its lock, and the process of its record is not alive.
    pub(super) fn is_free(&self, record: Option<&MachineRecord>) -> io::Result<bool> {
        Ok(self.lock_is_free()? && !record.is_some_and(MachineRecord::is_alive))
    }

    /// Whether nobody holds the worker's lock. A worker takes it first of all and holds it for life; what a job put
    /// in its place is nobody's.
    fn lock_is_free(&self) -> io::Result<bool> {
        // A pipe does not block, and no link is followed.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(self.0.join("lock"), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP | Errno::ACCESS | Errno::NXIO) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the folder and then the record; it is no error if they are not there.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.0)?;
        self.remove_record()
    }
}

/// The last lines of a log, as one line.
pub(super) fn last_lines(log: &File) -> io::Result<String> {
    let text = end_of(log)?;
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(TOLD_LINES)..];
    Ok(hodei_shared::text::one_line(&last.join(" | ")))
}

/// The last line of a log, without the time and the level before it.
pub(super) fn last_line(log: &File) -> io::Result<String> {
    let text = end_of(log)?;
    let line = text
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let words = [" ERROR ", " WARN ", " INFO "]
        .into_iter()
        .find_map(|level| line.split_once(level));
    Ok(hodei_shared::text::one_line(
        words.map_or(line, |(_, words)| words),
    ))
}

fn end_of(log: &File) -> io::Result<String> {
    let end = log.metadata()?.len();
    let from = end.saturating_sub(TOLD_BYTES);
    let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
    let read = log.read_at(&mut bytes, from)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(temp: &tempfile::TempDir) -> WorkerFolder {
        let folder = WorkerFolder::new(temp.path().join("worker"));
        folder.create().expect("made");
        folder
    }

    #[test]
    fn what_jobs_can_write_frees_no_worker_that_lives() {
        let temp = tempfile::tempdir().expect("a folder");
        let folder = folder(&temp);
        let alive = MachineRecord::of(std::process::id(), None);
        let ended = MachineRecord {
            boot_id: "another boot".to_owned(),
            ..alive.clone()
        };
        let free = |record: &MachineRecord| folder.is_free(Some(record)).expect("looked at");
        let lock = folder.path().join("lock");
        assert!(!free(&alive) && free(&ended), "the lock is missing");
        std::os::unix::fs::symlink("/dev/zero", &lock).expect("made");
        assert!(!free(&alive) && free(&ended), "the lock is a link");
        std::fs::remove_file(&lock).expect("removed");
        let held = File::create(&lock).expect("made");
        assert!(!free(&alive) && free(&ended), "nobody holds the lock");
        flock(&held, FlockOperation::LockExclusive).expect("locked");
        assert!(!free(&alive) && !free(&ended), "the lock is held");
        assert!(!folder.is_free(None).expect("looked at"));
    }

    #[test]
    fn a_record_lies_beside_the_folder_and_goes_with_it() {
        let temp = tempfile::tempdir().expect("a folder");
        let folder = folder(&temp);
        let forged = MachineRecord::of(1, Some("/sys/fs/cgroup/other".into()));
        let forged = serde_json::to_vec(&forged).expect("written");
        std::fs::write(folder.path().join("machine.json"), forged).expect("written");
        assert_eq!(folder.read_record(), None);
        let record = MachineRecord::of(std::process::id(), None);
        folder.write_record(&record).expect("written");
        assert_eq!(folder.read_record(), Some(record));
        folder.remove().expect("removed");
        assert_eq!(std::fs::read_dir(temp.path()).expect("read").count(), 0);
        folder.remove().expect("nothing to remove");
    }

    #[test]
    fn the_last_line_of_a_log_is_told_without_its_time() {
        let temp = tempfile::tempdir().expect("a folder");
        let folder = folder(&temp);
        let told = || folder.read_log().and_then(|log| last_line(&log));
        assert!(told().is_err());
        for (text, want) in [
            ("", ""),
            ("first\nthread 'main' panicked\n\n", "thread 'main' panicked"),
            (
                "2026-01-01T00:00:00Z ERROR hodei: no room error=\"x\"\n",
                "hodei: no room error=\"x\"",
            ),
        ] {
            std::fs::write(folder.path().join("worker.log"), text).expect("written");
            assert_eq!(told().expect("read"), want);
        }
    }

    #[test]
    fn the_last_lines_of_a_log_are_told_as_one() {
        let temp = tempfile::tempdir().expect("a folder");
        let path = temp.path().join("log");
        for (text, want) in [
            ("", "".to_owned()),
            ("a\n\nb\n", "a | b".to_owned()),
            ("1\n2\n3\n4\n5\n6\n", "2 | 3 | 4 | 5 | 6".to_owned()),
            (&"x".repeat(5_000), "x".repeat(1 << 10)),
        ] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(
                last_lines(&File::open(&path).expect("opened")).expect("read"),
                want
            );
        }
    }
}
