//! Removing what is old, a bounded number of rows in each transaction.

use async_trait::async_trait;
use hodei_server_application::ports::StoreError;
use hodei_server_application::ports::retention::{Expiry, Retention};
use hodei_server_domain::job::spec::JobSpec;
use hodei_shared::ids::{JobId, ObjectId};
use rusqlite::{OptionalExtension, Result, params};

use super::SqliteStore;
use super::core::Change;
use super::op::{Op, perform};
use super::value::{count, from_json, job_id, object_id};

pub(super) const OLDEST_OUTPUT: &str = "SELECT id FROM job_ended
     WHERE output_expired = 0 AND ended_at < ?1 ORDER BY ended_at, id LIMIT 1";
pub(super) const OLDEST_JOB: &str =
    "SELECT id FROM job_ended WHERE ended_at < ?1 ORDER BY ended_at, id LIMIT 1";
pub(super) const OLD_SUBMISSIONS: &str = "DELETE FROM submission WHERE (namespace, request_id) IN (
         SELECT namespace, request_id FROM submission WHERE at < ?1 ORDER BY at LIMIT ?2)";
pub(super) const TAILS_OF_JOB: &str = "DELETE FROM output_tail WHERE rowid IN (
         SELECT rowid FROM output_tail WHERE job = ?1 LIMIT ?2)";
pub(super) const BLOCKS_OF_JOB: &str =
    "SELECT lease, rank, start, object FROM output_block WHERE job = ?1 LIMIT ?2";
pub(super) const EVENTS_OF_JOB: &str = "DELETE FROM event WHERE position IN (
         SELECT position FROM event WHERE job = ?1 LIMIT ?2)";
/// The input that a job reads, unless another job reads it too.
pub(super) const INPUT_OF_JOB: &str = "DELETE FROM input_part WHERE rowid IN (
         SELECT input_part.rowid FROM input_log
         JOIN input_part ON input_part.job = input_log.source
         WHERE input_log.job = ?1
           AND NOT EXISTS (
               SELECT 1 FROM input_log AS other WHERE other.source = input_log.source AND other.job <> ?1
           )
         LIMIT ?2)";
/// The rows of a job that are few.
pub(super) const ROWS_OF_JOB: [&str; 6] = [
    "DELETE FROM input_log WHERE job = ?1",
    "DELETE FROM output_log WHERE job = ?1",
    "DELETE FROM placement WHERE job = ?1",
    "DELETE FROM attempt WHERE job = ?1",
    "DELETE FROM job WHERE id = ?1",
    "DELETE FROM job_ended WHERE id = ?1",
];

impl Change<'_> {
    pub(super) fn expire(&mut self, expiry: Expiry, max_rows: usize) -> Result<usize> {
        let (oldest, before_ms) = match expiry {
            Expiry::Output { ended_before_ms } => (OLDEST_OUTPUT, ended_before_ms),
            Expiry::Jobs { ended_before_ms } => (OLDEST_JOB, ended_before_ms),
            Expiry::Submissions { before_ms } => {
                let mut delete = self.connection.prepare_cached(OLD_SUBMISSIONS)?;
                return delete.execute(params![before_ms, count(max_rows)]);
            }
        };
        let mut removed = 0;
        while removed < max_rows {
            let mut select = self.connection.prepare_cached(oldest)?;
            let next = select.query_row([before_ms], |row| job_id(row, 0)).optional()?;
            let Some(job) = next else { break };
            removed += match expiry {
                Expiry::Output { .. } => self.expire_output(job, max_rows - removed)?,
                _ => self.remove_job(job, max_rows - removed)?,
            };
        }
        Ok(removed)
    }

    /// Removes the output of a job, at most `max_rows` of it, and marks the job when all is gone.
    fn expire_output(&self, job: JobId, max_rows: usize) -> Result<usize> {
        let removed = self.remove_output(job, max_rows)?;
        if removed == max_rows {
            return Ok(removed);
        }
        self.connection
            .prepare_cached("UPDATE output_log SET expired = 1, tail_bytes = 0 WHERE job = ?1")?
            .execute([job.as_bytes()])?;
        self.connection
            .prepare_cached("UPDATE job_ended SET output_expired = 1 WHERE id = ?1")?
            .execute([job.as_bytes()])?;
        Ok(removed + 1)
    }

    /// Removes a job when all that may be much of it is gone.
    fn remove_job(&self, job: JobId, max_rows: usize) -> Result<usize> {
        let mut removed = self.remove_output(job, max_rows)?;
        for sql in [EVENTS_OF_JOB, INPUT_OF_JOB] {
            let mut delete = self.connection.prepare_cached(sql)?;
            removed += delete.execute(params![job.as_bytes(), count(max_rows - removed)])?;
        }
        if removed == max_rows {
            return Ok(removed);
        }
        removed += self.remove_labels(job)?;
        for sql in ROWS_OF_JOB {
            removed += self.connection.prepare_cached(sql)?.execute([job.as_bytes()])?;
        }
        Ok(removed)
    }

    /// Removes at most `max_rows` rows; fewer are all there were.
    fn remove_output(&self, job: JobId, max_rows: usize) -> Result<usize> {
        let removed = self
            .connection
            .prepare_cached(TAILS_OF_JOB)?
            .execute(params![job.as_bytes(), count(max_rows)])?;
        let mut select = self.connection.prepare_cached(BLOCKS_OF_JOB)?;
        let blocks: Vec<(i64, u32, i64, ObjectId)> = select
            .query_map(params![job.as_bytes(), count(max_rows - removed)], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, object_id(row, 3)?))
            })?
            .collect::<Result<_>>()?;
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM output_block WHERE job = ?1 AND lease = ?2 AND rank = ?3 AND start = ?4",
        )?;
        let mut release = self
            .connection
            .prepare_cached("UPDATE output_object SET blocks = blocks - 1 WHERE id = ?1")?;
        for (lease, rank, start, object) in &blocks {
            delete.execute(params![job.as_bytes(), lease, rank, start])?;
            release.execute([object.as_bytes()])?;
        }
        Ok(removed + blocks.len())
    }

    /// Labels are found by their pair, not by their job.
    fn remove_labels(&self, job: JobId) -> Result<usize> {
        let spec: Option<(String, JobSpec)> = self
            .connection
            .prepare_cached("SELECT namespace, spec FROM job WHERE id = ?1")?
            .query_row([job.as_bytes()], |row| Ok((row.get(0)?, from_json(row, 1)?)))
            .optional()?;
        let Some((namespace, spec)) = spec else {
            return Ok(0);
        };
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM job_label WHERE namespace = ?1 AND key = ?2 AND value = ?3 AND job = ?4",
        )?;
        let mut removed = 0;
        for (key, value) in spec.labels.iter() {
            removed += delete.execute(params![namespace, key, value, job.as_bytes()])?;
        }
        Ok(removed)
    }
}

#[async_trait]
impl Retention for SqliteStore {
    async fn expire(&self, expiry: Expiry, max_rows: usize) -> std::result::Result<usize, StoreError> {
        perform!(self, Op::Expire(expiry, max_rows), Expire)
    }
}
