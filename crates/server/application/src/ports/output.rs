//! The port over what jobs print.

use async_trait::async_trait;
use hodei_shared::ids::{AttemptKey, WorkerId};
use hodei_shared::offsets::Piece;

use super::StoreError;

/// A batch of output to be stored.
#[derive(Debug, Clone)]
pub struct OutputAppend {
    /// Whose output.
    pub key: AttemptKey,
    /// The worker whose identity brings it.
    pub worker: WorkerId,
    /// The bytes; consistent.
    pub piece: Piece,
}

/// What became of an [`OutputAppend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// All bytes below this position are durable. What was stored before is never stored twice; a piece that
    /// begins after the stored end changes nothing and is answered with that end.
    Stored(u64),
    /// The attempt is over and complete, or another lease is live.
    Stale,
    /// The attempt never was this worker's.
    NotHolder,
}

/// A part of an attempt's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputPage {
    /// Pieces in order without gaps, the first at the position asked for.
    pub pieces: Vec<Piece>,
    /// Position after the last stored byte.
    pub stored_end: u64,
}

/// Output. Appending is batched with everything else that is committed.
#[async_trait]
pub trait OutputStore: Send + Sync + 'static {
    /// Stores batches, in order for each attempt. Returned means durable.
    ///
    /// Accepted for a live attempt, and for one that ended with a declared end that is not reached yet; of what
    /// comes for that one, the part beyond the declared end is cut off.
    async fn append(&self, batches: Vec<OutputAppend>) -> Result<Vec<AppendOutcome>, StoreError>;

    /// Reads from `position` on, about `max_bytes` at most, at least one piece if there is one.
    async fn read(&self, key: AttemptKey, position: u64, max_bytes: usize) -> Result<OutputPage, StoreError>;
}
