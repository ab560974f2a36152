//! The port over what jobs read on their standard input.

use async_trait::async_trait;
use hodei_shared::ids::{AttemptKey, JobId, WorkerId};

use super::StoreError;

/// A part of a job's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputAppend {
    /// The job.
    pub job: JobId,
    /// Bytes before `data`.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
    /// Nothing follows them.
    pub eof: bool,
    /// How many bytes the whole input may have.
    pub limit: u64,
}

/// What became of an [`InputAppend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputOutcome {
    /// All bytes below `end` are durable. What was stored before is not stored again; a part that begins after
    /// `end` changes nothing.
    Stored {
        /// Position after the last stored byte.
        end: u64,
        /// The end of the input is stored.
        complete: bool,
    },
    /// The input has ended before these bytes.
    AfterEnd,
    /// The input would be larger than it may.
    TooLarge,
    /// The job takes no input.
    NotFed,
    /// The job has ended.
    JobEnded,
    /// There is no such job.
    NoSuchJob,
}

/// What a worker asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputRead {
    /// The attempt that reads.
    pub key: AttemptKey,
    /// The worker whose identity asks.
    pub worker: WorkerId,
    /// Bytes that the attempt has read.
    pub offset: u64,
    /// About how many bytes at most; at least one if there is one.
    pub max_bytes: usize,
}

/// The answer to an [`InputRead`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputPage {
    /// The next bytes; empty if none came yet.
    Data {
        /// The bytes.
        data: Vec<u8>,
        /// Nothing follows them.
        last: bool,
    },
    /// The attempt is over, or another lease is live.
    Stale,
    /// The attempt never was this worker's.
    NotHolder,
}

/// Input of jobs whose spec has a stdin mode. A job that repeats another reads that one's, as it was at its end.
#[async_trait]
pub trait InputStore: Send + Sync + 'static {
    /// Stores parts, in order for each job. Returned means durable.
    async fn append_input(&self, parts: Vec<InputAppend>) -> Result<Vec<InputOutcome>, StoreError>;

    /// Reads the next bytes of an attempt's input.
    async fn read_input(&self, read: InputRead) -> Result<InputPage, StoreError>;
}
