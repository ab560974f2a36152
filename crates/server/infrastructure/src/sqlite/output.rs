//! What jobs print: one log per attempt and rank, in rows.

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::output::{AppendOutcome, OutputAppend, OutputPage, OutputStore};
use hodei_shared::ids::{AttemptKey, WorkerId};
use hodei_shared::offsets::Piece;
use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::core::Change;
use super::op::{Op, perform};
use super::value::{from_json, int, one, to_json, uint, worker_id};

pub(super) const STATE: &str = include_str!("sql/output_state.sql");
pub(super) const READ: &str = include_str!("sql/output_read.sql");
const END: &str = "SELECT end FROM output_log WHERE job = ?1 AND lease = ?2 AND rank = ?3";

/// An attempt as its output sees it.
struct LogState {
    worker: WorkerId,
    live: bool,
    declared_end: Option<u64>,
    stored_end: u64,
}

impl LogState {
    /// Bytes from this position on are not taken: a late worker may complete what its result declared, no more.
    fn limit(&self) -> u64 {
        if self.live {
            return u64::MAX;
        }
        self.declared_end.unwrap_or(0)
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
        let limit = state.limit();
        if state.stored_end >= limit {
            return Ok(AppendOutcome::Stale);
        }
        if batch.piece.start > state.stored_end {
            return Ok(AppendOutcome::Stored(state.stored_end));
        }
        let fresh = batch.piece.clone().from_position(state.stored_end);
        match fresh.and_then(|fresh| fresh.until_position(limit)) {
            Some(fresh) => {
                self.store_piece(batch.key, &fresh)?;
                Ok(AppendOutcome::Stored(fresh.end()))
            }
            None => Ok(AppendOutcome::Stored(state.stored_end)),
        }
    }

    fn log_state(&self, key: AttemptKey) -> rusqlite::Result<Option<LogState>> {
        let mut select = self.connection.prepare_cached(STATE)?;
        let found = select.query_row(params![key.job.as_bytes(), int(key.lease.0), key.rank.0], |row| {
            Ok(LogState {
                worker: worker_id(row, 0)?,
                live: row.get(1)?,
                declared_end: row.get::<_, Option<i64>>(2)?.map(i64::unsigned_abs),
                stored_end: uint(row, 3)?,
            })
        });
        found.optional()
    }

    fn store_piece(&self, key: AttemptKey, piece: &Piece) -> rusqlite::Result<()> {
        let (job, lease, rank) = (key.job.as_bytes(), int(key.lease.0), key.rank.0);
        self.connection
            .prepare_cached(
                "INSERT INTO output_tail (job, lease, rank, start, end, data, runs)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                job,
                lease,
                rank,
                int(piece.start),
                int(piece.end()),
                piece.data,
                to_json(&piece.runs)?
            ])?;
        let lines = piece.data.iter().filter(|byte| **byte == b'\n').count();
        self.connection
            .prepare_cached(include_str!("sql/output_grow.sql"))?
            .execute(params![job, lease, rank, int(piece.end()), int(lines as u64)])?;
        Ok(())
    }
}

/// Position after the last stored byte.
pub(super) fn stored_end(connection: &Connection, key: AttemptKey) -> rusqlite::Result<u64> {
    let mut select = connection.prepare_cached(END)?;
    let end: Option<i64> = select
        .query_row(params![key.job.as_bytes(), int(key.lease.0), key.rank.0], one)
        .optional()?;
    Ok(end.map_or(0, i64::unsigned_abs))
}

fn read_page(
    connection: &Connection,
    key: AttemptKey,
    position: u64,
    max_bytes: usize,
) -> rusqlite::Result<OutputPage> {
    let mut page = OutputPage {
        pieces: Vec::new(),
        stored_end: stored_end(connection, key)?,
    };
    let mut select = connection.prepare_cached(READ)?;
    let mut rows = select.query(params![
        key.job.as_bytes(),
        int(key.lease.0),
        key.rank.0,
        int(position)
    ])?;
    let mut bytes = 0;
    while bytes < max_bytes.max(1)
        && let Some(row) = rows.next()?
    {
        let piece = Piece {
            start: uint(row, 0)?,
            data: row.get(1)?,
            runs: from_json(row, 2)?,
        };
        if let Some(piece) = piece.from_position(position) {
            bytes += piece.data.len();
            page.pieces.push(piece);
        }
    }
    Ok(page)
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
}
