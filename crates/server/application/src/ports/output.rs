//! The port over what jobs print.
//!
//! A log is a sequence of parts without gaps: bytes that the store holds itself (the tail, where small batches go),
//! and blocks, whose bytes lie in an object of [`OutputObjects`](super::objects::OutputObjects). A block is stored
//! after its object is durable; so a crash leaves an object that nobody refers to, never a block without bytes.

use async_trait::async_trait;
use hodei_shared::ids::{AttemptKey, ObjectId, WorkerId};
use hodei_shared::offsets::Piece;

use super::StoreError;

/// How old an object may be when a block of it is stored, in milliseconds. Objects without blocks that are much
/// older are removed, so no block ever refers to a removed one.
pub const BLOCK_MAX_AGE_MS: i64 = 30 * 60 * 1_000;
/// The tail of a live attempt is moved into an object from this size on.
pub const LIVE_TAIL_BYTES: u64 = 1 << 20;
/// The tail of an ended attempt is moved if it is larger.
pub const ENDED_TAIL_BYTES: u64 = 64 << 10;

/// A batch of output to be stored.
#[derive(Debug, Clone)]
pub struct OutputAppend {
    /// Whose output.
    pub key: AttemptKey,
    /// The worker whose identity brings it.
    pub worker: WorkerId,
    /// What it brings.
    pub content: Content,
    /// How many bytes are kept of the whole job.
    pub job_limit: u64,
}

/// What a batch brings.
#[derive(Debug, Clone)]
pub enum Content {
    /// The bytes; consistent.
    Bytes(Piece),
    /// Bytes that are durable in an object.
    Block(Block),
}

/// A part of a log whose bytes lie in an object: the data, and right after it the encoded runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Position of the first byte in the log.
    pub start: u64,
    /// How many bytes of the log; at least one.
    pub len: u64,
    /// Newlines in them.
    pub lines: u64,
    /// Messages in which they came.
    pub messages: u64,
    /// The object.
    pub object: ObjectId,
    /// Where the data begins in the object.
    pub offset: u64,
    /// How many bytes the encoded runs have.
    pub runs_len: u64,
}

impl Block {
    /// Position after the last byte.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// What became of an [`OutputAppend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// All bytes below this position are durable, but for those that the job printed beyond its limit. What was stored before is never stored twice; a piece that
    /// begins after the stored end changes nothing and is answered with that end.
    Stored(u64),
    /// The attempt is over and complete, its output has expired, or another lease is live.
    Stale,
    /// The attempt never was this worker's.
    NotHolder,
    /// A block that does not begin at the stored end, would have to be cut, for whatever reason, or lies in an object that is older than
    /// [`BLOCK_MAX_AGE_MS`]: nothing was stored. The same as bytes would be.
    Moved,
}

/// A part of a log as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Bytes.
    Bytes(Piece),
    /// Bytes that lie in an object.
    Block(Block),
}

impl Part {
    /// Position of the first byte.
    pub fn start(&self) -> u64 {
        match self {
            Self::Bytes(piece) => piece.start,
            Self::Block(block) => block.start,
        }
    }

    /// Position after the last byte.
    pub fn end(&self) -> u64 {
        match self {
            Self::Bytes(piece) => piece.end(),
            Self::Block(block) => block.end(),
        }
    }
}

/// Parts of an attempt's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputPage {
    /// Parts in order without gaps. Bytes begin at the position asked for; a block holds that position.
    pub parts: Vec<Part>,
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
    ///
    /// What a job prints beyond its limit, in all of its attempts together, is taken and not kept; the log is
    /// `truncated` from there on and has no holes.
    async fn append(&self, batches: Vec<OutputAppend>) -> Result<Vec<AppendOutcome>, StoreError>;

    /// Reads from `position` on, about `max_bytes` at most, at least one part if there is one.
    async fn read(&self, key: AttemptKey, position: u64, max_bytes: usize) -> Result<OutputPage, StoreError>;

    /// Logs whose tail should be moved, the largest first: of live attempts from [`LIVE_TAIL_BYTES`] on, of ended
    /// ones above [`ENDED_TAIL_BYTES`].
    async fn large_tails(&self, limit: usize) -> Result<Vec<AttemptKey>, StoreError>;

    /// The tail of a log, oldest first, about `max_bytes` and at most `max_pieces`. Blocks may lie between pieces.
    async fn tail(
        &self,
        key: AttemptKey,
        max_bytes: usize,
        max_pieces: usize,
    ) -> Result<Vec<Piece>, StoreError>;

    /// Puts blocks in the place of the pieces of tails that they hold. False for a block that does not stand for
    /// whole pieces that are there, or lies in an object that is older than [`BLOCK_MAX_AGE_MS`].
    async fn move_tails(&self, blocks: Vec<(AttemptKey, Block)>) -> Result<Vec<bool>, StoreError>;

    /// Objects whose last block was removed. No block will ever refer to them again.
    async fn unused_objects(&self, limit: usize) -> Result<Vec<ObjectId>, StoreError>;

    /// Forgets objects without blocks that were removed.
    async fn forget_objects(&self, ids: Vec<ObjectId>) -> Result<(), StoreError>;

    /// Those of `ids` that no block refers or referred to.
    async fn unknown_objects(&self, ids: Vec<ObjectId>) -> Result<Vec<ObjectId>, StoreError>;
}
