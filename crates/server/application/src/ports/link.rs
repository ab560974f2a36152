//! The typed frames of a worker's session. The transport (gRPC, or the simulation's network) moves them between
//! bounded channels and its wire; it adds nothing.

use hodei_server_domain::job::end::WorkerResult;
use hodei_server_domain::job::spec::JobSpec;
use hodei_shared::ids::{AttemptKey, Namespace, WorkerId};
use hodei_shared::resources::Resources;
use tokio::sync::mpsc;

/// Who is at the other end: made by the transport from the verified certificate, never from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerIdentity {
    /// The worker.
    pub worker: WorkerId,
    /// The generation of its certificate.
    pub generation: u64,
    /// When that certificate ends, and the stream with it.
    pub not_after_ms: i64,
}

/// Both directions of one stream. Dropping either half closes the stream.
#[derive(Debug)]
pub struct WorkerLink {
    /// What the worker says.
    pub incoming: mpsc::Receiver<FromWorker>,
    /// What it is told.
    pub outgoing: mpsc::Sender<ToWorker>,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker {
    /// The first frame.
    Hello(Hello),
    /// It lives.
    Beat {
        /// Grows by one within a session.
        n: u64,
    },
    /// A process runs.
    Running {
        /// Whose.
        key: AttemptKey,
        /// Since when, by the worker's clock.
        started_at_ms: i64,
    },
    /// A process ended.
    Result(AttemptResult),
    /// An attempt was not started and never will be.
    NeverStarted {
        /// Which.
        key: AttemptKey,
        /// Why, for people.
        message: String,
    },
    /// It takes no more jobs and leaves.
    Leaving,
}

/// The first frame of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// Room for jobs.
    pub room: Resources,
    /// How many jobs at once.
    pub slots: u32,
    /// What the kernel enforces for its jobs.
    pub enforced: Vec<String>,
    /// Every attempt it remembers.
    pub held: Vec<HeldAttempt>,
}

/// An attempt that a worker remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldAttempt {
    /// Which.
    pub key: AttemptKey,
    /// How it stands.
    pub state: HeldState,
}

/// How an attempt stands at its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldState {
    /// Not started yet.
    Accepted,
    /// Its process runs.
    Running,
    /// Ended; the result follows.
    Ended,
}

/// The end of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptResult {
    /// Whose.
    pub key: AttemptKey,
    /// How it ended.
    pub result: WorkerResult,
    /// When it started, by the worker's clock; `None`: it never ran.
    pub started_at_ms: Option<i64>,
    /// When it ended.
    pub ended_at_ms: i64,
    /// Position after the last byte of output.
    pub output_end: u64,
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// The first frame.
    Welcome {
        /// The session's number.
        session: u64,
        /// How often to beat, in milliseconds.
        beat_interval_ms: u64,
        /// Where servers are.
        addresses: Vec<String>,
        /// Store time.
        now_ms: i64,
    },
    /// The answer to one held attempt of the Hello.
    Held {
        /// Which.
        key: AttemptKey,
        /// What to do.
        verdict: HeldVerdict,
    },
    /// The beat is committed.
    Beat {
        /// Its number.
        n: u64,
    },
    /// Run this.
    Assign(Box<Assignment>),
    /// Stop this.
    Stop {
        /// Which.
        key: AttemptKey,
        /// Why.
        kind: StopKind,
    },
    /// The result is committed, or nobody waits for it.
    Result {
        /// Whose.
        key: AttemptKey,
        /// What became of it.
        verdict: ResultVerdict,
    },
    /// Take no more jobs; leave when the last one has ended.
    Drain,
    /// Instead of a Welcome: this worker is not known or not wanted any more.
    Refused {
        /// Why.
        message: String,
    },
}

/// What becomes of an attempt that a worker remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldVerdict {
    /// Go on.
    Continue,
    /// Stop it: nobody waits for its result.
    Stop,
    /// Its result stands: forget it.
    Recorded,
}

/// Why a process is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// Somebody cancelled the job.
    Cancel,
    /// The lease is no longer the worker's.
    Stale,
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultVerdict {
    /// Recorded.
    Applied,
    /// Was recorded before.
    Same,
    /// Nobody waits for it, or another one is recorded.
    Stale,
}

/// A claim that leaves for its worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// Job, lease, rank.
    pub key: AttemptKey,
    /// What to run.
    pub spec: JobSpec,
    /// Whose job it is.
    pub namespace: Namespace,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// Whether it would be repeated if it were lost.
    pub repeatable: bool,
}
