//! Finding the processes of a job in /proc.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Which processes are a job's.
pub(super) enum Scope {
    /// All that are to be seen: the job is alone in a PID namespace of the worker's own.
    Namespace,
    /// All that descend from this process, to which orphans come back: the job is its only one.
    Descendants,
    /// Those that have all of these `NAME=VALUE` pairs in their environment, and what descends from them. Misses a
    /// process that has wiped its environment and lost its parent before it was seen.
    Marked(Vec<String>),
}

/// What is known of a job's processes from one walk to the next.
pub(super) struct Walk {
    scope: Scope,
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
    /// A job whose main process is `main`.
    pub(super) fn new(scope: Scope, main: i32) -> Self {
        let known = stat(main).map(|process| (main, process.start));
        Self {
            scope,
            known: known.into_iter().collect(),
        }
    }

    /// The job's living processes, by id and start time. Reads all of /proc.
    pub(super) fn find(&mut self) -> Vec<(i32, u64)> {
        let own = std::process::id() as i32;
        let all: BTreeMap<i32, Process> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != own)
            .filter_map(|pid| Some((pid, stat(pid)?)))
            .collect();
        let living = |(pid, start): (i32, u64)| {
            all.get(&pid)
                .is_some_and(|process| process.start == start && !process.dead)
        };
        match &self.scope {
            Scope::Namespace => self.known = all.iter().map(|(pid, p)| (*pid, p.start)).collect(),
            Scope::Descendants => {
                let children = all.iter().filter(|(_, process)| process.parent == own);
                self.known = children.map(|(pid, process)| (*pid, process.start)).collect();
            }
            Scope::Marked(marks) => {
                self.known
                    .retain(|(pid, start)| all.get(pid).is_some_and(|p| p.start == *start));
                for (pid, process) in &all {
                    let found = (*pid, process.start);
                    if !self.known.contains(&found) && carries(marks, *pid) {
                        self.known.insert(found);
                    }
                }
            }
        }
        self.add_descendants(&all);
        self.known
            .iter()
            .copied()
            .filter(|found| living(*found))
            .collect()
    }

    fn add_descendants(&mut self, all: &BTreeMap<i32, Process>) {
        loop {
            let before = self.known.len();
            for (pid, process) in all {
                let parent = all.get(&process.parent);
                if parent.is_some_and(|parent| self.known.contains(&(process.parent, parent.start))) {
                    self.known.insert((*pid, process.start));
                }
            }
            if self.known.len() == before {
                return;
            }
        }
    }
}

fn carries(marks: &[String], pid: i32) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let has = |mark: &String| {
        environ
            .split(|byte| *byte == 0)
            .any(|pair| pair == mark.as_bytes())
    };
    !marks.is_empty() && marks.iter().all(has)
}

/// Signals the process only if it is still the one that was found.
pub(super) fn signal_one(pid: i32, start: u64, signal: Signal) {
    let Some(raw) = Pid::from_raw(pid) else { return };
    let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else {
        return;
    };
    if stat(pid).is_some_and(|process| process.start == start) {
        // It may have ended meanwhile.
        let _gone = pidfd_send_signal(&pidfd, signal);
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
