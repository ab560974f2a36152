//! Everything that a job started: how it is signalled and how it is known to be gone.
//!
//! Three ways, best first: the slot's cgroup; being the only job of a worker that is the init of its PID namespace or
//! the reaper of its descendants; walking /proc for what descends from the job, or carries its id and attempt in its
//! environment.
//!
//! Invariants: a tree that was asked to end in time has its grace even when the main process ends first; what an
//! ordinary end leaves behind is killed at once; signals and walks happen on the slot's own thread, one after the
//! other, so none of them reaches the slot's next job and none holds up the runtime.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use hodei_worker_application::ports::{ProcessControl, Signal};
use rustix::process::{Signal as Os, pidfd_send_signal};
use tokio::sync::{Notify, oneshot};

use super::spawn::namespaces::{OwnNamespace, has_ended, signal_all_others};
use super::walk::{Scope, Walk, signal_one};
use super::{Work, lock};
use crate::cgroup::SlotCgroup;

/// How long the rest of a tree is waited for before that is reported and waited for more rarely.
const LONG: u32 = 200;
/// How often a dying tree is looked at.
const SHORT_WAIT: Duration = Duration::from_millis(2);
/// How often a tree is looked at that uses its grace.
const GRACE_WAIT: Duration = Duration::from_millis(100);
/// How often a tree is looked at that does not die.
const LONG_WAIT: Duration = Duration::from_millis(500);

/// What the tree was told before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Nothing.
    No,
    /// The main process had ended when the first signal came.
    TooLate,
    /// To end within its grace.
    Asked,
    /// To end.
    Forced,
}

/// By what the processes of a job are found.
pub(super) struct Means {
    /// The slot's cgroup, if the job was started in it.
    pub(super) cgroup: Option<Arc<Mutex<SlotCgroup>>>,
    /// Set if all other processes of the namespace are this job's.
    pub(super) alone: Option<OwnNamespace>,
    /// How to walk where there is no cgroup.
    pub(super) scope: Scope,
}

/// The processes of one running job.
pub(super) struct Tree {
    shared: Arc<Shared>,
    slot: mpsc::Sender<Work>,
}

struct Shared {
    pid: i32,
    pidfd: Arc<OwnedFd>,
    cgroup: Option<Arc<Mutex<SlotCgroup>>>,
    alone: Option<OwnNamespace>,
    walk: Mutex<Walk>,
    stop: Mutex<Stop>,
    told: Notify,
    killed: AtomicBool,
    ended: AtomicBool,
}

impl Tree {
    /// The tree of the main process `pid`, handled on the thread behind `slot`.
    pub(super) fn new(pid: i32, pidfd: Arc<OwnedFd>, means: Means, slot: mpsc::Sender<Work>) -> Self {
        let shared = Shared {
            pid,
            pidfd,
            cgroup: means.cgroup,
            alone: means.alone,
            walk: Mutex::new(Walk::new(means.scope, pid)),
            stop: Mutex::new(Stop::No),
            told: Notify::new(),
            killed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            slot,
        }
    }

    /// Ends when nothing is left. To be called after the end of the main process. Kills what is left of it, at once or
    /// after the grace of a stop, whose end is a second signal.
    pub(super) async fn finish(&self) {
        let (mut rounds, mut grace) = (0, SHORT_WAIT);
        loop {
            let kill = !self.shared.has_grace();
            if !self.sweep(kill).await {
                break;
            }
            let wait = if kill {
                rounds += 1;
                if rounds == LONG {
                    tracing::warn!("processes of a job do not die");
                }
                if rounds < LONG { SHORT_WAIT } else { LONG_WAIT }
            } else {
                grace = (grace * 2).min(GRACE_WAIT);
                grace
            };
            tokio::select! {
                () = self.shared.told.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.shared.ended.store(true, Ordering::Release);
        if self.shared.killed.load(Ordering::Acquire) {
            self.renew().await;
        }
    }

    /// Whether processes are left; `kill` kills them.
    async fn sweep(&self, kill: bool) -> bool {
        if let Some(cgroup) = &self.shared.cgroup
            && !lock(cgroup).is_populated()
        {
            return false;
        }
        let sweep = move |shared: &Shared| {
            let left = shared.is_populated();
            if left && kill {
                shared.send(Os::KILL);
            }
            left
        };
        // A slot whose thread is gone never runs another job.
        self.on_slot(sweep).await.unwrap_or(false)
    }

    /// A killed cgroup may stay busy for a moment after it is empty.
    async fn renew(&self) {
        let Some(cgroup) = &self.shared.cgroup else { return };
        for _ in 0..LONG {
            let cgroup = Arc::clone(cgroup);
            match self.on_slot(move |_| lock(&cgroup).renew()).await {
                Some(Err(_)) => tokio::time::sleep(SHORT_WAIT).await,
                Some(Ok(())) | None => return,
            }
        }
        tracing::warn!("a cgroup could not be renewed");
    }

    /// Runs `f` on the slot's thread; none if that has ended.
    async fn on_slot<T: Send + 'static>(&self, f: impl FnOnce(&Shared) -> T + Send + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let work: Work = Box::new(move |_| {
            // Without a listener the runtime is gone, and the worker with it.
            let _unheard = answer.send(f(&shared));
        });
        self.slot.send(work).ok()?;
        answered.await.ok()
    }
}

impl ProcessControl for Tree {
    fn signal(&self, signal: Signal) {
        if self.shared.ended.load(Ordering::Acquire) {
            return;
        }
        self.shared.note(signal);
        let shared = Arc::clone(&self.shared);
        let signal = match signal {
            Signal::Term => Os::TERM,
            Signal::Kill => Os::KILL,
        };
        let work: Work = Box::new(move |_| {
            if !shared.ended.load(Ordering::Acquire) {
                shared.send(signal);
            }
        });
        // The thread ends only with the worker.
        let _gone = self.slot.send(work);
    }

    fn ended_by_itself(&self) -> bool {
        matches!(*lock(&self.shared.stop), Stop::No | Stop::TooLate)
    }
}

impl Shared {
    /// Decides at the first signal whether the main process came before it.
    fn note(&self, signal: Signal) {
        let mut stop = lock(&self.stop);
        *stop = match (*stop, signal) {
            (Stop::TooLate, _) => Stop::TooLate,
            (Stop::No, _) if has_ended(&self.pidfd) => Stop::TooLate,
            (_, Signal::Kill) | (Stop::Forced, _) => Stop::Forced,
            (Stop::No | Stop::Asked, Signal::Term) => Stop::Asked,
        };
        drop(stop);
        self.told.notify_one();
    }

    fn has_grace(&self) -> bool {
        *lock(&self.stop) == Stop::Asked
    }

    fn is_populated(&self) -> bool {
        match &self.cgroup {
            Some(cgroup) => lock(cgroup).is_populated(),
            None => !lock(&self.walk).find().is_empty(),
        }
    }

    /// Sends `signal` to every process once.
    fn send(&self, signal: Os) {
        if let (Some(namespace), None) = (self.alone, &self.cgroup) {
            return signal_all_others(namespace, signal);
        }
        // The main process may have ended.
        let _gone = pidfd_send_signal(&*self.pidfd, signal);
        let but = (signal != Os::KILL).then_some(self.pid);
        if let Some(cgroup) = &self.cgroup {
            let cgroup = lock(cgroup);
            if signal == Os::KILL {
                self.killed.store(true, Ordering::Release);
                if cgroup.kill() {
                    return;
                }
            }
            return cgroup.signal(signal, but);
        }
        for (pid, start) in lock(&self.walk).find() {
            if Some(pid) != but {
                signal_one(pid, start, signal);
            }
        }
    }
}
