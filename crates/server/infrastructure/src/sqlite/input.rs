//! What jobs read: one log per job, in rows, and who reads whose.

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::input::{InputAppend, InputOutcome, InputPage, InputRead, InputStore};
use hodei_server_application::ports::jobs::NewJob;
use hodei_shared::ids::{JobId, WorkerId};
use rusqlite::{Connection, OptionalExtension, Result, params};

use super::SqliteStore;
use super::core::Change;
use super::op::{Op, perform};
use super::output;
use super::value::{int, job_id, uint, worker_id};

pub(super) const STATE: &str = include_str!("sql/input_state.sql");
pub(super) const READ: &str = include_str!("sql/input_read.sql");
const SOURCE: &str = "SELECT source, end, complete FROM input_log WHERE job = ?1";

impl Change<'_> {
    /// Makes room for the input of a job that takes some.
    pub(super) fn open_input(&self, new: &NewJob) -> Result<()> {
        if !new.spec.stdin.is_fed() {
            return Ok(());
        }
        let (source, end, complete) = match new.retry_of {
            Some(repeated) => log(self.connection, repeated)?.map_or((new.id, 0, false), |log| {
                // It has ended, so nothing is added any more.
                (log.source, log.end, true)
            }),
            None => (new.id, 0, false),
        };
        self.connection
            .prepare_cached("INSERT INTO input_log (job, source, end, complete) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![new.id.as_bytes(), source.as_bytes(), int(end), complete])?;
        Ok(())
    }

    pub(super) fn append_input(&mut self, parts: &[InputAppend]) -> Result<Vec<InputOutcome>> {
        parts.iter().map(|part| self.append_part(part)).collect()
    }

    fn append_part(&self, part: &InputAppend) -> Result<InputOutcome> {
        let mut select = self.connection.prepare_cached(STATE)?;
        let state = select.query_row([part.job.as_bytes()], |row| {
            Ok((uint(row, 0)?, row.get::<_, bool>(1)?, row.get::<_, bool>(2)?))
        });
        let Some((end, complete, lives)) = state.optional()? else {
            let mut known = self
                .connection
                .prepare_cached("SELECT 1 FROM job WHERE id = ?1")?;
            return Ok(match known.exists([part.job.as_bytes()])? {
                true => InputOutcome::NotFed,
                false => InputOutcome::NoSuchJob,
            });
        };
        let part_end = part.offset.saturating_add(part.data.len() as u64);
        if !lives {
            return Ok(InputOutcome::JobEnded);
        }
        if complete && part_end > end {
            return Ok(InputOutcome::AfterEnd);
        }
        if complete || part.offset > end {
            return Ok(InputOutcome::Stored { end, complete });
        }
        if part_end > part.limit {
            return Ok(InputOutcome::TooLarge);
        }
        let known = usize::try_from(end - part.offset).unwrap_or(usize::MAX);
        let fresh = part.data.get(known..).unwrap_or_default();
        let complete = part.eof && part_end >= end;
        self.store_part(part.job, end, fresh, complete)?;
        Ok(InputOutcome::Stored {
            end: end + fresh.len() as u64,
            complete,
        })
    }

    fn store_part(&self, job: JobId, start: u64, data: &[u8], complete: bool) -> Result<()> {
        if !data.is_empty() {
            self.connection
                .prepare_cached("INSERT INTO input_part (job, start, data) VALUES (?1, ?2, ?3)")?
                .execute(params![job.as_bytes(), int(start), data])?;
        }
        self.connection
            .prepare_cached("UPDATE input_log SET end = ?2, complete = ?3 WHERE job = ?1")?
            .execute(params![job.as_bytes(), int(start + data.len() as u64), complete])?;
        Ok(())
    }
}

struct Log {
    source: JobId,
    end: u64,
    complete: bool,
}

fn log(connection: &Connection, job: JobId) -> Result<Option<Log>> {
    let mut select = connection.prepare_cached(SOURCE)?;
    let found = select.query_row([job.as_bytes()], |row| {
        Ok(Log {
            source: job_id(row, 0)?,
            end: uint(row, 1)?,
            complete: row.get(2)?,
        })
    });
    found.optional()
}

/// Who holds an attempt, and whether it lives.
fn holder(connection: &Connection, read: &InputRead) -> Result<Option<(WorkerId, bool)>> {
    let mut select = connection.prepare_cached(output::STATE)?;
    let key = read.key;
    let found = select.query_row(params![key.job.as_bytes(), int(key.lease.0), key.rank.0], |row| {
        Ok((worker_id(row, 0)?, row.get(1)?))
    });
    found.optional()
}

fn read_input(connection: &Connection, read: &InputRead) -> Result<InputPage> {
    match holder(connection, read)? {
        Some((worker, true)) if worker == read.worker => {}
        Some((worker, false)) if worker == read.worker => return Ok(InputPage::Stale),
        _ => return Ok(InputPage::NotHolder),
    }
    let Some(log) = log(connection, read.key.job)? else {
        return Ok(InputPage::Data {
            data: Vec::new(),
            last: true,
        });
    };
    let mut data = Vec::new();
    let mut select = connection.prepare_cached(READ)?;
    let mut rows = select.query(params![log.source.as_bytes(), int(read.offset)])?;
    while data.len() < read.max_bytes
        && let Some(row) = rows.next()?
    {
        let part = row.get_ref(1)?.as_blob()?;
        let known = usize::try_from(read.offset.saturating_sub(uint(row, 0)?)).unwrap_or(usize::MAX);
        let fresh = part.get(known..).unwrap_or_default();
        let room = read.max_bytes - data.len();
        data.extend_from_slice(&fresh[..fresh.len().min(room)]);
    }
    let last = log.complete && read.offset.saturating_add(data.len() as u64) >= log.end;
    Ok(InputPage::Data { data, last })
}

#[async_trait]
impl InputStore for SqliteStore {
    async fn append_input(
        &self,
        parts: Vec<InputAppend>,
    ) -> std::result::Result<Vec<InputOutcome>, StoreError> {
        perform!(self, Op::Input(parts), Input)
    }

    async fn read_input(&self, read: InputRead) -> std::result::Result<InputPage, StoreError> {
        self.read(move |connection| read_input(connection, &read)).await
    }
}
