//! An in-memory store over ordered maps. It decides with the domain's functions, panics when one of its own
//! invariants breaks, and checks all of them after every write.

mod check;
mod drains;
mod input;
mod jobs;
mod logs;
mod retention;
mod workers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hodei_server_domain::event::Event;
use hodei_server_domain::job::end::WorkerResult;
use hodei_server_domain::job::spec::JobSpec;
use hodei_server_domain::job::state::Job;
use hodei_server_domain::worker::otp::Otp;
use hodei_shared::ids::{AttemptKey, JobId, Namespace, ObjectId, ProviderId, WorkerId};
use tokio::sync::watch;

use crate::ports::events::{EventBus, EventRecord};
use crate::ports::jobs::AttemptRecord;
use crate::ports::output::Part;
use crate::ports::sealed::SealedStore;
use crate::ports::tokens::{TokenRecord, TokenStore};
use crate::ports::workers::{Certificate, WorkerRecord};
use crate::ports::{Clock, StoreError};

/// The strict in-memory store. Clones share it.
#[derive(Clone)]
pub struct FakeStore {
    inner: Arc<Inner>,
}

struct Inner {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    now_ms: i64,
    jobs: BTreeMap<JobId, FakeJob>,
    /// Copies of jobs as they ended: they must never change again.
    ended: BTreeMap<JobId, Job>,
    submissions: BTreeMap<(Namespace, String), FakeSubmission>,
    workers: BTreeMap<WorkerId, FakeWorker>,
    otps: BTreeMap<String, FakeOtp>,
    logs: BTreeMap<AttemptKey, FakeLog>,
    /// How many blocks refer to each object.
    objects: BTreeMap<ObjectId, u64>,
    inputs: BTreeMap<JobId, FakeInput>,
    drains: BTreeMap<ProviderId, String>,
    events: Vec<EventRecord>,
    /// Position of the newest event.
    position: u64,
    tokens: BTreeMap<String, TokenRecord>,
    sealed: BTreeMap<String, Vec<u8>>,
    fail_next: Option<StoreError>,
}

struct FakeSubmission {
    job: JobId,
    spec: JobSpec,
    retry_of: Option<JobId>,
    at_ms: i64,
}

struct FakeJob {
    namespace: Namespace,
    spec: JobSpec,
    retry_of: Option<JobId>,
    created_at_ms: i64,
    ended_at_ms: Option<i64>,
    output_expired: bool,
    job: Job,
    attempts: Vec<FakeAttempt>,
}

struct FakeAttempt {
    record: AttemptRecord,
    result: Option<WorkerResult>,
}

struct FakeWorker {
    record: WorkerRecord,
    certificate: Option<Certificate>,
}

struct FakeOtp {
    worker: WorkerId,
    otp: Otp,
    chain: Vec<Vec<u8>>,
}

/// The input of a job that takes some.
struct FakeInput {
    data: Vec<u8>,
    complete: bool,
}

#[derive(Default)]
struct FakeLog {
    parts: Vec<Part>,
    /// Position after the last byte that was kept; the parts may have been removed since.
    kept: u64,
    /// Bytes below are in the parts, or were cut because the job printed too much.
    taken: u64,
    lines: u64,
    messages: u64,
}

impl FakeStore {
    /// An empty store that takes its time from `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: Arc::new(Inner {
                clock,
                state: Mutex::default(),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// The next writing call fails with `error` and changes nothing.
    pub fn fail_next(&self, error: StoreError) {
        self.lock().fail_next = Some(error);
    }

    /// Checks every invariant that spans several records.
    ///
    /// # Panics
    /// If one is broken.
    pub fn sanity_check(&self) {
        self.lock().check();
    }

    /// What was written stays visible after a panic in a test: it is the test that fails.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        let mut state = self.lock();
        if let Some(error) = state.fail_next.take() {
            return Err(error);
        }
        state.now_ms = self.inner.clock.now_ms();
        let value = change(&mut state);
        state.check();
        drop(state);
        self.inner.changes.send_modify(|n| *n += 1);
        Ok(value)
    }

    fn read<T>(&self, query: impl FnOnce(&State) -> T) -> T {
        let mut state = self.lock();
        state.now_ms = self.inner.clock.now_ms();
        query(&state)
    }
}

impl fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeStore").finish_non_exhaustive()
    }
}

impl State {
    fn event(&mut self, event: Event) {
        self.position += 1;
        let record = EventRecord {
            position: self.position,
            at_ms: self.now_ms,
            event,
        };
        self.events.push(record);
    }
}

#[async_trait]
impl EventBus for FakeStore {
    async fn append(&self, events: Vec<Event>) -> Result<(), StoreError> {
        self.write(|state| events.into_iter().for_each(|event| state.event(event)))
    }

    async fn after(&self, position: u64, limit: usize) -> Result<Vec<EventRecord>, StoreError> {
        let after = |state: &State| {
            let newer = state.events.iter().filter(|record| record.position > position);
            newer.take(limit).cloned().collect()
        };
        Ok(self.read(after))
    }

    async fn of_job(&self, job: JobId) -> Result<Vec<EventRecord>, StoreError> {
        let of_job = |state: &State| {
            let about = state
                .events
                .iter()
                .filter(|record| record.event.job() == Some(job));
            about.take(1_000).cloned().collect()
        };
        Ok(self.read(of_job))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }
}

#[async_trait]
impl TokenStore for FakeStore {
    async fn find(&self, id: &str) -> Result<Option<TokenRecord>, StoreError> {
        Ok(self.read(|state| state.tokens.get(id).cloned()))
    }

    async fn create_first(&self, token: TokenRecord) -> Result<bool, StoreError> {
        self.write(|state| {
            let refused = state.tokens.contains_key(&token.id) || state.tokens.values().any(|t| !t.revoked);
            if !refused {
                state.tokens.insert(token.id.clone(), token);
            }
            !refused
        })
    }
}

#[async_trait]
impl SealedStore for FakeStore {
    async fn get_sealed(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.read(|state| state.sealed.get(name).cloned()))
    }

    async fn put_sealed_first(&self, name: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        self.write(|state| state.sealed.entry(name.to_owned()).or_insert(value).clone())
    }
}
