//! The workers that are connected to this server, and what was sent to them. Memory only: a restart forgets it,
//! and the next Hello tells again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hodei_shared::ids::{AttemptKey, WorkerId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// All open sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    open: BTreeMap<WorkerId, Arc<Open>>,
    /// When the last session of a worker closed, monotonic.
    closed: BTreeMap<WorkerId, Duration>,
    /// Claims made by this process whose Assign has not left. What is neither here nor sent is of an earlier
    /// life of the server, of which nothing is known.
    unsent: BTreeSet<AttemptKey>,
    /// Claims whose Assign left before [`Sessions::claimed`] was told of them: a session reads them from the
    /// store as soon as they are committed.
    early: BTreeSet<AttemptKey>,
}

/// One open session.
#[derive(Debug)]
pub(crate) struct Open {
    /// Its number.
    pub(crate) session: u64,
    /// Something may have to be told to the worker.
    pub(crate) wake: Notify,
    /// Output of the worker was stored, for which a result may wait.
    pub(crate) output: Notify,
    /// A newer session replaced it, or the worker was revoked.
    pub(crate) ended: CancellationToken,
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session and ends the older one of the same worker. If a newer one is open already, this one is
    /// over before it begins.
    pub(crate) fn open(&self, worker: WorkerId, session: u64, parent: &CancellationToken) -> Arc<Open> {
        let open = Arc::new(Open {
            session,
            wake: Notify::new(),
            output: Notify::new(),
            ended: parent.child_token(),
        });
        let mut inner = self.lock();
        inner.closed.remove(&worker);
        match inner.open.get(&worker) {
            Some(other) if other.session > session => open.ended.cancel(),
            _ => {
                if let Some(older) = inner.open.insert(worker, Arc::clone(&open)) {
                    older.ended.cancel();
                }
            }
        }
        open
    }

    /// Closes a session, unless a newer one is open.
    pub(crate) fn close(&self, worker: WorkerId, session: u64, now: Duration) {
        let mut inner = self.lock();
        if inner
            .open
            .get(&worker)
            .is_some_and(|open| open.session == session)
        {
            inner.open.remove(&worker);
            inner.closed.insert(worker, now);
        }
    }

    /// When the worker's last session closed; `None` if it has had none here, or has one.
    pub(crate) fn closed_at(&self, worker: WorkerId) -> Option<Duration> {
        self.lock().closed.get(&worker).copied()
    }

    /// The worker is gone.
    pub(crate) fn forget_worker(&self, worker: WorkerId) {
        self.lock().closed.remove(&worker);
    }

    /// Whether a session of this worker is open.
    pub(crate) fn is_open(&self, worker: WorkerId) -> bool {
        self.lock().open.contains_key(&worker)
    }

    /// Wakes the worker's session, if one is open.
    pub(crate) fn wake(&self, worker: WorkerId) {
        if let Some(open) = self.lock().open.get(&worker) {
            open.wake.notify_one();
        }
    }

    /// Lets the worker's session look at the results that wait for output.
    pub(crate) fn output_stored(&self, worker: WorkerId) {
        if let Some(open) = self.lock().open.get(&worker) {
            open.output.notify_one();
        }
    }

    /// Ends the worker's session, if one is open.
    pub(crate) fn end(&self, worker: WorkerId) {
        if let Some(open) = self.lock().open.get(&worker) {
            open.ended.cancel();
        }
    }

    /// A claim was made here.
    pub(crate) fn claimed(&self, key: AttemptKey) {
        let mut inner = self.lock();
        if !inner.early.remove(&key) {
            inner.unsent.insert(key);
        }
    }

    /// The claim's Assign is about to leave.
    pub(crate) fn sent(&self, key: AttemptKey) {
        let mut inner = self.lock();
        if !inner.unsent.remove(&key) {
            inner.early.insert(key);
        }
    }

    /// The attempt is over, or its worker has said that it holds it.
    pub(crate) fn settled(&self, key: AttemptKey) {
        let mut inner = self.lock();
        inner.unsent.remove(&key);
        inner.early.remove(&key);
    }

    /// Whether it is certain that the claim's Assign never left.
    pub(crate) fn never_sent(&self, key: AttemptKey) -> bool {
        self.lock().unsent.contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use hodei_shared::ids::{JobId, Lease, Rank};

    use super::*;

    fn key(lease: u64) -> AttemptKey {
        AttemptKey {
            job: JobId::from_bytes([1; 16]),
            lease: Lease(lease),
            rank: Rank(0),
        }
    }

    #[test]
    fn an_assign_that_overtakes_its_claim_counts_as_sent() {
        let sessions = Sessions::default();
        sessions.sent(key(1));
        sessions.claimed(key(1));
        assert!(!sessions.never_sent(key(1)));
        sessions.claimed(key(2));
        assert!(sessions.never_sent(key(2)));
        sessions.sent(key(2));
        assert!(!sessions.never_sent(key(2)));
    }

    #[test]
    fn an_older_session_does_not_close_a_newer_one() {
        let (sessions, parent) = (Sessions::default(), CancellationToken::new());
        let worker = WorkerId::from_bytes([2; 16]);
        let newer = sessions.open(worker, 3, &parent);
        let older = sessions.open(worker, 2, &parent);
        assert!(older.ended.is_cancelled() && !newer.ended.is_cancelled());
        sessions.close(worker, 2, Duration::ZERO);
        assert!(sessions.is_open(worker) && sessions.closed_at(worker).is_none());
        sessions.close(worker, 3, Duration::from_secs(5));
        assert_eq!(sessions.closed_at(worker), Some(Duration::from_secs(5)));
    }
}
