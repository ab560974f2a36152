//! The store in one SQLite file: jobs, workers, output, events, tokens and sealed values.
//!
//! A synchronous [`Core`](core::Core) applies batches of operations to one connection. [`SqliteStore::open`] puts
//! a writer thread around it that commits everything that waits in one transaction (group commit), and two reader
//! threads with connections of their own. [`SqliteStore::inline`] calls the same core on the calling task.
//!
//! Invariants: an answer is given only after its commit · every rule of a job is decided by the domain inside the
//! transaction that stores it · events have positions without gaps in commit order · no timer: a lone call is
//! committed at once · nothing of `inline` depends on threads, randomness or the order of a hash map.
//! Deliberately absent: the bytes of objects (see `output_store`), more than one process on a file.

mod core;
mod drains;
mod events;
mod hints;
mod input;
mod job_rows;
mod jobs;
mod jobs_read;
mod op;
mod output;
mod output_objects;
mod retention;
mod sealed;
mod threads;
mod tokens;
mod value;
mod workers;
mod workers_read;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hodei_server_application::ports::{Clock, StoreError};
use rusqlite::Connection;
use thiserror::Error;

use self::core::Core;
use self::hints::Hints;
use self::op::{Op, Outcome};
use self::threads::Threads;

/// Why a store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file was written by a newer version of the server.
    #[error(
        "the store {} has schema version {found}, this server knows {known}; \
         start the newer server again or restore a backup from before the upgrade", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
        /// The newest version that this server knows.
        known: i64,
    },
    /// The file is not a store, or a damaged one.
    #[error("the store {} is damaged: {reason}; restore it from a backup, or move it away to begin with an empty one", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file can not be opened or written.
    #[error("the store {} can not be opened: {reason}; check that the folder exists and is writable by this user and that the disk is not full", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// How much a store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Calls that write.
    pub operations: u64,
    /// Transactions in which they were committed.
    pub transactions: u64,
}

/// All ports of the store over one SQLite database. Clones share it; the last one that is dropped closes it.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Backend,
    shared: Arc<Shared>,
}

enum Backend {
    /// The caller's task does the work.
    Inline(Mutex<Core>),
    /// A writer and readers do it.
    Threads(Threads),
}

/// What the callers and the writer thread both need.
struct Shared {
    clock: Arc<dyn Clock>,
    hints: Hints,
    operations: AtomicU64,
    transactions: AtomicU64,
}

impl Shared {
    fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            hints: Hints::new(),
            operations: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
        })
    }

    /// Commits a group; one answer for each operation.
    fn commit(&self, core: &mut Core, ops: &[Op]) -> Vec<Result<Outcome, StoreError>> {
        let batch = core.apply(self.clock.now_ms(), ops);
        self.operations.fetch_add(ops.len() as u64, Ordering::Relaxed);
        self.transactions.fetch_add(batch.transactions, Ordering::Relaxed);
        self.hints.committed(ops, &batch.outcomes);
        batch.outcomes
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the database file at `path`, creates it if there is none, and brings its schema up to date. Blocks
    /// while it does so.
    ///
    /// # Errors
    /// [`OpenError`], each with the path and the next step.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let core = Core::open(path)?;
        let shared = Shared::new(clock);
        let threads = Threads::start(path, core, Arc::clone(&shared))?;
        Ok(Self::with(Backend::Threads(threads), shared))
    }

    /// An empty database in memory whose work is done on the calling task: no thread, no randomness. A simulated
    /// crash keeps a clone; what was answered before is in it.
    pub fn inline(clock: Arc<dyn Clock>) -> Self {
        let core = Core::in_memory().expect("the schema builds in an empty database");
        Self::with(Backend::Inline(Mutex::new(core)), Shared::new(clock))
    }

    fn with(backend: Backend, shared: Arc<Shared>) -> Self {
        Self {
            inner: Arc::new(Inner { backend, shared }),
        }
    }

    /// How much it has done.
    pub fn stats(&self) -> Stats {
        Stats {
            operations: self.inner.shared.operations.load(Ordering::Relaxed),
            transactions: self.inner.shared.transactions.load(Ordering::Relaxed),
        }
    }

    /// Performs one operation and returns after its commit. If the future is dropped, the operation may or may
    /// not be committed.
    async fn write(&self, op: Op) -> Result<Outcome, StoreError> {
        match &self.inner.backend {
            Backend::Threads(threads) => threads.write(op).await,
            Backend::Inline(core) => {
                let mut core = core.lock().unwrap_or_else(PoisonError::into_inner);
                let mut outcomes = self.inner.shared.commit(&mut core, &[op]);
                outcomes
                    .pop()
                    .unwrap_or_else(|| Err(StoreError::Internal("an operation got no answer".into())))
            }
        }
    }

    /// Reads in one transaction, so that several statements see one state.
    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        match &self.inner.backend {
            Backend::Threads(threads) => threads.read(query).await,
            Backend::Inline(core) => {
                let core = core.lock().unwrap_or_else(PoisonError::into_inner);
                core::read(core.connection(), query)
            }
        }
    }

    /// Store time.
    fn now_ms(&self) -> i64 {
        self.inner.shared.clock.now_ms()
    }
}
