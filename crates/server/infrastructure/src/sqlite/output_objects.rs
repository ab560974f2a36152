//! Blocks of logs and the objects that they refer to.

use hodei_server_application::ports::output::{BLOCK_MAX_AGE_MS, Block, LIVE_TAIL_BYTES};
use hodei_shared::ids::{AttemptKey, ObjectId};
use hodei_shared::offsets::Piece;
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::core::Change;
use super::output::piece;
use super::value::{attempt_key, count, int, object_id};

pub(super) const LARGE_TAILS: &str = include_str!("sql/large_tails.sql");
pub(super) const TAIL: &str = "SELECT start, data, runs FROM output_tail
     WHERE job = ?1 AND lease = ?2 AND rank = ?3 ORDER BY start LIMIT ?4";
pub(super) const TAIL_RANGE: &str = include_str!("sql/tail_range.sql");
pub(super) const UNUSED: &str = "SELECT id FROM output_object WHERE blocks = 0 ORDER BY id LIMIT ?1";
const KNOWN: &str = "SELECT 1 FROM output_object WHERE id = ?1";

impl Change<'_> {
    /// Whether a block's object is too young to be collected.
    pub(super) fn is_young(&self, block: &Block) -> bool {
        self.now_ms - block.object.made_at_ms() <= BLOCK_MAX_AGE_MS
    }

    pub(super) fn store_block(&self, key: AttemptKey, block: &Block) -> Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO output_block (job, lease, rank, start, end, object, position, runs_len, lines, messages)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                key.job.as_bytes(),
                int(key.lease.0),
                key.rank.0,
                int(block.start),
                int(block.end()),
                block.object.as_bytes(),
                int(block.offset),
                int(block.runs_len),
                int(block.lines),
                int(block.messages)
            ])?;
        self.connection
            .prepare_cached(
                "INSERT INTO output_object (id, blocks) VALUES (?1, 1)
                 ON CONFLICT (id) DO UPDATE SET blocks = blocks + 1",
            )?
            .execute([block.object.as_bytes()])?;
        Ok(())
    }

    pub(super) fn move_tails(&mut self, blocks: &[(AttemptKey, Block)]) -> Result<Vec<bool>> {
        blocks
            .iter()
            .map(|(key, block)| self.move_tail(*key, block))
            .collect()
    }

    fn move_tail(&self, key: AttemptKey, block: &Block) -> Result<bool> {
        let (job, lease, rank) = (key.job.as_bytes(), int(key.lease.0), key.rank.0);
        let (start, end) = (int(block.start), int(block.end()));
        let range = params![job, lease, rank, start, end];
        let there: (Option<i64>, Option<i64>, Option<i64>) = self
            .connection
            .prepare_cached(TAIL_RANGE)?
            .query_row(range, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        if there != (Some(start), Some(end), Some(end - start)) || !self.is_young(block) {
            return Ok(false);
        }
        self.connection
            .prepare_cached(
                "DELETE FROM output_tail
                 WHERE job = ?1 AND lease = ?2 AND rank = ?3 AND start >= ?4 AND start < ?5",
            )?
            .execute(range)?;
        self.connection
            .prepare_cached(
                "UPDATE output_log SET tail_bytes = tail_bytes - ?4 WHERE job = ?1 AND lease = ?2 AND rank = ?3",
            )?
            .execute(params![job, lease, rank, end - start])?;
        self.store_block(key, block)?;
        Ok(true)
    }

    pub(super) fn forget_objects(&mut self, ids: &[ObjectId]) -> Result<()> {
        let mut delete = self
            .connection
            .prepare_cached("DELETE FROM output_object WHERE id = ?1 AND blocks = 0")?;
        for id in ids {
            delete.execute([id.as_bytes()])?;
        }
        Ok(())
    }
}

pub(super) fn large_tails(connection: &Connection, limit: usize) -> Result<Vec<AttemptKey>> {
    let mut select = connection.prepare_cached(LARGE_TAILS)?;
    select
        .query_map(params![int(LIVE_TAIL_BYTES), count(limit)], |row| {
            attempt_key(row, 0)
        })?
        .collect()
}

pub(super) fn tail(
    connection: &Connection,
    key: AttemptKey,
    max_bytes: usize,
    max_pieces: usize,
) -> Result<Vec<Piece>> {
    let mut select = connection.prepare_cached(TAIL)?;
    let mut rows = select.query(params![
        key.job.as_bytes(),
        int(key.lease.0),
        key.rank.0,
        count(max_pieces)
    ])?;
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    while bytes < max_bytes
        && let Some(row) = rows.next()?
    {
        let piece = piece(row)?;
        bytes += piece.data.len();
        pieces.push(piece);
    }
    Ok(pieces)
}

pub(super) fn unused(connection: &Connection, limit: usize) -> Result<Vec<ObjectId>> {
    let mut select = connection.prepare_cached(UNUSED)?;
    select
        .query_map([count(limit)], |row| object_id(row, 0))?
        .collect()
}

pub(super) fn unknown(connection: &Connection, ids: &[ObjectId]) -> Result<Vec<ObjectId>> {
    let mut select = connection.prepare_cached(KNOWN)?;
    let mut unknown = Vec::new();
    for id in ids {
        let known = select.query_row([id.as_bytes()], |_| Ok(())).optional()?;
        if known.is_none() {
            unknown.push(*id);
        }
    }
    Ok(unknown)
}
