//! The frames of a session and of the output stream, typed; the adapter of the link turns them into messages.

use std::time::Duration;

use hodei_shared::ids::AttemptKey;
use hodei_shared::offsets::Piece;

use crate::assignment::Assignment;
use crate::attempt::AttemptResult;

/// The first frame of a session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// Room for jobs: thousandths of a processor.
    pub cpu_millis: u64,
    /// Room for jobs: bytes.
    pub memory_bytes: u64,
    /// How many jobs at once.
    pub slots: u32,
    /// What the kernel enforces for its jobs.
    pub enforced: Vec<String>,
    /// Every attempt that is not acknowledged yet.
    pub held: Vec<Held>,
    /// The worker's version.
    pub version: String,
}

/// One attempt that the worker holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The attempt.
    pub key: AttemptKey,
    /// How far it is.
    pub state: HeldState,
    /// Position after the last byte of output that the worker has read.
    pub output_end: u64,
}

/// How far a held attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldState {
    /// Not started yet.
    Accepted,
    /// Its process runs, or its output is still being read.
    Running,
    /// Ended; its result is not acknowledged and follows.
    Ended,
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerFrame {
    /// The first frame of a session.
    Hello(Hello),
    /// The worker is alive; the number grows by one within a session.
    Beat(u64),
    /// A process has started, at the wall time in milliseconds.
    Running {
        /// The attempt.
        key: AttemptKey,
        /// When its process started.
        started_at_ms: i64,
    },
    /// How an attempt ended; sent until it is answered.
    Result(AttemptResult),
    /// The attempt was not started and never will be.
    NeverStarted {
        /// The attempt.
        key: AttemptKey,
        /// One line for people.
        message: String,
    },
    /// The worker takes no more jobs and goes.
    Leaving,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    /// The first frame of a session.
    Welcome {
        /// Number of the session; it only grows.
        session: u64,
        /// Time between two beats.
        beat_interval: Duration,
        /// The current list of server addresses.
        addresses: Vec<String>,
        /// Server time in milliseconds since the Unix epoch.
        now_ms: i64,
    },
    /// Beat `n` is committed.
    BeatAnswer(u64),
    /// Run this attempt.
    Assign(Assignment),
    /// End this attempt.
    Stop {
        /// The attempt.
        key: AttemptKey,
        /// Why.
        kind: StopKind,
    },
    /// The result is committed, or nobody waits for it.
    ResultAnswer {
        /// The attempt.
        key: AttemptKey,
        /// What became of it.
        verdict: ResultVerdict,
    },
    /// The answer to one held attempt of the Hello.
    HelloAnswer {
        /// The attempt.
        key: AttemptKey,
        /// What to do with it.
        verdict: HeldVerdict,
    },
    /// Take no more jobs; leave when the last one has ended.
    Drain,
    /// The current list of server addresses.
    Addresses(Vec<String>),
    /// Instead of a Welcome: the worker is not known or not wanted any more, and why.
    Refused(String),
}

/// Why the server stops an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// Somebody cancelled the job; a result is expected.
    Cancel,
    /// The lease is no longer the worker's: nobody waits for a result.
    Stale,
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResultVerdict {
    /// Recorded now.
    Applied,
    /// Was recorded already.
    Same,
    /// Nobody waits for it.
    Stale,
}

/// What to do with a held attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldVerdict {
    /// Go on.
    Continue,
    /// End it.
    Stop,
    /// Its result stands; forget it.
    Recorded,
}

/// A batch of output on its way to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputBatch {
    /// The attempt.
    pub key: AttemptKey,
    /// The bytes and where they stand in its combined log.
    pub piece: Piece,
}

/// The server's answer to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputAnswer {
    /// The attempt.
    pub key: AttemptKey,
    /// Bytes below are durable.
    pub end: u64,
    /// What became of the batch.
    pub verdict: OutputVerdict,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputVerdict {
    /// Bytes below `end` are durable.
    Stored,
    /// The lease is no longer the worker's: drop the output.
    Stale,
    /// Could not be stored now; send again from `end`.
    Retry,
}
