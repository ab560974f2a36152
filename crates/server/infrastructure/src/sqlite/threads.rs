//! The writer thread and the reader threads of a store on disk.
//!
//! Invariant: both queues are bounded; a caller waits for room. The writer takes everything that waits and commits
//! it as one group. Dropping closes the queues and waits until what was taken is committed and the file is closed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use hodei_server_application::ports::StoreError;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::core::{self, Core, store_error};
use super::op::{Op, Outcome};
use super::{OpenError, Shared};

/// Calls that may wait for the writer, and the most that one group holds.
const WRITE_QUEUE: usize = 2_048;
/// Calls that may wait for a reader.
const READ_QUEUE: usize = 1_024;
/// The most queries of one transaction: a slow one among them holds up so many others at most.
const READ_GROUP: usize = 16;
const READERS: usize = 2;

type Answer = oneshot::Sender<Result<Outcome, StoreError>>;
type Query = Box<dyn FnOnce(Result<&Connection, StoreError>) + Send>;

/// The threads and their queues; `None` only while being dropped.
pub(super) struct Threads {
    writes: Option<mpsc::Sender<(Op, Answer)>>,
    reads: Option<mpsc::Sender<Query>>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(path: &Path, core: Core, shared: Arc<Shared>) -> Result<Self, OpenError> {
        let (writes, write_queue) = mpsc::channel(WRITE_QUEUE);
        let (reads, read_queue) = mpsc::channel(READ_QUEUE);
        let mut threads = Self {
            writes: Some(writes),
            reads: Some(reads),
            handles: Vec::new(),
        };
        let read_queue = Arc::new(Mutex::new(read_queue));
        for _ in 0..READERS {
            let connection = core::open_reader(path)?;
            let queue = Arc::clone(&read_queue);
            threads.spawn(path, "store-reader", move || answer_reads(&queue, &connection))?;
        }
        threads.spawn(path, "store-writer", move || {
            commit_groups(write_queue, core, &shared)
        })?;
        Ok(threads)
    }

    fn spawn(
        &mut self,
        path: &Path,
        name: &str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenError> {
        let started = thread::Builder::new().name(name.to_owned()).spawn(run);
        let handle = started.map_err(|error| OpenError::Unusable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        self.handles.push(handle);
        Ok(())
    }

    pub(super) async fn write(&self, op: Op) -> Result<Outcome, StoreError> {
        let (answer, answered) = oneshot::channel();
        let queue = self.writes.as_ref().ok_or_else(closed)?;
        queue.send((op, answer)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    pub(super) async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let run = move |connection: Result<&Connection, StoreError>| {
            let found = connection.and_then(|c| query(c).map_err(|error| store_error(&error)));
            // Whoever asked may have gone; nobody misses the answer then.
            let _ = answer.send(found);
        };
        let queue = self.reads.as_ref().ok_or_else(closed)?;
        queue.send(Box::new(run)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.writes = None;
        self.reads = None;
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("its thread has ended".to_owned())
}

fn commit_groups(mut queue: mpsc::Receiver<(Op, Answer)>, mut core: Core, shared: &Shared) {
    let mut waiting = Vec::new();
    while queue.blocking_recv_many(&mut waiting, WRITE_QUEUE) > 0 {
        let (ops, answers): (Vec<Op>, Vec<Answer>) = waiting.drain(..).unzip();
        // A panic rolls the transaction back as it unwinds; its callers hear of it and the next group is served.
        let committed = catch_unwind(AssertUnwindSafe(|| shared.commit(&mut core, &ops)));
        let outcomes = committed.unwrap_or_else(|_| {
            tracing::error!(operations = ops.len(), "the store panicked over a group");
            let panicked = || Err(StoreError::Internal("the store panicked".to_owned()));
            ops.iter().map(|_| panicked()).collect()
        });
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Whoever asked may have gone; the commit stands.
            let _ = answer.send(outcome);
        }
    }
}

/// Answers what waits in one transaction: to begin and end one costs as much as a small query.
fn answer_reads(queue: &Mutex<mpsc::Receiver<Query>>, connection: &Connection) {
    let mut waiting = Vec::new();
    loop {
        let taken = queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blocking_recv_many(&mut waiting, READ_GROUP);
        if taken == 0 {
            return;
        }
        let began = begin_reading(connection);
        for query in waiting.drain(..) {
            let usable = began.clone().map(|()| connection);
            // Who asked hears that its thread has ended; the next query is answered.
            if catch_unwind(AssertUnwindSafe(|| query(usable))).is_err() {
                tracing::error!("the store panicked over a query");
            }
        }
        // A read transaction has nothing to lose.
        let _ended = connection
            .prepare_cached("ROLLBACK")
            .and_then(|mut end| end.execute([]));
    }
}

fn begin_reading(connection: &Connection) -> Result<(), StoreError> {
    let begun = connection
        .prepare_cached("BEGIN")
        .and_then(|mut begin| begin.execute([]));
    begun.map(|_| ()).map_err(|error| store_error(&error))
}
