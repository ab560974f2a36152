//! The port over what is removed when it is old.

use async_trait::async_trait;

use super::StoreError;

/// What is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The output of jobs that ended before this time; how much it was stays known.
    Output {
        /// Store time.
        ended_before_ms: i64,
    },
    /// Jobs that ended before this time, with their attempts, output and events. The positions of other events stay.
    Jobs {
        /// Store time.
        ended_before_ms: i64,
    },
    /// Request ids that were used before this time: the same request would be a new job.
    Submissions {
        /// Store time.
        before_ms: i64,
    },
}

/// Removing what is old.
#[async_trait]
pub trait Retention: Send + Sync + 'static {
    /// Removes what has expired, the oldest first, about `max_rows` rows in one transaction. Returns how many were
    /// removed; 0: there is nothing more. A job is removed with its last row, and is whole for its readers until then
    /// but for output and events.
    async fn expire(&self, expiry: Expiry, max_rows: usize) -> Result<usize, StoreError>;
}
