//! Who waits for what: a hint for everything, and one for each job that somebody follows.
//!
//! A commit wakes only those who follow what it changed, so that thousands of followers cost a commit nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use hodei_shared::ids::JobId;
use tokio::sync::watch;

use super::op::{Op, Outcome};

/// The hints of one store.
#[derive(Debug)]
pub(super) struct Hints {
    all: watch::Sender<u64>,
    jobs: Mutex<Followed>,
}

#[derive(Debug, Default)]
struct Followed {
    jobs: BTreeMap<JobId, watch::Sender<u64>>,
    /// How many there may be before those that nobody follows any more are removed.
    prune_at: usize,
}

impl Hints {
    pub(super) fn new() -> Self {
        Self {
            all: watch::Sender::new(0),
            jobs: Mutex::default(),
        }
    }

    pub(super) fn all(&self) -> watch::Receiver<u64> {
        self.all.subscribe()
    }

    pub(super) fn of_job(&self, job: JobId) -> watch::Receiver<u64> {
        let mut followed = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if followed.jobs.len() >= followed.prune_at {
            followed.jobs.retain(|_, sender| sender.receiver_count() > 0);
            followed.prune_at = 64 + 2 * followed.jobs.len();
        }
        followed
            .jobs
            .entry(job)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe()
    }

    /// Wakes those who follow what a group has changed.
    pub(super) fn committed<E>(&self, ops: &[Op], outcomes: &[Result<Outcome, E>]) {
        let mut any = false;
        let followed = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        for (op, outcome) in ops.iter().zip(outcomes) {
            let Ok(outcome) = outcome else { continue };
            if !outcome.changed() {
                continue;
            }
            any = true;
            for job in op.jobs() {
                if let Some(sender) = followed.jobs.get(&job) {
                    sender.send_modify(|n| *n += 1);
                }
            }
        }
        drop(followed);
        if any {
            self.all.send_modify(|n| *n += 1);
        }
    }
}
