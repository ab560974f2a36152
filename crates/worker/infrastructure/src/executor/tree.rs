//! Everything that a job started: how it is signalled and how it is known to be gone.
//!
//! Three ways, best first: the slot's cgroup; being the only job in a PID namespace of the worker's own; walking
//! /proc for what descends from the job, or carries its id and attempt in its environment. The last can miss a process
//! that has wiped its environment and lost its parent before it was seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hodei_worker_application::ports::{ProcessControl, Signal};
use rustix::process::{Pid, PidfdFlags, Signal as Os, pidfd_open, pidfd_send_signal};

use super::spawn::namespaces::{OwnNamespace, signal_all_others};
use crate::cgroup::SlotCgroup;

/// How long the rest of a tree is waited for before that is reported and waited for more rarely.
const LONG: u32 = 200;

/// The processes of one running job.
pub(super) struct Tree {
    pub(super) pidfd: Arc<OwnedFd>,
    pub(super) cgroup: Option<Arc<Mutex<SlotCgroup>>>,
    /// Set if all other processes of the namespace are this job's.
    pub(super) alone: Option<OwnNamespace>,
    walk: Mutex<Walk>,
    killed: AtomicBool,
    ended: AtomicBool,
}

impl Tree {
    pub(super) fn new(
        pid: i32,
        pidfd: Arc<OwnedFd>,
        cgroup: Option<Arc<Mutex<SlotCgroup>>>,
        alone: Option<OwnNamespace>,
        marks: Vec<String>,
    ) -> Self {
        let everything = alone.is_some();
        let walk = Walk {
            everything,
            marks,
            known: stat(pid)
                .map(|process| (pid, process.start))
                .into_iter()
                .collect(),
        };
        Self {
            pidfd,
            cgroup,
            alone,
            walk: Mutex::new(walk),
            killed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Kills what is left after the main process; ends when nothing is.
    pub(super) async fn finish(&self) {
        let mut rounds = 0;
        while self.is_populated() {
            self.send(Os::KILL);
            rounds += 1;
            if rounds == LONG {
                tracing::warn!("processes of a job do not die");
            }
            let wait = if rounds < LONG { 2 } else { 500 };
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        self.ended.store(true, Ordering::Release);
        if self.killed.load(Ordering::Acquire)
            && let Some(cgroup) = &self.cgroup
        {
            renew(cgroup).await;
        }
    }

    fn is_populated(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => lock(cgroup).is_populated(),
            None => !self.walk().find().is_empty(),
        }
    }

    fn walk(&self) -> MutexGuard<'_, Walk> {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, signal: Os) {
        // The main process may have ended.
        let _gone = pidfd_send_signal(&*self.pidfd, signal);
        if let Some(cgroup) = &self.cgroup {
            if signal != Os::KILL {
                return lock(cgroup).signal(signal);
            }
            self.killed.store(true, Ordering::Release);
            if lock(cgroup).kill() {
                return;
            }
            return lock(cgroup).signal(signal);
        }
        if let Some(namespace) = self.alone {
            return signal_all_others(namespace, signal);
        }
        let mut walk = self.walk();
        for (pid, start) in walk.find() {
            signal_one(pid, start, signal);
        }
    }
}

impl ProcessControl for Tree {
    fn signal(&self, signal: Signal) {
        if !self.ended.load(Ordering::Acquire) {
            self.send(match signal {
                Signal::Term => Os::TERM,
                Signal::Kill => Os::KILL,
            });
        }
    }
}

fn lock(cgroup: &Mutex<SlotCgroup>) -> MutexGuard<'_, SlotCgroup> {
    cgroup.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A killed cgroup may stay busy for a moment after it is empty.
async fn renew(cgroup: &Mutex<SlotCgroup>) {
    for _ in 0..LONG {
        let renewed = lock(cgroup).renew();
        match renewed {
            Ok(()) => return,
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    tracing::warn!("a cgroup could not be renewed");
}

/// Signals the process only if it is still the one that was found.
fn signal_one(pid: i32, start: u64, signal: Os) {
    let Some(raw) = Pid::from_raw(pid) else { return };
    let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else {
        return;
    };
    if stat(pid).is_some_and(|process| process.start == start) {
        // It may have ended meanwhile.
        let _gone = pidfd_send_signal(&pidfd, signal);
    }
}

struct Walk {
    everything: bool,
    /// `NAME=VALUE` pairs that a process must all have in its environment.
    marks: Vec<String>,
    /// Processes that were seen to belong to the job: id and start time.
    known: BTreeSet<(i32, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Process {
    parent: i32,
    start: u64,
    dead: bool,
}

impl Walk {
    /// The job's living processes, by id and start time.
    fn find(&mut self) -> Vec<(i32, u64)> {
        let own = std::process::id() as i32;
        let all: BTreeMap<i32, Process> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != own)
            .filter_map(|pid| Some((pid, stat(pid)?)))
            .collect();
        if self.everything {
            return all
                .iter()
                .filter(|(_, p)| !p.dead)
                .map(|(pid, p)| (*pid, p.start))
                .collect();
        }
        self.known
            .retain(|(pid, start)| all.get(pid).is_some_and(|p| p.start == *start));
        for (pid, process) in &all {
            if !self.known.contains(&(*pid, process.start)) && self.carries_marks(*pid) {
                self.known.insert((*pid, process.start));
            }
        }
        loop {
            let before = self.known.len();
            for (pid, process) in &all {
                let parent = all
                    .get(&process.parent)
                    .map(|parent| (process.parent, parent.start));
                if parent.is_some_and(|parent| self.known.contains(&parent)) {
                    self.known.insert((*pid, process.start));
                }
            }
            if self.known.len() == before {
                break;
            }
        }
        let living = self
            .known
            .iter()
            .filter(|(pid, _)| all.get(pid).is_some_and(|p| !p.dead));
        living.copied().collect()
    }

    fn carries_marks(&self, pid: i32) -> bool {
        let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
            return false;
        };
        let has = |mark: &String| {
            environ
                .split(|byte| *byte == 0)
                .any(|pair| pair == mark.as_bytes())
        };
        !self.marks.is_empty() && self.marks.iter().all(has)
    }
}

/// Reads /proc/PID/stat; its second field may contain anything, so it is cut at the last parenthesis.
fn stat(pid: i32) -> Option<Process> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    Some(Process {
        dead: matches!(*fields.first()?, "Z" | "X" | "x"),
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}
