//! The workers that are connected to this server, and what was sent to them. Memory only: a restart forgets it,
//! and the next Hello tells again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

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
    /// Claims made by this process whose Assign has not left. What is neither here nor sent is of an earlier
    /// life of the server, of which nothing is known.
    unsent: BTreeSet<AttemptKey>,
}

/// One open session.
#[derive(Debug)]
pub(crate) struct Open {
    /// Its number.
    pub(crate) session: u64,
    /// Something may have to be told to the worker.
    pub(crate) wake: Notify,
    /// A newer session replaced it, or the worker was revoked.
    pub(crate) ended: CancellationToken,
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session and ends the older one of the same worker.
    pub(crate) fn open(&self, worker: WorkerId, session: u64, parent: &CancellationToken) -> Arc<Open> {
        let open = Arc::new(Open {
            session,
            wake: Notify::new(),
            ended: parent.child_token(),
        });
        if let Some(older) = self.lock().open.insert(worker, Arc::clone(&open)) {
            older.ended.cancel();
        }
        open
    }

    /// Closes a session, unless a newer one is open.
    pub(crate) fn close(&self, worker: WorkerId, session: u64) {
        let mut inner = self.lock();
        if inner
            .open
            .get(&worker)
            .is_some_and(|open| open.session == session)
        {
            inner.open.remove(&worker);
        }
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

    /// Ends the worker's session, if one is open.
    pub(crate) fn end(&self, worker: WorkerId) {
        if let Some(open) = self.lock().open.get(&worker) {
            open.ended.cancel();
        }
    }

    /// A claim was made here.
    pub(crate) fn claimed(&self, key: AttemptKey) {
        self.lock().unsent.insert(key);
    }

    /// The claim's Assign is about to leave, or the attempt is over.
    pub(crate) fn sent(&self, key: AttemptKey) {
        self.lock().unsent.remove(&key);
    }

    /// Whether it is certain that the claim's Assign never left.
    pub(crate) fn never_sent(&self, key: AttemptKey) -> bool {
        self.lock().unsent.contains(&key)
    }
}
