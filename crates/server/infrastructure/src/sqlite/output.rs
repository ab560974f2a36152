//! What jobs print: one log per attempt and rank, in rows and in blocks of objects.

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::output::{
    AppendOutcome, Block, Content, OutputAppend, OutputPage, OutputStore, Part,
};
use hodei_shared::ids::{AttemptKey, ObjectId, WorkerId};
use hodei_shared::offsets::Piece;
use rusqlite::{Connection, OptionalExtension, Row, Rows, params};

use super::SqliteStore;
use super::core::Change;
use super::op::{Op, perform};
use super::output_objects;
use super::value::{from_json, int, object_id, one, to_json, uint, worker_id};

pub(super) const STATE: &str = include_str!("sql/output_state.sql");
pub(super) const READ: &str = include_str!("sql/output_read.sql");
pub(super) const READ_BLOCKS: &str = include_str!("sql/output_read_blocks.sql");
const END: &str = "SELECT end FROM output_log WHERE job = ?1 AND lease = ?2 AND rank = ?3";
const KEPT: &str = "SELECT kept FROM output_log WHERE job = ?1 AND lease = ?2 AND rank = ?3";

/// An attempt as its output sees it.
struct LogState {
    worker: WorkerId,
    live: bool,
    declared_end: Option<u64>,
    /// Bytes below are stored, or cut because the job printed too much.
    taken: u64,
    /// Bytes below are stored.
    kept: u64,
    /// What was stored is removed.
    expired: bool,
    /// How much is stored of the job's other attempts.
    kept_of_others: u64,
}

impl LogState {
    /// Bytes from this position on are not taken: a late worker may complete what its result declared, no more.
    fn limit(&self) -> u64 {
        if self.expired {
            return 0;
        }
        if self.live {
            return u64::MAX;
        }
        self.declared_end.unwrap_or(0)
    }

    /// Bytes from this position on are taken and not stored. A log that was cut stays so: it has no holes.
    fn room_end(&self, job_limit: u64) -> u64 {
        if self.kept < self.taken {
            return self.kept;
        }
        job_limit.saturating_sub(self.kept_of_others)
    }
}

impl Change<'_> {
    pub(super) fn append(&mut self, batches: &[OutputAppend]) -> rusqlite::Result<Vec<AppendOutcome>> {
        batches.iter().map(|batch| self.append_one(batch)).collect()
    }

    fn append_one(&self, batch: &OutputAppend) -> rusqlite::Result<AppendOutcome> {
        let Some(state) = self.log_state(batch.key)? else {
            return Ok(AppendOutcome::NotHolder);
        };
        if state.worker != batch.worker {
            return Ok(AppendOutcome::NotHolder);
        }
        if state.taken >= state.limit() {
            return Ok(AppendOutcome::Stale);
        }
        match &batch.content {
            Content::Bytes(piece) => self.append_bytes(batch, &state, piece),
            Content::Block(block) => self.append_block(batch, &state, block),
        }
    }

    fn append_bytes(
        &self,
        batch: &OutputAppend,
        state: &LogState,
        piece: &Piece,
    ) -> rusqlite::Result<AppendOutcome> {
        if piece.start > state.taken {
            return Ok(AppendOutcome::Stored(state.taken));
        }
        let fresh = piece.clone().from_position(state.taken);
        let Some(fresh) = fresh.and_then(|fresh| fresh.until_position(state.limit())) else {
            return Ok(AppendOutcome::Stored(state.taken));
        };
        let mut growth = Growth {
            end: fresh.end(),
            kept: state.kept,
            lines: 0,
            messages: 1,
            tail_bytes: 0,
        };
        if let Some(kept) = fresh.until_position(state.room_end(batch.job_limit)) {
            self.store_piece(batch.key, &kept)?;
            growth.kept = kept.end();
            growth.lines = kept.data.iter().filter(|byte| **byte == b'\n').count() as u64;
            growth.tail_bytes = kept.data.len() as u64;
        }
        self.grow(batch.key, &growth)?;
        Ok(AppendOutcome::Stored(growth.end))
    }

    fn append_block(
        &self,
        batch: &OutputAppend,
        state: &LogState,
        block: &Block,
    ) -> rusqlite::Result<AppendOutcome> {
        let end = state.limit().min(state.room_end(batch.job_limit));
        if block.start != state.taken || block.end() > end || !self.is_young(block) {
            return Ok(AppendOutcome::Moved);
        }
        self.store_block(batch.key, block)?;
        let growth = Growth {
            end: block.end(),
            kept: block.end(),
            lines: block.lines,
            messages: block.messages,
            tail_bytes: 0,
        };
        self.grow(batch.key, &growth)?;
        Ok(AppendOutcome::Stored(growth.end))
    }

    fn log_state(&self, key: AttemptKey) -> rusqlite::Result<Option<LogState>> {
        let mut select = self.connection.prepare_cached(STATE)?;
        let found = select.query_row(params![key.job.as_bytes(), int(key.lease.0), key.rank.0], |row| {
            Ok(LogState {
                worker: worker_id(row, 0)?,
                live: row.get(1)?,
                declared_end: row.get::<_, Option<i64>>(2)?.map(i64::unsigned_abs),
                taken: uint(row, 3)?,
                kept: uint(row, 4)?,
                expired: row.get(5)?,
                kept_of_others: uint(row, 6)?,
            })
        });
        found.optional()
    }

    fn store_piece(&self, key: AttemptKey, piece: &Piece) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO output_tail (job, lease, rank, start, end, data, runs)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                key.job.as_bytes(),
                int(key.lease.0),
                key.rank.0,
                int(piece.start),
                int(piece.end()),
                piece.data,
                to_json(&piece.runs)?
            ])?;
        Ok(())
    }

    fn grow(&self, key: AttemptKey, by: &Growth) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(include_str!("sql/output_grow.sql"))?
            .execute(params![
                key.job.as_bytes(),
                int(key.lease.0),
                key.rank.0,
                int(by.end),
                int(by.kept),
                int(by.lines),
                int(by.messages),
                int(by.tail_bytes)
            ])?;
        Ok(())
    }
}

/// What a log becomes larger by.
struct Growth {
    end: u64,
    kept: u64,
    lines: u64,
    messages: u64,
    tail_bytes: u64,
}

/// Position below which everything was taken: stored, or cut because the job printed too much.
pub(super) fn taken_end(connection: &Connection, key: AttemptKey) -> rusqlite::Result<u64> {
    position(connection, END, key)
}

fn position(connection: &Connection, sql: &str, key: AttemptKey) -> rusqlite::Result<u64> {
    let mut select = connection.prepare_cached(sql)?;
    let position: Option<i64> = select
        .query_row(params![key.job.as_bytes(), int(key.lease.0), key.rank.0], one)
        .optional()?;
    Ok(position.map_or(0, i64::unsigned_abs))
}

/// The parts of both tables are merged: each byte is in one of them, and each list is in order.
fn read_page(
    connection: &Connection,
    key: AttemptKey,
    position: u64,
    max_bytes: usize,
) -> rusqlite::Result<OutputPage> {
    let mut parts: Vec<Part> = Vec::new();
    let mut select = connection.prepare_cached(READ_BLOCKS)?;
    let values = params![key.job.as_bytes(), int(key.lease.0), key.rank.0, int(position)];
    take(&mut select.query(values)?, max_bytes, &mut parts, |row| {
        Ok(Some(Part::Block(block(row)?)))
    })?;
    let mut select = connection.prepare_cached(READ)?;
    take(&mut select.query(values)?, max_bytes, &mut parts, |row| {
        Ok(piece(row)?.from_position(position).map(Part::Bytes))
    })?;
    parts.sort_by_key(Part::start);
    // Where one list was cut short, the other may go on behind a gap.
    let (mut end, mut bytes) = (position, 0);
    parts.retain(|part| {
        let follows = part.start() <= end && bytes < max_bytes.max(1);
        if follows {
            bytes += usize::try_from(part.end() - end).unwrap_or(usize::MAX);
            end = part.end();
        }
        follows
    });
    Ok(OutputPage {
        parts,
        stored_end: self::position(connection, KEPT, key)?,
    })
}

/// Takes rows until they hold `max_bytes`.
fn take(
    rows: &mut Rows<'_>,
    max_bytes: usize,
    parts: &mut Vec<Part>,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Option<Part>>,
) -> rusqlite::Result<()> {
    let mut bytes = 0;
    while bytes < max_bytes.max(1)
        && let Some(row) = rows.next()?
    {
        if let Some(part) = read(row)? {
            bytes += usize::try_from(part.end() - part.start()).unwrap_or(usize::MAX);
            parts.push(part);
        }
    }
    Ok(())
}

/// A piece from `start`, `data`, `runs`.
pub(super) fn piece(row: &Row<'_>) -> rusqlite::Result<Piece> {
    Ok(Piece {
        start: uint(row, 0)?,
        data: row.get(1)?,
        runs: from_json(row, 2)?,
    })
}

fn block(row: &Row<'_>) -> rusqlite::Result<Block> {
    let start = uint(row, 0)?;
    Ok(Block {
        start,
        len: uint(row, 1)?.saturating_sub(start),
        object: object_id(row, 2)?,
        offset: uint(row, 3)?,
        runs_len: uint(row, 4)?,
        lines: uint(row, 5)?,
        messages: uint(row, 6)?,
    })
}

#[async_trait]
impl OutputStore for SqliteStore {
    async fn append(&self, batches: Vec<OutputAppend>) -> Result<Vec<AppendOutcome>, StoreError> {
        perform!(self, Op::Append(batches), Append)
    }

    async fn read(&self, key: AttemptKey, position: u64, max_bytes: usize) -> Result<OutputPage, StoreError> {
        SqliteStore::read(self, move |connection| {
            read_page(connection, key, position, max_bytes)
        })
        .await
    }

    async fn large_tails(&self, limit: usize) -> Result<Vec<AttemptKey>, StoreError> {
        SqliteStore::read(self, move |connection| {
            output_objects::large_tails(connection, limit)
        })
        .await
    }

    async fn tail(
        &self,
        key: AttemptKey,
        max_bytes: usize,
        max_pieces: usize,
    ) -> Result<Vec<Piece>, StoreError> {
        SqliteStore::read(self, move |connection| {
            output_objects::tail(connection, key, max_bytes, max_pieces)
        })
        .await
    }

    async fn move_tails(&self, blocks: Vec<(AttemptKey, Block)>) -> Result<Vec<bool>, StoreError> {
        perform!(self, Op::MoveTails(blocks), MoveTails)
    }

    async fn unused_objects(&self, limit: usize) -> Result<Vec<ObjectId>, StoreError> {
        SqliteStore::read(self, move |connection| output_objects::unused(connection, limit)).await
    }

    async fn forget_objects(&self, ids: Vec<ObjectId>) -> Result<(), StoreError> {
        perform!(self, Op::ForgetObjects(ids), ForgetObjects)
    }

    async fn unknown_objects(&self, ids: Vec<ObjectId>) -> Result<Vec<ObjectId>, StoreError> {
        SqliteStore::read(self, move |connection| output_objects::unknown(connection, &ids)).await
    }
}
